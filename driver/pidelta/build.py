"""The only place that turns a configuration into objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import vesin
from ase.data import chemical_symbols, covalent_radii

from pidelta.config import Config, QMConfig
from pidelta.core import structure
from pidelta.core.cell import minimum_image
from pidelta.core.selection import select
from pidelta.delta.committee import Committee
from pidelta.delta.model import check_fits, load_model
from pidelta.errors import ConfigError, StructureError
from pidelta.mm.evaluator import MMEvaluator
from pidelta.mm.readers import read_topology
from pidelta.mm.topology import Topology
from pidelta.qm.base import QMEngine
from pidelta.qm.dftb.engine import DFTBEngine
from pidelta.qm.dftb.parameters import PUBLISHED_HUBBARD_DERIVATIVES, load_parameters
from pidelta.qmmm.embedding import CutoffEmbedding, Embedding, Environment, FixedCharges
from pidelta.qmmm.energy import TERMS, QMMMEvaluator
from pidelta.qmmm.partition import Partition, make_partition
from pidelta.state import FloatArray, IntArray, System
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM

_BOND_FACTOR = 1.25  # of the sum of covalent radii: what counts as bonded in the structure file
_STRETCH_FACTOR = 1.5  # of the structure's length: what no flexible bond reaches


@dataclass(frozen=True)
class QMRegion:
    """The QM region of a configuration and what surrounds it."""

    partition: Partition
    embedding: Embedding
    charge: int
    multiplicity: int

    @property
    def numbers(self) -> IntArray:
        """(n,) atomic numbers of the QM atoms."""
        return self.partition.qm_numbers

    def environment(self, positions: FloatArray, cells: FloatArray | None) -> Environment:
        """QM atoms and scaled point charges for positions (B, N, 3) with lattice rows (B, 3, 3)."""
        return self.embedding.environment(positions, cells)


@dataclass(frozen=True)
class _Inputs:
    """What the files of a configuration hold."""

    config: Config
    system: System
    topology: Topology | None


def read_system(config: Config) -> System:
    """Atoms, positions and cell; elements and names come from the topology where there is one.

    Raises:
        StructureError, TopologyError: a file is missing or malformed, or their atom counts differ.
    """
    return _read_inputs(config).system


def _read_inputs(config: Config) -> _Inputs:
    if config.mm is None:
        return _Inputs(config, structure.read_structure(config.structure), None)
    topology = read_topology(config.mm.topology)
    positions, cell = structure.read_coordinates(config.structure, len(topology.numbers))
    system = System(
        numbers=topology.numbers,
        positions=positions,
        cell=cell,
        names=topology.names,
        residue_names=topology.residue_names,
        residue_indices=topology.residue_indices,
    )
    return _Inputs(config, system, topology)


def build_evaluator(config: Config, terms: frozenset[str] | None = None) -> QMMMEvaluator:
    """Everything a configuration describes, or only some terms of it.

    Args:
        config: the set-up.
        terms: a subset of ``mm``, ``dftb`` and ``delta``; all that the configuration has by default.

    Raises:
        SetupError: files, charges, cutoffs or models do not fit together.
    """
    inputs = _read_inputs(config)
    chosen = _choose_terms(config, terms)
    cell = inputs.system.cell
    evaluator = QMMMEvaluator(numbers=inputs.system.numbers, periodic=cell is not None)
    if config.qm is not None:
        region = _region(inputs, config.qm)
        # The engine knows the identity that models remember, so it is made for them in any case.
        engine = _engine(config.qm, region.numbers)
        evaluator = replace(
            evaluator,
            partition=region.partition,
            embedding=region.embedding,
            engine=engine if "dftb" in chosen else None,
            delta=_committee(config, region, engine.identity) if "delta" in chosen else None,
        )
    if config.mm is not None and inputs.topology is not None and "mm" in chosen:
        topology = inputs.topology
        if evaluator.partition is not None:
            topology = topology.without_internal(evaluator.partition.qm_indices)
        classical = MMEvaluator(
            topology,
            cutoff=config.mm.cutoff if cell is not None else None,
            cell=cell,
            electrostatics=config.mm.electrostatics,
        )
        evaluator = replace(evaluator, classical=classical)
    return evaluator


def build_region(config: Config) -> QMRegion:
    """The QM region and its embedding.

    Raises:
        ConfigError: the configuration has no section qm.
        SetupError: as `build_evaluator`.
    """
    return _region(_read_inputs(config), _qm(config))


def build_engine(config: Config) -> QMEngine:
    """The low-level QM method.

    Raises:
        ConfigError: the configuration has no section qm.
        SetupError: as `build_evaluator`.
    """
    qm = _qm(config)
    return _engine(qm, build_region(config).numbers)


def _qm(config: Config) -> QMConfig:
    if config.qm is None:
        raise ConfigError(f"{config.path}: missing key qm")
    return config.qm


def _choose_terms(config: Config, terms: frozenset[str] | None) -> frozenset[str]:
    sections = {"mm": config.mm, "dftb": config.qm, "delta": config.delta}
    available = frozenset(term for term in TERMS if sections[term] is not None)
    if terms is None:
        return available
    missing = sorted(terms - available)
    if missing or not terms:
        found = ", ".join(missing) or "none"
        known = ", ".join(term for term in TERMS if term in available)
        raise ConfigError(f"{config.path}: expected terms among {known}, found {found}")
    return terms


def _region(inputs: _Inputs, qm: QMConfig) -> QMRegion:
    system, config = inputs.system, inputs.config
    indices = select(qm.atoms, system)
    embedding: Embedding
    if inputs.topology is not None:
        partition = make_partition(system, indices, inputs.topology.charges, qm.charge)
        embedding = CutoffEmbedding(partition, config.embedding.cutoff, config.embedding.switch, system.cell)
    else:
        if len(indices) != len(system):
            raise ConfigError(
                f"{config.path}: qm.atoms: without a section mm expected all {len(system)} atoms, "
                f"found {len(indices)}"
            )
        partition = make_partition(system, indices, np.full(len(system), qm.charge / len(system)), qm.charge)
        embedding = FixedCharges(*_read_point_charges(config.point_charges))
    return QMRegion(partition, embedding, qm.charge, qm.multiplicity)


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


def _engine(qm: QMConfig, numbers: IntArray) -> QMEngine:
    dftb = qm.dftb
    if dftb.parameters == "builtin":
        raise ConfigError(
            "qm.dftb.parameters: expected a folder of .skf files; the built-in set is not in this version"
        )
    derivatives = dftb.hubbard_derivatives
    if isinstance(derivatives, str):
        if derivatives not in PUBLISHED_HUBBARD_DERIVATIVES:
            known = ", ".join(PUBLISHED_HUBBARD_DERIVATIVES)
            raise ConfigError(
                f"qm.dftb.hubbard_derivatives: expected values or {known}, found {derivatives!r}"
            )
        derivatives = PUBLISHED_HUBBARD_DERIVATIVES[derivatives]
    return DFTBEngine(
        numbers,
        load_parameters(dftb.parameters, sorted({chemical_symbols[number] for number in numbers})),
        order=dftb.order,
        hubbard_derivatives=derivatives,
        damping_exponent=dftb.damping_exponent,
        charge=qm.charge,
        multiplicity=qm.multiplicity,
        electronic_temperature=dftb.electronic_temperature,
        tolerance=dftb.scc.tolerance,
        max_iterations=dftb.scc.max_iterations,
    )


def _committee(config: Config, region: QMRegion, low_level: str) -> Committee:
    assert config.delta is not None
    models = [load_model(path) for path in config.delta.models]
    for model in models:
        check_fits(
            model, region.numbers, low_level, region.embedding.settings, region.charge, region.multiplicity
        )
    return Committee(models)


def check_first_frame(config: Config) -> Callable[[FloatArray, FloatArray | None], None]:
    """A check that positions from i-PI list the atoms in the structure's order.

    i-PI sends no elements, so the bonds of the structure file are looked for: a flexible bond stretches, but
    not to one and a half times its length. Bonds of the QM region may break, so most of them have to be gone.

    Returns:
        check(positions (B, N, 3), cells (B, 3, 3) or None), which raises StructureError.
    """
    inputs = _read_inputs(config)
    system = inputs.system
    pairs, lengths = _bonds(system)
    qm_indices = select(config.qm.atoms, system) if config.qm is not None else np.zeros(0, dtype=np.int64)
    reactive = np.isin(pairs, qm_indices).all(axis=1)

    def check(positions: FloatArray, cells: FloatArray | None) -> None:
        vectors = positions[0, pairs[:, 1]] - positions[0, pairs[:, 0]]
        cell = cells[0] if cells is not None and system.cell is not None else None
        found = np.linalg.norm(minimum_image(vectors, cell), axis=1)
        broken = found > _STRETCH_FACTOR * lengths
        suspicious = broken & ~reactive
        if 2 * np.count_nonzero(broken & reactive) > np.count_nonzero(reactive):
            suspicious = broken
        if suspicious.any():
            worst = int(np.flatnonzero(suspicious)[0])
            i, j = pairs[worst]
            raise StructureError(
                f"{config.structure}: atoms {i} and {j} are bonded, "
                f"{lengths[worst] * BOHR_IN_ANGSTROM:.2f} angstrom, but "
                f"{found[worst] * BOHR_IN_ANGSTROM:.2f} angstrom apart in the first positions from i-PI: "
                "its file must list the atoms in the same order"
            )

    return check


def _bonds(system: System) -> tuple[IntArray, FloatArray]:
    """Bonded pairs (nb, 2) of a structure and their lengths (nb,) in bohr, from covalent radii."""
    radii = covalent_radii[system.numbers] * ANGSTROM * _BOND_FACTOR
    neighbours = vesin.NeighborList(cutoff=2.0 * float(radii.max()), full_list=False)
    periodic = system.cell is not None
    box = system.cell if system.cell is not None else np.zeros((3, 3))
    i, j, d = neighbours.compute(points=system.positions, box=box, periodic=periodic, quantities="ijd")
    hydrogens = (system.numbers[i] == 1) & (system.numbers[j] == 1)
    bonded = (d < radii[i] + radii[j]) & ~hydrogens
    pairs = np.stack([i[bonded], j[bonded]], axis=1).astype(np.int64)
    return pairs, np.asarray(d[bonded], dtype=np.float64)
