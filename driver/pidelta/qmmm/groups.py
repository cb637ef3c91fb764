"""Charge groups: the particles of the surroundings that are switched on and off together.

A group is a residue, as a rule. What is larger than a few angstrom is split along its bonds into neutral
groups where its charges allow that. A group that stays large has several centres, and counts as soon as one
of them is near: no charge near the QM region is left out, and no group is torn into charged pieces.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pidelta.core.cell import minimum_image
from pidelta.errors import SettingError
from pidelta.mm.topology import Topology
from pidelta.state import FloatArray, IntArray
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM

Unit = Literal["residue", "molecule"]

_REACH = 3  # bonds from the middle of a part to its ends, some 4 angstrom
_LARGE = 12  # bonds from end to end of a residue; more of them are split into neutral groups
_NEUTRAL = 1.0e-3  # e: what force fields leave of a neutral group by rounding
_INTEGER = 1.0e-2  # e: what a molecule or ion may be off an integer
_LOOSE_RADIUS = 4.0 * ANGSTROM  # of what no bonds hold together


@dataclass(frozen=True)
class ChargeGroups:
    """G groups with M particles and C centres, all counted group by group.

    Attributes:
        particles: (M,) the particles, so that each comes after the one it is put next to.
        starts: (G + 1,) where each group starts in `particles`.
        neighbours: (M,) places in `particles`: whose nearest image each particle is; its own for the first.
        parts: (M,) the centre, 0 to C - 1, that each particle belongs to.
        part_starts: (G + 1,) where each group starts among the centres.
    """

    particles: IntArray
    starts: IntArray
    neighbours: IntArray
    parts: IntArray
    part_starts: IntArray

    def __post_init__(self) -> None:
        for item in fields(self):
            getattr(self, item.name).setflags(write=False)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def net_charges(self, charges: FloatArray) -> FloatArray:
        """(G,) net charges of the groups from those of all particles (P,), in e."""
        if not len(self):
            return np.zeros(0)
        return np.asarray(np.add.reduceat(charges[self.particles], self.starts[:-1]))

    def radii(self, positions: FloatArray, cell: FloatArray | None) -> FloatArray:
        """(G,) how far the particles of each group are from their centres at most, in bohr.

        Args:
            positions: (P, 3) of all particles in bohr.
            cell: (3, 3) lattice vectors as rows in bohr, or None.
        """
        if not len(self):
            return np.zeros(0)
        distances = np.linalg.norm(self._from_middle(positions, cell, self.parts), axis=1)
        return np.asarray(np.maximum.reduceat(distances, self.starts[:-1]))

    def dipoles(self, positions: FloatArray, cell: FloatArray | None, charges: FloatArray) -> FloatArray:
        """(G, 3) dipole moments of the groups about their middles, in e bohr.

        Args:
            positions: (P, 3) of all particles in bohr.
            cell: (3, 3) lattice vectors as rows in bohr, or None.
            charges: (P,) of all particles in e.
        """
        if not len(self):
            return np.zeros((0, 3))
        group = np.repeat(np.arange(len(self)), np.diff(self.starts))
        moments = charges[self.particles, None] * self._from_middle(positions, cell, group)
        return np.asarray(np.add.reduceat(moments, self.starts[:-1]))

    def _from_middle(self, positions: FloatArray, cell: FloatArray | None, sets: IntArray) -> FloatArray:
        """(M, 3) from the middle of the set (M,) that each particle is in, in groups made whole."""
        whole = positions[self.particles].copy()
        steps = minimum_image(whole - whole[self.neighbours], cell)
        for place, neighbour in enumerate(self.neighbours):
            if neighbour != place:
                whole[place] = whole[neighbour] + steps[place]
        sizes = np.bincount(sets)
        middles = np.stack([np.bincount(sets, whole[:, axis]) / sizes for axis in range(3)], axis=1)
        return np.asarray(whole - middles[sets])


NO_GROUPS = ChargeGroups(*(np.zeros(size, dtype=np.int64) for size in (0, 1, 0, 0, 1)))


@dataclass(frozen=True)
class _Group:
    """One group: particles, the place in them of each one's neighbour, and the part of each, from 0."""

    particles: list[int]
    neighbours: list[int]
    parts: list[int]


