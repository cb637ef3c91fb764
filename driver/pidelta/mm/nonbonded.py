"""Lennard-Jones and Coulomb interactions over a pair list.

Conventions are those of OpenMM's NonbondedForce (OpenMM user guide, section "NonbondedForce"): Coulomb by
reaction field, E = q_i q_j (1/r + k_rf r^2 - c_rf), nothing for excluded pairs; Lennard-Jones multiplied by a
C2 switch that ends at the cutoff, or shifted to be zero there, or cut.

The kernel handles a segment of the list (one atom and its partners) in passes over short buffers: distances,
Coulomb, Lennard-Jones of those partners that have one, forces. The first two passes then vectorise.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np

from pidelta.core.neighbours import PairList
from pidelta.mm.lennard_jones import LJModifier
from pidelta.mm.topology import Topology
from pidelta.state import FloatArray

_compiled = numba.njit(cache=True, nogil=True, error_model="numpy")
_reordered = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})


@dataclass(frozen=True)
class Truncation:
    """How pair interactions end.

    Attributes:
        cutoff: in bohr, infinite without truncation.
        switch: distance in bohr where the Lennard-Jones switch starts; infinite without one.
        shift6: cutoff^-6 in bohr^-6 where Lennard-Jones is shifted to zero at the cutoff, else 0.
        k_rf, c_rf: reaction field constants in bohr^-3 and bohr^-1.
    """

    cutoff: float = np.inf
    switch: float = np.inf
    k_rf: float = 0.0
    c_rf: float = 0.0
    shift6: float = 0.0

    @staticmethod
    def reaction_field(cutoff: float, switch: float, dielectric: float) -> Truncation:
        """Reaction field of a continuum of a given dielectric constant beyond the cutoff.

        Tironi, Sperb, Smith, van Gunsteren, J. Chem. Phys. 102, 5451 (1995), without ionic strength; with
        `dielectric` infinite the force vanishes at the cutoff, with 1 the potential is only shifted.
        """
        inverse = 1.0 / dielectric
        k_rf = (1.0 - inverse) / (2.0 + inverse) / cutoff**3
        return Truncation(cutoff, switch, k_rf, 3.0 / (2.0 + inverse) / cutoff)

    def end_lj(self, modifier: LJModifier) -> Truncation:
        """The same with Lennard-Jones switched, shifted to zero at the cutoff, or cut."""
        if modifier == "switch":
            return self
        shift6 = self.cutoff**-6 if modifier == "potential-shift" else 0.0
        return replace(self, switch=np.inf, shift6=shift6)


def add_pairs(
    x: FloatArray,
    pairs: PairList,
    topology: Topology,
    end: Truncation,
    gradient: FloatArray,
    strain: FloatArray,
) -> tuple[float, float]:
    """Add all listed pairs within the cutoff.

    Args:
        x: (N, 3) positions in bohr, as the list was made for.
        pairs: the list, exclusions left out.
        topology: charges and Lennard-Jones tables.
        end: how interactions end.
        gradient: (N, 3) dE/dR, zero before.
        strain: (3, 3) dE/d(strain), zero before.

    Returns:
        The Lennard-Jones and the Coulomb energy in hartree.
    """
    wrapped = x + pairs.offsets
    longest = int(np.diff(pairs.start).max(initial=0))
    has_lj = ((topology.lj_c6 != 0.0) | (topology.lj_c12 != 0.0)).any(axis=1)
    lj, coulomb = _add_segments(
        wrapped, pairs.first, pairs.translations, pairs.start, pairs.partners, longest,
        topology.charges, topology.lj_types, topology.lj_c6, topology.lj_c12, has_lj,
        end.cutoff, end.switch, end.shift6, end.k_rf, end.c_rf, gradient, strain,
    )  # fmt: skip
    # sum over pairs of slope d (x) d, with d = x_j + t - x_i: what does not hold t is a sum over atoms
    strain += gradient.T @ wrapped
    return lj, coulomb


@_compiled
def lennard_jones_pair(r2, c6, c12):
    """Energy c12/r^12 - c6/r^6 and its slope divided by r, from r^2."""
    inverse2 = 1.0 / r2
    inverse6 = inverse2 * inverse2 * inverse2
    repulsion, attraction = c12 * inverse6 * inverse6, c6 * inverse6
    return repulsion - attraction, (6.0 * attraction - 12.0 * repulsion) * inverse2


@_reordered
def _coulomb(r2, charge, charges, k_rf, c_rf, slopes):
    """Sum the energies, set the slopes divided by r; reordered sums let it vectorise."""
    energy = 0.0
    for m in range(len(r2)):
        inverse = 1.0 / np.sqrt(r2[m])
        qq = charge * charges[m]
        energy += qq * (inverse + k_rf * r2[m] - c_rf)
        slopes[m] = qq * (2.0 * k_rf - inverse * inverse * inverse)
    return energy


@_compiled
def _lennard_jones(r2, near, types, c6, c12, cutoff, switch, shift6, chosen, slopes):
    """Sum the energies, add the slopes divided by r; c6 and c12 are the rows of the first atom."""
    total = 0.0
    count = 0
    for m in range(len(r2)):
        kind = types[near[m]]
        chosen[count] = m
        count += (c6[kind] != 0.0) | (c12[kind] != 0.0)
    for m in chosen[:count]:
        kind = types[near[m]]
        energy, slope = lennard_jones_pair(r2[m], c6[kind], c12[kind])
        energy -= (c12[kind] * shift6 - c6[kind]) * shift6
        if r2[m] > switch * switch:
            r = np.sqrt(r2[m])
            u = (r - switch) / (cutoff - switch)
            step = 1.0 - u * u * u * (10.0 - 15.0 * u + 6.0 * u * u)
            step_slope = -30.0 * (u * (1.0 - u)) ** 2 / (cutoff - switch)
            slope = slope * step + energy * step_slope / r
            energy *= step
        total += energy
        slopes[m] += slope
    return total


@_compiled
def _add_segments(
    x, first, translations, start, partners, longest, charges, types, c6, c12, has_lj, cutoff, switch, shift6,
    k_rf, c_rf, gradient, strain,
):  # fmt: skip
    """Add to `gradient` (N, 3), and to `strain` the part that the lattice vectors carry; return energies.

    x (N, 3) has the offsets of the list added; `has_lj` (T,) tells which types have any Lennard-Jones.
    """
    lj = coulomb = 0.0
    near, chosen = np.empty(longest + 1, dtype=np.int32), np.empty(longest + 1, dtype=np.int32)
    dx, dy, dz = np.empty(longest + 1), np.empty(longest + 1), np.empty(longest + 1)
    r2, q, slopes = np.empty(longest + 1), np.empty(longest + 1), np.empty(longest + 1)
    for s in range(len(first)):
        i = first[s]
        tx, ty, tz = translations[s, 0], translations[s, 1], translations[s, 2]
        x0, y0, z0 = x[i, 0] - tx, x[i, 1] - ty, x[i, 2] - tz
        n = 0
        for p in range(start[s], start[s + 1]):
            j = partners[p]
            x1, y1, z1 = x[j, 0] - x0, x[j, 1] - y0, x[j, 2] - z0
            distance2 = x1 * x1 + y1 * y1 + z1 * z1
            dx[n], dy[n], dz[n], r2[n] = x1, y1, z1, distance2
            near[n], q[n] = j, charges[j]
            n += distance2 < cutoff * cutoff
        coulomb += _coulomb(r2[:n], charges[i], q, k_rf, c_rf, slopes)
        kind = types[i]
        if has_lj[kind]:
            lj += _lennard_jones(
                r2[:n], near, types, c6[kind], c12[kind], cutoff, switch, shift6, chosen, slopes
            )
        gx = gy = gz = 0.0
        for m in range(n):
            j = near[m]
            fx, fy, fz = slopes[m] * dx[m], slopes[m] * dy[m], slopes[m] * dz[m]
            gx += fx
            gy += fy
            gz += fz
            gradient[j, 0] += fx
            gradient[j, 1] += fy
            gradient[j, 2] += fz
        gradient[i, 0] -= gx
        gradient[i, 1] -= gy
        gradient[i, 2] -= gz
        for axis, g in enumerate((gx, gy, gz)):
            strain[axis, 0] += g * tx
            strain[axis, 1] += g * ty
            strain[axis, 2] += g * tz
    return lj, coulomb
