"""Bonds across the border of the QM region: link hydrogens, and the charges of the MM atoms they point at.

A bond between a QM atom and an MM atom, the host, is cut: a link hydrogen on it completes the QM region. It
is a virtual site, so that its forces go to both atoms by the chain rule. The charge of the host, too near to
the QM region for a point charge, is moved in what the QM region feels:

    zero           to all MM atoms of the host's residue, in equal parts
    redistribute   to the middles of the host's bonds to MM atoms, in equal parts: RC of Lin, Truhlar,
                   J. Phys. Chem. A 109, 3991 (2005)
    charge-shift   to the MM atoms bonded to the host, in equal parts, each with a pair of charges of opposite
                   sign before and behind it on the bond, so that the dipole stays as well: Sherwood et al.,
                   J. Mol. Struct. THEOCHEM 632, 1 (2003)

None changes the total charge. MM atoms among themselves keep the charges of the force field. QM atoms feel
all charges but those of hosts, however few the bonds between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from ase.data import chemical_symbols

from pidelta.core.virtual_sites import DISTANCE, LINEAR, VirtualSites
from pidelta.errors import SettingError
from pidelta.mm.topology import Topology
from pidelta.state import BoolArray, FloatArray, IntArray
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM

Position = Literal["scaled", "fixed"]
HostCharge = Literal["zero", "redistribute", "charge-shift"]
Objection = Literal["polar", "multiple", "ring", "shared"]

# Lengths of bonds to hydrogen, of methane, ammonia, water, silane, phosphine and hydrogen sulphide.
_LENGTHS = {6: 1.09, 7: 1.01, 8: 0.96, 14: 1.48, 15: 1.42, 16: 1.34}

_LARGEST_RING = 8
_OFFSET = 0.06  # of the bond, the distance of a pair of charges from the atom between them, as in NAMD


@dataclass(frozen=True)
class LinkSettings:
    """How bonds across the border are treated.

    Attributes:
        position: ``scaled``, at a fixed ratio of the bond, or ``fixed``, at a fixed distance from the QM
            atom.
        length: in bohr, of the bond to the link hydrogen: with ``scaled`` at the force field's length of the
            bond that is cut. By default the length usual for the element of the QM atom.
        host_charge: where the charge of a host goes in what the QM region feels.
        allow: what is cut all the same: bonds between other elements than carbon (``polar``), bonds without
            an atom that has four bonds (``multiple``), a bond of a small ring (``ring``), two bonds of a host
            (``shared``).
    """

    position: Position = "scaled"
    length: float | None = None
    host_charge: HostCharge = "charge-shift"
    allow: frozenset[Objection] = frozenset()

    def __str__(self) -> str:
        """What changes the region, as delta models remember it."""
        length = "" if self.length is None else f" {self.length * BOHR_IN_ANGSTROM:.4f} angstrom"
        return f"{self.position}{length}, {self.host_charge}"


@dataclass(frozen=True)
class Links:
    """The L cut bonds of a QM region.

    Attributes:
        partners: (L,) their QM atoms, rising.
        hosts: (L,) their MM atoms.
        sites: the L link hydrogens.
    """

    partners: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    hosts: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    sites: VirtualSites = field(default_factory=VirtualSites)

    def __len__(self) -> int:
        return len(self.hosts)

    def describe(self, topology: Topology) -> list[str]:
        """Each link in words."""
        lines = []
        for partner, host, kind, (a, b, _) in zip(
            self.partners, self.hosts, self.sites.kinds, self.sites.parameters, strict=True
        ):
            place = f"at {a:.3f} of the bond"
            if kind == DISTANCE:
                place = f"{b * BOHR_IN_ANGSTROM:.3f} angstrom from the QM atom"
            lines.append(f"{topology.label(int(partner))} - {topology.label(int(host))}: hydrogen {place}")
        return lines


def find_links(topology: Topology, qm: IntArray, settings: LinkSettings) -> Links:
    """The bonds that join QM atoms (n,) with others.

    Raises:
        SettingError: the region cuts what it must not.
    """
    inside = np.isin(np.arange(topology.n_particles), topology.with_sites(qm))
    bonds = topology.bonded_pairs
    cut = bonds[inside[bonds].sum(axis=1) == 1]
    cut = np.unique(np.where(inside[cut[:, :1]], cut, cut[:, ::-1]), axis=0)
    graph = _BondGraph(topology)
    graph.refuse_unbonded(inside, cut)
    for partner, host in cut.tolist():
        graph.refuse_last_atoms(partner, host)
        graph.refuse(partner, host, cut[:, 1], settings.allow)
    return Links(cut[:, 0], cut[:, 1], _hydrogens(topology, cut, settings))


def _hydrogens(topology: Topology, cut: IntArray, settings: LinkSettings) -> VirtualSites:
    parameters = np.zeros((len(cut), 3))
    for row, (partner, host) in zip(parameters, cut.tolist(), strict=True):
        length, bond = settings.length, _bond_length(topology, partner, host)
        if length is None:
            length = _LENGTHS.get(int(topology.numbers[partner]), 1.09) * ANGSTROM
        if not length < bond:
            raise SettingError(
                "links.length",
                f"expected a hydrogen nearer than the host, at less than {bond * BOHR_IN_ANGSTROM:.3f} "
                f"angstrom on the bond {topology.label(partner)} - {topology.label(host)}, found "
                f"{length * BOHR_IN_ANGSTROM:.3f} angstrom",
            )
        if settings.position == "fixed":
            row[1] = length
        else:
            row[0] = length / bond
    kind = DISTANCE if settings.position == "fixed" else LINEAR
    return VirtualSites(np.column_stack([cut, cut[:, 1]]).reshape(-1, 3), np.full(len(cut), kind), parameters)


def _bond_length(topology: Topology, i: int, j: int) -> float:
    """The force field's length of a bond in bohr."""
    for table in (topology.bonds, topology.quartic_bonds, topology.morse_bonds):
        found = np.flatnonzero((np.sort(table.atoms, axis=1) == sorted((i, j))).all(axis=1))
        if len(found):
            return float(table.x0[found[0]])
    raise AssertionError("a bond that is cut is in one of the tables")


