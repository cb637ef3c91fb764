"""Repulsive potentials with a piecewise linear second derivative: cubic splines that end smoothly in zero."""

from __future__ import annotations

import numpy as np

from pidelta.errors import ParameterError
from pidelta.parametrisation.writer import exponential_head
from pidelta.qm.dftb.repulsive import Repulsive, spline_repulsive
from pidelta.state import FloatArray

_SMALLEST_CURVATURE = 1e-6  # hartree/bohr^2; less is none


class RepulsiveBasis:
    """V(r) = sum_k w_k V_k(r), where V_k'' is the hat function of knot k and V_k is zero beyond the cutoff.

    So w_k is V'' at knot k, and V, V' and V'' vanish at the cutoff. V is a cubic spline, which an .skf file
    holds exactly, and with all w_k >= 0 it is convex and repulsive everywhere.

    Args:
        shortest: a distance in bohr that the knots must reach down to.
        cutoff: in bohr.
        spacing: distance of the knots in bohr.
    """

    def __init__(self, shortest: float, cutoff: float, spacing: float) -> None:
        count = int(np.ceil((cutoff - shortest) / spacing - 1e-9))
        self.cutoff = cutoff
        self.knots = cutoff - spacing * np.arange(count, 0, -1.0)
        self._spacing = spacing

    def __len__(self) -> int:
        return len(self.knots)

    def evaluate(self, r: FloatArray) -> tuple[FloatArray, FloatArray]:
        """V_k and dV_k/dr at distances (n,) not below the first knot; each (n, len(self))."""
        h = self._spacing
        x = (r[:, None] - self.knots) / h
        rising, falling = np.clip(1.0 + x, 0.0, 1.0), np.clip(1.0 - x, 0.0, 1.0)
        right = x >= 0.0
        # The integrals of a hat from r to infinity, once and twice.
        once = np.where(right, 0.5 * falling**2, 1.0 - 0.5 * rising**2)
        twice = np.where(right, falling**3 / 6.0, -x + rising**3 / 6.0)
        return h * h * twice, -h * once

    def repulsive(self, curvatures: FloatArray) -> Repulsive:
        """Turn V'' at the knots (len(self),) into a potential with an exponential head.

        The head begins at the first knot with V'' > 0, or at none without a repulsion.

        Raises:
            ParameterError: V'' is zero at all knots.
        """
        positive = np.flatnonzero(curvatures > _SMALLEST_CURVATURE)
        if len(positive) == 0:
            raise ParameterError("expected a repulsive with V'' > 0 somewhere, found V'' = 0 at all knots")
        first = int(positive[0])
        starts, w = self.knots[first:], np.append(curvatures[first:], 0.0)
        values, slopes = self.evaluate(starts)
        value, slope = values @ curvatures, slopes @ curvatures
        rows = np.stack([value, slope, w[:-1] / 2.0, np.diff(w) / (6.0 * self._spacing)], axis=1)
        head = exponential_head(float(starts[0]), float(value[0]), float(slope[0]), float(w[0]))
        coefficients = [*rows[:-1].tolist(), [*rows[-1].tolist(), 0.0, 0.0]]
        return spline_repulsive(starts.tolist(), coefficients, head, self.cutoff)
