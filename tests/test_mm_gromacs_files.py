"""Topologies as GROMACS's own force fields and users write them, against OpenMM's reader."""

from __future__ import annotations

import numpy as np
import pytest

from mm_systems import DATA
from openmm_support import assert_same_as_openmm, gromacs_system
from pidelta.errors import TopologyError
from pidelta.mm.readers import read_topology
from pidelta.units import ANGSTROM

BANNER = """********************************
* A force field of somebody    *
* (see "the paper", [1])       *
********************************

"""
FILE = """[ defaults ]
1 2 yes 0.5 0.8333
[ atomtypes ]
; as of amber*.ff, with atomic numbers
OW   8  16.00  0.0  A  3.15061e-01  6.36386e-01
HW   1  1.008  0.0  A  0.00000e+00  0.00000e+00
CT   6  12.01  0.0  A  3.39967e-01  4.57730e-01
[ bondtypes ]
CT OW 1 0.141 267776.0{types}
[ moleculetype ]
MOL 3
[ atoms ]
1 OW 1 MOL O1 1 -0.6 16.00{atom}
2 HW 1 MOL H1 1  0.4 1.008
3 CT 1 MOL C1 1  0.2 12.01
4 OW 1 MOL O2 1 -0.4 16.00
5 HW 1 MOL H2 1  0.4 1.008
[ bonds ]
1 2 1 0.09572 502416.0{bond}
1 3 1
3 4 1 0.1410 267776.0
4 5 1 0.0945 462750.4
[ pairs ]
1 5 1{pair}
2 4{function}
[ angles ]
2 1 3 1 104.52 628.02{angle}
1 3 4 5 112.0 500.0 0.23 9000.0
[ dihedrals ]
2 1 3 4 9 180.0 4.6 2{torsion}
1 3 4 5 3 5.7 -5.9 -0.4 0.6 0.1 -0.1
1 3 4 5 2 10.0 167.4
[ system ]
five atoms
[ molecules ]
MOL 1
"""
NOTHING = dict.fromkeys(("types", "atom", "bond", "pair", "angle", "torsion"), "") | {"function": " 1"}
SAME = {
    "types": " 0.1410 267776",
    "atom": " OW -0.60 16.0",
    "bond": " 0.09572 5.02416e5",
    "angle": " 104.52 628.02",
    "torsion": " 180 4.6 2",
}
OTHER = {
    "types": " 0.1510 267776",
    "atom": " OW -0.30 16.0",
    "bond": " 0.09572 400000.0",
    "angle": " 100.00 628.02",
    "torsion": " 180 2.3 2",
}
POSITIONS = (
    np.array([[0.0, 0.1, 0.0], [-0.9, 0.3, 0.1], [0.9, 1.2, 0.4], [2.2, 0.9, -0.3], [2.5, 0.1, 0.4]])
    * ANGSTROM
)


def write(path, changes, banner=""):
    path.write_text(banner + FILE.format(**(NOTHING | changes)))
    return path


def assert_same(path, reference=None):
    """As OpenMM reads it, or as OpenMM reads another file that says the same."""
    assert_same_as_openmm(read_topology(path), gromacs_system(reference or path, None), POSITIONS)


def test_text_before_the_first_directive_is_ignored(tmp_path):
    """As in forcefield.itp of amber*.ff and charmm27.ff, in the file itself or included."""
    assert_same(write(tmp_path / "banner.top", {}, BANNER))
    text = write(tmp_path / "all.top", {}).read_text()
    head, middle, rest = text.partition("[ moleculetype ]")
    (tmp_path / "forcefield.itp").write_text(f"{BANNER}\n#define SOMETHING\n{head}")
    (tmp_path / "include.top").write_text(f'; comment\n#include "forcefield.itp"\n{middle}{rest}')
    assert_same(tmp_path / "include.top", tmp_path / "all.top")


def test_directives_without_a_name_are_refused(tmp_path):
    path = write(tmp_path / "a.top", {})
    path.write_text(path.read_text().replace("[ bondtypes ]", "[ ]"))
    with pytest.raises(TopologyError, match=r"\[  \] is not evaluated"):
        read_topology(path)


@pytest.mark.parametrize("key", SAME)
def test_second_states(tmp_path, key):
    """Of a free-energy calculation: equal to the first in all flexible water of GROMACS, else refused."""
    plain = write(tmp_path / "plain.top", {})
    assert_same(write(tmp_path / "same.top", {key: SAME[key]}), plain)
    with pytest.raises(TopologyError) as caught:
        read_topology(write(tmp_path / "other.top", {key: OTHER[key]}))
    expected = (
        "types of bonds: expected one set"
        if key == "types"
        else "expected a B state (of free energies) equal"
    )
    assert expected in str(caught.value)


