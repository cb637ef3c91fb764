"""Molecules of `pidelta prepare`: from SMILES and files, their charges and electrons, generic topologies."""

import lzma

import numpy as np
import pytest
from ase.data import atomic_numbers
from rdkit import Chem
from scipy.spatial.distance import pdist

from conftest import ROOT
from pidelta.errors import SettingError, StructureError, TopologyError
from pidelta.mm.evaluator import MMEvaluator
from pidelta.mm.readers import read_topology
from pidelta.mm.settings import ForceFieldSettings
from pidelta.units import BOHR_IN_ANGSTROM
from pidelta.workflow.preparing import topologies
from pidelta.workflow.preparing.components import (
    Request,
    check_quantum,
    default_names,
    make_component,
    read_species,
)
from pidelta.workflow.preparing.molecules import read_molecule

METHANOL = """@<TRIPOS>MOLECULE
methanol
6 5 1 0 0
SMALL
NO_CHARGES
@<TRIPOS>ATOM
1 C1 -0.3748 0.0099 -0.0113 C.3 1 MOL
2 O1 0.9230 -0.5260 0.0140 O.3 1 MOL
3 H1 -0.4300 0.8790 0.6720 H 1 MOL
4 H2 -1.1060 -0.7580 0.3050 H 1 MOL
5 H3 -0.6220 0.3360 -1.0410 H 1 MOL
6 H4 1.5450 0.1840 -0.2260 H 1 MOL
@<TRIPOS>BOND
1 1 2 1
2 1 3 1
3 1 4 1
4 1 5 1
5 2 6 1
"""


@pytest.mark.parametrize(
    ("smiles", "formula", "charge", "unpaired"),
    [
        ("CCO", "C2H6O", 0, 0),
        ("C[S+](C)C", "C3H9S", 1, 0),
        ("[NH3+]CC(=O)[O-]", "C2H5NO2", 0, 0),
        ("C[CH2]", "C2H5", 0, 1),
        ("[O][O]", "O2", 0, 2),
        ("[Cl-]", "Cl", -1, 0),
    ],
)
def test_a_smiles_becomes_its_atoms_charge_and_electrons(smiles, formula, charge, unpaired):
    molecule = read_molecule(smiles, None, 1)
    counted = {
        symbol: (molecule.numbers == number).sum()
        for symbol, number in atomic_numbers.items()
        if number in molecule.numbers
    }
    written = "".join(
        f"{symbol}{counted[symbol] if counted[symbol] > 1 else ''}" for symbol in sorted(counted)
    )
    assert (written, molecule.charge, molecule.unpaired) == (formula, charge, unpaired)
    assert molecule.partial_charges.sum() == pytest.approx(charge, abs=1e-9)
    if len(molecule) > 1:
        assert pdist(molecule.positions * BOHR_IN_ANGSTROM).min() > 0.9


def test_geometries_follow_the_seed():
    first, again, other = (read_molecule("OCCCO", None, seed).positions for seed in (1, 1, 3))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("suffix", [".sdf", ".xyz", ".pdb"])
@pytest.mark.parametrize("smiles", ["CC(=O)[O-]", "C[S+](C)C", "N#Cc1ccccc1"])
def test_files_keep_their_geometry(smiles, suffix, tmp_path):
    """Bonds of .xyz and .pdb are perceived; what RDKit wrote must come back as the same molecule."""
    made = read_molecule(smiles, None, 3)
    block = Chem.MolFromMolBlock(made.mol_block, removeHs=False)
    writers = {".sdf": Chem.MolToMolBlock, ".xyz": Chem.MolToXYZBlock, ".pdb": Chem.MolToPDBBlock}
    path = tmp_path / f"m{suffix}"
    path.write_text(writers[suffix](block))
    read = read_molecule(str(path), None if suffix == ".sdf" else made.charge, 5)
    assert read.smiles == made.smiles
    np.testing.assert_allclose(read.positions, made.positions, atol=2e-3)
    assert read.charge == made.charge


def test_mol2_is_read_with_its_geometry(tmp_path):
    (tmp_path / "m.mol2").write_text(METHANOL)
    molecule = read_molecule(str(tmp_path / "m.mol2"), 0, 1)
    assert molecule.smiles == "CO"
    np.testing.assert_allclose(molecule.positions[1] * BOHR_IN_ANGSTROM, [0.9230, -0.5260, 0.0140], atol=1e-4)


def test_missing_hydrogens_are_added_and_said(tmp_path):
    bare = Chem.RemoveHs(Chem.MolFromMolBlock(read_molecule("CCO", None, 1).mol_block, removeHs=False))
    (tmp_path / "m.sdf").write_text(Chem.MolToMolBlock(bare))
    molecule = read_molecule(str(tmp_path / "m.sdf"), None, 1)
    assert len(molecule) == 9
    assert "6 hydrogens were missing" in molecule.notes[0]


def test_carbon_chains_without_hydrogens_are_refused(tmp_path):
    """As from X-rays; carbon dioxide has none either."""
    for smiles, refused in (("CCO", True), ("c1ccccc1", True), ("O=C=O", False)):
        made = Chem.RemoveHs(Chem.MolFromMolBlock(read_molecule(smiles, None, 1).mol_block, removeHs=False))
        (tmp_path / "m.xyz").write_text(Chem.MolToXYZBlock(made))
        if refused:
            with pytest.raises(StructureError, match="expected all hydrogens"):
                read_molecule(str(tmp_path / "m.xyz"), None, 1)
        else:
            assert read_molecule(str(tmp_path / "m.xyz"), None, 1).smiles == "O=C=O"


