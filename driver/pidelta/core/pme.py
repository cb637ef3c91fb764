"""Smooth particle-mesh Ewald: the reciprocal sum on a grid, by B-splines and Fourier transforms.

Essmann, Perera, Berkowitz, Darden, Lee, Pedersen, J. Chem. Phys. 103, 8577 (1995). The gradient is the exact
derivative of the energy on the grid, so dynamics conserve; forces add up to zero to within the accuracy only.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import math

import numpy as np
import scipy.fft

from pidelta.core.compilation import compiled
from pidelta.core.ewald import Electrostatics
from pidelta.errors import SettingError
from pidelta.state import FloatArray

ORDER = 5
_LARGEST_GRID = 2**27  # a gigabyte

_compiled = compiled(nogil=True, error_model="numpy")


def grid_for(cell: FloatArray, alpha: float, tolerance: float) -> tuple[int, int, int]:
    """Points along each lattice vector, 2 alpha |a|/(3 tolerance^(1/5)) as in OpenMM's user guide, or more.

    Args:
        cell: (3, 3) lattice vectors as rows in bohr.
        alpha: in 1/bohr.
        tolerance: of forces, relative.

    Raises:
        SettingError: the grid would take more than a gigabyte.
    """
    wanted = 2.0 * alpha * np.linalg.norm(cell, axis=1) / (3.0 * tolerance ** (1.0 / ORDER))
    n1, n2, n3 = (scipy.fft.next_fast_len(max(math.ceil(n), ORDER + 1), real=True) for n in wanted)
    if n1 * n2 * n3 > _LARGEST_GRID:
        raise SettingError(
            "ewald_tolerance",
            f"{tolerance} needs a grid of {n1} x {n2} x {n3} points, expected at most {_LARGEST_GRID}; "
            "electrostatics: ewald of the engine builtin reaches such tolerances",
        )
    return n1, n2, n3


class ParticleMeshEwald:
    """The reciprocal sum on a fixed grid, for any cell.

    Args:
        alpha: in 1/bohr.
        grid: points along each lattice vector, each more than the order of the splines, 5.
    """

    def __init__(self, alpha: float, grid: tuple[int, int, int]) -> None:
        self.alpha = alpha
        self.grid = grid
        self._moduli = [_inverse_moduli(n) for n in grid]

    def evaluate(self, positions: FloatArray, charges: FloatArray, cell: FloatArray) -> Electrostatics:
        """The sum for positions (N, 3) in bohr, charges (N,) in e and a cell (3, 3) of rows in bohr."""
        inverse = np.linalg.inv(cell)
        fractional = positions @ inverse
        first, weights, slopes = _splines(fractional, np.array(self.grid))
        density = np.zeros(self.grid)
        _spread(first, weights, charges, density)
        transform = scipy.fft.rfftn(density)
        strain = np.zeros((3, 3))
        b1, b2, b3 = self._moduli
        energy = _convolve(transform, b1, b2, b3, inverse, self.alpha, self.grid[2], strain)
        field = scipy.fft.irfftn(transform, self.grid, norm="forward", overwrite_x=True)
        potential, gradient = np.empty(len(charges)), np.empty(positions.shape)
        _gather(first, weights, slopes, field, potential, gradient)
        gradient *= charges[:, None] * np.array(self.grid)
        return Electrostatics(energy, potential, gradient @ inverse.T, strain)


def _inverse_moduli(n: int) -> FloatArray:
    """|b(m)|^2 of eq. 4.4 for m = 0 .. n - 1; zero at n/2, where splines of odd order cannot interpolate."""
    weights, slopes = np.zeros(ORDER), np.zeros(ORDER)
    _set_spline(0.0, weights, slopes)
    phases = np.exp(2j * math.pi * np.outer(np.arange(n), np.arange(ORDER)) / n)
    moduli = np.abs(phases @ weights) ** 2
    return np.where(moduli > 1e-10, 1.0 / np.maximum(moduli, 1e-10), 0.0)


@_compiled
def _set_spline(fraction, weights, slopes):
    """Set the cardinal B-spline M_n(fraction + n - 1 - k), k = 0 .. n - 1, and slopes: eqs. 4.1 and 4.2."""
    last = ORDER - 1
    weights[:] = 0.0
    weights[last], weights[last - 1] = fraction, 1.0 - fraction
    for n in range(3, ORDER + 1):
        if n == ORDER:
            slopes[last] = weights[last]
            for k in range(last):
                slopes[k] = weights[k] - weights[k + 1]
        for k in range(ORDER - n, last):
            u = fraction + last - k
            weights[k] = (u * weights[k] + (n - u) * weights[k + 1]) / (n - 1)
        weights[last] = fraction * weights[last] / (n - 1)


@_compiled
def _splines(fractional, grid):
    """First grid point (N, 3) of each atom, and weights and slopes (N, 3, ORDER) by rising grid point."""
    n = len(fractional)
    first = np.empty((n, 3), dtype=np.int64)
    weights, slopes = np.empty((n, 3, ORDER)), np.empty((n, 3, ORDER))
    for i in range(n):
        for axis in range(3):
            u = (fractional[i, axis] - math.floor(fractional[i, axis])) * grid[axis]
            lowest = math.floor(u)
            first[i, axis] = (lowest - ORDER + 1) % grid[axis]
            _set_spline(u - lowest, weights[i, axis], slopes[i, axis])
    return first, weights, slopes


@_compiled
def _wrapped(index, size):
    return index - size if index >= size else index


@_compiled
def _spread(first, weights, charges, density):
    n1, n2, n3 = density.shape
    for i in range(len(charges)):
        for a in range(ORDER):
            plane = density[_wrapped(first[i, 0] + a, n1)]
            along1 = charges[i] * weights[i, 0, a]
            for b in range(ORDER):
                row = plane[_wrapped(first[i, 1] + b, n2)]
                along2 = along1 * weights[i, 1, b]
                for c in range(ORDER):
                    row[_wrapped(first[i, 2] + c, n3)] += along2 * weights[i, 2, c]


@_compiled
def _gather(first, weights, slopes, field, potential, gradient):
    """Set the potential and its slopes, by grid point along each lattice vector, at the atoms."""
    n1, n2, n3 = field.shape
    for i in range(len(first)):
        value = g1 = g2 = g3 = 0.0
        for a in range(ORDER):
            plane = field[_wrapped(first[i, 0] + a, n1)]
            for b in range(ORDER):
                row = plane[_wrapped(first[i, 1] + b, n2)]
                line = line_slope = 0.0
                for c in range(ORDER):
                    entry = row[_wrapped(first[i, 2] + c, n3)]
                    line += weights[i, 2, c] * entry
                    line_slope += slopes[i, 2, c] * entry
                w1, w2 = weights[i, 0, a], weights[i, 1, b]
                value += w1 * w2 * line
                g1 += slopes[i, 0, a] * w2 * line
                g2 += w1 * slopes[i, 1, b] * line
                g3 += w1 * w2 * line_slope
        potential[i] = value
        gradient[i, 0], gradient[i, 1], gradient[i, 2] = g1, g2, g3


@_compiled
def _convolve(transform, moduli1, moduli2, moduli3, inverse, alpha, n3, strain):
    """Multiply by exp(-pi^2 m^2/alpha^2)/(pi V m^2) |b(m)|^2, set dE/d(strain), return the energy."""
    n1, n2, half = transform.shape
    per_volume = abs(np.linalg.det(inverse)) / math.pi
    width = (math.pi / alpha) ** 2
    total = 0.0
    for x in range(n1):
        for y in range(n2):
            f1, f2 = x - n1 * (2 * x > n1), y - n2 * (2 * y > n2)
            for z in range(half):
                if x == 0 and y == 0 and z == 0:  # the mean potential is that of the neutralising background
                    transform[x, y, z] = 0.0
                    continue
                m1 = f1 * inverse[0, 0] + f2 * inverse[0, 1] + z * inverse[0, 2]
                m2 = f1 * inverse[1, 0] + f2 * inverse[1, 1] + z * inverse[1, 2]
                m3 = f1 * inverse[2, 0] + f2 * inverse[2, 1] + z * inverse[2, 2]
                square = m1 * m1 + m2 * m2 + m3 * m3
                influence = math.exp(-width * square) / square * per_volume
                influence *= moduli1[x] * moduli2[y] * moduli3[z]
                entry = transform[x, y, z]
                # the half of a real transform stands for both m and -m, but for the planes that are their own
                twice = 1.0 if z == 0 or 2 * z == n3 else 2.0
                energy = 0.5 * twice * influence * (entry.real**2 + entry.imag**2)
                transform[x, y, z] = influence * entry
                total += energy
                shrink = 2.0 * energy * (1.0 / square + width)
                strain[0, 0] += shrink * m1 * m1 - energy
                strain[0, 1] += shrink * m1 * m2
                strain[0, 2] += shrink * m1 * m3
                strain[1, 1] += shrink * m2 * m2 - energy
                strain[1, 2] += shrink * m2 * m3
                strain[2, 2] += shrink * m3 * m3 - energy
    strain[1, 0], strain[2, 0], strain[2, 1] = strain[0, 1], strain[0, 2], strain[1, 2]
    return total
