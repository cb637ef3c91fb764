"""Smooth particle-mesh Ewald: the reciprocal sum on a grid, by B-splines and Fourier transforms.

Essmann, Perera, Berkowitz, Darden, Lee, Pedersen, J. Chem. Phys. 103, 8577 (1995). The gradient is the exact
derivative of the energy on the grid, so dynamics conserve; forces add up to zero to within the accuracy only.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.fft

from pidelta.core.compilation import compiled
from pidelta.core.ewald import Electrostatics, EwaldSum, ReciprocalSum, energy_of, splitting
from pidelta.errors import SettingError
from pidelta.state import FloatArray, IntArray

ORDER = 5
_LARGEST_GRID = 2**27  # a gigabyte

Splines = tuple[IntArray, FloatArray, FloatArray]
"""First grid point (N, 3) of each atom, weights and slopes (N, 3, ORDER)."""

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
            "the plain Ewald sum of the built-in evaluator reaches such tolerances",
        )
    return n1, n2, n3


def reciprocal_sum(method: str, cutoff: float, tolerance: float, cell: FloatArray) -> ReciprocalSum:
    """The reciprocal sum that goes with a direct part up to a cutoff.

    Args:
        method: ``pme`` or ``ewald``.
        cutoff: of the direct part in bohr.
        tolerance: sets the splitting, exp(-(alpha cutoff)^2) = 2 tolerance, the grid of PME and the end of
            the plain sum.
        cell: (3, 3) lattice vectors as rows in bohr, that the grid of PME is made for.

    Raises:
        SettingError: PME's grid would take more than a gigabyte.
    """
    alpha = splitting(cutoff, tolerance)
    if method == "ewald":
        return EwaldSum(alpha, tolerance)
    return ParticleMeshEwald(alpha, grid_for(cell, alpha, tolerance))


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
        self._last: tuple[bytes, tuple[FloatArray, FloatArray]] | None = None  # see `_of_cell`

    def evaluate(self, positions: FloatArray, charges: FloatArray, cell: FloatArray) -> Electrostatics:
        """The sum for positions (N, 3) in bohr, charges (N,) in e and a cell (3, 3) of rows in bohr."""
        return energy_of(self.field(positions, charges, cell), charges)

    def field(self, positions: FloatArray, charges: FloatArray, cell: FloatArray) -> MeshField:
        """The potential of charges (N,) in e at positions (N, 3) in bohr, by the same mesh."""
        inverse = np.asarray(np.linalg.inv(cell), dtype=np.float64)
        splines = _splines(positions @ inverse, np.array(self.grid))
        first, weights, _ = splines
        density = np.zeros(self.grid)
        _spread(first, weights, charges, density)
        transform = np.asarray(scipy.fft.rfftn(density))
        influence, _ = self._of_cell(inverse)
        values = self._backward(influence * transform)
        return MeshField(self.alpha, inverse, influence, splines, transform, values)

    def kernel(self, points: FloatArray, cell: FloatArray) -> FloatArray:
        """(k, k) potential at each of points (k, 3) in bohr of a unit charge at each other, and at itself.

        It is what spreading one charge and reading at the other gives, without a mesh for each: the potential
        depends on the differences of grid points alone, so the products of two splines are summed first.
        """
        inverse = np.asarray(np.linalg.inv(cell), dtype=np.float64)
        first, weights, _ = _splines(points @ inverse, np.array(self.grid))
        _, response = self._of_cell(inverse)
        return np.asarray(_kernel(first, weights, response))

    def _backward(self, transform: npt.NDArray[np.complex128]) -> FloatArray:
        values = scipy.fft.irfftn(transform, self.grid, norm="forward", overwrite_x=True)
        return np.asarray(values, dtype=np.float64)

    def _of_cell(self, inverse: FloatArray) -> tuple[FloatArray, FloatArray]:
        """exp(-pi^2 m^2/alpha^2)/(pi V m^2) |b(m)|^2 on the half of the grid that a real transform has, and
        its transform, the potential by the difference of grid points; both kept for the last cell.
        """
        key = inverse.tobytes()
        if self._last is None or self._last[0] != key:
            n1, n2, n3 = self.grid
            influence = np.empty((n1, n2, n3 // 2 + 1))
            b1, b2, b3 = self._moduli
            _set_influence(influence, b1, b2, b3, inverse, self.alpha)
            self._last = key, (influence, self._backward(influence.astype(np.complex128)))
        return self._last[1]


@dataclass(frozen=True)
class MeshField:
    """The potential of charges on a mesh.

    Attributes:
        alpha: in 1/bohr.
        inverse: (3, 3) of the cell, in 1/bohr.
        influence: what the transform is multiplied by, (n1, n2, n3/2 + 1).
        splines: of the charges.
        transform: of the charges on the grid.
        values: (n1, n2, n3) potential on the grid in hartree/e.
    """

    alpha: float
    inverse: FloatArray
    influence: FloatArray
    splines: Splines
    transform: npt.NDArray[np.complex128]
    values: FloatArray

    @cached_property
    def own(self) -> tuple[FloatArray, FloatArray]:
        """As `at`, where the charges themselves are."""
        return self.at_charges_of(self)

    def at(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Potential (k,) in hartree/e and its gradient (k, 3) in hartree/e/bohr at points (k, 3) in bohr."""
        splines = _splines(points @ self.inverse, np.array(self.values.shape))
        return _read(splines, self.values, self.inverse)

    def at_charges_of(self, other: MeshField) -> tuple[FloatArray, FloatArray]:
        """As `at`, where the charges of another field, or this one, are."""
        return _read(other.splines, self.values, self.inverse)

    def strain(self, *others: MeshField) -> FloatArray:
        """(3, 3) dE/d(strain) in hartree of these charges among themselves and with those of other fields."""
        strain = np.zeros((3, 3))
        n3 = self.values.shape[2]
        felt = 0.5 * self.transform
        for other in others:
            felt += other.transform
        _add_strain(self.transform, felt, self.influence, self.inverse, self.alpha, n3, strain)
        return strain


