"""Periodic cells, orthorhombic or triclinic: heights, wrapping and nearest images.

Cells are (3, 3) with lattice vectors as rows, in bohr, of either handedness.
"""

from __future__ import annotations

import numpy as np

from pidelta.errors import GeometryError
from pidelta.state import BoolArray, FloatArray

FARTHEST = 1.0e8
"""In bohr; beyond it double precision knows coordinates no better than to some 1e-8 bohr."""

_SMALLEST_VOLUME = 1e-9


def usable(positions: FloatArray) -> BoolArray:
    """Whether positions (..., 3) in bohr are numbers, and near enough to the origin to be exact: (...)."""
    return np.asarray((np.abs(positions) < FARTHEST).all(axis=-1))  # not so for nan


def all_usable(positions: FloatArray) -> bool:
    """Whether all positions are `usable`, found in one pass."""
    return not positions.size or bool(np.abs(positions).max() < FARTHEST)


def is_cell(cell: FloatArray) -> BoolArray:
    """Whether the rows of (..., 3, 3) in bohr are three independent vectors: (...)."""
    finite = np.asarray(usable(cell).all(axis=-1))
    vectors = np.where(finite[..., None, None], cell, 0.0)
    largest = np.maximum(1.0, np.linalg.norm(vectors, axis=-1).prod(axis=-1))
    return np.asarray(np.abs(np.linalg.det(vectors)) > _SMALLEST_VOLUME * largest)


def _inverse(cell: FloatArray) -> FloatArray:
    """Columns of reciprocal vectors: positions times these (..., 3, 3) are fractional coordinates.

    Raises:
        GeometryError: the rows of `cell` (..., 3, 3) in bohr are no three independent vectors.
    """
    if not is_cell(cell).all():
        found = np.asarray(cell).tolist()
        raise GeometryError(f"expected a cell of three independent lattice vectors, found {found}")
    return np.asarray(np.linalg.inv(cell))


def heights(cell: FloatArray) -> FloatArray:
    """Distances between opposite faces of a cell.

    Args:
        cell: (..., 3, 3) lattice vectors as rows in bohr.

    Returns:
        (..., 3) heights in bohr, in the order of the lattice vectors.

    Raises:
        GeometryError: they are no three independent vectors.
    """
    return np.asarray(1.0 / np.linalg.norm(_inverse(cell), axis=-2))


def wrapping_shifts(positions: FloatArray, cell: FloatArray) -> FloatArray:
    """Lattice vectors that bring positions into the cell.

    Args:
        positions: (N, 3) in bohr, anywhere.
        cell: (3, 3) lattice vectors as rows in bohr.

    Returns:
        (N, 3) in bohr: `positions` plus these lie in the cell.

    Raises:
        GeometryError: they are no three independent vectors.
    """
    return np.asarray(-np.floor(positions @ _inverse(cell)) @ cell)


def minimum_image(vectors: FloatArray, cell: FloatArray | None) -> FloatArray:
    """Replace distance vectors by their periodic image with fractional coordinates within [-1/2, 1/2].

    This is the shortest image whenever that is shorter than half of the smallest height of the cell, however
    skewed the cell: its fractional coordinates are at most |v| / height < 1/2, so rounding finds it. Longer
    ones keep their length only to within the shape of the cell.

    Args:
        vectors: (..., 3) in bohr.
        cell: (3, 3) lattice vectors as rows in bohr, or None, which changes nothing.

    Returns:
        (..., 3) in bohr.

    Raises:
        GeometryError: they are no three independent vectors.
    """
    if cell is None:
        return vectors
    return np.asarray(vectors - np.rint(vectors @ _inverse(cell)) @ cell)
