"""The features of a QM region in its environment, for all kinds of models, and the way back from them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from pidelta.delta.descriptors import (
    DescriptorSettings,
    refuse_near_strangers,
    site_species_index,
    species_index,
)
from pidelta.delta.short_features import ShortFeatures
from pidelta.delta.structure_features import StructureFeatures
from pidelta.state import BoolArray, FloatArray, Region, RegionGradient


class FieldFeatures(Protocol):
    """Features that see the charges of the sites: what kinds of models differ in."""

    def features(self) -> FloatArray:
        """(B, n, K) features."""

    def pull_back(self, slopes: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """dE/dR of the QM atoms (B, n, 3) and of the sites (B, m, 3), and dE/dq (B, m), zero for padding, of
        dE/d(feature) (B, n, K)."""

    def jacobian(self) -> FloatArray:
        """(n, K, m, 3) d(feature of atom i)/dr_j of the first structure; in R_i it is minus the sum of it."""


class FieldKind(Protocol):
    """What makes the `FieldFeatures` of a kind of model."""

    def __call__(
        self,
        settings: Any,
        positions: FloatArray,
        site_positions: FloatArray,
        site_charges: FloatArray,
        padding: BoolArray,
    ) -> FieldFeatures:
        """Of QM atoms (B, n, 3) in sites (B, m, 3), in bohr, of charges (B, m) in e, less padding (B, m)."""


class RegionFeatures:
    """Features of a batch: those of the structure, those that see the charges, and short-range ones.

    A site counts through its charge and, in the short-range features, through its element. One without a
    nucleus (number 0, such as the charge site of a four-point water) has only the former; one with neither is
    padding.

    Args:
        settings: descriptor settings.
        kind: of the features that see the charges.
        region: the batch.

    Attributes:
        species: (n,) place of each QM atom's element in the settings.

    Raises:
        ModelError: a site near the QM atoms has an element that is not in the settings.
    """

    def __init__(self, settings: DescriptorSettings, kind: FieldKind, region: Region) -> None:
        self.species = species_index(settings, region.numbers)
        positions, site_positions, site_charges = (
            np.ascontiguousarray(array, dtype=np.float64)
            for array in (region.positions, region.site_positions, region.site_charges)
        )
        site_species = site_species_index(settings, region.site_numbers)
        refuse_near_strangers(settings, region, site_species)
        padding = (site_charges == 0.0) & (site_species < 0)
        self._structure = StructureFeatures(settings, self.species, positions)
        self._field = kind(settings, positions, site_positions, site_charges, padding)
        self._short = ShortFeatures(settings, positions, site_positions, site_species)
        self._first, self._last = settings.structure_count, settings.feature_count - settings.short_features

    def features(self) -> FloatArray:
        """(B, n, D) features."""
        parts = (self._structure, self._field, self._short)
        return np.concatenate([part.features() for part in parts], axis=-1)

    def pull_back(self, slopes: FloatArray) -> RegionGradient:
        """Derivatives of an energy from (B, n, D) dE/d(feature)."""
        gradient, site_positions, site_charges = self._field.pull_back(slopes[..., self._first : self._last])
        gradient += self._structure.pull_back(slopes[..., : self._first])
        self._short.pull_back(slopes[..., self._last :], gradient, site_positions)
        return RegionGradient(gradient, site_positions, site_charges)

    def jacobian(self) -> tuple[FloatArray, FloatArray]:
        """Derivatives of the features of the first structure.

        Returns:
            (n, D, n, 3) d(feature)/dR of the QM atoms, and (n, K, m, 3) of those that see sites in the sites.
        """
        structure = self._structure.jacobian()
        at_sites = np.concatenate([self._field.jacobian(), self._short.jacobian()], axis=1)
        n, count, _, _ = at_sites.shape
        own = np.zeros((n, count, n, 3))
        own[np.arange(n), :, np.arange(n)] = -at_sites.sum(axis=2)
        return np.concatenate([structure, own], axis=1), at_sites
