"""Lennard-Jones and Coulomb interactions over a pair list.

Lennard-Jones is multiplied by a C2 switch that ends at the cutoff, or shifted to be zero there, or cut.
Coulomb is q_i q_j (1/r + P(r^2)) within the cutoff, with a polynomial P: none for bare charges,
-c_rf + k_rf r^2 for a reaction field, and -erf(alpha r)/r for an Ewald sum. Excluded pairs have neither.

The kernel copies the partner blocks of a segment side by side and passes over them for each atom of the first
block: distances, those within the cutoff chosen, Coulomb, Lennard-Jones if the atom has any, forces. All but
the choice vectorise.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from pidelta.core.compilation import compiled
from pidelta.core.neighbours import Apply
from pidelta.core.pair_list import ALL, WIDTH, PairList
from pidelta.core.switching import quintic, quintic_slope
from pidelta.mm.lennard_jones import LJModifier
from pidelta.mm.topology import Topology
from pidelta.state import FloatArray

_PARTS = 8
_SMALLEST_PART = 5000

_compiled = compiled(nogil=True, error_model="numpy")
# reordered sums and approximate single-precision square roots let loops vectorise; NaN and infinity stay
_FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}
_vectorised = compiled(nogil=True, error_model="numpy", fastmath=_FAST)


@dataclass(frozen=True)
class Truncation:
    """How pair interactions end.

    Attributes:
        cutoff: in bohr, infinite without truncation.
        switch: distance in bohr where the Lennard-Jones switch starts; infinite without one.
        shift6: cutoff^-6 in bohr^-6 where Lennard-Jones is shifted to zero at the cutoff, else 0.
        smooth: coefficients of P in powers of 2 (r/cutoff)^2 - 1, in 1/bohr.
    """

    cutoff: float = np.inf
    switch: float = np.inf
    shift6: float = 0.0
    smooth: FloatArray = field(default_factory=lambda: np.zeros(1))

    @staticmethod
    def reaction_field(cutoff: float, switch: float, dielectric: float) -> Truncation:
        """Reaction field of a continuum of a given dielectric constant beyond the cutoff.

        Tironi, Sperb, Smith, van Gunsteren, J. Chem. Phys. 102, 5451 (1995), without ionic strength; with
        `dielectric` infinite the force vanishes at the cutoff, with 1 the potential is only shifted.
        """
        inverse = 1.0 / dielectric
        k_rf = (1.0 - inverse) / (2.0 + inverse) / cutoff**3
        c_rf = 3.0 / (2.0 + inverse) / cutoff
        half = 0.5 * k_rf * cutoff**2
        return Truncation(cutoff, switch, smooth=np.array([half - c_rf, half]))

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
    apply: Apply = map,
) -> tuple[float, float]:
    """Add all listed pairs within the cutoff.

    Args:
        x: (N, 3) positions in bohr, as the list was made for.
        pairs: the list, exclusions left out.
        topology: charges and Lennard-Jones tables.
        end: how interactions end.
        gradient: (N, 3) dE/dR, added to.
        strain: (3, 3) dE/d(strain), added to.
        apply: as `map`, over parts of the list; results do not depend on it.

    Returns:
        The Lennard-Jones and the Coulomb energy in hartree.
    """
    blocks = (-1, WIDTH)
    placed = (x[pairs.order] + pairs.offsets).reshape(*blocks, 3).transpose(0, 2, 1).copy()
    charges = topology.charges[pairs.order].reshape(blocks)
    types = topology.lj_types[pairs.order].reshape(blocks)
    has_lj = ((topology.lj_c6 != 0.0) | (topology.lj_c12 != 0.0)).any(axis=1)
    smooth = np.concatenate([end.smooth, np.zeros(-len(end.smooth) % 4)])
    # parts of as many pairs; their number is that of a list, so that sums do not depend on who adds them
    parts = max(1, min(_PARTS, len(pairs.partners) // _SMALLEST_PART))
    bounds = np.searchsorted(pairs.start, np.linspace(0, len(pairs.partners), parts + 1))

    def part(p: int) -> tuple[float, float, FloatArray, FloatArray]:
        slopes, shifts = np.zeros(placed.shape), np.zeros((3, 3))
        energies = _add_segments(
            placed, pairs.first, pairs.translations, pairs.start, pairs.partners, pairs.masks, bounds[p],
            bounds[p + 1], charges, types, topology.lj_c6, topology.lj_c12, has_lj, end.cutoff, end.switch,
            end.shift6, smooth, slopes, shifts,
        )  # fmt: skip
        return *energies, slopes, shifts

    lj = coulomb = 0.0
    total = np.zeros(placed.shape)
    for part_lj, part_coulomb, slopes, shifts in apply(part, range(parts)):
        lj, coulomb = lj + part_lj, coulomb + part_coulomb
        total += slopes
        strain += shifts
    # sum over pairs of slope d (x) d, with d = x_j + t - x_i: what does not hold t is a sum over atoms
    strain += np.einsum("bap,bcp->ac", total, placed)
    _scatter(pairs.order, total, gradient)
    return lj, coulomb


@_compiled
def lennard_jones_pair(r2, c6, c12):
    """Energy c12/r^12 - c6/r^6 and its slope divided by r, from r^2."""
    inverse2 = 1.0 / r2
    inverse6 = inverse2 * inverse2 * inverse2
    repulsion, attraction = c12 * inverse6 * inverse6, c6 * inverse6
    return repulsion - attraction, (6.0 * attraction - 12.0 * repulsion) * inverse2


@_compiled
def _scatter(order, slopes, gradient):
    for place in range(len(order)):
        for axis in range(3):
            gradient[order[place], axis] += slopes[place // WIDTH, axis, place % WIDTH]


@_vectorised
def _inverse_root(r2):
    """1/sqrt(r2) in double precision: from single precision by one step of third order."""
    y = np.float64(np.float32(1.0) / np.sqrt(np.float32(r2)))
    e = 1.0 - r2 * y * y
    return y + y * e * (0.5 + 0.375 * e)


@_vectorised
def _smooth(t, coefficients, values, slopes):
    """Set a polynomial in t and its derivative, four coefficients to a pass."""
    n = len(t)
    for m in range(n):
        values[m] = 0.0
        slopes[m] = 0.0
    for k in range(len(coefficients) - 4, -1, -4):
        c0, c1, c2, c3 = coefficients[k], coefficients[k + 1], coefficients[k + 2], coefficients[k + 3]
        for m in range(n):
            u, value, slope = t[m], values[m], slopes[m]
            slope = slope * u + value
            value = value * u + c3
            slope = slope * u + value
            value = value * u + c2
            slope = slope * u + value
            value = value * u + c1
            slopes[m] = slope * u + value
            values[m] = value * u + c0


@_vectorised
def _coulomb(r2, inverse, charge, q, values, slopes, scale):
    """Sum the energies, turn the slopes of P into those of the energy divided by r."""
    energy = 0.0
    for m in range(len(r2)):
        i1 = _inverse_root(r2[m])
        inverse[m] = i1
        qq = charge * q[m]
        energy += qq * (i1 + values[m])
        slopes[m] = qq * (scale * slopes[m] - i1 * i1 * i1)
    return energy


@_vectorised
def _lennard_jones(r2, inverse, c6, c12, cutoff, switch, shift6, slopes):
    """Sum the energies, add the slopes divided by r."""
    total = 0.0
    start, per_width = (0.0, 0.0) if np.isinf(switch) else (switch, 1.0 / (cutoff - switch))
    for m in range(len(r2)):
        i2 = inverse[m] * inverse[m]
        i6 = i2 * i2 * i2
        attraction, repulsion = c6[m] * i6, c12[m] * i6 * i6
        u = max(r2[m] * inverse[m] - start, 0.0) * per_width
        step, step_slope = quintic(u), quintic_slope(u) * per_width
        energy = repulsion - attraction - (c12[m] * shift6 - c6[m]) * shift6
        slopes[m] += (6.0 * attraction - 12.0 * repulsion) * i2 * step + energy * step_slope * inverse[m]
        total += energy * step
    return total


@_compiled
def _gather(partners, masks, x, charges, coordinates, q, allowed):
    """Copy the atoms of partner blocks side by side; allowed (4, n) is 0 for pairs with place a that count.

    It is infinite for others, to be added to their distance.
    """
    for p in range(len(partners)):
        block, m = partners[p], WIDTH * p
        for b in range(WIDTH):
            coordinates[0, m + b] = x[block, 0, b]
            coordinates[1, m + b] = x[block, 1, b]
            coordinates[2, m + b] = x[block, 2, b]
            q[m + b] = charges[block, b]
    allowed[:, : WIDTH * len(partners)] = 0.0
    for p in range(len(partners)):
        if masks[p] != ALL:
            for a in range(WIDTH):
                for b in range(WIDTH):
                    if not (masks[p] >> (WIDTH * a + b)) & 1:
                        allowed[a, WIDTH * p + b] = np.inf


@_compiled
def _scatter_forces(partners, forces, gradient):
    for p in range(len(partners)):
        block, m = partners[p], WIDTH * p
        for b in range(WIDTH):
            gradient[block, 0, b] += forces[0, m + b]
            gradient[block, 1, b] += forces[1, m + b]
            gradient[block, 2, b] += forces[2, m + b]


@_vectorised
def _distances(coordinates, x0, y0, z0, allowed, r2):
    for m in range(len(allowed)):
        dx, dy, dz = coordinates[0, m] - x0, coordinates[1, m] - y0, coordinates[2, m] - z0
        r2[m] = dx * dx + dy * dy + dz * dz + allowed[m]


@_compiled
def _select(distances, charges, cutoff2, scale, chosen, r2, t, q):
    n = 0
    for m in range(len(distances)):
        chosen[n] = m
        n += distances[m] < cutoff2
    for m in range(n):
        r2[m], q[m] = distances[chosen[m]], charges[chosen[m]]
        t[m] = scale * r2[m] - 1.0
    return n


@_compiled
def _parameters(chosen, partners, types, row6, row12, c6, c12):
    for n in range(len(chosen)):
        kind = types[partners[chosen[n] // WIDTH], chosen[n] % WIDTH]
        c6[n], c12[n] = row6[kind], row12[kind]


@_vectorised
def _add_forces(coordinates, x0, y0, z0, slopes, forces):
    gx = gy = gz = 0.0
    for m in range(len(slopes)):
        fx = slopes[m] * (coordinates[0, m] - x0)
        fy = slopes[m] * (coordinates[1, m] - y0)
        fz = slopes[m] * (coordinates[2, m] - z0)
        forces[0, m] += fx
        forces[1, m] += fy
        forces[2, m] += fz
        gx += fx
        gy += fy
        gz += fz
    return gx, gy, gz


@_compiled
def _add_segments(
    x, first, translations, start, partners, masks, s0, s1, charges, types, c6, c12, has_lj, cutoff, switch,
    shift6, smooth, gradient, strain,
):  # fmt: skip
    """Add segments s0 to s1 to `gradient` (P/4, 3, 4), and to `strain` what the lattice vectors carry.

    x (P/4, 3, 4), charges and types (P/4, 4) are by block; `has_lj` (T,) tells which types have any
    Lennard-Jones. Returns its energy and that of Coulomb.
    """
    lj = coulomb = 0.0
    size = 0
    for s in range(s0, s1):
        size = max(size, WIDTH * (start[s + 1] - start[s]))
    coordinates, forces, allowed = np.empty((3, size)), np.empty((3, size)), np.empty((WIDTH, size))
    distances, all_q, all_slopes = np.empty(size), np.empty(size), np.empty(size)
    # the choice writes one entry beyond those it keeps
    chosen = np.empty(size + 1, dtype=np.int64)
    r2, q, t, inverse = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    values, slopes, a6, a12 = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    scale = 0.0 if np.isinf(cutoff) else 2.0 / cutoff**2
    for s in range(s0, s1):
        i = first[s]
        tx, ty, tz = translations[s]
        near, mask = partners[start[s] : start[s + 1]], masks[start[s] : start[s + 1]]
        listed = WIDTH * len(near)
        _gather(near, mask, x, charges, coordinates, all_q, allowed)
        forces[:, :listed] = 0.0
        for a in range(WIDTH):
            kind = types[i, a]
            x0, y0, z0 = x[i, 0, a] - tx, x[i, 1, a] - ty, x[i, 2, a] - tz
            _distances(coordinates, x0, y0, z0, allowed[a, :listed], distances)
            n = _select(distances[:listed], all_q, cutoff * cutoff, scale, chosen, r2, t, q)
            _smooth(t[:n], smooth, values, slopes)
            coulomb += _coulomb(r2[:n], inverse, charges[i, a], q, values, slopes, 2.0 * scale)
            if has_lj[kind]:
                _parameters(chosen[:n], near, types, c6[kind], c12[kind], a6, a12)
                lj += _lennard_jones(r2[:n], inverse, a6, a12, cutoff, switch, shift6, slopes)
            all_slopes[:listed] = 0.0
            for m in range(n):
                all_slopes[chosen[m]] = slopes[m]
            gx, gy, gz = _add_forces(coordinates, x0, y0, z0, all_slopes[:listed], forces)
            for axis, g in enumerate((gx, gy, gz)):
                gradient[i, axis, a] -= g
                strain[axis, 0] += g * tx
                strain[axis, 1] += g * ty
                strain[axis, 2] += g * tz
        _scatter_forces(near, forces, gradient)
    return lj, coulomb
