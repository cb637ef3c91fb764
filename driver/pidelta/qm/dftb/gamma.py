"""The charge-charge interaction of DFTB2 and DFTB3 between spherical exponential charge clouds.

gamma: Elstner et al., Phys. Rev. B 58, 7260 (1998). Gamma3 = dU/dq dgamma/dU and the damping h of pairs with
hydrogen: Gaus, Cui, Elstner, JCTC 7, 931 (2011), equations 15 to 29 and appendix; between shells of one atom:
Gaus et al., JCTC 11, 4205 (2015), supporting information.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pidelta.core.compilation import compiled
from pidelta.qm.dftb.centres import ChargeCentres
from pidelta.state import FloatArray

_compiled = compiled(nogil=True, error_model="numpy")

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
        slopes: (B, Q, 1 or 3) dgamma/dR and, at third order, dgamma3_xy/dR and dgamma3_yx/dR.
    """

    gamma: torch.Tensor
    gamma3: torch.Tensor | None
    slopes: FloatArray


class GammaFunction:
    """Evaluates gamma, and Gamma3 if Hubbard derivatives are given, for the pairs of centres, on the CPU.

    Args:
        centres: atoms or shells.
        hubbard_derivatives: (S,) dU/dq in hartree/e^3, or None for second order.
        damping_exponent: zeta of the damping of pairs with hydrogen, or None without damping.
        device: where the matrices are put.
    """

    def __init__(
        self,
        centres: ChargeCentres,
        hubbard_derivatives: FloatArray | None,
        damping_exponent: float | None,
        device: torch.device,
    ) -> None:
        self._device = device
        self._atom = centres.atom
        self._places = tuple(
            np.ascontiguousarray(index) for index in (centres.first, centres.second, centres.pair)
        )
        first, second = centres.first, centres.second
        u_first, u_second = centres.hubbard_u[first], centres.hubbard_u[second]
        exponents, coefficients = short_range_coefficients(_EXPONENT * u_first, _EXPONENT * u_second)

        hydrogen = np.array([symbol == "H" for symbol in centres.symbols])
        damped = (hydrogen[first] | hydrogen[second]) & (damping_exponent is not None)
        zeta = damping_exponent or 1.0
        mean_u = 0.5 * (u_first + u_second)
        damping = [np.where(damped, mean_u**zeta, 0.0)]

        same_atom = (centres.atom[:, None] == centres.atom).astype(np.float64)
        self._same_atom = None if centres.are_atoms else torch.as_tensor(same_atom, device=device)
        gamma, d_gamma = _onsite_gamma(_EXPONENT * centres.hubbard_u)
        onsite = [same_atom * gamma]
        if hubbard_derivatives is None:
            coefficients = coefficients[:1]
        else:
            by_charge = np.stack((hubbard_derivatives[first], hubbard_derivatives[second]))
            coefficients[1:] *= _EXPONENT * by_charge[:, None, None]
            d_damping = np.where(damped, 0.5 * zeta * mean_u ** (zeta - 1.0), 0.0)
            damping.extend(d_damping * by_charge)
            onsite.append(same_atom * hubbard_derivatives[:, None] * _EXPONENT * d_gamma)
        tables = (exponents, _with_slopes(coefficients, exponents), np.array(damping))
        self._tables = tuple(np.ascontiguousarray(np.moveaxis(table, -1, 0)) for table in tables)
        self._onsite = np.array(onsite)

    @property
    def same_atom(self) -> torch.Tensor | None:
        """(S, S) 1 for centres of one atom, else 0; None where atoms are the centres."""
        return self._same_atom

    def evaluate(self, distances: FloatArray) -> ChargeInteraction:
        """Evaluate distances (B, P) of the pairs of atoms in bohr."""
        matrices, slopes = _evaluate(distances, self._onsite, *self._places, *self._tables)
        gamma, *gamma3 = torch.from_numpy(matrices).to(self._device)
        return ChargeInteraction(gamma, gamma3[0] if gamma3 else None, slopes)

    def gradient(self, interaction: ChargeInteraction, charges: torch.Tensor, pairs: int) -> FloatArray:
        """Return the derivative (B, pairs of atoms) of the energy by distances at fixed charges (B, S)."""
        gradient = np.zeros((len(charges), pairs))
        _add_gradient(gradient, interaction.slopes, charges.cpu().numpy(), self._atom, *self._places)
        return gradient


