"""Bonds, angles, dihedrals and 1-4 pairs: kernels over the tables of a topology.

Every distance vector is a nearest image, so molecules may be broken across the cell. A kernel returns its
energy and adds to `gradient` (N, 3), dE/dR, and `strain` (3, 3), dE/d(strain). Without periodicity, `cell`
and its `inverse` are zero.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from pidelta.mm.nonbonded import lennard_jones_pair
from pidelta.mm.topology import Harmonic, Topology
from pidelta.state import FloatArray

_compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


def add_bonded(
    x: FloatArray, cell: FloatArray | None, topology: Topology, gradient: FloatArray, strain: FloatArray
) -> tuple[float, ...]:
    """Add all bonded terms and 1-4 pairs.

    Args:
        x: (N, 3) positions in bohr, any atom in any image.
        cell: (3, 3) lattice vectors as rows in bohr, or None.
        topology: the terms.
        gradient: (N, 3) dE/dR is added to.
        strain: (3, 3) dE/d(strain) is added to.

    Returns:
        Energies in hartree of bonds, angles, Urey-Bradley terms, torsions, impropers, and Lennard-Jones and
        Coulomb of the 1-4 pairs.
    """
    lattice = np.zeros((3, 3)) if cell is None else cell
    inverse = np.zeros((3, 3)) if cell is None else np.linalg.inv(cell)
    common = (lattice, inverse, gradient, strain)

    def harmonic(kernel: Any, terms: Harmonic) -> float:
        return float(kernel(x, terms.atoms, terms.k, terms.x0, *common))

    torsions, pairs = topology.torsions, topology.pairs14
    torsion = _add_torsions(x, torsions.atoms, torsions.k, torsions.periodicity, torsions.phase, *common)
    lj14, coulomb14 = _add_pairs14(
        x, pairs.atoms, pairs.c6, pairs.c12, pairs.coulomb_scale, topology.charges, *common
    )
    return (
        harmonic(_add_bonds, topology.bonds),
        harmonic(_add_angles, topology.angles),
        harmonic(_add_bonds, topology.urey_bradley),
        torsion,
        harmonic(_add_impropers, topology.impropers),
        lj14,
        coulomb14,
    )


@_compiled
def _vector(x, i, j, cell, inverse):
    """Nearest image of x[j] - x[i]."""
    dx, dy, dz = x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2]
    a = np.rint(dx * inverse[0, 0] + dy * inverse[1, 0] + dz * inverse[2, 0])
    b = np.rint(dx * inverse[0, 1] + dy * inverse[1, 1] + dz * inverse[2, 1])
    c = np.rint(dx * inverse[0, 2] + dy * inverse[1, 2] + dz * inverse[2, 2])
    return (
        dx - a * cell[0, 0] - b * cell[1, 0] - c * cell[2, 0],
        dy - a * cell[0, 1] - b * cell[1, 1] - c * cell[2, 1],
        dz - a * cell[0, 2] - b * cell[1, 2] - c * cell[2, 2],
    )


@_compiled
def _dot(u, v):
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


@_compiled
def _cross(u, v):
    return u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]


@_compiled
def _scale(factor, v):
    return factor * v[0], factor * v[1], factor * v[2]


@_compiled
def _add(array, i, factor, v):
    array[i, 0] += factor * v[0]
    array[i, 1] += factor * v[1]
    array[i, 2] += factor * v[2]


@_compiled
def _add_outer(strain, g, d):
    _add(strain, 0, g[0], d)
    _add(strain, 1, g[1], d)
    _add(strain, 2, g[2], d)


@_compiled
def _add_bonds(x, atoms, k, x0, cell, inverse, gradient, strain):
    """Harmonic distances: bonds and Urey-Bradley terms."""
    energy = 0.0
    for t in range(len(atoms)):
        i, j = atoms[t]
        d = _vector(x, i, j, cell, inverse)
        r = np.sqrt(_dot(d, d))
        energy += 0.5 * k[t] * (r - x0[t]) ** 2
        g = _scale(k[t] * (r - x0[t]) / r, d)
        _add(gradient, j, 1.0, g)
        _add(gradient, i, -1.0, g)
        _add_outer(strain, g, d)
    return energy


@_compiled
def _add_angles(x, atoms, k, x0, cell, inverse, gradient, strain):
    """Harmonic angles; the middle atom is the apex."""
    energy = 0.0
    for t in range(len(atoms)):
        i, j, l = atoms[t]  # noqa: E741
        u, v = _vector(x, j, i, cell, inverse), _vector(x, j, l, cell, inverse)
        normal = _cross(u, v)
        # atan2 keeps its accuracy near 0 and pi, where acos loses it; the floor avoids 0/0 there
        sine = max(np.sqrt(_dot(normal, normal)), 1e-12)
        theta = np.arctan2(sine, _dot(u, v))
        energy += 0.5 * k[t] * (theta - x0[t]) ** 2
        slope = k[t] * (theta - x0[t]) / sine
        gi = _scale(slope / _dot(u, u), _cross(u, normal))
        gl = _scale(slope / _dot(v, v), _cross(normal, v))
        _add(gradient, i, 1.0, gi)
        _add(gradient, l, 1.0, gl)
        _add(gradient, j, -1.0, gi)
        _add(gradient, j, -1.0, gl)
        _add_outer(strain, gi, u)
        _add_outer(strain, gl, v)
    return energy


@_compiled
def _dihedral(x, atoms, cell, inverse):
    """Bond vectors, their normals and the dihedral angle (IUPAC sign, pi for trans)."""
    b1 = _vector(x, atoms[0], atoms[1], cell, inverse)
    b2 = _vector(x, atoms[1], atoms[2], cell, inverse)
    b3 = _vector(x, atoms[2], atoms[3], cell, inverse)
    m, n = _cross(b1, b2), _cross(b2, b3)
    phi = np.arctan2(np.sqrt(_dot(b2, b2)) * _dot(b1, n), _dot(m, n))
    return b1, b2, b3, m, n, phi


@_compiled
def _add_dihedral_gradient(slope, atoms, b1, b2, b3, m, n, gradient, strain):
    """Chain rule of a dihedral angle: Blondel, Karplus, J. Comput. Chem. 17, 1132 (1996), eq. 27."""
    length2 = _dot(b2, b2)
    length = np.sqrt(length2)
    # three atoms in line leave the angle undefined: the floor makes the gradient zero there, not NaN
    g1 = _scale(-slope * length / max(_dot(m, m), 1e-20), m)
    g4 = _scale(slope * length / max(_dot(n, n), 1e-20), n)
    along1, along4 = _dot(b1, b2) / length2, _dot(b3, b2) / length2
    for atom, weight1, weight4 in (
        (atoms[0], 1.0, 0.0),
        (atoms[1], -1.0 - along1, along4),
        (atoms[2], along1, -1.0 - along4),
        (atoms[3], 0.0, 1.0),
    ):
        _add(gradient, atom, weight1, g1)
        _add(gradient, atom, weight4, g4)
    # dE/d(strain) with the second atom as origin: g1 (x) -b1 + g3 (x) b2 + g4 (x) (b2 + b3)
    _add_outer(strain, g1, _scale(-1.0, b1))
    _add_outer(strain, g1, _scale(along1, b2))
    _add_outer(strain, g4, _scale(-along4, b2))
    _add_outer(strain, g4, b3)


@_compiled
def _add_torsions(x, atoms, k, periodicity, phase, cell, inverse, gradient, strain):
    """Periodic dihedrals."""
    energy = 0.0
    for t in range(len(atoms)):
        b1, b2, b3, m, n, phi = _dihedral(x, atoms[t], cell, inverse)
        argument = periodicity[t] * phi - phase[t]
        energy += k[t] * (1.0 + np.cos(argument))
        slope = -k[t] * periodicity[t] * np.sin(argument)
        _add_dihedral_gradient(slope, atoms[t], b1, b2, b3, m, n, gradient, strain)
    return energy


@_compiled
def _add_impropers(x, atoms, k, x0, cell, inverse, gradient, strain):
    """Harmonic dihedrals, with the deviation taken modulo 2 pi."""
    energy = 0.0
    for t in range(len(atoms)):
        b1, b2, b3, m, n, phi = _dihedral(x, atoms[t], cell, inverse)
        deviation = phi - x0[t]
        deviation -= 2.0 * np.pi * np.rint(deviation / (2.0 * np.pi))
        energy += 0.5 * k[t] * deviation**2
        _add_dihedral_gradient(k[t] * deviation, atoms[t], b1, b2, b3, m, n, gradient, strain)
    return energy


@_compiled
def _add_pairs14(x, atoms, c6, c12, coulomb_scale, charges, cell, inverse, gradient, strain):
    """Lennard-Jones and bare Coulomb of listed pairs; returns both energies."""
    lj = coulomb = 0.0
    for t in range(len(atoms)):
        i, j = atoms[t]
        d = _vector(x, i, j, cell, inverse)
        r2 = _dot(d, d)
        energy, slope = lennard_jones_pair(r2, c6[t], c12[t])
        pair_coulomb = coulomb_scale[t] * charges[i] * charges[j] / np.sqrt(r2)
        lj += energy
        coulomb += pair_coulomb
        g = _scale(slope - pair_coulomb / r2, d)
        _add(gradient, j, 1.0, g)
        _add(gradient, i, -1.0, g)
        _add_outer(strain, g, d)
    return lj, coulomb
