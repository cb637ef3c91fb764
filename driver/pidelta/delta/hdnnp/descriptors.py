"""Settings of the atomic descriptors, and the part of them that depends on the QM atoms alone.

The features of QM atom i, in this order (`DescriptorSettings.blocks`):

- radial: sum_j exp(-eta (r_ij - R_s)^2) fc(r_ij) over QM neighbours, by element (Behler, Parrinello,
  PRL 98, 146401 (2007));
- angular: ANI functions of QM pairs, by element pair (Smith, Isayev, Roitberg, Chem. Sci. 8, 3192 (2017));
- charge and short: the MM environment, see `site_features.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import torch

from pidelta.core.switching import quintic, quintic_slope
from pidelta.delta.base import symbols
from pidelta.errors import ModelError
from pidelta.state import BoolArray, IntArray
from pidelta.units import ANGSTROM

# ANI takes the angle from 0.95 cos(theta), which keeps it differentiable in linear arrangements.
_COSINE_DAMPING = 0.95


@dataclass(frozen=True)
class DescriptorSettings:
    """What the descriptors of a model are; all lengths in bohr.

    Attributes:
        elements: atomic numbers of the QM region, ascending; each has its own network.
        mm_elements: atomic numbers of the MM environment, ascending.
        charge_cutoff: cutoff of the charge-weighted Gaussians: the cutoff of the embedding.
        charge_count: number of charge-weighted Gaussians (the potential comes on top).
        short_cutoff, short_count: cutoff and number of the Gaussians for each MM element.
        radial_cutoff, radial_count: the same for each QM element.
        angular_cutoff: cutoff of both sides of an angle.
        angular_radial_count, angular_angle_count: number of shifts in the mean distance and in the angle.
        angular_zeta: exponent that sets the width in the angle.
    """

    elements: tuple[int, ...]
    mm_elements: tuple[int, ...]
    charge_cutoff: float
    charge_count: int = 10
    short_cutoff: float = 5.0 * ANGSTROM
    short_count: int = 6
    radial_cutoff: float = 5.0 * ANGSTROM
    radial_count: int = 12
    angular_cutoff: float = 3.5 * ANGSTROM
    angular_radial_count: int = 3
    angular_angle_count: int = 4
    angular_zeta: float = 8.0

    @property
    def blocks(self) -> tuple[slice, slice, slice, slice]:
        """Where the radial, angular, charge-weighted and short-range features are."""
        pairs = len(self.elements) * (len(self.elements) + 1) // 2
        radial = len(self.elements) * self.radial_count
        angular = radial + pairs * self.angular_radial_count * self.angular_angle_count
        charge = angular + 1 + self.charge_count
        short = charge + len(self.mm_elements) * self.short_count
        return slice(0, radial), slice(radial, angular), slice(angular, charge), slice(charge, short)

    @property
    def feature_count(self) -> int:
        """Number of features of an atom."""
        return int(self.blocks[-1].stop)

    @property
    def structure_count(self) -> int:
        """Number of features that depend on QM atoms alone; they come first."""
        return int(self.blocks[1].stop)


def cutoff_function(r: torch.Tensor, cutoff: float) -> torch.Tensor:
    """Fall from 1 at r = 0 to 0 at `cutoff` with two continuous derivatives.

    The cosine of Behler and Parrinello has a second derivative that jumps at the cutoff.
    """
    value: torch.Tensor = quintic((r / cutoff).clamp(max=1.0))
    return value


def cutoff_and_slope(r: torch.Tensor, cutoff: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The cutoff function and its derivative in r."""
    x = (r / cutoff).clamp(max=1.0)
    return quintic(x), quintic_slope(x) / cutoff