# Sites on the bonds from a host to its neighbours: where, and what part of a neighbour's share they have.
_PLACES: Mapping[HostCharge, Mapping[float, float]] = {
    "zero": {},
    "redistribute": {0.5: 1.0},
    "charge-shift": {1.0 - _OFFSET: 0.5 / _OFFSET, 1.0 + _OFFSET: -0.5 / _OFFSET},
}


def move_host_charges(
    topology: Topology, charges: FloatArray, links: Links, qm: IntArray, scheme: HostCharge
) -> tuple[FloatArray, VirtualSites, FloatArray]:
    """Take the charges of the hosts away from them.

    Args:
        topology: bonds and residues.
        charges: (P,) in e.
        links: the cut bonds.
        qm: (n,) the QM atoms.
        scheme: where the charges go.

    Returns:
        The charges (P,) without those of hosts, charge sites to add, and the charges (s,) of these.

    Raises:
        SettingError: there is no place for the charge of a host.
    """
    charges = np.array(charges)
    hosts = set(links.hosts.tolist())
    excluded = hosts.union(qm.tolist())
    graph = _BondGraph(topology)
    parents: list[tuple[int, int, int]] = []
    places: list[tuple[float, float, float]] = []
    added: list[float] = []
    for host in sorted(hosts):
        charge, charges[host] = float(charges[host]), 0.0
        near = [atom for atom in graph.neighbours(host) if atom not in excluded]
        if scheme == "zero":
            residue = np.flatnonzero(topology.residue_indices == topology.residue_indices[host]).tolist()
            near = [atom for atom in residue if atom not in excluded]
        if not near:
            raise SettingError(
                "links.host_charge",
                f"expected MM atoms {'in the residue of' if scheme == 'zero' else 'bonded to'} "
                f"{topology.label(host)} to take up its charge of {charge:+.4f} e, found none",
            )
        share = charge / len(near)
        for atom in near:
            if scheme != "redistribute":
                charges[atom] += share
            for place, part in _PLACES[scheme].items():
                parents.append((host, atom, atom))
                places.append((place, 0.0, 0.0))
                added.append(part * share)
    sites = VirtualSites(
        np.array(parents, dtype=np.int64).reshape(-1, 3),
        np.full(len(parents), LINEAR),
        np.array(places, dtype=np.float64).reshape(-1, 3),
    )
    return charges, sites, np.array(added, dtype=np.float64)


