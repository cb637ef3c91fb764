"""The protocol against messages packed here by hand from the layout in i-PI's sources."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pidelta.errors import ProtocolError, TransportError
from pidelta.ipi.protocol import Connection, Exit, GetForce, Init, PosData, Status, encode_forces

RNG = np.random.default_rng(7)
N = 3
CELLS = RNG.normal(size=(2, 3, 3))
POSITIONS = RNG.normal(size=(2, N, 3))


def init(text, rid=5):
    return b"INIT        " + struct.pack("=ii", rid, len(text)) + text


def columns(cell):
    """A cell as i-PI sends it: vectors as columns, in row-major order, then its inverse."""
    return struct.pack("=9d", *cell.T.ravel()) + struct.pack("=9d", *np.linalg.inv(cell.T).ravel())


def single(positions, cell):
    count = struct.pack("=i", len(positions))
    return b"POSDATA     " + columns(cell) + count + struct.pack(f"={positions.size}d", *positions.ravel())


def batched(positions, cells):
    count = struct.pack("=i", positions.shape[1])
    matrices = b"".join(columns(cell) for cell in cells)
    return b"POSDATA     " + count + matrices + struct.pack(f"={positions.size}d", *positions.ravel())


SINGLE = b"STATUS      " + init(b"k : 1.0") + b"STATUS      " + single(POSITIONS[0], CELLS[0])
SINGLE += b"STATUS      GETFORCE    STATUS      EXIT        "
BATCHED = b"STATUS      " + init(b"k : 1.0, batch_size:2") + b"STATUS      " + batched(POSITIONS, CELLS)
BATCHED += b"STATUS      GETFORCE    STATUS      EXIT        "


def describe(events):
    return [
        (type(e), e.positions.tobytes(), e.cells.tobytes()) if isinstance(e, PosData) else e for e in events
    ]


@pytest.mark.parametrize(("stream", "batch"), [(SINGLE, 1), (BATCHED, 2)])
def test_conversation(stream, batch):
    events = Connection(N).receive(stream)
    replies = [event.reply for event in events if isinstance(event, Status)]
    assert replies == [b"NEEDINIT    ", b"READY       ", b"HAVEDATA    ", b"READY       "]
    kinds = [Status, Init, Status, PosData, Status, GetForce, Status, Exit]
    assert [type(event) for event in events] == kinds
    assert (events[1].rid, events[1].batch_size) == (5, batch)
    np.testing.assert_array_equal(events[3].positions, POSITIONS[:batch])
    np.testing.assert_array_equal(events[3].cells, CELLS[:batch])


@pytest.mark.parametrize("stream", [SINGLE, BATCHED])
def test_cut_at_every_position(stream):
    expected = describe(Connection(N).receive(stream))
    for cut in range(len(stream) + 1):
        connection = Connection(N)
        events = connection.receive(stream[:cut]) + connection.receive(stream[cut:])
        assert describe(events) == expected
        assert connection.closed


@pytest.mark.parametrize("stream", [SINGLE, BATCHED])
def test_byte_by_byte(stream):
    connection = Connection(N)
    events = [event for i in range(len(stream)) for event in connection.receive(stream[i : i + 1])]
    assert describe(events) == describe(Connection(N).receive(stream))


@pytest.mark.parametrize("stream", [SINGLE, BATCHED])
def test_end_of_file_is_clean_only_between_messages(stream):
    batch = 1 if stream is SINGLE else 2
    posdata = len(single(POSITIONS[0], CELLS[0])) if batch == 1 else len(batched(POSITIONS, CELLS))
    text = b"k : 1.0" if batch == 1 else b"k : 1.0, batch_size:2"
    lengths = [12, len(init(text)), 12, posdata, 12, 12, 12, 12]
    boundaries = {0, *np.cumsum(lengths).tolist()}
    for cut in range(len(stream) + 1):
        connection = Connection(N)
        connection.receive(stream[:cut])
        if cut in boundaries:
            connection.receive_end()
            assert connection.closed
        else:
            with pytest.raises(TransportError, match=r"broke inside .* expected \d+ more bytes, found none"):
                connection.receive_end()


def test_bytes_after_exit_are_ignored():
    connection = Connection(N)
    assert connection.receive(b"EXIT        GARBAGE, of any length") == [Exit()]
    assert connection.receive(b"more") == []
    connection.receive_end()


def test_no_atoms_wanted_at_once_is_no_deadlock():
    events = Connection(N).receive(init(b"") + b"STATUS      ")
    assert [type(event) for event in events] == [Init, Status]


INITIALISED = init(b"")


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"HELLO WORLD ", "unknown header: expected STATUS, .* found b'HELLO WORLD '"),
        (b"GETFORCE    ", "GETFORCE: expected POSDATA before it"),
        (single(POSITIONS[0], CELLS[0]), "POSDATA: expected INIT before it"),
        (
            INITIALISED + single(RNG.normal(size=(4, 3)), CELLS[0]),
            "expected 3 as in the structure, i-PI sent 4",
        ),
        (init(b"batch_size:2") + batched(RNG.normal(size=(2, 2, 3)), CELLS), "expected 3 .* i-PI sent 2"),
        (INITIALISED + single(POSITIONS[0], CELLS[0]) + 2 * b"GETFORCE    ", "GETFORCE: expected POSDATA"),
        (b"INIT        " + struct.pack("=ii", 0, -1), "INIT with a wrong length: .* found -1"),
        (b"INIT        " + struct.pack("=ii", 0, 2**30), "INIT with a wrong length"),
        (init(b"batch_size: two"), "wrong batch_size: .* found 'two'"),
        (init(b"batch_size:0"), "wrong batch_size: .* found '0'"),
    ],
)
def test_violations(stream, message):
    with pytest.raises(ProtocolError, match=message) as caught:
        Connection(N).receive(stream)
    assert "\n" not in str(caught.value)


def test_single_reply_bytes():
    forces, virial = RNG.normal(size=(1, N, 3)), RNG.normal(size=(1, 3, 3))
    extra = '{"unit": "Å"}'.encode()
    expected = b"FORCEREADY  " + struct.pack("=di", -1.5, N) + struct.pack("=9d", *forces.ravel())
    expected += struct.pack("=9d", *virial.ravel()) + struct.pack("=i", 14) + extra
    assert encode_forces(np.array([-1.5]), forces, virial, [extra]) == expected


def test_batched_reply_bytes():
    # A transposed view: not contiguous in memory.
    forces = RNG.normal(size=(3, N, 2)).transpose(2, 1, 0)
    virials = RNG.normal(size=(2, 3, 3))
    expected = b"FORCEREADY  " + struct.pack("=2d", 1.0, 2.0) + struct.pack("=i", N)
    expected += b"".join(struct.pack("=d", x) for x in forces.ravel())
    expected += struct.pack("=18d", *virials.ravel()) + struct.pack("=i", 1) + b"a" + struct.pack("=i", 0)
    assert encode_forces(np.array([1.0, 2.0]), forces, virials, [b"a", b""]) == expected


@pytest.mark.parametrize("wrong", ["energies", "virials", "extras"])
def test_reply_shapes_are_checked(wrong):
    reply = {
        "energies": np.zeros(2),
        "forces": np.zeros((2, N, 3)),
        "virials": np.zeros((2, 3, 3)),
        "extras": [b"", b""],
    }
    reply[wrong] = reply[wrong][:1]
    with pytest.raises(ValueError, match=wrong):
        encode_forces(**reply)
