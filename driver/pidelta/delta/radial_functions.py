"""Gaussians of a distance that end at a cutoff with two continuous derivatives, compiled.

The cosine of Behler and Parrinello has a second derivative that jumps at the cutoff.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import math

import numpy as np

from pidelta.core.compilation import compiled
from pidelta.core.switching import quintic, quintic_slope
from pidelta.state import FloatArray

RadialFunctions = tuple[FloatArray, float, float]
"""Centres (K,) and cutoff in bohr, with the exponent in 1/bohr^2 between them."""

# No MM nucleus comes closer to a QM nucleus than about this, in bohr.
CLOSEST_SITE = 3.0


def gaussian_grid(start: float, cutoff: float, count: int) -> RadialFunctions:
    """Equally spaced centres below the cutoff, and an exponent that makes sigma equal to their distance."""
    spacing = (cutoff - start) / count
    return start + spacing * np.arange(count, dtype=np.float64), 0.5 / spacing**2, cutoff


@compiled(nogil=True, error_model="numpy")
def radial_functions(r, functions, values, slopes):
    """Set values (K,) to exp(-eta (r - c_k)^2) fc(r) at r within the cutoff, slopes to their derivatives."""
    centres, eta, cutoff = functions
    x = r / cutoff
    fall, fall_slope = quintic(x), quintic_slope(x) / cutoff
    for s in range(len(centres)):
        shifted = r - centres[s]
        bare = math.exp(-eta * shifted * shifted)
        values[s] = bare * fall
        slopes[s] = bare * (fall_slope - 2.0 * eta * shifted * fall)
