"""The file's own numbers of residues, and its chains or segments, on systems, topologies and labels."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from mm_systems import CUBIC, DATA, water_positions
from pidelta.config import load_config
from pidelta.mm.readers import read_topology
from pidelta.setup import Setup
from pidelta.units import BOHR_IN_ANGSTROM

NUMBERS = [7, 8, 120]


def pdb(path, chains="AAB", segments=("", "", "")):
    positions = water_positions(3, CUBIC, seed=0) * BOHR_IN_ANGSTROM
    rows = []
    for i, (x, y, z) in enumerate(positions):
        residue, name = i // 3, ("OW", "HW1", "HW2")[i % 3]
        rows.append(
            f"ATOM  {i + 1:5d}  {name:<3s} SOL {chains[residue]}{NUMBERS[residue]:4d}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00      {segments[residue]:<4s}{name[0]:>2s}"
        )
    path.write_text("\n".join([*rows, "END", ""]))


def inputs(folder, structure, force_field):
    config = folder / "c.yaml"
    config.write_text(f"structure: {structure}\nmm: {{{force_field}}}\n")
    return Setup(load_config(config))


@pytest.fixture
def folder(tmp_path):
    for path in DATA.iterdir():
        shutil.copy(path, tmp_path)
    text = (tmp_path / "water.top").read_text()
    (tmp_path / "water.top").write_text(text.replace("SOL 64", "SOL 3"))
    return tmp_path


@pytest.mark.parametrize("force_field", ["topology: water.top", "water: q-spc-fw"])
def test_numbers_of_a_structure_come_before_those_of_a_topology(folder, force_field):
    pdb(folder / "w.pdb")
    found = inputs(folder, "w.pdb", force_field)
    for holder in (found.system, found.topology):
        assert holder.residue_numbers.tolist() == np.repeat(NUMBERS, 3).tolist()
        assert holder.segments == tuple("AAAAAABBB")
        assert holder.residue_indices.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found.topology.label(7) == "SOL120:HW1 (atom 7)"


def test_segments_of_a_pdb_file_come_before_its_chains(folder):
    pdb(folder / "w.pdb", segments=("WT1", "WT1", "WT2"))
    assert inputs(folder, "w.pdb", "topology: water.top").system.segments[::3] == ("WT1", "WT1", "WT2")


@pytest.mark.parametrize("force_field", ["topology: water.top", "water: q-spc-fw"])
def test_a_structure_without_residues_leaves_those_of_the_topology(folder, force_field):
    rows = [f"{'OHH'[i % 3]} {i}.0 {i % 5}.0 0.5" for i in range(9)]
    (folder / "w.xyz").write_text("\n".join(["9", "", *rows, ""]))
    system = inputs(folder, "w.xyz", force_field).system
    assert system.residue_numbers[::3].tolist() == [1, 2, 3]
    assert set(system.segments) == {""}


def test_gromacs_numbers_molecules_of_one_residue_after_the_others(folder):
    """As in the .gro files that grompp and gmx solvate write."""
    top, itp = folder / "acetamide-water.top", folder / "acetamide.itp"
    itp.write_text(re.sub(r"^([1-9] \w+ +)1 ACM", r"\g<1>4 ACM", itp.read_text(), flags=re.MULTILINE))
    itp.write_text(re.sub(r"^([5-9] \w+ +)4 ACM", r"\g<1>5 ACM", itp.read_text(), flags=re.MULTILINE))
    top.write_text(top.read_text().replace("ACM 1\nSOL 60", "SOL 2\nACM 2\nSOL 1"))
    numbers = read_topology(top).residue_numbers
    assert numbers.tolist() == [6] * 3 + [7] * 3 + 2 * ([4] * 4 + [5] * 5) + [8] * 3
