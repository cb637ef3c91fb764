"""Terms as ParmEd holds them, converted to tables in atomic units."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from parmed.topologyobjects import DihedralTypeList

from pidelta.errors import TopologyError
from pidelta.mm.topology import Harmonic, Torsions, unique_pairs
from pidelta.state import FloatArray, IntArray
from pidelta.units import ANGSTROM, KCAL_PER_MOL

_KINDS = {
    "bonds": "bond",
    "angles": "angle",
    "urey_bradleys": "Urey-Bradley term",
    "dihedrals": "dihedral",
    "impropers": "improper",
    "cmaps": "CMAP term",
}


def atoms_of(terms: Any, size: int) -> IntArray:
    """(n, size) atoms of a list of terms."""
    rows = [[getattr(term, f"atom{i + 1}").idx for i in range(size)] for term in terms]
    return np.array(rows, dtype=np.int64).reshape(-1, size)


def harmonic(terms: Any, size: int, x0_name: str, *, k_name: str = "k") -> Harmonic:
    """Harmonic terms of distances (`x0_name` is req) or of angles; ParmEd's are K (x - x0)^2, so k = 2 K."""
    distance = x0_name == "req"
    energy = KCAL_PER_MOL / ANGSTROM**2 if distance else KCAL_PER_MOL
    unit = ANGSTROM if distance else np.pi / 180.0
    return Harmonic(
        atoms_of(terms, size),
        np.array([2.0 * getattr(term.type, k_name) for term in terms], dtype=np.float64) * energy,
        np.array([getattr(term.type, x0_name) for term in terms], dtype=np.float64) * unit,
    )


def torsions(structure: Any) -> Torsions:
    """Periodic torsions, one or several of each dihedral."""
    rows: list[tuple[list[int], float, int, float]] = []
    for atoms, term in zip(atoms_of(structure.dihedrals, 4).tolist(), structure.dihedrals, strict=True):
        kinds = term.type if isinstance(term.type, DihedralTypeList) else [term.type]
        rows += [(atoms, kind.phi_k, round(kind.per), np.deg2rad(kind.phase)) for kind in kinds]
    return Torsions(
        np.array([row[0] for row in rows], dtype=np.int64).reshape(-1, 4),
        np.array([row[1] for row in rows], dtype=np.float64) * KCAL_PER_MOL,
        np.array([row[2] for row in rows], dtype=np.int64),
        np.array([row[3] for row in rows], dtype=np.float64),
    )


def multiplicities(where: str, values: FloatArray) -> IntArray:
    """Periodicities of torsions (n,), which formats hold as decimal numbers, as the integers they must be."""
    wrong = np.flatnonzero(~(np.abs(values - np.rint(values)) < 1e-6))
    if len(wrong):
        raise TopologyError(f"{where}: expected an integer multiplicity, found {values[wrong[0]]:g}")
    return np.rint(values).astype(np.int64)


def without_parameters(structure: Any) -> str | None:
    """Name the first term that ParmEd left without parameters, if there is one."""
    for kind, name in _KINDS.items():
        for term in getattr(structure, kind):
            if term.type is None:
                atoms = [getattr(term, f"atom{i}") for i in range(1, 6) if hasattr(term, f"atom{i}")]
                return no_parameters(name, [(atom.idx, atom.name, atom.type) for atom in atoms])
    return None


def no_parameters(kind: str, atoms: Iterable[tuple[int, str, str]]) -> str:
    """The message for a term of atoms (index from 0, name, type) that no parameters are given for."""
    labels = " - ".join(f"{index + 1} {name} ({type_})" for index, name, type_ in atoms)
    return f"no parameters for the {kind} {labels}"


def pairs_within(bonds: IntArray, n_atoms: int, separation: int) -> list[IntArray]:
    """Pairs of atoms by the number of bonds between them, shortest way: 1, 2, ... `separation`.

    Args:
        bonds: (n, 2) atoms.
        n_atoms: number of atoms.
        separation: largest number of bonds.

    Returns:
        for each number of bonds the pairs (m, 2), i < j, sorted.
    """
    partners: list[set[int]] = [set() for _ in range(n_atoms)]
    for i, j in bonds.tolist():
        partners[i].add(j)
        partners[j].add(i)
    shells: list[list[tuple[int, int]]] = [[] for _ in range(separation)]
    for atom in range(n_atoms):
        known, shell = {atom}, {atom}
        for pairs in shells:
            shell = {partner for one in shell for partner in partners[one]} - known
            known |= shell
            pairs += [(atom, partner) for partner in shell if atom < partner]
    return [unique_pairs(pairs) for pairs in shells]


def in_table_order(c6_c12: Iterable[tuple[float, float]]) -> tuple[FloatArray, FloatArray]:
    """Columns c6 and c12 of rows (c6, c12)."""
    table = np.array(list(c6_c12), dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]