def make_groups(
    topology: Topology,
    mm: IntArray,
    positions: FloatArray,
    cell: FloatArray | None,
    *,
    unit: Unit = "residue",
    listed: Sequence[IntArray] = (),
) -> ChargeGroups:
    """The charge groups of the particles around a QM region.

    Args:
        topology: residues, bonds, virtual sites and charges.
        mm: (M,) the particles that are not QM.
        positions: (P, 3) of all particles in bohr, to measure what no bonds hold together.
        cell: (3, 3) lattice vectors as rows in bohr, or None.
        unit: what is a group: a residue, split where it is large, or whatever bonds join.
        listed: atoms that are groups of their own in place of this, with their virtual sites.

    Raises:
        SettingError: the lists overlap or hold QM atoms, or a residue is large, without bonds that hold it
            together, and its pieces have no integer charges.
    """
    matter = _Matter(topology, positions, cell)
    groups: list[_Group] = []
    for atoms in _checked(topology, mm, listed):
        groups += matter.grouped(matter.molecules(atoms))
    taken = [particle for group in groups for particle in group.particles]
    rest = np.setdiff1d(mm, np.array(taken, dtype=np.int64))
    if unit == "molecule":
        for molecule in matter.molecules(rest):
            groups += matter.grouped([molecule])
    else:
        for pieces in matter.residues(rest):
            groups += matter.grouped(pieces, split=True)
    groups.sort(key=lambda group: min(group.particles))
    return _joined(groups)


def _checked(topology: Topology, mm: IntArray, listed: Sequence[IntArray]) -> Iterator[IntArray]:
    """The listed groups with the virtual sites of their atoms."""
    allowed = np.zeros(topology.n_particles, dtype=np.bool_)
    allowed[mm] = True
    for atoms in listed:
        wrong = atoms[~allowed[atoms]]
        if len(wrong):
            raise SettingError(
                "groups", f"expected atoms outside the QM region, each once, found {topology.label(wrong[0])}"
            )
        allowed[atoms] = False
        # by the first parent, as everywhere: others may be in another list, or QM
        sites = len(topology) + np.flatnonzero(np.isin(topology.sites.parents[:, 0], atoms))
        yield np.concatenate([atoms, sites])


def _joined(groups: Sequence[_Group]) -> ChargeGroups:
    if not groups:
        return NO_GROUPS
    starts = np.cumsum([0, *(len(group.particles) for group in groups)])
    part_starts = np.cumsum([0, *(max(group.parts) + 1 for group in groups)])
    sizes = np.diff(starts)

    def column(name: str) -> IntArray:
        return np.array([value for group in groups for value in getattr(group, name)], dtype=np.int64)

    return ChargeGroups(
        column("particles"),
        starts,
        column("neighbours") + np.repeat(starts[:-1], sizes),
        column("parts") + np.repeat(part_starts[:-1], sizes),
        part_starts,
    )


class _Matter:
    """What holds particles together, and the ways to group them."""

    def __init__(self, topology: Topology, positions: FloatArray, cell: FloatArray | None) -> None:
        self._topology, self._positions, self._cell = topology, positions, cell
        parents = topology.sites.parents[:, 0]
        self._residues = np.concatenate([topology.residue_indices, topology.residue_indices[parents]])
        to_sites = np.stack([parents, len(topology) + np.arange(len(parents))], axis=1)
        self._bonds = np.concatenate([topology.bonded_pairs, to_sites])

    def molecules(self, particles: IntArray) -> list[IntArray]:
        """Particles by what bonds join, each sorted."""
        return self._connected(particles, self._bonds)

    def residues(self, particles: IntArray) -> list[list[IntArray]]:
        """Particles by residue, and within it by what bonds join, or a molecule of a residue by itself."""
        within = self._bonds[self._residues[self._bonds[:, 0]] == self._residues[self._bonds[:, 1]]]
        by_residue: dict[int, list[IntArray]] = {}
        for piece in self._connected(particles, within):
            by_residue.setdefault(int(self._residues[piece[0]]), []).append(piece)
        found = []
        for pieces in by_residue.values():
            charges = np.array([self._topology.charges[piece].sum() for piece in pieces])
            whole = np.all(np.abs(charges - np.rint(charges)) < _INTEGER)
            found += [[piece] for piece in pieces] if whole else [pieces]
        return found

    def _connected(self, particles: IntArray, bonds: IntArray) -> list[IntArray]:
        if not len(particles):
            return []
        places = np.full(len(self._residues), -1)
        places[particles] = np.arange(len(particles))
        i, j = places[bonds[(places[bonds] >= 0).all(axis=1)]].T
        graph = coo_matrix((np.ones(len(i)), (i, j)), shape=(len(particles), len(particles)))
        _, labels = connected_components(graph, directed=False)
        order = np.argsort(labels, kind="stable")
        return np.split(particles[order], np.flatnonzero(np.diff(labels[order])) + 1)

    def grouped(self, pieces: list[IntArray], *, split: bool = False) -> list[_Group]:
        """One group of pieces that bonds join, or neutral ones of a large piece if `split` is true."""
        if len(pieces) > 1:
            particles = np.sort(np.concatenate(pieces))
            self._refuse_large(particles)
            return [_small_group(particles)]
        (particles,) = pieces
        if len(particles) <= 2 * _REACH + 1:
            return [_small_group(particles)]
        tree = _Tree(particles.tolist(), self._neighbours)
        if tree.depth <= 2 * _REACH:
            return [_small_group(particles)]
        cuts: set[int] = set()
        if split and tree.depth > _LARGE:
            cuts = tree.neutral_subtrees(self._topology.charges)
        return [tree.group(root, cuts) for root in sorted({0} | cuts)]

    @cached_property
    def _neighbours(self) -> dict[int, list[int]]:
        neighbours: defaultdict[int, list[int]] = defaultdict(list)
        for i, j in self._bonds.tolist():
            neighbours[i].append(j)
            neighbours[j].append(i)
        return neighbours

    def _refuse_large(self, particles: IntArray) -> None:
        x = self._positions[particles]
        x = x[0] + minimum_image(x - x[0], self._cell)
        radius = float(np.linalg.norm(x - x.mean(axis=0), axis=1).max())
        if radius > _LOOSE_RADIUS:
            limit, found = _LOOSE_RADIUS * BOHR_IN_ANGSTROM, radius * BOHR_IN_ANGSTROM
            raise SettingError(
                "groups",
                f"expected bonds that hold a charge group together or at most {limit:.0f} angstrom around "
                f"its centre, found {found:.1f} angstrom in the residue of "
                f"{self._topology.label(int(particles[0]))}; list the groups of its atoms",
            )


