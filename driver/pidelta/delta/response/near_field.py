"""Potential, field and field gradient of the sites near each QM atom, compiled, and the way back.

A charge within the density of the QM atoms feels less of it than multipoles say: charge penetration (Stone,
The Theory of Intermolecular Forces, 2nd ed., chapter 8). With d = r_j - R_A, the moments are those of
`multipoles.py` with functions that end at the short-range cutoff in place of 1/d,

    v(d) = (1 - (d / cutoff)^2)^p / d,    phi_A = sum_j q_j v,
    F_A = sum_j q_j f_1 d,    H_A = -sum_j q_j (f_1 + f_2 d d^T),    f_k = (1/d d/dd)^k v,

once for each power p: linear combinations of them vary with the distance as the density does. The derivatives
of forces are continuous for powers above 4.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np

from pidelta.core.compilation import compiled
from pidelta.delta.near_pairs import near_pairs
from pidelta.delta.response.multipoles import MOMENTS
from pidelta.delta.response.settings import ResponseSettings
from pidelta.state import BoolArray, FloatArray

_compiled = compiled(nogil=True, error_model="numpy")


class NearField:
    """The field of the sites near the atoms of a batch of QM regions.

    Args:
        settings: of the model.
        positions: (B, n, 3) of the QM atoms in bohr.
        site_positions: (B, m, 3) in bohr.
        site_charges: (B, m) in e.
        padding: (B, m) which sites are none.
    """

    def __init__(
        self,
        settings: ResponseSettings,
        positions: FloatArray,
        site_positions: FloatArray,
        site_charges: FloatArray,
        padding: BoolArray,
    ) -> None:
        self._powers = np.array(settings.near_powers, dtype=np.int64)
        self._cutoff = settings.short_cutoff
        self._structures = (positions, site_positions, site_charges)
        self._pairs = [
            near_pairs(*structure, self._cutoff)
            for structure in zip(positions, site_positions, padding, strict=True)
        ]

    def features(self) -> FloatArray:
        """(B, n, 10 P) `MOMENTS` at the QM atoms for each power, in hartree/e over powers of bohr."""
        batch, n, _ = self._structures[0].shape
        moments = np.zeros((batch, n, MOMENTS * len(self._powers)))
        for *structure, pairs, own in zip(*self._structures, self._pairs, moments, strict=True):
            _add_moments(*structure, *pairs, self._powers, self._cutoff, own)
        return moments

    def pull_back(self, slopes: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Derivatives of an energy from its derivatives in the moments.

        Args:
            slopes: (B, n, 10 P) dE/d(moment).

        Returns:
            (B, n, 3) dE/dR of the QM atoms, (B, m, 3) of the sites, and (B, m) dE/dq, zero for padding.
        """
        gradient, site_gradient, charge_gradient = (np.zeros_like(array) for array in self._structures)
        arrays = (gradient, site_gradient, charge_gradient, np.ascontiguousarray(slopes))
        for *structure, pairs, a, b, c, own in zip(*self._structures, self._pairs, *arrays, strict=True):
            _add_gradient(*structure, *pairs, self._powers, self._cutoff, own, a, b, c)
        return gradient, site_gradient, charge_gradient

    def jacobian(self) -> FloatArray:
        """(n, 10 P, m, 3) d(moment of atom A)/dr_j of the first structure; in R_A minus the sum of it."""
        structure = [array[0] for array in self._structures]
        count = MOMENTS * len(self._powers)
        jacobian = np.zeros((len(structure[0]), count, len(structure[1]), 3))
        _add_jacobian(*structure, *self._pairs[0], self._powers, self._cutoff, jacobian)
        return jacobian


@_compiled
def _radial(d, power, cutoff):
    """v, f_1, f_2 and f_3 at the distance d."""
    square = 1.0 / (d * d)
    inside = 1.0 - (d / cutoff) ** 2
    third, factor, left = 1.0, inside, power - 3
    while left:  # inside^(power - 3) by squares, several times as fast as pow
        if left & 1:
            third *= factor
        factor *= factor
        left >>= 1
    second = third * inside
    first = second * inside
    b = 2.0 / cutoff**2
    one, two = power * b * first, power * (power - 1) * b**2 * second
    three = power * (power - 1) * (power - 2) * b**3 * third
    bare = inside * first
    return (
        bare / d,
        -(bare * square + one) / d,
        ((3.0 * bare * square + 2.0 * one) * square + two) / d,
        -(((15.0 * bare * square + 9.0 * one) * square + 3.0 * two) * square + three) / d,
    )


