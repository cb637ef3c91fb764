"""The only place that turns a configuration into objects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from pidelta.config import Config, DampingConfig, DeltaConfig, DFTBConfig, DFTBPlusConfig, MMConfig, QMConfig
from pidelta.core import structure
from pidelta.core.selection import select
from pidelta.delta.base import Correction
from pidelta.errors import ConfigError, ModelError, SettingError, SetupError, StructureError
from pidelta.mm.evaluator import MMEvaluator
from pidelta.mm.openmm import OpenMMEvaluator
from pidelta.mm.readers import read_topology
from pidelta.mm.topology import Topology
from pidelta.mm.water import build_water, with_water
from pidelta.qm.ase import ASEEngine
from pidelta.qm.base import QMEngine
from pidelta.qm.dftb.engine import DFTBEngine
from pidelta.qm.dftb.parameters import (
    PUBLISHED_DAMPING_EXPONENTS,
    PUBLISHED_HUBBARD_DERIVATIVES,
    load_parameters,
)
from pidelta.qm.dftb.sets import SetFiles, builtin_set
from pidelta.qm.dftb.spin import SpinConstants
from pidelta.qm.dftbplus.engine import DFTBPlusEngine
from pidelta.qm.dftbplus.inputs import DFTBSettings
from pidelta.qm.dispersion import (
    DEFAULT_S9,
    PUBLISHED_DAMPING,
    TITLES,
    Damping,
    Dispersion,
    DispersionCorrected,
    Method,
)
from pidelta.qmmm.embedding import CutoffEmbedding, CutRegion, Embedding, FixedCharges
from pidelta.qmmm.energy import ClassicalEvaluator, QMMMEvaluator
from pidelta.qmmm.partition import Partition, check_charge, make_partition
from pidelta.state import FloatArray, IntArray, System
from pidelta.units import ANGSTROM


@contextmanager
def _section(name: str) -> Iterator[None]:
    """Say which key of the configuration a setting that a lower room refuses came from."""
    try:
        yield
    except SettingError as error:
        raise ConfigError(f"{name}.{error.quantity}: {error.problem}") from None


@dataclass(frozen=True)
class QMRegion:
    """The QM region of a configuration and what surrounds it.

    `force_field_charges` (n,) are those of the QM atoms in e, zero without a force field.
    """

    partition: Partition
    embedding: Embedding
    force_field_charges: FloatArray
    charge: int
    multiplicity: int

    @property
    def numbers(self) -> IntArray:
        """(n,) atomic numbers of the QM atoms."""
        return self.partition.qm_numbers

    def cut(self, positions: FloatArray, cells: FloatArray | None) -> CutRegion:
        """QM atoms and scaled point charges for positions (B, N, 3) with lattice rows (B, 3, 3)."""
        return self.embedding.region(positions, cells)


@dataclass(frozen=True)
class Inputs:
    """What the files of a configuration hold."""

    config: Config
    system: System
    topology: Topology | None


class Setup:
    """What a configuration describes; each part is made when it is first asked for, and once.

    Args:
        config: the configuration.

    Whatever is asked for raises SetupError where files, charges, cutoffs or models are missing, malformed or
    do not fit together.
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    @cached_property
    def _inputs(self) -> Inputs:
        config = self.config
        if config.mm is None:
            # DFTB knows no lattice here: a molecule in a box is a molecule in vacuum.
            system = replace(structure.read_structure(config.structure), cell=None)
            return Inputs(config, system, None)
        read = _box_of_water if config.mm.topology is None else _from_topology
        inputs = read(config, config.mm)
        _refuse_lost_cell(inputs, config.mm)
        return inputs

    @property
    def system(self) -> System:
        """Atoms, positions and cell; elements and names come from the topology where there is one."""
        return self._inputs.system

    @property
    def topology(self) -> Topology | None:
        """The force field of the whole system, the QM region included, or None without a section mm."""
        return self._inputs.topology

    @cached_property
    def qm_indices(self) -> IntArray:
        """(n,) the QM atoms, sorted; none without a section qm."""
        if self.config.qm is None:
            return np.zeros(0, dtype=np.int64)
        return select(self.config.qm.atoms, self.system)

    @cached_property
    def qm_region(self) -> QMRegion:
        """The QM region and the rule for its surroundings.

        Raises:
            ConfigError: the configuration has no section qm.
        """
        return _region(self._inputs, self._qm, self.qm_indices)

    @property
    def surroundings(self) -> Embedding:
        """The rule for the point charges around the QM region."""
        return self.qm_region.embedding

    @cached_property
    def engine(self) -> QMEngine:
        """The low-level QM method.

        Raises:
            ConfigError: the configuration has no section qm.
        """
        return _engine(self._qm, self.qm_region)

    @cached_property
    def correction(self) -> Correction:
        """The delta model, checked against the QM region and its method.

        Raises:
            ConfigError: the configuration has no section delta.
        """
        if self.config.delta is None:
            raise ConfigError(f"{self.config.path}: missing key delta")
        return _committee(self.config.delta, self.qm_region, self.engine.identity)

    @cached_property
    def classical(self) -> ClassicalEvaluator:
        """The force field of all that the QM method does not describe, by the engine of the configuration.

        Raises:
            ConfigError: the configuration has no section mm.
        """
        if self.config.mm is None or self.topology is None:
            raise ConfigError(f"{self.config.path}: missing key mm")
        topology = self.topology
        if self.config.qm is not None:
            topology = topology.without_internal(self.qm_region.partition.qm_indices)
        return _classical(self.config.mm, topology, self.system.cell)

    def evaluator(self, terms: frozenset[str] | None = None) -> QMMMEvaluator:
        """The sum of terms: all that the configuration has, or a subset of ``mm``, ``low`` and ``delta``.

        Raises:
            ConfigError: the configuration has no section for one of the terms.
        """
        config = self.config
        chosen = _choose_terms(config, terms)
        evaluator = QMMMEvaluator(numbers=self.system.numbers, periodic=self.system.cell is not None)
        if config.qm is not None:
            evaluator = replace(
                evaluator,
                partition=self.qm_region.partition,
                embedding=self.qm_region.embedding,
                properties=tuple(config.qm.properties),
            )
        return replace(
            evaluator,
            engine=self.engine if "low" in chosen else None,
            delta=self.correction if "delta" in chosen else None,
            classical=self.classical if "mm" in chosen else None,
        )

    @property
    def _qm(self) -> QMConfig:
        if self.config.qm is None:
            raise ConfigError(f"{self.config.path}: missing key qm")
        return self.config.qm


