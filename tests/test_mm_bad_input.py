"""Bad force-field input through the command line: one line that names the problem, and exit code 2."""

import json
import re
import shutil
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import parmed
import pytest
from ase import Atoms
from ase.io import read, write

from mm_systems import CUBIC, DATA, MIXED, water_positions
from pidelta.config import load_config
from pidelta.core.structure import read_coordinates
from pidelta.errors import PideltaError
from pidelta.mm.evaluator import MMEvaluator
from pidelta.mm.readers import read_topology
from pidelta.setup import Setup
from pidelta.units import BOHR_IN_ANGSTROM

ENGINES = ["builtin", "openmm"]
ACETAMIDE = np.array([6, 1, 1, 1, 6, 8, 7, 1, 1])
NAMES = ("C1", "H1", "H2", "H3", "C", "O", "N", "HN1", "HN2")


def atoms(numbers, names=NAMES, residue_names=None, sites=(), **others):
    """What a structure is compared with: one residue, unless `residue_indices` are given."""
    count = len(numbers)
    values = {
        "numbers": np.asarray(numbers),
        "names": tuple(names),
        "residue_names": residue_names or ("ACM",) * count,
        "residue_indices": np.zeros(count, dtype=np.int64),
        "massless_rows": np.array(sites, dtype=np.int64),
        "periodic": False,
        "cell_angle": 90.0,
    }
    return SimpleNamespace(**(values | others))


def write_structure(path, numbers, positions, cell=CUBIC):
    edges = np.round(cell * BOHR_IN_ANGSTROM, 10)
    atoms = Atoms(numbers, positions * BOHR_IN_ANGSTROM, cell=edges, pbc=True)
    write(path, atoms, format="extxyz")


@pytest.fixture
def water(tmp_path):
    """64 flexible waters."""
    for path in DATA.iterdir():
        shutil.copy(path, tmp_path)
    topology = read_topology(tmp_path / "water.top")
    write_structure(tmp_path / "water.xyz", topology.numbers, water_positions(64, CUBIC, seed=0))
    config = tmp_path / "water.yaml"
    config.write_text("structure: water.xyz\nmm: {topology: water.top, cutoff: 0.6 nm}\n")
    return config


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def use(config, engine):
    if engine == "openmm":
        pytest.importorskip("openmm")
        edit(config, "mm: {", "mm: {engine: openmm, platform: Reference, virial: false, ")


@pytest.mark.parametrize("engine", ENGINES)
def test_check_says_what_is_evaluated_and_where(water, run, capsys, engine):
    use(water, engine)
    assert run("check", water, "--atoms", 1) == 0
    output = capsys.readouterr().out
    rows = {
        cells[1].strip(): cells[2:-1] for line in output.splitlines() if len(cells := line.split("│")) > 3
    }
    assert [cell.strip() for cell in rows["bonds"]] == ["128", "0", "128"]
    assert [cell.strip() for cell in rows["angles"]] == ["64", "0", "64"]
    assert rows["net charge / e"][0].strip() == "+0.0000"
    assert "6.00 angstrom" in output
    assert "6.30 angstrom" in output
    assert {"builtin": "the built-in evaluator", "openmm": "OpenMM"}[engine] in output
    assert ("Reference" in output) == (engine == "openmm")
    assert "without a bond" not in output


def test_check_says_what_the_virial_of_openmm_costs(water, run, capsys):
    use(water, "openmm")
    edit(water, "virial: false", "virial: true")
    assert run("check", water, "--atoms", 1) == 0
    assert "mm.virial: false" in capsys.readouterr().out


