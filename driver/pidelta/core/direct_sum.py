"""The direct part of an Ewald sum between a few charges and many, and among the few.

Pairs within the cutoff interact by 1/r + P(r^2), where P is -erf(alpha r)/r less its shift
(`ewald.shifted_part`). Among the few, which are a molecule, 1/R of the molecule itself is taken off: what is
left is smooth, and is the interaction with images and with the background.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import math

import numpy as np

from pidelta.core.compilation import compiled
from pidelta.core.vectors import dot, nearest
from pidelta.state import FloatArray, IntArray

_compiled = compiled(nogil=True, error_model="numpy")


def images_in_reach(
    few: FloatArray, many: FloatArray, cell: FloatArray, cutoff: float
) -> tuple[IntArray, FloatArray]:
    """Those of the many, and images of them, that may be within the cutoff of one of the few.

    Args:
        few: (n, 3) a molecule, in bohr.
        many: (m, 3) in bohr.
        cell: (3, 3) lattice vectors as rows in bohr.
        cutoff: in bohr.

    Returns:
        which of the many (k,), and where (3, k): all near a sphere around the few.
    """
    middle = few.mean(axis=0)
    reach = cutoff + math.sqrt(float(((few - middle) ** 2).sum(axis=1).max()))
    indices, places = _images(middle, many, cell, np.asarray(np.linalg.inv(cell)), reach)
    return indices, np.ascontiguousarray(places.T)


def potential_of_many(
    few: FloatArray, places: FloatArray, charges: FloatArray, cutoff: float, smooth: FloatArray
) -> FloatArray:
    """Potential (n,) in hartree/e at the few (n, 3) of charges (k,) in e at places (3, k), in bohr."""
    potential = np.zeros(len(few))
    _add_potential(few, *places, charges, cutoff, smooth, potential)
    return potential


def gradient_of_many(
    few: FloatArray,
    few_charges: FloatArray,
    places: FloatArray,
    charges: FloatArray,
    cutoff: float,
    smooth: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Derivatives of the energy of the few's charges in that potential.

    Returns:
        dE/dR of the few (n, 3) and of the others (k, 3), and dE/d(strain) (3, 3).
    """
    gradient, slopes = np.zeros(few.shape), np.zeros(places.shape)
    _add_gradient(few, few_charges, *places, charges, cutoff, smooth, gradient, *slopes)
    # the sum over pairs of slope d (x) d, with d = R - r
    return gradient, slopes.T, gradient.T @ few + slopes @ places.T


def kernel_of_images(few: FloatArray, cell: FloatArray, cutoff: float, smooth: FloatArray) -> FloatArray:
    """(n, n) direct part less 1/R between the few, a whole molecule (n, 3) in bohr; zero on the diagonal."""
    kernel = np.zeros((len(few), len(few)))
    inverse = np.asarray(np.linalg.inv(cell), dtype=np.float64)
    _set_kernel(few, cell, inverse, cutoff, smooth, kernel)
    return kernel


def add_gradient_of_images(
    few: FloatArray,
    charges: FloatArray,
    cell: FloatArray,
    cutoff: float,
    smooth: FloatArray,
    gradient: FloatArray,
    strain: FloatArray,
) -> None:
    """Add dE/dR (n, 3) and dE/d(strain) (3, 3) of 1/2 sum_AB q_A K_AB q_B with K of `kernel_of_images`."""
    inverse = np.asarray(np.linalg.inv(cell), dtype=np.float64)
    _add_kernel_gradient(few, charges, cell, inverse, cutoff, smooth, gradient, strain)


@_compiled
def _smooth(r2, cutoff, coefficients):
    """P(r^2) and its derivative in r^2."""
    scale = 2.0 / (cutoff * cutoff)
    t = r2 * scale - 1.0
    value = slope = 0.0
    for k in range(len(coefficients) - 1, -1, -1):
        slope = slope * t + value
        value = value * t + coefficients[k]
    return value, slope * scale


