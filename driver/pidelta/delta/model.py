"""The delta model: energy correction and its derivatives, its file, and whether it fits a system."""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pidelta.delta.base import CorrectionResult
from pidelta.delta.descriptors import (
    DescriptorSettings,
    angular_triples,
    species_index,
    structure_features,
)
from pidelta.delta.networks import AtomicNetworks
from pidelta.delta.site_features import SiteFeatures
from pidelta.errors import GeometryError, ModelError
from pidelta.state import FloatArray, IntArray, Region, RegionGradient

SCHEMA = "pidelta delta model 1"
UNITS = "hartree, bohr, e"


@dataclass(frozen=True)
class Training:
    """What a model was trained on; its use elsewhere is refused (`check_fits`).

    Attributes:
        low_level: identity of the low-level method (`QMEngine.identity`).
        reference: the reference method (`Label.method`).
        embedding: ``scheme``, ``cutoff`` and ``switch`` of the embedding, lengths in bohr.
        charge, multiplicity: of the QM region.
    """

    low_level: str
    reference: str
    embedding: Mapping[str, str | float]
    charge: int = 0
    multiplicity: int = 1


class DeltaModel:
    """A trained correction (reference - low level) for a QM region in its environment.

    Args:
        settings: the descriptors.
        networks: one network for each element.
        training: what it was trained on.

    Raises:
        ModelError: the short-range cutoff reaches into the region where the embedding scales charges.
    """

    def __init__(self, settings: DescriptorSettings, networks: AtomicNetworks, training: Training) -> None:
        check_short_cutoff(settings, training.embedding)
        self.settings = settings
        self.networks = networks.requires_grad_(False)
        self.training = training

    @property
    def low_level(self) -> str:
        """Identity of the low-level method the model corrects."""
        return self.training.low_level

    @property
    def reference(self) -> str:
        """The method the model reproduces."""
        return self.training.reference

    @property
    def embedding(self) -> Mapping[str, str | float]:
        """The embedding of the training set, lengths in bohr."""
        return self.training.embedding

    def evaluate(self, region: Region) -> CorrectionResult:
        """Energy correction and its derivatives for a batch.

        Raises:
            ModelError: an element is not one of the training set's.
            GeometryError: the energy is not finite, as when atoms coincide.
        """
        _, result = evaluate_networks(self.settings, [self.networks], region)
        return result

    def save(self, path: Path) -> None:
        """Write the model with everything its use depends on."""
        content = {
            "schema": SCHEMA,
            "units": UNITS,
            "settings": asdict(self.settings),
            "training": {**asdict(self.training), "embedding": dict(self.embedding)},
            "hidden": self.networks.hidden,
            "state": self.networks.state_dict(),
        }
        torch.save(content, path)


def evaluate_networks(
    settings: DescriptorSettings, networks: Sequence[AtomicNetworks], region: Region
) -> tuple[FloatArray, CorrectionResult]:
    """Energies of several networks on the same descriptors, and their mean with its derivatives.

    The derivatives are linear in dE/d(feature), so those of the mean cost as much as those of one network.
    Errors are those of `DeltaModel.evaluate`.

    Returns:
        (K, B) energies of the K networks, and the mean.
    """
    check_elements(settings, region.numbers)
    species = species_index(settings, region.numbers.tolist())
    x = torch.tensor(region.positions, dtype=torch.float64, requires_grad=True)
    structure = structure_features(settings, species, x, angular_triples(settings, x))
    sites = SiteFeatures(
        settings,
        x.detach(),
        torch.as_tensor(region.site_positions, dtype=torch.float64),
        torch.as_tensor(region.site_charges, dtype=torch.float64),
        site_species_index(settings, region.site_numbers),
    )
    features = torch.cat([structure.detach(), sites.features()], dim=-1).requires_grad_()
    energies = torch.stack([network(features, species) for network in networks])
    if not bool(torch.isfinite(energies).all()):
        raise GeometryError(
            "delta model: expected a finite energy, found one that is not: positions are not finite or atoms "
            "coincide"
        )
    energy = energies.mean(0)
    (slopes,) = torch.autograd.grad(energy.sum(), features)
    (gradient,) = torch.autograd.grad(structure, x, slopes[..., : settings.structure_count])
    through_sites, site_positions, site_charges = sites.pull_back(slopes[..., settings.structure_count :])
    return energies.detach().numpy(), CorrectionResult(
        energy.detach().numpy(),
        RegionGradient((gradient + through_sites).numpy(), site_positions.numpy(), site_charges.numpy()),
    )


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
            f"delta model: expected MM atoms of the atomic numbers {_list(settings.mm_elements)}, "
            f"found {found}"
        )
    return torch.from_numpy(species)


