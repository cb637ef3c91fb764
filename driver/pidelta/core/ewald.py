"""Ewald summation of point charges in a periodic cell, in units of hartree, bohr and e.

    E = 1/2 sum_ij q_i q_j erfc(alpha r_ij)/r_ij          over pairs and images within a cutoff
      + 1/(2 pi V) sum_m exp(-pi^2 m^2/alpha^2)/m^2 |S(m)|^2   reciprocal sum: here, or on a mesh in `pme`
      - alpha/sqrt(pi) sum_i q_i^2                         the charges' own Gaussians
      - pi Q^2/(2 V alpha^2)                               the neutralising background of a net charge Q
      - sum_excluded q_i q_j erf(alpha r_ij)/r_ij          pairs that do not interact

The cell is surrounded by a conductor. Allen, Tildesley, Computer Simulation of Liquids, 2nd ed., section 6.2;
the background: Hub, de Groot, Grubmueller, Groenhof, J. Chem. Theory Comput. 10, 381 (2014), eq. 5.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev
from scipy import special

from pidelta.core.cell import minimum_image
from pidelta.core.compilation import compiled
from pidelta.core.switching import quintic, quintic_slope
from pidelta.state import FloatArray, IntArray

_Field = TypeVar("_Field")

_FADE = 1.05  # of the longest vector of a plain sum, where the last of them vanish

_compiled = compiled(nogil=True, error_model="numpy")


@dataclass(frozen=True)
class Electrostatics:
    """Energy of point charges, or a part of it, with its derivatives.

    Attributes:
        energy: in hartree.
        potential: (N,) dE/dq in hartree/e.
        gradient: (N, 3) dE/dR in hartree/bohr.
        strain: (3, 3) dE/d(strain) in hartree, minus the virial.
    """

    energy: float
    potential: FloatArray
    gradient: FloatArray
    strain: FloatArray

    def __add__(self, other: Electrostatics) -> Electrostatics:
        return Electrostatics(
            self.energy + other.energy,
            self.potential + other.potential,
            self.gradient + other.gradient,
            self.strain + other.strain,
        )


class ReciprocalField(Protocol):
    """The reciprocal part of the potential of some charges, to be read anywhere."""

    @property
    def own(self) -> tuple[FloatArray, FloatArray]:
        """As `at`, where the charges themselves are."""

    def at(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Potential (k,) in hartree/e and its gradient (k, 3) in hartree/e/bohr at points (k, 3) in bohr."""

    def at_charges_of(self: _Field, other: _Field) -> tuple[FloatArray, FloatArray]:
        """As `at`, where the charges of another field, or this one, are."""

    def strain(self: _Field, *others: _Field) -> FloatArray:
        """(3, 3) dE/d(strain) in hartree of these charges among themselves and with those of other fields."""


class ReciprocalSum(Protocol):
    """The reciprocal part, the interaction of each charge with itself included."""

    alpha: float

    def evaluate(self, positions: FloatArray, charges: FloatArray, cell: FloatArray) -> Electrostatics:
        """The sum for positions (N, 3) in bohr, charges (N,) in e and a cell (3, 3) of rows in bohr."""

    def field(self, positions: FloatArray, charges: FloatArray, cell: FloatArray) -> ReciprocalField:
        """The potential of charges, arguments as `evaluate`."""

    def kernel(self, points: FloatArray, cell: FloatArray) -> FloatArray:
        """(k, k) potential at each of points (k, 3) in bohr of a unit charge at each other, and at itself."""


def energy_of(field: ReciprocalField, charges: FloatArray) -> Electrostatics:
    """The reciprocal part of the energy of charges (N,) in e, from their field."""
    potential, slopes = field.own
    energy = 0.5 * float(charges @ potential)
    return Electrostatics(energy, potential, charges[:, None] * slopes, field.strain())


def splitting(cutoff: float, tolerance: float) -> float:
    """The width alpha in 1/bohr with exp(-(alpha cutoff)^2) = 2 tolerance, as OpenMM chooses it."""
    return math.sqrt(-math.log(2.0 * tolerance)) / cutoff


