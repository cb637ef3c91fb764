"""Repulsive pair potentials of DFTB as piecewise polynomials, for all pairs of a batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pidelta.state import FloatArray, IntArray

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
        device: where to compute.
    """

    def __init__(self, potentials: Sequence[Repulsive], pair_types: IntArray, device: torch.device) -> None:
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

        def tensor(values: FloatArray | IntArray) -> torch.Tensor:
            return torch.as_tensor(values, device=device)

        used = np.flatnonzero(np.any(coefficients != 0.0, axis=(0, 1)))
        powers = int(used[-1]) + 1 if len(used) else 1
        self._starts = tensor(starts[pair_types])
        self._offsets = tensor(pair_types * (longest + 1))
        self._origins = tensor(origins.ravel())
        self._coefficients = tensor(coefficients[..., :powers].reshape(-1, powers))
        self._heads = tensor(heads[pair_types])

    def evaluate(self, distances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Evaluate distances (B, P) in bohr.

        Returns:
            Energies and their derivatives with respect to the distance, each (B, P).
        """
        interval = (distances.unsqueeze(-1) >= self._starts).sum(-1)
        segment = self._offsets + interval
        x = distances - self._origins[segment]
        *lower, value = self._coefficients[segment].unbind(-1)
        slope = torch.zeros_like(x)
        for coefficient in reversed(lower):
            slope = torch.addcmul(value, slope, x)
            value = torch.addcmul(coefficient, value, x)
        in_head = interval == 0
        if bool(in_head.any()):
            a1, a2, a3 = self._heads.unbind(-1)
            exponential = torch.exp(a2 - a1 * distances)
            value = torch.where(in_head, exponential + a3, value)
            slope = torch.where(in_head, -a1 * exponential, slope)
        return value, slope
