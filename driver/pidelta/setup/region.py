"""The QM region that a configuration describes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pidelta.core.particles import Particles
from pidelta.core.selection import describe_atoms, select
from pidelta.core.virtual_sites import join_sites
from pidelta.errors import ConfigError, GeometryError, SettingError
from pidelta.mm.checks import refuse_united_atoms
from pidelta.mm.topology import Topology
from pidelta.qm_config import QMConfig
from pidelta.qmmm.charges import (
    NOTHING_MOVED,
    MovedCharge,
    charge_remainder,
    spread_over_residues,
    spread_remainder,
)
from pidelta.qmmm.groups import ChargeGroups, make_groups
from pidelta.qmmm.links import Links, LinkSettings, find_links, move_host_charges
from pidelta.qmmm.partition import Partition
from pidelta.qmmm.region import QMRegion
from pidelta.qmmm.surroundings import CutoffSurroundings, FixedCharges
from pidelta.setup.files import Inputs, read_point_charges
from pidelta.setup.sections import refused, section
from pidelta.state import IntArray

_LARGE_REMAINDER = 0.5
"""e: what a border through a residue leaves is less; more is a wrong charge, most likely."""

_SHOWN = 3
"""How many residues are named in a warning."""


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


def _region_in_force_field(inputs: Inputs, given: Topology, qm: QMConfig, indices: IntArray) -> QMRegion:
    system, qm_particles = inputs.system, given.with_sites(indices)
    with section(inputs.config, "qm"):
        if qm.engine == "ase" and given.charges[qm_particles[len(indices) :]].any():
            raise SettingError(
                "engine",
                "expected dftb or dftb+ for QM atoms with a virtual site, whose charge mechanical embedding "
                f"would lose, found ase with {given.label(int(qm_particles[len(indices)]))}",
            )
        refuse_united_atoms(given, indices)
        link_settings = LinkSettings(
            qm.links.position, qm.links.length, qm.links.host_charge, frozenset(qm.links.allow)
        )
        links = find_links(given, indices, link_settings)
        topology, remainder, moved = _with_fitting_charges(inputs, given, qm, qm_particles, links)
        left = topology.without_internal(indices)
        felt, sites, of_sites = move_host_charges(
            topology, left.charges, links, indices, qm.links.host_charge
        )
    first = topology.n_particles
    left = left.with_massless(join_sites([links.sites, sites], [0, 0]))
    region = np.append(indices, first + np.arange(len(links)))
    numbers = np.zeros(left.n_particles, dtype=np.int64)
    numbers[: len(topology)] = topology.numbers
    numbers[links.hosts], numbers[region[len(indices) :]] = 0, 1
    charges = np.concatenate([felt, np.zeros(len(links)), of_sites])
    mm = np.setdiff1d(np.arange(left.n_particles), np.append(qm_particles, region))
    partition = Partition(
        numbers, region, charges, _charge_groups(inputs, replace(left, charges=charges), mm), len(links)
    )
    embedding = inputs.config.embedding
    with section(inputs.config, "embedding"):
        surroundings = CutoffSurroundings(
            partition,
            embedding.cutoff,
            embedding.switch,
            system.cell,
            grouping=embedding.groups if isinstance(embedding.groups, str) else "listed",
            links=str(link_settings) if len(links) else None,
        )
    _refuse_scattered(inputs, surroundings, left.particles, indices)
    return QMRegion(
        partition,
        left.particles,
        surroundings,
        force_field=left,
        force_field_charges=np.append(topology.charges[indices], np.zeros(len(links))),
        remainder=remainder,
        charge=qm.charge,
        multiplicity=qm.multiplicity,
        links=links,
        moved=moved,
    )


def _refuse_scattered(
    inputs: Inputs, surroundings: CutoffSurroundings, particles: Particles, indices: IntArray
) -> None:
    """Refuse a region too large for the cell, as residues that share a number make it."""
    system = inputs.system
    cells = None if system.cell is None else system.cell[None]
    try:
        surroundings.cut(particles.place(system.positions[None], cells), cells)
    except GeometryError as error:
        residues = [line.partition(":")[0] for line in describe_atoms(indices, system)]
        raise ConfigError(
            f"{inputs.config.path}: qm.atoms: {error}; its residues: {', '.join(residues)}"
        ) from None


def _with_fitting_charges(
    inputs: Inputs, topology: Topology, qm: QMConfig, qm_particles: IntArray, links: Links
) -> tuple[Topology, float, MovedCharge]:
    """The topology with the remainder of the QM charges moved to MM atoms, what is not moved, and what is."""
    if qm.charge_remainder is not None:
        spread = _selected(inputs, "qm.charge_remainder", qm.charge_remainder)
        remainder = charge_remainder(topology.charges[qm_particles], qm.charge, largest=np.inf)
        charges = spread_remainder(topology.charges, qm_particles, remainder, spread)
    elif len(links):
        charges, remainder, spread = spread_over_residues(topology, qm_particles, links, qm.charge)
    else:
        return topology, charge_remainder(topology.charges[qm_particles], qm.charge), NOTHING_MOVED
    largest = float(np.abs(charges - topology.charges)[spread].max(initial=0.0))
    return replace(topology, charges=charges), 0.0, MovedCharge(remainder, spread, largest)


def remainder_warnings(inputs: Inputs, region: QMRegion) -> list[str]:
    """Whether the atoms of `qm.charge_remainder` take up more than the border of a region leaves."""
    qm, moved, topology = inputs.config.qm, region.moved, inputs.topology
    if qm is None or qm.charge_remainder is None or topology is None or abs(moved.amount) <= _LARGE_REMAINDER:
        return []
    residues = dict.fromkeys(topology.label(int(atom)).partition(":")[0] for atom in moved.atoms)
    names = ", ".join([*list(residues)[:_SHOWN], *(["..."] if len(residues) > _SHOWN else [])])
    return [
        f"{inputs.config.path}: qm.charge_remainder: {moved.amount:+.4f} e go to {len(moved.atoms)} MM atoms "
        f"of {names}, as the force-field charges of the QM atoms sum to "
        f"{region.charge + moved.amount:+.4f} e: is qm.charge {region.charge:+d} right?"
    ]


def _charge_groups(inputs: Inputs, topology: Topology, mm: IntArray) -> ChargeGroups:
    """The groups of the particles `mm`, by the charges that the QM region feels."""
    system, wanted = inputs.system, inputs.config.embedding.groups
    cells = None if system.cell is None else system.cell[None]
    with section(inputs.config, "embedding"):
        return make_groups(
            topology,
            mm,
            topology.particles.place(system.positions[None], cells)[0],
            system.cell,
            unit=wanted if isinstance(wanted, str) else "residue",
            listed=[
                _selected(inputs, "embedding.groups", group)
                for group in ([] if isinstance(wanted, str) else wanted)
            ],
        )


def _selected(inputs: Inputs, key: str, selection: str | list[int]) -> IntArray:
    system, topology = inputs.system, inputs.topology
    assert topology is not None
    try:
        return select(selection, system, topology.bonded_pairs, topology.charges[: len(system)])
    except SettingError as error:
        raise refused(inputs.config, key, error) from None