def shift_at_cutoff(alpha: float, cutoff: float) -> float:
    """erfc(alpha r)/r at the cutoff, in 1/bohr: less this, the direct part has no step there."""
    return math.erfc(alpha * cutoff) / cutoff


def shifted_part(alpha: float, cutoff: float) -> FloatArray:
    """What the direct part, shifted to zero at the cutoff, has beside 1/r; see `smooth_part`."""
    smooth = smooth_part(alpha, cutoff)
    smooth[0] -= shift_at_cutoff(alpha, cutoff)
    return smooth


def smooth_part(alpha: float, cutoff: float, accuracy: float = 1e-11) -> FloatArray:
    """The polynomial -erf(alpha r)/r in the variable t = 2 (r/cutoff)^2 - 1.

    It is entire in r^2, so a Chebyshev interpolation on 0 <= r <= cutoff converges faster than any power.

    Args:
        alpha: in 1/bohr.
        cutoff: in bohr.
        accuracy: error of the polynomial divided by alpha, up to rounding.

    Returns:
        Coefficients of 1, t, t^2, ...
    """

    degree = 60
    nodes = chebyshev.chebpts1(degree + 1)
    values = -alpha * _erf_over_argument(alpha * cutoff * np.sqrt(0.5 * (nodes + 1.0)))
    # at these nodes the polynomials are orthogonal, with a norm of degree + 1, halved but for the first
    terms = chebyshev.chebvander(nodes, degree).T @ values / (0.5 * (degree + 1.0))
    terms[0] *= 0.5
    tails = np.cumsum(np.abs(terms[::-1]))[::-1]
    needed = int(np.argmax(tails < max(accuracy, 1e-15) * alpha))
    return np.asarray(chebyshev.cheb2poly(terms[: needed or len(terms)]), dtype=np.float64)


def _erf_over_argument(x: FloatArray) -> FloatArray:
    small = x < 1e-4
    safe = np.where(small, 1.0, x)
    return np.where(small, 2.0 / math.sqrt(math.pi) * (1.0 - x * x / 3.0), special.erf(safe) / safe)


def background_energy(net: float, alpha: float, cell: FloatArray) -> float:
    """Energy in hartree of the neutralising background of a net charge in e: -pi Q^2/(2 V alpha^2)."""
    return -math.pi * net**2 / (2.0 * abs(float(np.linalg.det(cell))) * alpha**2)


def self_and_background(charges: FloatArray, alpha: float, cell: FloatArray) -> Electrostatics:
    """The charges' own Gaussians taken out, and the neutralising background of their sum."""
    own, net = alpha / math.sqrt(math.pi), float(charges.sum())
    unit = background_energy(1.0, alpha, cell)
    return Electrostatics(
        energy=-own * float(charges @ charges) + unit * net**2,
        potential=-2.0 * own * charges + 2.0 * unit * net,
        gradient=np.zeros((len(charges), 3)),
        strain=-unit * net**2 * np.eye(3),
    )


def excluded_pairs(
    positions: FloatArray, charges: FloatArray, cell: FloatArray, alpha: float, pairs: IntArray
) -> Electrostatics:
    """Take the nearest images of pairs (E, 2) out of the reciprocal sum; arguments as `ReciprocalSum`."""
    vectors = minimum_image(positions[pairs[:, 1]] - positions[pairs[:, 0]], cell)
    potential, gradient, strain = np.zeros(len(charges)), np.zeros(positions.shape), np.zeros((3, 3))
    energy = _add_excluded(vectors, charges, alpha, pairs, potential, gradient, strain)
    return Electrostatics(energy, potential, gradient, strain)