def _refuse_lost_cell(inputs: Inputs, mm: MMConfig) -> None:
    """Without a cell all pairs interact by bare Coulomb: right for a cluster, wrong for a box of solvent."""
    if inputs.system.cell is not None:
        return
    file = inputs.config.structure
    given = [key for key in ("electrostatics", "cutoff", "ewald_tolerance") if key in mm.model_fields_set]
    if given:
        raise SetupError(
            f"{file}: mm.{given[0]}: expected a cell, found none; leave the key out for a cluster in vacuum"
        )
    if inputs.topology is not None and inputs.topology.periodic:
        raise SetupError(f"{file}: expected a cell, as {inputs.topology.source} has a box, found none")


def _from_topology(config: Config, mm: MMConfig) -> Inputs:
    """A topology and a structure that fits it."""
    assert mm.topology is not None
    topology = read_topology(mm.topology, mm.parameters, rigid_water=mm.water is not None)
    if mm.water is not None:
        topology = with_water(topology, mm.water)
    positions, cell = structure.read_coordinates(config.structure, topology.numbers, topology.massless_rows)
    system = System(
        numbers=topology.numbers,
        positions=positions,
        cell=cell,
        names=topology.names,
        residue_names=topology.residue_names,
        residue_indices=topology.residue_indices,
    )
    return Inputs(config, system, topology)


def _box_of_water(config: Config, mm: MMConfig) -> Inputs:
    """A structure of water alone, its molecules the residues."""
    assert mm.water is not None
    system = structure.without_massless(structure.read_structure(config.structure))
    topology = build_water(system, mm.water)
    return Inputs(config, replace(system, residue_indices=topology.residue_indices), topology)