def _small_group(particles: IntArray) -> _Group:
    zeros = [0] * len(particles)
    return _Group(particles.tolist(), zeros, zeros)


class _Tree:
    """The bonds of a molecule as a tree, from one of its ends on; nodes are counted from the root.

    Attributes:
        particles: of the nodes, each after its parent.
        depth: bonds from the root to the farthest node.
    """

    def __init__(self, particles: list[int], neighbours: dict[int, list[int]]) -> None:
        inside = set(particles)
        end = _walk(particles[0], neighbours, inside)[0][-1]
        self.particles, self._parents, depths = _walk(end, neighbours, inside)
        self.depth = depths[-1]

    def neutral_subtrees(self, charges: FloatArray) -> set[int]:
        """Roots of the smallest subtrees without a net charge, what is below them already taken off."""
        net = charges[self.particles].copy()
        cuts = set()
        for node in range(len(net) - 1, 0, -1):
            if abs(net[node]) < _NEUTRAL:
                cuts.add(node)
            else:
                net[self._parents[node]] += net[node]
        return cuts

    def group(self, root: int, cuts: set[int]) -> _Group:
        """What hangs on a root, without the subtrees of `cuts`, in parts of a few bonds."""
        places = {root: 0}
        for node in range(root + 1, len(self.particles)):
            if node not in cuts and self._parents[node] in places:
                places[node] = len(places)
        parts: dict[int, int] = {}
        hubs: dict[int, int] = {}
        for node in reversed(places):  # the deepest first: what hangs on its hub is within reach of it
            if node in parts:
                continue
            hub, part = node, len(hubs)
            for _ in range(_REACH):
                hub = hub if hub == root else self._parents[hub]
            hubs[hub] = part
            below = {hub}
            for other in places:
                if other in below or self._parents[other] in below:
                    below.add(other)
                    parts.setdefault(other, part)
        used = {part: place for place, part in enumerate(sorted(set(parts.values())))}
        return _Group(
            [self.particles[node] for node in places],
            [places.get(self._parents[node], 0) for node in places],
            [used[parts[node]] for node in places],
        )


def _walk(
    start: int, neighbours: dict[int, list[int]], inside: set[int]
) -> tuple[list[int], list[int], list[int]]:
    """Breadth first: the particles inside, and the place among them of the parent and the depth of each."""
    particles, parents, depths = [start], [0], [0]
    places = {start: 0}
    for place, particle in enumerate(particles):
        for other in neighbours[particle]:
            if other in inside and other not in places:
                places[other] = len(particles)
                particles.append(other)
                parents.append(place)
                depths.append(depths[place] + 1)
    return particles, parents, depths
