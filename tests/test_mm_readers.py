from __future__ import annotations

import shutil
import warnings

import numpy as np
import parmed
import pytest

from mm_systems import DATA
from pidelta.errors import TopologyError
from pidelta.mm.readers import read_topology
from pidelta.units import ANGSTROM, DALTON_IN_ELECTRON_MASS, KCAL_PER_MOL, KJ_PER_MOL, NANOMETER

WATER_TYPES = "HW 1  1.008  0.0 A 0.0       0.0\n"


@pytest.fixture
def edited(tmp_path):
    """Write the test topologies to a folder of their own, with one text of one file replaced."""

    def write(name, old, new):
        for path in DATA.iterdir():
            shutil.copy(path, tmp_path)
        path = tmp_path / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return tmp_path

    return write


@pytest.fixture(scope="module")
def prmtop_text(tmp_path_factory):
    path = tmp_path_factory.mktemp("amber") / "water.prmtop"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        top = parmed.load_file(str(DATA / "water.top"))
        parmed.amber.AmberParm.from_structure(top).write_parm(str(path))
    return path.read_text()


def refused(path):
    """The message of the error, checked to be one line that starts with the file."""
    with pytest.raises(TopologyError) as caught:
        read_topology(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def test_water_has_the_published_parameters():
    top = read_topology(DATA / "water.top")
    assert len(top) == 192
    assert top.numbers[:3].tolist() == [8, 1, 1]
    assert top.names[:4] == ("OW", "HW1", "HW2", "OW")
    assert set(top.residue_names) == {"SOL"}
    np.testing.assert_array_equal(top.residue_indices, np.repeat(np.arange(64), 3))
    np.testing.assert_allclose(top.masses[:3] / DALTON_IN_ELECTRON_MASS, [15.9994, 1.008, 1.008])
    np.testing.assert_allclose(top.charges[:3], [-0.82, 0.41, 0.41])
    np.testing.assert_array_equal(top.bonds.atoms[2:4], [[3, 4], [3, 5]])
    np.testing.assert_allclose(top.bonds.k, 1059.162 * KCAL_PER_MOL / ANGSTROM**2, rtol=1e-12)
    np.testing.assert_allclose(top.bonds.x0, 1.012 * ANGSTROM)
    np.testing.assert_array_equal(top.angles.atoms[1], [4, 3, 5])
    np.testing.assert_allclose(top.angles.k, 75.90 * KCAL_PER_MOL, rtol=1e-12)
    np.testing.assert_allclose(np.rad2deg(top.angles.x0), 113.24)
    sigma, epsilon = 3.165492 * ANGSTROM, 0.1554253 * KCAL_PER_MOL
    np.testing.assert_allclose(top.lj_c6, [[4 * epsilon * sigma**6, 0], [0, 0]], rtol=1e-7)
    np.testing.assert_allclose(top.lj_c12, [[4 * epsilon * sigma**12, 0], [0, 0]], rtol=1e-7)
    assert top.exclusions[:4].tolist() == [[0, 1], [0, 2], [1, 2], [3, 4]]


def test_tables_are_immutable():
    top = read_topology(DATA / "water.top")
    with pytest.raises(ValueError, match="read-only"):
        top.charges[0] = 0.0
    with pytest.raises(ValueError, match="read-only"):
        top.bonds.k[0] = 0.0


def test_molecules_are_joined_in_the_order_of_the_file(edited):
    folder = edited("acetamide-water.top", "ACM 1\nSOL 60", "SOL 2\nACM 1\nSOL 1\nACM 1")
    top = read_topology(folder / "acetamide-water.top")
    assert [top.names[i] for i in (0, 3, 6, 15, 18)] == ["OW", "OW", "C1", "OW", "C1"]
    assert top.residue_indices[[0, 3, 6, 15, 18]].tolist() == [0, 1, 2, 3, 4]
    assert top.label(18) == "ACM5:C1 (atom 18)"
    np.testing.assert_array_equal(top.torsions.atoms[17:] - 18, top.torsions.atoms[:17] - 6)


def test_nonbond_params_replace_the_combination_rule_also_for_generated_pairs(edited):
    folder = edited("mixed.top", "[ bondtypes ]", "[ nonbond_params ]\nCB HA 1 0.28 0.7\n\n[ bondtypes ]")
    before, after = (read_topology(base / "mixed.top") for base in (DATA, folder))
    sigma, epsilon = 0.28 * NANOMETER, 0.7 * KJ_PER_MOL
    expected = before.lj_c12.copy()
    expected[1, 3] = expected[3, 1] = 4 * epsilon * sigma**12
    np.testing.assert_allclose(after.lj_c12, expected, rtol=1e-9)
    # [ pairs ] 1 4 has [ pairtypes ], 2 5 is generated with fudgeLJ 0.5, 6 4 has its own parameters
    pairs = [(0.30, 0.9), (0.28, 0.35), (0.33, 0.4)]
    expected6 = [4 * eps * KJ_PER_MOL * (sig * NANOMETER) ** 6 for sig, eps in pairs]
    np.testing.assert_allclose(after.pairs14.c6, expected6, rtol=1e-9)
    assert not np.isclose(before.pairs14.c6[1], expected6[1])


def test_exclusions_follow_nrexcl(edited):
    folder = edited("acetamide.itp", "ACM 3", "ACM 1")
    top = read_topology(folder / "acetamide-water.top")
    solute = top.exclusions[top.exclusions[:, 1] < 9]
    np.testing.assert_array_equal(solute, np.sort(top.bonds.atoms[:8], axis=1)[np.argsort(solute[:, 1])])


def test_missing_and_unknown_files(tmp_path):
    assert refused(tmp_path / "none.top") == ": no such file"
    assert "expected a file ending in" in refused(tmp_path / "none.mol2")


def test_combination_rule_1_is_geometric_in_c6_and_c12(edited):
    folder = edited("tip4p.top", "1 2 yes", "1 1 yes")
    path = folder / "tip4p.top"
    types = "CA 6 12.011 0.0 A 2.6e-3 2.3e-6\n"
    text = path.read_text().replace(
        "OW 8 15.999 0.0 A 0.315365 0.648520", types + "OW 8 15.999 0.0 A 4e-3 9e-6"
    )
    text = text.replace("[ system ]", "[ moleculetype ]\nC 1\n[ atoms ]\n1 CA 1 C C 1 0.0\n[ system ]")
    path.write_text(text + "C 1\n")
    top = read_topology(path)
    oxygen, carbon = top.lj_types[[0, 24]]
    assert top.names[24] == "C"
    nm6 = KJ_PER_MOL * NANOMETER**6
    np.testing.assert_allclose(top.lj_c6[oxygen, carbon], np.sqrt(4e-3 * 2.6e-3) * nm6)
    np.testing.assert_allclose(top.lj_c12[oxygen, carbon], np.sqrt(9e-6 * 2.3e-6) * nm6 * NANOMETER**6)
    nbfix = "[ nonbond_params ]\nCA OW 1 1e-3 2e-6\n[ moleculetype ]"
    path.write_text(path.read_text().replace("[ moleculetype ]", nbfix, 1))
    top = read_topology(path)
    np.testing.assert_allclose(top.lj_c6[[oxygen, carbon], [carbon, oxygen]], 1e-3 * nm6)
    np.testing.assert_allclose(top.lj_c12[oxygen, carbon], 2e-6 * nm6 * NANOMETER**6)


BOND = "1 2 1 0.1012 443153.3808"
ANGLES = "[ angles ]"


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("water.top", '"spcfw.itp"', '"other.itp"', "Could not find other.itp"),
        ("water.top", WATER_TYPES, "", "atom 2 (HW1) has the type HW, which [ atomtypes ] does not define"),
        ("water.top", "SOL 64", "SOL 64\nABC 1", "names ABC, which no [ moleculetype ] defines"),
        ("water.top", "SOL 64", "SOL", "[ molecules ]: expected at least 2 columns, found 'SOL'"),
        ("water.top", "SOL 64", "SOL 0", "expected at least one molecule"),
        ("water.top", "SOL 64", "SOL -1", "[ molecules ]: expected a number, found '-1'"),
        ("water.top", "[ molecules ]\nSOL 64", "", "[ molecules ], found none; is the file truncated?"),
        ("water.top", "1 2 yes", "2 2 yes", "Buckingham"),
        ("water.top", "1 2 yes", "1 4 yes", "expected combination rule 1, 2 or 3, found 4"),
        (
            "water.top",
            "SOL 64",
            "SOL 64\n[ intermolecular_interactions ]\n[ bonds ]\n1 4 1 0.1 9",
            "[ bonds ] between molecules",
        ),
        ("spcfw.itp", "#ifndef FLEXIBLE", "#ifndef SOMETHING", "[ settles ] keeps distances rigid"),
        ("spcfw.itp", ANGLES, f"[ constraints ]\n1 2 1 0.1\n{ANGLES}", "[ constraints ] keeps distances"),
        ("spcfw.itp", BOND, "1 2 2 0.1 400", "expected function type 1 or 3 or 4, found 2"),
        ("spcfw.itp", BOND, "1 2 1 0.1012", "expected 2 parameters or none, found"),
        (
            "spcfw.itp",
            BOND,
            "1 2 1 0.1012 x",
            "[ bonds ]: expected a number in column 5, found '1 2 1 0.1012 x'",
        ),
        ("spcfw.itp", BOND, "1 4 1 0.1012 443153.3808", "expected atoms from 1 to 3"),
        ("spcfw.itp", BOND, "1", "expected 2 atoms and a function type"),
        ("spcfw.itp", BOND, "1 2 1", "no parameters for the bond 1 OW (OW) - 2 HW1 (HW)"),
        ("spcfw.itp", BOND, "1 2 3", "no parameters for the bond 1 OW (OW) - 2 HW1 (HW)"),
        (
            "spcfw.itp",
            BOND,
            "1 2 3 0.1 400 x",
            "[ bonds ]: expected a number in column 6, found '1 2 3 0.1 400 x'",
        ),
        (
            "spcfw.itp",
            ANGLES,
            f"[ virtual_sites3 ]\n1 2 3 3 1 1 1\n{ANGLES}",
            "is a virtual site with a mass",
        ),
        ("spcfw.itp", ANGLES, f"[ virtual_sites3 ]\n1 2 3 1 1\n{ANGLES}", "expected 2 parameters, found"),
        ("spcfw.itp", ANGLES, f"[ virtual_sitesn ]\n1 1 2 3\n{ANGLES}", "[ virtual_sitesn ] is not"),
        (
            "spcfw.itp",
            ANGLES,
            f"[ cmap ]\n1 2 3 1 2 1\n{ANGLES}",
            "no parameters for the CMAP term 1 OW (OW)",
        ),
        ("spcfw.itp", "OW  1 -0.82 15.9994", "OW  1 -0.82 0.0", "atom 1 (OW) has no mass or element"),
        ("spcfw.itp", ANGLES, f"[ position_restraints ]\n1 1 9 9 9\n{ANGLES}", "position_restraints ]"),
        (
            "spcfw.itp",
            "HW2 1  0.41  1.008",
            "HW2 1  0.41  1.008 HW 0.2 1.008",
            "expected a B state (of free energies) equal to the A state",
        ),
        ("spcfw.itp", "1 OW 1 SOL OW  1 -0.82 15.9994", "1 OW 1", "[ atoms ]: expected at least 6 columns"),
        ("spcfw.itp", "#endif", "", "Unterminated #if"),
    ],
)
def test_gromacs_files_that_are_refused(edited, name, old, new, expected):
    folder = edited(name, old, new)
    assert expected in refused(folder / "water.top")


