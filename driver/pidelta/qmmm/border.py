"""What happens where the point charges of the surroundings end: facts to report before a simulation runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

from pidelta.qmmm import cutting
from pidelta.qmmm.surroundings import CutoffSurroundings, CutRegion, Surroundings
from pidelta.state import FloatArray, IntArray
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL

CHARGED = 0.01
"""e: net charge from which a group counts as charged."""

_STEP = 1.0  # kcal/mol/angstrom: a wrong force worth saying


@dataclass(frozen=True)
class GroupFacts:
    """Charge groups of a structure.

    Attributes:
        count: how many there are.
        several: how many have several centres, as they are large.
        radius: in bohr, how far a particle is from the centre by which it counts, at most.
        widest: a particle of the group that has it.
        charge: in e, the largest net charge of a group, by magnitude.
        charged: a particle of the group that has it.
    """

    count: int
    several: int
    radius: float
    widest: int
    charge: float
    charged: int


def group_facts(
    surroundings: CutoffSurroundings, particles: FloatArray, cell: FloatArray | None
) -> GroupFacts | None:
    """The charge groups of particles (P, 3) with lattice rows (3, 3), in bohr, or None without any."""
    groups = surroundings.partition.groups
    if not len(groups):
        return None
    radii, charges = groups.radii(particles, cell), groups.net_charges(surroundings.partition.charges)
    widest, charged = int(radii.argmax()), int(np.abs(charges).argmax())
    return GroupFacts(
        count=len(groups),
        several=int(np.count_nonzero(np.diff(groups.part_starts) > 1)),
        radius=float(radii[widest]),
        widest=int(groups.particles[groups.starts[widest]]),
        charge=float(charges[charged]),
        charged=int(groups.particles[groups.starts[charged]]),
    )


@dataclass(frozen=True)
class BorderFacts:
    """What the surroundings do with the charge groups of a structure.

    Attributes:
        whole, partly, outside: how many groups count in full, in part and not at all.
        left_out: in e, the net charge that does not count.
        jump: in hartree/e, the largest change of the potential at a QM atom as a group passes the switch:
            |q|/r + |p|/r^2 of its charge and dipole, r the middle of the switch.
        jumping: a particle of the group that makes it.
    """

    whole: int
    partly: int
    outside: int
    left_out: float
    jump: float
    jumping: int


def border_facts(
    surroundings: CutoffSurroundings, particles: FloatArray, cell: FloatArray | None
) -> BorderFacts | None:
    """What counts of particles (P, 3) with lattice rows (3, 3), in bohr, or None without charge groups."""
    partition = surroundings.partition
    groups, charges = partition.groups, partition.charges
    if not len(groups):
        return None
    weights = surroundings.weights(particles, cell)
    r = surroundings.cutoff - 0.5 * surroundings.switch
    dipoles = np.linalg.norm(groups.dipoles(particles, cell, charges), axis=1)
    jumps = np.abs(groups.net_charges(charges)) / r + dipoles / r**2
    most = int(jumps.argmax())
    return BorderFacts(
        whole=int(np.count_nonzero(weights >= 1.0)),
        partly=int(np.count_nonzero((weights > 0.0) & (weights < 1.0))),
        outside=int(np.count_nonzero(weights == 0.0)),
        left_out=float(charges.sum() - weights @ groups.net_charges(charges)),
        jump=float(jumps[most]),
        jumping=int(groups.particles[groups.starts[most]]),
    )


def force_step(surroundings: CutoffSurroundings, qm: FloatArray, charge: float) -> float:
    """The largest force that switching a unit charge on or off adds to that of Coulomb's law.

    Over the switch the energy Q q w(r) / r of a charged group falls to zero, and Q q w'(r) / r of its slope
    is an artefact. The weights are those of the QM atoms where they are, and Q is in their middle.

    Args:
        surroundings: with their cutoff and switch.
        qm: (n, 3) QM atoms in bohr, the region whole.
        charge: Q of the QM region in e.

    Returns:
        in hartree/bohr for a group of 1 e, the largest over 26 directions.
    """
    largest, middle = 0.0, qm.mean(axis=0)
    reach = float(np.linalg.norm(qm - middle, axis=1).max()) + surroundings.cutoff
    r = np.arange(surroundings.cutoff - surroundings.switch, reach, 0.02)
    places = np.arange(len(r) + 1)
    for direction in product((-1.0, 0.0, 1.0), repeat=3):
        if not any(direction):
            continue
        unit = np.array(direction) / np.linalg.norm(direction)
        weights = cutting.group_weights(
            qm, middle + r[:, None] * unit, places, places[:-1], np.zeros((len(r), 3)),
            surroundings.cutoff - surroundings.switch, surroundings.cutoff,
        )  # fmt: skip
        largest = max(largest, float(np.abs(np.gradient(weights, r) / r).max()))
    return abs(charge) * largest


def border_warnings(
    surroundings: Surroundings, qm: FloatArray, charge: int, label: Callable[[int], str]
) -> list[str]:
    """What a user has to know of charged groups around a charged QM region.

    Args:
        surroundings: of the QM region.
        qm: (n, 3) QM atoms in bohr, the region whole.
        charge: of the QM region in e.
        label: a particle as shown in messages.
    """
    if not isinstance(surroundings, CutoffSurroundings) or not charge:
        return []
    groups = surroundings.partition.groups
    charges = groups.net_charges(surroundings.partition.charges)
    charged: IntArray = np.flatnonzero(np.abs(charges) > CHARGED)
    if not len(charged):
        return []
    most = charged[np.abs(charges[charged]).argmax()]
    step = force_step(surroundings, qm, charge) * abs(float(charges[most]))
    step *= HARTREE_IN_KCAL_PER_MOL / BOHR_IN_ANGSTROM
    if step < _STEP:
        return []
    first = label(int(groups.particles[groups.starts[most]]))
    switch, cutoff = surroundings.switch * BOHR_IN_ANGSTROM, surroundings.cutoff * BOHR_IN_ANGSTROM
    return [
        f"the QM region has a charge of {charge:+d} e and there are charged groups around it "
        f"({len(charged)}, such as that of {first} with {charges[most]:+.2f} e): where one crosses the last "
        f"{switch:.1f} of the {cutoff:.1f} angstrom of the embedding, its force is wrong by up to {step:.1f} "
        "kcal/mol/angstrom; keep such groups inside or outside, or embed by the scheme pme, which has no "
        "such step"
    ]


def beyond_warnings(surroundings: Surroundings, region: CutRegion) -> list[str]:
    """Which charges of a cluster the QM region does not feel, though MM atoms feel all of each other.

    Args:
        surroundings: of the QM region.
        region: one structure cut by them.
    """
    if not isinstance(surroundings, CutoffSurroundings):
        return []
    partition = surroundings.partition
    particles = partition.groups.particles
    beyond = np.setdiff1d(particles, region.site_particles[0])
    charges = partition.charges[beyond]
    count = int(np.count_nonzero(charges))
    if not count:
        return []
    return [
        f"{count} MM charges of this cluster, {charges.sum() + 0.0:+.4f} e in all, are beyond the "
        f"{surroundings.cutoff * BOHR_IN_ANGSTROM:.1f} angstrom of the embedding, and the QM region does not "
        "feel them: MM atoms feel all of each other; a larger embedding.cutoff reaches them"
    ]
