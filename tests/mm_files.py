"""A small protein as AMBER, CHARMM and GROMACS files, from force fields and a structure that OpenMM ships."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import parmed
import pytest
from parmed.charmm import CharmmParameterSet, CharmmPsfFile
from parmed.topologyobjects import AtomType, BondType

from pidelta.units import ANGSTROM

app = pytest.importorskip("openmm.app")
unit = pytest.importorskip("openmm.unit")

N_RESIDUES = 35


class _AtomTypes:
    """A generator that adds no force but keeps the type of each atom."""

    def createForce(self, system, data, method, cutoff, args):  # noqa: N802
        self.types = [data.atomType[atom] for atom in data.atoms]


def protein(*force_field, water_around=None):
    """Villin from OpenMM's test.pdb in a force field of OpenMM.

    Args:
        force_field: names of files.
        water_around: index of a residue; water within 7 angstrom of its CB is kept.

    Returns:
        ParmEd's structure, the type of each atom, the ForceField, and positions (N, 3) in bohr.
    """
    pdb = app.PDBFile(str(Path(app.__file__).parent / "data" / "test.pdb"))
    modeller = app.Modeller(pdb.topology, pdb.positions)
    kept = set() if water_around is None else _water_around(pdb, water_around)
    modeller.delete([r for r in list(modeller.topology.residues())[N_RESIDUES:] if r.index not in kept])
    forces = app.ForceField(*force_field)
    types = _AtomTypes()
    forces.registerGenerator(types)
    system = forces.createSystem(
        modeller.topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = parmed.openmm.load_topology(modeller.topology, system, modeller.positions)
    if water_around is not None:
        edges = pdb.topology.getUnitCellDimensions().value_in_unit(unit.angstrom)
        structure.box = [*edges, 90.0, 90.0, 90.0]
    return structure, types.types, forces, structure.coordinates * ANGSTROM


def _water_around(pdb, residue):
    """Indices of residues with an oxygen near the CB of `residue`."""
    positions = np.array(pdb.positions.value_in_unit(unit.angstrom))
    residues = list(pdb.topology.residues())
    centre = next(atom.index for atom in residues[residue].atoms() if atom.name == "CB")
    near = np.linalg.norm(positions - positions[centre], axis=1) < 7.0
    oxygens = {r.index: next(r.atoms()).index for r in residues if r.name == "HOH"}
    return {r for r, oxygen in oxygens.items() if near[oxygen]}


def write_solvated(folder, form, residue):
    """Write protein.* with water around a residue; returns `structure` and `mm` of a configuration."""
    water = "mm: {topology: protein.TOP, water: spc-fw, cutoff: 0.9 nm}"
    if form == "charmm":
        write_charmm(folder, "charmm36/water.xml", water_around=residue)
        mm = water.replace("TOP", "psf, parameters: [protein.rtf, protein.prm]")
        return f"structure: protein.pdb\n{mm}\n"
    structure, *_ = protein("amber14-all.xml", "amber14/tip3p.xml", water_around=residue)
    names = {"amber": ("prmtop", "rst7"), "gromacs": ("top", "gro")}[form]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            structure.save(str(folder / f"protein.{name}"))
    return f"structure: protein.{names[1]}\n{water.replace('TOP', names[0])}\n"


def write_charmm(folder, *more, water_around=None):
    """Write protein.psf, .prm, .rtf and .pdb of CHARMM36; returns positions (N, 3) in bohr."""
    structure, types, forces, positions = protein("charmm36.xml", *more, water_around=water_around)
    urey_bradleys = _separate_urey_bradleys(structure)
    _assign_types(structure, types, forces)
    structure.join_dihedrals()
    for dihedral in structure.dihedrals:  # those of other orders than the bonds', which are no impropers
        dihedral.improper = False
    del structure.adjusts[:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure.save(str(folder / "protein.pdb"))
        CharmmPsfFile.from_structure(structure, copy=True).write_psf(str(folder / "protein.psf"))
        parameters = CharmmParameterSet.from_structure(structure)
        parameters.write(par=str(folder / "protein.prm"), top=str(folder / "protein.rtf"))
    _add_urey_bradleys(folder / "protein.prm", urey_bradleys)
    return positions


def _separate_urey_bradleys(structure):
    """Move the bonds that span the ends of an angle; returns the angle and the type of each."""
    angles = {frozenset((angle.atom1.idx, angle.atom3.idx)): angle for angle in structure.angles}
    found = []
    for bond in list(structure.bonds):
        ends = frozenset((bond.atom1.idx, bond.atom2.idx))
        if ends in angles:
            found.append((angles[ends], BondType(bond.type.k, bond.type.req)))
            bond.delete()
            structure.bonds.remove(bond)
    return found


def _add_urey_bradleys(path, urey_bradleys):
    """Complete the lines of angles, since ParmEd writes no Urey-Bradley terms."""
    kinds = {}
    for angle, kind in urey_bradleys:
        types = (angle.atom1.type, angle.atom2.type, angle.atom3.type)
        kinds[types] = kinds[types[::-1]] = f"  {kind.k:.6f} {kind.req:.6f}"
    before, rest = path.read_text().split("ANGLES\n")
    angles, after = rest.split("DIHEDRALS\n")
    lines = [line + kinds.get(tuple(line.split()[:3]), "") for line in angles.splitlines()]
    path.write_text(before + "ANGLES\n" + "\n".join(lines) + "\nDIHEDRALS\n" + after)


def _assign_types(structure, types, forces):
    generator = next(g for g in forces.getGenerators() if type(g).__name__ == "LennardJonesGenerator")
    known = {}
    for atom, name in zip(structure.atoms, types, strict=True):
        lj = generator.ljTypes.paramsForType[name] | generator.ljTypes.extraParamsForType[name]
        kind = known.get(name)
        if kind is None:
            kind = known[name] = AtomType(name, len(known) + 1, atom.mass, atom.atomic_number)
            radius = 10.0 * 2 ** (1 / 6) / 2.0
            suffix = "14" if "sigma14" in lj else ""
            kind.set_lj_params(
                float(lj["epsilon"]) / 4.184,
                float(lj["sigma"]) * radius,
                float(lj["epsilon" + suffix]) / 4.184,
                float(lj["sigma" + suffix]) * radius,
            )
        atom.type, atom.atom_type = name, kind
    assert np.isfinite([kind.rmin for kind in known.values()]).all()


def write_chamber(folder):
    """Write protein.psf and its parameters as chamber.prmtop; the path."""
    path = folder / "chamber.prmtop"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        psf = CharmmPsfFile(str(folder / "protein.psf"))
        psf.load_parameters(CharmmParameterSet(str(folder / "protein.rtf"), str(folder / "protein.prm")))
        parmed.amber.ChamberParm.from_structure(psf).write_parm(str(path))
    return path