BEFORE = "[ moleculetype ]\nMIX 2"


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("[ nonbond_param ]\nCB HA 1 0.28 0.7", "[ nonbond_param ] is not evaluated"),
        (
            "[ nonbond_params ]\nCB HA 2 0.28 0.7 1.0",
            "[ nonbond_params ]: expected function type 1, found 'CB HA 2",
        ),
        (
            "[ pairtypes ]\nCB HA 2 0.5 0.1 -0.1 0.3 0.7",
            "[ pairtypes ]: expected function type 1, found 'CB HA 2",
        ),
        ("[ moleculetype ]\nMIX 3\n[ atoms ]\n1 CA 1 A A 1 0.0", "[ moleculetype ] MIX: expected one"),
        ("[ constrainttypes ]\nCT CT 1 0.15", None),
    ],
)
def test_nothing_of_the_force_field_is_dropped(edited, section, expected):
    folder = edited("mixed.top", BEFORE, f"{section}\n{BEFORE}")
    if expected is None:
        read_topology(folder / "mixed.top")
    else:
        assert expected in refused(folder / "mixed.top")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("hc c3 c  1 108.77 393.80", "", "no parameters for the angle 2 H1 (hc) - 1 C1 (c3) - 5 C (c)"),
        ("c hn n hn 4 180.0 4.6024 2", "", "no parameters for the dihedral"),
        ("1 2 yes 0.5", "1 2 no 0.5", "no parameters for the pair 2 H1 (hc) - 6 O (o)"),
    ],
)
def test_missing_parameters_are_named(edited, old, new, expected):
    folder = edited("acetamide-water.top", old, new)
    assert expected in refused(folder / "acetamide-water.top")


