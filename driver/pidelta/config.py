"""The YAML configuration: every key, its type and its default, validated as a whole before anything runs."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, FiniteFloat, PrivateAttr, model_validator

from pidelta.qm.base import PropertyName
from pidelta.state import TERMS
from pidelta.units import parse_quantity
from pidelta.yaml_input import Energy, Length, Section, Temperature, read_yaml


class SCCConfig(Section):
    """Self-consistent charges.

    `tolerance` is the largest change of a charge (e) that counts as converged. `start` is what the charges
    start from: neutral atoms, those of the call before, or an extrapolation of the last calls as far as these
    proved smooth. It changes the time, not the result.
    """

    tolerance: float = Field(1.0e-8, gt=0.0)
    max_iterations: int = Field(100, ge=1)
    start: Literal["none", "previous", "extrapolated"] = "extrapolated"


class DampingConfig(Section):
    """Parameters of Becke-Johnson damping, `a2` in bohr.

    `s9` scales three-body terms: by default 0 for D3(BJ), which is without them, and 1 for D4.
    """

    s6: FiniteFloat = 1.0
    s8: FiniteFloat
    s9: FiniteFloat | None = None
    a1: FiniteFloat
    a2: FiniteFloat


class DispersionConfig(Section):
    """Dispersion among the QM atoms; `dispersion: d3bj` is short for `dispersion: {method: d3bj}`.

    `damping` is the name of a published Slater-Koster set or functional or values of its own. By default it
    is that of B3LYP with the built-in parameters, whose repulsives are fitted to B3LYP without dispersion,
    and else that of the set that `hubbard_derivatives` names. Published D3(BJ) has no three-body terms, D4
    has them.
    """

    method: Literal["none", "d3bj", "d4"]
    damping: DampingConfig | str | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_method(cls, value: object) -> object:
        return {"method": value} if isinstance(value, str) else value


class DFTBConfig(Section):
    """DFTB, by the built-in engine or DFTB+.

    `order` is that of DFTB: by default 3 with the built-in parameters, 2 with a folder of .skf files.
    `hubbard_derivatives` (order 3) is the name of a published set or a value for each element in hartree/e;
    the built-in parameters bring their own. `damping_exponent` is the exponent zeta of the H-X damping of
    gamma: by default that of the named set, then that of the built-in parameters, else none.
    `shell_resolved` gives each shell its own charge and U, as the .skf files have it. With a multiplicity
    above 1 spins have their own orbitals, or share them, with thermal occupations, if `spin_polarised` is
    false. `spin_constants`, for spin polarisation, are W by element in hartree: a matrix by the shells s, p,
    d, or one number for all; the built-in parameters bring their own.
    `device` is where the built-in engine runs.
    """

    parameters: Literal["builtin"] | Path = "builtin"
    order: Literal[2, 3] = 3
    hubbard_derivatives: str | dict[str, float] | None = None
    damping_exponent: float | None = Field(None, gt=0.0)
    shell_resolved: bool = False
    spin_polarised: bool = True
    spin_constants: dict[str, FiniteFloat | list[list[FiniteFloat]]] | None = None
    dispersion: DispersionConfig = DispersionConfig(method="none")
    electronic_temperature: Temperature = Field(0.0, ge=0.0)
    scc: SCCConfig = SCCConfig()
    device: Literal["cpu", "cuda"] = "cpu"

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


class DFTBPlusConfig(Section):
    """What only DFTB+ needs: its library, if it is not where its Python module is, and an input of your own.

    The atoms, the charge and the method of `input` must be those of the configuration; other keywords of its
    Hamiltonian, such as a mixer, are taken over. Its coordinates are not used, and its paths, but for those
    of .skf files, must be absolute.
    """

    library: Path | None = None
    input: Path | None = None


class ASEConfig(Section):
    """A calculator of ASE: its class with the module, such as `tblite.ase.TBLite`, and its arguments.

    The embedding is mechanical: the calculator sees no MM charges. They act on the force-field charges of the
    QM atoms instead, so nothing polarises the QM region but a delta model that has learnt it.
    """

    calculator: str
    options: dict[str, Any] = Field(default_factory=dict)


class QMConfig(Section):
    """The QM region and the method that describes it.

    `engine: ase` takes its method from `ase`, with mechanical embedding; `dftb` has electrostatic embedding.
    Either is the term `low` of the energy. `charge_remainder` selects MM atoms that take up, in equal shares,
    what the force-field charges of the QM atoms have more than `charge`; without it, a remainder up to
    0.05 e, as rounding leaves, is dropped. `properties` are results to add to the extras, by the names and
    in the units of `PropertyName`.
    """

    atoms: str | list[int] = "all"
    charge: int = 0
    charge_remainder: str | list[int] | None = None
    multiplicity: int = Field(1, ge=1)
    engine: Literal["dftb", "dftb+", "ase"] = "dftb"
    dftb: DFTBConfig = DFTBConfig()
    ase: ASEConfig | None = None
    dftbplus: DFTBPlusConfig | None = None
    properties: list[PropertyName] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check_engine(self) -> QMConfig:
        if self.engine == "ase" and self.ase is None:
            raise ValueError("expected a section ase with engine ase, found none")
        if self.engine == "ase" and "dftb" in self.model_fields_set:
            raise ValueError("expected no section dftb with engine ase, found one")
        if self.engine != "dftb" and self.properties:
            found = ", ".join(self.properties)
            raise ValueError(f"expected no properties with engine {self.engine}, found {found}")
        if self.engine != "ase" and self.ase is not None:
            raise ValueError(f"expected engine ase with a section ase, found {self.engine}")
        if self.dftbplus is not None and self.engine != "dftb+":
            raise ValueError(f"dftbplus: expected engine dftb+ with it, found {self.engine}")
        if self.engine == "dftb+" and self.dftb.device != "cpu":
            raise ValueError(f"dftb.device: expected cpu with engine dftb+, found {self.dftb.device}")
        scc = self.dftb.scc
        if self.engine == "dftb+" and "start" in scc.model_fields_set and scc.start != "previous":
            raise ValueError(f"dftb.scc.start: expected previous with engine dftb+, found {scc.start}")
        return self


class MMConfig(Section):
    """The force field; lengths in bohr once read.

    `topology` comes with `parameters` where the format keeps them apart (CHARMM). `water` names a model that
    takes the place of the water of the topology; without a topology the structure is water alone.
    `dispersion_correction` is off as in GROMACS and CHARMM; AMBER and OpenMM have it on.
    `electrostatics`, `cutoff` and `ewald_tolerance` are of periodic systems: given, they ask for a cell.

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
    """How the MM charges enter the QM region; lengths in bohr once read.

    `groups` are the MM atoms that are switched off together at the cutoff: by residue, large ones split into
    neutral groups where that is possible; by molecule; or lists of selections, each a group of its own, and
    by residue what they leave. A large group counts whole as soon as a part of it is near.
    """

    scheme: Literal["cutoff"] = "cutoff"
    groups: Literal["residue", "molecule"] | list[str | list[int]] = "residue"
    cutoff: Length = Field(parse_quantity("1.4 nm", "length"), gt=0.0)
    switch: Length = Field(parse_quantity("0.2 nm", "length"), gt=0.0)


class DeltaConfig(Section):
    """Files of delta models; several form a committee.

    `warn_above` is the standard deviation of a committee that deserves a warning: by default the error that
    the models had on frames held back from their training.
    """

    models: list[Path] = Field(min_length=1)
    warn_above: Energy | None = Field(None, gt=0.0)


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
        sections = {"mm": self.mm, "low": self.qm, "delta": self.delta}
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
    if config.qm is not None:
        update["qm"] = _qm_with_absolute_paths(config.qm, folder)
    config = config.model_copy(update=update)
    config._path = path
    return config


def _qm_with_absolute_paths(qm: QMConfig, folder: Path) -> QMConfig:
    update: dict[str, Any] = {}
    if isinstance(qm.dftb.parameters, Path):
        parameters = _join(folder, qm.dftb.parameters)
        update["dftb"] = qm.dftb.model_copy(update={"parameters": parameters})
    if qm.dftbplus is not None:
        paths = {key: _join(folder, path) for key, path in qm.dftbplus if path is not None}
        update["dftbplus"] = qm.dftbplus.model_copy(update=paths)
    return qm.model_copy(update=update)


def _join(folder: Path, path: Path) -> Path:
    return Path(os.path.normpath(folder / path))