class _BondGraph:
    """Which atoms bonds join, and what speaks against a cut through one of them."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._neighbours: dict[int, list[int]] = {}
        for i, j in np.unique(np.sort(topology.bonded_pairs, axis=1), axis=0).tolist():
            self._neighbours.setdefault(i, []).append(j)
            self._neighbours.setdefault(j, []).append(i)

    def neighbours(self, atom: int) -> list[int]:
        """Atoms bonded to an atom."""
        return self._neighbours.get(atom, [])

    def refuse_last_atoms(self, partner: int, host: int) -> None:
        """Refuse a bond to an atom without another one, such as that of a hydrogen, whatever is allowed."""
        label = self._topology.label
        for atom, other in ((partner, host), (host, partner)):
            if self.neighbours(atom) == [other]:
                raise SettingError(
                    "atoms",
                    f"expected {label(atom)} and {label(other)}, its only neighbour, both in the QM region "
                    f"or both outside, found only {label(partner)} in it",
                )

    def refuse(self, partner: int, host: int, hosts: IntArray, allow: frozenset[Objection]) -> None:
        """Refuse to cut a bond, unless what speaks against it is allowed."""
        for name, problem in self._objections(partner, host, hosts):
            if name not in allow:
                label = self._topology.label
                raise SettingError(
                    "atoms",
                    f"expected a border that cuts single bonds between carbon atoms outside rings, found "
                    f"{label(partner)} - {label(host)}, {problem}; move the border, or allow it: "
                    f"links.allow: [{name}]",
                )

    def _objections(self, partner: int, host: int, hosts: IntArray) -> Iterator[tuple[Objection, str]]:
        numbers = self._topology.numbers
        elements = [int(numbers[atom]) for atom in (partner, host)]
        if elements != [6, 6]:
            yield "polar", f"a bond {'-'.join(chemical_symbols[number] for number in elements)}"
        elif max(len(self.neighbours(atom)) for atom in (partner, host)) < 4:
            yield "multiple", "a double or conjugated bond, as neither atom has four bonds"
        ring = self._smallest_ring(partner, host)
        if ring:
            yield "ring", f"in a ring of {ring} atoms"
        if np.count_nonzero(hosts == host) > 1:
            yield "shared", f"one of several cut bonds of {self._topology.label(host)}"

    def _smallest_ring(self, i: int, j: int) -> int:
        """Size of the smallest ring that a bond is part of, or 0 if that is large."""
        depths, queue = {i: 1}, deque([i])
        while queue:
            atom = queue.popleft()
            for other in self.neighbours(atom):
                if other in depths or (atom, other) == (i, j) or depths[atom] == _LARGEST_RING:
                    continue
                depths[other] = depths[atom] + 1
                queue.append(other)
        return depths.get(j, 0)

    def refuse_unbonded(self, inside: BoolArray, cut: IntArray) -> None:
        """Refuse terms across the border of molecules in which no bond crosses it."""
        topology = self._topology
        joined = self._reached(cut.ravel().tolist())
        for kind, atoms in topology.terms_across(inside):
            if not joined.isdisjoint(atoms.tolist()):
                continue
            labels = " - ".join(topology.label(int(atom)) for atom in atoms)
            raise SettingError(
                "atoms", f"expected a bond where the {kind} {labels} crosses the border, found none"
            )

    def _reached(self, start: list[int]) -> set[int]:
        """The atoms of the molecules of some atoms."""
        found, queue = set(start), deque(start)
        while queue:
            for other in self.neighbours(queue.popleft()):
                if other not in found:
                    found.add(other)
                    queue.append(other)
        return found
