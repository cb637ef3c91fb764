"""GROMACS .top files (GROMACS reference manual, "File formats", "Topology file").

ParmEd preprocesses and parses; since it drops or misreads what it does not know, each molecule type is first
checked against the tables below and then given to ParmEd alone.
"""

from __future__ import annotations

import warnings
from contextlib import closing
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.polynomial.chebyshev import poly2cheb
from parmed import gromacs
from parmed.gromacs._gromacsfile import GromacsFile
from parmed.topologyobjects import DihedralTypeList

from pidelta.errors import TopologyError
from pidelta.mm.topology import Harmonic, Pairs14, Topology, Torsions, join, unique_pairs
from pidelta.state import FloatArray, IntArray
from pidelta.units import ANGSTROM, DALTON_IN_ELECTRON_MASS, KCAL_PER_MOL

# section: number of atoms, {function type: number of parameters}
_TERMS: dict[str, tuple[int, dict[str, int]]] = {
    "bonds": (2, {"1": 2}),
    "pairs": (2, {"1": 2}),
    "angles": (3, {"1": 2, "5": 4}),
    "dihedrals": (4, {"1": 3, "2": 2, "3": 6, "4": 3, "9": 3}),
}
# section of the force field: columns with the function type, function types that are read
_TYPES: dict[str, tuple[tuple[int, ...], set[str]]] = {
    "bondtypes": ((2,), {"1"}),
    "pairtypes": ((2,), {"1"}),
    "nonbond_params": ((2,), {"1"}),
    "angletypes": ((3,), {"1", "5"}),
    "dihedraltypes": ((2, 4), {"1", "2", "3", "4", "9"}),
}
_MINIMUM_WORDS = {"defaults": 2, "atomtypes": 6, "moleculetype": 2, "atoms": 6, "molecules": 2}
_RIGID = {"settles", "constraints"}

Line = tuple[str, list[str]]


@dataclass
class _Molecule:
    """The lines of a molecule type, as (section, words)."""

    name: str
    nrexcl: int
    lines: list[Line] = field(default_factory=list)

    def rows(self, section: str) -> list[list[str]]:
        return [words for where, words in self.lines if where == section]