def test_check_counts_atoms_that_nothing_holds(water, run, capsys):
    edit(water.parent / "spcfw.itp", "1 3 1 0.1012 443153.3808", "")
    assert run("check", water, "--atoms", 1) == 0
    assert "without a bond" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        (
            "spcfw.itp",
            "1 OW 1 SOL OW",
            "1 OX 1 SOL OW",
            "type OX, which [ atomtypes ] does not define",
        ),
        ("spcfw.itp", "1 2 1 0.1012 443153.3808", "1 2 1 nan 443153.3808", "expected finite parameters"),
        ("spcfw.itp", "1 2 1 0.1012 443153.3808", "1 2 1 0.1012 1e999", "expected finite parameters"),
        (
            "spcfw.itp",
            "1 3 1 0.1012",
            "3 3 1 0.1012",
            "bonds: expected different atoms in SOL1:HW2 (atom 2) - SOL1:HW2 (atom 2), found SOL1:HW2",
        ),
        ("spcfw.itp", "2 1 3 1 113.24", "2 1 2 1 113.24", "angles: expected different atoms in SOL1:HW1"),
        ("spcfw.itp", "2 HW 1 SOL", "3 HW 1 SOL", "[ atoms ]: expected atom 2, found '3 HW"),
        ("spcfw.itp", "-0.82", "nan", "charges: expected finite parameters, found nan"),
        (
            "water.top",
            "[ atomtypes ]",
            "[ defaults ]\n1 2 yes 0.5\n[ atomtypes ]",
            "expected one section [ defaults ], found '1 2 ",
        ),
        ("water.top", "[ molecules ]", "[ molecu", "[ molecules ], found none; is the file truncated?"),
    ],
)
def test_bad_topologies(water, fail, name, old, new, expected):
    edit(water.parent / name, old, new)
    message = fail("check", water)
    assert expected in message
    assert "water.top" in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('Lattice="12.6', 'Lattice="nan', "expected a cell of three independent vectors"),
        ('Lattice="12.6', 'Lattice="0.0', "expected a cell of three independent vectors"),
        (
            'Lattice="12.6',
            'Lattice="9.0',
            "the cutoff of 6.00 angstrom exceeds half of",
        ),
        ("192\n", "191\n", "cannot be read as .xyz"),
        ("192\n", "193\n", "cannot be read as .xyz"),
    ],
)
def test_bad_structures(water, fail, old, new, expected):
    edit(water.parent / "water.xyz", old, new)
    assert expected in fail("check", water)