@_compiled
def _add_moments(x, sites, charges, pairs, distances, powers, cutoff, moments):
    for pair in range(len(distances)):
        a, j = pairs[pair]
        dx, dy, dz = sites[j, 0] - x[a, 0], sites[j, 1] - x[a, 1], sites[j, 2] - x[a, 2]
        for k in range(len(powers)):
            v, f_1, f_2, _ = _radial(distances[pair], powers[k], cutoff)
            v, f_1, f_2 = v * charges[j], f_1 * charges[j], f_2 * charges[j]
            own = moments[a, MOMENTS * k : MOMENTS * (k + 1)]
            own[0] += v
            own[1] += f_1 * dx
            own[2] += f_1 * dy
            own[3] += f_1 * dz
            own[4] -= f_1 + f_2 * dx * dx
            own[5] -= f_2 * dx * dy
            own[6] -= f_2 * dx * dz
            own[7] -= f_1 + f_2 * dy * dy
            own[8] -= f_2 * dy * dz
            own[9] -= f_1 + f_2 * dz * dz


@_compiled
def _add_gradient(
    x, sites, charges, pairs, distances, powers, cutoff, slopes, gradient, site_gradient, charge_gradient
):
    """Add dE/dR of the atoms, that of the sites, and dE/dq, which is the potential of the multipoles."""
    for pair in range(len(distances)):
        a, j = pairs[pair]
        potential, px, py, pz = _potential(x[a], sites[j], distances[pair], powers, cutoff, slopes[a])
        charge_gradient[j] += potential
        px, py, pz = px * charges[j], py * charges[j], pz * charges[j]
        site_gradient[j, 0] += px
        site_gradient[j, 1] += py
        site_gradient[j, 2] += pz
        gradient[a, 0] -= px
        gradient[a, 1] -= py
        gradient[a, 2] -= pz


@_compiled
def _potential(atom, site, distance, powers, cutoff, slopes):
    """What a unit charge at the site adds to the energy, and its derivatives in the site's position."""
    dx, dy, dz = site[0] - atom[0], site[1] - atom[1], site[2] - atom[2]
    potential = px = py = pz = 0.0
    for k in range(len(powers)):
        monopole, bx, by, bz, xx, xy, xz, yy, yz, zz = slopes[MOMENTS * k : MOMENTS * (k + 1)]
        v, f_1, f_2, f_3 = _radial(distance, powers[k], cutoff)
        cx, cy, cz = (
            2.0 * xx * dx + xy * dy + xz * dz,
            xy * dx + 2.0 * yy * dy + yz * dz,
            xz * dx + yz * dy + 2.0 * zz * dz,
        )
        quadrupole = 0.5 * (cx * dx + cy * dy + cz * dz)
        dipole = bx * dx + by * dy + bz * dz - (xx + yy + zz)
        potential += monopole * v + dipole * f_1 - quadrupole * f_2
        along = monopole * f_1 + dipole * f_2 - quadrupole * f_3
        px += along * dx + f_1 * bx - f_2 * cx
        py += along * dy + f_1 * by - f_2 * cy
        pz += along * dz + f_1 * bz - f_2 * cz
    return potential, px, py, pz


@_compiled
def _add_jacobian(x, sites, charges, pairs, distances, powers, cutoff, jacobian):
    slopes = np.zeros(jacobian.shape[1])
    for pair in range(len(distances)):
        a, j = pairs[pair]
        for moment in range(len(slopes)):
            slopes[moment] = 1.0
            _, px, py, pz = _potential(x[a], sites[j], distances[pair], powers, cutoff, slopes)
            slopes[moment] = 0.0
            jacobian[a, moment, j, 0] = charges[j] * px
            jacobian[a, moment, j, 1] = charges[j] * py
            jacobian[a, moment, j, 2] = charges[j] * pz
