"""The last line of a GROMACS .gro file: the cell.

ParmEd keeps lengths and angles of it, which turns a cell that is not lower triangular, but not the atoms.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pidelta.errors import StructureError
from pidelta.state import FloatArray

_ROWS = [[0, 3, 4], [5, 1, 6], [7, 8, 2]]
"""Where x, y, z of the three vectors stand: v1x v2y v3z v1y v1z v2x v2z v3x v3y."""


def refuse_bad_box(path: Path, lines: list[str]) -> None:
    """A file that was cut off, or has a box of neither 3 nor 9 words, raises a StructureError."""
    words = _box_words(lines)
    if len(words) < 3:
        raise StructureError(f"{path}: expected {int(lines[1])} atoms and the box, found {len(lines)} lines")
    if len(words) not in (3, 9):
        raise StructureError(f"{path}: expected 3 or 9 numbers of the box, found {' '.join(words)!r}")


def gro_box(lines: list[str]) -> FloatArray:
    """The box in angstrom: lengths and angles (6,) of three numbers, lattice rows (3, 3) of nine.

    Raises:
        ValueError: a word is no number.
    """
    numbers = 10.0 * np.array([float(word) for word in _box_words(lines)])
    return np.append(numbers[:3], [90.0] * 3) if len(numbers) < 9 else numbers[_ROWS]


def _box_words(lines: list[str]) -> list[str]:
    """The words of the line after the atoms, none where a file is cut off."""
    return "".join(lines[int(lines[1]) + 2 :][:1]).split()
