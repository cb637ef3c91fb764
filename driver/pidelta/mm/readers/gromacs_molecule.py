"""One molecule type of a GROMACS topology as tables.

ParmEd finds the parameters of harmonic bonds, angles and dihedrals. Lennard-Jones, pairs, anharmonic bonds,
CMAP and virtual sites are read here, as GROMACS does: ParmEd knows neither all of them nor all of their rules
(it looks up pair types by bonded names, leaves [ nonbond_params ] out of generated pairs and takes the
function types 3 and 4 of bonds for harmonic ones).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from typing import Any

import numpy as np
from parmed import gromacs

from pidelta.errors import TopologyError
from pidelta.mm.lennard_jones import CombinationRule, combine
from pidelta.mm.readers.conversion import (
    harmonic,
    in_table_order,
    no_parameters,
    pairs_within,
    torsions,
    without_parameters,
)
from pidelta.mm.topology import (
    CMAPs,
    MorseBonds,
    Pairs14,
    QuarticBonds,
    Topology,
    unique_pairs,
)
from pidelta.mm.virtual_sites import ANGLE, DISTANCE, LINEAR, OUT_OF_PLANE, VirtualSites
from pidelta.state import FloatArray, IntArray
from pidelta.units import DALTON_IN_ELECTRON_MASS, KJ_PER_MOL, NANOMETER

Line = tuple[str, list[str]]

SITE_SECTIONS = {"virtual_sites2", "virtual_sites3", "dummies2", "dummies3"}
_MORSE, _CUBIC = "3", "4"
_OWN_SECTIONS = {"pairs", "cmap"} | SITE_SECTIONS


@dataclass
class Molecule:
    """The lines of a molecule type, as (section, words)."""

    name: str
    nrexcl: int
    lines: list[Line] = field(default_factory=list)

    def rows(self, *sections: str) -> list[list[str]]:
        """The lines of some sections."""
        return [words for where, words in self.lines if where in sections]

    def drop(self, section: str) -> None:
        """Forget the lines of a section."""
        self.lines = [line for line in self.lines if line[0] != section]


class ForceField:
    """What stands before the molecule types.

    Args:
        source: the file, for messages.
        lines: its lines.
        types: names of the atom types to make tables for, in their order.
    """

    def __init__(self, source: str, lines: list[Line], types: list[str]) -> None:
        self.source = source
        self.lines = lines
        self.types = types
        defaults = next(words for section, words in lines if section == "defaults")
        self._in_c6_c12 = defaults[1] == "1"
        self.rule: CombinationRule = "lorentz-berthelot" if defaults[1] == "2" else "geometric"
        self.generates_pairs = len(defaults) > 2 and defaults[2].lower() == "yes"
        self.fudge_lj, self.fudge_coulomb = (
            self.number("defaults", defaults, column) if len(defaults) > column else 1.0 for column in (3, 4)
        )
        self.atom_types = {words[0]: words for section, words in lines if section == "atomtypes"}
        self.pair_types = self._pairs("pairtypes")
        self.c6, self.c12 = self._lennard_jones()
        self.maps, self.grids = self._cmaps()

    def number(self, section: str, words: list[str], column: int) -> float:
        """A word as a number."""
        try:
            return float(words[column])
        except (ValueError, IndexError):
            raise TopologyError(
                f"{self.source}: [ {section} ]: expected a number in column {column + 1}, "
                f"found {' '.join(words)[:80]!r}"
            ) from None

    def numbers(self, section: str, words: list[str], first: int) -> list[float]:
        """The words from a column on as numbers."""
        return [self.number(section, words, column) for column in range(first, len(words))]

    def lj_pair(self, first: float, second: float) -> tuple[float, float]:
        """c6 and c12 in atomic units from the two parameters of a file, by its combination rule."""
        if self._in_c6_c12:
            return first * KJ_PER_MOL * NANOMETER**6, second * KJ_PER_MOL * NANOMETER**12
        c6 = 4.0 * second * KJ_PER_MOL * (first * NANOMETER) ** 6
        return c6, c6 * (first * NANOMETER) ** 6

    def bonded_type(self, atom_type: str) -> str:
        """The name that an atom type has in bonded parameters.

        Columns are name, bonded name, atomic number, mass, charge, kind and two parameters; the second, the
        third or both may be missing.
        """
        words = self.atom_types[atom_type]
        has_bonded_name = len(words) > 7 or (len(words) == 7 and words[1][0].isalpha())
        return words[1] if has_bonded_name else words[0]

    def _pairs(self, section: str) -> dict[frozenset[str], tuple[float, float]]:
        found = {}
        for where, words in self.lines:
            if where == section:
                first, second = self.numbers(section, words[:5], 3)
                found[frozenset(words[:2])] = self.lj_pair(first, second)
        return found

    def _lennard_jones(self) -> tuple[FloatArray, FloatArray]:
        """Tables (T, T) by combination rule and [ nonbond_params ]."""
        own = [
            (self.number("atomtypes", words, len(words) - 2), self.number("atomtypes", words, len(words) - 1))
            for words in (self.atom_types[name] for name in self.types)
        ]
        if self._in_c6_c12:
            c6_own, c12_own = in_table_order(self.lj_pair(*pair) for pair in own)
            c6, c12 = np.sqrt(np.outer(c6_own, c6_own)), np.sqrt(np.outer(c12_own, c12_own))
        else:
            sigma, epsilon = in_table_order(own)
            c6, c12 = combine(sigma * NANOMETER, epsilon * KJ_PER_MOL, self.rule)
        index = {name: i for i, name in enumerate(self.types)}
        for pair, values in self._pairs("nonbond_params").items():
            if pair <= index.keys():
                i, j = index[min(pair)], index[max(pair)]
                (c6[i, j], c12[i, j]) = (c6[j, i], c12[j, i]) = values
        return c6, c12

    def _cmaps(self) -> tuple[dict[tuple[str, ...], int], FloatArray]:
        """[ cmaptypes ]: index of the grid by five bonded types, and the grids (M, K, K)."""
        maps: dict[tuple[str, ...], int] = {}
        grids: list[FloatArray] = []
        for section, words in self.lines:
            if section != "cmaptypes":
                continue
            size = int(self.number(section, words, 6))
            values = self.numbers(section, words, 8)
            if words[7] != words[6] or len(values) != size**2 or (grids and size != len(grids[0])):
                raise TopologyError(
                    f"{self.source}: [ cmaptypes ]: expected square grids of one size, found {words[6]} x "
                    f"{words[7]} with {len(values)} values for {' '.join(words[:5])}"
                )
            maps[tuple(words[:5])] = len(grids)
            grids.append(np.array(values).reshape(size, size) * KJ_PER_MOL)
        return maps, np.array(grids) if grids else np.zeros((0, 0, 0))


def molecule_topology(where: str, force_field: ForceField, molecule: Molecule) -> Topology:
    """One molecule as a topology; Lennard-Jones tables cover all types of the force field.

    Args:
        where: file and molecule, for messages.
        force_field: what its types mean.
        molecule: its lines, checked.

    Raises:
        TopologyError: a parameter is missing, or a virtual site is not one.
    """
    top = _parse(where, force_field, molecule)
    sites, particles = _virtual_sites(where, force_field, molecule)
    numbers, masses = (
        np.array([getattr(atom, name) for atom in top.atoms]) for name in ("atomic_number", "mass")
    )
    is_site = particles >= len(particles) - len(sites)
    _check_masses(where, top.atoms, masses, numbers, is_site)
    real = np.flatnonzero(~is_site)
    order = np.argsort(particles)
    reader = _Terms(where, force_field, molecule)
    file_types = np.array([force_field.types.index(name) for name in reader.types], dtype=np.int64)
    terms = {
        "bonds": harmonic(top.bonds, 2, "req"),
        "angles": harmonic(top.angles, 3, "theteq"),
        "urey_bradley": harmonic(top.urey_bradleys, 2, "req"),
        "torsions": torsions(top),
        "impropers": harmonic(top.impropers, 4, "psi_eq", k_name="psi_k"),
        "quartic_bonds": reader.cubic_bonds(),
        "morse_bonds": reader.morse_bonds(),
        "cmaps": reader.cmaps(),
    }
    for name, table in terms.items():
        if is_site[table.atoms].any():
            atom = int(table.atoms[is_site[table.atoms]][0])
            raise TopologyError(
                f"{where}: {name} of the virtual site {atom + 1} ({top.atoms[atom].name}) are not evaluated"
            )
    return Topology(
        source=force_field.source,
        numbers=numbers[real].astype(np.int64),
        masses=masses[real] * DALTON_IN_ELECTRON_MASS,
        charges=np.array([atom.charge for atom in top.atoms], dtype=np.float64)[order],
        names=tuple(top.atoms[i].name for i in real),
        residue_names=tuple(top.atoms[i].residue.name for i in real),
        residue_indices=np.array([top.atoms[i].residue.idx for i in real], dtype=np.int64),
        lj_types=file_types[order],
        lj_c6=force_field.c6,
        lj_c12=force_field.c12,
        lj_rule=force_field.rule,
        exclusions=unique_pairs(particles[_exclusions(molecule)]),
        pairs14=reader.pairs14(file_types).renumbered(particles),
        sites=sites,
        massless_rows=np.flatnonzero(is_site),
        **{name: table.renumbered(particles) for name, table in terms.items()},  # type: ignore[arg-type]
    )


def _parse(where: str, force_field: ForceField, molecule: Molecule) -> Any:
    """Let ParmEd read what it is good at and find the bonded parameters."""
    kept = [
        (section, words)
        for section, words in molecule.lines
        if section not in _OWN_SECTIONS and not (section == "bonds" and words[2] in (_MORSE, _CUBIC))
    ]
    known = [
        line for line in force_field.lines if line[0] not in ("pairtypes", "nonbond_params", "cmaptypes")
    ]
    lines = [*known, ("moleculetype", [molecule.name, str(molecule.nrexcl)]), *kept]
    text = "".join(f"[ {section} ]\n{' '.join(words)}\n" for section, words in lines)
    top = gromacs.GromacsTopologyFile()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            top.read(StringIO(text), defines={}, parametrize=False)
            top.parametrize()
    except Exception as error:  # ParmEd raises whatever its parsing meets
        problem = without_parameters(top) or reason(error)
        raise TopologyError(f"{where}: {problem}") from error
    return top


def _check_masses(
    where: str, atoms: Any, masses: FloatArray, numbers: IntArray, is_site: np.ndarray[Any, Any]
) -> None:
    wrong = np.flatnonzero(np.where(is_site, masses != 0.0, (masses <= 0.0) | (numbers <= 0)))
    if len(wrong):
        atom = atoms[int(wrong[0])]
        problem = "is a virtual site with a mass" if is_site[wrong[0]] else "has no mass or element"
        raise TopologyError(f"{where}: atom {atom.idx + 1} ({atom.name}) {problem}")


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
    """The terms of a molecule that are not left to ParmEd; atoms are rows of [ atoms ], from 0."""

    where: str
    force_field: ForceField
    molecule: Molecule

    @cached_property
    def types(self) -> list[str]:
        return [words[1] for words in self.molecule.rows("atoms")]

    def morse_bonds(self) -> MorseBonds:
        """Bonds of type 3: b in nm, D in kJ/mol, beta in 1/nm."""
        atoms, values = self._bonds(_MORSE, 3)
        return MorseBonds(
            atoms, values[:, 1] * KJ_PER_MOL, values[:, 2] / NANOMETER, values[:, 0] * NANOMETER
        )

    def cubic_bonds(self) -> QuarticBonds:
        """Bonds of type 4: b in nm, k in kJ/mol/nm^2, k_cub in 1/nm; k u^2 (1 + k_cub u)."""
        atoms, values = self._bonds(_CUBIC, 3)
        k2 = values[:, 1] * KJ_PER_MOL / NANOMETER**2
        return QuarticBonds(
            atoms, k2, k2 * values[:, 2] / NANOMETER, np.zeros(len(atoms)), values[:, 0] * NANOMETER
        )

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

    def _bonds(self, function: str, n_parameters: int) -> tuple[IntArray, FloatArray]:
        """Atoms (n, 2) and parameters (n, n_parameters), their own or of [ bondtypes ]."""
        known = {
            frozenset(words[:2]): words[3:]
            for section, words in self.force_field.lines
            if section == "bondtypes" and words[2] == function
        }
        atoms, rows = [], []
        for words in self.molecule.rows("bonds"):
            if words[2] != function:
                continue
            pair = [int(word) - 1 for word in words[:2]]
            names = frozenset(self.force_field.bonded_type(self.types[row]) for row in pair)
            values = words[3:] or known.get(names, [])
            if len(values) != n_parameters:
                raise TopologyError(f"{self.where}: {self._missing('bond', pair)}")
            atoms.append(pair)
            rows.append(self.force_field.numbers("bonds", values, 0))
        return (
            np.array(atoms, dtype=np.int64).reshape(-1, 2),
            np.array(rows, dtype=np.float64).reshape(-1, n_parameters),
        )

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


def reason(error: Exception) -> str:
    """Why ParmEd could not read a file, in one line."""
    return f"not a readable GROMACS topology ({type(error).__name__}: {' '.join(str(error).split())})"
