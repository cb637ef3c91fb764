"""Repulsive pair potentials of DFTB as piecewise polynomials, for all pairs of a batch at once."""

# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pidelta.core.compilation import compiled
from pidelta.state import FloatArray, IntArray

_compiled = compiled(nogil=True, error_model="numpy")
_MAX_POWER = 9


@dataclass(frozen=True)
class Repulsive:
    """A repulsive potential: an exponential head, then polynomials, then zero.

    Below `starts[0]` the energy is exp(-a1 r + a2) + a3 with (a1, a2, a3) = `head`; from `starts[k]` to
    `starts[k + 1]` it is sum_p coefficients[k, p] (r - origins[k])^p; beyond `starts[-1]` it is zero.

    Attributes:
        starts, origins: (k,) in bohr.
        coefficients: (k, 10) in hartree/bohr^p; the last row is zero.
        head: (3,) in atomic units.
    """

    starts: FloatArray
    origins: FloatArray
    coefficients: FloatArray
    head: FloatArray


def spline_repulsive(
    starts: Sequence[float], coefficients: Sequence[Sequence[float]], head: Sequence[float], cutoff: float
) -> Repulsive:
    """Build the spline of an .skf file: cubic intervals, the last one of fifth order, zero at `cutoff`."""
    rows = np.zeros((len(starts) + 1, _MAX_POWER + 1))
    for row, values in zip(rows, coefficients, strict=False):
        row[: len(values)] = values
    edges = np.array([*starts, cutoff])
    return Repulsive(edges, edges, rows, np.array(head))


def polynomial_repulsive(coefficients: Sequence[float], cutoff: float) -> Repulsive:
    """Build sum_p c_p (cutoff - r)^p for r < cutoff, p from 2 to 9 and `coefficients` in this order."""
    powers = np.arange(_MAX_POWER + 1)
    rows = np.zeros((2, _MAX_POWER + 1))
    rows[0, 2:] = coefficients
    rows[0] *= (-1.0) ** powers
    return Repulsive(np.array([0.0, cutoff]), np.array([cutoff, cutoff]), rows, np.zeros(3))


class RepulsiveTables:
    """The repulsive potentials of all pairs of atoms of a structure.

    Args:
        potentials: one for each type of pair.
        pair_types: (P,) index into `potentials` of each pair.
    """

    def __init__(self, potentials: Sequence[Repulsive], pair_types: IntArray) -> None:
        longest = max((len(potential.starts) for potential in potentials), default=1)
        starts = np.full((len(potentials), longest), np.inf)
        # Row 0 is the head, so that the row is the number of starts below r.
        origins = np.zeros((len(potentials), longest + 1))
        coefficients = np.zeros((len(potentials), longest + 1, _MAX_POWER + 1))
        for row, potential in enumerate(potentials):
            count = len(potential.starts)
            starts[row, :count] = potential.starts
            origins[row, 1 : count + 1] = potential.origins
            coefficients[row, 1 : count + 1] = potential.coefficients
        heads = np.array([potential.head for potential in potentials]).reshape(-1, 3)

        self._tables = (pair_types, starts, origins, coefficients, heads)

    def evaluate(self, distances: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Evaluate distances (B, P) in bohr.

        Returns:
            Energies and their derivatives with respect to the distance, each (B, P).
        """
        values, slopes = _evaluate(distances, *self._tables)
        return values, slopes


@_compiled
def _evaluate(distances, pair_types, starts, origins, coefficients, heads):
    values, slopes = np.zeros_like(distances), np.zeros_like(distances)
    for structure, pair in np.ndindex(distances.shape):
        r, row = distances[structure, pair], pair_types[pair]
        interval = np.searchsorted(starts[row], r, side="right")
        value, slope = 0.0, 0.0
        if interval == 0:
            a1, a2, a3 = heads[row]
            exponential = np.exp(a2 - a1 * r)
            value, slope = exponential + a3, -a1 * exponential
        else:
            x = r - origins[row, interval]
            for power in range(_MAX_POWER, -1, -1):
                slope = slope * x + value
                value = value * x + coefficients[row, interval, power]
        values[structure, pair], slopes[structure, pair] = value, slope
    return values, slopes
