"""Structure files that users bring: restarts of every form, and names that are not those of the topology."""

from __future__ import annotations

import re
import warnings
from types import SimpleNamespace

import ase
import ase.io
import numpy as np
import parmed
import pytest
from scipy.spatial.transform import Rotation

from pidelta.core.names import NameDifference, swapped_names
from pidelta.core.structure import read_coordinates, read_structure
from pidelta.errors import StructureError
from pidelta.units import ANGSTROM

WATER = ([8, 1, 1], ["OW", "HW1", "HW2"], "SOL")
SODIUM, CHLORIDE = ([11], ["NA"], "NA"), ([17], ["CL"], "CL")


def topology(*residues, **others):
    """Atoms of residues (numbers, names, residue name)."""
    values = {
        "numbers": np.array([number for numbers, _, _ in residues for number in numbers]),
        "names": tuple(name for _, names, _ in residues for name in names),
        "residue_names": tuple(name for numbers, _, name in residues for _ in numbers),
        "residue_indices": np.repeat(np.arange(len(residues)), [len(numbers) for numbers, _, _ in residues]),
        "massless_rows": np.zeros(0, dtype=np.int64),
        "periodic": False,
        "cell_angle": 90.0,
    }
    return SimpleNamespace(**(values | others))


def atoms(count, **others):
    return topology(*[CHLORIDE] * count, **others)


def positions(count, seed=0):
    return np.random.default_rng(seed).uniform(-9.0, 99.0, size=(count, 3)).round(7)


def columns(values):
    numbers = [f"{value:12.7f}" for value in np.ravel(values)]
    return "".join("".join(numbers[i : i + 6]) + "\n" for i in range(0, len(numbers), 6))


BOX = "  30.0000000  31.0000000  32.0000000"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("velocities", [False, True])
@pytest.mark.parametrize("box", ["", BOX, BOX + "  90.0000000  80.0000000  90.0000000"])
@pytest.mark.parametrize("header", ["{:5d}", "{:6d}  0.1000000E+04", "{:5d}  1.0000000E+03  3.0000000E+02"])
def test_restarts(tmp_path, count, velocities, box, header):
    path = tmp_path / "a.rst7"
    expected = positions(count)
    text = f"title\n{header.format(count)}\n{columns(expected)}"
    text += (columns(positions(count, 1) / 99.0) if velocities else "") + (box + "\n" if box else "")
    path.write_text(text)
    periodic = bool(box)
    found = read_coordinates(path, atoms(count, periodic=periodic))
    np.testing.assert_allclose(found.positions, expected * ANGSTROM, atol=1e-6)
    assert (found.cell is not None) == periodic
    if box:
        np.testing.assert_allclose(np.linalg.norm(found.cell, axis=1) / ANGSTROM, [30.0, 31.0, 32.0])
        beta = 80.0 if "80.0" in box else 90.0
        np.testing.assert_allclose(
            found.cell[0] @ found.cell[2], 960.0 * ANGSTROM**2 * np.cos(np.deg2rad(beta)), atol=1e-9
        )
    assert found.labels is None


def test_restarts_agree_with_parmed(tmp_path):
    path = tmp_path / "a.rst7"
    restart = parmed.amber.Rst7(natom=5)
    restart.coordinates, restart.vels = positions(5), positions(5, 1) / 99.0
    restart.box = [30.0, 31.0, 32.0, 109.4712190, 109.4712190, 109.4712190]
    restart.write(str(path))
    found = read_coordinates(path, atoms(5))
    np.testing.assert_allclose(found.positions, parmed.amber.Rst7(str(path)).coordinates[0] * ANGSTROM)
    assert np.linalg.det(found.cell) == pytest.approx(0.7698004 * 30 * 31 * 32 * ANGSTROM**3)


def test_lengths_of_a_box_have_the_angles_of_the_topology(tmp_path):
    path = tmp_path / "a.crd"
    path.write_text(f"title\n    4\n{columns(positions(4))}{BOX}\n")
    octahedron = read_coordinates(path, atoms(4, cell_angle=109.4712206)).cell
    assert np.linalg.det(octahedron) == pytest.approx(0.7698004 * 30 * 31 * 32 * ANGSTROM**3)
    with pytest.raises(
        StructureError, match="expected a box with its angles, as that of the topology is triclinic"
    ):
        read_coordinates(path, atoms(4, cell_angle=None))


