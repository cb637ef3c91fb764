"""The YAML configuration: every key, its type and its default, validated as a whole before anything runs."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from pidelta.state import TERMS
from pidelta.units import parse_quantity
from pidelta.yaml_input import Length, Section, Temperature, read_yaml


class SCCConfig(Section):
    """Self-consistent charges: the largest change of a charge (e) that counts as converged."""

    tolerance: float = Field(1.0e-8, gt=0.0)
    max_iterations: int = Field(100, ge=1)


class DFTBConfig(Section):
    """The built-in DFTB engine.

    `order` is that of DFTB: by default 3 with the built-in parameters, 2 with a folder of .skf files.
    `hubbard_derivatives` (order 3) is the name of a published set or a value for each element in hartree/e;
    the built-in parameters bring their own. `damping_exponent` is the exponent zeta of the H-X damping of
    gamma: by default that of the named set, then that of the built-in parameters, else none.
    """

    parameters: Literal["builtin"] | Path = "builtin"
    order: Literal[2, 3] = 3
    hubbard_derivatives: str | dict[str, float] | None = None
    damping_exponent: float | None = Field(None, gt=0.0)
    dispersion: Literal["none"] = "none"
    electronic_temperature: Temperature = Field(0.0, ge=0.0)
    scc: SCCConfig = SCCConfig()

    @model_validator(mode="before")
    @classmethod
    def _set_order(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("parameters", "builtin") != "builtin":
            return {"order": 2, **values}
        return values

    @model_validator(mode="after")
    def _check_order(self) -> DFTBConfig:
        given = self.hubbard_derivatives is not None
        if given and self.order != 3:
            raise ValueError("expected hubbard_derivatives with order 3, and only with it")
        if not given and self.order == 3 and self.parameters != "builtin":
            raise ValueError(
                "expected hubbard_derivatives with order 3 and a folder of .skf files, found none"
            )
        return self


class QMConfig(Section):
    """The QM region and the method that describes it."""

    atoms: str | list[int] = "all"
    charge: int = 0
    multiplicity: int = Field(1, ge=1)
    engine: Literal["dftb"] = "dftb"
    dftb: DFTBConfig = DFTBConfig()


class MMConfig(Section):
    """The force field; lengths in bohr once read.

    `topology` comes with `parameters` where the format keeps them apart (CHARMM). `water` names a model that
    takes the place of the water of the topology; without a topology the structure is water alone.
    `dispersion_correction` is off as in GROMACS and CHARMM; AMBER and OpenMM have it on.

    `threads` of one process share the beads of a request, or the work of a single structure. `platform`,
    `precision` and `virial` are options of the engine openmm: one of its platforms, or the fastest that
    works; the precision where the platform offers a choice; and whether to spend 12 evaluations of the energy
    for each structure on the virial, which barostats and pressures need and nothing else.
    """

    topology: Path | None = None
    parameters: list[Path] = Field(default_factory=list)
    water: Literal["spc-fw", "q-spc-fw", "q-tip4p-f", "tip3p-flexible"] | None = None
    lj_modifier: Literal["switch", "potential-shift", "none"] = "switch"
    dispersion_correction: bool = False
    engine: Literal["builtin", "openmm"] = "builtin"
    platform: str = "auto"
    precision: Literal["double", "mixed", "single"] = "double"
    virial: bool = True
    electrostatics: Literal["pme", "ewald", "reaction-field", "cutoff"] = "pme"
    ewald_tolerance: float = Field(1e-4, ge=1e-12, le=0.05)
    reaction_field_dielectric: float = Field(math.inf, ge=1.0)
    cutoff: Length = Field(parse_quantity("1.0 nm", "length"), gt=0.0)
    threads: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _check_engine(self) -> MMConfig:
        given = [name for name in ("platform", "precision", "virial") if name in self.model_fields_set]
        if given and self.engine != "openmm":
            raise ValueError(f"expected {given[0]} with engine: openmm, and only with it")
        return self

    @model_validator(mode="after")
    def _check_source(self) -> MMConfig:
        if self.topology is None and self.water is None:
            raise ValueError("expected topology, water or both, found neither")
        if self.topology is None and self.parameters:
            raise ValueError("expected parameters with a topology, and only with it")
        return self


class EmbeddingConfig(Section):
    """How the MM charges enter the QM region; lengths in bohr once read."""

    scheme: Literal["cutoff"] = "cutoff"
    cutoff: Length = Field(parse_quantity("1.4 nm", "length"), gt=0.0)
    switch: Length = Field(parse_quantity("0.2 nm", "length"), gt=0.0)


class DeltaConfig(Section):
    """Files of delta models; several form a committee."""

    models: list[Path] = Field(min_length=1)


class Config(Section):
    """A whole set-up. Paths are absolute once read."""

    _path: Path = PrivateAttr(default=Path())
    structure: Path
    qm: QMConfig | None = None
    mm: MMConfig | None = None
    embedding: EmbeddingConfig = EmbeddingConfig()
    delta: DeltaConfig | None = None
    point_charges: Path | None = None

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of the energy that the sections add up to."""
        sections = {"mm": self.mm, "dftb": self.qm, "delta": self.delta}
        return tuple(term for term in TERMS if sections[term] is not None)

    @property
    def path(self) -> Path:
        """The file it was read from, for messages."""
        return self._path

    @model_validator(mode="after")
    def _check_sections(self) -> Config:
        if self.qm is None and self.mm is None:
            raise ValueError("expected a section qm, mm or both, found neither")
        if self.delta is not None and self.qm is None:
            raise ValueError("delta: expected a section qm to correct, found none")
        if self.point_charges is not None and (self.mm is not None or self.qm is None):
            raise ValueError("point_charges: only for a QM molecule without a section mm")
        return self


def load_config(path: Path) -> Config:
    """Read and validate a configuration.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown or missing, or a value is wrong; the
            message names the file and the key.
    """
    return _with_absolute_paths(read_yaml(path, Config), path.resolve())


def _with_absolute_paths(config: Config, path: Path) -> Config:
    folder = path.parent
    update: dict[str, Any] = {"structure": _join(folder, config.structure)}
    if config.point_charges is not None:
        update["point_charges"] = _join(folder, config.point_charges)
    if config.mm is not None:
        topology = None if config.mm.topology is None else _join(folder, config.mm.topology)
        parameters = [_join(folder, file) for file in config.mm.parameters]
        update["mm"] = config.mm.model_copy(update={"topology": topology, "parameters": parameters})
    if config.delta is not None:
        models = [_join(folder, model) for model in config.delta.models]
        update["delta"] = config.delta.model_copy(update={"models": models})
    if config.qm is not None and isinstance(config.qm.dftb.parameters, Path):
        dftb = config.qm.dftb.model_copy(update={"parameters": _join(folder, config.qm.dftb.parameters)})
        update["qm"] = config.qm.model_copy(update={"dftb": dftb})
    config = config.model_copy(update=update)
    config._path = path
    return config


def _join(folder: Path, path: Path) -> Path:
    return Path(os.path.normpath(folder / path))