def read_gromacs(path: Path) -> Topology:
    """Read a .top file with FLEXIBLE defined, so that flexible water is used where the file offers it.

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
    for name, _ in contents:
        _check_molecule(path, molecules[name], set(type_names))
    used = {words[1] for name, _ in contents for words in molecules[name].rows("atoms")}
    types = [name for name in dict.fromkeys(type_names) if name in used]
    templates = {name: _template(path, force_field, molecules[name], types) for name, _ in contents}
    parts = [templates[name] for name, count in contents for _ in range(count)]
    if not parts:
        raise TopologyError(f"{path}: [ molecules ]: expected at least one molecule, found none")
    return join(parts)


def _preprocess(path: Path) -> list[Line]:
    lines: list[Line] = []
    section = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = GromacsFile(str(path), includes=[gromacs.GROMACS_TOPDIR], defines={"FLEXIBLE": "1"})
            with closing(file):
                for text in file:
                    if text.strip().startswith("["):
                        section = text.strip()[1:].split("]")[0].strip()
                    elif text.strip():
                        lines.append((section, text.split()))
    except Exception as error:  # ParmEd raises whatever its parsing meets
        raise TopologyError(f"{path}: {_reason(error)}") from error
    return lines


def _split(path: Path, lines: list[Line]) -> tuple[list[Line], dict[str, _Molecule], list[tuple[str, int]]]:
    """The force field, the molecule types by name, and what the system contains."""
    force_field: list[Line] = []
    molecules: dict[str, _Molecule] = {}
    contents: list[tuple[str, int]] = []
    current = force_field
    for section, words in lines:
        if len(words) < _MINIMUM_WORDS.get(section, 1):
            raise TopologyError(
                f"{path}: [ {section} ]: expected at least {_MINIMUM_WORDS[section]} columns, "
                f"found {' '.join(words)!r}"
            )
        if section == "moleculetype":
            molecule = _Molecule(words[0], _integer(path, section, words[1]))
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
            if words[1] not in ("2", "3"):
                raise TopologyError(
                    f"{path}: [ defaults ]: expected combination rule 2 or 3, found {words[1]}"
                )
        if section in _TYPES:
            columns, functions = _TYPES[section]
            if not any(column < len(words) and words[column] in functions for column in columns):
                continue
        if section in _TYPES or section in ("defaults", "atomtypes"):
            kept.append((section, words))
    if not any(section == "defaults" for section, _ in kept):
        raise TopologyError(f"{path}: expected a section [ defaults ], found none")
    return kept


def _check_molecule(path: Path, molecule: _Molecule, types: set[str]) -> None:
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
        if len(words) > 8:
            raise TopologyError(f"{where}: [ atoms ]: atom {words[0]} has a second (free energy) state")
    for section, words in molecule.lines:
        if section in _RIGID:
            raise TopologyError(
                f"{where}: [ {section} ] keeps distances rigid, but i-PI has no constraints for ring "
                f"polymers; give flexible terms instead (#ifdef FLEXIBLE)"
            )
        if section in _TERMS:
            _check_term(where, section, words, len(atoms))
        elif section not in ("atoms", "exclusions"):
            raise TopologyError(f"{where}: [ {section} ] is not evaluated by pidelta")
        elif section == "exclusions":
            _check_indices(where, section, words, words, len(atoms))


def _check_term(where: str, section: str, words: list[str], n_atoms: int) -> None:
    size, functions = _TERMS[section]
    found = " ".join(words)
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
    if len(words) - size - 1 not in (0, n_parameters):
        raise TopologyError(
            f"{where}: [ {section} ]: expected {n_parameters} parameters or none, found {found!r}"
        )


def _is_not_finite(word: str) -> bool:
    try:
        return not np.isfinite(float(word))
    except ValueError:
        return False


def _check_indices(where: str, section: str, words: list[str], atoms: list[str], n_atoms: int) -> None:
    if not all(atom.isdigit() and 1 <= int(atom) <= n_atoms for atom in atoms):
        raise TopologyError(
            f"{where}: [ {section} ]: expected atoms from 1 to {n_atoms}, found {' '.join(words)!r}"
        )


def _template(path: Path, force_field: list[Line], molecule: _Molecule, types: list[str]) -> Topology:
    """One molecule as a topology; Lennard-Jones tables cover all of `types`."""
    where = f"{path}: molecule {molecule.name}"
    top, pairs = _parse(where, force_field, molecule)
    atoms = top.atoms
    for atom in atoms:
        if atom.atomic_number <= 0 or atom.mass <= 0.0:
            raise TopologyError(
                f"{where}: atom {atom.idx + 1} ({atom.name}) has no mass or element; "
                f"virtual sites are not available"
            )
    lj = _lennard_jones(top, types)
    lj_types = np.array([types.index(atom.type) for atom in atoms], dtype=np.int64)
    return Topology(
        source=str(path),
        numbers=np.array([atom.atomic_number for atom in atoms], dtype=np.int64),
        masses=np.array([atom.mass for atom in atoms]) * DALTON_IN_ELECTRON_MASS,
        charges=np.array([atom.charge for atom in atoms], dtype=np.float64),
        names=tuple(atom.name for atom in atoms),
        residue_names=tuple(atom.residue.name for atom in atoms),
        residue_indices=np.array([atom.residue.idx for atom in atoms], dtype=np.int64),
        bonds=_harmonic(top.bonds, 2, "req", ANGSTROM),
        angles=_harmonic(top.angles, 3, "theteq", np.pi / 180.0),
        urey_bradley=_harmonic(top.urey_bradleys, 2, "req", ANGSTROM),
        torsions=_torsions(top),
        impropers=_harmonic(top.impropers, 4, "psi_eq", np.pi / 180.0, k_name="psi_k"),
        lj_types=lj_types,
        lj_c6=lj[0],
        lj_c12=lj[1],
        exclusions=_exclusions(molecule),
        pairs14=_pairs14(where, top, pairs, lj_types, lj),
    )


def _parse(where: str, force_field: list[Line], molecule: _Molecule) -> tuple[Any, list[Any]]:
    """Let ParmEd read one molecule and find its bonded parameters; the pairs are returned as read."""
    lines = [*force_field, ("moleculetype", [molecule.name, str(molecule.nrexcl)]), *molecule.lines]
    text = "".join(f"[ {section} ]\n{' '.join(words)}\n" for section, words in lines)
    top = gromacs.GromacsTopologyFile()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            top.read(StringIO(text), defines={}, parametrize=False)
            pairs = list(top.adjusts)
            del top.adjusts[:]  # see _pairs14
            top.parametrize()
    except Exception as error:  # ParmEd raises whatever its parsing meets
        problem = _without_parameters(top) or _reason(error)
        raise TopologyError(f"{where}: {problem}") from error
    return top, pairs


def _without_parameters(top: Any) -> str | None:
    """Name the first term that ParmEd left without parameters, if that is what went wrong."""
    kinds = {"bonds": "bond", "angles": "angle", "urey_bradleys": "Urey-Bradley term"}
    kinds |= dict.fromkeys(("dihedrals", "rb_torsions", "impropers"), "dihedral")
    for kind, name in kinds.items():
        for term in getattr(top, kind):
            if term.type is None:
                atoms = [getattr(term, f"atom{i}") for i in range(1, 5) if hasattr(term, f"atom{i}")]
                return _no_parameters(name, atoms)
    return None


def _no_parameters(name: str, atoms: list[Any]) -> str:
    labels = " - ".join(f"{atom.idx + 1} {atom.name} ({atom.type})" for atom in atoms)
    return f"no parameters for the {name} {labels}"


def _harmonic(terms: Any, size: int, x0_name: str, unit: float, k_name: str = "k") -> Harmonic:
    """ParmEd's terms are K (x - x0)^2: k = 2 K; `unit` is that of x0, force constants are per radian."""
    energy = KCAL_PER_MOL / ANGSTROM**2 if x0_name == "req" else KCAL_PER_MOL
    return Harmonic(
        _atoms(terms, size),
        np.array([2.0 * getattr(term.type, k_name) for term in terms], dtype=np.float64) * energy,
        np.array([getattr(term.type, x0_name) for term in terms], dtype=np.float64) * unit,
    )