def gaussian_grid(start: float, cutoff: float, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Equally spaced centres below the cutoff and exponents eta that make sigma equal to their distance.

    Returns:
        centres and etas, each (count,), in bohr and 1/bohr^2.
    """
    spacing = (cutoff - start) / count
    centres = start + spacing * torch.arange(count, dtype=torch.float64)
    return centres, torch.full_like(centres, 0.5 / spacing**2)


def species_index(settings: DescriptorSettings, numbers: Sequence[int]) -> torch.Tensor:
    """(n,) place of each atomic number in `settings.elements`; every number must be there."""
    return torch.tensor([settings.elements.index(int(number)) for number in numbers])


def site_species_index(settings: DescriptorSettings, site_numbers: IntArray) -> torch.Tensor:
    """Places in `settings.mm_elements` of atomic numbers of any shape, -1 for number 0.

    Raises:
        ModelError: an element is not among them.
    """
    table = np.full(120, -2, dtype=np.int64)
    table[0] = -1
    table[list(settings.mm_elements)] = np.arange(len(settings.mm_elements))
    species = table[site_numbers]
    if (species == -2).any():
        found = int(site_numbers[species == -2].flat[0])
        raise ModelError(
            f"delta model: expected MM atoms of the elements {symbols(settings.mm_elements)}, "
            f"found {symbols([found])}"
        )
    return torch.from_numpy(species)


def _pairs(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = torch.nonzero(~torch.eye(n, dtype=torch.bool), as_tuple=True)
    return first, second


def angular_triples(settings: DescriptorSettings, positions: torch.Tensor) -> torch.Tensor:
    """Angles j-i-k whose two sides are within the angular cutoff in any structure of a batch.

    Args:
        settings: descriptor settings.
        positions: (B, n, 3) in bohr.

    Returns:
        (T, 3) indices i, j, k with j < k.
    """
    x = positions.detach().numpy()
    near = ((x[:, :, None] - x[:, None]) ** 2).sum(axis=-1) < settings.angular_cutoff**2
    near &= ~np.eye(x.shape[1], dtype=bool)
    # Neighbours in the whole batch, then those pairs of them that some structure has at once.
    i, j, k = _neighbour_pairs(near.any(axis=0))
    together = (near[:, i, j] & near[:, i, k]).any(axis=0)
    return torch.from_numpy(np.stack([i, j, k], axis=1)[together])


def _neighbour_pairs(near: BoolArray) -> tuple[IntArray, IntArray, IntArray]:
    """i, j, k with j < k both near i, from a mask (n, n)."""
    centre, neighbour = np.nonzero(near)
    places = np.arange(len(centre))
    # Each neighbour of an atom pairs with those that follow it in the atom's stretch of the list.
    following = near.sum(axis=1).cumsum()[centre] - 1 - places
    first = places.repeat(following)
    second = np.arange(len(first)) - (following.cumsum() - following - places - 1).repeat(following)
    return centre[first], neighbour[first], neighbour[second]


def structure_features(
    settings: DescriptorSettings, species: torch.Tensor, positions: torch.Tensor, triples: torch.Tensor
) -> torch.Tensor:
    """Radial and angular features of the QM atoms, differentiable in the positions.

    Args:
        settings: descriptor settings.
        species: (n,) from `species_index`.
        positions: (B, n, 3) in bohr.
        triples: from `angular_triples` for these positions.

    Returns:
        (B, n, settings.structure_count).
    """
    return torch.cat(
        [
            _radial_features(settings, species, positions),
            _angular_features(settings, species, positions, triples),
        ],
        dim=-1,
    )


def _radial_features(
    settings: DescriptorSettings, species: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    batch, n, _ = positions.shape
    first, second = _pairs(n)
    r = (positions[:, second] - positions[:, first]).norm(dim=-1)[..., None]
    centres, eta = gaussian_grid(1.5, settings.radial_cutoff, settings.radial_count)
    values = torch.exp(-eta * (r - centres) ** 2) * cutoff_function(r, settings.radial_cutoff)
    elements = len(settings.elements)
    sums = torch.zeros(batch, n * elements, settings.radial_count, dtype=torch.float64)
    return sums.index_add(1, first * elements + species[second], values).reshape(batch, n, -1)


def _angular_features(
    settings: DescriptorSettings, species: torch.Tensor, positions: torch.Tensor, triples: torch.Tensor
) -> torch.Tensor:
    """G = 2^(1-zeta) sum_jk [1 + cos(theta - theta_s)]^zeta exp[-eta (r_mean - R_s)^2] fc(r_ij) fc(r_ik)."""
    batch, n, _ = positions.shape
    i, j, k = triples.unbind(1)
    to_j, to_k = positions[:, j] - positions[:, i], positions[:, k] - positions[:, i]
    r_j, r_k = to_j.norm(dim=-1), to_k.norm(dim=-1)
    cosine = _COSINE_DAMPING * (to_j * to_k).sum(-1) / (r_j * r_k)
    sine = torch.sqrt(1.0 - cosine * cosine)

    count = settings.angular_angle_count
    shifts = (torch.arange(count, dtype=torch.float64) + 0.5) * (math.pi / count)
    aligned = cosine[..., None] * torch.cos(shifts) + sine[..., None] * torch.sin(shifts)
    angular = 2.0 * (0.5 * (1.0 + aligned)) ** settings.angular_zeta

    cutoff = settings.angular_cutoff
    centres, eta = gaussian_grid(2.0, cutoff, settings.angular_radial_count)
    radial = torch.exp(-eta * (0.5 * (r_j + r_k)[..., None] - centres) ** 2)
    radial = radial * (cutoff_function(r_j, cutoff) * cutoff_function(r_k, cutoff))[..., None]
    values = (radial[..., :, None] * angular[..., None, :]).flatten(2)

    pair_index = _element_pair_index(len(settings.elements))
    pairs = int(pair_index.max()) + 1
    sums = torch.zeros(batch, n * pairs, values.shape[-1], dtype=torch.float64)
    return sums.index_add(1, i * pairs + pair_index[species[j], species[k]], values).reshape(batch, n, -1)


def _element_pair_index(elements: int) -> torch.Tensor:
    index = torch.zeros(elements, elements, dtype=torch.int64)
    for place, (a, b) in enumerate(combinations_with_replacement(range(elements), 2)):
        index[a, b] = index[b, a] = place
    return index
