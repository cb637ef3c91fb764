"""prmtop files of other times and programs: they say the same as one that OpenMM reads."""

from __future__ import annotations

import re
import warnings

import numpy as np
import parmed
import pytest

from mm_systems import DATA, MIXED, mm_evaluator
from openmm_support import amber_system, assert_same_as_openmm
from pidelta.errors import TopologyError
from pidelta.mm.readers import read_topology
from pidelta.units import KCAL_PER_MOL

POSITIONS = np.resize(MIXED, (9, 3)) + np.random.default_rng(0).normal(scale=0.4, size=(9, 3))
# sections of a file of before AMBER 7, in their order, and how they are written
OLD = """
ATOM_NAME/a CHARGE/e MASS/e ATOM_TYPE_INDEX/i NUMBER_EXCLUDED_ATOMS/i NONBONDED_PARM_INDEX/i RESIDUE_LABEL/a
RESIDUE_POINTER/i BOND_FORCE_CONSTANT/e BOND_EQUIL_VALUE/e ANGLE_FORCE_CONSTANT/e ANGLE_EQUIL_VALUE/e
DIHEDRAL_FORCE_CONSTANT/e DIHEDRAL_PERIODICITY/e DIHEDRAL_PHASE/e SOLTY/e LENNARD_JONES_ACOEF/e
LENNARD_JONES_BCOEF/e BONDS_INC_HYDROGEN/i BONDS_WITHOUT_HYDROGEN/i ANGLES_INC_HYDROGEN/i
ANGLES_WITHOUT_HYDROGEN/i DIHEDRALS_INC_HYDROGEN/i DIHEDRALS_WITHOUT_HYDROGEN/i EXCLUDED_ATOMS_LIST/i
HBOND_ACOEF/e HBOND_BCOEF/e HBCUT/e AMBER_ATOM_TYPE/a TREE_CHAIN_CLASSIFICATION/a JOIN_ARRAY/i IROTAT/i
"""
FORMATS = {"a": ("{:<4.4}", 20), "e": ("{:16.8E}", 5), "i": ("{:6d}", 12)}


@pytest.fixture(scope="module")
def acetamide(tmp_path_factory):
    """One molecule as ParmEd writes it."""
    path = tmp_path_factory.mktemp("amber") / "m.prmtop"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        top = parmed.load_file(str(DATA / "acetamide-water.top"))[":1"]
        del top.adjusts[:]
        top.adjust_types.clear()
        parmed.amber.AmberParm.from_structure(top).write_parm(str(path))
    return path


def edited(source, path, **sections):
    """A copy with sections replaced, or left out where the value is None."""
    content = parmed.amber.AmberFormat(str(source))
    for flag, values in sections.items():
        if values is None:
            content.delete_flag(flag)
        else:
            content.parm_data[flag] = list(values)
    content.write_parm(str(path))
    return path


def assert_same(path, reference):
    assert_same_as_openmm(read_topology(path), amber_system(reference, None), POSITIONS)
    expected, found = read_topology(reference), read_topology(path)
    np.testing.assert_array_equal(found.numbers, expected.numbers)
    assert found.names == expected.names
    assert found.residue_names == expected.residue_names


def test_files_without_atomic_numbers(acetamide, tmp_path):
    """As of before AmberTools 12; masses may have been moved to hydrogen since."""
    assert_same(edited(acetamide, tmp_path / "a.prmtop", ATOMIC_NUMBER=None), acetamide)
    moved = np.array(parmed.amber.AmberFormat(str(acetamide)).parm_data["MASS"])
    moved += 2.016 * np.array([-3, 1, 1, 1, 0, 0, -2, 1, 1])
    assert_same(edited(acetamide, tmp_path / "b.prmtop", ATOMIC_NUMBER=None, MASS=moved), acetamide)
    path = edited(acetamide, tmp_path / "c.prmtop", ATOMIC_NUMBER=None, MASS=[28.0, *moved[1:]])
    with pytest.raises(TopologyError, match=r"atom 1 \(C1\): expected the atomic number, or a mass of C"):
        read_topology(path)


def test_elements_that_tleap_did_not_know(acetamide, tmp_path):
    numbers = [-1, 1, 1, 1, -1, 8, 7, 1, -1]
    assert_same(edited(acetamide, tmp_path / "a.prmtop", ATOMIC_NUMBER=numbers), acetamide)
    path = edited(acetamide, tmp_path / "b.prmtop", ATOMIC_NUMBER=[7, *numbers[1:]])
    with pytest.raises(TopologyError, match=r"b.prmtop: atom 1 \(C1\): expected a mass of N .* that of C"):
        read_topology(path)