def _atoms(terms: Any, size: int) -> IntArray:
    rows = [[getattr(term, f"atom{i + 1}").idx for i in range(size)] for term in terms]
    return np.array(rows, dtype=np.int64).reshape(-1, size)


def _torsions(top: Any) -> Torsions:
    """Periodic torsions, and Ryckaert-Bellemans torsions as the cosine series they are equal to."""
    rows: list[tuple[list[int], float, int, float]] = []
    for atoms, term in zip(_atoms(top.dihedrals, 4).tolist(), top.dihedrals, strict=True):
        kinds = term.type if isinstance(term.type, DihedralTypeList) else [term.type]
        rows += [(atoms, kind.phi_k, round(kind.per), np.deg2rad(kind.phase)) for kind in kinds]
    for atoms, term in zip(_atoms(top.rb_torsions, 4).tolist(), top.rb_torsions, strict=True):
        # a polynomial in cos(phi - pi) = -cos(phi); the last term makes the constant right
        powers = [getattr(term.type, f"c{n}") * (-1) ** n for n in range(6)]
        series = poly2cheb(powers)
        rows += [(atoms, float(series[n]), n, 0.0) for n in range(1, len(series))]
        rows.append((atoms, 0.5 * float(series[0] - series[1:].sum()), 0, 0.0))
    return Torsions(
        np.array([row[0] for row in rows], dtype=np.int64).reshape(-1, 4),
        np.array([row[1] for row in rows], dtype=np.float64) * KCAL_PER_MOL,
        np.array([row[2] for row in rows], dtype=np.int64),
        np.array([row[3] for row in rows], dtype=np.float64),
    )


