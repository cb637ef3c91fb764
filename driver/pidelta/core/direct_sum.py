"""The direct part of an Ewald sum between a few charges and many, and among the few.

Pairs within the cutoff, at their nearest images, interact by 1/r + P(r^2), where P is -erf(alpha r)/r less
its shift (`ewald.shifted_part`). Among the few, which are a molecule, 1/R of the molecule itself is taken
off: what is left is smooth, and is the interaction with images and with the background.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import math

import numpy as np

from pidelta.core.cell import heights
from pidelta.core.compilation import compiled
from pidelta.core.vectors import dot, nearest
from pidelta.state import FloatArray

_compiled = compiled(nogil=True, error_model="numpy")


def potential_of_many(
    few: FloatArray,
    many: FloatArray,
    charges: FloatArray,
    cell: FloatArray,
    cutoff: float,
    smooth: FloatArray,
) -> FloatArray:
    """Potential (n,) in hartree/e at the few (n, 3) of charges (m,) in e at the many (m, 3), in bohr."""
    potential = np.zeros(len(few))
    inverse = np.asarray(np.linalg.inv(cell), dtype=np.float64)
    near = _near(few, many, cell, inverse, cutoff, 0.5 * float(heights(cell).min()))
    _add_potential(few, many, charges, near, cell, inverse, cutoff, smooth, potential)
    return potential


def add_gradient_of_many(
    few: FloatArray,
    few_charges: FloatArray,
    many: FloatArray,
    charges: FloatArray,
    cell: FloatArray,
    cutoff: float,
    smooth: FloatArray,
    few_gradient: FloatArray,
    many_gradient: FloatArray,
    strain: FloatArray,
) -> None:
    """Add dE/dR of both, (n, 3) and (m, 3), and dE/d(strain) (3, 3) of the few's charges in the potential."""
    inverse = np.asarray(np.linalg.inv(cell), dtype=np.float64)
    near = _near(few, many, cell, inverse, cutoff, 0.5 * float(heights(cell).min()))
    _add_gradient(
        few,
        few_charges,
        many,
        charges,
        near,
        cell,
        inverse,
        cutoff,
        smooth,
        few_gradient,
        many_gradient,
        strain,
    )


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
def _near(few, many, cell, inverse, cutoff, half_height):
    """Which of the many may be within the cutoff of one of the few: those near a sphere around them.

    All may be if the sphere is larger than what nearest images are sure to be found in.
    """
    centre = few[0]
    radius = 0.0
    for a in range(len(few)):
        d = few[a] - centre
        radius = max(radius, math.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]))
    if cutoff + radius > half_height:
        return np.arange(len(many))
    reach = (cutoff + radius) ** 2
    near = np.empty(len(many), dtype=np.int64)
    count = 0
    for j in range(len(many)):
        dx, dy, dz = nearest(
            many[j, 0] - centre[0], many[j, 1] - centre[1], many[j, 2] - centre[2], cell, inverse
        )
        if dx * dx + dy * dy + dz * dz < reach:
            near[count] = j
            count += 1
    return near[:count]


@_compiled
def _add_potential(few, many, charges, near, cell, inverse, cutoff, smooth, potential):
    limit = cutoff * cutoff
    for j in near:
        for a in range(len(few)):
            dx, dy, dz = nearest(
                few[a, 0] - many[j, 0], few[a, 1] - many[j, 1], few[a, 2] - many[j, 2], cell, inverse
            )
            r2 = dx * dx + dy * dy + dz * dz
            if r2 < limit:
                value, _ = _smooth(r2, cutoff, smooth)
                potential[a] += charges[j] * (1.0 / math.sqrt(r2) + value)


@_compiled
def _add_gradient(
    few, few_charges, many, charges, near, cell, inverse, cutoff, smooth, few_gradient, many_gradient, strain
):
    limit = cutoff * cutoff
    for j in near:
        for a in range(len(few)):
            d = nearest(few[a, 0] - many[j, 0], few[a, 1] - many[j, 1], few[a, 2] - many[j, 2], cell, inverse)
            r2 = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
            if r2 < limit:
                _, slope = _smooth(r2, cutoff, smooth)
                scale = few_charges[a] * charges[j] * (2.0 * slope - 1.0 / (r2 * math.sqrt(r2)))
                for i in range(3):
                    few_gradient[a, i] += scale * d[i]
                    many_gradient[j, i] -= scale * d[i]
                    for k in range(3):
                        strain[i, k] += scale * d[i] * d[k]


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
