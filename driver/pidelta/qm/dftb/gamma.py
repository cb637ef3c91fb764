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

        first, second = sites.first, sites.second
        self._first, self._second = tensor(first), tensor(second)
        self._pair = None if sites.are_atoms else tensor(sites.pair)
        u_first, u_second = sites.hubbard_u[first], sites.hubbard_u[second]
        exponents, coefficients = short_range_coefficients(_EXPONENT * u_first, _EXPONENT * u_second)

        hydrogen = np.array([symbol == "H" for symbol in sites.symbols])
        damped = (hydrogen[first] | hydrogen[second]) & (damping_exponent is not None)
        zeta = damping_exponent or 1.0
        mean_u = 0.5 * (u_first + u_second)
        self._damping = tensor(np.where(damped, mean_u**zeta, 0.0))

        same_atom = (sites.atom[:, None] == sites.atom).astype(np.float64)
        self._same_atom = None if sites.are_atoms else tensor(same_atom)
        gamma, d_gamma = _on_site(_EXPONENT * sites.hubbard_u)
        onsite = [same_atom * gamma]
        self._third_order = hubbard_derivatives is not None
        if hubbard_derivatives is None:
            coefficients = coefficients[:1]
        else:
            by_charge = np.stack((hubbard_derivatives[first], hubbard_derivatives[second]))
            coefficients[1:] *= _EXPONENT * by_charge[:, None, None]
            d_damping = np.where(damped, 0.5 * zeta * mean_u ** (zeta - 1.0), 0.0)
            self._d_damping = tensor(d_damping * by_charge).unsqueeze(1)
            onsite.append(same_atom * hubbard_derivatives[:, None] * _EXPONENT * d_gamma)
        self._exponents = tensor(exponents).unsqueeze(1)
        # By power of R, from -2, then as the result of `_short_range`.
        with_slopes = _with_slopes(coefficients, exponents).transpose(2, 0, 1, 3)
        self._coefficients = tensor(np.ascontiguousarray(with_slopes[:, :, :, None]))
        self._onsite = tensor(np.concatenate([matrix.ravel() for matrix in onsite]))
        self._places = tensor(_matrix_places(first, second, len(sites.symbols), len(onsite)))

    @property
    def same_atom(self) -> torch.Tensor | None:
        """(S, S) 1 for sites of one atom, else 0; None where atoms are the sites."""
        return self._same_atom

    def _short_range(self, distances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return S of gamma = 1/R - S and, at third order, its derivatives by both charges at fixed damping.

        Returns:
            Values and d/dR, each (1 or 3, B, Q).
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
        """Evaluate distances (B, P) of the pairs of atoms in bohr."""
        if self._pair is not None:
            distances = distances[:, self._pair]
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
        """Arrange values of pairs, each (B, Q), and those on site to matrices (B, 1 or 2, S, S)."""
        values = torch.cat((*pairs, self._onsite.expand(len(pairs[0]), -1)), dim=-1)
        return values[:, self._places]

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


def _with_slopes(coefficients: FloatArray, exponents: FloatArray) -> FloatArray:
    """Add the derivatives by R to coefficients (F, 2, 5, Q) of R^-1 to R^3 times exponentials (2, Q).

    Returns:
        (2 F, 2, 6, Q) for the powers R^-2 to R^3, the derivatives last.
    """
    values = np.pad(coefficients, ((0, 0), (0, 0), (1, 0), (0, 0)))
    slopes = -exponents[:, None] * values
    slopes[:, :, :-1] += np.arange(-1.0, 4.0)[:, None] * coefficients
    return np.concatenate((values, slopes))


def _matrix_places(first: IntArray, second: IntArray, sites: int, orders: int) -> IntArray:
    """Return where (orders, S, S) the elements of gamma and Gamma3 stand in the row of all values.

    First come gamma, Gamma3_xy and Gamma3_yx of the pairs (Q each), then the matrices of one atom's sites.
    """
    pairs = np.arange(len(first))
    onsite = (2 * orders - 1) * len(pairs)
    places = onsite + np.arange(orders * sites**2).reshape(orders, sites, sites)
    for order in range(orders):
        places[order, first, second] = pairs + order * len(pairs)
        places[order, second, first] = pairs + 2 * order * len(pairs)
    return places


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