@_compiled
def _evaluate(distances, onsite, first, second, pair, exponents, coefficients, damping):
    """Return gamma and Gamma3 (1 or 2, B, S, S), and what `ChargeInteraction.slopes` holds."""
    orders, functions = len(onsite), damping.shape[1]
    matrices = np.empty((orders, len(distances), *onsite.shape[1:]))
    slopes = np.empty((len(distances), len(first), functions))
    short = np.empty((2, functions))
    for structure in range(len(distances)):
        matrices[:, structure] = onsite
        for q in range(len(first)):
            r, x, y = distances[structure, pair[q]], first[q], second[q]
            _short_range(short, r, exponents[q], coefficients[q], damping[q])
            matrices[0, structure, x, y] = matrices[0, structure, y, x] = 1.0 / r - short[0, 0]
            slopes[structure, q, 0] = -1.0 / r**2 - short[1, 0]
            for charge in range(1, functions):
                matrices[1, structure, x, y] = -short[0, charge]
                slopes[structure, q, charge] = -short[1, charge]
                x, y = y, x
    return matrices, slopes


@_compiled
def _short_range(result, r, exponents, coefficients, damping):
    """Write S of gamma = 1/R - S, its derivatives by both charges, and d/dR of these to (2, 1 or 3)."""
    result[:] = 0.0
    functions = len(damping)
    for term in range(2):
        factor = np.exp(-exponents[term] * r) / r**2
        for row in range(2 * functions):
            polynomial = 0.0
            for power in range(5, -1, -1):
                polynomial = polynomial * r + coefficients[row, term, power]
            result[row // functions, row % functions] += factor * polynomial
    # ln(damping) is -r^2 damping[0], its derivatives by the charges -r^2 damping[1:].
    factor = np.exp(-damping[0] * r**2)
    for function in range(functions):
        value, slope = factor * result[0, function], factor * result[1, function]
        result[0, function], result[1, function] = value, slope - 2.0 * damping[0] * r * value
    for charge in range(1, functions):
        result[0, charge] -= damping[charge] * r**2 * result[0, 0]
        result[1, charge] -= damping[charge] * (r**2 * result[1, 0] + 2.0 * r * result[0, 0])


@_compiled
def _add_gradient(gradient, slopes, charges, atom, first, second, pair):
    atoms = np.zeros(atom[-1] + 1)
    for structure in range(len(charges)):
        charge = charges[structure]
        atoms[:] = 0.0
        for centre in range(len(atom)):
            atoms[atom[centre]] += charge[centre]
        for q in range(len(first)):
            x, y, slope = first[q], second[q], slopes[structure, q]
            total = slope[0]
            if len(slope) == 3:
                total -= (atoms[atom[x]] * slope[1] + atoms[atom[y]] * slope[2]) / 3.0
            gradient[structure, pair[q]] += charge[x] * charge[y] * total


def _with_slopes(coefficients: FloatArray, exponents: FloatArray) -> FloatArray:
    """Add the derivatives by R to coefficients (F, 2, 5, Q) of R^-1 to R^3 times exponentials (2, Q).

    Returns:
        (2 F, 2, 6, Q) for the powers R^-2 to R^3, the derivatives last.
    """
    values = np.pad(coefficients, ((0, 0), (0, 0), (1, 0), (0, 0)))
    slopes = -exponents[:, None] * values
    slopes[:, :, :-1] += np.arange(-1.0, 4.0)[:, None] * coefficients
    return np.concatenate((values, slopes))


def _onsite_gamma(exponents: FloatArray) -> tuple[FloatArray, FloatArray]:
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
