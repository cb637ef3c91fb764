"""The charge-charge interaction of DFTB2 and DFTB3 between spherical exponential charge clouds.

gamma: Elstner et al., Phys. Rev. B 58, 7260 (1998). Gamma3 = dU/dq dgamma/dU and the damping h of pairs with
hydrogen: Gaus, Cui, Elstner, JCTC 7, 931 (2011), equations 15 to 29 and appendix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pidelta.qm.dftb.basis import Basis
from pidelta.state import FloatArray, IntArray

# The exponent of a charge cloud is 16/5 U.
_EXPONENT = 3.2
_LOWEST_POWER = -2  # of R: the slope of R^-1
# Closer than this (hartree) two U are replaced by their mean: the general formula divides by the third power
# of their difference and would lose more digits than the replacement does.
_SIMILAR_U = 3e-4
# Closer than this they are the same, with consequences: see `short_range_coefficients`.
_SAME_U = 3e-6


@dataclass(frozen=True)
class ChargeInteraction:
    """Interaction matrices of a batch, energy 1/2 q gamma q - 1/3 sum_AB q_A^2 q_B gamma3_AB (net charges q).

    Attributes:
        gamma: (B, n, n) in hartree/e^2.
        gamma3: (B, n, n) in hartree/e^3, or None at second order.
        slope: (B, P) dgamma/dR.
        slope3: (2, B, P) dgamma3_AB/dR and dgamma3_BA/dR, or None.
    """

    gamma: torch.Tensor
    gamma3: torch.Tensor | None
    slope: torch.Tensor
    slope3: torch.Tensor | None


class GammaFunction:
    """Evaluates gamma, and Gamma3 if Hubbard derivatives are given, for the pairs of a structure.

    Args:
        basis: atoms and pairs.
        hubbard_derivatives: (n,) dU/dq in hartree/e^3, or None for second order.
        damping_exponent: zeta of the damping of pairs with hydrogen, or None without damping.
        device: where to compute.
    """

    def __init__(
        self,
        basis: Basis,
        hubbard_derivatives: FloatArray | None,
        damping_exponent: float | None,
        device: torch.device,
    ) -> None:
        def tensor(values: FloatArray | IntArray) -> torch.Tensor:
            return torch.as_tensor(values, device=device)

        first, second = basis.first, basis.second
        self._first, self._second = tensor(first), tensor(second)
        u_first, u_second = basis.hubbard_u[first], basis.hubbard_u[second]
        exponents, coefficients = short_range_coefficients(_EXPONENT * u_first, _EXPONENT * u_second)

        hydrogen = np.array([symbol == "H" for symbol in basis.symbols])
        damped = (hydrogen[first] | hydrogen[second]) & (damping_exponent is not None)
        zeta = damping_exponent or 1.0
        mean_u = 0.5 * (u_first + u_second)
        self._damping = tensor(np.where(damped, mean_u**zeta, 0.0))

        onsite = [basis.hubbard_u]
        self._third_order = hubbard_derivatives is not None
        if hubbard_derivatives is None:
            coefficients = coefficients[:1]
        else:
            by_charge = np.stack((hubbard_derivatives[first], hubbard_derivatives[second]))
            coefficients[1:] *= _EXPONENT * by_charge[:, None, None]
            d_damping = np.where(damped, 0.5 * zeta * mean_u ** (zeta - 1.0), 0.0)
            self._d_damping = tensor(d_damping * by_charge).unsqueeze(1)
            # On site gamma is U and Gamma3 half of its derivative (equation 20).
            onsite.append(0.5 * hubbard_derivatives)
        self._exponents = tensor(exponents).unsqueeze(1)
        coefficients = np.pad(coefficients, ((0, 0), (0, 0), (1, 0), (0, 0)))
        coefficients = np.concatenate((coefficients, _slopes(coefficients, exponents)))
        # By power of R, from -2, then as the result of `_short_range`.
        self._coefficients = tensor(coefficients).permute(2, 0, 1, 3).unsqueeze(3).contiguous()
        self._onsite = tensor(np.concatenate(onsite))
        self._places = tensor(_matrix_places(first, second, len(basis.symbols), len(onsite)))

    def _short_range(self, distances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return S of gamma = 1/R - S and, at third order, its derivatives by both charges, without those of h.

        Returns:
            Values and d/dR, each (1 or 3, B, P).
        """
        square = distances**2
        *lower, polynomials = self._coefficients
        for coefficient in reversed(lower):
            polynomials = torch.addcmul(coefficient, polynomials, distances)
        exponentials = torch.exp(-self._exponents * distances)
        value, slope = ((polynomials * exponentials).sum(1) / square).chunk(2)
        damping = torch.exp(-self._damping * square)
        # d ln(damping)/dR
        decay = -2.0 * self._damping * distances
        return value * damping, (slope + decay * value) * damping

    def evaluate(self, distances: torch.Tensor) -> ChargeInteraction:
        """Evaluate distances (B, P) in bohr."""
        value, slope = self._short_range(distances)
        inverse = 1.0 / distances
        gamma = inverse - value[0]
        d_gamma = -(inverse**2) - slope[0]
        if not self._third_order:
            return ChargeInteraction(self._matrices(gamma)[:, 0], None, d_gamma, None)

        # d ln(damping)/dq and the slope of it
        by_charge = -self._d_damping * distances**2
        slope_by_charge = -2.0 * self._d_damping * distances
        gamma3 = -value[1:] - by_charge * value[0]
        d_gamma3 = -slope[1:] - by_charge * slope[0] - slope_by_charge * value[0]
        matrix, matrix3 = self._matrices(gamma, *gamma3).unbind(1)
        return ChargeInteraction(matrix, matrix3, d_gamma, d_gamma3)

    def _matrices(self, *pairs: torch.Tensor) -> torch.Tensor:
        """Arrange values of pairs, each (B, P), and those on site to matrices (B, 1 or 2, n, n)."""
        values = torch.cat((*pairs, self._onsite.expand(len(pairs[0]), -1)), dim=-1)
        return values[:, self._places]

    def gradient(self, interaction: ChargeInteraction, charges: torch.Tensor) -> torch.Tensor:
        """Return the derivative (B, P) of the energy by the distances at fixed charges (B, n)."""
        first, second = charges[:, self._first], charges[:, self._second]
        product = first * second
        result = product * interaction.slope
        if interaction.slope3 is not None:
            result = result - product / 3.0 * (first * interaction.slope3[0] + second * interaction.slope3[1])
        return result


