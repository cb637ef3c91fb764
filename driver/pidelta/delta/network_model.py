"""Corrections made of networks on features: what the kinds of them share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from pidelta.delta.base import CorrectionResult, Provenance
from pidelta.delta.coverage import Coverage
from pidelta.delta.descriptors import DescriptorSettings, check_short_cutoff, species_index
from pidelta.delta.files import Content, write_file
from pidelta.delta.region_features import RegionFeatures
from pidelta.errors import GeometryError
from pidelta.state import FloatArray, IntArray, Region, RegionGradient


class FeatureNetworks(nn.Module, ABC):
    """The parameters of a model, and the scales and the baseline that make them start from zero error."""

    mean: torch.Tensor
    inverse_scale: torch.Tensor
    energy_scale: torch.Tensor
    baseline: torch.Tensor

    @abstractmethod
    def forward(self, positions: torch.Tensor, features: torch.Tensor, species: torch.Tensor) -> torch.Tensor:
        """Energies (B,) in hartree of positions (B, n, 3) and features (B, n, D) of atoms of `species`."""

    @abstractmethod
    def fit_scales(self, features: Sequence[torch.Tensor], species: Sequence[torch.Tensor]) -> None:
        """Set the scales of the features from those of the training, (B, n, D), of one or more regions."""


class NetworkModel(ABC):
    """A correction made of networks on the features of a QM region.

    Args:
        settings: descriptors and networks.
        networks: the parameters.
        coverage: where the features of the training frames lie.
        validation_error: root mean square error of the energy on frames held back from training, in hartree.
        provenance: what it was trained on.

    Attributes:
        dtype: in which the networks are evaluated, ``torch.float64`` unless it is set; features, the field of
            the sites, sums over atoms and results are float64.

    Raises:
        ModelError: the short-range cutoff reaches into the region where the embedding scales charges.
    """

    schema: ClassVar[str]
    settings_class: ClassVar[type[DescriptorSettings]]
    networks_class: ClassVar[Any]
    field: ClassVar[Any]  # a `FieldKind`

    def __init__(
        self,
        settings: Any,
        networks: FeatureNetworks,
        coverage: Coverage,
        validation_error: float,
        provenance: Provenance,
    ) -> None:
        check_short_cutoff(settings, provenance.embedding)
        self.settings = settings
        self.networks = networks.requires_grad_(False)
        self.coverage = coverage
        self.coverage_digest = coverage.digest
        self.validation_error = validation_error
        self.provenance = provenance
        self.dtype = torch.float64

    @property
    def shared_work(self) -> Hashable:
        """Models with the same descriptors compute them once."""
        return self.settings, self.dtype

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of all properties of its results."""
        return ("delta_extrapolation",)

    @property
    def uncertainty_threshold(self) -> float:
        """Twice the error of the energy in validation, in hartree: few frames have a larger one."""
        return 2.0 * self.validation_error

    def training_energy(self, numbers: IntArray) -> tuple[float, float]:
        """Mean and standard deviation of the energy of a region of the training, in hartree.

        Args:
            numbers: (n,) its atomic numbers.
        """
        networks, species = self.networks, species_index(self.settings, numbers)
        mean = float(networks.baseline[torch.from_numpy(species)].sum())
        return mean, float(networks.energy_scale) * math.sqrt(len(numbers))

    def evaluate(self, region: Region) -> CorrectionResult:
        """Energy correction and its derivatives for a batch.

        Raises:
            ModelError: the QM region or an MM element is not one of the training set's.
            GeometryError: the energy is not finite, as when atoms coincide.
        """
        _, result = self.evaluate_with((), region)
        return result

    def evaluate_with(
        self, others: Sequence[NetworkModel], region: Region
    ) -> tuple[FloatArray, CorrectionResult]:
        """Energies (K, B) of models with the same descriptors, and their mean with its derivatives.

        The derivatives are linear in dE/d(feature), so those of the mean cost as much as those of one model.
        Errors are those of `evaluate`.
        """
        members = (self, *others)
        for member in members:
            member.provenance.check_composition(region.numbers)
        found = RegionFeatures(self.settings, self.field, region)
        values = found.features()
        energies, slopes, direct = self._evaluate(
            [member.networks for member in members], region.positions, values, found.species
        )
        if not np.isfinite(energies).all():
            raise GeometryError(
                "delta model: expected a finite energy, found one that is not: positions are not finite or "
                "atoms coincide"
            )
        gradient = found.pull_back(slopes)
        gradient = RegionGradient(gradient.positions + direct, gradient.site_positions, gradient.site_charges)
        # The members of one training have the same coverage.
        coverages = {member.coverage_digest: member.coverage for member in members}.values()
        seen = self.coverage_features(self.settings, values)
        distances = np.max([coverage.by_atom(seen, found.species) for coverage in coverages], axis=0)
        properties = {"delta_extrapolation": distances.max(axis=1)}
        return energies, CorrectionResult(energies.mean(axis=0), gradient, properties, distances)

    def _evaluate(
        self, networks: Sequence[Any], positions: FloatArray, features: FloatArray, species: IntArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Energies (K, B) of K networks, and the derivatives of their mean.

        These are in the features (B, n, D), and in the positions (B, n, 3) at fixed features.
        """
        x, values = (torch.tensor(array, requires_grad=True) for array in (positions, features))
        kinds = torch.from_numpy(species)
        energies = torch.stack([own(x, values, kinds) for own in networks])
        direct, slopes = torch.autograd.grad(
            energies.mean(0).sum(), (x, values), allow_unused=True, materialize_grads=True
        )
        return energies.detach().numpy(), slopes.numpy(), direct.numpy()

    @staticmethod
    def coverage_features(settings: Any, features: FloatArray) -> FloatArray:
        """The features (..., D') by which the reach of the training is judged, from all of them (..., D)."""
        return features

    def save(self, path: Path) -> None:
        """Write the model with everything its use depends on."""
        write_file(
            path,
            self.schema,
            {
                **self.settings_content(),
                "provenance": {**asdict(self.provenance), "embedding": dict(self.provenance.embedding)},
                "validation_error": self.validation_error,
                "coverage": self.coverage.content(),
                "state": self.networks.state_dict(),
            },
        )

    def settings_content(self) -> dict[str, Any]:
        """What the file says of the settings."""
        return {"settings": asdict(self.settings)}

    @classmethod
    def settings_from(cls, content: Content) -> Any:
        """The settings of a file, the reverse of `settings_content`."""
        return cls.settings_class(**content["settings"])

    @classmethod
    def from_content(cls, content: Content) -> NetworkModel:
        """The model of a file.

        Raises:
            ModelError, KeyError, TypeError, ValueError, RuntimeError: the content is not of such a model.
        """
        settings = cls.settings_from(content)
        networks = cls.networks_class(settings)
        networks.load_state_dict(content["state"])
        return cls(
            settings,
            networks,
            Coverage.from_content(content["coverage"], settings),
            float(content["validation_error"]),
            Provenance(**content["provenance"]),
        )
