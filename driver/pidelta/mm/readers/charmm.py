"""CHARMM .psf files with parameter files (https://academiccharmm.org/documentation, "io", "parmfile").

ParmEd parses and finds the parameters, but not of impropers. The non-bonded part is put together here: 1-4
pairs follow from the bonds (nbxmod 5) and have Lennard-Jones parameters of their own, NBFIX replaces the
combination rule.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from parmed.charmm import CharmmParameterSet, CharmmPsfFile

from pidelta.core.elements import guess_elements, misfit
from pidelta.errors import TopologyError
from pidelta.mm.lennard_jones import CombinationRule, combine
from pidelta.mm.readers.charmm_impropers import impropers
from pidelta.mm.readers.charmm_options import refuse_options
from pidelta.mm.readers.conversion import atoms_of, harmonic, pairs_within, torsions, without_parameters
from pidelta.mm.topology import CMAPs, Pairs14, Topology, unique_pairs
from pidelta.state import FloatArray, IntArray
from pidelta.units import ANGSTROM, DALTON_IN_ELECTRON_MASS, KCAL_PER_MOL

# sections that would add to the energy or change the exclusions if they had entries
_REFUSED = {"NNB": "explicit exclusions", "NUMLP": "lone pairs", "NUMANISO": "anisotropic polarisability"}


def read_charmm(path: Path, parameters: Sequence[Path]) -> Topology:
    """Read a .psf file with parameter, topology and stream files.

    Raises:
        TopologyError: a file is malformed, lacks parameters, or has terms that pidelta does not evaluate,
            such as lone pairs and Drude particles.
    """
    if not parameters:
        raise TopologyError(f"{path}: expected parameters in CHARMM .prm, .rtf or .str files, found none")
    _refuse_sections(path)
    for file in parameters:
        refuse_options(file)
    psf, known, rows = _parse(path, parameters)
    n_atoms = len(psf.atoms)
    rule: CombinationRule = "geometric" if known.combining_rule == "geometric" else "lorentz-berthelot"
    kinds = list({atom.atom_type.name: atom.atom_type for atom in psf.atoms}.values())
    index = {kind.name: i for i, kind in enumerate(kinds)}
    types = np.array([index[atom.atom_type.name] for atom in psf.atoms], dtype=np.int64)
    c6, c12 = _lennard_jones(kinds, rule, of_14=False)
    harmonic_impropers, periodic = impropers(path, parameters, rows, psf.atoms)
    bonded = pairs_within(atoms_of(psf.bonds, 2), n_atoms, 3)
    masses = np.array([atom.mass for atom in psf.atoms], dtype=np.float64)
    return Topology(
        source=str(path),
        numbers=_elements(path, psf.atoms, masses),
        masses=masses * DALTON_IN_ELECTRON_MASS,
        charges=np.array([atom.charge for atom in psf.atoms], dtype=np.float64),
        names=tuple(atom.name for atom in psf.atoms),
        residue_names=tuple(atom.residue.name for atom in psf.atoms),
        residue_indices=np.array([atom.residue.idx for atom in psf.atoms], dtype=np.int64),
        residue_numbers=np.array([atom.residue.number for atom in psf.atoms], dtype=np.int64),
        segments=tuple(atom.residue.segid.strip() for atom in psf.atoms),
        bonds=harmonic(psf.bonds, 2, "req"),
        angles=harmonic(psf.angles, 3, "theteq"),
        urey_bradley=harmonic(psf.urey_bradleys, 2, "req"),
        torsions=torsions(psf).joined(periodic),
        impropers=harmonic_impropers,
        cmaps=_cmaps(path, psf),
        lj_types=types,
        lj_c6=c6,
        lj_c12=c12,
        lj_rule=rule,
        exclusions=unique_pairs(np.concatenate(bonded)),
        pairs14=_pairs14(bonded[2], types, *_lennard_jones(kinds, rule, of_14=True)),
    )


def _elements(path: Path, atoms: Any, masses: FloatArray) -> IntArray:
    """(N,) from masses, types and names: a .psf file has no elements, and ParmEd looks at masses alone."""
    types, names = [str(atom.type) for atom in atoms], [atom.name for atom in atoms]
    numbers = guess_elements(masses, types, names)
    wrong = np.flatnonzero(numbers <= 0)
    if len(wrong):
        atom = int(wrong[0])
        problem = misfit(float(masses[atom]), types[atom], names[atom])
        raise TopologyError(f"{path}: atom {atom + 1} ({names[atom]}): {problem}")
    return numbers


def _refuse_sections(path: Path) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    first = text.partition("\n")[0].upper().split()
    if first[:1] != ["PSF"]:
        raise TopologyError(f"{path}: expected a CHARMM .psf file, found one that starts with {first[:3]}")
    if "DRUDE" in first:
        raise TopologyError(f"{path}: Drude particles are not evaluated by pidelta")
    for count, section in re.findall(r"^ *(\d+)[ \d]*!(\w+)", text, flags=re.MULTILINE):
        if section.upper() in _REFUSED and int(count):
            raise TopologyError(
                f"{path}: {_REFUSED[section.upper()]} (!{section}) are not evaluated by pidelta"
            )


def _parse(path: Path, parameters: Sequence[Path]) -> tuple[Any, Any, IntArray]:
    """The structure with its parameters, all parameters, and the atoms (n, 4) of impropers."""
    psf = known = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            psf = CharmmPsfFile(str(path))
            impropers_of_psf = atoms_of(psf.impropers, 4)
            del psf.impropers[:]
            known = CharmmParameterSet(*(str(file) for file in parameters))
            psf.load_parameters(known)
    except Exception as error:  # ParmEd raises whatever its parsing meets
        missing = None if known is None else _missing_type(psf, parameters) or without_parameters(psf)
        problem = missing or f"not readable ({type(error).__name__}: {' '.join(str(error).split())})"
        raise TopologyError(f"{path}: {problem}") from error
    incomplete = _missing_type(psf, parameters)
    if incomplete:
        raise TopologyError(f"{path}: {incomplete}")
    rows = [tuple(sorted((row, row[::-1]))[0]) for row in atoms_of(psf.dihedrals, 4).tolist()]
    if len(set(rows)) < len(rows):
        twice = next(row for row in rows if rows.count(row) > 1)
        raise TopologyError(f"{path}: the dihedral of atoms {list(twice)} is listed twice")
    return psf, known, impropers_of_psf


def _missing_type(psf: Any, parameters: Sequence[Path]) -> str | None:
    files = ", ".join(file.name for file in parameters)
    for atom in psf.atoms:
        label = f"atom {atom.idx + 1} ({atom.name}) has the type {atom.type}"
        if not hasattr(atom.atom_type, "epsilon"):
            return f"{label}, not defined in {files}"
        if atom.atom_type.epsilon is None or atom.atom_type.rmin is None:
            return f"{label}, without non-bonded parameters in {files}"
    return None


def _cmaps(path: Path, psf: Any) -> CMAPs:
    """CMAP terms; ParmEd's grids have the second angle run fastest, both from -pi."""
    grids: list[Any] = []
    for term in psf.cmaps:
        if term.type not in grids:
            grids.append(term.type)
    sizes = sorted({grid.resolution for grid in grids})
    if len(sizes) > 1:
        raise TopologyError(f"{path}: CMAP: expected maps of one size, found {sizes}")
    if not grids:
        return CMAPs()
    values = np.array([np.reshape(list(grid.grid), (sizes[0], sizes[0])) for grid in grids])
    maps = np.array([grids.index(term.type) for term in psf.cmaps], dtype=np.int64)
    return CMAPs(atoms_of(psf.cmaps, 5), maps, values * KCAL_PER_MOL)


