"""Selections mean what MDAnalysis, AMBER and the file's own numbers mean by them, or are refused."""

import json
from dataclasses import replace

import MDAnalysis
import numpy as np
import pytest
from ase.geometry import cellpar_to_cell
from scipy.spatial.transform import Rotation

from conftest import ROOT
from pidelta.core.selection import describe_atoms, repeated_residue_numbers, select
from pidelta.core.structure import read_structure
from pidelta.errors import SettingError
from pidelta.state import System
from pidelta.units import ANGSTROM

URACIL_WATER = ROOT / "inputs" / "uracil-water" / "uracil-water.gro"

# molecules of the file in its order: residue number, name, segment, atoms
RESIDUES = [
    (11, "WAT", "W", ("OW", "HW1", "HW2")),
    (501, "LIG", "A", ("H", "C", "N")),
    (12, "WAT", "W", ("OW", "HW1", "HW2")),
    (5, "NA+", "", ("NA",)),
    (501, "GLY", "B", ("CA", "C5'", "O")),
]
ELEMENTS = {"NA": 11, "O": 8, "H": 1, "C": 6, "N": 7}


def made_up_system():
    rows = [(*residue[:3], name, index) for index, residue in enumerate(RESIDUES) for name in residue[3]]
    numbers, residue_names, segments, names, indices = zip(*rows, strict=True)
    centres = np.array([[1, 1, 1], [9, 9, 9], [5, 5, 5], [1, 5, 9], [5, 1, 1]])
    offsets = np.array([[0, 0, 0], [0.9, 0, 0], [0, 1.1, 0]])
    positions = np.array(
        [centres[i] + offsets[RESIDUES[i][3].index(name)] for i, name in zip(indices, names, strict=True)]
    )
    return System(
        numbers=np.array([ELEMENTS[name if name == "NA" else name[0]] for name in names]),
        positions=positions * ANGSTROM,
        cell=10.0 * np.eye(3) * ANGSTROM,
        names=names,
        residue_names=residue_names,
        residue_indices=np.array(indices),
        residue_numbers=np.array(numbers),
        segments=segments,
    )


@pytest.fixture
def system():
    return made_up_system()


WATERS, LIGAND, SODIUM, GLYCINE = [0, 1, 2, 6, 7, 8], [3, 4, 5], [9], [10, 11, 12]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", list(range(13))),
        (" all ", list(range(13))),
        ("resname LIG", LIGAND),
        ("resname LIG WAT", sorted(LIGAND + WATERS)),
        ("resname LIG or resid 12", [*LIGAND, 6, 7, 8]),
        ("resid 501", LIGAND + GLYCINE),
        ("resid 501 and segid A", LIGAND),
        ("resid 11 to 12", WATERS),
        ("resid 11:12", WATERS),
        ("resid 11-12 5", WATERS + SODIUM),
        ("resname WAT and element O", [0, 6]),
        ("element O N", [0, 5, 6, 12]),
        ("name HW*", [1, 2, 7, 8]),
        ("name C5'", [11]),
        ("index 0 to 2", [0, 1, 2]),
        ("bynum 1:3", [0, 1, 2]),
        ("not water", LIGAND + SODIUM + GLYCINE),
        ("(resname LIG or resid 12) and not element H", [4, 5, 6]),
        ("resname LIG or (resid 12 and element O)", [*LIGAND, 6]),
        ("byres name OW", WATERS),
        ("prop mass > 20", SODIUM),
        ("chainID B", GLYCINE),
        (":1", [0, 1, 2]),
        (":LIG", LIGAND),
        (":LIG,4", LIGAND + SODIUM),
        (":1-2@H*,C", [1, 2, 3, 4]),
        ("@1-3", [0, 1, 2]),
        ("@/O", [0, 6, 12]),
        (":WAT&!@OW", [1, 2, 7, 8]),
        ("(:WAT | :LIG) & !(@OW)", [1, 2, *LIGAND, 7, 8]),
        ("!:WAT,LIG,NA+", GLYCINE),
        ("@CA,C5'", [10, 11]),
        (":NA+", SODIUM),
        ([2, 0], [0, 2]),
    ],
)
def test_what_selections_mean(system, text, expected):
    assert select(text, system).tolist() == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("resname LIG, WAT", "resname LIG,; there are GLY, LIG, NA\\+, WAT"),
        ("resname LIG WTA", "resname WTA"),
        ("resname lig", "resname lig"),
        ("resname LIG or resid 1", "resid 1"),
        ("resname LIG and not name XX", "name XX"),
        ("resname LIG AND name C", "Unexpected token"),
        ("resid 501 900", "resid 900"),
        ("resid 1, 2, 3", "Failed to parse value: 1,"),
        ("resid 12 to 11", "resid 12 to 11"),
        ("resid 1-4", "resid 1 to 4"),
        ("resname LIG or nucleic", "nucleic"),
        ("around 3 resname XYZ", "resname XYZ"),
        ("index 40", "index 40"),
        ("bynum 0", "bynum 0"),
        ("element NA", "element NA; there are C, H, N, Na, O"),
        ("resname LIG or resid 12 and element O", "parentheses"),
        ("type CT", "types"),
        ("mass 12.011", "float equality"),
        ("name C and name N", "selects none"),
        ("colour blue", "Unknown selection token: 'colour'"),
        ("element", "Unexpected token"),
        ("", "expected a selection"),
        ("element H and  and name O", "expected a selection"),
        ("(" * 5000, "expected a selection"),
        ("smarts [#6", "expected a selection"),
        (":LIG,WTA", ":WTA in :LIG,WTA"),
        (":6", ":6"),
        (":0", ":0"),
        (":LIG,", ": in"),
        ("@0", "@0"),
        ("@14", "@14"),
        ("@CA,XX", "@XX"),
        ("@/Zz", "Unknown element Zz"),
        (":1.5", ":1.5"),
        (":LIG & & @C", "expected an AMBER mask"),
        (":LIG<:3.0", "no periodic images"),
        (":LIG@OW", "selects none"),
        ([13], "indices from 0 to 12, found 13"),
        ([-1], "found -1"),
        ([0, 0], "each once"),
        ([], "at least one"),
        ([10**30], "found 1000"),
    ],
)
def test_what_is_refused(system, text, found):
    with pytest.raises(SettingError, match=f"^atoms: .*{found}"):
        select(text, system)


