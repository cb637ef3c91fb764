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
from typing import Protocol

import numpy as np
from numpy.polynomial import chebyshev
from scipy import special

from pidelta.core.cell import minimum_image
from pidelta.core.compilation import compiled
from pidelta.state import FloatArray, IntArray

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


class ReciprocalSum(Protocol):
    """The reciprocal part, the interaction of each charge with itself included."""

    alpha: float

    def evaluate(self, positions: FloatArray, charges: FloatArray, cell: FloatArray) -> Electrostatics:
        """The sum for positions (N, 3) in bohr, charges (N,) in e and a cell (3, 3) of rows in bohr."""


def splitting(cutoff: float, tolerance: float) -> float:
    """The width alpha in 1/bohr with exp(-(alpha cutoff)^2) = 2 tolerance, as OpenMM chooses it."""
    return math.sqrt(-math.log(2.0 * tolerance)) / cutoff


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


def self_and_background(charges: FloatArray, alpha: float, cell: FloatArray) -> Electrostatics:
    """The charges' own Gaussians taken out, and the neutralising background of their sum."""
    volume = abs(float(np.linalg.det(cell)))
    own, net = alpha / math.sqrt(math.pi), float(charges.sum())
    background = math.pi / (2.0 * volume * alpha**2)
    return Electrostatics(
        energy=-own * float(charges @ charges) - background * net**2,
        potential=-2.0 * own * charges - 2.0 * background * net,
        gradient=np.zeros((len(charges), 3)),
        strain=background * net**2 * np.eye(3),
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
        tolerance: vectors m up to exp(-(pi m/alpha)^2) = tolerance are summed.
    """

    def __init__(self, alpha: float, tolerance: float) -> None:
        self.alpha = alpha
        self._longest = alpha / math.pi * math.sqrt(-math.log(tolerance))

    def evaluate(self, positions: FloatArray, charges: FloatArray, cell: FloatArray) -> Electrostatics:
        """The sum for positions (N, 3) in bohr, charges (N,) in e and a cell (3, 3) of rows in bohr."""
        inverse = np.linalg.inv(cell)
        most = np.floor(self._longest * np.linalg.norm(cell, axis=1)).astype(np.int64)
        indices = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in most), indexing="ij"), axis=-1)
        indices = indices.reshape(-1, 3)
        # one of m and -m: those that come after 0 0 0 in the order of the indices
        indices = indices[len(indices) // 2 + 1 :]
        m = indices @ inverse.T
        m2 = np.einsum("ij,ij->i", m, m)
        near = m2 < self._longest**2
        indices, m, m2 = indices[near], m[near], m2[near]
        volume = abs(float(np.linalg.det(cell)))
        factor = 2.0 * np.exp(-((math.pi / self.alpha) ** 2) * m2) / (math.pi * volume * m2)
        potential, slopes = np.zeros(len(charges)), np.zeros((len(charges), 3))
        energies = _reciprocal_sum(positions @ inverse, charges, indices, most, factor, potential, slopes)
        shrink = 2.0 * (1.0 / m2 + (math.pi / self.alpha) ** 2)
        strain = np.einsum("i,ia,ib->ab", energies * shrink, m, m) - energies.sum() * np.eye(3)
        return Electrostatics(float(energies.sum()), potential, slopes @ inverse.T, strain)


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
def _reciprocal_sum(fractional, charges, indices, most, factor, potential, slopes):
    """Set energies of each m, add dE/dq and dE/d(fractional coordinate); a factor counts m and -m."""
    n = len(charges)
    energies = np.empty(len(indices))
    # exp(2 pi i k u) for k = -most .. most along each axis
    waves = np.empty((3, 2 * most.max() + 1, n), dtype=np.complex128)
    for axis in range(3):
        for k in range(2 * most[axis] + 1):
            for i in range(n):
                phase = 2.0 * math.pi * (k - most[axis]) * fractional[i, axis]
                waves[axis, k, i] = complex(math.cos(phase), math.sin(phase))
    wave = np.empty(n, dtype=np.complex128)
    for v in range(len(indices)):
        a, b, c = indices[v]
        total = 0j
        for i in range(n):
            wave[i] = waves[0, a + most[0], i] * waves[1, b + most[1], i] * waves[2, c + most[2], i]
            total += charges[i] * wave[i]
        energies[v] = 0.5 * factor[v] * (total.real**2 + total.imag**2)
        for i in range(n):
            product = wave[i] * total.conjugate()
            potential[i] += factor[v] * product.real
            slope = -2.0 * math.pi * factor[v] * charges[i] * product.imag
            slopes[i, 0] += slope * a
            slopes[i, 1] += slope * b
            slopes[i, 2] += slope * c
    return energies
