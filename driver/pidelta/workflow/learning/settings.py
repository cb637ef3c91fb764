"""The settings of `pidelta learn`, a YAML file: every key, validated before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, FiniteFloat, Tag, model_validator

from pidelta.units import parse_quantity
from pidelta.yaml_input import (
    Energy,
    FilePath,
    Gradient,
    Integer,
    Length,
    Section,
    Stiffness,
    Temperature,
    Time,
    choose_by,
    read_yaml,
)

Positive: TypeAlias = Annotated[Time, Field(gt=0.0)]
Warm: TypeAlias = Annotated[Temperature, Field(gt=0.0)]
Count: TypeAlias = Annotated[Integer, Field(ge=1)]


class DynamicsSource(Section):
    """Molecular dynamics of the whole system, classical or of a ring polymer, by i-PI.

    Each round goes on from the end of the one before. `skip` is left out at the beginning of each round:
    the potential has just changed.
    """

    method: Literal["md"] = "md"
    temperature: Warm
    beads: Count = 1
    time: Positive
    time_step: Positive = parse_quantity("0.5 fs", "time")
    every: Positive = parse_quantity("10 fs", "time")
    skip: Annotated[Time, Field(ge=0.0)] = 0.0

    @property
    def steps(self) -> int:
        """Steps of a round."""
        return max(1, round(self.time / self.time_step))

    @property
    def stride(self) -> int:
        """Steps between frames."""
        return max(1, round(self.every / self.time_step))

    @model_validator(mode="after")
    def _check_times(self) -> DynamicsSource:
        if self.skip + self.every > self.time:
            raise ValueError("expected skip and every to leave a frame within time, found none")
        return self


class BiasedSource(DynamicsSource):
    """Dynamics that are pushed to distances which were seen seldom, as metadynamics does (`DistanceBias`).

    `distances` are pairs of QM atoms, by their number in the structure, from 0.
    """

    method: Literal["metadynamics"]  # type: ignore[assignment]
    distances: list[tuple[Integer, Integer]] = Field(min_length=1)
    width: Annotated[Length, Field(gt=0.0)] = parse_quantity("0.05 angstrom", "length")
    barrier: Annotated[Energy, Field(gt=0.0)] = parse_quantity("10 kcal/mol", "energy")

    @model_validator(mode="after")
    def _check_barrier(self) -> BiasedSource:
        if self.barrier <= 2.0 * self.temperature:
            raise ValueError("barrier: expected more than 2 kT, found less")
        return self


class UmbrellaSource(DynamicsSource):
    """Dynamics in windows along a coordinate, sum of weights times distances, such as that of a reaction.

    Each window has a spring at one of `centres`. In the first round it begins where the window before ended,
    and later where it ended itself in the round before, by its place in `centres`. `time`, `every` and `skip`
    are those of a window. `weights` are 1 by default; 1 and -1 make a difference.
    """

    method: Literal["umbrella"]  # type: ignore[assignment]
    distances: list[tuple[Integer, Integer]] = Field(min_length=1)
    weights: list[FiniteFloat] | None = None
    centres: list[Length] = Field(min_length=1)
    stiffness: Annotated[Stiffness, Field(gt=0.0)] = parse_quantity("100 kcal/mol/angstrom^2", "stiffness")

    @model_validator(mode="after")
    def _check_weights(self) -> UmbrellaSource:
        if len(self.factors) != len(self.distances):
            raise ValueError(
                f"weights: expected {len(self.distances)} as of distances, found {len(self.factors)}"
            )
        if 0.0 in self.factors:
            raise ValueError("weights: expected none to be zero, found one")
        for place, centre in enumerate(self.centres):
            signed = {factor > 0.0 for factor in self.factors}
            if len(signed) == 1 and (centre > 0.0) not in signed:
                raise ValueError(f"centres.{place}: expected what these weighted distances can reach")
        return self

    @property
    def factors(self) -> list[float]:
        """`weights`, or 1 for each distance."""
        return [1.0] * len(self.distances) if self.weights is None else self.weights


class WignerSource(Section):
    """Harmonic quantum samples about a minimum of the QM region in the solvent of a snapshot."""

    method: Literal["wigner"]
    temperature: Annotated[Temperature, Field(ge=0.0)]
    draws: Count = 40
    solvents: Count = 4


class ComponentsSource(Section):
    """Samples of a Gaussian with the principal components of the sampled geometries.

    `scale` multiplies its standard deviations.
    """

    method: Literal["principal-components"]
    scale: Annotated[FiniteFloat, Field(gt=0.0)] = 1.5
    draws: Count = 40
    solvents: Count = 4


Source: TypeAlias = Annotated[
    Annotated[DynamicsSource, Tag("method: md")]
    | Annotated[BiasedSource, Tag("method: metadynamics")]
    | Annotated[UmbrellaSource, Tag("method: umbrella")]
    | Annotated[WignerSource, Tag("method: wigner")]
    | Annotated[ComponentsSource, Tag("method: principal-components")],
    choose_by("method", default="md"),
]


class LabelSettings(Section):
    """The level of theory of the labels, as the options of `pidelta label` have it."""

    xc: str = "B3LYP"
    basis: str | None = None
    auxiliary_basis: str | None = None
    grid_level: Annotated[Integer, Field(ge=0, le=9)] | None = None
    dispersion: Literal["none", "d3bj", "d4"] | None = None
    unrestricted: bool = False


class SelectionSettings(Section):
    """Which of the sampled frames are labelled in a round.

    `frames` are picked for training: of the share `uncertain` on which the models differ most, those that are
    farthest from each other and from what is labelled (`diverse`), or any of all (`random`).
    """

    frames: Count = 20
    method: Literal["diverse", "random"] = "diverse"
    uncertain: Annotated[FiniteFloat, Field(gt=0.0, le=1.0)] = 0.5


class TestSettings(Section):
    """Frames that no training sees: `frames` a round, evenly spaced in dynamics of their own.

    These have no bias: the targets say nothing of what lies between minima.
    """

    frames: Count = 10
    dynamics: DynamicsSource


class Targets(Section):
    """Mean absolute errors on the test frames that are good enough; what is left out does not count."""

    energy: Annotated[Energy, Field(gt=0.0)] | None = None
    qm_gradient: Annotated[Gradient, Field(gt=0.0)] | None = None
    mm_gradient: Annotated[Gradient, Field(gt=0.0)] | None = None


class Budget(Section):
    """Where the loop ends although the targets are not met.

    `frames` are all that have labels, those of the tests included. No round begins that would exceed it, or,
    going by the time of the round before, `hours`.
    """

    rounds: Count = 20
    frames: Count | None = None
    hours: Annotated[FiniteFloat, Field(gt=0.0)] | None = None


class LearningFile(Section):
    """The file `learn.yaml`. Paths are absolute once read.

    `config` is the set-up, whose section delta is not used; `training` the settings of `pidelta train`.
    `trust` is the error, in energy, that the low level is trusted to have: in the sampling the models count
    the less, the more they differ beyond it (`baseline_error` of a configuration).
    """

    config: FilePath
    training: FilePath
    models: Annotated[Integer, Field(ge=2)] = 3
    seed: Annotated[Integer, Field(ge=0)] = 0
    label: LabelSettings = LabelSettings()
    sample: list[Source] = Field(min_length=1)
    select: SelectionSettings = SelectionSettings()
    test: TestSettings
    trust: Annotated[Energy, Field(gt=0.0)] | None = None
    targets: Targets = Targets()
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _check(self) -> LearningFile:
        if not any(isinstance(source, DynamicsSource) for source in self.sample):
            raise ValueError("sample: expected at least one source with method md, found none")
        return self

    @property
    def sampling(self) -> str:
        """Where the frames come from, seed, temperatures and beads among it, as frames remember it."""
        told = self.model_dump_json(include={"seed", "sample", "select", "test"}, exclude_defaults=True)
        return f"in atomic units {told}"


def read_learning_file(path: Path) -> LearningFile:
    """Read and validate the settings.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown or missing, or a value is wrong.
    """
    return read_yaml(path, LearningFile)
