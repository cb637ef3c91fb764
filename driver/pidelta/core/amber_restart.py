"""AMBER restart and coordinate files in text (https://ambermd.org/FileFormats.php, "Restart file").

A title; the number of atoms, perhaps with the time and the temperature; six coordinates a line in columns of
12; perhaps velocities, likewise; perhaps the lengths of the box, with or without its angles.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from pidelta.core.text_fields import is_number
from pidelta.errors import StructureError
from pidelta.state import FloatArray

_WIDTH = 12
_PER_LINE = 6
_TRAJECTORY = re.compile(r"( *-?\d*\.\d{3}){2,10}\s*")


def read_restart(path: Path, *, periodic: bool) -> tuple[FloatArray, FloatArray | None]:
    """Read positions (N, 3) in angstrom and the box, or None.

    Args:
        path: the file.
        periodic: whether the system has a box, to tell a box from the velocities of one or two atoms.

    Returns:
        the box as its three lengths in angstrom, with or without three angles in degrees after them.

    Raises:
        StructureError: the file is malformed, cut off, or a trajectory (mdcrd).
    """
    lines = path.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    count = _number_of_atoms(path, lines)
    size = -(-3 * count // _PER_LINE)
    body = [line.rstrip() for line in lines[2:]]
    positions = _columns(path, body[:size], 3 * count)
    rest = body[size:]
    n_velocities, n_boxes = _layout(rest, count, size, periodic=periodic)
    if len(rest) != n_velocities + n_boxes:
        raise StructureError(
            f"{path}: expected {size} lines of positions of {count} atoms, perhaps as many of velocities and "
            f"one of the box, found {len(body)}"
        )
    if n_velocities:
        _columns(path, rest[:n_velocities], 3 * count, what="velocity")
    return positions.reshape(-1, 3), _box(path, rest[-1]) if n_boxes else None


def _layout(rest: list[str], count: int, size: int, *, periodic: bool) -> tuple[int, int]:
    """Lines of velocities and of the box after the positions, which are `size` lines."""
    if not rest:
        return 0, 0
    if len(rest) > size:
        return size, 1
    if len(rest) == 1 < size:
        return 0, 1
    if size == 1 and (periodic or len(rest[0].split()) != 3 * count):  # of one or two atoms
        return 0, 1
    return size, 0


def _number_of_atoms(path: Path, lines: list[str]) -> int:
    words = lines[1].split() if len(lines) > 1 else []
    if len(lines) > 1 and _TRAJECTORY.fullmatch(lines[1]):
        raise StructureError(
            f"{path}: expected one structure with the number of atoms in its second line, found what looks "
            "like an AMBER trajectory (mdcrd); cpptraj writes restarts from it"
        )
    if not words or not words[0].isdigit() or int(words[0]) == 0:
        found = repr(lines[1]) if len(lines) > 1 else f"{len(lines)} lines"
        raise StructureError(f"{path}: expected the number of atoms in the second line, found {found}")
    return int(words[0])


def _columns(path: Path, lines: list[str], count: int, *, what: str = "coordinate") -> FloatArray:
    """(count,) numbers in columns of 12."""
    values = []
    for index in range(count):
        row, column = divmod(index, _PER_LINE)
        line = lines[row] if row < len(lines) else ""
        text = line[column * _WIDTH : (column + 1) * _WIDTH]
        if len(text) < _WIDTH or not is_number(text):
            raise StructureError(
                f"{path}: expected a {what} in {_WIDTH} columns, found {text!r} at atom {index // 3}"
            )
        values.append(float(text))
    return np.array(values)


def _box(path: Path, line: str) -> FloatArray:
    """Three or six numbers; some programs separate them in another way than by columns."""
    words = line.split()
    if len(line) in (3 * _WIDTH, 6 * _WIDTH):
        words = [line[start : start + _WIDTH] for start in range(0, len(line), _WIDTH)]
    if len(words) not in (3, 6) or not all(is_number(word) for word in words):
        raise StructureError(
            f"{path}: expected a box of three lengths, or of three lengths and three angles, found {line!r}"
        )
    return np.array([float(word) for word in words])