def test_distances_are_those_of_periodic_images(system):
    """The ligand at (9, 9, 9) and the water at (1, 1, 1) are 3.5 angstrom apart, through three faces."""
    assert select("resname WAT and around 3.6 resname LIG", system).tolist() == [0, 1, 2]
    alone = replace(system, cell=None)
    with pytest.raises(SettingError, match="selects none"):
        select("resname WAT and around 3.6 resname LIG", alone)
    assert select(":LIG<:3.6 & :LIG", alone).tolist() == LIGAND


def test_a_turned_cell_has_the_same_distances(system):
    """MDAnalysis knows lengths and angles only."""
    rng = np.random.default_rng(4)
    cell = cellpar_to_cell([9.0, 11.0, 10.0, 70.0, 80.0, 65.0]) * ANGSTROM
    sloped = replace(system, cell=cell, positions=rng.uniform(0, 1, (13, 3)) @ cell)
    turn = Rotation.random(rng=rng).as_matrix()
    turned = replace(system, cell=cell @ turn, positions=sloped.positions @ turn)
    shifts = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) @ cell
    vectors = sloped.positions[:, None, None] - sloped.positions[LIGAND][:, None] + shifts
    distances = np.linalg.norm(vectors, axis=-1).min(axis=(1, 2)) / ANGSTROM
    for radius in (2.5, 3.5, 4.5):
        near = np.setdiff1d(np.flatnonzero(distances < radius), LIGAND).tolist()
        for variant in (sloped, turned):
            assert select(f"around {radius} resname LIG", variant).tolist() == near
    assert len(select("prop x > 0", sloped))
    with pytest.raises(SettingError, match="expected no 'prop'"):
        select("prop x > 0", turned)


def test_the_centre_of_a_broken_molecule_is_refused(system):
    assert select("sphzone 2 resname LIG", system).tolist() == LIGAND
    positions = system.positions.copy()
    positions[4] -= 10.0 * ANGSTROM
    with pytest.raises(SettingError, match="centre of sphzone"):
        select("sphzone 2 resname LIG", replace(system, positions=positions))


def test_bonds_and_charges_of_a_force_field(system):
    bonds = np.array([[3, 4], [4, 5], [0, 1], [0, 2]])
    assert select("bonded name C", system, bonds).tolist() == [3, 5]
    assert select("same fragment as name N", system, bonds).tolist() == LIGAND
    assert select(
        "prop charge < -0.5", system, charges=np.where(system.numbers == 8, -0.8, 0.4)
    ).tolist() == [
        0,
        6,
        12,
    ]
    for text in ("bonded name C", "prop charge < -0.5"):
        with pytest.raises(SettingError):
            select(text, system)


