"""The energy of pairs of atoms in the field of the sites, compiled, with its derivatives: see `networks.py`.

Pairs are taken for one structure at a time, so that what is computed on the way stays in the cache. Between
the two passes PyTorch takes the sigmoid of all inputs at once, for which it has vector instructions.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from pidelta.core.compilation import compiled
from pidelta.core.switching import quintic, quintic_slope
from pidelta.delta.radial_functions import RadialFunctions, gaussians
from pidelta.delta.response.multipoles import MOMENTS
from pidelta.state import FloatArray

_vectorised = compiled(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})

PAIR_TERMS = 7
"""What the coefficients of a pair multiply: three terms linear in the field, then quadratic ones.

Two more for each power of the near field follow.
"""
COUPLED_TERMS = 4
"""What the coefficients see of the field: the linear terms, and u.F_B."""


@dataclass(frozen=True)
class PairNetworks:
    """The networks of pairs of K models: coefficients of silu(first_A + second_B + radial + coupling).

    Attributes:
        gaussians: R Gaussians of the distance, and where the energy of a pair ends.
        radial, bias: (K, R, p) and (K, p).
        coupling: (K, 4, p) of the three linear terms of the pair and of u.F_B.
        coefficients, coefficients_bias: (K, T, p) and (K, T) of T = 7 + 2 P terms.
    """

    gaussians: RadialFunctions
    radial: FloatArray
    bias: FloatArray
    coupling: FloatArray
    coefficients: FloatArray
    coefficients_bias: FloatArray


@dataclass(frozen=True)
class PairSlopes:
    """Derivatives of the mean energy of K models.

    Attributes:
        inputs: (B, K, n, 2 p) in what the networks take from the first and the second atom.
        moments: (B, n, 10 (1 + P)) in phi, F and H, then in those of the near field.
        positions: (B, n, 3).
    """

    inputs: FloatArray
    moments: FloatArray
    positions: FloatArray


def pair_energies(
    networks: PairNetworks, positions: FloatArray, inputs: FloatArray, moments: FloatArray
) -> tuple[FloatArray, PairSlopes]:
    """Energies (B, K) of K models in hartree, and the derivatives of their mean.

    Args:
        networks: of the models.
        positions: (B, n, 3) in bohr.
        inputs: (B, K, n, 2 p) what the networks take from an atom as the first and as the second of a pair.
        moments: (B, n, 10 (1 + P)) phi, F and H, then those of the near field.
    """
    batch, models, n, _ = inputs.shape
    pairs = n * (n - 1) // 2
    which = np.empty((pairs, 2), dtype=np.int64)
    distances, radial = np.empty(pairs), np.empty((pairs, len(networks.gaussians[0])))
    hidden = np.empty((pairs, models, 2, inputs.shape[-1] // 2))
    slopes = PairSlopes(np.zeros_like(inputs), np.zeros_like(moments), np.zeros_like(positions))
    energies = np.zeros((batch, models))
    for b in range(batch):
        count = _set_inputs(
            positions[b], moments[b], inputs[b], networks.gaussians, networks.radial, networks.bias,
            networks.coupling, which, distances, radial, hidden,
        )  # fmt: skip
        sigmoid = torch.sigmoid(torch.from_numpy(hidden[:count])).numpy()
        _add_energies(
            positions[b], moments[b], which[:count], distances, radial, hidden, sigmoid,
            networks.gaussians, networks.radial, networks.coupling,
            networks.coefficients, networks.coefficients_bias,
            energies[b], slopes.inputs[b], slopes.moments[b], slopes.positions[b],
        )  # fmt: skip
    return energies, slopes


@_vectorised
def _set_inputs(
    x, moments, inputs, functions, weights, bias, coupling, which, distances, radial, hidden
):  # fmt: skip
    """Set atoms, distances and Gaussians of pairs, and the inputs of silu in both directions; how many."""
    centres, spacing, cutoff = functions
    models, n, twice = inputs.shape
    width = twice // 2
    u, terms, back_terms = np.empty(3), np.empty(3), np.empty(3)
    count = 0
    for i in range(n):
        for j in range(i):
            r = math.sqrt((x[i, 0] - x[j, 0]) ** 2 + (x[i, 1] - x[j, 1]) ** 2 + (x[i, 2] - x[j, 2]) ** 2)
            if r >= cutoff:
                continue
            which[count] = i, j
            distances[count] = r
            gaussians(r, centres, spacing, radial[count])
            for c in range(3):
                u[c] = (x[j, c] - x[i, c]) / r
            _set_linear_terms(u, moments[i], moments[j], terms)
            for c in range(3):
                u[c] = -u[c]
            _set_linear_terms(u, moments[j], moments[i], back_terms)
            for k in range(models):
                there, back = hidden[count, k, 0], hidden[count, k, 1]
                there[:] = bias[k]
                for s in range(len(centres)):
                    for p in range(width):
                        there[p] += radial[count, s] * weights[k, s, p]
                for p in range(width):
                    back[p] = there[p] + inputs[k, j, p] + inputs[k, i, width + p]
                    there[p] += inputs[k, i, p] + inputs[k, j, width + p]
                for t in range(3):
                    for p in range(width):
                        there[p] += terms[t] * coupling[k, t, p]
                        back[p] += back_terms[t] * coupling[k, t, p]
                # u.F of the other atom is what it sees along its own u, turned round
                for p in range(width):
                    there[p] -= back_terms[0] * coupling[k, 3, p]
                    back[p] -= terms[0] * coupling[k, 3, p]
            count += 1
    return count


@_vectorised
def _add_energies(
    x, moments, which, distances, radial, hidden, sigmoid, functions, weights, coupling, coefficients, bias,
    energies, input_slopes, moment_slopes, gradient,
):  # fmt: skip
    """Add energies (K,) and derivatives of their mean; see `pair_energies`."""
    centres, spacing, cutoff = functions
    models, _, width = weights.shape
    share = 1.0 / models
    count = coefficients.shape[1]
    terms, slopes, u = np.empty(count), np.empty(count), np.empty(3)
    towards, total = np.empty(width), np.empty((models, width))
    u_slope = np.empty(3)
    for pair in range(len(which)):
        r = distances[pair]
        fall, fall_slope = quintic(r / cutoff), quintic_slope(r / cutoff) / cutoff
        total[:] = 0.0
        along = 0.0  # dE/dr
        for direction in range(2):
            i, j = which[pair, direction], which[pair, 1 - direction]
            for c in range(3):
                u[c] = (x[j, c] - x[i, c]) / r
            _set_terms(u, moments[i], moments[j], terms)
            slopes[:] = 0.0
            other_along = 0.0  # dE/d(u.F_B)
            for k in range(models):
                towards[:] = 0.0
                for t in range(count):
                    factor = share * fall * terms[t]
                    for p in range(width):
                        towards[p] += factor * coefficients[k, t, p]
                energy = 0.0
                for t in range(count):
                    value = bias[k, t]
                    for p in range(width):
                        value += (
                            hidden[pair, k, direction, p]
                            * sigmoid[pair, k, direction, p]
                            * coefficients[k, t, p]
                        )
                    slopes[t] += share * fall * value
                    energy += value * terms[t]
                energies[k] += fall * energy
                along += share * fall_slope * energy
                for p in range(width):
                    s = sigmoid[pair, k, direction, p]
                    slope = towards[p] * s * (1.0 + hidden[pair, k, direction, p] * (1.0 - s))
                    input_slopes[k, i, p] += slope
                    input_slopes[k, j, width + p] += slope
                    total[k, p] += slope
                    towards[p] = slope
                for p in range(width):
                    other_along += towards[p] * coupling[k, 3, p]
                for t in range(3):
                    for p in range(width):
                        slopes[t] += towards[p] * coupling[k, t, p]
            _add_term_slopes(
                u, moments[i], moments[j], terms, slopes, moment_slopes[i], moment_slopes[j], u_slope
            )
            for c in range(3):
                moment_slopes[j, 1 + c] += other_along * u[c]
                u_slope[c] += other_along * moments[j, 1 + c]
            radially = u_slope[0] * u[0] + u_slope[1] * u[1] + u_slope[2] * u[2]
            for c in range(3):
                part = (u_slope[c] - radially * u[c]) / r
                gradient[j, c] += part
                gradient[i, c] -= part
        for s in range(len(centres)):
            value = 0.0
            for k in range(models):
                for p in range(width):
                    value += total[k, p] * weights[k, s, p]
            along -= (r - centres[s]) / spacing**2 * radial[pair, s] * value
        i, j = which[pair]
        for c in range(3):
            part = along * (x[j, c] - x[i, c]) / r
            gradient[j, c] += part
            gradient[i, c] -= part


@_vectorised
def _along(u, moments):
    """u.F"""
    return u[0] * moments[1] + u[1] * moments[2] + u[2] * moments[3]


@_vectorised
def _curvature(u, moments):
    """u.H u"""
    return (
        u[0] * (u[0] * moments[4] + 2.0 * (u[1] * moments[5] + u[2] * moments[6]))
        + u[1] * (u[1] * moments[7] + 2.0 * u[2] * moments[8])
        + u[2] * u[2] * moments[9]
    )


@_vectorised
def _set_linear_terms(u, own, other, terms):
    """Set those of the terms of a pair that are linear in the moments of both atoms."""
    terms[0] = _along(u, own)
    terms[1] = _curvature(u, own)
    terms[2] = other[0] - own[0]


@_vectorised
def _set_terms(u, own, other, terms):
    """Set what the coefficients of a pair multiply, from the moments of both atoms."""
    _set_linear_terms(u, own, other, terms)
    along, difference = terms[0], terms[2]
    terms[3] = along * along
    terms[4] = difference * difference
    terms[5] = own[1] * other[1] + own[2] * other[2] + own[3] * other[3]
    terms[6] = along * difference
    for k in range(PAIR_TERMS, len(terms), 2):
        near = _near_moments(own, k)
        terms[k] = _along(u, near)
        terms[k + 1] = _curvature(u, near)


@_vectorised
def _add_term_slopes(u, own, other, terms, slopes, own_slopes, other_slopes, u_slope):
    """Add the derivatives in the moments of both atoms, and set that in the unit vector."""
    along = slopes[0] + 2.0 * slopes[3] * terms[0] + slopes[6] * terms[2]
    difference = slopes[2] + 2.0 * slopes[4] * terms[2] + slopes[6] * terms[0]
    own_slopes[0] -= difference
    other_slopes[0] += difference
    for c in range(3):
        own_slopes[1 + c] += slopes[5] * other[1 + c]
        other_slopes[1 + c] += slopes[5] * own[1 + c]
        u_slope[c] = 0.0
    _add_linear_slopes(u, own, along, slopes[1], own_slopes, u_slope)
    for k in range(PAIR_TERMS, len(slopes), 2):
        near, near_slopes = _near_moments(own, k), _near_moments(own_slopes, k)
        _add_linear_slopes(u, near, slopes[k], slopes[k + 1], near_slopes, u_slope)


@_vectorised
def _near_moments(values, term):
    """Those of the power whose first term of a pair is `term`."""
    first = MOMENTS * (1 + (term - PAIR_TERMS) // 2)
    return values[first : first + MOMENTS]


@_vectorised
def _add_linear_slopes(u, moments, along, curvature, slopes, u_slope):
    """Add the derivatives in moments and unit vector of an energy with those in u.F and u.H u."""
    for c in range(3):
        slopes[1 + c] += along * u[c]
    slopes[4] += curvature * u[0] * u[0]
    slopes[5] += 2.0 * curvature * u[0] * u[1]
    slopes[6] += 2.0 * curvature * u[0] * u[2]
    slopes[7] += curvature * u[1] * u[1]
    slopes[8] += 2.0 * curvature * u[1] * u[2]
    slopes[9] += curvature * u[2] * u[2]
    twice = 2.0 * curvature
    u_slope[0] += along * moments[1] + twice * (moments[4] * u[0] + moments[5] * u[1] + moments[6] * u[2])
    u_slope[1] += along * moments[2] + twice * (moments[5] * u[0] + moments[7] * u[1] + moments[8] * u[2])
    u_slope[2] += along * moments[3] + twice * (moments[6] * u[0] + moments[8] * u[1] + moments[9] * u[2])