def test_a_box_in_other_columns(tmp_path):
    path = tmp_path / "a.restrt"
    path.write_text(f"title\n    4\n{columns(positions(4))} 30.0 31.0 32.0 90.0 90.0 90.0\n")
    found = read_coordinates(path, atoms(4))
    np.testing.assert_allclose(np.diag(found.cell) / ANGSTROM, [30.0, 31.0, 32.0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "title\n   1.000   2.000   3.000   4.000   5.000   6.000\n",
            "looks like an AMBER trajectory (mdcrd)",
        ),
        ("title\n", "expected the number of atoms in the second line, found 1 lines"),
        ("title\nfour\n", "expected the number of atoms in the second line, found 'four'"),
        (f"title\n    4\n{columns(positions(3))}", "expected a coordinate in 12 columns, found '' at atom 3"),
        (
            f"title\n    4\n{columns(positions(4))}{columns(positions(9))}",
            "expected 2 lines of positions of 4 atoms",
        ),
        (f"title\n    4\n{columns(positions(4))}{BOX[:-14]}\n", "expected a box of three lengths"),
        (f"title\n    4\n{columns(positions(4))}{BOX[:-2]}**\n", "expected a box of three lengths"),
    ],
)
@pytest.mark.parametrize("suffix", [".rst7", ".mdcrd", ".crd"])
def test_restarts_that_are_refused(tmp_path, text, expected, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text(text)
    with pytest.raises(StructureError, match=re.escape(expected)) as caught:
        read_coordinates(path, atoms(4))
    assert str(caught.value).startswith(str(path))


def test_trajectories_in_netcdf_are_refused(tmp_path):
    path = tmp_path / "a.nc"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trajectory = parmed.amber.NetCDFTraj.open_new(str(path), natom=4, box=False)
        for seed in range(3):
            trajectory.add_coordinates(positions(4, seed))
        trajectory.close()
    with pytest.raises(StructureError, match="expected one structure, found an AMBER trajectory of 3"):
        read_coordinates(path, atoms(4))


def gro(path, *residues):
    rows = []
    for residue, (_, names, residue_name) in enumerate(residues, start=1):
        for name in names:
            x, y, z = positions(1, len(rows))[0] / 10.0
            rows.append(f"{residue:5d}{residue_name:<5s}{name:>5s}{len(rows) + 1:5d}{x:8.3f}{y:8.3f}{z:8.3f}")
    path.write_text("\n".join(["title", f"{len(rows):5d}", *rows, "   9.0   9.0   9.0", ""]))
    return path


def pdb(path, *residues):
    """Without the column of elements."""
    rows = []
    for residue, (_, names, residue_name) in enumerate(residues, start=1):
        for name in names:
            x, y, z = positions(1, len(rows))[0]
            where = f"{len(rows) + 1:5d} {name:<4s} {residue_name:<4s} {residue:4d}"
            rows.append(f"ATOM  {where}    {x:8.3f}{y:8.3f}{z:8.3f}")
    path.write_text("\n".join([*rows, "END", ""]))
    return path


def crd(path, *residues):
    rows = []
    for residue, (_, names, residue_name) in enumerate(residues, start=1):
        for name in names:
            x, y, z = positions(1, len(rows))[0]
            rows.append(
                f"{len(rows) + 1:5d}{residue:5d} {residue_name:<4s} {name:<4s}{x:10.5f}{y:10.5f}{z:10.5f} "
                f"SEG  {residue:<4d}{0.0:10.5f}"
            )
    path.write_text("\n".join(["* title", "*", f"{len(rows):5d}", *rows, ""]))
    return path


WRITERS = {".gro": gro, ".pdb": pdb, ".crd": crd}


@pytest.mark.parametrize("suffix", WRITERS)
def test_atoms_in_another_order_are_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path, SODIUM, CHLORIDE, SODIUM)
    right = read_coordinates(path, topology(SODIUM, CHLORIDE, SODIUM))
    assert right.name_differences == ()
    assert right.labels.residue_numbers.tolist() == [1, 2, 3]
    with pytest.raises(StructureError, match=re.escape(f"a{suffix}: expected NA (Na) at atom 1")) as caught:
        read_coordinates(path, topology(SODIUM, SODIUM, CHLORIDE))
    assert "found CL2:CL; are the atoms in another order?" in str(caught.value)
    WRITERS[suffix](path, SODIUM, WATER)
    with pytest.raises(StructureError, match=r"expected OW \(O\) at atom 0 .* found NA1:NA"):
        read_coordinates(path, topology(WATER, SODIUM))


