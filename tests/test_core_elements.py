"""Elements of files that name none: from masses, types and names."""

from __future__ import annotations

import numpy as np
import pytest
from ase.data import atomic_numbers

from pidelta.core.elements import contradiction, guess_elements, misfit, named_elements, united_hydrogens

# name, type, mass and number of hydrogens bound to it, in the names of AMBER, CHARMM and OPLS
ROWS = [
    ("N", "NH1", 14.007, 1, "N"),
    ("HN", "H", 1.008, 0, "H"),
    ("CA", "CT1", 12.011, 1, "C"),
    ("HA", "HB", 1.008, 0, "H"),
    ("CB", "CT3", 12.011, 3, "C"),
    ("OG1", "OH1", 15.999, 1, "O"),
    ("HG1", "H", 1.008, 0, "H"),
    ("SG", "S", 32.06, 1, "S"),
    ("NE2", "NR3", 14.007, 1, "N"),
    ("NA", "nb", 14.007, 0, "N"),
    ("CD1", "CA", 12.011, 1, "C"),
    ("CE", "CT2", 12.011, 2, "C"),
    ("CL", "CL", 35.45, 0, "Cl"),
    ("BR1", "BR", 79.904, 0, "Br"),
    ("C7", "opls_135", 12.011, 3, "C"),
    ("SD", "SM", 32.06, 0, "S"),
    ("P", "P", 30.97, 0, "P"),
    ("HE2", "HE2", 1.008, 0, "H"),
    ("NZ", "NH3", 14.007, 3, "N"),
    ("1HB", "HC", 1.008, 0, "H"),
    ("CS", "CS", 12.01, 0, "C"),
    ("OS", "os", 16.0, 0, "O"),
    ("F1", "f", 19.0, 0, "F"),
    ("HG", "HO", 1.008, 0, "H"),
    ("ND1", "na", 14.01, 1, "N"),
]
NAMES, TYPES = [row[0] for row in ROWS], [row[1] for row in ROWS]
MASSES = np.array([row[2] for row in ROWS])
HYDROGENS = np.array([row[3] for row in ROWS])
NUMBERS = [atomic_numbers[row[4]] for row in ROWS]


@pytest.mark.parametrize("factor", [1.0, 3.0, 4.0])
def test_elements_of_repartitioned_masses(factor):
    """Hydrogens a factor heavier, and what they are bound to lighter, as ParmEd's HMassRepartition does."""
    is_hydrogen = np.array(NUMBERS) == 1
    moved = (factor - 1.0) * 1.008
    masses = np.where(is_hydrogen, MASSES + moved, MASSES - moved * HYDROGENS)
    assert guess_elements(masses, TYPES, NAMES).tolist() == NUMBERS


@pytest.mark.parametrize(
    ("name", "kind", "mass", "symbol"),
    [
        ("CA", "CA", 40.08, "Ca"),
        ("NA", "NA", 22.99, "Na"),
        ("SOD", "SOD", 22.98977, "Na"),
        ("POT", "POT", 39.0983, "K"),
        ("CLA", "CLA", 35.45, "Cl"),
        ("Na+", "IP", 22.99, "Na"),
        ("Cl-", "IM", 35.45, "Cl"),
        ("CAL", "C0", 40.08, "Ca"),
        ("CES", "CES", 132.90545, "Cs"),
        ("ZN", "Zn", 65.4, "Zn"),
        ("FE", "FE", 55.85, "Fe"),
        ("PT", "Pt", 195.08, "Pt"),
        ("D1", "DW", 2.014, "H"),
        ("H1", "HW", 2.014, "H"),
        ("CH2", "CH2", 14.027, "C"),
        ("CH3", "CH3", 15.035, "C"),
        ("X1", "X9", 12.011, "C"),
        ("C", "22", 12.0, "C"),
    ],
)
def test_elements_of_ions_isotopes_and_united_atoms(name, kind, mass, symbol):
    assert guess_elements(np.array([mass]), [kind], [name]).tolist() == [atomic_numbers[symbol]]


def test_what_is_no_element():
    masses = np.array([0.0, 28.0, 72.0, 22.99, 12.011, 3.024, 11.99])
    names = ["MW", "N1", "BB", "CL", "N1", "H1", "X"]
    found = guess_elements(masses, ["MW", "N", "P5", "CL", "N", "H", "Y"], names)
    assert found.tolist() == [0, -1, -1, -1, 7, 1, -1]  # 12.011 may be nitrogen where masses are moved
    assert guess_elements(masses[4:5], ["N"], ["N1"]).tolist() == [-1]
    assert "a mass of N as the name N1 and type N say, found 28" in misfit(28.0, "N", "N1")


def test_names_of_atoms_alone_are_ions():
    calcium, carbon, sodium, nitrogen, chlorine = (
        atomic_numbers[symbol] for symbol in ("Ca", "C", "Na", "N", "Cl")
    )
    assert named_elements("CA") == {calcium, carbon}
    assert named_elements("CA", alone=True) == {calcium}
    assert named_elements("NA") == {sodium, nitrogen}
    assert named_elements("SOD", alone=True) == {sodium}
    assert named_elements("CL-", alone=True) == {chlorine}
    assert named_elements("MW") == named_elements("opls_111") == named_elements("12") == frozenset()


def test_hydrogens_of_united_atoms():
    assert [united_hydrogens(mass, 6) for mass in (12.011, 13.019, 14.027, 15.035, 16.043)] == [0, 1, 2, 3, 4]
    assert [united_hydrogens(mass, 6) for mass in (13.00335, 14.00324, 9.995, 5.963)] == [0, 0, 0, 0]
    assert united_hydrogens(15.015, 7) == 0


@pytest.mark.parametrize(
    ("numbers", "masses"),
    [
        ([6, 1, 7, 8], [12.0, 1.008, 14.01, 16.0]),
        ([6, 6, 6, 6], [13.019, 14.027, 15.035, 16.043]),  # united atoms, CH2 near nitrogen, CH4 near oxygen
        ([7, 7, 8, 1], [15.015, 16.023, 17.007, 0.0]),  # hydrogens of rigid groups are sites
        ([7, 1, 1], [11.991, 2.016, 2.016]),  # NH2 that has given to hydrogen: near carbon
        ([8, 1], [13.984, 3.023]),
        ([6, 1, 1, 1], [2.939, 4.032, 4.032, 4.032]),
        ([1, 1, 6, 7, 8], [2.014, 3.016, 13.003, 15.0, 17.999]),  # isotopes
        ([0, -1, 0], [14.007, 12.011, 0.0]),
        ([8, 20, 27], [72.0, 40.08, 58.933]),
    ],
)
def test_masses_that_do_not_contradict_the_number(numbers, masses):
    assert contradiction(np.array(numbers), np.array(masses)) is None


@pytest.mark.parametrize(
    ("numbers", "masses", "atom", "found"),
    [
        ([1, 7, 6], [1.008, 12.011, 12.011], 1, "of N as the atomic number 7 says, found 12.011, that of C"),
        ([6, 1], [14.007, 3.023], 0, "of C as the atomic number 6 says, found 14.007, that of N"),
        ([1, 1], [1.008, 15.999], 1, "of H as the atomic number 1 says, found 15.999, that of O"),
        ([17], [79.904], 0, "of Cl as the atomic number 17 says, found 79.904, that of Br"),
    ],
)
def test_masses_of_another_element(numbers, masses, atom, found):
    row, problem = contradiction(np.array(numbers), np.array(masses))
    assert row == atom
    assert problem == f"expected a mass {found}"
