"""How far a structure lies from those a model was trained on: the alarm that a committee's spread is not.

The members of a committee share descriptors and training frames, and so their errors where there were none: a
bond that is too long makes all wrong alike. The distance of an atom's features from those of the training
does not depend on the networks. It is Mahalanobis' distance, by probabilistic principal components (Tipping,
Bishop, J. R. Stat. Soc. B 61, 611 (1999)): the features of a molecule are correlated, so that a structure can
be new while each of them is within its range. The features of the QM atoms and those of the sites around
them are judged apart, for many of the one would hide few of the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pidelta.data.splits import folds_by_source
from pidelta.delta.descriptors import DescriptorSettings
from pidelta.state import FloatArray, IntArray

# A feature that varies less than this share of the most varying one of its kind counts as if it did so.
_LEAST_DEVIATION = 0.05
# A direction of less than this share of the mean variance counts as if it had it.
_LEAST_VARIANCE = 1e-3
_FOLDS = 5
# Longer runs go farther than the farthest of some hundred frames: the alarm leaves them this much.
_MARGIN = 1.25

CoverageGroup = tuple[FloatArray, IntArray, IntArray]
"""Features (F, n, D) of frames of the same QM atoms, elements (n,) of these, places (F,) of the frames."""


@dataclass(frozen=True)
class Ellipsoid:
    """The region of D features of one element.

    With y = scale (x - mean), the distance is the root of |y|^2 - |y directions|^2.

    Attributes:
        mean, scale: (D,); the scale holds the least variance, and the unit of the distance.
        directions: (D, r) principal directions of a variance v above the least one v0, each times
            sqrt(1 - v0 / v).
    """

    mean: FloatArray
    scale: FloatArray
    directions: FloatArray

    def distances(self, features: FloatArray) -> FloatArray:
        """Distances (...) of features (..., D)."""
        scaled = (features - self.mean) * self.scale
        along = scaled @ self.directions
        square = np.einsum("...d,...d->...", scaled, scaled) - np.einsum("...r,...r->...", along, along)
        return np.asarray(np.sqrt(square.clip(0.0)))

    @classmethod
    def around(cls, features: FloatArray, blocks: Sequence[slice]) -> Ellipsoid:
        """The ellipsoid of features (A, D); those of one kind, a block, have a common least deviation."""
        deviation = features.std(axis=0)
        for block in blocks:
            deviation[block] = deviation[block].clip(max(_LEAST_DEVIATION * deviation[block].max(), 1e-9))
        mean = features.mean(axis=0)
        scaled = (features - mean) / deviation
        variances, directions = np.linalg.eigh(scaled.T @ scaled / len(scaled))
        least = max(_LEAST_VARIANCE * float(variances.mean()), 1e-9)
        kept = variances > least
        shrunk = directions[:, kept] * np.sqrt(1.0 - least / variances[kept])
        return cls(mean, 1.0 / (deviation * np.sqrt(least)), shrunk)


@dataclass(frozen=True)
class Coverage:
    """Where the features of the training frames lie.

    Attributes:
        structure, sites: for each element the ellipsoid of the features that depend on QM atoms alone,
            and of those that see the sites around them.
        earlier: of the models that the training began with, whose frames count as much.
    """

    structure: tuple[Ellipsoid, ...]
    sites: tuple[Ellipsoid, ...]
    earlier: tuple[Coverage, ...] = ()

    def extrapolation(self, features: FloatArray, species: IntArray) -> FloatArray:
        """How far structures lie from the training frames: the distance (B,) of the farthest atom.

        Arguments are those of `by_atom`.
        """
        return np.asarray(self.by_atom(features, species).max(axis=1))

    def by_atom(self, features: FloatArray, species: IntArray) -> FloatArray:
        """How far atoms lie from those of the training frames.

        Args:
            features: (B, n, D).
            species: (n,) place of each atom's element.

        Returns:
            (B, n) distances. At 1 an atom is 1.25 times as far from the training frames as the farthest atom
            in frames that were held back from them.
        """
        count = len(self.structure[0].mean)
        distances = np.empty(features.shape[:2])
        for element in set(species.tolist()):
            own = features[:, species == element]
            distances[:, species == element] = np.maximum(
                self.structure[element].distances(own[..., :count]),
                self.sites[element].distances(own[..., count:]),
            )
        known = [coverage.by_atom(features, species) for coverage in self.earlier]
        return np.asarray(np.min([distances, *known], axis=0))

    @classmethod
    def of_training(
        cls,
        settings: DescriptorSettings,
        groups: Sequence[CoverageGroup],
        sources: Sequence[str],
        earlier: Sequence[Coverage] = (),
    ) -> Coverage:
        """The coverage of prepared frames; its unit comes from frames held back, as for validation.

        Args:
            settings: the descriptors.
            groups: features of all frames.
            sources: where each frame comes from.
            earlier: of the models that the training began with; they know elements that no frame has.
        """
        count = settings.structure_count
        structure_blocks = settings.coverage_blocks[:2]
        site_blocks = [slice(b.start - count, b.stop - count) for b in settings.coverage_blocks[2:]]
        folds = folds_by_source(sources, _FOLDS)
        parts: list[tuple[Ellipsoid, Ellipsoid]] = []
        for element in range(len(settings.elements)):
            features, frames = _atoms(groups, element)
            if not len(features):
                parts.append((earlier[0].structure[element], earlier[0].sites[element]))
                continue
            structure = _ellipsoid(features[:, :count], frames, folds, structure_blocks)
            parts.append((structure, _ellipsoid(features[:, count:], frames, folds, site_blocks)))
        before = [each for known in earlier for each in (replace(known, earlier=()), *known.earlier)]
        distinct = {each.digest: each for each in before}
        own = tuple(part[0] for part in parts), tuple(part[1] for part in parts)
        return cls(*own, tuple(distinct.values()))

    @property
    def digest(self) -> bytes:
        """Equal for equal coverages."""
        arrays = [array for part in (*self.structure, *self.sites) for array in vars(part).values()]
        before = [coverage.digest for coverage in self.earlier]
        return hashlib.sha256(b"".join([*(array.tobytes() for array in arrays), *before])).digest()

    def content(self) -> dict[str, Any]:
        """What a model's file holds of it; the directions, by far the most, in single precision."""
        parts = {
            name: [
                {
                    "mean": torch.from_numpy(part.mean),
                    "scale": torch.from_numpy(part.scale),
                    "directions": torch.from_numpy(part.directions).float(),
                }
                for part in ellipsoids
            ]
            for name, ellipsoids in (("structure", self.structure), ("sites", self.sites))
        }
        return {**parts, "earlier": [coverage.content() for coverage in self.earlier]}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], settings: DescriptorSettings) -> Coverage:
        """The coverage of a model's file.

        Raises:
            ValueError, KeyError, TypeError: the content does not fit the descriptors.
        """
        widths = {
            "structure": settings.structure_count,
            "sites": settings.coverage_blocks[-1].stop - settings.structure_count,
        }
        parts: dict[str, tuple[Ellipsoid, ...]] = {}
        for name, width in widths.items():
            parts[name] = tuple(
                Ellipsoid(**{key: tensor.double().numpy() for key, tensor in part.items()})
                for part in content[name]
            )
            if len(parts[name]) != len(settings.elements):
                raise ValueError(f"{name} coverage: expected {len(settings.elements)} elements")
            for part in parts[name]:
                if not part.mean.shape == part.scale.shape == part.directions.shape[:1] == (width,):
                    raise ValueError(f"{name} coverage: expected {width} features")
        earlier = tuple(cls.from_content(each, settings) for each in content.get("earlier", ()))
        return cls(**parts, earlier=earlier)


