"""Smooth step functions with two continuous derivatives."""

from __future__ import annotations

import numpy as np

from pidelta.state import FloatArray


def smooth_step(r: FloatArray, start: float, stop: float) -> tuple[FloatArray, FloatArray]:
    """Fall from 1 at `start` to 0 at `stop` with continuous first and second derivatives.

    s(x) = 1 - 10 x^3 + 15 x^4 - 6 x^5 with x = (r - start) / (stop - start): the quintic "smootherstep".

    Args:
        r: distances, any shape, in bohr.
        start, stop: the ends of the switching region in bohr, start < stop.

    Returns:
        s and ds/dr, each of the shape of `r`.
    """
    width = stop - start
    x = np.clip((r - start) / width, 0.0, 1.0)
    value = 1.0 - x**3 * (10.0 - 15.0 * x + 6.0 * x * x)
    slope = -30.0 * (x * (1.0 - x)) ** 2 / width
    return value, slope
