"""GROMACS .top files (GROMACS reference manual, "File formats", "Topology file").

ParmEd preprocesses and reads the atoms; since it drops or misreads what it does not know, each molecule type
is first checked against the tables below.
"""

from __future__ import annotations

import math
import warnings
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from parmed import gromacs
from parmed.gromacs._gromacsfile import GromacsFile

from pidelta.core.text_fields import is_number
from pidelta.errors import TopologyError
from pidelta.mm.readers.gromacs_bonded import BONDED, BondedTypes
from pidelta.mm.readers.gromacs_force_field import ForceField, Line, Molecule
from pidelta.mm.readers.gromacs_molecule import SITE_SECTIONS, molecule_topology
from pidelta.mm.topology import Topology, join

# section: number of atoms, {function type: number of parameters}
_TERMS: dict[str, tuple[int, dict[str, int]]] = BONDED | {
    "pairs": (2, {"1": 2}),
    "cmap": (5, {"1": 0}),
    "virtual_sites2": (3, {"1": 1}),
    "virtual_sites3": (4, {"1": 2, "2": 2, "3": 2, "4": 3}),
    "dummies2": (3, {"1": 1}),
    "dummies3": (4, {"1": 2, "2": 2, "3": 2, "4": 3}),
}
# section of the force field: columns with the function type, function types that are read
_TYPES: dict[str, tuple[tuple[int, ...], set[str]]] = {
    "bondtypes": ((2,), {"1", "3", "4"}),
    "pairtypes": ((2,), {"1"}),
    "nonbond_params": ((2,), {"1"}),
    "angletypes": ((3,), {"1", "5"}),
    "cmaptypes": ((5,), {"1"}),
    "dihedraltypes": ((2, 4), {"1", "2", "3", "4", "5", "9"}),
}
_MINIMUM_WORDS = {
    "defaults": 2, "atomtypes": 6, "moleculetype": 2, "atoms": 6, "molecules": 2,
    "pairtypes": 5, "nonbond_params": 5, "cmaptypes": 8,
}  # fmt: skip
# sections of the force field without a part of the energy: constraints are refused, solvent is explicit
_WITHOUT_ENERGY = {"constrainttypes", "implicit_genborn_params", "implicit_surface_params"}
_RIGID = {"settles", "constraints"}
_OTHER_STATE = "expected a B state (of free energies) equal to the A state"


def read_gromacs(path: Path, *, rigid_water: bool = False) -> Topology:
    """Read a .top file with FLEXIBLE defined, so that flexible water is used where the file offers it.

    Args:
        path: the file.
        rigid_water: accept water that [ settles ] or [ constraints ] keep rigid, without any terms; a model
            takes its place.

    Raises:
        TopologyError: the file is malformed, lacks parameters, or has constraints or other terms that pidelta
            does not evaluate, in a molecule that the system contains.
    """
    force_field, molecules, contents = _split(path, _preprocess(path))
    if not contents:
        raise TopologyError(f"{path}: expected a section [ molecules ], found none; is the file truncated?")
    missing = [name for name, _ in contents if name not in molecules]
    if missing:
        raise TopologyError(f"{path}: [ molecules ] names {missing[0]}, which no [ moleculetype ] defines")
    force_field = _usable(path, force_field)
    type_names = [words[0] for section, words in force_field if section == "atomtypes"]
    replaced: dict[str, str] = {}
    for name, _ in contents:
        for section in sorted(_RIGID):
            if rigid_water and molecules[name].rows(section):
                replaced[name] = section
                molecules[name].drop(section)
        _check_molecule(path, molecules[name], set(type_names))
    used = {words[1] for name, _ in contents for words in molecules[name].rows("atoms")}
    types = [name for name in dict.fromkeys(type_names) if name in used]
    known = ForceField(str(path), force_field, types)
    bonded = BondedTypes(known)
    templates = {
        name: molecule_topology(f"{path}: molecule {name}", known, bonded, molecules[name])
        for name, _ in contents
    }
    for name, section in replaced.items():
        if sorted(templates[name].numbers) != [1, 1, 8]:
            raise _rigid(f"{path}: molecule {name}", section)
    parts = [templates[name] for name, count in contents for _ in range(count)]
    if not parts:
        raise TopologyError(f"{path}: [ molecules ]: expected at least one molecule, found none")
    return _numbered(join(parts), [len(part) for part in parts])


