"""The settings of a training, `train.yaml`: every key, validated before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pidelta.delta.hdnnp.descriptors import DescriptorSettings
from pidelta.yaml_input import Length, Section, read_yaml

PositiveLength = Annotated[Length, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]


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
    """Descriptor settings to change; `DescriptorSettings` has their meaning and defaults."""

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


class TrainingSettings(Section):
    """How networks are fitted.

    The loss is (dE)^2 + w0/(3 n) |QM gradient error|^2 + w1/(3 m) |MM gradient error|^2 in atomic units, with
    w0 `qm_gradient_weight` and w1 `mm_gradient_weight` in bohr^2 (Boeselt, Thuerlemann, Riniker, JCTC 17,
    2641 (2021)). The weights of the epoch with the least validation loss are kept.

    Attributes:
        seed: of the split, the initial weights and the order of the frames; model k uses seed + k.
        epochs: passes over the training frames, over which the learning rate falls to zero as a cosine.
        patience: epochs without a better validation loss after which training stops early.
        batch_size: frames for each step of the optimiser (Adam with decoupled weight decay).
        learning_rate, weight_decay: of the optimiser.
        hidden: widths of the hidden layers.
        validation_fraction: share of the frames that is held back.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Count = 600
    patience: Count = 200
    batch_size: Count = 8
    learning_rate: Positive = 5.0e-3
    weight_decay: NotNegative = 1.0e-4
    qm_gradient_weight: NotNegative = 1.0
    mm_gradient_weight: NotNegative = 1000.0
    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (32, 32)
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1


class TrainingFile(Section):
    """The file `train.yaml`."""

    embedding: EmbeddingSettings
    descriptors: DescriptorOptions = DescriptorOptions()
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _check_cutoff(self) -> TrainingFile:
        if self.embedding.cutoff is None and self.descriptors.charge_cutoff is None:
            raise ValueError("descriptors.charge_cutoff: expected a length with the scheme fixed, found none")
        return self

    def descriptor_settings(
        self, elements: tuple[int, ...], mm_elements: tuple[int, ...]
    ) -> DescriptorSettings:
        """Descriptors for these QM and MM elements; their charges end where the embedding does."""
        options = {"charge_cutoff": self.embedding.cutoff} | self.descriptors.model_dump(exclude_none=True)
        return DescriptorSettings(elements=elements, mm_elements=mm_elements, **options)


def read_training_file(path: Path) -> TrainingFile:
    """Read and validate `train.yaml`.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown or missing, or a value is wrong.
    """
    return read_yaml(path, TrainingFile)
