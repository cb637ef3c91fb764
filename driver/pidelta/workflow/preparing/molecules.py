"""Molecules to prepare: read from a SMILES or a file, with bonds, charge and a geometry, by RDKit.

RDKit's distance geometry (ETKDG: Wang, Witek, Landrum, Riniker, J. Chem. Inf. Model. 60, 2044 (2020)) makes
geometries where there are none; MMFF94 or, where that has no parameters, nothing relaxes them. It perceives
bonds in files that name none (Kim, Kim, Bull. Korean Chem. Soc. 36, 1769 (2015)).
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pidelta.core.structure import read_structure
from pidelta.errors import MissingExtraError, SettingError, StructureError
from pidelta.state import FloatArray, IntArray
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM

FILES = (".mol2", ".sdf", ".mol", ".pdb", ".xyz")
_CONFORMERS = 10
_WATER = 78.4
"""Dielectric constant of water."""
_MOST_ATOMS = 999
"""What the format that AmberTools is given has room for."""


@dataclass(frozen=True)
class Molecule:
    """A molecule as chemists draw it, with a geometry.

    Attributes:
        source: the SMILES or file it came from.
        smiles: what it was understood as, for the user to see.
        numbers: (n,) atomic numbers, hydrogens included.
        positions: (n, 3) in bohr.
        charge: in e.
        unpaired: electrons that the formula shows without a partner.
        formal_charges: (n,) in e.
        partial_charges: (n,) Gasteiger's in e, or the formal ones where these have no parameters.
        bonds: (m, 2) atoms.
        mol_block: the molecule in MDL's format, for other programs.
        notes: what the user should know.
    """

    source: str
    smiles: str
    numbers: IntArray
    positions: FloatArray
    charge: int
    unpaired: int
    formal_charges: FloatArray
    partial_charges: FloatArray
    bonds: IntArray
    mol_block: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)


def read_molecule(source: str, charge: int | None, seed: int, *, open_shell: bool = False) -> Molecule:
    """Read a molecule, and make a geometry where there is none.

    Args:
        source: a SMILES, or the path of a file of one of the types FILES.
        charge: in e; None for that of the SMILES or file, and 0 where a file has none (.pdb, .xyz).
        seed: of the geometry.
        open_shell: whether bonds that are perceived may leave unpaired electrons.

    Raises:
        MissingExtraError: RDKit is not installed.
        StructureError: it cannot be read, has no 3D geometry, or is not one molecule.
        SettingError: the charge is not that of the molecule.
    """
    chem = _rdkit("Chem")
    _rdkit("RDLogger").DisableLog("rdApp.*")  # what it says there is said in errors and notes
    path = Path(source)
    if path.suffix.lower() in FILES or is_file(source):
        read = _read_file(path, charge, open_shell)
        where, geometry_is_given = str(path), read.GetNumConformers() > 0 and read.GetConformer().Is3D()
    else:
        read, where, geometry_is_given = _read_smiles(source), f"SMILES {source}", False
    fragments = chem.GetMolFrags(read)
    if len(fragments) != 1:
        raise StructureError(
            f"{where}: expected one molecule, found {len(fragments)}; give each as an argument of its own"
        )
    found = int(chem.GetFormalCharge(read))
    if charge is not None and found != charge:
        raise SettingError("charge", f"expected {found:+d}, as {where} has it, found {charge:+d}")
    notes = []
    complete = chem.AddHs(read, addCoords=geometry_is_given)
    added = complete.GetNumAtoms() - read.GetNumAtoms()
    if added and path.suffix.lower() in FILES:
        notes.append(f"{where}: {added} hydrogens were missing and are added")
    if complete.GetNumAtoms() > _MOST_ATOMS:
        raise StructureError(
            f"{where}: expected at most {_MOST_ATOMS} atoms without a topology, "
            f"found {complete.GetNumAtoms()}"
        )
    if not geometry_is_given:
        notes += _undecided_stereo(complete)
        _embed(complete, where, seed)
    return _molecule(source, complete, notes)


def is_file(source: str) -> bool:
    """Whether a source is a file that exists; a SMILES may be longer than any name of a file."""
    try:
        return Path(source).is_file()
    except OSError:
        return False


def _rdkit(module: str) -> Any:
    try:
        return importlib.import_module(f"rdkit.{module}")
    except ModuleNotFoundError:
        raise MissingExtraError("rdkit", "prepare", "preparing a molecule") from None


def _read_smiles(smiles: str) -> Any:
    molecule = _rdkit("Chem").MolFromSmiles(smiles)
    if molecule is None or molecule.GetNumAtoms() == 0:
        raise StructureError(f"expected a SMILES or a file ending in {', '.join(FILES)}, found {smiles!r}")
    if any(atom.GetAtomicNum() == 0 for atom in molecule.GetAtoms()):
        raise StructureError(f"SMILES {smiles}: expected elements, found the wildcard *")
    return molecule


def _read_file(path: Path, charge: int | None, open_shell: bool) -> Any:
    if not path.is_file():
        raise StructureError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix not in FILES:
        raise StructureError(f"{path}: expected a file ending in {', '.join(FILES)}, found {suffix!r}")
    if suffix in (".xyz", ".pdb"):
        return _from_positions(path, charge or 0, open_shell)
    chem = _rdkit("Chem")
    try:
        if suffix == ".mol2":
            molecule = chem.MolFromMol2File(str(path), removeHs=False)
        else:
            molecules = list(chem.SDMolSupplier(str(path), removeHs=False))
            if len(molecules) > 1:
                raise StructureError(f"{path}: expected one molecule, found {len(molecules)}")
            molecule = molecules[0] if molecules else None
    except OSError:
        molecule = None
    if molecule is None:
        kind = "Sybyl's types of atoms" if suffix == ".mol2" else "bonds and valences that fit"
        raise StructureError(f"{path}: expected a molecule with {kind}, found something else")
    return molecule


def _from_positions(path: Path, charge: int, open_shell: bool) -> Any:
    """Perceive bonds from distances, and their orders from the charge."""
    chem, bonds = _rdkit("Chem"), _rdkit("Chem.rdDetermineBonds")
    system = read_structure(path)
    lines = [str(len(system)), ""]
    symbols = _rdkit("Chem").GetPeriodicTable().GetElementSymbol
    lines += [
        f"{symbols(int(number))} {x:.8f} {y:.8f} {z:.8f}"
        for number, (x, y, z) in zip(system.numbers, system.positions * BOHR_IN_ANGSTROM, strict=True)
    ]
    molecule = chem.MolFromXYZBlock("\n".join(lines) + "\n")
    try:
        bonds.DetermineConnectivity(molecule)
        _refuse_bare_carbon(path, molecule)
        if len(chem.GetMolFrags(molecule)) == 1:
            bonds.DetermineBondOrders(molecule, charge=charge, allowChargedFragments=not open_shell)
        chem.SanitizeMol(molecule)
    except StructureError:
        raise
    except Exception as error:  # RDKit raises whatever its perception hits
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise StructureError(
            f"{path}: expected atoms, all hydrogens among them, whose bonds fit a charge of {charge:+d} e, "
            f"found none ({reason}); give --charge, or an .sdf, which has the bonds"
        ) from None
    return molecule


def _refuse_bare_carbon(path: Path, molecule: Any) -> None:
    """Structures from X-rays lack hydrogens, and RDKit would make triple bonds and radicals of them."""
    numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    bonds = [(bond.GetBeginAtom(), bond.GetEndAtom()) for bond in molecule.GetBonds()]
    if 1 not in numbers and any(a.GetAtomicNum() == b.GetAtomicNum() == 6 for a, b in bonds):
        raise StructureError(
            f"{path}: expected all hydrogens, found carbon chains without any; of an .sdf they can be added"
        )


def _undecided_stereo(molecule: Any) -> list[str]:
    chem = _rdkit("Chem")
    chem.AssignStereochemistry(molecule, cleanIt=True, force=True)
    centres = [
        atom for atom, kind in chem.FindMolChiralCenters(molecule, includeUnassigned=True) if kind == "?"
    ]
    doubles = [
        bond
        for bond in chem.FindPotentialStereo(molecule)
        if bond.type == chem.StereoType.Bond_Double and bond.specified == chem.StereoSpecified.Unspecified
    ]
    count = len(centres) + len(doubles)
    if not count:
        return []
    return [f"{count} stereo centres or double bonds are not given: one isomer of several is made"]


def _embed(molecule: Any, where: str, seed: int) -> None:
    """The conformer that is lowest in MMFF94, or the first where that has no parameters.

    Charges count as in water: in vacuum zwitterions and sugars would fold onto themselves.
    """
    all_chem = _rdkit("Chem.AllChem")
    count = 1 if molecule.GetNumAtoms() == 1 else _CONFORMERS
    options = all_chem.ETKDGv3()
    options.randomSeed = seed
    conformers = list(all_chem.EmbedMultipleConfs(molecule, count, options))
    if not conformers:
        raise StructureError(f"{where}: RDKit finds no geometry; give a file that has one")
    lowest = conformers[0]
    if all_chem.MMFFHasAllMoleculeParams(molecule):
        properties = all_chem.MMFFGetMoleculeProperties(molecule)
        properties.SetMMFFDielectricConstant(_WATER)
        energies = []
        for conformer in conformers:
            field = all_chem.MMFFGetMoleculeForceField(molecule, properties, confId=conformer)
            field.Minimize(maxIts=2000)
            energies.append(field.CalcEnergy())
        lowest = conformers[int(np.argmin(energies))]
    positions = molecule.GetConformer(lowest).GetPositions()
    molecule.RemoveAllConformers()
    conformer = _rdkit("Chem").Conformer(molecule.GetNumAtoms())
    conformer.SetPositions(positions)
    molecule.AddConformer(conformer)


def _molecule(source: str, molecule: Any, notes: list[str]) -> Molecule:
    chem = _rdkit("Chem")
    atoms = list(molecule.GetAtoms())
    chem.AssignStereochemistryFrom3D(molecule)
    formal = np.array([float(atom.GetFormalCharge()) for atom in atoms])
    return Molecule(
        source=source,
        smiles=chem.MolToSmiles(chem.RemoveHs(molecule)),
        numbers=np.array([atom.GetAtomicNum() for atom in atoms], dtype=np.int64),
        positions=np.array(molecule.GetConformer().GetPositions(), dtype=np.float64) * ANGSTROM,
        charge=round(formal.sum()),
        unpaired=sum(atom.GetNumRadicalElectrons() for atom in atoms),
        formal_charges=formal,
        partial_charges=_gasteiger(molecule, formal),
        bonds=np.array(
            [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds()], dtype=np.int64
        ).reshape(-1, 2),
        mol_block=chem.MolToMolBlock(molecule),
        notes=tuple(notes),
    )


def _gasteiger(molecule: Any, formal: FloatArray) -> FloatArray:
    copy = _rdkit("Chem").Mol(molecule)
    _rdkit("Chem.rdPartialCharges").ComputeGasteigerCharges(copy)
    charges = np.array([float(atom.GetProp("_GasteigerCharge")) for atom in copy.GetAtoms()])
    if not all(math.isfinite(charge) for charge in charges):
        return formal
    return np.asarray(charges + (formal.sum() - charges.sum()) / len(charges))