def test_unused_molecule_types_may_hold_anything(edited):
    rigid = "[ moleculetype ]\nRIG 1\n[ atoms ]\n1 XX 1 RIG X 1 0.0\n[ settles ]\n1 1 0.1 0.16\n\n[ system ]"
    folder = edited("water.top", "[ system ]", rigid)
    assert len(read_topology(folder / "water.top")) == 192


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("%FLAG CHARGE\n", "%FLAG OTHER\n", "OTHER is a term that pidelta does not evaluate"),
        ("%FLAG ANGLE_EQUIL_VALUE", "%FLAG RADII_OF_NOTHING", "RADII_OF_NOTHING is a term"),
    ],
)
def test_amber_files_that_are_refused(tmp_path, prmtop_text, old, new, expected):
    path = tmp_path / "bad.prmtop"
    assert old in prmtop_text
    path.write_text(prmtop_text.replace(old, new))
    assert expected in refused(path)


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.3, 0.6, 0.9])
def test_truncated_amber_files_are_refused(tmp_path, prmtop_text, fraction):
    path = tmp_path / "short.prmtop"
    end = prmtop_text.index("%FLAG AMBER_ATOM_TYPE")  # no part of the energy from here on
    path.write_text(prmtop_text[: int(fraction * end)])
    refused(path)


@pytest.mark.parametrize("lines", range(0, 14, 2))
def test_truncated_gromacs_files_are_refused(edited, lines):
    path = edited("water.top", "SOL 64", "SOL 64") / "water.top"
    path.write_text("\n".join(path.read_text().splitlines()[:lines]))
    refused(path)