def old_format(source, path):
    data = parmed.amber.AmberFormat(str(source)).parm_data
    data["CHARGE"] = np.array(data["CHARGE"]) * 18.2223
    text = "acetamide\n"
    for entry in ("POINTERS/i", *OLD.split()):
        flag, kind = entry.split("/")
        form, per_line = FORMATS[kind]
        values = [form.format(value) for value in (data[flag][:30] if flag == "POINTERS" else data[flag])]
        lines = ["".join(values[i : i + per_line]) for i in range(0, len(values), per_line)]
        text += "\n".join(lines or [""]) + "\n"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["old.prmtop", "old.top"])
def test_files_of_before_amber_7(acetamide, tmp_path, name):
    """Numbers without headings; in .top, as tutorials name them."""
    path = old_format(acetamide, tmp_path / name)
    assert "%" not in path.read_text()
    expected, found = read_topology(acetamide), read_topology(path)
    np.testing.assert_array_equal(found.numbers, expected.numbers)
    assert found.names == expected.names
    # such files scale 1-4 pairs by 1.2 and 2, as ours does
    terms = [mm_evaluator(top, cutoff=None).evaluate(POSITIONS[None], None) for top in (expected, found)]
    np.testing.assert_allclose(terms[1].energy, terms[0].energy, rtol=1e-7)
    np.testing.assert_allclose(terms[1].gradient, terms[0].gradient, rtol=1e-5, atol=1e-9)


def test_prmtop_files_may_end_in_top(acetamide, tmp_path):
    path = tmp_path / "m.top"
    path.write_text(acetamide.read_text())
    assert_same(path, acetamide)


def test_angles_of_the_cell(acetamide, tmp_path):
    def angle(kind, **sections):
        pointers = list(parmed.amber.AmberFormat(str(acetamide)).parm_data["POINTERS"])
        pointers[27] = kind
        return read_topology(
            edited(acetamide, tmp_path / "a.prmtop", POINTERS=pointers, **sections)
        ).cell_angle

    assert angle(0) == angle(1) == 90.0
    assert angle(2) == pytest.approx(109.4712206)
    assert angle(3) is None


@pytest.mark.parametrize("phase", [168.5, np.deg2rad(168.5)])
def test_phases_of_impropers_in_degrees_or_in_radians(acetamide, tmp_path, phase):
    """ParmEd before 2.0 and chamber wrote degrees; newer files have radians."""
    sections = {
        "CHARMM_UREY_BRADLEY_COUNT": "       0       0",
        "CHARMM_UREY_BRADLEY": "",
        "CHARMM_UREY_BRADLEY_FORCE_CONSTANT": "",
        "CHARMM_UREY_BRADLEY_EQUIL_VALUE": "",
        "CHARMM_NUM_IMPROPERS": "       1",
        "CHARMM_IMPROPERS": "       5       1       6       7       1",
        "CHARMM_NUM_IMPR_TYPES": "       1",
        "CHARMM_IMPROPER_FORCE_CONSTANT": f"{10.0:16.8E}",
        "CHARMM_IMPROPER_PHASE": f"{phase:16.8E}",
    }
    path = tmp_path / "a.prmtop"
    added = [
        f"%FLAG {flag}\n%FORMAT({'10I8' if re.fullmatch('[ 0-9]*', text) else '5E16.8'})\n{text}\n"
        for flag, text in sections.items()
    ]
    path.write_text(acetamide.read_text().rstrip() + "\n" + "".join(added))
    impropers = read_topology(path).impropers
    assert impropers.atoms.tolist() == [[4, 0, 5, 6]]
    np.testing.assert_allclose(impropers.k, 20.0 * KCAL_PER_MOL)
    np.testing.assert_allclose(impropers.x0, np.deg2rad(168.5), rtol=1e-7)


def test_pointers_that_are_no_integers(acetamide, tmp_path):
    path = tmp_path / "m.prmtop"
    text = acetamide.read_text()
    head, tail = text.split("%FLAG POINTERS")
    tail = tail.replace("%FORMAT(10I8)", "%FORMAT(10a8)", 1)
    path.write_text(f"{head}%FLAG POINTERS{tail}")
    assert_same(path, acetamide)
    path.write_text(f"{head}%FLAG POINTERS{tail.replace('       9', '    NINE', 1)}")
    with pytest.raises(TopologyError, match=r"POINTERS: expected integers \(.*NINE"):
        read_topology(path)