def test_stereochemistry_that_is_left_open_is_said():
    assert read_molecule("C[C@H](N)C(=O)O", None, 1).notes == ()
    assert "1 stereo centres" in read_molecule("CC(N)C(=O)O", None, 1).notes[0]
    assert "1 stereo centres or double bonds" in read_molecule("CC=CC", None, 1).notes[0]


@pytest.mark.parametrize(
    ("source", "charge", "error", "message"),
    [
        ("C(C", None, StructureError, "expected a SMILES or a file"),
        ("", None, StructureError, "expected a SMILES or a file"),
        ("C*", None, StructureError, "wildcard"),
        ("C.O", None, StructureError, "expected one molecule, found 2"),
        ("lost.sdf", None, StructureError, "no such file"),
        ("CC(=O)[O-]", 0, SettingError, "expected -1"),
    ],
)
def test_what_is_no_molecule_is_refused(source, charge, error, message):
    with pytest.raises(error, match=message):
        read_molecule(source, charge, 1)


def test_a_wrong_charge_of_positions_alone_is_refused(tmp_path):
    """Benzene with a charge of +3 has no bonds that fit."""
    block = Chem.MolFromMolBlock(read_molecule("c1ccccc1", None, 1).mol_block, removeHs=False)
    (tmp_path / "m.xyz").write_text(Chem.MolToXYZBlock(block))
    with pytest.raises(StructureError, match="whose bonds fit a charge of"):
        read_molecule(str(tmp_path / "m.xyz"), 3, 1)


def species(smiles, quantum=True):
    return read_species(Request(smiles, "MOL", 1, None, quantum, None), 1, open_shell=True)


@pytest.mark.parametrize(
    ("smiles", "given", "expected"), [("C", None, 1), ("C[CH2]", 2, 2), ("[O][O]", 3, 3), ("[O][O]", 1, 1)]
)
def test_multiplicities_that_fit(smiles, given, expected):
    assert check_quantum([species(smiles)], given) == expected


@pytest.mark.parametrize(
    ("smiles", "given", "message"),
    [
        ("C[CH2]", None, "--multiplicity 2"),
        ("[O][O]", None, "--multiplicity 3"),
        ("C[CH2]", 1, "expected an even one with 17 electrons, found 1"),
        ("C", 2, "expected an odd one with 10 electrons, found 2"),
    ],
)
def test_multiplicities_that_do_not_fit_are_refused(smiles, given, message):
    with pytest.raises(SettingError, match=message):
        check_quantum([species(smiles)], given)


def test_elements_without_parameters_are_for_the_force_field_alone():
    with pytest.raises(SettingError, match="found F in CF"):
        check_quantum([species("CF")], None)
    assert check_quantum([species("CF", quantum=False), species("C")], None) == 1


def test_generic_types_are_those_of_the_elements():
    """Rmin/2 and epsilon of GAFF; the hydrogen of a hydroxyl is small."""
    structure = topologies.generic(read_molecule("CO", None, 1))
    by_name = {atom.name: (atom.rmin, atom.epsilon) for atom in structure.atoms}
    assert by_name["C1"] == (1.9080, 0.1094)
    assert by_name["O2"] == (1.7210, 0.2104)
    assert by_name["H3"] == (1.4870, 0.0157)
    assert by_name["H6"] == (0.6000, 0.0157)
    with pytest.raises(TopologyError, match="found Si"):
        topologies.generic(read_molecule("C[SiH3]", None, 1))


def test_charges_off_an_integer_by_more_than_rounding_are_refused():
    structure = topologies.water("spc-fw")
    structure.atoms[0].charge -= 0.01
    assert topologies.with_charge(structure, 0) == pytest.approx(0.01 / 3)
    assert sum(atom.charge for atom in structure.atoms) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(TopologyError, match="sum to"):
        topologies.with_charge(structure, 1)


@pytest.mark.parametrize("name", ["alanine.prmtop", "uracil.top"])
def test_a_given_topology_keeps_its_energy(name, tmp_path):
    """Terms of a peptide in AMBER's file and of uracil in GROMACS's, at the same positions, once written."""
    path = tmp_path / name
    if name == "uracil.top":
        text = (ROOT / "inputs/uracil-water/uracil-water.top").read_text()
        path.write_text(text.partition("[ molecules ]")[0] + "[ molecules ]\nURA  1\n")
        lines = (ROOT / "inputs/uracil-water/uracil-water.gro").read_text().splitlines()
        source = tmp_path / "uracil.gro"
        source.write_text("\n".join([lines[0], "12", *lines[2:14], lines[-1]]) + "\n")
    else:
        source = path.with_suffix(".rst7")
        for file in (path, source):
            file.write_bytes(lzma.decompress((ROOT / f"tests/data/links/{file.name}.xz").read_bytes()))
    request = Request(str(source), "MOL", 1, None, True, path)
    made = make_component(read_species(request, 1, open_shell=False), "spc-fw", "auto", None, tmp_path, print)
    topologies.write_topology(tmp_path / "system.prmtop", [(made.structure, 1)], 100.0)
    energies = [
        MMEvaluator(read_topology(file), ForceFieldSettings(cutoff=None)).evaluate(made.positions[None], None)
        for file in (path, tmp_path / "system.prmtop")
    ]
    for component in energies[0].components:
        values = [float(energy.components[component][0]) for energy in energies]
        assert values[1] == pytest.approx(values[0], rel=1e-5, abs=1e-8), component
    np.testing.assert_allclose(*(energy.gradient for energy in energies), atol=1e-5)


def test_names_of_residues_come_from_files():
    assert default_names(["CCO"]) == ["MOL"]
    assert default_names(["C", "sam.mol2", "x/sam.sdf", "1,3-diol.pdb"]) == ["MO1", "SAM", "M03", "13D"]
