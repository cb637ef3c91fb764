"""Bonds, angles, dihedrals, CMAP and 1-4 pairs: kernels over the tables of a topology.

Every distance vector is a nearest image, so molecules may be broken across the cell. A kernel returns its
energy and adds to `gradient` (N, 3), dE/dR, and `strain` (3, 3), dE/d(strain). Without periodicity, `cell`
and its `inverse` are zero.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from typing import Any

import numpy as np

from pidelta.core.compilation import compiled
from pidelta.core.vectors import add, add_outer, cross, dot, scale, vector
from pidelta.mm.cmap import add_cmaps
from pidelta.mm.dihedrals import add_dihedral_gradient, dihedral
from pidelta.mm.nonbonded import lennard_jones_pair
from pidelta.mm.topology import Harmonic, Topology
from pidelta.state import FloatArray

COMPONENTS = (
    "bond", "quartic_bond", "morse_bond", "angle", "urey_bradley", "torsion", "improper", "cmap", "lj14",
    "coulomb14",
)  # fmt: skip

_compiled = compiled(nogil=True, error_model="numpy")


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
        Energies in hartree of the COMPONENTS.
    """
    lattice = np.zeros((3, 3)) if cell is None else cell
    inverse = np.zeros((3, 3)) if cell is None else np.linalg.inv(cell)
    common = (lattice, inverse, gradient, strain)

    def harmonic(kernel: Any, terms: Harmonic) -> float:
        return float(kernel(x, terms.atoms, terms.k, terms.x0, *common))

    quartic, morse, cmaps = topology.quartic_bonds, topology.morse_bonds, topology.cmaps
    torsions, pairs = topology.torsions, topology.pairs14
    torsion = _add_torsions(x, torsions.atoms, torsions.k, torsions.periodicity, torsions.phase, *common)
    lj14, coulomb14 = _add_pairs14(
        x, pairs.atoms, pairs.c6, pairs.c12, pairs.coulomb_scale, topology.charges, *common
    )
    return (
        harmonic(_add_bonds, topology.bonds),
        _add_quartic_bonds(x, quartic.atoms, quartic.k2, quartic.k3, quartic.k4, quartic.x0, *common),
        _add_morse_bonds(x, morse.atoms, morse.depth, morse.beta, morse.x0, *common),
        harmonic(_add_angles, topology.angles),
        harmonic(_add_bonds, topology.urey_bradley),
        torsion,
        harmonic(_add_impropers, topology.impropers),
        add_cmaps(x, cmaps.atoms, cmaps.maps, cmaps.derivatives, *common),
        lj14,
        coulomb14,
    )


@_compiled
def _add_pair(slope, i, j, d, r, gradient, strain):
    """Chain rule of a distance."""
    g = scale(slope / r, d)
    add(gradient, j, 1.0, g)
    add(gradient, i, -1.0, g)
    add_outer(strain, g, d)


@_compiled
def _add_bonds(x, atoms, k, x0, cell, inverse, gradient, strain):
    """Harmonic distances: bonds and Urey-Bradley terms."""
    energy = 0.0
    for t in range(len(atoms)):
        i, j = atoms[t]
        d = vector(x, i, j, cell, inverse)
        r = np.sqrt(dot(d, d))
        energy += 0.5 * k[t] * (r - x0[t]) ** 2
        _add_pair(k[t] * (r - x0[t]), i, j, d, r, gradient, strain)
    return energy


@_compiled
def _add_quartic_bonds(x, atoms, k2, k3, k4, x0, cell, inverse, gradient, strain):
    energy = 0.0
    for t in range(len(atoms)):
        i, j = atoms[t]
        d = vector(x, i, j, cell, inverse)
        r = np.sqrt(dot(d, d))
        u = r - x0[t]
        energy += u * u * (k2[t] + u * (k3[t] + u * k4[t]))
        slope = u * (2.0 * k2[t] + u * (3.0 * k3[t] + u * 4.0 * k4[t]))
        _add_pair(slope, i, j, d, r, gradient, strain)
    return energy


