"""The settings of a training, `train.yaml`: every key, validated before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictInt, model_validator

from pidelta.delta.descriptors import DescriptorSettings
from pidelta.delta.hdnnp.settings import HDNNPSettings
from pidelta.delta.response.settings import ResponseSettings, check_near_powers
from pidelta.errors import ModelError
from pidelta.yaml_input import Length, Section, read_yaml

PositiveLength = Annotated[Length, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Width = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]

_SETTINGS: Mapping[str, type[DescriptorSettings]] = {"response": ResponseSettings, "hdnnp": HDNNPSettings}


def _near_powers(powers: tuple[int, ...]) -> tuple[int, ...]:
    try:
        check_near_powers(powers)
    except ModelError as error:
        raise ValueError(str(error).partition(": ")[2]) from None
    return powers


class EmbeddingSettings(Section):
    """The embedding that the frames were cut with: scheme ``cutoff``, or ``fixed`` charges without one.

    `groups` is left out where charges were switched off by residue. `links` are the words of the frames, such
    as ``scaled, charge-shift``, where bonds join the QM region with MM atoms.
    """

    scheme: Literal["cutoff", "fixed"] = "cutoff"
    cutoff: PositiveLength | None = None
    switch: PositiveLength | None = None
    groups: Literal["molecule", "listed"] | None = None
    links: str | None = None

    @model_validator(mode="after")
    def _check_lengths(self) -> EmbeddingSettings:
        given = (self.cutoff is not None, self.switch is not None)
        if given != ((True, True) if self.scheme == "cutoff" else (False, False)):
            raise ValueError("expected cutoff and switch with the scheme cutoff, and only with it")
        return self

    def as_mapping(self) -> dict[str, str | float]:
        """What a model remembers of it."""
        return self.model_dump(exclude_none=True)


class DescriptorOptions(Section):
    """Descriptors to change; `DescriptorSettings` and `HDNNPSettings` have their meaning and defaults."""

    charge_cutoff: PositiveLength | None = None
    charge_count: Count | None = None
    short_cutoff: PositiveLength | None = None
    short_count: Count | None = None
    radial_cutoff: PositiveLength | None = None
    radial_count: Count | None = None
    angular_cutoff: PositiveLength | None = None
    angular_radial_count: Count | None = None
    angular_angle_count: Count | None = None
    angular_zeta: Annotated[float, Field(ge=1.0)] | None = None


class NetworkOptions(Section):
    """Networks to change; `HDNNPSettings` and `ResponseSettings` have their meaning and defaults."""

    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    pair_radial_count: Count | None = None
    energy_width: Width | None = None
    response_width: Count | None = None
    pair_width: Count | None = None
    short_width: Width | None = None
    field_coupling: bool | None = None
    near_powers: Annotated[tuple[StrictInt, ...], AfterValidator(_near_powers)] | None = None


class TrainingSettings(Section):
    """How networks are fitted.

    The loss is (dE)^2 + w0/(3 n) |QM gradient error|^2 + w1/(3 m) |MM gradient error|^2 in atomic units, with
    w0 `qm_gradient_weight` and w1 `mm_gradient_weight` in bohr^2 (Boeselt, Thuerlemann, Riniker, JCTC 17,
    2641 (2021)). Here the error of an MM site at a distance d from the QM atoms counts (d / 3 angstrom)^2
    times. The weights of the epoch with the least validation loss are kept.

    Attributes:
        seed: of the split, the initial weights and the order of the frames; model k uses seed + k.
        epochs: passes over the training frames, over which the learning rate falls to zero as a cosine.
        patience: epochs without a better validation loss after which training stops early.
        batch_size: frames for each step of the optimiser (Adam with decoupled weight decay).
        learning_rate, weight_decay: of the optimiser.
        averaging: of the parameters, over about 1/(1 - averaging) steps; 0: none.
        qm_gradient_weight, mm_gradient_weight: of the loss; by default from the training frames, so that for
            a model that predicts a constant energy the term of the QM gradient is 100 times that of the
            energy, and the term of the MM gradient 30 times.
        validation_fraction: share of the frames that is held back, in blocks of consecutive steps.
        validation_trajectories: names, or parts of names, of trajectories that are held back instead.
        bootstrap: whether each model learns from blocks of its training frames that are drawn with
            replacement, so that the models of a committee differ more.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Count = 600
    patience: Count = 200
    batch_size: Count = 8
    learning_rate: Positive = 3.0e-3
    weight_decay: NotNegative = 0.03
    averaging: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    qm_gradient_weight: NotNegative | None = None
    mm_gradient_weight: NotNegative | None = None
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    validation_trajectories: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    bootstrap: bool = False

    @model_validator(mode="after")
    def _check_validation(self) -> TrainingSettings:
        if self.validation_trajectories and "validation_fraction" in self.model_fields_set:
            raise ValueError("expected validation_fraction or validation_trajectories, found both")
        return self


class TrainingFile(Section):
    """The file `train.yaml`."""

    embedding: EmbeddingSettings
    model: Literal["response", "hdnnp"] = "response"
    descriptors: DescriptorOptions = DescriptorOptions()
    networks: NetworkOptions = NetworkOptions()
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _check_options(self) -> TrainingFile:
        if self.model == "hdnnp" and self.embedding.cutoff is None and self.descriptors.charge_cutoff is None:
            raise ValueError("descriptors.charge_cutoff: expected a length with the scheme fixed, found none")
        known = {field.name for field in fields(_SETTINGS[self.model])}
        for section, options in (("descriptors", self.descriptors), ("networks", self.networks)):
            for key in options.model_dump(exclude_none=True):
                if key not in known:
                    raise ValueError(f"{section}.{key}: not an option of the model {self.model}")
        return self

    def model_settings(self, elements: tuple[int, ...], mm_elements: tuple[int, ...]) -> DescriptorSettings:
        """Settings of the model for these QM and MM elements; charges end where the embedding does."""
        options = self.descriptors.model_dump(exclude_none=True) | self.networks.model_dump(exclude_none=True)
        if self.model == "hdnnp":
            options = {"charge_cutoff": self.embedding.cutoff} | options
        return _SETTINGS[self.model](elements=elements, mm_elements=mm_elements, **options)


def read_training_file(path: Path) -> TrainingFile:
    """Read and validate `train.yaml`.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown or missing, or a value is wrong.
    """
    return read_yaml(path, TrainingFile)
