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

_INVERSE_E = math.exp(-1.0)

RadialFunctions = tuple[FloatArray, float, float]
"""Equally spaced centres (K,), their distance, which is sigma, and the cutoff, in bohr."""

# No MM nucleus comes closer to a QM nucleus than about this, in bohr.
CLOSEST_SITE = 3.0

_compiled = compiled(nogil=True, error_model="numpy")


def gaussian_grid(start: float, cutoff: float, count: int) -> RadialFunctions:
    """Equally spaced centres below the cutoff."""
    spacing = (cutoff - start) / count
    return start + spacing * np.arange(count, dtype=np.float64), spacing, cutoff


@_compiled
def gaussians(r, centres, spacing, values):
    """Set values (K,) to exp(-(r - c_k)^2 / (2 spacing^2)).

    Two exponentials do for all: from the centre next to r, the ratio of neighbours is a geometric sequence.
    """
    last = len(centres) - 1
    nearest = min(max(int((r - centres[0]) / spacing + 0.5), 0), last)
    x = (r - centres[nearest]) / spacing
    middle, step = math.exp(-0.5 * x * x), math.exp(x - 0.5)
    values[nearest] = middle
    value, ratio = middle, step
    for k in range(nearest + 1, last + 1):
        value *= ratio
        ratio *= _INVERSE_E
        values[k] = value
    value, ratio = middle, _INVERSE_E / step
    for k in range(nearest - 1, -1, -1):
        value *= ratio
        ratio *= _INVERSE_E
        values[k] = value


@_compiled
def radial_functions(r, functions, values, slopes):
    """Set values (K,) to Gaussians times fc(r) at r within the cutoff, and slopes to their derivatives."""
    centres, spacing, cutoff = functions
    fall, fall_slope = quintic(r / cutoff), quintic_slope(r / cutoff) / cutoff
    gaussians(r, centres, spacing, values)
    for k in range(len(centres)):
        slopes[k] = values[k] * (fall_slope - (r - centres[k]) / spacing**2 * fall)
        values[k] *= fall
