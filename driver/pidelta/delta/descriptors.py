"""What the descriptors of all kinds of models have in common: their settings, and places of elements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pidelta.delta.base import symbols
from pidelta.errors import ModelError
from pidelta.state import IntArray, Region
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM

STRANGER = -2  # in place of the place of an element of MM atoms that is not in the settings


@dataclass(frozen=True, kw_only=True)
class DescriptorSettings(ABC):
    """What the descriptors of a model are; all lengths in bohr.

    The features of a QM atom are those of `structure_features.py`, then those of the sites around it, which a
    kind of model adds: the short-range ones of `short_features.py` are the last.

    Attributes:
        elements: atomic numbers of the QM region, ascending; each has its own network.
        mm_elements: atomic numbers of the MM atoms that the short-range functions know, ascending.
        short_cutoff: where all that sees near sites ends.
        short_count: number of Gaussians of the distance for each MM element.
        radial_cutoff, radial_count: the same for each QM element.
        angular_cutoff: cutoff of both sides of an angle.
        angular_radial_count, angular_angle_count: number of shifts in the mean distance and in the angle.
        angular_zeta: exponent that sets the width in the angle.
    """

    elements: tuple[int, ...]
    mm_elements: tuple[int, ...]
    short_cutoff: float = 5.0 * ANGSTROM
    short_count: int = 6
    radial_cutoff: float = 5.0 * ANGSTROM
    radial_count: int = 12
    angular_cutoff: float = 3.5 * ANGSTROM
    angular_radial_count: int = 3
    angular_angle_count: int = 4
    angular_zeta: float = 8.0

    @property
    def structure_blocks(self) -> tuple[slice, slice]:
        """Where the radial and angular features are, which depend on QM atoms alone; they come first."""
        pairs = len(self.elements) * (len(self.elements) + 1) // 2
        radial = len(self.elements) * self.radial_count
        angular = radial + pairs * self.angular_radial_count * self.angular_angle_count
        return slice(0, radial), slice(radial, angular)

    @property
    def structure_count(self) -> int:
        """Number of radial and angular features."""
        return int(self.structure_blocks[1].stop)

    @property
    @abstractmethod
    def feature_count(self) -> int:
        """Number of features of an atom."""

    @property
    @abstractmethod
    def far_features(self) -> int:
        """Number of the features that see sites at any distance; they come first of those that see sites."""

    @property
    @abstractmethod
    def coverage_blocks(self) -> tuple[slice, ...]:
        """Kinds of the features by which `Coverage` judges, the first two of the structure."""

    @property
    def short_features(self) -> int:
        """Number of short-range features."""
        return len(self.mm_elements) * self.short_count


def species_index(settings: DescriptorSettings, numbers: Sequence[int] | IntArray) -> IntArray:
    """(n,) place of each atomic number in `settings.elements`; every number must be there."""
    return np.array([settings.elements.index(int(number)) for number in numbers], dtype=np.int64)


def site_species_index(settings: DescriptorSettings, site_numbers: IntArray) -> IntArray:
    """Places in `settings.mm_elements` of atomic numbers of any shape; -1 for 0, `STRANGER` for others."""
    table = np.full(120, STRANGER, dtype=np.int64)
    table[0] = -1
    table[list(settings.mm_elements)] = np.arange(len(settings.mm_elements))
    return np.asarray(table[site_numbers])


def refuse_near_strangers(settings: DescriptorSettings, region: Region, species: IntArray) -> None:
    """Refuse a site of an element that the short-range functions do not know, where they would see it.

    Args:
        settings: of the descriptors.
        region: the QM atoms and the sites.
        species: (B, m) of the sites, see `site_species_index`.

    Raises:
        ModelError: there is one.
    """
    for structure, site in zip(*np.nonzero(species == STRANGER), strict=True):
        vectors = region.positions[structure] - region.site_positions[structure, site]
        distance = float(np.linalg.norm(vectors, axis=1).min())
        if distance < settings.short_cutoff:
            found = symbols([int(region.site_numbers[structure, site])])
            known = symbols(settings.mm_elements) if settings.mm_elements else "no element"
            reach, distance = settings.short_cutoff * BOHR_IN_ANGSTROM, distance * BOHR_IN_ANGSTROM
            raise ModelError(
                f"delta model: expected MM atoms of {known} within {reach:.1f} angstrom of the QM atoms, as "
                f"in the training, found {found} at {distance:.1f} angstrom"
            )


def check_short_cutoff(settings: DescriptorSettings, embedding: Mapping[str, object]) -> None:
    """Raise ModelError where MM atoms could enter the short-range functions while their charge is scaled."""
    if embedding["scheme"] != "cutoff":
        return
    limit = _length(embedding, "cutoff") - _length(embedding, "switch")
    if settings.short_cutoff >= limit:
        raise ModelError(
            f"delta model: expected short_cutoff below embedding cutoff - switch = {limit:.3f} bohr, "
            f"found {settings.short_cutoff:.3f} bohr"
        )


def _length(embedding: Mapping[str, object], key: str) -> float:
    value = embedding.get(key)
    if not isinstance(value, float):
        raise ModelError(f"delta model: expected the {key} of the embedding in bohr, found {value!r}")
    return value