@pytest.mark.parametrize("suffix", WRITERS)
def test_names_of_other_programs_are_listed(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    other = ([8, 1, 1], ["OH2", "H1", "H2"], "TIP3")
    WRITERS[suffix](path, other, SODIUM, other)
    found = read_coordinates(path, topology(WATER, ([11], ["SOD"], "SOD"), WATER))
    assert found.name_differences == (
        NameDifference("OH2", "OW", 2, "atom"),
        NameDifference("H1", "HW1", 2, "atom"),
        NameDifference("H2", "HW2", 2, "atom"),
        NameDifference("NA", "SOD", 1, "atom"),
        NameDifference("TIP3", "SOL", 2, "residue"),
        NameDifference("NA", "SOD", 1, "residue"),
    )


def test_names_that_changed_places_are_told_from_those_of_other_programs(tmp_path):
    path = pdb(tmp_path / "a.pdb", ([6, 6, 6, 8], ["C1", "C3", "C2", "O9"], "LIG"))
    atoms_ = topology(([6, 6, 6, 8], ["C1", "C2", "C3", "O1"], "LIG"))
    found = read_coordinates(path, atoms_).name_differences
    assert [(each.found, each.expected) for each in swapped_names(found)] == [("C3", "C2"), ("C2", "C3")]


def test_digits_in_front_of_a_name_are_no_difference(tmp_path):
    path = pdb(tmp_path / "a.pdb", ([6, 1, 1], ["CB", "1HB", "2HB"], "ALA"))
    atoms_ = topology(([6, 1, 1], ["CB", "HB1", "HB2"], "ALA"))
    assert read_coordinates(path, atoms_).name_differences == ()


def test_more_residues_than_in_the_topology_are_listed(tmp_path):
    path = gro(tmp_path / "a.gro", ([8, 1], ["OW", "HW1"], "SOL"), ([1], ["HW2"], "SOL"))
    (difference,) = read_coordinates(path, topology(WATER)).name_differences
    assert difference == NameDifference("2 residues", "1 residues", 1, "number")


@pytest.mark.parametrize("suffix", [".gro", ".pdb"])
def test_elements_without_a_topology_come_from_names(tmp_path, suffix):
    """An alpha carbon and calcium, an imidazole's nitrogen and sodium, a site without mass."""
    residues = [
        ([6, 7, 1, 16], ["CA", "NE2", "HG", "SD"], "HIS"),
        ([20], ["CA"], "CA"),
        SODIUM,
        ([8, 1, 1, 0], ["OW", "HW1", "HW2", "MW"], "SOL"),
        ([35, 17], ["BR1", "Cl2"], "LIG"),
    ]
    path = WRITERS[suffix](tmp_path / f"a{suffix}", *residues)
    assert read_structure(path).numbers.tolist() == [number for row in residues for number in row[0]]
    WRITERS[suffix](path, ([6, 17], ["C1", "CL1"], "LIG"))
    with pytest.raises(
        StructureError, match="expected a name that stands for one element, found CL1 at atom 1"
    ):
        read_structure(path)


XYZ = "1\n{}\nO 0 0 0\n"
LATTICE = 'Lattice="9 0 0 0 9 0 0 0 9"'
GRO = "water\n1\n    1SOL     OW    1   0.100   0.200   0.300\n   3.0   3.0   3.0\n"
PDB = "ATOM      1  O   HOH A   1       1.000   2.000   3.000  1.00  0.00           O\n"
MODELS = "MODEL        1\n{}ENDMDL\n"


@pytest.mark.parametrize(
    ("suffix", "text"),
    [(".xyz", XYZ.format("")), (".gro", GRO), (".pdb", MODELS.format(PDB))],
)
def test_one_structure_and_no_more(tmp_path, suffix, text):
    path = tmp_path / f"s{suffix}"
    path.write_text(text + "\n")
    assert len(read_structure(path)) == 1
    path.write_text(text + text)
    with pytest.raises(StructureError, match=r"expected one structure, found several; .* --frames"):
        read_structure(path)


@pytest.mark.parametrize("turn", [0.0, 0.7])
def test_nine_numbers_of_a_gro_are_lattice_rows(tmp_path, turn):
    """As ASE writes them: a turned cell is not lower triangular, and the atoms are turned with it."""
    rows = np.array([[30.0, 0.0, 0.0], [4.0, 28.0, 0.0], [-3.0, 2.0, 25.0]])
    turned = rows @ Rotation.from_rotvec(turn * np.array([0.3, 0.5, -0.8])).as_matrix()
    ase.io.write(tmp_path / "a.gro", ase.Atoms("O", [[1.0, 2.0, 3.0]], cell=turned, pbc=True))
    for found in (
        read_structure(tmp_path / "a.gro").cell,
        read_coordinates(tmp_path / "a.gro", topology(([8], ["O"], "MOL"))).cell,
    ):
        np.testing.assert_allclose(found / ANGSTROM, turned, atol=1e-4)  # nm in five digits


def test_the_box_of_a_gro_has_three_or_nine_numbers(tmp_path):
    path = tmp_path / "a.gro"
    path.write_text(GRO.replace("3.0\n", "3.0   0.0\n"))
    with pytest.raises(StructureError, match=r"expected 3 or 9 numbers of the box, found '3.0 3.0 3.0 0.0'"):
        read_structure(path)
    path.write_text(GRO.replace("3.0   3.0\n", "0.0   3.0 0.0 0.0 3.0 0.0 0.0 0.0\n"))
    with pytest.raises(StructureError, match="expected a cell of three independent vectors"):
        read_structure(path)


def test_a_lattice_counts_as_far_as_pbc_says(tmp_path):
    path = tmp_path / "s.xyz"
    for comment in (LATTICE, f'{LATTICE} pbc="T T T"'):
        path.write_text(XYZ.format(comment))
        np.testing.assert_allclose(read_structure(path).cell, 9.0 * ANGSTROM * np.eye(3))
    path.write_text(XYZ.format(f'{LATTICE} pbc="F F F"'))
    assert read_structure(path).cell is None
    path.write_text(XYZ.format(f'{LATTICE} pbc="T T F"'))
    with pytest.raises(StructureError, match="expected all of pbc or none, found T T F"):
        read_structure(path)