def _numbered(topology: Topology, sizes: list[int]) -> Topology:
    """Molecules of one residue are numbered on from the largest number of the others, as GROMACS does."""
    indices = topology.residue_indices
    starts = np.cumsum([0, *sizes])
    alone = [int(indices[end - 1] == indices[start]) for start, end in pairwise(starts)]
    is_alone = np.repeat(alone, sizes) == 1
    numbers = topology.residue_numbers.copy()
    largest = int(numbers[~is_alone].max(initial=0))
    numbers[is_alone] = largest + np.repeat(np.cumsum(alone), sizes)[is_alone]
    return replace(topology, residue_numbers=numbers)


def _preprocess(path: Path) -> list[Line]:
    lines: list[Line] = []
    section: str | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = GromacsFile(str(path), includes=[gromacs.GROMACS_TOPDIR], defines={"FLEXIBLE": "1"})
            with closing(file):
                for text in file:
                    if text.strip().startswith("["):
                        section = text.strip()[1:].split("]")[0].strip()
                    elif text.strip() and section is not None:  # as grompp: the first lines may be anything
                        lines.append((section, text.split()))
    except Exception as error:  # ParmEd raises whatever its parsing meets
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise TopologyError(f"{path}: not a readable GROMACS topology ({reason})") from error
    return lines


def _split(path: Path, lines: list[Line]) -> tuple[list[Line], dict[str, Molecule], list[tuple[str, int]]]:
    """The force field, the molecule types by name, and what the system contains."""
    force_field: list[Line] = []
    molecules: dict[str, Molecule] = {}
    contents: list[tuple[str, int]] = []
    current = force_field
    for section, words in lines:
        if len(words) < _MINIMUM_WORDS.get(section, 1):
            raise TopologyError(
                f"{path}: [ {section} ]: expected at least {_MINIMUM_WORDS[section]} columns, "
                f"found {' '.join(words)!r}"
            )
        if section == "moleculetype":
            molecule = Molecule(words[0], _integer(path, section, words[1]))
            if molecule.name in molecules:
                raise TopologyError(f"{path}: [ moleculetype ] {molecule.name}: expected one, found a second")
            molecules[molecule.name] = molecule
            current = molecule.lines
        elif section == "molecules":
            contents.append((words[0], _integer(path, section, words[1])))
        elif contents:
            raise TopologyError(f"{path}: [ {section} ] between molecules is not evaluated by pidelta")
        elif section != "system":
            current.append((section, words))
    return force_field, molecules, contents


def _usable(path: Path, force_field: list[Line]) -> list[Line]:
    """The force field without types of functions that no accepted molecule can use."""
    kept: list[Line] = []
    for section, words in force_field:
        if section == "defaults":
            if words[0] != "1":
                raise TopologyError(f"{path}: [ defaults ]: Buckingham potentials are not evaluated")
            if words[1] not in ("1", "2", "3"):
                raise TopologyError(
                    f"{path}: [ defaults ]: expected combination rule 1, 2 or 3, found {words[1]}"
                )
        if section in _TYPES:
            columns, functions = _TYPES[section]
            if any(column < len(words) and words[column] in functions for column in columns):
                kept.append((section, words))
            elif section in ("pairtypes", "nonbond_params"):  # for any pair, not only where a row names it
                raise TopologyError(
                    f"{path}: [ {section} ]: expected function type 1, found {' '.join(words)!r}"
                )
        elif section in ("defaults", "atomtypes"):
            kept.append((section, words))
        elif section not in _WITHOUT_ENERGY:
            raise TopologyError(f"{path}: [ {section} ] is not evaluated by pidelta")
    defaults = [" ".join(words) for section, words in kept if section == "defaults"]
    if len(defaults) != 1:
        found = " and ".join(repr(row) for row in defaults[:2]) or "none"
        raise TopologyError(f"{path}: expected one section [ defaults ], found {found}")
    return kept


