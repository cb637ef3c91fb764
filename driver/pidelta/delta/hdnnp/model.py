"""The model of the paper: energy correction and its derivatives, and its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from pidelta.delta.base import CorrectionResult, Provenance
from pidelta.delta.files import Content, write_file
from pidelta.delta.hdnnp.coverage import Coverage
from pidelta.delta.hdnnp.descriptors import (
    DescriptorSettings,
    angular_triples,
    site_species_index,
    species_index,
    structure_features,
)
from pidelta.delta.hdnnp.networks import AtomicNetworks
from pidelta.delta.hdnnp.site_features import SiteFeatures
from pidelta.errors import GeometryError, ModelError
from pidelta.state import FloatArray, Region, RegionGradient


class HDNNP:
    """A high-dimensional neural network potential that corrects a QM region in its environment.

    Boeselt, Thuerlemann, Riniker, JCTC 17, 2641 (2021).

    Args:
        settings: the descriptors.
        networks: one network for each element.
        coverage: where the features of the training frames lie.
        validation_error: root mean square error of the energy on frames held back from training, in hartree.
        provenance: what it was trained on.

    Raises:
        ModelError: the short-range cutoff reaches into the region where the embedding scales charges.
    """

    schema = "pidelta hdnnp 2"

    def __init__(
        self,
        settings: DescriptorSettings,
        networks: AtomicNetworks,
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

    @property
    def shared_work(self) -> DescriptorSettings:
        """Models with the same descriptors compute them once."""
        return self.settings

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of all properties of its results."""
        return ("delta_extrapolation",)

    @property
    def uncertainty_threshold(self) -> float:
        """Twice the error of the energy in validation, in hartree: few frames have a larger one."""
        return 2.0 * self.validation_error

    def evaluate(self, region: Region) -> CorrectionResult:
        """Energy correction and its derivatives for a batch.

        Raises:
            ModelError: the QM region or an MM element is not one of the training set's.
            GeometryError: the energy is not finite, as when atoms coincide.
        """
        _, result = self.evaluate_with((), region)
        return result

    def evaluate_with(self, others: Sequence[HDNNP], region: Region) -> tuple[FloatArray, CorrectionResult]:
        """Energies (K, B) of models with the same descriptors, and their mean with its derivatives.

        The derivatives are linear in dE/d(feature), so those of the mean cost as much as those of one model.
        Errors are those of `evaluate`.
        """
        members = (self, *others)
        for member in members:
            member.provenance.check_composition(region.numbers)
        settings = self.settings
        species = species_index(settings, region.numbers.tolist())
        x = torch.tensor(region.positions, dtype=torch.float64, requires_grad=True)
        structure = structure_features(settings, species, x, angular_triples(settings, x))
        sites = SiteFeatures(
            settings,
            x.detach(),
            torch.tensor(region.site_positions, dtype=torch.float64),
            torch.tensor(region.site_charges, dtype=torch.float64),
            site_species_index(settings, region.site_numbers),
        )
        features = torch.cat([structure.detach(), sites.features()], dim=-1).requires_grad_()
        energies = torch.stack([member.networks(features, species) for member in members])
        if not bool(torch.isfinite(energies).all()):
            raise GeometryError(
                "delta model: expected a finite energy, found one that is not: positions are not finite or "
                "atoms coincide"
            )
        energy = energies.mean(0)
        (slopes,) = torch.autograd.grad(energy.sum(), features)
        (gradient,) = torch.autograd.grad(structure, x, slopes[..., : settings.structure_count])
        through_sites, site_positions, site_charges = sites.pull_back(slopes[..., settings.structure_count :])
        # The members of one training have the same coverage.
        coverages = {member.coverage_digest: member.coverage for member in members}.values()
        distances = [
            coverage.extrapolation(features.detach().numpy(), species.numpy()) for coverage in coverages
        ]
        return energies.detach().numpy(), CorrectionResult(
            energy.detach().numpy(),
            RegionGradient((gradient + through_sites).numpy(), site_positions.numpy(), site_charges.numpy()),
            {"delta_extrapolation": np.max(distances, axis=0)},
        )

    def save(self, path: Path) -> None:
        """Write the model with everything its use depends on."""
        write_file(
            path,
            self.schema,
            {
                "settings": asdict(self.settings),
                "provenance": {**asdict(self.provenance), "embedding": dict(self.provenance.embedding)},
                "validation_error": self.validation_error,
                "coverage": self.coverage.content(),
                "hidden": self.networks.hidden,
                "state": self.networks.state_dict(),
            },
        )

    @classmethod
    def from_content(cls, content: Content) -> HDNNP:
        """The model of a file.

        Raises:
            ModelError, KeyError, TypeError, ValueError, RuntimeError: the content is not of such a model.
        """
        settings = DescriptorSettings(**content["settings"])
        networks = AtomicNetworks(len(settings.elements), settings.feature_count, content["hidden"])
        networks.load_state_dict(content["state"])
        return cls(
            settings,
            networks,
            Coverage.from_content(content["coverage"], settings),
            float(content["validation_error"]),
            Provenance(**content["provenance"]),
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