@_compiled
def _add_morse_bonds(x, atoms, depth, beta, x0, cell, inverse, gradient, strain):
    energy = 0.0
    for t in range(len(atoms)):
        i, j = atoms[t]
        d = vector(x, i, j, cell, inverse)
        r = np.sqrt(dot(d, d))
        decay = np.exp(-beta[t] * (r - x0[t]))
        energy += depth[t] * (1.0 - decay) ** 2
        slope = 2.0 * depth[t] * beta[t] * (1.0 - decay) * decay
        _add_pair(slope, i, j, d, r, gradient, strain)
    return energy


@_compiled
def _add_angles(x, atoms, k, x0, cell, inverse, gradient, strain):
    """Harmonic angles; the middle atom is the apex."""
    energy = 0.0
    for t in range(len(atoms)):
        i, j, l = atoms[t]  # noqa: E741
        u, v = vector(x, j, i, cell, inverse), vector(x, j, l, cell, inverse)
        normal = cross(u, v)
        # atan2 keeps its accuracy near 0 and pi, where acos loses it; the floor avoids 0/0 there
        sine = max(np.sqrt(dot(normal, normal)), 1e-12)
        theta = np.arctan2(sine, dot(u, v))
        energy += 0.5 * k[t] * (theta - x0[t]) ** 2
        slope = k[t] * (theta - x0[t]) / sine
        gi = scale(slope / dot(u, u), cross(u, normal))
        gl = scale(slope / dot(v, v), cross(normal, v))
        add(gradient, i, 1.0, gi)
        add(gradient, l, 1.0, gl)
        add(gradient, j, -1.0, gi)
        add(gradient, j, -1.0, gl)
        add_outer(strain, gi, u)
        add_outer(strain, gl, v)
    return energy


@_compiled
def _add_torsions(x, atoms, k, periodicity, phase, cell, inverse, gradient, strain):
    """Periodic dihedrals."""
    energy = 0.0
    for t in range(len(atoms)):
        b1, b2, b3, m, n, phi = dihedral(x, atoms[t], cell, inverse)
        argument = periodicity[t] * phi - phase[t]
        energy += k[t] * (1.0 + np.cos(argument))
        slope = -k[t] * periodicity[t] * np.sin(argument)
        add_dihedral_gradient(slope, atoms[t], b1, b2, b3, m, n, gradient, strain)
    return energy


@_compiled
def _add_impropers(x, atoms, k, x0, cell, inverse, gradient, strain):
    """Harmonic dihedrals, with the deviation taken modulo 2 pi."""
    energy = 0.0
    for t in range(len(atoms)):
        b1, b2, b3, m, n, phi = dihedral(x, atoms[t], cell, inverse)
        deviation = phi - x0[t]
        deviation -= 2.0 * np.pi * np.rint(deviation / (2.0 * np.pi))
        energy += 0.5 * k[t] * deviation**2
        add_dihedral_gradient(k[t] * deviation, atoms[t], b1, b2, b3, m, n, gradient, strain)
    return energy


@_compiled
def _add_pairs14(x, atoms, c6, c12, coulomb_scale, charges, cell, inverse, gradient, strain):
    """Lennard-Jones and bare Coulomb of listed pairs; returns both energies."""
    lj = coulomb = 0.0
    for t in range(len(atoms)):
        i, j = atoms[t]
        d = vector(x, i, j, cell, inverse)
        r2 = dot(d, d)
        energy, slope = lennard_jones_pair(r2, c6[t], c12[t])
        pair_coulomb = coulomb_scale[t] * charges[i] * charges[j] / np.sqrt(r2)
        lj += energy
        coulomb += pair_coulomb
        g = scale(slope - pair_coulomb / r2, d)
        add(gradient, j, 1.0, g)
        add(gradient, i, -1.0, g)
        add_outer(strain, g, d)
    return lj, coulomb
