"""The embedding that frames were cut with, as files remember it, and where two differ."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pidelta.units import NANOMETER

_LENGTHS = ("cutoff", "switch")


def same(one: object, other: object) -> bool:
    """Whether two settings are equal, lengths but for rounding: ``2 angstrom`` is not quite ``0.2 nm``."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6)
    return one == other


def difference(expected: Mapping[str, object], found: Mapping[str, object]) -> tuple[str, str, str] | None:
    """The first key in which two embeddings differ, and both values as a user writes them; None if none does.

    Args:
        expected, found: settings by key, lengths in bohr.
    """
    keys = sorted(expected.keys() | found.keys(), key=lambda key: (key != "scheme", key))
    for key in keys:
        if not same(expected.get(key), found.get(key)):
            return key, _text(key, expected.get(key)), _text(key, found.get(key))
    return None


def _text(key: str, value: object) -> str:
    if value is None:
        return "none"
    return f"{value / NANOMETER:.6g} nm" if key in _LENGTHS and isinstance(value, float) else str(value)