def _atoms(groups: Sequence[CoverageGroup], element: int) -> tuple[FloatArray, IntArray]:
    """Features (A, D) of all atoms of an element, and the frame (A,) of each."""
    features, places = [], []
    for values, species, frames in groups:
        own = values[:, species == element]
        features.append(own.reshape(-1, own.shape[-1]))
        places.append(np.repeat(frames, own.shape[1]))
    return np.concatenate(features), np.concatenate(places)


def _ellipsoid(
    features: FloatArray,
    frames: IntArray,
    folds: Sequence[tuple[IntArray, IntArray]],
    blocks: Sequence[slice],
) -> Ellipsoid:
    """The ellipsoid of features (A, D) with its unit, by the farthest atom of frames held back."""
    blocks = [block for block in blocks if block.start < block.stop]
    reach = 0.0
    for train, held_back in folds:
        inside, outside = features[np.isin(frames, train)], features[np.isin(frames, held_back)]
        if len(inside) and len(outside):
            reach = max(reach, float(Ellipsoid.around(inside, blocks).distances(outside).max()))
    whole = Ellipsoid.around(features, blocks)
    if reach > 0.0:
        whole = replace(whole, scale=whole.scale / (_MARGIN * reach))
    # In the precision of the file, so that a model is the same before and after it.
    return replace(whole, directions=whole.directions.astype(np.float32).astype(np.float64))
