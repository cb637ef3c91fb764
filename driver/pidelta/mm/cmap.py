"""CMAP: an energy on a grid of two dihedral angles, interpolated by bicubic splines.

MacKerell, Feig, Brooks, J. Comput. Chem. 25, 1400 (2004). As there, the derivatives at the grid points are
those of periodic cubic splines through the grid.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline

from pidelta.core.compilation import compiled
from pidelta.mm.dihedrals import add_dihedral_gradient, dihedral
from pidelta.state import FloatArray

_compiled = compiled(nogil=True, error_model="numpy")


def grid_derivatives(grids: FloatArray) -> FloatArray:
    """Energies and derivatives at the grid points, per grid step: (M, K, K, 4) of E, E_1, E_2, E_12.

    Args:
        grids: (M, K, K) energies, first and second angle, at -pi, -pi + 2 pi / K, ...
    """

    def derivative(values: FloatArray, axis: int) -> FloatArray:
        closed = np.concatenate([values, np.take(values, [0], axis=axis)], axis=axis)
        spline = CubicSpline(np.arange(closed.shape[axis]), closed, axis=axis, bc_type="periodic")
        return np.asarray(spline(np.arange(values.shape[axis]), 1))

    if not grids.size:
        return np.zeros((*grids.shape, 4))
    first, second = derivative(grids, 1), derivative(grids, 2)
    return np.ascontiguousarray(np.stack([grids, first, second, derivative(first, 2)], axis=-1))


@_compiled
def _basis(t):
    """Cubic Hermite polynomials: values of both ends, slopes of both ends, and all their derivatives."""
    t2 = t * t
    t3 = t2 * t
    values = (1.0 - 3.0 * t2 + 2.0 * t3, 3.0 * t2 - 2.0 * t3, t - 2.0 * t2 + t3, t3 - t2)
    slopes = (6.0 * (t2 - t), 6.0 * (t - t2), 1.0 - 4.0 * t + 3.0 * t2, 3.0 * t2 - 2.0 * t)
    return values, slopes


@_compiled
def _interpolate(derivatives, phi, psi):
    """Energy and its derivatives with respect to both angles, from one map (K, K, 4)."""
    size = len(derivatives)
    step = 2.0 * np.pi / size
    u, v = (phi + np.pi) / step, (psi + np.pi) / step
    i, j = int(np.floor(u)), int(np.floor(v))
    (p, dp), (q, dq) = _basis(u - i), _basis(v - j)
    energy = along_phi = along_psi = 0.0
    for a in range(2):
        for b in range(2):
            f = derivatives[(i + a) % size, (j + b) % size]
            energy += p[a] * (q[b] * f[0] + q[b + 2] * f[2]) + p[a + 2] * (q[b] * f[1] + q[b + 2] * f[3])
            along_phi += dp[a] * (q[b] * f[0] + q[b + 2] * f[2]) + dp[a + 2] * (q[b] * f[1] + q[b + 2] * f[3])
            along_psi += p[a] * (dq[b] * f[0] + dq[b + 2] * f[2]) + p[a + 2] * (
                dq[b] * f[1] + dq[b + 2] * f[3]
            )
    return energy, along_phi / step, along_psi / step


@_compiled
def add_cmaps(x, atoms, maps, derivatives, cell, inverse, gradient, strain):
    """Add the maps of dihedrals over atoms 0 to 3 and 1 to 4 of each row; returns the energy."""
    total = 0.0
    for t in range(len(atoms)):
        one = dihedral(x, atoms[t, :4], cell, inverse)
        two = dihedral(x, atoms[t, 1:], cell, inverse)
        energy, slope1, slope2 = _interpolate(derivatives[maps[t]], one[5], two[5])
        total += energy
        b1, b2, b3, m, n, _ = one
        add_dihedral_gradient(slope1, atoms[t, :4], b1, b2, b3, m, n, gradient, strain)
        b1, b2, b3, m, n, _ = two
        add_dihedral_gradient(slope2, atoms[t, 1:], b1, b2, b3, m, n, gradient, strain)
    return total
