"""The smooth step with two continuous derivatives: everything that is switched off anywhere ends this way."""

from __future__ import annotations

from typing import Any

from numba.extending import register_jitable


@register_jitable(inline="always")
def quintic(x: Any) -> Any:
    """Fall from 1 at x = 0 to 0 at x = 1: 1 - 10 x^3 + 15 x^4 - 6 x^5, the "smootherstep".

    Args:
        x: within [0, 1]; a number, an array of NumPy, a tensor of PyTorch, or a number in compiled code.
    """
    return 1.0 - x * x * x * (10.0 + x * (6.0 * x - 15.0))


@register_jitable(inline="always")
def quintic_slope(x: Any) -> Any:
    """The derivative of `quintic`, with zero slope at either end; x as there."""
    rest = x * (1.0 - x)
    return -30.0 * rest * rest
