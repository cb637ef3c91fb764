"""Features of the QM atoms that depend on the QM atoms alone, compiled, with hand-written derivatives.

The features of QM atom i, in this order:

- radial: sum_j exp(-eta (r_ij - R_s)^2) fc(r_ij) over QM neighbours, by element (Behler, Parrinello,
  PRL 98, 146401 (2007));
- angular: 2^(1-zeta) sum_jk [1 + cos(theta - theta_t)]^zeta exp[-eta (r_mean - R_s)^2] fc(r_ij) fc(r_ik) over
  QM pairs, by element pair (ANI: Smith, Isayev, Roitberg, Chem. Sci. 8, 3192 (2017)).
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import math
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from pidelta.core.compilation import compiled
from pidelta.core.switching import quintic, quintic_slope
from pidelta.delta.descriptors import DescriptorSettings
from pidelta.delta.radial_functions import gaussian_grid, gaussians, radial_functions
from pidelta.state import FloatArray, IntArray

_compiled = compiled(nogil=True, error_model="numpy")

# ANI takes the angle from 0.95 cos(theta), which keeps it differentiable in linear arrangements.
_COSINE_DAMPING = 0.95


class StructureFeatures:
    """Radial and angular features of a batch of QM regions, and the way back from their derivatives.

    Args:
        settings: descriptor settings.
        species: (n,) place of each atom's element, from `species_index`.
        positions: (B, n, 3) in bohr.
    """

    def __init__(self, settings: DescriptorSettings, species: IntArray, positions: FloatArray) -> None:
        self._positions = np.ascontiguousarray(positions)
        radial = gaussian_grid(1.5, settings.radial_cutoff, settings.radial_count)
        self._functions = (species, len(settings.elements), radial, _angular(settings))
        self._count = settings.structure_count

    def features(self) -> FloatArray:
        """(B, n, S) features."""
        batch, n, _ = self._positions.shape
        features = np.zeros((batch, n, self._count))
        for x, own in zip(self._positions, features, strict=True):
            _add_features(x, *self._functions, own)
        return features

    def pull_back(self, slopes: FloatArray) -> FloatArray:
        """(B, n, 3) dE/dR from (B, n, S) dE/d(feature)."""
        gradient = np.zeros_like(self._positions)
        for x, own, result in zip(self._positions, np.ascontiguousarray(slopes), gradient, strict=True):
            _add_gradient(x, *self._functions, own, result)
        return gradient

    def jacobian(self) -> FloatArray:
        """(n, S, n, 3) d(feature)/dR of the first structure."""
        n = self._positions.shape[1]
        jacobian = np.zeros((n, self._count, n, 3))
        _add_jacobian(self._positions[0], *self._functions, jacobian)
        return jacobian


def _angular(settings: DescriptorSettings) -> tuple[Any, ...]:
    """Centres, their distance and cutoff in the distance; cosines and sines of the shifts and exponent in the
    angle; place of each pair of elements."""
    count, elements = settings.angular_angle_count, len(settings.elements)
    shifts = (np.arange(count) + 0.5) * (math.pi / count)
    pairs = np.zeros((elements, elements), dtype=np.int64)
    for place, (a, b) in enumerate(combinations_with_replacement(range(elements), 2)):
        pairs[a, b] = pairs[b, a] = place
    grid = gaussian_grid(2.0, settings.angular_cutoff, settings.angular_radial_count)
    zeta = settings.angular_zeta
    power = int(zeta) if zeta.is_integer() else zeta  # whole powers are products, which are faster
    return *grid, np.cos(shifts), np.sin(shifts), power, pairs


@_compiled
def _neighbours(x, i, cutoff, near, units, distances, falls):
    """Atoms within the cutoff of i: which, unit vectors, distances, cutoff functions and their slopes."""
    count = 0
    for j in range(len(x)):
        dx, dy, dz = x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2]
        r = math.sqrt(dx * dx + dy * dy + dz * dz)
        if j != i and not r >= cutoff:  # what is not finite counts, so that it shows
            near[count] = j
            units[count] = dx / r, dy / r, dz / r
            distances[count] = r
            falls[count] = quintic(r / cutoff), quintic_slope(r / cutoff) / cutoff
            count += 1
    return count


@_compiled
def _angle(cosine, r_j, r_k, fall_j, fall_k, functions, radial, angular):
    """The parts that make up the angular functions of two sides and the angle between them.

    radial (S, 3): the radial part, and its derivatives in r_j and r_k; angular (T, 2): the angular part and
    its derivative in the cosine. The function (s, t) is the product radial[s, 0] angular[t, 0].
    """
    centres, spacing, _, cosines, sines, zeta, _ = functions
    middle = 0.5 * (r_j + r_k)
    both = fall_j[0] * fall_k[0]
    gaussians(middle, centres, spacing, radial[:, 0])
    for s in range(len(centres)):
        bare = radial[s, 0]
        along = -0.5 * (middle - centres[s]) / spacing**2 * both  # in either distance
        radial[s] = (
            bare * both,
            bare * (along + fall_j[1] * fall_k[0]),
            bare * (along + fall_j[0] * fall_k[1]),
        )
    damped = _COSINE_DAMPING * cosine
    sine = math.sqrt(1.0 - damped * damped)
    for t in range(len(cosines)):
        base = 0.5 * (1.0 + damped * cosines[t] + sine * sines[t])
        value = 2.0 * base**zeta
        turn = 0.5 * _COSINE_DAMPING * (cosines[t] - damped / sine * sines[t])
        angular[t] = value, value * zeta / base * turn


@_compiled
def _scratch(n, radial, angular):
    """Room for what `_neighbours`, `radial_functions` and `_angle` give."""
    near, units, distances, falls = np.empty(n, np.int64), np.empty((n, 3)), np.empty(n), np.empty((n, 2))
    values, slopes = np.empty(len(radial[0])), np.empty(len(radial[0]))
    along, around = np.empty((len(angular[0]), 3)), np.empty((len(angular[3]), 2))
    return (near, units, distances, falls), (values, slopes), (along, around)


@_compiled
def _cosine(u, v):
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


@_compiled
def _add_features(x, species, elements, radial, angular, features):
    around_atom, (values, slopes), (along, around) = _scratch(len(x), radial, angular)
    near, units, distances, falls = around_atom
    count = len(values)
    for i in range(len(x)):
        for j in range(_neighbours(x, i, radial[2], *around_atom)):
            radial_functions(distances[j], radial, values, slopes)
            place = species[near[j]] * count
            features[i, place : place + count] += values
        for j in range(_neighbours(x, i, angular[2], *around_atom)):
            for k in range(j):
                cosine = _cosine(units[j], units[k])
                _angle(cosine, distances[j], distances[k], falls[j], falls[k], angular, along, around)
                pair = angular[6][species[near[j]], species[near[k]]]
                place = elements * count + pair * len(along) * len(around)
                for s in range(len(along)):
                    for t in range(len(around)):
                        features[i, place] += along[s, 0] * around[t, 0]
                        place += 1


@_compiled
def _add_gradient(x, species, elements, radial, angular, a, gradient):
    """Add dE/dR of features whose dE/d(feature) are a (n, S)."""
    room = _scratch(len(x), radial, angular)
    for i in range(len(x)):
        _add_gradient_of_atom(x, i, species, elements, radial, angular, a[i], room, gradient)


@_compiled
def _add_jacobian(x, species, elements, radial, angular, jacobian):
    """Add d(feature)/dR (n, S, n, 3): the gradients of all features, each by a slope of one."""
    room = _scratch(len(x), radial, angular)
    a = np.zeros(jacobian.shape[1])
    for i in range(len(x)):
        for feature in range(len(a)):
            a[feature] = 1.0
            _add_gradient_of_atom(x, i, species, elements, radial, angular, a, room, jacobian[i, feature])
            a[feature] = 0.0


@_compiled
def _add_gradient_of_atom(x, i, species, elements, radial, angular, a, room, gradient):
    """Add dE/dR of the features of atom i, whose dE/d(feature) are a (S,)."""
    around_atom, (values, slopes), (along, around) = room
    near, units, distances, falls = around_atom
    count = len(values)
    for j in range(_neighbours(x, i, radial[2], *around_atom)):
        radial_functions(distances[j], radial, values, slopes)
        force = 0.0
        for s in range(count):
            force += slopes[s] * a[species[near[j]] * count + s]
        for c in range(3):
            gradient[near[j], c] += force * units[j, c]
            gradient[i, c] -= force * units[j, c]
    for j in range(_neighbours(x, i, angular[2], *around_atom)):
        for k in range(j):
            cosine = _cosine(units[j], units[k])
            _angle(cosine, distances[j], distances[k], falls[j], falls[k], angular, along, around)
            pair = angular[6][species[near[j]], species[near[k]]]
            place = elements * count + pair * len(along) * len(around)
            to_j = to_k = turn = 0.0
            for s in range(len(along)):
                total = turned = 0.0
                for t in range(len(around)):
                    total += a[place] * around[t, 0]
                    turned += a[place] * around[t, 1]
                    place += 1
                to_j += total * along[s, 1]
                to_k += total * along[s, 2]
                turn += turned * along[s, 0]
            for c in range(3):
                on_j = to_j * units[j, c] + turn * (units[k, c] - cosine * units[j, c]) / distances[j]
                on_k = to_k * units[k, c] + turn * (units[j, c] - cosine * units[k, c]) / distances[k]
                gradient[near[j], c] += on_j
                gradient[near[k], c] += on_k
                gradient[i, c] -= on_j + on_k