@_compiled
def _images(middle, many, cell, inverse, reach):
    """Indices (k,) and places (k, 3) of the many and their images within reach of the middle.

    A point within a distance d of another has fractional displacements of at most d / height.
    """
    widest = reach * np.sqrt((inverse**2).sum(axis=0))
    indices, places = np.empty(len(many), dtype=np.int64), np.empty((len(many), 3))
    count = 0
    low, high = np.empty(3, dtype=np.int64), np.empty(3, dtype=np.int64)
    for m in range(len(many)):
        x, y, z = many[m, 0] - middle[0], many[m, 1] - middle[1], many[m, 2] - middle[2]
        for k in range(3):
            fraction = x * inverse[0, k] + y * inverse[1, k] + z * inverse[2, k]
            low[k] = np.int64(np.ceil(-widest[k] - fraction))
            high[k] = np.int64(np.floor(widest[k] - fraction))
        for a in range(low[0], high[0] + 1):
            for b in range(low[1], high[1] + 1):
                for c in range(low[2], high[2] + 1):
                    dx = x + a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
                    dy = y + a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]
                    dz = z + a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]
                    if dx * dx + dy * dy + dz * dz >= reach * reach:
                        continue
                    if count == len(indices):
                        indices = np.concatenate((indices, np.empty_like(indices)))
                        places = np.concatenate((places, np.empty_like(places)))
                    indices[count] = m
                    places[count] = dx + middle[0], dy + middle[1], dz + middle[2]
                    count += 1
    return indices[:count], places[:count]


@_compiled
def _add_potential(few, x, y, z, charges, cutoff, smooth, potential):
    limit = cutoff * cutoff
    for a in range(len(few)):
        for k in range(len(charges)):
            dx, dy, dz = few[a, 0] - x[k], few[a, 1] - y[k], few[a, 2] - z[k]
            r2 = dx * dx + dy * dy + dz * dz
            if r2 < limit:
                value, _ = _smooth(r2, cutoff, smooth)
                potential[a] += charges[k] * (1.0 / math.sqrt(r2) + value)


@_compiled
def _add_gradient(few, few_charges, x, y, z, charges, cutoff, smooth, few_gradient, gx, gy, gz):
    limit = cutoff * cutoff
    for a in range(len(few)):
        for k in range(len(charges)):
            dx, dy, dz = few[a, 0] - x[k], few[a, 1] - y[k], few[a, 2] - z[k]
            r2 = dx * dx + dy * dy + dz * dz
            if r2 < limit:
                _, slope = _smooth(r2, cutoff, smooth)
                force = few_charges[a] * charges[k] * (2.0 * slope - 1.0 / (r2 * math.sqrt(r2)))
                few_gradient[a, 0] += force * dx
                few_gradient[a, 1] += force * dy
                few_gradient[a, 2] += force * dz
                gx[k] -= force * dx
                gy[k] -= force * dy
                gz[k] -= force * dz


@_compiled
def _pair_vectors(few, a, b, cell, inverse):
    """The vector between two of the few as in the molecule, and that to the nearest image."""
    whole = (few[a, 0] - few[b, 0], few[a, 1] - few[b, 1], few[a, 2] - few[b, 2])
    return whole, nearest(whole[0], whole[1], whole[2], cell, inverse)


@_compiled
def _set_kernel(few, cell, inverse, cutoff, smooth, kernel):
    for a in range(len(few)):
        for b in range(a):
            whole, near = _pair_vectors(few, a, b, cell, inverse)
            inside, r2 = dot(whole, whole), dot(near, near)
            value = 0.0
            if r2 < cutoff * cutoff:
                value, _ = _smooth(r2, cutoff, smooth)
            if r2 >= cutoff * cutoff or r2 < inside * (1.0 - 1e-12):
                value -= 1.0 / math.sqrt(inside)
                if r2 < cutoff * cutoff:
                    value += 1.0 / math.sqrt(r2)
            kernel[a, b] = kernel[b, a] = value


@_compiled
def _add_kernel_gradient(few, charges, cell, inverse, cutoff, smooth, gradient, strain):
    for a in range(len(few)):
        for b in range(a):
            whole, near = _pair_vectors(few, a, b, cell, inverse)
            inside, r2 = dot(whole, whole), dot(near, near)
            along_near = along_whole = 0.0  # derivatives over distance
            if r2 < cutoff * cutoff:
                _, slope = _smooth(r2, cutoff, smooth)
                along_near = 2.0 * slope
            if r2 >= cutoff * cutoff or r2 < inside * (1.0 - 1e-12):
                along_whole = 1.0 / (inside * math.sqrt(inside))
                if r2 < cutoff * cutoff:
                    along_near -= 1.0 / (r2 * math.sqrt(r2))
            qq = charges[a] * charges[b]
            for i in range(3):
                part = qq * (along_near * near[i] + along_whole * whole[i])
                gradient[a, i] += part
                gradient[b, i] -= part
                for k in range(3):
                    strain[i, k] += qq * (along_near * near[i] * near[k] + along_whole * whole[i] * whole[k])
