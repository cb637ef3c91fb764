"""Dihedral angles and their chain rule, compiled: what the kernels of `pidelta.mm` share.

Without periodicity, `cell` and its `inverse` are zero.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np

from pidelta.core.compilation import compiled
from pidelta.core.vectors import add, add_outer, cross, dot, scale, vector

_compiled = compiled(nogil=True, error_model="numpy")


@_compiled
def dihedral(x, atoms, cell, inverse):
    """Bond vectors, their normals and the dihedral angle (IUPAC sign, pi for trans)."""
    b1 = vector(x, atoms[0], atoms[1], cell, inverse)
    b2 = vector(x, atoms[1], atoms[2], cell, inverse)
    b3 = vector(x, atoms[2], atoms[3], cell, inverse)
    m, n = cross(b1, b2), cross(b2, b3)
    phi = np.arctan2(np.sqrt(dot(b2, b2)) * dot(b1, n), dot(m, n))
    return b1, b2, b3, m, n, phi


@_compiled
def add_dihedral_gradient(slope, atoms, b1, b2, b3, m, n, gradient, strain):
    """Chain rule of a dihedral angle: Blondel, Karplus, J. Comput. Chem. 17, 1132 (1996), eq. 27."""
    length2 = dot(b2, b2)
    length = np.sqrt(length2)
    # three atoms in line leave the angle undefined: the floor makes the gradient zero there, not NaN
    g1 = scale(-slope * length / max(dot(m, m), 1e-20), m)
    g4 = scale(slope * length / max(dot(n, n), 1e-20), n)
    along1, along4 = dot(b1, b2) / length2, dot(b3, b2) / length2
    for atom, weight1, weight4 in (
        (atoms[0], 1.0, 0.0),
        (atoms[1], -1.0 - along1, along4),
        (atoms[2], along1, -1.0 - along4),
        (atoms[3], 0.0, 1.0),
    ):
        add(gradient, atom, weight1, g1)
        add(gradient, atom, weight4, g4)
    # dE/d(strain) with the second atom as origin: g1 (x) -b1 + g3 (x) b2 + g4 (x) (b2 + b3)
    add_outer(strain, g1, scale(-1.0, b1))
    add_outer(strain, g1, scale(along1, b2))
    add_outer(strain, g4, scale(-along4, b2))
    add_outer(strain, g4, b3)
