"""Bonded parameters that a GROMACS file gives by types, against OpenMM reading them from the rows."""

from __future__ import annotations

import numpy as np
import pytest

from mm_systems import mm_evaluator
from openmm_support import gromacs_system, openmm_energies
from pidelta.errors import TopologyError
from pidelta.mm.readers import read_topology
from pidelta.units import ANGSTROM, KJ_PER_MOL, NANOMETER

FILE = """
[ defaults ]
1 2 no
[ atomtypes ]
CA 6 12.011 0.0 A 0.35 0.28
CB 6 12.011 0.0 A 0.34 0.35
CC 6 12.011 0.0 A 0.33 0.30
CD 8 15.999 0.0 A 0.31 0.71
{types}
[ moleculetype ]
MOL 3
[ atoms ]
1 CA 1 MOL A 1 -0.1
2 CB 1 MOL B 1  0.2
3 CC 1 MOL C 1  0.3
4 CD 1 MOL D 1 -0.4
[ bonds ]
2 3 1 0.15 200000
3 4 1 0.14 250000
{rows}
[ system ]
four atoms
[ molecules ]
MOL 1
"""
POSITIONS = np.array([[0.0, 0.1, 0.0], [1.45, 0.3, 0.1], [1.9, 1.7, 0.4], [3.2, 1.9, -0.5]]) * ANGSTROM
PAIR = "CA CB 1 0.151 200000\n", "CB CA 3 0.16 350 18\n"
TRIPLE = "CA CB CC 1 110 400\n", "CC CB CA 5 120 300 0.25 9000\n"
FOUR = "CA CB CC CD"


def write(path, section, types, rows):
    """A file with one section of types and one of rows."""
    types = f"[ {section.removesuffix('s')}types ]\n{types}\n"
    path.write_text(FILE.format(types=types, rows=f"[ {section} ]\n{rows}"))
    return path


def energy_and_gradient(path):
    term = mm_evaluator(read_topology(path), cutoff=None).evaluate(POSITIONS[None], None)
    return term.energy[0], term.gradient[0]


@pytest.mark.parametrize(
    ("section", "types", "row", "parameters", "openmm_reads_types"),
    [
        ("bonds", "".join(PAIR), "1 2 1", ["0.151 200000"], False),
        ("bonds", "".join(PAIR[::-1]), "1 2 1", ["0.151 200000"], False),
        ("angles", "".join(TRIPLE), "1 2 3 1", ["110 400"], False),
        ("angles", "".join(TRIPLE[::-1]), "1 2 3 1", ["110 400"], False),
        ("angles", "".join(TRIPLE), "3 2 1 5", ["120 300 0.25 9000"], False),
        ("dihedrals", f"{FOUR} 9 0 3 2\n{FOUR} 9 180 5 2", "1 2 3 4 9", ["0 3 2", "180 5 2"], True),
        ("dihedrals", f"{FOUR} 9 20 3 2\n{FOUR} 9 20 3 2", "4 3 2 1 9", ["20 3 2", "20 3 2"], True),
        ("dihedrals", f"{FOUR} 9 20 3 2\n{FOUR} 9 20 3 1", "1 2 3 4 9", ["20 3 2", "20 3 1"], True),
        ("dihedrals", f"{FOUR} 4 0 3 2\n{FOUR} 9 30 5 2", "1 2 3 4 4", ["0 3 2"], True),
        ("dihedrals", f"{FOUR} 9 30 5 2\n{FOUR} 4 0 3 2", "1 2 3 4 9", ["30 5 2"], True),
        ("dihedrals", f"{FOUR} 1 30 5 2\n{FOUR} 2 20 80", "1 2 3 4 1", ["30 5 2"], True),
        ("dihedrals", f"{FOUR} 2 10 100\nCA CC CB CD 2 20 300", "1 2 3 4 2", ["10 100"], True),
        ("dihedrals", "CA X X CD 2 10 100\nCA X X CB 2 20 300", "1 2 3 4 2", ["10 100"], True),
        ("dihedrals", "CA X X CB 2 20 300\nCD X X CA 2 10 100", "1 2 3 4 2", ["10 100"], True),
        ("dihedrals", "CA X X CD 4 10 100 2\nCA CC X CD 4 0 9 2", "1 2 3 4 4", ["10 100 2"], True),
        ("dihedrals", "X CB CC X 9 0 9 2\nX CB CC CD 9 10 3 2", "1 2 3 4 9", ["10 3 2"], True),
        ("dihedrals", "X CB CC CD 9 10 3 2\nX CB CC X 9 0 9 2", "1 2 3 4 9", ["10 3 2"], False),
        ("dihedrals", "CA CB CC X 9 10 3 2\nX CB CC CD 9 0 9 2", "1 2 3 4 9", ["10 3 2"], False),
        ("dihedrals", "CB CC 9 10 3 2\nCB CC 9 70 4 2", "1 2 3 4 9", ["10 3 2", "70 4 2"], True),
        ("dihedrals", "CA CD 2 10 100", "1 2 3 4 2", ["10 100"], False),
    ],
)
def test_parameters_by_types(tmp_path, section, types, row, parameters, openmm_reads_types):
    by_types = write(tmp_path / "types.top", section, types, row)
    in_rows = write(tmp_path / "rows.top", section, "", "\n".join(f"{row} {p}" for p in parameters))
    expected = energy_and_gradient(in_rows)
    for path in (in_rows, by_types)[: 1 + openmm_reads_types]:
        energies, gradient = openmm_energies(gromacs_system(path, None), POSITIONS, None)
        assert expected[0] == pytest.approx(energies.sum(), rel=1e-9)
        np.testing.assert_allclose(expected[1], gradient, rtol=1e-7, atol=1e-10)
    energy, gradient = energy_and_gradient(by_types)
    assert energy == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-10, atol=1e-14)
    none = write(tmp_path / "none.top", section, "", "")
    assert abs(energy_and_gradient(none)[0] - energy) > 1e-6


