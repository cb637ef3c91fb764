"""A force field applied to a system: immutable tables in atomic units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pidelta.errors import TopologyError
from pidelta.state import FloatArray, IntArray

BoolArray = npt.NDArray[np.bool_]

_TABLES = {
    "bonds": "bond",
    "angles": "angle",
    "urey_bradley": "Urey-Bradley term",
    "torsions": "torsion",
    "impropers": "improper",
    "pairs14": "1-4 pair",
}


@dataclass(frozen=True)
class Harmonic:
    """Terms k/2 (x - x0)^2 of a distance (2 atoms), an angle (3) or an improper dihedral (4).

    Attributes:
        atoms: (n, 2), (n, 3) or (n, 4).
        k: (n,) in hartree/bohr^2 or hartree/rad^2.
        x0: (n,) in bohr or rad.
    """

    atoms: IntArray
    k: FloatArray
    x0: FloatArray

    def __post_init__(self) -> None:
        _freeze(self)

    def select(self, keep: BoolArray) -> Harmonic:
        """The terms where `keep` (n,) is true."""
        return Harmonic(self.atoms[keep], self.k[keep], self.x0[keep])


@dataclass(frozen=True)
class Torsions:
    """Terms k (1 + cos(n phi - phase)) of dihedrals, proper or improper; phi is pi for trans.

    Attributes:
        atoms: (n, 4).
        k: (n,) in hartree.
        periodicity: (n,) the integers n; 0 makes a constant.
        phase: (n,) in rad.
    """

    atoms: IntArray
    k: FloatArray
    periodicity: IntArray
    phase: FloatArray

    def __post_init__(self) -> None:
        _freeze(self)

    def select(self, keep: BoolArray) -> Torsions:
        """The terms where `keep` (n,) is true."""
        return Torsions(self.atoms[keep], self.k[keep], self.periodicity[keep], self.phase[keep])


@dataclass(frozen=True)
class Pairs14:
    """Pairs with their own Lennard-Jones and scaled, bare Coulomb, without cutoff; mostly 1-4 pairs.

    Attributes:
        atoms: (n, 2).
        c6, c12: (n,) in hartree bohr^6 and hartree bohr^12.
        coulomb_scale: (n,) factor of q_i q_j / r.
    """

    atoms: IntArray
    c6: FloatArray
    c12: FloatArray
    coulomb_scale: FloatArray

    def __post_init__(self) -> None:
        _freeze(self)

    def select(self, keep: BoolArray) -> Pairs14:
        """The pairs where `keep` (n,) is true."""
        return Pairs14(self.atoms[keep], self.c6[keep], self.c12[keep], self.coulomb_scale[keep])


@dataclass(frozen=True)
class Topology:
    """Atoms, charges and all terms of a classical force field, in atomic units.

    Lennard-Jones is c12/r^12 - c6/r^6 with a table over pairs of types, so that combination rules and their
    exceptions are settled when a file is read.

    Attributes:
        source: the file, for messages.
        numbers: (N,) atomic numbers.
        masses: (N,) in electron masses.
        charges: (N,) in e.
        names, residue_names: (N,).
        residue_indices: (N,) from 0, rising.
        bonds, angles, urey_bradley, impropers: harmonic terms.
        torsions: periodic dihedrals.
        lj_types: (N,) indices into `lj_c6`, `lj_c12` (T, T) in hartree bohr^6 and hartree bohr^12.
        exclusions: (E, 2) pairs without ordinary Lennard-Jones and Coulomb, i < j, sorted, unique.
        pairs14: pairs evaluated whether excluded or not.
    """

    source: str
    numbers: IntArray
    masses: FloatArray
    charges: FloatArray
    names: tuple[str, ...]
    residue_names: tuple[str, ...]
    residue_indices: IntArray
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

    def __post_init__(self) -> None:
        _freeze(self)

    def __len__(self) -> int:
        return len(self.numbers)

    def label(self, atom: int) -> str:
        """An atom as shown in messages, such as ``URA1:C5 (atom 3)``; atoms count from 0."""
        residue = f"{self.residue_names[atom]}{self.residue_indices[atom] + 1}"
        return f"{residue}:{self.names[atom]} (atom {atom})"

    def without_internal(self, indices: npt.ArrayLike) -> Topology:
        """The topology with a QM region taken out, all but its Lennard-Jones with the other atoms.

        Terms among the atoms of the region go, their pairs are excluded, their charges become zero.

        Args:
            indices: the atoms of the region.

        Raises:
            TopologyError: a bonded term joins the region with other atoms.
        """
        region = np.unique(np.asarray(indices, dtype=np.int64))
        inside = np.zeros(len(self), dtype=np.bool_)
        inside[region] = True
        kept: dict[str, Any] = {}
        for name, description in _TABLES.items():
            table: Harmonic | Torsions | Pairs14 = getattr(self, name)
            touched = inside[table.atoms]
            self._refuse_cut(description, table.atoms, touched)
            kept[name] = table.select(np.asarray(~touched.any(axis=1)))
        first, second = np.triu_indices(len(region), k=1)
        within = np.stack([region[first], region[second]], axis=1)
        return replace(
            self,
            charges=np.where(inside, 0.0, self.charges),
            exclusions=unique_pairs(np.concatenate([self.exclusions, within])),
            **kept,
        )

    def _refuse_cut(self, description: str, atoms: IntArray, inside: BoolArray) -> None:
        cut = np.flatnonzero(inside.any(axis=1) & ~inside.all(axis=1))
        if len(cut):
            labels = " - ".join(self.label(int(atom)) for atom in atoms[cut[0]])
            raise TopologyError(
                f"{self.source}: the QM region cuts the {description} {labels}; "
                f"link atoms are not available yet"
            )


def join(parts: Sequence[Topology]) -> Topology:
    """Put molecules one after the other into one system.

    Args:
        parts: at least one, all with the same source and Lennard-Jones tables; one may occur many times.
    """
    atom_offsets = np.cumsum([0, *(len(part) for part in parts[:-1])])
    residue_offsets = np.cumsum([0, *(part.residue_indices[-1] + 1 for part in parts[:-1])])

    def column(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    def table(name: str) -> Any:
        tables = [getattr(part, name) for part in parts]
        columns = {item.name: [getattr(entry, item.name) for entry in tables] for item in fields(tables[0])}
        columns["atoms"] = [a + shift for a, shift in zip(columns["atoms"], atom_offsets, strict=True)]
        return type(tables[0])(**{key: np.concatenate(arrays) for key, arrays in columns.items()})

    return Topology(
        source=parts[0].source,
        names=tuple(name for part in parts for name in part.names),
        residue_names=tuple(name for part in parts for name in part.residue_names),
        residue_indices=column("residue_indices") + np.repeat(residue_offsets, [len(part) for part in parts]),
        lj_c6=parts[0].lj_c6,
        lj_c12=parts[0].lj_c12,
        exclusions=np.concatenate(
            [part.exclusions + shift for part, shift in zip(parts, atom_offsets, strict=True)]
        ),
        **{name: column(name) for name in ("numbers", "masses", "charges", "lj_types")},
        **{name: table(name) for name in _TABLES},
    )


def unique_pairs(pairs: npt.ArrayLike) -> IntArray:
    """Pairs (n, 2) as i < j, sorted, each once; pairs of an atom with itself are dropped."""
    ordered = np.sort(np.asarray(pairs, dtype=np.int64).reshape(-1, 2), axis=1)
    return np.asarray(np.unique(ordered[ordered[:, 0] != ordered[:, 1]], axis=0))


def _freeze(table: Harmonic | Torsions | Pairs14 | Topology) -> None:
    for item in fields(table):
        value = getattr(table, item.name)
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
