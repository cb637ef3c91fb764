"""Bonds, angles and dihedrals of a GROMACS molecule type, with parameters found as grompp finds them.

GROMACS reference manual, "Parameter files": types are known by function and names in either direction, X
stands for any type of a dihedral, and the fewest X win; consecutive lines of function 9 add up. Lines that
grompp calls errors or warns of are refused where they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.polynomial.chebyshev import poly2cheb

from pidelta.errors import TopologyError
from pidelta.mm.readers.conversion import multiplicities, no_parameters
from pidelta.mm.readers.gromacs_force_field import ForceField, Line, Molecule
from pidelta.mm.topology import Harmonic, MorseBonds, QuarticBonds, Torsions
from pidelta.state import FloatArray, IntArray
from pidelta.units import KJ_PER_MOL, NANOMETER

# section: number of atoms, {function type: number of parameters}
BONDED: dict[str, tuple[int, dict[str, int]]] = {
    "bonds": (2, {"1": 2, "3": 3, "4": 3}),
    "angles": (3, {"1": 2, "5": 4}),
    "dihedrals": (4, {"1": 3, "2": 2, "3": 6, "4": 3, "5": 4, "9": 3}),
}
_SECTION_OF = {"bondtypes": "bonds", "angletypes": "angles", "dihedraltypes": "dihedrals"}
_PROPER = ("1", "9")  # periodic, in one list of types


@dataclass
class _Block:
    """Consecutive lines of the same types."""

    types: tuple[str, ...]
    function: str
    rows: list[list[float]]
    contradicted: bool = False


@dataclass
class _Types:
    """Blocks of one section and function."""

    blocks: dict[tuple[str, ...], _Block] = field(default_factory=dict)

    def add(self, types: tuple[str, ...], function: str, values: list[float]) -> None:
        last = next(reversed(self.blocks.values()), None)
        block = self.blocks.setdefault(_key(types), _Block(types, function, []))
        if not block.rows or (block is last and block.types == types and block.function == function == "9"):
            block.rows.append(values)
        elif block.rows != [values]:
            block.contradicted = True

    def find(self, names: tuple[str, ...]) -> _Block | None:
        """The block of these names, or the first of those with the fewest wildcards."""
        exact = self.blocks.get(_key(names))
        if exact is not None:
            return exact
        both = (names, names[::-1])
        fitting = [
            block
            for block in self.blocks.values()
            if "X" in block.types
            and any(all(a in ("X", b) for a, b in zip(block.types, way, strict=True)) for way in both)
        ]
        return min(fitting, key=lambda block: block.types.count("X"), default=None)


def _key(types: tuple[str, ...]) -> tuple[str, ...]:
    return min(types, types[::-1])


class BondedTypes:
    """[ bondtypes ], [ angletypes ] and [ dihedraltypes ] of a force field."""

    def __init__(self, force_field: ForceField) -> None:
        self._force_field = force_field
        self._types: dict[tuple[str, str], _Types] = {}
        self._found: dict[tuple[str, str, tuple[str, ...]], _Block | None] = {}
        for line in force_field.lines:
            if line[0] in _SECTION_OF:
                self._read(line)

    def find(self, section: str, function: str, names: tuple[str, ...]) -> list[list[float]] | None:
        """Parameters of each line for these names, None without.

        Raises:
            TopologyError: the lines for these names contradict each other.
        """
        key = (section, function, names)
        if key not in self._found:
            types = self._types.get((section, _list_of(section, function)), _Types())
            self._found[key] = types.find(names)
        block = self._found[key]
        if block is None:
            return None
        if block.contradicted or (len(block.rows) > 1 and function != "9"):
            raise TopologyError(
                f"{self._force_field.source}: types of {section}: expected one set of parameters for "
                f"{' '.join(block.types)} (function type {function}), found several"
            )
        return block.rows

    def _read(self, line: Line) -> None:
        where, words = line
        section = _SECTION_OF[where]
        size = BONDED[section][0]
        if section == "dihedrals" and len(words[2]) == 1 and words[2].isdigit():
            size = 2
        types, function = tuple(words[:size]), words[size]
        if function not in BONDED[section][1]:
            return
        if section == "dihedrals" and size == 2:  # the outer atoms of impropers, else the inner ones
            types = (types[0], "X", "X", types[1]) if function == "2" else ("X", *types, "X")
        n_parameters = BONDED[section][1][function]
        if len(words) - size - 1 < n_parameters:
            raise TopologyError(
                f"{self._force_field.source}: [ {where} ]: expected {n_parameters} parameters, "
                f"found {' '.join(words)!r}"
            )
        values = self._force_field.numbers(where, words, size + 1)
        known = self._types.setdefault((section, _list_of(section, function)), _Types())
        known.add(types, function, values[:n_parameters])
        if values[n_parameters:] not in ([], values[:n_parameters]):  # a B state of its own
            known.blocks[_key(types)].contradicted = True


def _list_of(section: str, function: str) -> str:
    return _PROPER[0] if section == "dihedrals" and function in _PROPER else function


def bonded_terms(
    where: str, force_field: ForceField, bonded: BondedTypes, molecule: Molecule
) -> dict[str, Any]:
    """The tables of a topology that hold its bonded terms; atoms are rows of [ atoms ], from 0.

    Args:
        where: file and molecule, for messages.
        force_field: what its types mean.
        bonded: its types of bonds, angles and dihedrals.
        molecule: its lines, checked.

    Raises:
        TopologyError: a term has no parameters, or contradictory ones.
    """
    reader = _Reader(where, force_field, bonded, molecule)
    atoms3, values3 = reader.terms("bonds", "3")
    atoms4, values4 = reader.terms("bonds", "4")
    cubic = values4[:, 1] * KJ_PER_MOL / NANOMETER**2
    angles, with_ends = reader.terms("angles", "1"), reader.terms("angles", "5")
    return {
        "bonds": _distances(*reader.terms("bonds", "1")),
        "angles": Harmonic(
            np.concatenate([angles[0], with_ends[0]]),
            np.concatenate([angles[1][:, 1], with_ends[1][:, 1]]) * KJ_PER_MOL,
            np.deg2rad(np.concatenate([angles[1][:, 0], with_ends[1][:, 0]])),
        ),
        "urey_bradley": _distances(with_ends[0][:, [0, 2]], with_ends[1][:, 2:]),
        "torsions": reader.torsions(),
        "impropers": _angles(*reader.terms("dihedrals", "2")),
        # k u^2 (1 + k_cub u)
        "quartic_bonds": QuarticBonds(
            atoms4, cubic, cubic * values4[:, 2] / NANOMETER, np.zeros(len(atoms4)), values4[:, 0] * NANOMETER
        ),
        "morse_bonds": MorseBonds(
            atoms3, values3[:, 1] * KJ_PER_MOL, values3[:, 2] / NANOMETER, values3[:, 0] * NANOMETER
        ),
    }


def _distances(atoms: IntArray, values: FloatArray) -> Harmonic:
    return Harmonic(atoms, values[:, 1] * KJ_PER_MOL / NANOMETER**2, values[:, 0] * NANOMETER)


def _angles(atoms: IntArray, values: FloatArray) -> Harmonic:
    return Harmonic(atoms, values[:, 1] * KJ_PER_MOL, np.deg2rad(values[:, 0]))


class _Reader:
    """Rows of a molecule and their parameters."""

    def __init__(self, where: str, force_field: ForceField, bonded: BondedTypes, molecule: Molecule) -> None:
        self._where, self._force_field, self._molecule = where, force_field, molecule
        self._bonded = bonded
        rows = molecule.rows("atoms")
        self._names = [words[4] for words in rows]
        self._types = [words[1] for words in rows]

    def terms(self, section: str, *functions: str) -> tuple[IntArray, FloatArray]:
        """Atoms (n, k) and parameters (n, m) of the rows with some function types, their own or looked up."""
        size, n_parameters = BONDED[section][0], BONDED[section][1][functions[0]]
        atoms: list[list[int]] = []
        values: list[list[float]] = []
        for words in self._molecule.rows(section):
            if words[size] in functions:
                row = [int(word) - 1 for word in words[:size]]
                found = self._parameters(section, words[size], row, words)
                atoms += [row] * len(found)
                values += found
        return (
            np.array(atoms, dtype=np.int64).reshape(-1, size),
            np.array(values, dtype=np.float64).reshape(-1, n_parameters),
        )

    def torsions(self) -> Torsions:
        """Periodic torsions; Ryckaert-Bellemans and Fourier torsions as the cosine series they are."""
        atoms, values = self.terms("dihedrals", "1", "4", "9")
        atoms3, coefficients = self.terms("dihedrals", "3")
        periodicities = multiplicities(f"{self._where}: [ dihedrals ]", values[:, 2]).tolist()
        rows = [
            (row, phase, k, n)
            for row, (phase, k, _), n in zip(atoms.tolist(), values, periodicities, strict=True)
        ]
        for row, powers in zip(atoms3.tolist(), coefficients, strict=True):
            # a polynomial in cos(phi - pi) = -cos(phi); the last term makes the constant right
            series = poly2cheb(powers * (-1.0) ** np.arange(6))
            rows += [(row, 0.0, k, n) for n, k in enumerate(series[1:].tolist(), start=1)]
            rows.append((row, 0.0, 0.5 * float(series[0] - series[1:].sum()), 0))
        atoms5, halves = self.terms("dihedrals", "5")
        for row, series in zip(atoms5.tolist(), halves, strict=True):
            # 1/2 C_n (1 - (-1)^n cos(n phi))
            rows += [(row, 180.0 * (n % 2 == 0), 0.5 * k, n) for n, k in enumerate(series.tolist(), start=1)]
        return Torsions(
            np.array([row[0] for row in rows], dtype=np.int64).reshape(-1, 4),
            np.array([row[2] for row in rows], dtype=np.float64) * KJ_PER_MOL,
            np.array([row[3] for row in rows], dtype=np.int64),
            np.deg2rad(np.array([row[1] for row in rows], dtype=np.float64)),
        )

    def _parameters(self, section: str, function: str, row: list[int], words: Sequence[str]) -> Any:
        own = words[len(row) + 1 :]
        if own:
            return [self._force_field.numbers(section, list(words), len(row) + 1)]
        names = tuple(self._force_field.bonded_type(self._types[atom]) for atom in row)
        found = self._bonded.find(section, function, names)
        if found is None:
            labels = [(atom, self._names[atom], self._types[atom]) for atom in row]
            raise TopologyError(f"{self._where}: {no_parameters(section.removesuffix('s'), labels)}")
        return found
