"""Whether the structure of a set-up is held against its atoms: their order, their unit, their distances."""

import ase
import ase.io
import numpy as np
import pytest

from conftest import ROOT
from mm_systems import WATER
from pidelta.config import load_config
from pidelta.errors import StructureError
from pidelta.setup import Setup
from pidelta.units import BOHR_IN_ANGSTROM

URACIL = ROOT / "inputs" / "molecule" / "uracil.xyz"
IN_BOHR = 1.0 / BOHR_IN_ANGSTROM


@pytest.fixture
def waters(tmp_path):
    """Eight waters without a cell: their coordinates times a factor, the positions of atoms in an order."""

    def make(factor=1.0, order=(0, 1, 2), molecules=8, qm="null", more=""):
        grid = np.array(list(np.ndindex(2, 2, 2)))[:molecules, None] * 4.5
        rows = (grid + WATER[list(order)] * BOHR_IN_ANGSTROM).reshape(-1, 3) * factor
        ase.io.write(tmp_path / "w.xyz", ase.Atoms("OHH" * molecules, rows))
        (tmp_path / "p.yaml").write_text(f"structure: w.xyz\nqm: {qm}\nmm: {{water: spc-fw}}\n{more}")
        return Setup(load_config(tmp_path / "p.yaml"))

    return make


@pytest.fixture
def uracil(tmp_path):
    """A QM molecule whose coordinates are multiplied by a factor."""

    def make(factor):
        atoms = ase.io.read(URACIL)
        atoms.positions *= factor
        ase.io.write(tmp_path / "u.xyz", atoms)
        (tmp_path / "p.yaml").write_text("structure: u.xyz\nqm: {charge: 0}\n")
        return Setup(load_config(tmp_path / "p.yaml")).warnings()

    return make


@pytest.mark.parametrize(
    ("factor", "mistake"),
    [
        (IN_BOHR, "bohr had been read as angstrom"),
        (BOHR_IN_ANGSTROM, "angstrom had been read as bohr"),
        (0.1, "nm had been read as angstrom"),
    ],
)
def test_a_structure_in_another_unit_is_refused(waters, factor, mistake):
    with pytest.raises(
        StructureError, match=rf"w\.xyz: expected bonds as long as in the model of water, .* {mistake}$"
    ):
        _ = waters(factor).system


@pytest.mark.parametrize("qm", ["null", "{atoms: [0, 1, 2]}"])
def test_atoms_in_another_order_are_told(waters, qm):
    """H O H read as O H H: one of two bonds has the length of H - H."""
    assert waters(qm=qm).warnings() == []
    (warning,) = waters(order=(1, 0, 2), qm=qm).warnings()
    assert "w.xyz: 8 of 16 bonds are far from their lengths in the model of water" in warning
    assert "HW2" in warning or "(atom 2)" in warning
    assert "expected 1.01 angstrom, found 1.62: another order or unit?" in warning


def test_bonds_of_qm_atoms_may_be_broken(waters):
    setup = waters(qm="{atoms: [0, 1, 2]}")
    setup.system.positions[1] += 2.0 * (setup.system.positions[1] - setup.system.positions[0])
    assert setup.warnings() == []
    (warning,) = waters(1.7).warnings()  # no ratio of units
    assert "16 of 16 bonds" in warning


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.15])
def test_an_unrelaxed_molecule_is_not_told_of(uracil, factor):
    assert uracil(factor) == []


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (IN_BOHR, "atoms are alone, such as"),
        (BOHR_IN_ANGSTROM, "of 12 atoms are nearer to another than any bond is long, such as"),
        (0.1, "12 of 12 atoms are nearer to another than any bond is long, such as"),
    ],
)
def test_a_molecule_without_a_force_field_in_another_unit(uracil, factor, text):
    (warning,) = uracil(factor)
    assert "u.xyz: " in warning
    assert text in warning
    assert warning.endswith("another unit?")


@pytest.mark.parametrize(("cutoff", "beyond"), [("0.5 nm", 12), ("0.7 nm", 3), ("1.4 nm", 0)])
def test_charges_of_a_cluster_beyond_the_embedding_are_told(waters, cutoff, beyond):
    """MM atoms of a cluster feel all of each other; those of far corners are beyond 5 angstrom."""
    setup = waters(qm="{atoms: [0, 1, 2]}", more=f"embedding: {{cutoff: {cutoff}, switch: 0.1 nm}}\n")
    assert [line.partition(",")[0] for line in setup.warnings()] == [
        f"{beyond} MM charges of this cluster"
    ] * (beyond > 0)
    assert all(" +0.0000 e in all" in line and "embedding.cutoff" in line for line in setup.warnings())


@pytest.mark.parametrize("cut", [False, True])
def test_a_cell_that_is_not_used_is_told(tmp_path, run, capsys, cut):
    """A molecule in a box is one in vacuum; a crystal, or a molecule at the edge of its box, is torn."""
    atoms = ase.io.read(URACIL)
    atoms.set_cell([20.0, 20.0, 20.0])
    atoms.pbc = True
    atoms.center()
    if cut:
        atoms.positions[:, 0] += 10.0
        atoms.wrap()
    ase.io.write(tmp_path / "u.xyz", atoms, format="extxyz")
    (tmp_path / "p.yaml").write_text("structure: u.xyz\nqm: {charge: 0}\n")
    warnings = Setup(load_config(tmp_path / "p.yaml")).warnings()
    assert ["bonds cross its cell" in line for line in warnings] == [True] * cut
    if not cut:
        assert run("check", tmp_path / "p.yaml", "--atoms", 1) == 0
        assert "that of u.xyz is not used: no section mm" in " ".join(capsys.readouterr().out.split())