def _classical(mm: MMConfig, topology: Topology, cell: FloatArray | None) -> ClassicalEvaluator:
    """The force field by the engine that the configuration names."""
    settings: dict[str, Any] = {
        "cutoff": mm.cutoff if cell is not None else None,
        "cell": cell,
        "electrostatics": mm.electrostatics,
        "ewald_tolerance": mm.ewald_tolerance,
        "reaction_field_dielectric": mm.reaction_field_dielectric,
        "lj_modifier": mm.lj_modifier,
        "dispersion_correction": mm.dispersion_correction,
        "threads": mm.threads,
    }
    if mm.engine == "openmm":
        return OpenMMEvaluator(
            topology, **settings, platform=mm.platform, precision=mm.precision, virial=mm.virial
        )
    return MMEvaluator(topology, **settings)


def _choose_terms(config: Config, terms: frozenset[str] | None) -> frozenset[str]:
    if terms is None:
        return frozenset(config.terms)
    missing = sorted(terms - set(config.terms))
    if missing or not terms:
        found = ", ".join(missing) or "none"
        known = ", ".join(config.terms)
        raise ConfigError(f"{config.path}: expected terms among {known}, found {found}")
    return terms


def _region(inputs: Inputs, qm: QMConfig, indices: IntArray) -> QMRegion:
    system, config = inputs.system, inputs.config
    embedding: Embedding
    charges = np.zeros(len(indices))
    if inputs.topology is not None:
        if len(inputs.topology.sites):
            raise SetupError(
                f"{config.path}: virtual sites cannot polarise a QM region yet; expected a model of water "
                "without them, such as mm.water: q-spc-fw"
            )
        charges = inputs.topology.charges[indices]
        check_charge(indices, inputs.topology.charges, qm.charge)
        partition = make_partition(system, indices, inputs.topology.charges)
        embedding = CutoffEmbedding(partition, config.embedding.cutoff, config.embedding.switch, system.cell)
    else:
        if len(indices) != len(system):
            raise ConfigError(
                f"{config.path}: qm.atoms: without a section mm expected all {len(system)} atoms, "
                f"found {len(indices)}"
            )
        partition = make_partition(system, indices, np.zeros(len(system)))
        embedding = FixedCharges(partition.qm_numbers, *_read_point_charges(config.point_charges))
    return QMRegion(partition, embedding, charges, qm.charge, qm.multiplicity)


def _read_point_charges(path: Path | None) -> tuple[FloatArray, FloatArray]:
    """Positions (m, 3) in bohr and charges (m,) in e, from columns x y z (angstrom) and q (e)."""
    if path is None:
        return np.zeros((0, 3)), np.zeros(0)
    if not path.is_file():
        raise StructureError(f"{path}: no such file of point charges")
    try:
        table = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise StructureError(f"{path}: expected columns x y z q ({error})") from None
    if table.shape[1] != 4 or not np.isfinite(table).all():
        raise StructureError(f"{path}: expected four finite columns x y z q, found {table.shape[1]}")
    return table[:, :3] * ANGSTROM, table[:, 3].copy()


def _engine(qm: QMConfig, region: QMRegion) -> QMEngine:
    if qm.ase is not None:
        return ASEEngine(
            region.numbers,
            qm.ase.calculator,
            qm.ase.options,
            charges=region.force_field_charges,
            charge=qm.charge,
            multiplicity=qm.multiplicity,
        )
    engine = _dftb_engine(qm, region.numbers)
    settings = qm.dftb.dispersion
    if settings.method == "none":
        return engine
    damping = _damping(qm.dftb, settings.method)
    return DispersionCorrected(engine, Dispersion(region.numbers, settings.method, damping, qm.charge))


