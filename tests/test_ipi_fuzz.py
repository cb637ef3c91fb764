"""Bytes that i-PI would never send: examples by hypothesis, and those that a fuzzer has found."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from any_bytes import N_ATOMS, check, conversation
from pidelta.ipi.protocol import Exit

CORPUS = sorted((Path(__file__).parent / "fuzz" / "corpus").iterdir())
integers = st.one_of(
    st.sampled_from([0, 1, N_ATOMS, -1, 2**31 - 1, -(2**31)]), st.integers(-(2**31), 2**31 - 1)
).map(lambda value: struct.pack("=i", value))
parameters = st.one_of(
    st.text(max_size=20),
    st.integers().map("batch_size:{}".format),
    st.sampled_from(["batch_size:2", "terms:mm"]),
).map(lambda text: struct.pack("=i", len(text.encode())) + text.encode())
names = st.sampled_from([b"a", b"ipi_shm_1_2_pos", b"../b", b""]).map(lambda s: struct.pack("=i", len(s)) + s)


def doubles(count):
    """Any bits, and those that spell the numbers which trouble programs most."""
    worst = st.sampled_from([np.nan, np.inf, 1e300, 0.0]).map(lambda value: struct.pack("=d", value) * count)
    return st.one_of(st.binary(min_size=8 * count, max_size=8 * count), worst)


def posdata(batch):
    matrices, count = doubles(18 * batch), st.just(struct.pack("=i", N_ATOMS))
    parts = (matrices, count) if batch == 1 else (count, matrices)
    return st.tuples(st.just(b"POSDATA     "), *parts, doubles(3 * N_ATOMS * batch)).map(b"".join)


messages = st.one_of(
    st.sampled_from([b"STATUS      ", b"GETFORCE    ", b"EXIT        ", b"POSDATA     ", b"INIT        "]),
    st.tuples(st.just(b"INIT        "), integers, parameters).map(b"".join),
    posdata(1),
    posdata(2),
    st.tuples(st.just(b"POSDATA     "), integers, names, names, names, names, names, names).map(b"".join),
    integers,
    names,
    st.binary(max_size=30),
)
streams = st.tuples(st.binary(min_size=1, max_size=1), st.lists(messages, max_size=8).map(b"".join)).map(
    b"".join
)


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(streams)
def test_any_bytes(data):
    check(data)


@settings(derandomize=True, max_examples=200, deadline=None, database=None)
@given(st.lists(st.one_of(posdata(1), st.just(b"STATUS      ")), max_size=4), st.integers(1, 400))
def test_whatever_numbers_are_positions(requests, step):
    """NaN, infinities and 1e300 are no business of the parser."""
    data = b"INIT        " + struct.pack("=ii", 0, 0) + b"".join(requests) + b"EXIT        "
    events, end = conversation(data, step, shared_memory=False)
    assert (len(events), events[-1], end) == (len(requests) + 2, Exit(), "closed")


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_corpus(path):
    check(path.read_bytes())