def test_structure_with_a_coordinate_that_is_no_number(water, fail):
    path = water.parent / "water.xyz"
    lines = path.read_text().splitlines()
    lines[6] = f"{lines[6].split()[0]} nan 0.0 0.0"
    path.write_text("\n".join([*lines, ""]))
    assert "water.xyz: expected finite coordinates below 1e+08 bohr, found others at atom 4" in fail(
        "evaluate", water
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_frames_that_cannot_be_evaluated(water, fail, engine):
    use(water, engine)
    frames = water.parent / "frames.xyz"
    atoms = read(water.parent / "water.xyz")
    for change, expected in (
        (lambda a: a.positions.__setitem__((4, 1), np.nan), "at atom 4"),
        (
            lambda a: a.positions.__setitem__(3, a.positions[6]),
            "SOL2:OW (atom 3) coincides with another",
        ),
        (lambda a: a.set_cell(0.9 * a.cell), "exceeds half of the smallest height of the cell"),
    ):
        changed = atoms.copy()
        change(changed)
        write(frames, [atoms, changed], format="extxyz")  # the first shows that the order is right
        assert expected in fail("evaluate", water, "--frames", frames)


@pytest.mark.parametrize("engine", ENGINES)
def test_atoms_that_nearly_coincide_have_a_finite_energy(water, run, engine):
    use(water, engine)
    atoms = read(water.parent / "water.xyz")
    close = atoms.copy()
    close.positions[3] = close.positions[6] + 0.15
    write(water.parent / "close.xyz", [atoms, close], format="extxyz")
    output = water.parent / "out.json"
    assert run("evaluate", water, "--frames", water.parent / "close.xyz", "--output", output) == 0
    _, frame = json.loads(output.read_text())["frames"]
    assert 1e6 < frame["energy"] < np.inf
    assert np.isfinite(frame["gradient"]).all()
    assert (frame["virial"] is None) == (engine == "openmm")


def test_a_net_force_beyond_that_of_a_mesh(water, fail, monkeypatch):
    """Six times what the tolerance of PME, 1e-4, suggests, too little for the differences to see."""
    evaluate = MMEvaluator.evaluate

    def pushed(self, positions, cells):
        term = evaluate(self, positions, cells)
        push = 6e-4 * np.linalg.norm(term.gradient) / positions.shape[1]
        return replace(term, gradient=term.gradient + np.array([push, 0.0, 0.0]))

    monkeypatch.setattr(MMEvaluator, "evaluate", pushed)
    assert "expected no net force, within" in fail("check", water, "--atoms", 1)


def test_options_of_openmm_need_openmm(water, fail):
    edit(water, "mm: {", "mm: {platform: CUDA, ")
    assert "unknown key mm.platform with engine: builtin" in fail("check", water)
    edit(water, "mm: {", "mm: {engine: openmm, ")
    edit(water, "CUDA", "Abacus")
    assert "mm.platform: expected auto or" in fail("check", water)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One molecule in every format of topologies and structures, written by ParmEd."""
    folder = tmp_path_factory.mktemp("files")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        top = parmed.load_file(str(DATA / "acetamide-water.top"))[":1"]
        del top.adjusts[:]
        top.adjust_types.clear()
        top.coordinates = np.resize(MIXED * BOHR_IN_ANGSTROM, (len(top.atoms), 3))
        top.box = [30.0, 31.0, 32.0, 80.0, 90.0, 100.0]
        amber = parmed.amber.AmberParm.from_structure(top)
        amber.write_parm(str(folder / "m.prmtop"))
        amber.box, amber.coordinates = top.box, top.coordinates
        for name in ("m.rst7", "m.gro", "m.pdb"):
            amber.save(str(folder / name))
    return folder


def read_any(path):
    return read_topology(path) if path.suffix == ".prmtop" else read_coordinates(path, atoms(ACETAMIDE))


def attempt(path):
    try:
        return "", read_any(path)
    except PideltaError as error:
        return str(error), None


@pytest.mark.parametrize("name", ["m.prmtop", "m.rst7", "m.gro", "m.pdb"])
def test_files_cut_off_anywhere_are_refused_or_complete(files, tmp_path, name):
    """Cut after any character: no other exception, no crash of a compiled reader, no atom lost."""
    text = (files / name).read_text()
    whole = read_any(files / name)
    # no part of the energy from here on
    end = text.index("%FLAG HBCUT") if name == "m.prmtop" else len(text.rstrip())
    refused = 0
    for stop in range(0, end, max(1, end // 150)):
        (tmp_path / name).write_text(text[:stop])
        problem, found = attempt(tmp_path / name)
        if problem:
            refused += 1
            assert "\n" not in problem
            assert str(tmp_path / name) in problem
        else:
            assert name != "m.prmtop", stop
            np.testing.assert_array_equal(
                found.positions, whole.positions
            )  # only what follows the atoms is lost
    assert refused > 100


def test_elements_of_a_structure_are_those_of_the_topology(files, tmp_path):
    swapped = ACETAMIDE.copy()
    swapped[[5, 6]] = swapped[[6, 5]]
    write_structure(tmp_path / "m.xyz", ACETAMIDE, np.resize(MIXED, (9, 3)))
    for path in (tmp_path / "m.xyz", files / "m.pdb"):
        read_coordinates(path, atoms(ACETAMIDE))
        with pytest.raises(PideltaError, match=f"{path.name}: expected N at atom 5 .*, found O"):
            read_coordinates(path, atoms(swapped))


def test_names_of_atoms_are_no_elements(files, tmp_path):
    """A .pdb without the column of elements."""
    text = re.sub("^(HETATM.{70}).*$", r"\1", (files / "m.pdb").read_text(), flags=re.MULTILINE)
    assert text != (files / "m.pdb").read_text()
    (tmp_path / "m.pdb").write_text(text)
    read_coordinates(tmp_path / "m.pdb", atoms(ACETAMIDE))


def test_rows_of_sites_have_no_element(tmp_path):
    write_structure(tmp_path / "m.xyz", [8, 1, 1, 0, 8, 1, 1, 0], np.resize(MIXED, (8, 3)))
    numbers, sites = np.array([8, 1, 1, 8, 1, 1]), np.array([3, 7])
    read_coordinates(tmp_path / "m.xyz", atoms(numbers, sites=sites))
    with pytest.raises(PideltaError, match=r"m.xyz: expected H at atom 4 .*, found O"):
        read_coordinates(tmp_path / "m.xyz", atoms(numbers[[0, 1, 2, 4, 3, 5]], sites=sites))


@pytest.mark.parametrize("key", ["electrostatics: pme", "cutoff: 0.6 nm", "ewald_tolerance: 1.0e-4"])
@pytest.mark.parametrize("source", ["topology: water.top", "water: q-spc-fw"])
def test_options_of_a_periodic_system_need_a_cell(water, fail, run, key, source):
    """A lost cell would leave bare Coulomb in vacuum; without such options that is a cluster."""
    write(water.parent / "water.xyz", read(water.parent / "water.xyz"), format="xyz")
    water.write_text(f"structure: water.xyz\nmm: {{{source}, {key}}}\n")
    name = key.split(":")[0]
    assert f"water.xyz: mm.{name}: expected a cell, found none; leave the key out" in fail("check", water)
    water.write_text(f"structure: water.xyz\nmm: {{{source}}}\n")
    assert run("evaluate", water, "--output", water.parent / "out.json") == 0


def test_a_topology_with_a_box_needs_a_cell(files, tmp_path, fail):
    lines = (files / "m.rst7").read_text().splitlines()
    config = tmp_path / "m.yaml"
    config.write_text(f"structure: m.rst7\nmm: {{topology: {files / 'm.prmtop'}}}\n")
    (tmp_path / "m.rst7").write_text("\n".join([*lines[:-1], ""]))
    message = fail("evaluate", config)
    assert "m.rst7: expected a cell, as " in message
    assert "m.prmtop has a box, found none" in message
    (tmp_path / "m.rst7").write_text("\n".join([*lines, ""]))
    assert Setup(load_config(config)).system.cell is not None


def test_restart_with_an_overflown_coordinate(files, tmp_path):
    lines = (files / "m.rst7").read_text().splitlines()
    lines[3] = lines[3][:48] + 12 * "*" + lines[3][60:]
    (tmp_path / "m.rst7").write_text("\n".join([*lines, ""]))
    with pytest.raises(PideltaError, match=r"m.rst7: expected a coordinate in 12 columns, .* at atom 3"):
        read_coordinates(tmp_path / "m.rst7", atoms(ACETAMIDE))


def test_restart_with_impossible_angles(files, tmp_path):
    text = (files / "m.rst7").read_text()
    assert "80.0000000" in text
    (tmp_path / "m.rst7").write_text(text.replace("80.0000000", "  0.500000"))
    with pytest.raises(PideltaError, match=r"m.rst7: expected a cell of three independent vectors"):
        read_coordinates(tmp_path / "m.rst7", atoms(ACETAMIDE))


@pytest.mark.parametrize(
    ("flag", "old", "new", "expected"),
    [
        ("MASS", "%FORMAT(5E16.8)", "%FORMAT(5E0.8)", "not a readable prmtop file"),
        ("BONDS_INC_HYDROGEN", "       0", "      -7", "BONDS: expected multiples of 3 below 27"),
        ("BONDS_INC_HYDROGEN", "       0", "      99", "BONDS: expected multiples of 3 below 27"),
        ("BOND_EQUIL_VALUE", "1.09690000E+00", "      1.0E+999", "expected finite parameters"),
    ],
)
def test_bad_prmtop_files(files, tmp_path, flag, old, new, expected):
    head, _, tail = (files / "m.prmtop").read_text().partition(f"%FLAG {flag}")
    assert old in tail
    (tmp_path / "m.prmtop").write_text(f"{head}%FLAG {flag}{tail.replace(old, new, 1)}")
    with pytest.raises(PideltaError) as caught:
        read_topology(tmp_path / "m.prmtop")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "entry", "value", "expected"),
    [
        ("ATOM_TYPE_INDEX", 0, 99, "expected numbers from 1 to 6, found 99"),
        ("ATOM_TYPE_INDEX", 3, 0, "expected numbers from 1 to 6, found 0"),
        ("RESIDUE_POINTER", 0, 0, "expected numbers from 1 to 9, found 0"),
        ("NUMBER_EXCLUDED_ATOMS", 0, -1, "expected numbers from 0 to 9, found -1"),
        ("EXCLUDED_ATOMS_LIST", 0, 999, "expected numbers from 0 to 9, found 999"),
        ("EXCLUDED_ATOMS_LIST", 0, -3, "expected numbers from 0 to 9, found -3"),
        ("NONBONDED_PARM_INDEX", 1, 999, "expected numbers from -21 to 21, found 999"),
        ("MASS", 2, 0.0, "expected a mass above 0, found 0 of atom 3 ("),
        ("MASS", 2, -1.0, "expected a mass above 0, found -1 of atom 3 ("),
        ("DIHEDRAL_PERIODICITY", 0, 2.5, "expected an integer multiplicity, found 2.5"),
    ],
)
def test_prmtop_files_with_numbers_out_of_range(files, tmp_path, flag, entry, value, expected):
    content = parmed.amber.AmberFormat(str(files / "m.prmtop"))
    data = content.parm_data[flag]
    data[entry] = value
    content.write_parm(str(tmp_path / "m.prmtop"))
    with pytest.raises(PideltaError) as caught:
        read_topology(tmp_path / "m.prmtop")
    assert f"m.prmtop: {flag}: {expected}" in str(caught.value)


def write_gro(path, names, positions):
    """Waters SOL with three names each."""
    rows = [
        f"{i // 3 + 1:5d}SOL  {names[i % 3]:>5s}{i + 1:5d}"
        + "".join(f"{0.1 * x * BOHR_IN_ANGSTROM:8.3f}" for x in r)
        for i, r in enumerate(positions)
    ]
    edges = 0.1 * np.diag(CUBIC) * BOHR_IN_ANGSTROM
    path.write_text("\n".join(["water", str(len(rows)), *rows, "".join(f"{x:10.5f}" for x in edges), ""]))


def test_check_lists_names_that_differ(water, run, fail, capsys):
    """H1 is as good as HW1; an O where the topology has an H is not."""
    edit(water, "water.xyz", "water.gro")
    positions = water_positions(64, CUBIC, seed=0)
    write_gro(water.parent / "water.gro", ("OW", "HW1", "HW2"), positions)
    assert run("check", water, "--atoms", 1) == 0
    assert "names that differ" not in capsys.readouterr().out
    write_gro(water.parent / "water.gro", ("OW", "H1", "HW2"), positions)
    assert run("check", water, "--atoms", 1) == 0
    output = capsys.readouterr().out
    assert "names that differ" in output
    assert re.search(r"atom +│ H1 +│ HW1 +│ 64", output)
    write_gro(water.parent / "water.gro", ("HW1", "OW", "HW2"), positions)
    assert "water.gro: expected OW (O) at atom 0 as in the topology, found SOL1:HW1" in fail(
        "evaluate", water
    )
