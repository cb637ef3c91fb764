"""Periodic cells, orthorhombic or triclinic: heights, wrapping and nearest images.

Cells are (3, 3) with lattice vectors as rows, in bohr, of either handedness.
"""

from __future__ import annotations

import numpy as np

from pidelta.state import FloatArray


def heights(cell: FloatArray) -> FloatArray:
    """Distances between opposite faces of a cell.

    Args:
        cell: (..., 3, 3) lattice vectors as rows in bohr.

    Returns:
        (..., 3) heights in bohr, in the order of the lattice vectors.
    """
    return np.asarray(1.0 / np.linalg.norm(np.linalg.inv(cell), axis=-2))


def wrapping_shifts(positions: FloatArray, cell: FloatArray) -> FloatArray:
    """Lattice vectors that bring positions into the cell.

    Args:
        positions: (N, 3) in bohr, anywhere.
        cell: (3, 3) lattice vectors as rows in bohr.

    Returns:
        (N, 3) in bohr: `positions` plus these lie in the cell.
    """
    return np.asarray(-np.floor(positions @ np.linalg.inv(cell)) @ cell)


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
    """
    if cell is None:
        return vectors
    return np.asarray(vectors - np.rint(vectors @ np.linalg.inv(cell)) @ cell)