@pytest.mark.parametrize(
    "text",
    [
        "resname URA",
        "resname URA or byres (name OW and around 2.8 resname URA)",
        "resname URA and element O N",
        "resname URA or resid 5:7 12",
        "resname URA and (name N1 N3 or element C)",
        "sphlayer 3 4 resname URA",
    ],
)
def test_a_real_file_against_mdanalysis_itself(text):
    """MDAnalysis reads the file by itself; it guesses elements from names."""
    universe = MDAnalysis.Universe(str(URACIL_WATER))
    universe.guess_TopologyAttrs(to_guess=["elements"], force_guess=["elements"])
    expected = universe.select_atoms(text).indices
    assert len(expected) > 0
    assert select(text, read_structure(URACIL_WATER)).tolist() == expected.tolist()


def test_atoms_by_residue(system):
    assert describe_atoms(np.array([3, 4, 6, 10]), system) == [
        "A LIG 501: H C",
        "W WAT 12: OW",
        "B GLY 501: CA",
    ]
    water = read_structure(URACIL_WATER)
    lines = describe_atoms(np.arange(len(water)), water)
    assert lines[0].startswith("URA 1: ")
    assert lines[-1] == "and 893 more residues"


def test_check_prints_the_atoms(tmp_path, run, capsys):
    (tmp_path / "water.xyz").write_text("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n")
    (tmp_path / "pidelta.yaml").write_text("structure: water.xyz\nqm: {atoms: all}\n")
    assert run("check", tmp_path / "pidelta.yaml") == 0
    assert "UNK 1: O H H" in capsys.readouterr().out


def test_the_key_is_named(tmp_path, fail):
    (tmp_path / "water.xyz").write_text("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n")
    (tmp_path / "pidelta.yaml").write_text("structure: water.xyz\nqm: {atoms: resname LIG}\n")
    line = fail("check", tmp_path / "pidelta.yaml")
    problem = "qm.atoms: expected values that atoms have, found resname LIG; there are UNK"
    assert line == f"pidelta: {tmp_path / 'pidelta.yaml'}: {problem}"


def test_evaluate_of_a_file_that_numbers_residues_its_own_way(tmp_path, run):
    """The region is the molecule that the file numbers 7, not the seventh."""
    positions = [(0.0, 0.0), (0.0, 4.0), (4.0, 0.0)]
    rows = []
    for number, (x, y) in zip((3, 7, 1), positions, strict=True):
        for name, dx, dy in (("O", 0.0, 0.0), ("H1", 0.96, 0.0), ("H2", -0.24, 0.93)):
            rows.append(
                f"ATOM  {len(rows) + 1:5d}  {name:<3s} HOH A{number:4d}    {x + dx:8.3f}{y + dy:8.3f}"
                f"{0.0:8.3f}  1.00  0.00           {name[0]}"
            )
    (tmp_path / "water.pdb").write_text("\n".join([*rows, "END", ""]))
    energies = []
    for atoms in ("resid 7", "[3, 4, 5]", "':2'"):
        (tmp_path / "pidelta.yaml").write_text(
            f"structure: water.pdb\nqm: {{atoms: {atoms}}}\nmm: {{water: q-spc-fw}}\n"
        )
        assert run("evaluate", tmp_path / "pidelta.yaml", "--output", tmp_path / "out.json") == 0
        (frame,) = json.loads((tmp_path / "out.json").read_text())["frames"]
        energies.append(frame["energy"])
    assert energies == pytest.approx([energies[0]] * 3, abs=1e-9)


def test_residues_that_share_a_number_are_told():
    system = System(
        numbers=np.full(4, 8),
        positions=np.arange(12.0).reshape(4, 3),
        cell=None,
        names=("O",) * 4,
        residue_names=("SOL",) * 4,
        residue_indices=np.arange(4),
        residue_numbers=np.array([99999, 0, 1, 1]),
        segments=("", "", "", "B"),
    )
    assert repeated_residue_numbers(select("resid 1", system), system) == []  # two segments
    wrapped = replace(system, segments=("",) * 4)
    (line,) = repeated_residue_numbers(select("resid 1", wrapped), wrapped)
    assert line.startswith("the QM atoms are of 2 residues with one number, SOL 1")
