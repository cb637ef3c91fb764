"""Topologies of molecules, water and ions, and what they make together, as ParmEd's structures.

ParmEd's units are angstrom, kcal/mol and e.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import parmed
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from pidelta.errors import SettingError, TopologyError
from pidelta.mm.water import WATER_MODELS
from pidelta.state import FloatArray, IntArray
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM, KCAL_PER_MOL
from pidelta.workflow.preparing.molecules import Molecule

WATER_NAME = "WAT"
_STAND_INS = {"q-tip4p-f": "q-spc-fw"}
"""Models that a .prmtop has no terms for, and those that take their place in it."""

# Wang, Wolf, Caldwell, Kollman, Case, J. Comput. Chem. 25, 1157 (2004): Rmin/2 and epsilon of the types
# hc, hn, c3, n3, oh, f, p5, ss, cl, br and i of GAFF
_GENERIC = {
    "H": (1.4870, 0.0157),
    "C": (1.9080, 0.1094),
    "N": (1.8240, 0.1700),
    "O": (1.7210, 0.2104),
    "F": (1.7500, 0.0610),
    "P": (2.1000, 0.2000),
    "S": (2.0000, 0.2500),
    "Cl": (1.9480, 0.2650),
    "Br": (2.0200, 0.4200),
    "I": (2.1500, 0.5000),
}
_POLAR_HYDROGEN = (0.6000, 0.0157)

# Joung, Cheatham, J. Phys. Chem. B 112, 9020 (2008), for Ewald sums and SPC/E water
_IONS = {
    ("Li", 1): (0.791, 0.3367344),
    ("Na", 1): (1.212, 0.3526418),
    ("K", 1): (1.593, 0.4297054),
    ("Rb", 1): (1.737, 0.4451036),
    ("Cs", 1): (2.021, 0.0898565),
    ("F", -1): (2.257, 0.0074005),
    ("Cl", -1): (2.711, 0.0127850),
    ("Br", -1): (2.751, 0.0269586),
    ("I", -1): (2.919, 0.0427845),
}
COUNTER_IONS = {1: "Na", -1: "Cl"}


def is_ion(molecule: Molecule) -> bool:
    """Whether it is one of the ions that have parameters here."""
    symbol = chemical_symbols[molecule.numbers[0]]
    return len(molecule) == 1 and (symbol, molecule.charge) in _IONS


def is_water(molecule: Molecule) -> bool:
    """Whether it is O H H."""
    return bool(np.array_equal(molecule.numbers, [8, 1, 1])) and molecule.charge == 0


def water(model: str, name: str = WATER_NAME) -> parmed.Structure:
    """A water molecule of a model; of one with a site M, a harmonic one that stands for it."""
    description = WATER_MODELS[_STAND_INS.get(model, model)]
    structure = parmed.Structure()
    radius = 0.5 * 2.0 ** (1.0 / 6.0) * description.sigma * BOHR_IN_ANGSTROM
    oxygen = (radius, description.epsilon / KCAL_PER_MOL)
    for label, symbol, charge, parameters in (
        ("O", "O", -2.0 * description.charge, oxygen),
        ("H1", "H", description.charge, (0.0, 0.0)),
        ("H2", "H", description.charge, (0.0, 0.0)),
    ):
        _add_atom(structure, label, f"{symbol}W", symbol, charge, parameters, name)
    stiffness = description.bond[0] / (KCAL_PER_MOL / ANGSTROM**2)
    kind = parmed.BondType(stiffness, description.length * BOHR_IN_ANGSTROM)
    structure.bond_types.append(kind)
    first, second, third = structure.atoms
    structure.bonds.extend([parmed.Bond(first, second, kind), parmed.Bond(first, third, kind)])
    bend = parmed.AngleType(0.5 * description.angle_k / KCAL_PER_MOL, float(np.rad2deg(description.angle)))
    structure.angle_types.append(bend)
    structure.angles.append(parmed.Angle(second, first, third, bend))
    structure.bond_types.claim()
    structure.angle_types.claim()
    return structure


def ion(symbol: str, charge: int, name: str | None = None) -> parmed.Structure:
    """A monatomic ion.

    Raises:
        SettingError: there are no parameters for it.
    """
    if (symbol, charge) not in _IONS:
        known = ", ".join(f"{element}{'+' if sign > 0 else '-'}" for element, sign in _IONS)
        raise SettingError("ion", f"expected one of {known}, found {symbol} of charge {charge:+d}")
    structure = parmed.Structure()
    label = f"{symbol}{'+' if charge > 0 else '-'}"
    _add_atom(structure, label, label, symbol, float(charge), _IONS[symbol, charge], name or label)
    return structure


def generic(molecule: Molecule) -> parmed.Structure:
    """A QM molecule with Lennard-Jones types by element, and bonds that hold nothing.

    Hydrogens on N, O, S and other elements than carbon are small ones. The charges are Gasteiger's: a method
    with electrostatic embedding has its own.

    Raises:
        TopologyError: an element has no such type.
    """
    symbols = [chemical_symbols[number] for number in molecule.numbers]
    unknown = sorted(set(symbols) - set(_GENERIC))
    if unknown:
        raise TopologyError(
            f"{molecule.source}: generic Lennard-Jones types: expected {', '.join(_GENERIC)}, "
            f"found {unknown[0]}; give a --topology"
        )
    structure = parmed.Structure()
    for atom, symbol in enumerate(symbols):
        partners = molecule.bonds[(molecule.bonds == atom).any(axis=1)]
        polar = symbol == "H" and not any(symbols[i] == "C" for i in partners.ravel())
        kind = "hn" if polar else f"{symbol.lower()}g"
        parameters = _POLAR_HYDROGEN if polar else _GENERIC[symbol]
        charge = float(molecule.partial_charges[atom])
        _add_atom(structure, f"{symbol}{atom + 1}"[:4], kind, symbol, charge, parameters, "MOL")
    for first, second in molecule.bonds.tolist():
        length = float(np.linalg.norm(molecule.positions[first] - molecule.positions[second]))
        kind = parmed.BondType(0.0, length * BOHR_IN_ANGSTROM)
        structure.bond_types.append(kind)
        structure.bonds.append(parmed.Bond(structure.atoms[first], structure.atoms[second], kind))
    structure.bond_types.claim()
    return structure


def load(path: Path) -> parmed.Structure:
    """Read a topology that a .prmtop can hold.

    Raises:
        TopologyError: the file is missing or ParmEd cannot read it.
    """
    if not path.is_file():
        raise TopologyError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return parmed.load_file(str(path)).copy(parmed.Structure)
    except Exception as error:  # ParmEd raises whatever its parsing hits
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TopologyError(f"{path}: cannot be read as a topology ({reason})") from None


def with_charge(structure: parmed.Structure, charge: int) -> float:
    """Spread what the charges of atoms are off an integer, by rounding, over all; return the largest change.

    Raises:
        TopologyError: it is more than rounding.
    """
    charges = [atom.charge for atom in structure.atoms]
    missing = charge - sum(charges)
    if abs(missing) > 0.05:
        raise TopologyError(
            f"expected force-field charges that sum to {charge:+d} e, found {sum(charges):+.4f} e"
        )
    for atom, old in zip(structure.atoms, charges, strict=True):
        atom.charge = old + missing / len(charges)
    return float(abs(missing)) / len(charges)


def rename_residues(structure: parmed.Structure, name: str) -> None:
    """Give all residues a name."""
    for residue in structure.residues:
        residue.name = name


def numbers_of(structure: parmed.Structure) -> IntArray:
    """(n,) atomic numbers."""
    return np.array([atom.atomic_number for atom in structure.atoms], dtype=np.int64)


def write_topology(path: Path, parts: Sequence[tuple[parmed.Structure, int]], edge: float) -> None:
    """Write copies of structures one after the other as a .prmtop.

    Args:
        path: of the file.
        parts: structures and how often each stands.
        edge: of the cubic cell in bohr.

    Raises:
        TopologyError: a structure has a term that a .prmtop has no place for.
    """
    whole = parmed.Structure()
    for structure, count in parts:
        if count:
            whole += structure * count if count > 1 else structure
    whole.box = [edge * BOHR_IN_ANGSTROM] * 3 + [90.0] * 3
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parmed.amber.AmberParm.from_structure(whole).save(str(path), overwrite=True, format="amber")
    except Exception as error:  # ParmEd raises whatever its conversion hits
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TopologyError(
            f"{path}: a .prmtop cannot hold the topologies that were given ({reason})"
        ) from None


def write_restart(path: Path, positions: FloatArray, edge: float) -> None:
    """Write positions (N, 3) in bohr and a cubic cell as an AMBER restart."""
    restart = parmed.amber.Rst7(natom=len(positions))
    restart.coordinates = (positions * BOHR_IN_ANGSTROM).ravel().tolist()
    restart.box = [edge * BOHR_IN_ANGSTROM] * 3 + [90.0] * 3
    partial = path.with_name(f".{path.name}.part")
    restart.write(str(partial))
    partial.replace(path)


def _add_atom(
    structure: parmed.Structure,
    label: str,
    type_name: str,
    symbol: str,
    charge: float,
    parameters: tuple[float, float],
    residue: str,
) -> None:
    number = atomic_numbers[symbol]
    mass = float(atomic_masses[number])
    atom: Any = parmed.Atom(
        atomic_number=number, name=label, type=type_name, charge=charge, mass=mass, rmin=parameters[0]
    )
    kind = parmed.AtomType(type_name, None, mass, number)
    kind.set_lj_params(parameters[1], parameters[0])
    atom.atom_type = kind
    atom.rmin, atom.epsilon = parameters
    structure.add_atom(atom, residue, 1)
