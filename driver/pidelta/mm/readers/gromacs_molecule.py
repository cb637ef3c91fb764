"""One molecule type of a GROMACS topology as tables.

Read here and in `gromacs_bonded`, as GROMACS does: ParmEd knows neither all terms nor all of their rules (it
looks up pair types by bonded names, leaves [ nonbond_params ] out of generated pairs, mixes types of
different functions, and takes elements from masses).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pidelta.core.elements import contradiction, guess_elements, misfit
from pidelta.core.virtual_sites import ANGLE, DISTANCE, LINEAR, OUT_OF_PLANE, VirtualSites
from pidelta.errors import TopologyError
from pidelta.mm.readers.conversion import in_table_order, no_parameters, pairs_within
from pidelta.mm.readers.gromacs_bonded import BondedTypes, bonded_terms
from pidelta.mm.readers.gromacs_force_field import ForceField, Molecule
from pidelta.mm.topology import CMAPs, Pairs14, Topology, unique_pairs
from pidelta.state import FloatArray, IntArray
from pidelta.units import DALTON_IN_ELECTRON_MASS, NANOMETER

SITE_SECTIONS = {"virtual_sites2", "virtual_sites3", "dummies2", "dummies3"}


def molecule_topology(
    where: str, force_field: ForceField, bonded: BondedTypes, molecule: Molecule
) -> Topology:
    """One molecule as a topology; Lennard-Jones tables cover all types of the force field.

    Args:
        where: file and molecule, for messages.
        force_field: what its types mean.
        bonded: its types of bonds, angles and dihedrals.
        molecule: its lines, checked.

    Raises:
        TopologyError: a parameter is missing, or a virtual site is not one.
    """
    atoms = _read_atoms(where, force_field, molecule)
    sites, particles = _virtual_sites(where, force_field, molecule)
    is_site = particles >= len(particles) - len(sites)
    _check_masses(where, atoms, is_site)
    real = np.flatnonzero(~is_site)
    order = np.argsort(particles)
    reader = _Terms(where, force_field, molecule)
    file_types = np.array([force_field.types.index(name) for name in reader.types], dtype=np.int64)
    terms = bonded_terms(where, force_field, bonded, molecule) | {"cmaps": reader.cmaps()}
    for name, table in terms.items():
        if is_site[table.atoms].any():
            atom = int(table.atoms[is_site[table.atoms]][0])
            raise TopologyError(
                f"{where}: {name} of the virtual site {atom + 1} ({atoms.names[atom]}) are not evaluated"
            )
    return Topology(
        source=force_field.source,
        numbers=atoms.numbers[real],
        masses=atoms.masses[real] * DALTON_IN_ELECTRON_MASS,
        charges=atoms.charges[order],
        names=tuple(atoms.names[row] for row in real),
        residue_names=tuple(atoms.residue_names[row] for row in real),
        residue_indices=atoms.residue_indices[real],
        residue_numbers=atoms.residue_numbers[real],
        segments=("",) * len(real),
        lj_types=file_types[order],
        lj_c6=force_field.c6,
        lj_c12=force_field.c12,
        lj_rule=force_field.rule,
        exclusions=unique_pairs(particles[_exclusions(molecule)]),
        pairs14=reader.pairs14(file_types).renumbered(particles),
        sites=sites,
        massless_rows=np.flatnonzero(is_site),
        **{name: table.renumbered(particles) for name, table in terms.items()},
    )


@dataclass(frozen=True)
class _Atoms:
    """The rows of [ atoms ] as columns (N,); masses in dalton."""

    types: list[str]
    names: list[str]
    residue_names: list[str]
    residue_numbers: IntArray
    residue_indices: IntArray
    charges: FloatArray
    masses: FloatArray
    numbers: IntArray


def _read_atoms(where: str, known: ForceField, molecule: Molecule) -> _Atoms:
    """Columns are row, type, residue, its name, atom, charge group, and maybe charge and mass."""
    rows = molecule.rows("atoms")
    types, names = [words[1] for words in rows], [words[4] for words in rows]
    charges, masses = (
        np.array([known.atom_value(words, column) for words in rows], dtype=np.float64) for column in (6, 7)
    )
    residues = [(words[2], words[3]) for words in rows]
    is_new = [i > 0 and residue != residues[i - 1] for i, residue in enumerate(residues)]
    return _Atoms(
        types,
        names,
        [words[3] for words in rows],
        _residue_numbers(where, rows),
        np.cumsum(is_new, dtype=np.int64),
        charges,
        masses,
        _elements(where, known, types, names, masses),
    )


def _residue_numbers(where: str, rows: list[list[str]]) -> IntArray:
    """(N,) without the insertion codes that may follow them."""
    numbers = []
    for words in rows:
        number = re.match(r"-?\d{1,9}(?!\d)", words[2])
        if number is None:
            raise TopologyError(
                f"{where}: [ atoms ]: expected the number of a residue, found {' '.join(words)!r}"
            )
        numbers.append(int(number.group()))
    return np.array(numbers, dtype=np.int64)


def _elements(
    where: str, known: ForceField, types: list[str], names: list[str], masses: FloatArray
) -> IntArray:
    """(N,) as [ atomtypes ] has them, else from masses and names."""
    numbers = np.array([known.atomic_number(kind) for kind in types], dtype=np.int64)
    bonded = [known.bonded_type(kind) for kind in types]
    guessed = guess_elements(masses, bonded, names)
    found = np.where(numbers > 0, numbers, guessed)
    wrong = np.flatnonzero(found < 0)
    refused = contradiction(numbers, masses)
    if len(wrong):
        row = int(wrong[0])
        refused = row, misfit(float(masses[row]), bonded[row], names[row])
    if refused:
        row, problem = refused
        raise TopologyError(f"{where}: atom {row + 1} ({names[row]}): {problem}")
    return found


def _check_masses(where: str, atoms: _Atoms, is_site: np.ndarray[Any, Any]) -> None:
    wrong = np.flatnonzero(
        np.where(is_site, atoms.masses != 0.0, ~(atoms.masses > 0.0) | (atoms.numbers <= 0))
    )
    if len(wrong):
        row = int(wrong[0])
        problem = "is a virtual site with a mass" if is_site[row] else "has no mass or element"
        raise TopologyError(f"{where}: atom {row + 1} ({atoms.names[row]}) {problem}")


def _virtual_sites(where: str, force_field: ForceField, molecule: Molecule) -> tuple[VirtualSites, IntArray]:
    """The sites in the order of their rows, and the particle that each row of [ atoms ] becomes."""
    found: dict[int, tuple[list[int], int, list[float]]] = {}
    for section, words in molecule.lines:
        if section not in SITE_SECTIONS:
            continue
        size = 3 if section.endswith("2") else 4
        site, *parents = (int(word) - 1 for word in words[:size])
        values = force_field.numbers(section, words, size + 1)
        found[site] = (parents, *_site_kind(size, words[size], values))
    n_atoms = len(molecule.rows("atoms"))
    rows = sorted(found)
    particles = np.zeros(n_atoms, dtype=np.int64)
    particles[np.delete(np.arange(n_atoms), rows)] = np.arange(n_atoms - len(rows))
    particles[rows] = n_atoms - len(rows) + np.arange(len(rows))
    for site in rows:
        if found.keys() & set(found[site][0]):
            raise TopologyError(f"{where}: the virtual site {site + 1} is built from another virtual site")
    parents3 = [(*found[site][0], found[site][0][0])[:3] for site in rows]
    return (
        VirtualSites(
            particles[np.array(parents3, dtype=np.int64).reshape(-1, 3)],
            np.array([found[site][1] for site in rows], dtype=np.int64),
            np.array([found[site][2] for site in rows], dtype=np.float64).reshape(-1, 3),
        ),
        particles,
    )


def _site_kind(size: int, function: str, values: list[float]) -> tuple[int, list[float]]:
    """Kind and a, b, c in atomic units of [ virtual_sites2 ] (size 3) and [ virtual_sites3 ] (size 4)."""
    if size == 3:
        return LINEAR, [values[0], 0.0, 0.0]
    if function == "1":
        return LINEAR, [*values, 0.0]
    if function == "2":
        return DISTANCE, [values[0], values[1] * NANOMETER, 0.0]
    if function == "3":
        return ANGLE, [np.deg2rad(values[0]), values[1] * NANOMETER, 0.0]
    return OUT_OF_PLANE, [values[0], values[1], values[2] / NANOMETER]


@dataclass(frozen=True)
class _Terms:
    """The other terms of a molecule; atoms are rows of [ atoms ], from 0."""

    where: str
    force_field: ForceField
    molecule: Molecule

    @cached_property
    def types(self) -> list[str]:
        return [words[1] for words in self.molecule.rows("atoms")]

    def cmaps(self) -> CMAPs:
        """Maps looked up by the bonded types of the five atoms, in their order."""
        atoms, maps = [], []
        for words in self.molecule.rows("cmap"):
            rows = [int(word) - 1 for word in words[:5]]
            names = tuple(self.force_field.bonded_type(self.types[row]) for row in rows)
            if names not in self.force_field.maps:
                raise TopologyError(f"{self.where}: {self._missing('CMAP term', rows)}")
            atoms.append(rows)
            maps.append(self.force_field.maps[names])
        return CMAPs(
            np.array(atoms, dtype=np.int64).reshape(-1, 5),
            np.array(maps, dtype=np.int64),
            self.force_field.grids,
        )

    def pairs14(self, lj_types: IntArray) -> Pairs14:
        """Parameters of [ pairs ]: their own, those of [ pairtypes ], or the scaled ordinary ones.

        As in GROMACS, types are looked up by their non-bonded names, and the ordinary parameters include
        [ nonbond_params ].
        """
        known = self.force_field
        atoms, values = [], []
        for words in self.molecule.rows("pairs"):
            i, j = (int(word) - 1 for word in words[:2])
            types = frozenset((self.types[i], self.types[j]))
            if len(words) > 3:
                first, second = known.numbers("pairs", words, 3)
                pair = known.lj_pair(first, second)
            elif types in known.pair_types:
                pair = known.pair_types[types]
            elif known.generates_pairs:
                kinds = lj_types[i], lj_types[j]
                pair = known.fudge_lj * known.c6[kinds], known.fudge_lj * known.c12[kinds]
            else:
                raise TopologyError(f"{self.where}: {self._missing('pair', [i, j])}")
            atoms.append((i, j))
            values.append(pair)
        scale = np.full(len(atoms), known.fudge_coulomb)
        return Pairs14(np.array(atoms, dtype=np.int64).reshape(-1, 2), *in_table_order(values), scale)

    def _missing(self, kind: str, rows: list[int]) -> str:
        names = [words[4] for words in self.molecule.rows("atoms")]
        return no_parameters(kind, [(row, names[row], self.types[row]) for row in rows])


def _exclusions(molecule: Molecule) -> IntArray:
    """Pairs of rows up to `nrexcl` bonds apart, and those of [ exclusions ]."""
    bonds = [(int(words[0]) - 1, int(words[1]) - 1) for words in molecule.rows("bonds")]
    n_atoms = len(molecule.rows("atoms"))
    shells = pairs_within(np.array(bonds, dtype=np.int64).reshape(-1, 2), n_atoms, molecule.nrexcl)
    listed = [
        (int(words[0]) - 1, int(word) - 1) for words in molecule.rows("exclusions") for word in words[1:]
    ]
    return unique_pairs(np.concatenate([*shells, np.array(listed, dtype=np.int64).reshape(-1, 2)]))