def _read(splines: Splines, field: FloatArray, inverse: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Potential (k,) and its gradient (k, 3) in 1/bohr, from a field (n1, n2, n3) on the grid."""
    potential, slopes = np.empty(len(splines[0])), np.empty((len(splines[0]), 3))
    first, weights, spline_slopes = splines
    _gather(first, weights, spline_slopes, field, potential, slopes)
    return potential, (slopes * np.array(field.shape)) @ inverse.T


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
def _set_influence(influence, moduli1, moduli2, moduli3, inverse, alpha):
    n1, n2, half = influence.shape
    per_volume = abs(np.linalg.det(inverse)) / math.pi
    width = (math.pi / alpha) ** 2
    for x in range(n1):
        for y in range(n2):
            f1, f2 = x - n1 * (2 * x > n1), y - n2 * (2 * y > n2)
            for z in range(half):
                m1 = f1 * inverse[0, 0] + f2 * inverse[0, 1] + z * inverse[0, 2]
                m2 = f1 * inverse[1, 0] + f2 * inverse[1, 1] + z * inverse[1, 2]
                m3 = f1 * inverse[2, 0] + f2 * inverse[2, 1] + z * inverse[2, 2]
                square = m1 * m1 + m2 * m2 + m3 * m3
                if square == 0.0:  # the mean potential is that of the neutralising background
                    influence[x, y, z] = 0.0
                    continue
                moduli = moduli1[x] * moduli2[y] * moduli3[z]
                influence[x, y, z] = math.exp(-width * square) / square * per_volume * moduli


@_compiled
def _add_strain(first, second, influence, inverse, alpha, n3, strain):
    """dE/d(strain) of the interaction of two sets of charges, from their transforms."""
    n1, n2, half = influence.shape
    width = (math.pi / alpha) ** 2
    for x in range(n1):
        for y in range(n2):
            f1, f2 = x - n1 * (2 * x > n1), y - n2 * (2 * y > n2)
            for z in range(half):
                if influence[x, y, z] == 0.0:
                    continue
                m1 = f1 * inverse[0, 0] + f2 * inverse[0, 1] + z * inverse[0, 2]
                m2 = f1 * inverse[1, 0] + f2 * inverse[1, 1] + z * inverse[1, 2]
                m3 = f1 * inverse[2, 0] + f2 * inverse[2, 1] + z * inverse[2, 2]
                square = m1 * m1 + m2 * m2 + m3 * m3
                twice = 1.0 if z == 0 or 2 * z == n3 else 2.0
                product = first[x, y, z] * second[x, y, z].conjugate()
                energy = twice * influence[x, y, z] * product.real
                shrink = 2.0 * energy * (1.0 / square + width)
                strain[0, 0] += shrink * m1 * m1 - energy
                strain[0, 1] += shrink * m1 * m2
                strain[0, 2] += shrink * m1 * m3
                strain[1, 1] += shrink * m2 * m2 - energy
                strain[1, 2] += shrink * m2 * m3
                strain[2, 2] += shrink * m3 * m3 - energy
    strain[1, 0], strain[2, 0], strain[2, 1] = strain[0, 1], strain[0, 2], strain[1, 2]


@_compiled
def _kernel(first, weights, response):
    """sum_km w_i(k) w_j(m) response(k - m) of all pairs of points i, j."""
    n = len(first)
    reach = 2 * ORDER - 1
    kernel = np.empty((n, n))
    products, places = np.empty((3, reach)), np.empty((3, reach), dtype=np.int64)
    for i in range(n):
        for j in range(i + 1):
            # products of splines by the difference k - m, from -(ORDER - 1) on
            for axis in range(3):
                for d in range(reach):
                    products[axis, d] = 0.0
                    difference = first[i, axis] - first[j, axis] + d - ORDER + 1
                    places[axis, d] = difference % response.shape[axis]
                for k in range(ORDER):
                    for m in range(ORDER):
                        products[axis, k - m + ORDER - 1] += weights[i, axis, k] * weights[j, axis, m]
            total = 0.0
            for a in range(reach):
                for b in range(reach):
                    row = response[places[0, a], places[1, b]]
                    line = 0.0
                    for c in range(reach):
                        line += products[2, c] * row[places[2, c]]
                    total += products[0, a] * products[1, b] * line
            kernel[i, j] = kernel[j, i] = total
    return kernel
