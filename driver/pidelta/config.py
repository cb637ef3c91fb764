"""The YAML configuration: every key, its type and its default, validated as a whole before anything runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    Field,
    FiniteFloat,
    PrivateAttr,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pidelta.qm_config import QMWithASE, QMWithDFTB, QMWithDFTBPlus, QMWithNone
from pidelta.state import TERMS
from pidelta.units import parse_quantity
from pidelta.yaml_input import (
    Energy,
    FilePath,
    Integer,
    Length,
    Section,
    choose_by,
    read_yaml,
)

Distance: TypeAlias = Annotated[Length, Field(gt=0.01, lt=1e8)]
"""A cutoff in bohr; beyond these bounds its powers leave the range of numbers."""


_SHORTEST_CUTOFF = parse_quantity("0.3 nm", "length")
"""Within it is no pair but bonded ones: the unit is wrong."""

_METHODS_OF_KEYS = {"ewald_tolerance": ("pme", "ewald"), "reaction_field_dielectric": ("reaction-field",)}
"""The electrostatics in which a key has an effect."""


class ForceFieldConfig(Section):
    """The force field; lengths in bohr once read.

    `topology` comes with `parameters` where the format keeps them apart (CHARMM). `water` names a model that
    takes the place of the water of the topology; without a topology the structure is water alone.
    `dispersion_correction` is off as in GROMACS and CHARMM; AMBER and OpenMM have it on.
    `electrostatics`, `cutoff` and `ewald_tolerance` are of periodic systems: given, they ask for a cell.

    `threads` of one process share the beads of a request, or the work of a single structure.
    """

    topology: FilePath | None = None
    parameters: list[FilePath] = Field(default_factory=list)
    water: Literal["spc-fw", "q-spc-fw", "q-tip4p-f", "tip3p-flexible"] | None = None
    lj_modifier: Literal["switch", "potential-shift", "none"] = "switch"
    dispersion_correction: bool = False
    electrostatics: Literal["pme", "ewald", "reaction-field", "cutoff"] = "pme"
    ewald_tolerance: FiniteFloat = Field(1e-4, ge=1e-12, le=0.05)
    reaction_field_dielectric: float = Field(math.inf, ge=1.0)
    cutoff: Distance = parse_quantity("1.0 nm", "length")
    threads: Integer = Field(1, ge=1)

    @field_validator("cutoff")
    @classmethod
    def _check_cutoff(cls, value: float) -> float:
        if value < _SHORTEST_CUTOFF:
            raise ValueError("expected a cutoff of at least 3 angstrom (0.3 nm)")
        return value

    @model_validator(mode="after")
    def _check_source(self) -> ForceFieldConfig:
        if self.topology is None and self.water is None:
            raise ValueError("expected topology, water or both, found neither")
        if self.topology is None and self.parameters:
            raise ValueError("expected parameters with a topology, and only with it")
        return self

    @model_validator(mode="after")
    def _check_electrostatics(self) -> ForceFieldConfig:
        for key, methods in _METHODS_OF_KEYS.items():
            if key in self.model_fields_set and self.electrostatics not in methods:
                raise ValueError(
                    f"{key}: expected electrostatics {' or '.join(methods)} with it, "
                    f"found {self.electrostatics}"
                )
        return self


class MMWithBuiltin(ForceFieldConfig):
    """The force field by the built-in evaluator."""

    engine: Literal["builtin"] = "builtin"


class MMWithOpenMM(ForceFieldConfig):
    """The force field by OpenMM.

    `platform` is one of its platforms, or the fastest that works; `precision` counts where the platform
    offers a choice. `virial` says whether to spend 12 evaluations of the energy for each structure on the
    virial, which barostats and pressures need and nothing else.
    """

    engine: Literal["openmm"]
    platform: str = "auto"
    precision: Literal["double", "mixed", "single"] = "double"
    virial: bool = True


MMConfig: TypeAlias = MMWithBuiltin | MMWithOpenMM


class EmbeddingConfig(Section):
    """How the MM charges enter the QM region; lengths in bohr once read.

    `scheme` is the potential that the low-level method feels: `cutoff`, that of the charges within `cutoff`,
    or `pme`, that of all charges and images of a periodic system by an Ewald sum; left out, it is `pme` where
    the force field has an Ewald sum and there is a cell. Delta models see the charges within `cutoff` in
    either case.

    `groups` are the MM atoms that are switched off together at the cutoff: by residue, large ones split into
    neutral groups where that is possible; by molecule; or lists of selections, each a group of its own, and
    by residue what they leave. A large group counts whole as soon as a part of it is near.
    """

    scheme: Literal["cutoff", "pme"] | None = None
    groups: Literal["residue", "molecule"] | list[str | list[int]] = "residue"
    cutoff: Distance = parse_quantity("1.4 nm", "length")
    switch: Distance = parse_quantity("0.2 nm", "length")


class CalibrationConfig(Section):
    """Factors of the spread of a committee, of energies and of forces, as `pidelta test` finds them.

    `models` is the digest of the models that they are of; left out, nobody can tell.
    """

    energy: FiniteFloat = Field(1.0, gt=0.0)
    force: FiniteFloat = Field(1.0, gt=0.0)
    models: str | None = None


class DeltaConfig(Section):
    """Files of delta models; several form a committee. A file may hold this section: `delta: FILE`.

    `calibration` makes the spread of the committee as large as its errors are. `warn_above` is the spread,
    in energy, that deserves a warning: by default twice the error that the models had on frames held back
    from their training. Structures above it, or outside the training, are kept in the file `save_uncertain`,
    ready for `pidelta label`; `stop_above` ends a run. `baseline_error` is the error that the low level is
    trusted to have: the models count the less, the more they differ beyond it, by the weight e^2/(e^2 +
    spread^2). `offset` is taken off the energy of each model: the difference of two methods may be hundreds
    of hartree, and a weighted baseline multiplies it by a weight that changes. `precision` is that of the
    networks; descriptors, the field and sums stay in float64.

    `properties` are results to report: the spread of forces on each QM atom, `delta_force_deviation`; and of
    each member, of the terms that are evaluated, energies, forces and virials, as i-PI's ``ffcommittee``
    reads them.
    """

    models: list[FilePath] = Field(min_length=1)
    properties: list[
        Literal["committee_pot", "committee_force", "committee_virial", "delta_force_deviation"]
    ] = Field(default_factory=list)
    calibration: CalibrationConfig = CalibrationConfig()
    warn_above: Energy | None = Field(None, gt=0.0)
    save_uncertain: FilePath | None = None
    stop_above: Energy | None = Field(None, gt=0.0)
    baseline_error: Energy | None = Field(None, gt=0.0)
    offset: Energy | None = None
    precision: Literal["float64", "float32"] = "float64"

    @model_validator(mode="after")
    def _check_spread(self) -> DeltaConfig:
        for key in ("baseline_error", "stop_above", "warn_above", "calibration"):
            if key in self.model_fields_set and getattr(self, key) is not None and len(self.models) < 2:
                raise ValueError(f"{key}: expected two models or more, whose spread counts, found one")
        return self

    @model_validator(mode="after")
    def _check_baseline(self) -> DeltaConfig:
        if self.baseline_error is None:
            return self
        if self.offset is None:
            raise ValueError(
                "baseline_error: expected offset, the mean of what the models add (pidelta test prints it), "
                "found none"
            )
        if self.committee_properties:
            raise ValueError(
                f"baseline_error: expected no {self.committee_properties[0]}, as its mean over the models is "
                "no longer the energy, found it in properties"
            )
        return self

    @property
    def committee_properties(self) -> tuple[str, ...]:
        """Those of `properties` that are of each member."""
        return tuple(name for name in self.properties if name.startswith("committee_"))


def load_delta(path: Path) -> DeltaConfig:
    """Read and validate a section `delta` that is a file of its own.

    Raises:
        ConfigError: as `load_config`.
    """
    return read_yaml(path, DeltaConfig)


class Config(Section):
    """A whole set-up. Paths are absolute once read."""

    _path: Path = PrivateAttr(default=Path())
    structure: FilePath
    qm: (
        Annotated[
            Annotated[QMWithDFTB, Tag("engine: dftb")]
            | Annotated[QMWithDFTBPlus, Tag("engine: dftb+")]
            | Annotated[QMWithASE, Tag("engine: ase")]
            | Annotated[QMWithNone, Tag("engine: none")],
            choose_by("engine", default="dftb"),
        ]
        | None
    ) = None
    mm: (
        Annotated[
            Annotated[MMWithBuiltin, Tag("engine: builtin")] | Annotated[MMWithOpenMM, Tag("engine: openmm")],
            choose_by("engine", default="builtin"),
        ]
        | None
    ) = None
    embedding: EmbeddingConfig = EmbeddingConfig()
    delta: DeltaConfig | None = None
    point_charges: FilePath | None = None

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of the energy that the sections add up to."""
        low = None if self.qm is None or self.qm.engine == "none" else self.qm
        sections = {"mm": self.mm, "low": low, "delta": self.delta}
        return tuple(term for term in TERMS if sections[term] is not None)

    @property
    def files(self) -> tuple[Path, ...]:
        """The structure and the other files that are read, but for those of the section qm."""
        topology = () if self.mm is None or self.mm.topology is None else (self.mm.topology,)
        parameters = () if self.mm is None else self.mm.parameters
        models = () if self.delta is None else self.delta.models
        charges = () if self.point_charges is None else (self.point_charges,)
        return (self.structure, *topology, *parameters, *models, *charges)

    @property
    def path(self) -> Path:
        """The file it was read from, for messages."""
        return self._path

    @field_validator("delta", mode="before")
    @classmethod
    def _read_delta(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        return load_delta((info.context or {}).get("folder", Path()) / value)

    @model_validator(mode="after")
    def _check_sections(self) -> Config:
        if self.qm is None and self.mm is None:
            raise ValueError("expected a section qm, mm or both, found neither")
        if self.delta is not None and self.qm is None:
            raise ValueError("delta: expected a section qm to correct, found none")
        if self.qm is not None and self.mm is None and "links" in self.qm.model_fields_set:
            raise ValueError("qm.links: expected a section mm with bonds to cut, found none")
        if self.qm is not None and self.mm is None and self.qm.charge_remainder is not None:
            raise ValueError("qm.charge_remainder: expected a section mm with its atoms, found none")
        if self.mm is None and "embedding" in self.model_fields_set:
            raise ValueError("embedding: expected a section mm whose charges it embeds in, found none")
        electrostatics = "none" if self.mm is None else self.mm.electrostatics
        if self.embedding.scheme == "pme" and electrostatics not in ("pme", "ewald"):
            raise ValueError(
                f"embedding.scheme: expected mm.electrostatics pme or ewald with pme, found {electrostatics}"
            )
        if self.embedding.scheme == "pme" and self.qm is not None and self.qm.engine == "none":
            raise ValueError("embedding.scheme: expected cutoff with qm.engine none, found pme")
        if self.point_charges is not None and (self.mm is not None or self.qm is None):
            raise ValueError("point_charges: only for a QM molecule without a section mm")
        if self.point_charges is not None and self.qm is not None and self.qm.engine == "ase":
            raise ValueError(
                "point_charges: not with engine ase, whose mechanical embedding needs the charges of the QM "
                "atoms that a section mm has"
            )
        return self


def load_config(path: Path) -> Config:
    """Read and validate a configuration.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown or missing, or a value is wrong; the
            message names the file and the key.
    """
    config = read_yaml(path, Config)
    config._path = path.resolve()
    return config