def _lennard_jones(kinds: list[Any], rule: CombinationRule, *, of_14: bool) -> tuple[FloatArray, FloatArray]:
    """Tables c6 and c12 (T, T) by combination rule and NBFIX, ordinary or of 1-4 pairs."""
    suffix = "_14" if of_14 else ""
    sigma = np.array([getattr(kind, f"sigma{suffix}") for kind in kinds]) * ANGSTROM
    epsilon = np.array([abs(getattr(kind, f"epsilon{suffix}")) for kind in kinds]) * KCAL_PER_MOL
    c6, c12 = combine(sigma, epsilon, rule)
    index = {kind.name: i for i, kind in enumerate(kinds)}
    for kind in kinds:
        for other, values in kind.nbfix.items():
            if other in index:
                r_min, depth = values[2:] if of_14 else values[:2]
                i, j = index[kind.name], index[other]
                r6 = (r_min * ANGSTROM) ** 6
                c6[i, j] = c6[j, i] = 2.0 * abs(depth) * KCAL_PER_MOL * r6
                c12[i, j] = c12[j, i] = abs(depth) * KCAL_PER_MOL * r6**2
    return c6, c12


def _pairs14(pairs: IntArray, types: IntArray, c6: FloatArray, c12: FloatArray) -> Pairs14:
    kinds = types[pairs]
    rows = kinds[:, 0], kinds[:, 1]
    return Pairs14(pairs, c6[rows], c12[rows], np.ones(len(pairs)))