def _slopes(coefficients: FloatArray, exponents: FloatArray) -> FloatArray:
    """Return the coefficients of d/dR, each for the powers of R from `_LOWEST_POWER`."""
    powers = np.arange(_LOWEST_POWER, 4.0)[:, None]
    slopes = -exponents[:, None] * coefficients
    slopes[..., :-1, :] += powers[1:] * coefficients[..., 1:, :]
    return slopes


def _matrix_places(first: IntArray, second: IntArray, atoms: int, orders: int) -> IntArray:
    """Return where (orders, n, n) the elements of gamma and Gamma3 stand in the values of all pairs.

    First come those of gamma, of Gamma3_AB and of Gamma3_BA (P each), then those of the atoms (n each).
    """
    pairs = len(first)
    places = np.empty((orders, atoms, atoms), dtype=np.int64)
    upper = np.arange(pairs)
    onsite = (2 * orders - 1) * pairs
    for order in range(orders):
        places[order, first, second] = upper + order * pairs
        places[order, second, first] = upper + 2 * order * pairs
        places[order, np.arange(atoms), np.arange(atoms)] = onsite + order * atoms + np.arange(atoms)
    return places


def short_range_coefficients(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Expand the short-range part S of gamma = 1/R - S, and its derivatives by the exponents a and b.

    S = exp(-a R) p_a(R) + exp(-b R) p_b(R), with p polynomials of R from R^-1 to R^3.

    For a = b DFTB+, which the published parameters are made for, takes for dS/da the derivative by the common
    exponent, which is twice the partial derivative; so does this.

    Args:
        a, b: (P,) exponents 16/5 U of the two atoms in 1/bohr.

    Returns:
        Exponents (2, P) and coefficients (3, 2, 5, P): of S, dS/da and dS/db; of exp(-a R) and exp(-b R); of
        the powers R^-1 to R^3.
    """
    similar = np.abs(a - b) < _EXPONENT * _SIMILAR_U
    mean = 0.5 * (a + b)
    exponents = np.where(similar, mean, np.stack((a, b)))
    coefficients = np.zeros((3, 2, 5, len(a)))
    coefficients[..., ~similar] = _coefficients_of_different(a[~similar], b[~similar])
    coefficients[:, 0, :, similar] = _coefficients_of_same(mean[similar]).transpose(2, 0, 1)
    coefficients[1:, :, :, similar & (np.abs(a - b) > _EXPONENT * _SAME_U)] *= 0.5
    return exponents, coefficients


def _coefficients_of_different(a: FloatArray, b: FloatArray) -> FloatArray:
    def one_exponential(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The part with exp(-a R), (c1 - c2 / R), and its derivatives by a and b."""
        zero = np.zeros_like(a)
        difference = a**2 - b**2
        c1 = 0.5 * b**4 * a / difference**2
        c2 = (b**6 - 3.0 * b**4 * a**2) / difference**3
        c1_a = -0.5 * b**4 * (3.0 * a**2 + b**2) / difference**3
        c1_b = 2.0 * a**3 * b**3 / difference**3
        c2_a = 12.0 * a**3 * b**4 / difference**4
        c2_b = -12.0 * a**4 * b**3 / difference**4
        value = np.stack((-c2, c1, zero, zero, zero))
        by_a = np.stack((-c2_a, c2 + c1_a, -c1, zero, zero))
        by_b = np.stack((-c2_b, c1_b, zero, zero, zero))
        return value, by_a, by_b

    first, first_by_a, first_by_b = one_exponential(a, b)
    second, second_by_b, second_by_a = one_exponential(b, a)
    return np.stack(
        (np.stack((first, second)), np.stack((first_by_a, second_by_a)), np.stack((first_by_b, second_by_b)))
    )


def _coefficients_of_same(a: FloatArray) -> FloatArray:
    """Return (3, 5, P), all of it with exp(-a R); the derivatives are those by the common exponent."""
    one, zero = np.ones_like(a), np.zeros_like(a)
    value = np.stack((one, 11.0 / 16.0 * a, 3.0 / 16.0 * a**2, a**3 / 48.0, zero))
    derivative = np.stack((zero, -5.0 / 16.0 * one, -5.0 / 16.0 * a, -(a**2) / 8.0, -(a**3) / 48.0))
    return np.stack((value, derivative, derivative))