class EwaldSum:
    """The plain reciprocal sum: exact to its tolerance, in a time that grows with N V.

    Args:
        alpha: in 1/bohr.
        tolerance: vectors m up to exp(-(pi m/alpha)^2) = tolerance are summed. Those up to 5 % longer fade
            out, so that the energy has no steps where vectors come and go as the cell changes.
    """

    def __init__(self, alpha: float, tolerance: float) -> None:
        self.alpha = alpha
        self._longest = alpha / math.pi * math.sqrt(-math.log(tolerance))

    def evaluate(self, positions: FloatArray, charges: FloatArray, cell: FloatArray) -> Electrostatics:
        """The sum for positions (N, 3) in bohr, charges (N,) in e and a cell (3, 3) of rows in bohr."""
        return energy_of(self.field(positions, charges, cell), charges)

    def field(self, positions: FloatArray, charges: FloatArray, cell: FloatArray) -> WaveField:
        """The potential of charges (N,) in e at positions (N, 3) in bohr."""
        waves = self._waves(cell)
        fractional = positions @ waves.inverse
        factors = _structure_factors(fractional, charges, waves.indices, waves.most)
        return WaveField(waves, fractional, factors)

    def kernel(self, points: FloatArray, cell: FloatArray) -> FloatArray:
        """(k, k) potential at each of points (k, 3) in bohr of a unit charge at each other, and at itself."""
        waves = self._waves(cell)
        phases = 2.0 * math.pi * (points @ waves.inverse) @ waves.indices.T
        cosines, sines = np.cos(phases), np.sin(phases)
        return np.asarray((cosines * waves.factors) @ cosines.T + (sines * waves.factors) @ sines.T)

    def _waves(self, cell: FloatArray) -> _Waves:
        inverse = np.asarray(np.linalg.inv(cell), dtype=np.float64)
        end = _FADE * self._longest
        most = np.floor(end * np.linalg.norm(cell, axis=1)).astype(np.int64)
        indices = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in most), indexing="ij"), axis=-1)
        indices = indices.reshape(-1, 3)
        # one of m and -m: those that come after 0 0 0 in the order of the indices
        indices = indices[len(indices) // 2 + 1 :]
        m = indices @ inverse.T
        m2 = np.einsum("ij,ij->i", m, m)
        near = m2 < end**2
        indices, m, m2 = indices[near], m[near], m2[near]
        width, fade = (math.pi / self.alpha) ** 2, end**2 - self._longest**2
        full = 2.0 * np.exp(-width * m2) / (math.pi * abs(float(np.linalg.det(cell))) * m2)
        x = np.maximum(m2 - self._longest**2, 0.0) / fade
        factors = full * quintic(x)
        shrink = 2.0 * (factors * (1.0 / m2 + width) - full * quintic_slope(x) / fade)
        return _Waves(inverse, indices, most, m, factors, shrink)


@dataclass(frozen=True)
class _Waves:
    """Reciprocal vectors of a cell, one of m and -m.

    Attributes:
        inverse: (3, 3) of the cell, in 1/bohr.
        indices: (V, 3) of the vectors along the reciprocal lattice, within `most` (3,).
        m: (V, 3) in 1/bohr.
        factors: (V,) of |S(m)|^2/2 in the energy, for m and -m together.
        shrink: (V,) the derivative of a factor by m^2, times -2.
    """

    inverse: FloatArray
    indices: IntArray
    most: IntArray
    m: FloatArray
    factors: FloatArray
    shrink: FloatArray


@dataclass(frozen=True)
class WaveField:
    """The potential of charges by the plain sum.

    Attributes:
        waves: the vectors of the cell.
        fractional: (N, 3) coordinates of the charges.
        structure_factors: (V,) S(m) = sum_i q_i exp(2 pi i m r_i).
    """

    waves: _Waves
    fractional: FloatArray
    structure_factors: npt.NDArray[np.complex128]

    @cached_property
    def own(self) -> tuple[FloatArray, FloatArray]:
        """As `at`, where the charges themselves are."""
        return self._at(self.fractional)

    def at(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Potential (k,) in hartree/e and its gradient (k, 3) in hartree/e/bohr at points (k, 3) in bohr."""
        return self._at(points @ self.waves.inverse)

    def at_charges_of(self, other: WaveField) -> tuple[FloatArray, FloatArray]:
        """As `at`, where the charges of another field, or this one, are."""
        return self._at(other.fractional)

    def _at(self, fractional: FloatArray) -> tuple[FloatArray, FloatArray]:
        waves = self.waves
        potential, slopes = np.zeros(len(fractional)), np.zeros(fractional.shape)
        weighted = waves.factors * self.structure_factors
        _add_waves(fractional, weighted, waves.indices, waves.most, potential, slopes)
        return potential, slopes @ waves.inverse.T

    def strain(self, *others: WaveField) -> FloatArray:
        """(3, 3) dE/d(strain) in hartree of these charges among themselves and with those of other fields."""
        m = self.waves.m
        felt = sum((other.structure_factors for other in others), 0.5 * self.structure_factors)
        products = (self.structure_factors * felt.conj()).real
        strain = np.einsum("i,ia,ib->ab", products * self.waves.shrink, m, m)
        return np.asarray(strain - float(products @ self.waves.factors) * np.eye(3))


@_compiled
def _add_excluded(vectors, charges, alpha, pairs, potential, gradient, strain):
    total = 0.0
    for p in range(len(pairs)):
        i, j = pairs[p]
        r2 = vectors[p, 0] ** 2 + vectors[p, 1] ** 2 + vectors[p, 2] ** 2
        z = alpha * alpha * r2
        gaussian = 2.0 * alpha / math.sqrt(math.pi) * math.exp(-z)
        if z > 1e-4:
            value = math.erf(math.sqrt(z)) / math.sqrt(r2)
            slope = (gaussian - value) / r2
        else:  # where erf(x)/x and its slope would lose digits, virtual sites on their atoms for instance
            value = 2.0 * alpha / math.sqrt(math.pi) * (1.0 - z / 3.0 + z * z / 10.0)
            slope = -4.0 * alpha**3 / math.sqrt(math.pi) * (1.0 / 3.0 - z / 5.0 + z * z / 14.0)
        qq = charges[i] * charges[j]
        total -= qq * value
        potential[i] -= charges[j] * value
        potential[j] -= charges[i] * value
        for a in range(3):
            g = -qq * slope * vectors[p, a]
            gradient[j, a] += g
            gradient[i, a] -= g
            for b in range(3):
                strain[a, b] += g * vectors[p, b]
    return total


@_compiled
def _unit_waves(fractional, most):
    """exp(2 pi i k u) (3, K, n) for k = -most .. most along each axis."""
    n = len(fractional)
    waves = np.empty((3, 2 * most.max() + 1, n), dtype=np.complex128)
    for axis in range(3):
        for k in range(2 * most[axis] + 1):
            for i in range(n):
                phase = 2.0 * math.pi * (k - most[axis]) * fractional[i, axis]
                waves[axis, k, i] = complex(math.cos(phase), math.sin(phase))
    return waves


@_compiled
def _structure_factors(fractional, charges, indices, most):
    """S(m) = sum_i q_i exp(2 pi i m r_i) of each m."""
    waves = _unit_waves(fractional, most)
    factors = np.zeros(len(indices), dtype=np.complex128)
    for v in range(len(indices)):
        first, second, third = (
            waves[0, indices[v, 0] + most[0]],
            waves[1, indices[v, 1] + most[1]],
            waves[2, indices[v, 2] + most[2]],
        )
        total = 0j
        for i in range(len(charges)):
            total += charges[i] * first[i] * second[i] * third[i]
        factors[v] = total
    return factors


@_compiled
def _add_waves(fractional, weighted, indices, most, potential, slopes):
    """Add the potential and its slopes in fractional coordinates at points; `weighted` has the factors in."""
    waves = _unit_waves(fractional, most)
    for v in range(len(indices)):
        a, b, c = indices[v]
        conjugate = weighted[v].conjugate()
        for i in range(len(potential)):
            wave = waves[0, a + most[0], i] * waves[1, b + most[1], i] * waves[2, c + most[2], i]
            product = wave * conjugate
            potential[i] += product.real
            slope = -2.0 * math.pi * product.imag
            slopes[i, 0] += slope * a
            slopes[i, 1] += slope * b
            slopes[i, 2] += slope * c
