"""Short-range features: sums of Gaussians over the MM atoms near a QM atom, by MM element, compiled."""

# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np

from pidelta.core.compilation import compiled
from pidelta.delta.descriptors import DescriptorSettings
from pidelta.delta.near_pairs import near_pairs
from pidelta.delta.radial_functions import CLOSEST_SITE, gaussian_grid, radial_functions
from pidelta.state import FloatArray, IntArray

_compiled = compiled(nogil=True, error_model="numpy")


class ShortFeatures:
    """Short-range features of a batch of QM regions, and the way back from their derivatives.

    Args:
        settings: descriptor settings.
        positions: (B, n, 3) of the QM atoms in bohr.
        site_positions: (B, m, 3) in bohr.
        site_species: (B, m) place of each atomic number in `settings.mm_elements`, -1 without a nucleus.
    """

    def __init__(
        self,
        settings: DescriptorSettings,
        positions: FloatArray,
        site_positions: FloatArray,
        site_species: IntArray,
    ) -> None:
        self._positions, self._sites, self._species = positions, site_positions, site_species
        self._functions = gaussian_grid(CLOSEST_SITE, settings.short_cutoff, settings.short_count)
        self._count = settings.short_features
        self._pairs = [
            near_pairs(*structure, settings.short_cutoff)
            for structure in zip(positions, site_positions, site_species < 0, strict=True)
        ]

    def features(self) -> FloatArray:
        """(B, n, K) features."""
        features = np.zeros((*self._positions.shape[:2], self._count))
        for k, own in enumerate(features):
            _add_features(self._species[k], *self._pairs[k], self._functions, own)
        return features

    def pull_back(self, slopes: FloatArray, gradient: FloatArray, site_gradient: FloatArray) -> None:
        """Add dE/dR of the QM atoms (B, n, 3) and of the sites (B, m, 3) for (B, n, K) dE/d(feature)."""
        for k, own in enumerate(np.ascontiguousarray(slopes)):
            structure = (self._positions[k], self._sites[k], self._species[k])
            _add_gradient(*structure, *self._pairs[k], self._functions, own, gradient[k], site_gradient[k])

    def jacobian(self) -> FloatArray:
        """(n, K, m, 3) d(feature of atom i)/dr_j of the first structure; in R_i it is minus the sum of it."""
        jacobian = np.zeros((self._positions.shape[1], self._count, self._sites.shape[1], 3))
        structure = (self._positions[0], self._sites[0], self._species[0])
        _add_jacobian(*structure, *self._pairs[0], self._functions, jacobian)
        return jacobian


@_compiled
def _add_features(species, pairs, distances, functions, features):
    count = len(functions[0])
    values, slopes = np.empty(count), np.empty(count)
    for p in range(len(distances)):
        i, j = pairs[p]
        radial_functions(distances[p], functions, values, slopes)
        features[i, species[j] * count : (species[j] + 1) * count] += values


@_compiled
def _add_gradient(x, sites, species, pairs, distances, functions, a, gradient, site_gradient):
    count = len(functions[0])
    values, slopes = np.empty(count), np.empty(count)
    for p in range(len(distances)):
        i, j = pairs[p]
        radial_functions(distances[p], functions, values, slopes)
        force = 0.0
        for s in range(count):
            force += slopes[s] * a[i, species[j] * count + s]
        force /= distances[p]
        for c in range(3):
            part = force * (sites[j, c] - x[i, c])
            site_gradient[j, c] += part
            gradient[i, c] -= part


@_compiled
def _add_jacobian(x, sites, species, pairs, distances, functions, jacobian):
    count = len(functions[0])
    values, slopes = np.empty(count), np.empty(count)
    for p in range(len(distances)):
        i, j = pairs[p]
        radial_functions(distances[p], functions, values, slopes)
        for s in range(count):
            for c in range(3):
                unit = (sites[j, c] - x[i, c]) / distances[p]
                jacobian[i, species[j] * count + s, j, c] += slopes[s] * unit
