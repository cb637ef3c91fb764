"""The charge-charge interaction of DFTB2 and DFTB3 between spherical exponential charge clouds.

gamma: Elstner et al., Phys. Rev. B 58, 7260 (1998). Gamma3 = dU/dq dgamma/dU and the damping h of pairs with
hydrogen: Gaus, Cui, Elstner, JCTC 7, 931 (2011), equations 15 to 29 and appendix; between shells of one atom:
Gaus et al., JCTC 11, 4205 (2015), supporting information.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pidelta.qm.dftb.sites import Sites
from pidelta.state import FloatArray, IntArray

# The exponent of a charge cloud is 16/5 U.
_EXPONENT = 3.2
# Closer than this (hartree) two U are replaced by their mean: the general formula divides by the third power
# of their difference and would lose more digits than the replacement does.
_SIMILAR_U = 3e-4
# Closer than this they are the same, with consequences: see `short_range_coefficients`.
_SAME_U = 3e-6


@dataclass(frozen=True)
class ChargeInteraction:
    """Interaction matrices of a batch; see `charges.ChargeEnergy` for the energy.

    Attributes:
        gamma: (B, S, S) in hartree/e^2.
        gamma3: (B, S, S) in hartree/e^3, or None at second order.
        slope: (B, Q) dgamma/dR.
        slope3: (2, B, Q) dgamma3_xy/dR and dgamma3_yx/dR, or None.
    """

    gamma: torch.Tensor
    gamma3: torch.Tensor | None
    slope: torch.Tensor
    slope3: torch.Tensor | None


class GammaFunction:
    """Evaluates gamma, and Gamma3 if Hubbard derivatives are given, for the pairs of sites of a structure.

    Args:
        sites: atoms or shells.
        hubbard_derivatives: (S,) dU/dq in hartree/e^3, or None for second order.
        damping_exponent: zeta of the damping of pairs with hydrogen, or None without damping.
        device: where to compute.
    """

    def __init__(
        self,
        sites: Sites,
        hubbard_derivatives: FloatArray | None,
        damping_exponent: float | None,
        device: torch.device,
    ) -> None:
        def tensor(values: FloatArray | IntArray) -> torch.Tensor:
            return torch.as_tensor(values, device=device)

        self._first, self._second = tensor(sites.first), tensor(sites.second)
        self._pair = None if sites.are_atoms else tensor(sites.pair)
        u_first, u_second = sites.hubbard_u[sites.first], sites.hubbard_u[sites.second]
        exponents, coefficients = short_range_coefficients(_EXPONENT * u_first, _EXPONENT * u_second)
        if hubbard_derivatives is None:
            coefficients = coefficients[:1]
        self._exponents = tensor(exponents)
        self._coefficients = tensor(coefficients)
        self._powers = torch.arange(-1, 4, device=device, dtype=torch.float64).reshape(5, 1, 1)

        hydrogen = np.array([symbol == "H" for symbol in sites.symbols])
        damped = hydrogen[sites.first] | hydrogen[sites.second]
        zeta = damping_exponent or 1.0
        mean_u = 0.5 * (u_first + u_second)
        damped = damped & (damping_exponent is not None)
        self._damping = tensor(np.where(damped, mean_u**zeta, 0.0))
        self._d_damping = tensor(np.where(damped, 0.5 * zeta * mean_u ** (zeta - 1.0), 0.0))

        same_atom = (sites.atom[:, None] == sites.atom).astype(np.float64)
        gamma, d_gamma = _on_site(_EXPONENT * sites.hubbard_u)
        self._onsite = tensor(same_atom * gamma)
        self._same_atom = None if sites.are_atoms else tensor(same_atom)
        self._derivatives = None
        if hubbard_derivatives is not None:
            pairs = np.stack((hubbard_derivatives[sites.first], hubbard_derivatives[sites.second]))
            self._derivatives = tensor(pairs).unsqueeze(1)
            self._onsite3 = tensor(same_atom * hubbard_derivatives[:, None] * _EXPONENT * d_gamma)

    @property
    def same_atom(self) -> torch.Tensor | None:
        """(S, S) 1 for sites of one atom, else 0; None where atoms are the sites."""
        return self._same_atom

    def _short_range(self, distances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the short-range term and, at third order, its derivatives by both exponents, with slopes.

        Returns:
            Values and d/dR, each (1 or 3, B, P).
        """
        powers = distances**self._powers
        exponentials = torch.exp(-self._exponents.unsqueeze(1) * distances)
        polynomial = torch.einsum("fekp,kbp->febp", self._coefficients, powers)
        slope = torch.einsum("fekp,kbp->febp", self._coefficients, self._powers * powers / distances)
        slope = slope - self._exponents.unsqueeze(1) * polynomial
        return (polynomial * exponentials).sum(1), (slope * exponentials).sum(1)

    def evaluate(self, distances: torch.Tensor) -> ChargeInteraction:
        """Evaluate distances (B, P) of the pairs of atoms in bohr."""
        if self._pair is not None:
            distances = distances[:, self._pair]
        value, slope = self._short_range(distances)
        damping = torch.exp(-self._damping * distances**2)
        # d ln(damping)/dR
        decay = -2.0 * self._damping * distances
        inverse = 1.0 / distances
        gamma = inverse - value[0] * damping
        d_gamma = -(inverse**2) - (slope[0] + decay * value[0]) * damping
        matrix = self._onsite.repeat(len(distances), 1, 1)
        matrix[:, self._first, self._second] = gamma
        matrix[:, self._second, self._first] = gamma
        if self._derivatives is None:
            return ChargeInteraction(matrix, None, d_gamma, None)

        # d ln(damping)/dU and the slope of it
        by_u = -self._d_damping * distances**2
        d_value = _EXPONENT * value[1:] + by_u * value[0]
        d_slope = _EXPONENT * slope[1:] + by_u * (slope[0] + 2.0 * inverse * value[0])
        gamma3 = -self._derivatives * d_value * damping
        d_gamma3 = -self._derivatives * (d_slope + decay * d_value) * damping
        matrix3 = self._onsite3.repeat(len(distances), 1, 1)
        matrix3[:, self._first, self._second] = gamma3[0]
        matrix3[:, self._second, self._first] = gamma3[1]
        return ChargeInteraction(matrix, matrix3, d_gamma, d_gamma3)

    def gradient(self, interaction: ChargeInteraction, charges: torch.Tensor, pairs: int) -> torch.Tensor:
        """Return the derivative (B, pairs of atoms) of the energy by distances at fixed charges (B, S)."""
        first, second = charges[:, self._first], charges[:, self._second]
        product = first * second
        result = product * interaction.slope
        if interaction.slope3 is not None:
            if self._same_atom is not None:
                atoms = charges @ self._same_atom
                first, second = atoms[:, self._first], atoms[:, self._second]
            result = result - product / 3.0 * (first * interaction.slope3[0] + second * interaction.slope3[1])
        if self._pair is None:
            return result
        return torch.zeros_like(result[:, :1]).repeat(1, pairs).index_add_(1, self._pair, result)


def _on_site(exponents: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return gamma (S, S) of exponents (S,) at distance zero, and its derivative by the first exponent.

    For equal exponents gamma is U.
    """
    a, b = exponents[:, None], exponents
    total = a + b
    gamma = 0.5 * (a * b / total + (a * b) ** 2 / total**3)
    return gamma, 0.5 * (b**2 / total**2 + 2.0 * a * b**2 / total**3 - 3.0 * (a * b) ** 2 / total**4)


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
