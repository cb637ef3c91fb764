"""Vectors between nearest images, compiled: what kernels share.

Without periodicity, `cell` and its `inverse` are zero.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np

from pidelta.core.compilation import compiled

_compiled = compiled(nogil=True, error_model="numpy")


@_compiled
def nearest(dx, dy, dz, cell, inverse):
    """The image of a vector whose fractional coordinates are within [-1/2, 1/2]; see `cell.minimum_image`."""
    a = np.rint(dx * inverse[0, 0] + dy * inverse[1, 0] + dz * inverse[2, 0])
    b = np.rint(dx * inverse[0, 1] + dy * inverse[1, 1] + dz * inverse[2, 1])
    c = np.rint(dx * inverse[0, 2] + dy * inverse[1, 2] + dz * inverse[2, 2])
    return (
        dx - a * cell[0, 0] - b * cell[1, 0] - c * cell[2, 0],
        dy - a * cell[0, 1] - b * cell[1, 1] - c * cell[2, 1],
        dz - a * cell[0, 2] - b * cell[1, 2] - c * cell[2, 2],
    )


@_compiled
def vector(x, i, j, cell, inverse):
    """Nearest image of x[j] - x[i]."""
    return nearest(x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2], cell, inverse)


@_compiled
def dot(u, v):
    """Scalar product."""
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


@_compiled
def cross(u, v):
    """Vector product."""
    return u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]


@_compiled
def scale(factor, v):
    """factor v."""
    return factor * v[0], factor * v[1], factor * v[2]


@_compiled
def add(array, i, factor, v):
    """Add factor v to array[i]."""
    array[i, 0] += factor * v[0]
    array[i, 1] += factor * v[1]
    array[i, 2] += factor * v[2]


@_compiled
def add_outer(strain, g, d):
    """Add the outer product of g = dE/dd and the vector d to dE/d(strain)."""
    add(strain, 0, g[0], d)
    add(strain, 1, g[1], d)
    add(strain, 2, g[2], d)
