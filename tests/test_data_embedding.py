"""Where two embeddings differ, as a user reads it."""

from __future__ import annotations

import pytest

from pidelta.data.embedding import difference
from pidelta.units import parse_quantity

CUTOFF = {"scheme": "cutoff", "cutoff": parse_quantity("1.2 nm", "length"), "switch": 4.0}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (CUTOFF, None),
        (CUTOFF | {"cutoff": parse_quantity("12 angstrom", "length")}, None),
        (CUTOFF | {"cutoff": parse_quantity("1.4 nm", "length")}, ("cutoff", "1.2 nm", "1.4 nm")),
        ({"scheme": "fixed"}, ("scheme", "cutoff", "fixed")),
        (CUTOFF | {"groups": "listed"}, ("groups", "none", "listed")),
    ],
    ids=["same", "units", "cutoff", "scheme", "groups"],
)
def test_the_first_difference_is_named(found, expected):
    assert difference(CUTOFF, found) == expected
