"""The one smooth step, in NumPy, PyTorch and compiled code."""

import numba
import numpy as np
import torch

from pidelta.core.switching import quintic, quintic_slope


@numba.njit
def compiled(x):
    return quintic(x), quintic_slope(x)


def test_the_same_step_everywhere():
    """Values from the polynomial written out, slopes from automatic differentiation."""
    x = torch.linspace(0.0, 1.0, 21, dtype=torch.float64, requires_grad=True)
    values = quintic(x)
    (slopes,) = torch.autograd.grad(values.sum(), x)
    points = x.detach().numpy()
    expected = 1.0 - 10.0 * points**3 + 15.0 * points**4 - 6.0 * points**5
    np.testing.assert_allclose(values.detach().numpy(), expected, atol=1e-15)
    np.testing.assert_allclose(quintic_slope(points), slopes.numpy(), atol=1e-14)
    np.testing.assert_array_equal(quintic(points), values.detach().numpy())
    np.testing.assert_allclose(
        [compiled(p) for p in points], np.stack([expected, slopes], axis=1), atol=1e-14
    )