@pytest.mark.parametrize(
    "rows", ["1 2 3 4 9 0 3 2\n1 2 3 4 9 90 5 2", "1 2 3 4 9 20 3 2\n1 2 3 4 9 20 3 2\n4 3 2 1 9 20 3 2"]
)
def test_rows_of_the_same_atoms_add_up(tmp_path, rows):
    path = write(tmp_path / "rows.top", "dihedrals", "", rows)
    energies, gradient = openmm_energies(gromacs_system(path, None), POSITIONS, None)
    energy, found = energy_and_gradient(path)
    assert energy == pytest.approx(energies.sum(), rel=1e-9)
    np.testing.assert_allclose(found, gradient, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    ("section", "types", "row", "refused"),
    [
        ("bonds", "CA CB 1 0.15 2e5\nCB CA 1 0.16 2e5", "1 2 1", True),
        ("bonds", "CA CB 1 0.15 2e5\nCB CA 1 0.150 200000", "1 2 1", False),
        ("angles", f"{TRIPLE[0]}CA CB CC 1 110 401", "1 2 3 1", True),
        ("dihedrals", f"{FOUR} 9 0 3 2\n{FOUR} 1 0 4 2", "1 2 3 4 9", True),
        ("dihedrals", f"{FOUR} 1 0 3 2\n{FOUR} 9 0 4 2", "1 2 3 4 9", True),
        ("dihedrals", f"{FOUR} 9 0 3 2\nX CB CC X 9 0 3 1\n{FOUR} 9 0 4 2", "1 2 3 4 9", True),
        ("dihedrals", f"{FOUR} 9 0 3 2\nX CB CC X 9 0 3 1\n{FOUR} 9 0 3 2", "1 2 3 4 9", False),
        ("dihedrals", f"{FOUR} 9 0 3 2\n{FOUR} 9 0 4 2", "1 2 3 4 1", True),
        ("dihedrals", f"{FOUR} 9 0 3 2\n{FOUR} 9 0 4 2", "", False),
        ("dihedrals", f"{FOUR} 2 0 3\n{FOUR} 2 0 4", "1 2 3 4 2", True),
    ],
)
def test_contradictory_types(tmp_path, section, types, row, refused):
    path = write(tmp_path / "types.top", section, types, row)
    if not refused:
        read_topology(path)
        return
    with pytest.raises(TopologyError) as caught:
        read_topology(path)
    assert f"types.top: types of {section}: expected one set of parameters for C" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_types_without_all_parameters(tmp_path):
    path = write(tmp_path / "types.top", "dihedrals", f"{FOUR} 9 0 3", "1 2 3 4 9")
    with pytest.raises(
        TopologyError, match=r"\[ dihedraltypes \]: expected 3 parameters, found 'CA CB CC CD"
    ):
        read_topology(path)


@pytest.mark.parametrize("types", [True, False])
def test_a_multiplicity_that_is_no_integer(tmp_path, types):
    row = "1 2 3 4 9" if types else "1 2 3 4 9 0 3 2.5"
    path = write(tmp_path / "types.top", "dihedrals", f"{FOUR} 9 0 3 2.5" if types else "", row)
    with pytest.raises(TopologyError, match=r"\[ dihedrals \]: expected an integer multiplicity"):
        read_topology(path)


@pytest.mark.parametrize("rule", ["2", "3"])
@pytest.mark.parametrize("signs", [(-1, 1), (1, -1), (-1, -1)])
def test_a_sigma_below_zero_means_repulsion_alone(tmp_path, rule, signs):
    """As GROMACS takes it: c6 = 0 and c12 = 4 epsilon |sigma|^12, in all pairs of such a type."""
    path = tmp_path / "a.top"
    text = FILE.format(types="", rows="[ pairs ]\n1 4 1 -0.33 0.45").replace("1 2 no", f"1 {rule} no")
    path.write_text(text.replace("A 0.35", f"A {0.35 * signs[0]}").replace("A 0.31", f"A {0.31 * signs[1]}"))
    topology = read_topology(path)
    sigma = 0.33 if rule == "2" else np.sqrt(0.35 * 0.31)
    c12 = 4.0 * np.sqrt(0.28 * 0.71) * KJ_PER_MOL * (sigma * NANOMETER) ** 12
    first, last = topology.lj_types[[0, 3]]
    assert topology.lj_c12[first, last] == topology.lj_c12[last, first] == pytest.approx(c12, rel=1e-12)
    assert topology.lj_c6[first, last] == topology.lj_c6[last, first] == 0.0
    assert (np.diag(topology.lj_c6)[[first, last]] > 0.0).tolist() == [sign > 0 for sign in signs]
    assert topology.pairs14.c6[0] == 0.0
    assert topology.pairs14.c12[0] == pytest.approx(1.8 * KJ_PER_MOL * (0.33 * NANOMETER) ** 12, rel=1e-12)


def test_a_pair_with_a_sigma_below_zero_repels_alone(tmp_path):
    path = tmp_path / "a.top"
    path.write_text(FILE.format(types="[ nonbond_params ]\nCA CD 1 -0.33 0.45", rows=""))
    topology = read_topology(path)
    first, last = topology.lj_types[[0, 3]]
    assert topology.lj_c6[first, last] == 0.0
    c12 = 1.8 * KJ_PER_MOL * (0.33 * NANOMETER) ** 12
    assert topology.lj_c12[first, last] == pytest.approx(c12, rel=1e-12)
    assert topology.lj_c6[first, first] > 0.0