def check_elements(settings: DescriptorSettings, numbers: IntArray) -> None:
    """Raise ModelError where a QM atom is of an element the descriptors do not know."""
    for atom, number in enumerate(numbers.tolist()):
        if number not in settings.elements:
            raise ModelError(
                f"delta model: expected QM atoms of the atomic numbers {_list(settings.elements)}, "
                f"found {number} (QM atom {atom})"
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
        raise ModelError(f"delta model: expected embedding.{key} in bohr, found {value!r}")
    return value


def check_fits(
    model: DeltaModel,
    numbers: IntArray,
    low_level: str,
    embedding: Mapping[str, object],
    charge: int | None = None,
    multiplicity: int | None = None,
    mm_numbers: IntArray | None = None,
) -> None:
    """Refuse to use a model in a set-up it was not trained for.

    Args:
        model: the model.
        numbers: (n,) atomic numbers of the QM region.
        low_level: identity of the low-level method in use.
        embedding: what the embedding in use asks a model to remember (``scheme`` and its lengths in bohr).
        charge, multiplicity: of the QM region, where known.
        mm_numbers: (M,) atomic numbers of the MM atoms, where known.

    Raises:
        ModelError: an element is unknown, or the low level, the embedding, the charge or the multiplicity
            differs.
    """
    check_elements(model.settings, numbers)
    strangers = sorted(
        set(() if mm_numbers is None else mm_numbers.tolist()) - set(model.settings.mm_elements)
    )
    if strangers:
        raise ModelError(
            f"delta model: expected MM elements among {_list(model.settings.mm_elements)}, "
            f"found {_list(strangers)}"
        )
    training = model.training
    if low_level != training.low_level:
        raise ModelError(
            f"delta model: expected the low-level method it was trained on, {training.low_level!r}, "
            f"found {low_level!r}"
        )
    for key in sorted(training.embedding.keys() | embedding.keys()):
        expected, found = training.embedding.get(key), embedding.get(key)
        if isinstance(expected, float) and isinstance(found, float):
            same = math.isclose(expected, found, rel_tol=1e-6)
        else:
            same = expected == found
        if not same:
            raise ModelError(f"delta model: expected embedding.{key} {expected!r}, found {found!r}")
    if charge not in (None, training.charge):
        raise ModelError(f"delta model: expected a QM region of charge {training.charge}, found {charge}")
    if multiplicity not in (None, training.multiplicity):
        raise ModelError(
            f"delta model: expected a QM region of multiplicity {training.multiplicity}, found {multiplicity}"
        )


def load_model(path: Path) -> DeltaModel:
    """Read a model file; nothing but tensors and plain values is unpickled.

    Raises:
        ModelError: there is no such file, it is not a model file, or it is of another version.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's guesses at what a file that is no model may be
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError):
        raise ModelError(f"{path}: expected a delta model, found a file that is not one") from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise ModelError(f"{path}: expected the schema {SCHEMA!r}, found {schema!r}")
    try:
        settings = DescriptorSettings(**content["settings"])
        networks = AtomicNetworks(len(settings.elements), settings.feature_count, content["hidden"])
        networks.load_state_dict(content["state"])
        return DeltaModel(settings, networks, Training(**content["training"]))
    except (KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"{path}: expected a complete delta model ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
