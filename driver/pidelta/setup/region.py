"""The QM region that a configuration describes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pidelta.config import QMConfig
from pidelta.core.particles import Particles
from pidelta.core.selection import select
from pidelta.errors import ConfigError, SettingError
from pidelta.mm.checks import refuse_united_atoms
from pidelta.mm.topology import Topology
from pidelta.qmmm.groups import make_groups
from pidelta.qmmm.partition import Partition, charge_remainder, spread_remainder
from pidelta.qmmm.region import QMRegion
from pidelta.qmmm.surroundings import CutoffSurroundings, FixedCharges
from pidelta.setup.files import Inputs, read_point_charges
from pidelta.setup.sections import refused, section
from pidelta.state import IntArray


def make_region(inputs: Inputs, qm: QMConfig, indices: IntArray) -> QMRegion:
    """The region of the QM atoms `indices` (n,).

    Raises:
        SetupError: charges, groups or cutoffs do not fit the region or the cell.
    """
    if inputs.topology is not None:
        return _region_in_force_field(inputs, inputs.topology, qm, indices)
    system, config = inputs.system, inputs.config
    if len(indices) != len(system):
        raise ConfigError(
            f"{config.path}: qm.atoms: without a section mm expected all {len(system)} atoms, "
            f"found {len(indices)}"
        )
    fixed, charges = read_point_charges(config.point_charges)
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
    with section(inputs.config, "qm"):
        if qm.engine == "ase" and topology.charges[qm_particles[len(indices) :]].any():
            raise SettingError(
                "engine",
                "expected dftb or dftb+ for QM atoms with a virtual site, whose charge mechanical embedding "
                f"would lose, found ase with {topology.label(int(qm_particles[len(indices)]))}",
            )
        refuse_united_atoms(topology, indices)
        spread = None
        if qm.charge_remainder is not None:
            spread = _selected(inputs, "qm.charge_remainder", qm.charge_remainder)
        remainder = charge_remainder(topology.charges[qm_particles], qm.charge, spread=spread is not None)
        if spread is not None:
            charges = spread_remainder(topology.charges, qm_particles, remainder, spread)
            topology, remainder = replace(topology, charges=charges), 0.0
    left = topology.without_internal(indices)
    particles, cells = topology.particles, None if system.cell is None else system.cell[None]
    with section(inputs.config, "embedding"):
        groups = make_groups(
            topology,
            np.setdiff1d(np.arange(topology.n_particles), qm_particles),
            particles.place(system.positions[None], cells)[0],
            system.cell,
            unit=embedding.groups if isinstance(embedding.groups, str) else "residue",
            listed=[
                _selected(inputs, "embedding.groups", group)
                for group in ([] if isinstance(embedding.groups, str) else embedding.groups)
            ],
        )
        numbers = np.concatenate([topology.numbers, np.zeros(len(topology.sites), dtype=np.int64)])
        partition = Partition(numbers, indices, left.charges, groups)
        surroundings = CutoffSurroundings(
            partition,
            embedding.cutoff,
            embedding.switch,
            system.cell,
            grouping=embedding.groups if isinstance(embedding.groups, str) else "listed",
        )
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


def _selected(inputs: Inputs, key: str, selection: str | list[int]) -> IntArray:
    system, topology = inputs.system, inputs.topology
    assert topology is not None
    try:
        return select(selection, system, topology.bonded_pairs, topology.charges[: len(system)])
    except SettingError as error:
        raise refused(inputs.config, key, error) from None