def _check_molecule(path: Path, molecule: Molecule, types: set[str]) -> None:
    where = f"{path}: molecule {molecule.name}"
    atoms = molecule.rows("atoms")
    if not atoms:
        raise TopologyError(f"{where}: expected a section [ atoms ], found none")
    for number, words in enumerate(atoms, start=1):
        if words[0] != str(number):
            raise TopologyError(f"{where}: [ atoms ]: expected atom {number}, found {' '.join(words)!r}")
        if words[1] not in types:
            raise TopologyError(
                f"{where}: [ atoms ]: atom {words[0]} ({words[4]}) has the type {words[1]}, "
                f"which [ atomtypes ] does not define"
            )
        second = [words[column] for column in (1, 6, 7)[: max(0, len(words) - 8)]]
        if not _same(second, words[8:]):
            raise TopologyError(
                f"{where}: [ atoms ]: atom {words[0]}: {_OTHER_STATE}, found {' '.join(words)!r}"
            )
    for row, (section, words) in enumerate(molecule.lines):
        if section in _RIGID:
            raise _rigid(where, section)
        if section in _TERMS:
            molecule.lines[row] = (section, _checked_term(where, section, words, len(atoms)))
        elif section not in ("atoms", "exclusions"):
            raise TopologyError(f"{where}: [ {section} ] is not evaluated by pidelta")
        elif section == "exclusions":
            _check_indices(where, section, words, words, len(atoms))


def _rigid(where: str, section: str) -> TopologyError:
    return TopologyError(
        f"{where}: [ {section} ] keeps distances rigid, but i-PI has no constraints for ring polymers; "
        "give flexible terms instead (#ifdef FLEXIBLE) or, for water, choose a built-in model, such as "
        "q-spc-fw"
    )


def _checked_term(where: str, section: str, words: list[str], n_atoms: int) -> list[str]:
    """A row with its function type, which may be missing where it is 1, and without a B state."""
    size, functions = _TERMS[section]
    found = " ".join(words)
    if len(words) == size and section in ("bonds", "pairs", "angles", "dihedrals"):
        words = [*words, "1"]
    if len(words) <= size:
        raise TopologyError(
            f"{where}: [ {section} ]: expected {size} atoms and a function type, found {found!r}"
        )
    _check_indices(where, section, words, words[:size], n_atoms)
    if words[size] not in functions:
        raise TopologyError(
            f"{where}: [ {section} ]: expected function type {' or '.join(functions)}, found {words[size]} "
            f"in {found!r}"
        )
    if any(_is_not_finite(word) for word in words[size + 1 :]):
        raise TopologyError(f"{where}: [ {section} ]: expected finite parameters, found {found!r}")
    n_parameters = functions[words[size]]
    optional = section not in SITE_SECTIONS
    parameters = words[size + 1 :]
    if optional and section != "cmap" and len(parameters) == 2 * n_parameters:
        if not _same(parameters[:n_parameters], parameters[n_parameters:]):
            raise TopologyError(f"{where}: [ {section} ]: {_OTHER_STATE}, found {found!r}")
        return words[: size + 1 + n_parameters]
    if len(parameters) != n_parameters and not (optional and not parameters):
        raise TopologyError(
            f"{where}: [ {section} ]: expected {n_parameters} parameters{' or none' if optional else ''}, "
            f"found {found!r}"
        )
    return words


def _same(first: list[str], second: list[str]) -> bool:
    """Whether words are equal, as numbers where they are numbers."""
    return len(first) == len(second) and all(
        a == b or (is_number(a) and is_number(b) and float(a) == float(b))
        for a, b in zip(first, second, strict=True)
    )


def _is_not_finite(word: str) -> bool:
    return is_number(word) and not math.isfinite(float(word))


def _check_indices(where: str, section: str, words: list[str], atoms: list[str], n_atoms: int) -> None:
    if not all(atom.isdigit() and 1 <= int(atom) <= n_atoms for atom in atoms):
        raise TopologyError(
            f"{where}: [ {section} ]: expected atoms from 1 to {n_atoms}, found {' '.join(words)!r}"
        )


def _integer(path: Path, section: str, word: str) -> int:
    if not word.isdigit():
        raise TopologyError(f"{path}: [ {section} ]: expected a number, found {word!r}")
    return int(word)
