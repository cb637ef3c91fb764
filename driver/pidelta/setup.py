"""The only place that turns a configuration into objects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from pidelta.config import (
    Config,
    DampingConfig,
    DeltaConfig,
    DispersionConfig,
    MMConfig,
    QMConfig,
    QMWithDFTB,
    QMWithDFTBPlus,
)
from pidelta.core import structure
from pidelta.core.names import NameDifference
from pidelta.core.particles import Particles
from pidelta.core.pme import reciprocal_sum
from pidelta.core.selection import select
from pidelta.delta.base import Correction, check_fits
from pidelta.delta.committee import Committee
from pidelta.delta.loading import load_correction
from pidelta.errors import ConfigError, ModelError, SettingError, SetupError, StructureError
from pidelta.mm.checks import refuse_united_atoms
from pidelta.mm.evaluator import MMEvaluator, PairSettings
from pidelta.mm.openmm import OpenMMEvaluator
from pidelta.mm.readers import read_topology
from pidelta.mm.topology import Topology
from pidelta.mm.water import build_water, with_water
from pidelta.qm.ase import ASEEngine
from pidelta.qm.base import QMEngine, reported_properties
from pidelta.qm.dftb.method import DFTBMethod, DispersionSettings, MethodInputs
from pidelta.qm.dftb.settings import DFTBSettings, SCCSettings
from pidelta.qm.dispersion import DEFAULT_S9, Damping
from pidelta.qmmm.border import border_warnings
from pidelta.qmmm.coupling import Coupling, CutoffCoupling
from pidelta.qmmm.energy import ClassicalEvaluator, QMMMEvaluator
from pidelta.qmmm.groups import make_groups
from pidelta.qmmm.partition import Partition, charge_remainder, spread_remainder
from pidelta.qmmm.pme_coupling import PMECoupling
from pidelta.qmmm.surroundings import CutoffSurroundings, CutRegion, FixedCharges, Surroundings
from pidelta.state import FloatArray, IntArray, System
from pidelta.units import ANGSTROM
from pidelta.workflow.yardstick import Yardstick


@contextmanager
def _section(name: str) -> Iterator[None]:
    """Say which key of the configuration a setting that a lower room refuses came from."""
    try:
        yield
    except SettingError as error:
        raise ConfigError(f"{name}.{error.quantity}: {error.problem}") from None


@contextmanager
def _method_section(name: str) -> Iterator[None]:
    """As `_section`, for a method of the QM region, whose charge and multiplicity stand above its section."""
    try:
        yield
    except SettingError as error:
        section = "qm" if error.quantity in ("charge", "multiplicity") else f"qm.{name}"
        raise ConfigError(f"{section}.{error.quantity}: {error.problem}") from None


@dataclass(frozen=True)
class QMRegion:
    """The QM region of a configuration and what surrounds it.

    Attributes:
        partition: which particles are QM, and the charge groups of the others.
        particles: the map from atoms to particles.
        surroundings: the rule for the point charges that the region sees.
        force_field: what is left to the force field, or None without one.
        force_field_charges: (n,) of the QM atoms in e, zero without a force field.
        remainder: in e, what these have more than `charge` and nothing else takes up.
        charge, multiplicity: of the region.
    """

    partition: Partition
    particles: Particles
    surroundings: Surroundings
    force_field: Topology | None
    force_field_charges: FloatArray
    remainder: float
    charge: int
    multiplicity: int

    @property
    def numbers(self) -> IntArray:
        """(n,) atomic numbers of the QM atoms."""
        return self.partition.qm_numbers

    def cut(self, positions: FloatArray, cells: FloatArray | None) -> CutRegion:
        """QM atoms and scaled point charges for positions (B, N, 3) with lattice rows (B, 3, 3)."""
        return self.surroundings.cut(self.particles.place(positions, cells), cells)


@dataclass(frozen=True)
class Inputs:
    """What the files of a configuration hold."""

    config: Config
    system: System
    topology: Topology | None
    name_differences: tuple[NameDifference, ...] = ()


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
        with _section("mm"):
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

    @property
    def name_differences(self) -> tuple[NameDifference, ...]:
        """Names in the structure file that are others in the topology."""
        return self._inputs.name_differences

    @cached_property
    def qm_indices(self) -> IntArray:
        """(n,) the QM atoms, sorted; none without a section qm."""
        if self.config.qm is None:
            return np.zeros(0, dtype=np.int64)
        bonds, charges = None, None
        if self.topology is not None:
            bonds, charges = self.topology.bonded_pairs, self.topology.charges[: len(self.system)]
        with _section("qm"):
            return select(self.config.qm.atoms, self.system, bonds, charges)

    @cached_property
    def yardstick(self) -> Yardstick:
        """The bonds of the structure, which positions from elsewhere are measured by."""
        bonds = None if self.topology is None else self.topology.bonded_pairs
        return Yardstick.of(self.config.structure, self.system, bonds, self.qm_indices)

    @cached_property
    def qm_region(self) -> QMRegion:
        """The QM region and the rule for its surroundings.

        Raises:
            ConfigError: the configuration has no section qm.
        """
        return _region(self._inputs, self._qm, self.qm_indices)

    @property
    def surroundings(self) -> Surroundings:
        """The rule for the point charges around the QM region."""
        return self.qm_region.surroundings

    @cached_property
    def coupling(self) -> Coupling:
        """The potential that the low-level method feels."""
        mm, cell = self.config.mm, self.system.cell
        if self.config.embedding.scheme == "cutoff" or mm is None:
            return CutoffCoupling(self.surroundings)
        if cell is None:
            raise ConfigError(f"{self.config.path}: embedding.scheme: expected a cell with pme, found none")
        with _section("mm"):
            reciprocal = reciprocal_sum(mm.electrostatics, mm.cutoff, mm.ewald_tolerance, cell)
        return PMECoupling(self.qm_region.partition, reciprocal, mm.cutoff)

    @cached_property
    def warnings(self) -> list[str]:
        """What a user should know before this set-up runs, a line each."""
        if self.config.qm is None:
            return []
        region, system = self.qm_region, self.system
        found = []
        if region.remainder:
            found.append(
                f"the force-field charges of the QM atoms sum to {region.charge + region.remainder:+.4f} e, "
                f"the QM region has {region.charge:+d} e, and the other atoms keep theirs: "
                f"{region.remainder:+.4f} e are dropped"
            )
        if self.topology is not None and self.config.embedding.scheme == "cutoff":
            qm = region.cut(
                system.positions[None], None if system.cell is None else system.cell[None]
            ).positions
            found += border_warnings(region.surroundings, qm[0], region.charge, self.topology.label)
        return found

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

    @property
    def spread_threshold(self) -> float:
        """Standard deviation of the committee, in hartree, above which users are warned.

        Raises:
            ConfigError: the configuration has no section delta.
        """
        delta = self.config.delta
        if delta is not None and delta.warn_above is not None:
            return delta.warn_above
        return self.correction.uncertainty_threshold

    @cached_property
    def classical(self) -> ClassicalEvaluator:
        """The force field of all that the QM method does not describe, by the engine of the configuration.

        Raises:
            ConfigError: the configuration has no section mm.
        """
        if self.config.mm is None or self.topology is None:
            raise ConfigError(f"{self.config.path}: missing key mm")
        left = self.topology if self.config.qm is None else self.qm_region.force_field
        assert left is not None
        with _section("mm"):
            return _classical(self.config.mm, left, self.system.cell)

    def evaluator(self, terms: frozenset[str] | None = None) -> QMMMEvaluator:
        """The sum of terms: all that the configuration has, or a subset of ``mm``, ``low`` and ``delta``.

        Raises:
            ConfigError: the configuration has no section for one of the terms.
        """
        config = self.config
        chosen = _choose_terms(config, terms)
        periodic = self.system.cell is not None
        if config.qm is None:
            assert self.topology is not None
            return QMMMEvaluator(
                self.system.numbers, periodic, self.topology.particles, classical=self.classical
            )
        properties: tuple[str, ...] = ()
        if "low" in chosen:
            with _section("qm"):
                properties = reported_properties(self.engine, config.qm.properties)
        return QMMMEvaluator(
            self.system.numbers,
            periodic,
            self.qm_region.particles,
            partition=self.qm_region.partition,
            surroundings=self.surroundings,
            coupling=self.coupling,
            engine=self.engine if "low" in chosen else None,
            delta=self.correction if "delta" in chosen else None,
            classical=self.classical if "mm" in chosen else None,
            properties=properties,
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
    found = structure.read_coordinates(config.structure, topology)
    if found.labels is not None:  # the numbers that users see where they look up atoms
        topology = replace(
            topology, residue_numbers=found.labels.residue_numbers, segments=found.labels.segments
        )
    system = System(
        numbers=topology.numbers,
        positions=found.positions,
        cell=found.cell,
        names=topology.names,
        residue_names=topology.residue_names,
        residue_indices=topology.residue_indices,
        residue_numbers=topology.residue_numbers,
        segments=topology.segments,
    )
    return Inputs(config, system, topology, found.name_differences)


def _box_of_water(config: Config, mm: MMConfig) -> Inputs:
    """A structure of water alone, its molecules the residues."""
    assert mm.water is not None
    system = structure.without_massless(structure.read_structure(config.structure))
    topology = build_water(system, mm.water)
    system = replace(
        system, residue_indices=topology.residue_indices, residue_numbers=topology.residue_numbers
    )
    return Inputs(config, system, topology)


def _classical(mm: MMConfig, topology: Topology, cell: FloatArray | None) -> ClassicalEvaluator:
    """The force field by the engine that the configuration names."""
    settings: PairSettings = {
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
    if inputs.topology is not None:
        return _region_in_force_field(inputs, inputs.topology, qm, indices)
    system, config = inputs.system, inputs.config
    if len(indices) != len(system):
        raise ConfigError(
            f"{config.path}: qm.atoms: without a section mm expected all {len(system)} atoms, "
            f"found {len(indices)}"
        )
    fixed, charges = _read_point_charges(config.point_charges)
    partition = Partition(
        numbers=np.concatenate([system.numbers, np.zeros(len(charges), dtype=np.int64)]),
        qm_indices=indices,
        charges=np.concatenate([np.zeros(len(system)), charges]),
    )
    return QMRegion(
        partition,
        Particles(len(system), fixed=fixed),
        FixedCharges(partition),
        force_field=None,
        force_field_charges=np.zeros(len(indices)),
        remainder=0.0,
        charge=qm.charge,
        multiplicity=qm.multiplicity,
    )


def _region_in_force_field(inputs: Inputs, topology: Topology, qm: QMConfig, indices: IntArray) -> QMRegion:
    system, embedding = inputs.system, inputs.config.embedding
    qm_particles = topology.with_sites(indices)
    with _section("qm"):
        if qm.engine == "ase" and topology.charges[qm_particles[len(indices) :]].any():
            raise SettingError(
                "engine",
                "expected dftb or dftb+ for QM atoms with a virtual site, whose charge mechanical embedding "
                f"would lose, found ase with {topology.label(int(qm_particles[len(indices)]))}",
            )
        refuse_united_atoms(topology, indices)
        spread = None
        if qm.charge_remainder is not None:
            spread = _selected("qm.charge_remainder", qm.charge_remainder, system)
        remainder = charge_remainder(topology.charges[qm_particles], qm.charge, spread=spread is not None)
        if spread is not None:
            charges = spread_remainder(topology.charges, qm_particles, remainder, spread)
            topology, remainder = replace(topology, charges=charges), 0.0
    left = topology.without_internal(indices)
    particles, cells = topology.particles, None if system.cell is None else system.cell[None]
    with _section("embedding"):
        groups = make_groups(
            topology,
            np.setdiff1d(np.arange(topology.n_particles), qm_particles),
            particles.place(system.positions[None], cells)[0],
            system.cell,
            unit=embedding.groups if isinstance(embedding.groups, str) else "residue",
            listed=[
                _selected("embedding.groups", group, system)
                for group in ([] if isinstance(embedding.groups, str) else embedding.groups)
            ],
        )
        numbers = np.concatenate([topology.numbers, np.zeros(len(topology.sites), dtype=np.int64)])
        partition = Partition(numbers, indices, left.charges, groups)
        surroundings = CutoffSurroundings(partition, embedding.cutoff, embedding.switch, system.cell)
    return QMRegion(
        partition,
        particles,
        surroundings,
        force_field=left,
        force_field_charges=topology.charges[indices],
        remainder=remainder,
        charge=qm.charge,
        multiplicity=qm.multiplicity,
    )


def _selected(key: str, selection: str | list[int], system: System) -> IntArray:
    try:
        return select(selection, system)
    except SettingError as error:
        raise ConfigError(f"{key}: {error.problem}") from None


def _read_point_charges(path: Path | None) -> tuple[FloatArray, FloatArray]:
    """Positions (m, 3) in bohr and charges (m,) in e, from columns x y z (angstrom) and q (e)."""
    if path is None:
        return np.zeros((0, 3)), np.zeros(0)
    if not path.is_file():
        raise StructureError(f"{path}: no such file of point charges")
    try:
        table = np.loadtxt(path, ndmin=2, encoding="utf-8")
    except ValueError as error:
        raise StructureError(f"{path}: expected columns x y z q ({error})") from None
    if table.shape[1] != 4 or not np.isfinite(table).all():
        raise StructureError(f"{path}: expected four finite columns x y z q, found {table.shape[1]}")
    return table[:, :3] * ANGSTROM, table[:, 3].copy()


def _engine(qm: QMConfig, region: QMRegion) -> QMEngine:
    if qm.engine == "ase":
        with _method_section("ase"):
            return ASEEngine(
                region.numbers,
                qm.ase.calculator,
                qm.ase.options,
                charges=region.force_field_charges,
                charge=qm.charge,
                multiplicity=qm.multiplicity,
            )
    with _method_section("dftb"):
        method = _dftb_method(qm)
        inputs = method.inputs(region.numbers)
        return method.with_dispersion(_dftb_engine(qm, region.numbers, inputs))


def _dftb_engine(qm: QMWithDFTB | QMWithDFTBPlus, numbers: IntArray, inputs: MethodInputs) -> QMEngine:
    if qm.engine == "dftb+":
        from pidelta.qm.dftbplus.engine import DFTBPlusEngine

        return DFTBPlusEngine(
            numbers,
            inputs.parameters,
            inputs.files,
            inputs.settings,
            user_input=qm.dftbplus.input,
            library=qm.dftbplus.library,
        )
    from pidelta.qm.dftb.engine import DFTBEngine  # with PyTorch, which takes its time

    return DFTBEngine(numbers, inputs.parameters, inputs.settings)


def _dftb_method(qm: QMWithDFTB | QMWithDFTBPlus) -> DFTBMethod:
    dftb, derivatives = qm.dftb, qm.dftb.hubbard_derivatives
    settings = DFTBSettings(
        order=dftb.order,
        hubbard_derivatives=None if isinstance(derivatives, str) else derivatives,
        damping_exponent=dftb.damping_exponent,
        shell_resolved=dftb.shell_resolved,
        charge=qm.charge,
        multiplicity=qm.multiplicity,
        spin_polarised=dftb.spin_polarised,
        spin_constants=dftb.spin_constants,
        electronic_temperature=dftb.electronic_temperature,
        scc=SCCSettings(dftb.scc.tolerance, dftb.scc.max_iterations, dftb.scc.start),
        device=dftb.device,
    )
    return DFTBMethod(
        settings,
        folder=None if dftb.parameters == "builtin" else dftb.parameters,
        published=derivatives if isinstance(derivatives, str) else None,
        dispersion=_dispersion(dftb.dispersion),
    )


def _dispersion(dispersion: DispersionConfig) -> DispersionSettings | None:
    method, damping = dispersion.method, dispersion.damping
    if method == "none":
        return None
    if not isinstance(damping, DampingConfig):
        return DispersionSettings(method, damping)
    return DispersionSettings(
        method, Damping(**{"s9": DEFAULT_S9[method], **damping.model_dump(exclude_none=True)})
    )


def _committee(delta: DeltaConfig, region: QMRegion, low_level: str) -> Correction:
    models = []
    for path in delta.models:
        model = load_correction(path)
        try:
            check_fits(
                model.provenance,
                low_level=low_level,
                embedding=region.surroundings.settings,
                numbers=region.numbers,
                site_numbers=region.partition.mm_numbers,
                charge=region.charge,
                multiplicity=region.multiplicity,
            )
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None
        models.append(model)
    return Committee(models)