def _damping(dftb: DFTBConfig, method: Method) -> Damping:
    """Parameters of the dispersion: as configured, or those published for the Slater-Koster set."""
    name = dftb.dispersion.damping
    if isinstance(name, DampingConfig):
        return Damping(**{"s9": DEFAULT_S9[method], **name.model_dump(exclude_none=True)})
    if name is None and dftb.parameters == "builtin":
        functional = _builtin_set(dftb.order).description.dispersion
        if method == "d3bj" and functional is not None:
            return Damping(**functional.model_dump())
        name = "b3lyp"  # of the labels behind the repulsives
    if name is None and isinstance(dftb.hubbard_derivatives, str):
        name = dftb.hubbard_derivatives
    published = PUBLISHED_DAMPING[method]
    if name is None or name not in published:
        raise ConfigError(
            f"qm.dftb.dispersion.damping: expected s8, a1 and a2, or one of {', '.join(published)} as "
            f"published for {TITLES[method]}, found {name or 'none'}"
        )
    return published[name]


def _dftb_engine(qm: QMConfig, numbers: IntArray) -> QMEngine:
    dftb = qm.dftb
    elements = sorted({chemical_symbols[number] for number in numbers})
    derivatives, damping_exponent = _published_derivatives(dftb)
    spin_constants: SpinConstants | None = dftb.spin_constants
    files: Path | SetFiles
    if dftb.parameters == "builtin":
        files = _builtin_set(dftb.order)
        parameters = files.parameters(elements)
        derivatives = derivatives or files.description.hubbard_derivatives
        damping_exponent = damping_exponent or files.description.damping_exponent
        spin_constants = spin_constants or files.description.spin_constants
    else:
        files = dftb.parameters
        parameters = load_parameters(files, elements)
    settings: dict[str, Any] = {
        "order": dftb.order,
        "hubbard_derivatives": derivatives,
        "damping_exponent": damping_exponent,
        "shell_resolved": dftb.shell_resolved,
        "charge": qm.charge,
        "multiplicity": qm.multiplicity,
        "spin_polarised": dftb.spin_polarised,
        "spin_constants": spin_constants,
        "electronic_temperature": dftb.electronic_temperature,
        "tolerance": dftb.scc.tolerance,
        "max_iterations": dftb.scc.max_iterations,
    }
    if qm.engine == "dftb+":
        own = qm.dftbplus or DFTBPlusConfig()
        return DFTBPlusEngine(
            numbers, parameters, files, DFTBSettings(**settings), user_input=own.input, library=own.library
        )
    return DFTBEngine(numbers, parameters, **settings, start=dftb.scc.start, device=dftb.device)


def _published_derivatives(dftb: DFTBConfig) -> tuple[dict[str, float] | None, float | None]:
    """Hubbard derivatives and damping exponent as configured, the name of a published set resolved."""
    name = dftb.hubbard_derivatives
    if not isinstance(name, str):
        return name, dftb.damping_exponent
    if name not in PUBLISHED_HUBBARD_DERIVATIVES:
        known = ", ".join(PUBLISHED_HUBBARD_DERIVATIVES)
        raise ConfigError(f"qm.dftb.hubbard_derivatives: expected values or {known}, found {name!r}")
    return PUBLISHED_HUBBARD_DERIVATIVES[name], dftb.damping_exponent or PUBLISHED_DAMPING_EXPONENTS[name]


def _builtin_set(order: int) -> SetFiles:
    orders = builtin_set()
    if not orders:
        raise ConfigError(
            "qm.dftb.parameters: expected a folder of .skf files; the built-in set is not in this version"
        )
    if order not in orders:
        known = " or ".join(map(str, orders))
        raise ConfigError(f"qm.dftb.order: expected {known} with the built-in parameters, found {order}")
    return orders[order]


def _committee(delta: DeltaConfig, region: QMRegion, low_level: str) -> Correction:
    from pidelta.delta.committee import Committee  # with PyTorch, which takes its time
    from pidelta.delta.model import check_fits, load_model

    models = []
    for path in delta.models:
        model = load_model(path)
        try:
            check_fits(
                model,
                region.numbers,
                low_level,
                region.embedding.settings,
                region.charge,
                region.multiplicity,
                region.partition.numbers[region.partition.group_atoms],
            )
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None
        models.append(model)
    return Committee(models)