def _pairs14(where: str, top: Any, pairs: list[Any], lj_types: IntArray, lj: FloatArray) -> Pairs14:
    """Parameters of [ pairs ]: their own, those of [ pairtypes ], or the scaled ordinary ones.

    As in GROMACS, types are looked up by their non-bonded names, and the ordinary parameters include
    [ nonbond_params ]; ParmEd differs in both. `lj` (2, T, T) is c6 and c12.
    """
    rows = []
    for pair in pairs:
        i, j = pair.atom1, pair.atom2
        own = pair.type or top.parameterset.pair_types.get((i.type, j.type))
        if own is not None:
            sigma6 = (own.sigma * ANGSTROM) ** 6
            c6 = 4.0 * own.epsilon * KCAL_PER_MOL * sigma6
            rows.append((c6, c6 * sigma6))
        elif top.defaults.gen_pairs == "yes":
            rows.append(tuple(top.defaults.fudgeLJ * lj[:, lj_types[i.idx], lj_types[j.idx]]))
        else:
            raise TopologyError(f"{where}: {_no_parameters('pair', [i, j])}")
    c6_c12 = np.array(rows, dtype=np.float64).reshape(-1, 2)
    scale = np.full(len(pairs), top.defaults.fudgeQQ, dtype=np.float64)
    return Pairs14(_atoms(pairs, 2), c6_c12[:, 0], c6_c12[:, 1], scale)


def _lennard_jones(top: Any, types: list[str]) -> FloatArray:
    """c6 and c12 (2, T, T) by combination rule (2 Lorentz-Berthelot, 3 geometric) and [ nonbond_params ]."""
    known = top.parameterset.atom_types
    sigma = np.array([known[name].sigma for name in types]) * ANGSTROM
    epsilon = np.array([known[name].epsilon for name in types]) * KCAL_PER_MOL
    if top.defaults.comb_rule == 3:
        sigma_ij = np.sqrt(np.outer(sigma, sigma))
    else:
        sigma_ij = 0.5 * (sigma[:, None] + sigma[None, :])
    epsilon_ij = np.sqrt(np.outer(epsilon, epsilon))
    for (first, second), (pair_epsilon, r_min) in top.parameterset.nbfix_types.items():
        if first in types and second in types:
            i, j = types.index(first), types.index(second)
            sigma_ij[i, j] = r_min / 2 ** (1 / 6) * ANGSTROM
            epsilon_ij[i, j] = pair_epsilon * KCAL_PER_MOL
    return np.stack([4.0 * epsilon_ij * sigma_ij**6, 4.0 * epsilon_ij * sigma_ij**12])


def _exclusions(molecule: _Molecule) -> IntArray:
    """Pairs up to `nrexcl` bonds apart, and those of [ exclusions ]."""
    bonded: dict[int, set[int]] = {atom: set() for atom in range(len(molecule.rows("atoms")))}
    for words in molecule.rows("bonds"):
        i, j = int(words[0]) - 1, int(words[1]) - 1
        bonded[i].add(j)
        bonded[j].add(i)
    pairs: list[tuple[int, int]] = []
    for atom in bonded:
        reached = {atom}
        for _ in range(molecule.nrexcl):
            reached |= {partner for one in reached for partner in bonded[one]}
        pairs += [(atom, partner) for partner in reached]
    for words in molecule.rows("exclusions"):
        pairs += [(int(words[0]) - 1, int(word) - 1) for word in words[1:]]
    return unique_pairs(pairs)


def _integer(path: Path, section: str, word: str) -> int:
    if not word.isdigit():
        raise TopologyError(f"{path}: [ {section} ]: expected a number, found {word!r}")
    return int(word)


def _reason(error: Exception) -> str:
    return f"not a readable GROMACS topology ({type(error).__name__}: {' '.join(str(error).split())})"