def test_second_states_of_own_pairs(tmp_path):
    plain = write(tmp_path / "plain.top", {"pair": " 0.3 0.4"})
    assert_same(write(tmp_path / "same.top", {"pair": " 0.3 0.4 0.3 0.4"}), plain)
    with pytest.raises(TopologyError, match="B state"):
        read_topology(write(tmp_path / "other.top", {"pair": " 0.3 0.4 0.3 0.5"}))


def test_rows_without_a_function_type_have_the_first(tmp_path):
    """As in urea.itp of amber*.ff, and grompp; OpenMM reads no such rows."""
    plain = write(tmp_path / "plain.top", {})
    path = write(tmp_path / "short.top", {"function": ""})
    path.write_text(path.read_text().replace("\n1 3 1\n", "\n1 3\n"))
    assert_same(path, plain)


def test_fourier_dihedrals(tmp_path):
    row = "2 1 3 4 9 180.0 4.6 2"
    path = write(tmp_path / "fourier.top", {})
    path.write_text(path.read_text().replace(row, "2 1 3 4 5 3.1 -2.2 1.3 0.7"))
    assert_same(path)
    types = "[ dihedraltypes ]\nHW OW CT OW 5 3.1 -2.2 1.3 0.7\n[ moleculetype ]"
    typed = tmp_path / "typed.top"
    typed.write_text(
        path.read_text().replace("2 1 3 4 5 3.1 -2.2 1.3 0.7", "2 1 3 4 5").replace("[ moleculetype ]", types)
    )
    assert_same(typed, path)


def without_numbers(path, masses=("16.00", "1.008", "12.01")):
    """The file without atomic numbers, its masses changed."""
    text = write(path, {}).read_text()
    for kind, number, old, new in zip(
        ("OW", "HW", "CT"), "816", ("16.00", "1.008", "12.01"), masses, strict=True
    ):
        text = text.replace(f"{kind}   {number}  {old}", f"{kind}  {new}")
        text = text.replace(old + "\n", new + "\n")
    path.write_text(text)
    return path


def test_elements_without_atomic_numbers(tmp_path):
    """O-H and C-O-H with masses moved to hydrogen: 13.984 is nearer to nitrogen than to oxygen."""
    for masses in (("16.00", "1.008", "12.01"), ("13.984", "3.024", "12.01")):
        topology = read_topology(without_numbers(tmp_path / "a.top", masses))
        assert topology.numbers.tolist() == [8, 1, 6, 8, 1]
    with pytest.raises(TopologyError) as caught:
        read_topology(without_numbers(tmp_path / "a.top", ("16.00", "1.008", "28.5")))
    assert "molecule MOL: atom 3 (C1): expected the atomic number, or a mass of C as the name C1" in str(
        caught.value
    )


def test_atomic_numbers_come_before_masses(tmp_path):
    path = write(tmp_path / "a.top", {})
    path.write_text(path.read_text().replace("16.00", "13.984").replace("1.008", "3.024"))
    assert read_topology(path).numbers.tolist() == [8, 1, 6, 8, 1]
    write(path, {})
    path.write_text(path.read_text().replace("CT   6", "CT   7"))
    with pytest.raises(TopologyError, match=r"atom 3 \(C1\): expected a mass of N .* that of C"):
        read_topology(path)


def test_united_atoms_are_no_part_of_a_qm_region(tmp_path, fail):
    text = (DATA / "mixed.top").read_text().replace("1 CA 1 MIX C1 1 -0.10", "1 CA 1 MIX C1 1 -0.10 15.035")
    (tmp_path / "a.top").write_text(text)
    symbols = "CCCOHC"
    rows = [f"{symbol} {i}.0 {0.7 * (i % 2)} 0.0" for i, symbol in enumerate(symbols)]
    (tmp_path / "a.xyz").write_text("\n".join(["6", "", *rows, ""]))
    (tmp_path / "a.yaml").write_text(
        "structure: a.xyz\nmm: {topology: a.top}\nqm: {atoms: all, charge: 0, dftb: {parameters: builtin}}\n"
    )
    assert "MIX1:C1 (atom 0) of mass 15.035, a carbon united with 3 hydrogens" in fail(
        "check", tmp_path / "a.yaml"
    )


def test_numbers_of_residues_that_no_machine_has(tmp_path):
    path = write(tmp_path / "a.top", {})
    text = path.read_text()
    row = next(line for line in text.split("[ atoms ]")[1].splitlines() if line.split()[:1] == ["1"])
    words = row.split()
    words[2] = "1" + "0" * 20
    path.write_text(text.replace(row, " ".join(words)))
    with pytest.raises(TopologyError, match=r"\[ atoms \]: expected the number of a residue, found"):
        read_topology(path)
