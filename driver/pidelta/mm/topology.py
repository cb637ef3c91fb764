"""A force field applied to a system: immutable tables in atomic units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pidelta.core.particles import Particles
from pidelta.core.virtual_sites import VirtualSites, join_sites
from pidelta.errors import TopologyError
from pidelta.mm.cmap import grid_derivatives
from pidelta.mm.lennard_jones import CombinationRule
from pidelta.state import BoolArray, FloatArray, IntArray

_T = TypeVar("_T", bound="_Table")

_TABLES = {
    "bonds": "bond",
    "quartic_bonds": "quartic bond",
    "morse_bonds": "Morse bond",
    "angles": "angle",
    "urey_bradley": "Urey-Bradley term",
    "torsions": "torsion",
    "impropers": "improper",
    "cmaps": "CMAP term",
    "pairs14": "1-4 pair",
}


@dataclass(frozen=True)
class _Table:
    """Terms as columns of equal length, the first of them their atoms."""

    atoms: IntArray

    def __post_init__(self) -> None:
        _freeze(self)

    def select(self: _T, keep: BoolArray) -> _T:
        """The terms where `keep` (n,) is true."""
        return replace(self, **{name: getattr(self, name)[keep] for name in self._columns()})

    def joined(self: _T, *others: _T) -> _T:
        """These terms and those of other tables."""
        tables = (self, *others)
        columns = {n: np.concatenate([getattr(table, n) for table in tables]) for n in self._columns()}
        return replace(self, **columns)

    def renumbered(self: _T, particles: IntArray) -> _T:
        """The terms with each atom i become `particles[i]`."""
        return replace(self, atoms=particles[self.atoms])

    @classmethod
    def _columns(cls) -> list[str]:
        return [item.name for item in fields(cls)]


@dataclass(frozen=True)
class Harmonic(_Table):
    """Terms k/2 (x - x0)^2 of a distance (2 atoms), an angle (3) or an improper dihedral (4).

    Attributes:
        atoms: (n, 2), (n, 3) or (n, 4).
        k: (n,) in hartree/bohr^2 or hartree/rad^2.
        x0: (n,) in bohr or rad.
    """

    atoms: IntArray
    k: FloatArray
    x0: FloatArray

    @staticmethod
    def none(size: int) -> Harmonic:
        """No terms of `size` atoms."""
        return Harmonic(np.zeros((0, size), dtype=np.int64), np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class QuarticBonds(_Table):
    """Bonds k2 u^2 + k3 u^3 + k4 u^4 with u = r - x0, as in q-TIP4P/F.

    Attributes:
        atoms: (n, 2).
        k2, k3, k4: (n,) in hartree/bohr^2, hartree/bohr^3 and hartree/bohr^4.
        x0: (n,) in bohr.
    """

    atoms: IntArray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    k2: FloatArray = field(default_factory=lambda: np.zeros(0))
    k3: FloatArray = field(default_factory=lambda: np.zeros(0))
    k4: FloatArray = field(default_factory=lambda: np.zeros(0))
    x0: FloatArray = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class MorseBonds(_Table):
    """Bonds D (1 - exp(-beta (r - x0)))^2.

    Attributes:
        atoms: (n, 2).
        depth: (n,) D in hartree.
        beta: (n,) in 1/bohr.
        x0: (n,) in bohr.
    """

    atoms: IntArray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    depth: FloatArray = field(default_factory=lambda: np.zeros(0))
    beta: FloatArray = field(default_factory=lambda: np.zeros(0))
    x0: FloatArray = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class CMAPs(_Table):
    """Energies on a grid of two dihedrals, of atoms 0 to 3 and 1 to 4 of a row.

    Attributes:
        atoms: (n, 5).
        maps: (n,) indices into `grids`.
        grids: (M, K, K) energies in hartree, first and second dihedral, at -pi, -pi + 2 pi / K, ...
    """

    atoms: IntArray = field(default_factory=lambda: np.zeros((0, 5), dtype=np.int64))
    maps: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    grids: FloatArray = field(default_factory=lambda: np.zeros((0, 0, 0)))

    @cached_property
    def derivatives(self) -> FloatArray:
        """(M, K, K, 4) energies and derivatives at the grid points, see `pidelta.mm.cmap`."""
        return grid_derivatives(self.grids)

    @classmethod
    def _columns(cls) -> list[str]:
        return ["atoms", "maps"]


@dataclass(frozen=True)
class Torsions(_Table):
    """Terms k (1 + cos(n phi - phase)) of dihedrals, proper or improper; phi is pi for trans.

    Attributes:
        atoms: (n, 4).
        k: (n,) in hartree.
        periodicity: (n,) the integers n; 0 makes a constant.
        phase: (n,) in rad.
    """

    atoms: IntArray = field(default_factory=lambda: np.zeros((0, 4), dtype=np.int64))
    k: FloatArray = field(default_factory=lambda: np.zeros(0))
    periodicity: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    phase: FloatArray = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Pairs14(_Table):
    """Pairs with their own Lennard-Jones and scaled, bare Coulomb, without cutoff; mostly 1-4 pairs.

    Attributes:
        atoms: (n, 2).
        c6, c12: (n,) in hartree bohr^6 and hartree bohr^12.
        coulomb_scale: (n,) factor of q_i q_j / r.
    """

    atoms: IntArray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    c6: FloatArray = field(default_factory=lambda: np.zeros(0))
    c12: FloatArray = field(default_factory=lambda: np.zeros(0))
    coulomb_scale: FloatArray = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Topology:
    """Atoms, virtual sites, charges and all terms of a classical force field, in atomic units.

    Positions, gradients, bonded terms and masses are those of the N atoms. The S virtual sites have none of
    these: they follow their atoms and are particles N to P = N + S - 1 where pairs interact.

    Lennard-Jones is c12/r^12 - c6/r^6 with a table over pairs of types, so that combination rules and their
    exceptions are settled when a file is read.

    Attributes:
        source: the file, for messages.
        numbers: (N,) atomic numbers.
        masses: (N,) in electron masses.
        charges: (P,) in e.
        names, residue_names: (N,).
        residue_indices: (N,) from 0, rising.
        residue_numbers: (N,) of the residues as the file has them; they need not be distinct.
        segments: (N,) names of the chains or segments of the file, '' where there are none.
        bonds, angles, urey_bradley, impropers: harmonic terms.
        torsions: periodic dihedrals.
        lj_types: (P,) indices into `lj_c6`, `lj_c12` (T, T) in hartree bohr^6 and hartree bohr^12.
        exclusions: (E, 2) pairs without ordinary Lennard-Jones and Coulomb, i < j, sorted, unique.
        pairs14: pairs of particles evaluated whether excluded or not.
        quartic_bonds, morse_bonds, cmaps: further bonded terms.
        sites: the virtual sites.
        massless_rows: (R,) rows of virtual sites, rising, among the N + R rows of a structure file that
            lists them.
        periodic: whether the file says that its system has a cell.
        cell_angle: in degrees, between all three vectors of a cell of which a structure file gives the
            lengths alone; None where the file says that it is triclinic.
        lj_rule: how `lj_c6` and `lj_c12` were combined; for models of water that are put in.
    """

    source: str
    numbers: IntArray
    masses: FloatArray
    charges: FloatArray
    names: tuple[str, ...]
    residue_names: tuple[str, ...]
    residue_indices: IntArray
    residue_numbers: IntArray
    segments: tuple[str, ...]
    bonds: Harmonic
    angles: Harmonic
    urey_bradley: Harmonic
    torsions: Torsions
    impropers: Harmonic
    lj_types: IntArray
    lj_c6: FloatArray
    lj_c12: FloatArray
    exclusions: IntArray
    pairs14: Pairs14
    quartic_bonds: QuarticBonds = field(default_factory=QuarticBonds)
    morse_bonds: MorseBonds = field(default_factory=MorseBonds)
    cmaps: CMAPs = field(default_factory=CMAPs)
    sites: VirtualSites = field(default_factory=VirtualSites)
    massless_rows: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    periodic: bool = False
    cell_angle: float | None = 90.0
    lj_rule: CombinationRule = "lorentz-berthelot"

    def __post_init__(self) -> None:
        _freeze(self)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def n_particles(self) -> int:
        """Number P of atoms and virtual sites."""
        return len(self.charges)

    @property
    def particles(self) -> Particles:
        """The map from atoms to particles."""
        return Particles(len(self), self.sites)

    @property
    def bonded_pairs(self) -> IntArray:
        """(n, 2) atoms of the bonds of every form."""
        return np.concatenate([self.bonds.atoms, self.quartic_bonds.atoms, self.morse_bonds.atoms])

    @property
    def counts(self) -> dict[str, int]:
        """How many bonded terms, pairs with parameters of their own and virtual sites there are, by kind."""
        counts = {kind: len(getattr(self, name).atoms) for name, kind in _TABLES.items()}
        return {**counts, "virtual site": len(self.sites)}

    def label(self, atom: int) -> str:
        """An atom as shown in messages, such as ``URA1:C5 (atom 3)``.

        The number of the residue is that of the file; atoms count from 0.
        """
        if atom >= len(self):
            return f"the virtual site of {self.label(int(self.sites.parents[atom - len(self), 0]))}"
        residue = f"{self.residue_names[atom]}{self.residue_numbers[atom]}"
        return f"{residue}:{self.names[atom]} (atom {atom})"

    def with_sites(self, atoms: IntArray) -> IntArray:
        """The atoms and then the virtual sites that any of them is a parent of."""
        sites = len(self) + np.flatnonzero(np.isin(self.sites.parents, atoms).any(axis=1))
        return np.concatenate([atoms, sites])

    def without_internal(self, indices: npt.ArrayLike) -> Topology:
        """The topology with a QM region taken out, all but its interactions with the other atoms.

        Terms among the atoms of the region go, their pairs are excluded, their charges become zero. Terms and
        Lennard-Jones pairs with other atoms stay, across bonds that join the region with these as well: every
        bonded term with at least one other atom, as in sander (Walker, Crowley, Case, J. Comput. Chem. 29,
        1019 (2008)), exclusions, and the Lennard-Jones part of 1-4 pairs.

        Args:
            indices: the atoms of the region.

        Raises:
            TopologyError: a virtual site joins the region with other atoms.
        """
        inside = self._with_their_sites(indices, "QM region")
        region = np.flatnonzero(inside)
        first, second = np.triu_indices(len(region), k=1)
        within = np.stack([region[first], region[second]], axis=1)
        return replace(
            self,
            charges=np.where(inside, 0.0, self.charges),
            exclusions=unique_pairs(np.concatenate([self.exclusions, within])),
            **{
                name: table.select(np.asarray(~inside[table.atoms].all(axis=1)))
                for name, table in self._tables()
            },
        )

    def terms_across(self, inside: BoolArray) -> Iterator[tuple[str, IntArray]]:
        """The kind and the atoms of each term that joins atoms where `inside` (N,) is true with others."""
        for name, table in self._tables():
            touched = inside[table.atoms]
            for row in np.flatnonzero(touched.any(axis=1) & ~touched.all(axis=1)):
                yield _TABLES[name], table.atoms[row]

    def with_massless(self, sites: VirtualSites) -> Topology:
        """The topology with further virtual sites, which have neither charge nor Lennard-Jones."""
        if not len(sites):
            return self
        none = len(self.lj_c6)
        return replace(
            self,
            charges=np.append(self.charges, np.zeros(len(sites))),
            lj_types=np.append(self.lj_types, np.full(len(sites), none)),
            lj_c6=np.pad(self.lj_c6, (0, 1)),
            lj_c12=np.pad(self.lj_c12, (0, 1)),
            sites=join_sites([self.sites, sites], [0, 0]),
        )

    def without_terms(self, indices: npt.ArrayLike) -> Topology:
        """The topology without the bonded terms, exclusions and virtual sites of some molecules.

        Args:
            indices: the atoms of the molecules, in any shape.

        Raises:
            TopologyError: a bonded term or a virtual site joins them with other atoms.
        """
        inside = self._with_their_sites(indices, "selected region")
        for kind, atoms in self.terms_across(inside):
            self._refuse_cut("selected region", kind, atoms)
        kept = ~inside
        kept[: len(self)] = True
        particles = np.cumsum(kept) - 1
        outside = self.exclusions[~inside[self.exclusions].any(axis=1)]
        return replace(
            self,
            charges=self.charges[kept],
            lj_types=self.lj_types[kept],
            exclusions=particles[outside],
            sites=self.sites.select(kept[len(self) :]),
            **{
                name: table.select(np.asarray(~inside[table.atoms].any(axis=1))).renumbered(particles)
                for name, table in self._tables()
            },
        )

    def _tables(self) -> Iterator[tuple[str, Any]]:
        """The tables of terms by name."""
        for name in _TABLES:
            yield name, getattr(self, name)

    def _with_their_sites(self, indices: npt.ArrayLike, region: str) -> BoolArray:
        """Which particles (P,) are atoms of a region or their virtual sites."""
        inside = np.zeros(self.n_particles, dtype=np.bool_)
        inside[np.ravel(np.asarray(indices, dtype=np.int64))] = True
        parents = inside[self.sites.parents]
        cut = np.flatnonzero(parents.any(axis=1) & ~parents.all(axis=1))
        if len(cut):
            self._refuse_cut(region, "virtual site", self.sites.parents[cut[0]])
        inside[len(self) :] = parents.any(axis=1)
        return inside

    def _refuse_cut(self, region: str, kind: str, atoms: IntArray) -> None:
        labels = " - ".join(self.label(int(atom)) for atom in atoms)
        raise TopologyError(f"{self.source}: the {region} cuts the {kind} {labels}")


def join(parts: Sequence[Topology]) -> Topology:
    """Put molecules one after the other into one system.

    Args:
        parts: at least one, all with the same source, Lennard-Jones tables and CMAP grids; one may occur many
            times.
    """
    n_atoms = [len(part) for part in parts]
    residue_offsets = np.cumsum([0, *(part.residue_indices[-1] + 1 for part in parts[:-1])])
    row_offsets = np.cumsum([0, *(len(part) + len(part.massless_rows) for part in parts)])
    particles = _particle_indices(parts)

    def column(name: str, n_first: Sequence[int] | None = None) -> Any:
        """Of the atoms, or of the atoms (the first `n_first`) and then of the virtual sites."""
        columns = [getattr(part, name) for part in parts]
        if n_first is None:
            return np.concatenate(columns)
        heads = [values[:n] for values, n in zip(columns, n_first, strict=True)]
        return np.concatenate([*heads, *(values[n:] for values, n in zip(columns, n_first, strict=True))])

    def table(name: str) -> Any:
        tables = [getattr(part, name).renumbered(index) for part, index in zip(parts, particles, strict=True)]
        return tables[0].joined(*tables[1:])

    return Topology(
        source=parts[0].source,
        names=tuple(name for part in parts for name in part.names),
        residue_names=tuple(name for part in parts for name in part.residue_names),
        segments=tuple(name for part in parts for name in part.segments),
        residue_indices=column("residue_indices") + np.repeat(residue_offsets, n_atoms),
        lj_c6=parts[0].lj_c6,
        lj_c12=parts[0].lj_c12,
        lj_rule=parts[0].lj_rule,
        exclusions=unique_pairs(
            np.concatenate([index[part.exclusions] for part, index in zip(parts, particles, strict=True)])
        ),
        sites=join_sites([part.sites for part in parts], n_atoms),
        massless_rows=np.concatenate(
            [part.massless_rows + shift for part, shift in zip(parts, row_offsets[:-1], strict=True)]
        ),
        **{name: column(name) for name in ("numbers", "masses", "residue_numbers")},
        **{name: column(name, n_atoms) for name in ("charges", "lj_types")},
        **{name: table(name) for name in _TABLES},
    )


def _particle_indices(parts: Sequence[Topology]) -> list[IntArray]:
    """For each part, the particles of the whole that its own become: atoms first, then virtual sites."""
    indices = []
    atom, site = 0, sum(len(part) for part in parts)
    for part in parts:
        indices.append(
            np.concatenate([np.arange(len(part)) + atom, np.arange(len(part.sites)) + site]).astype(np.int64)
        )
        atom, site = atom + len(part), site + len(part.sites)
    return indices


def unique_pairs(pairs: npt.ArrayLike) -> IntArray:
    """Pairs (n, 2) as i < j, sorted, each once; pairs of an atom with itself are dropped."""
    ordered = np.sort(np.asarray(pairs, dtype=np.int64).reshape(-1, 2), axis=1)
    return np.asarray(np.unique(ordered[ordered[:, 0] != ordered[:, 1]], axis=0))


def _freeze(table: _Table | Topology) -> None:
    for item in fields(table):
        value = getattr(table, item.name)
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
