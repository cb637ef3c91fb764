"""GROMACS and AMBER files with virtual sites and CMAP against OpenMM (Reference platform)."""

from __future__ import annotations

import warnings

import numpy as np
import parmed
import pytest

from mm_files import protein
from mm_systems import DATA, TRICLINIC, mm_evaluator, on_atoms, water_positions, write_four_point_prmtop
from openmm_support import (
    COMPONENT_OF,
    app,
    assert_same_as_openmm,
    gromacs_system,
    openmm,
    openmm_energies,
    use_conventions,
    with_rows_for_sites,
)
from pidelta.core.structure import read_coordinates
from pidelta.errors import TopologyError
from pidelta.mm.readers import read_topology
from pidelta.units import ANGSTROM

CUTOFF = 11.5
CHAIN = (
    np.array(
        [[0, 0, 0], [1.45, 0.3, 0.1], [1.9, 1.7, 0.4], [3.3, 1.9, -0.1], [3.8, 3.3, 0.3], [4.8, 3.4, 0.6]]
    )
    * ANGSTROM
)
WATER = np.array([[0.0, 0.0, 0.0], [0.80, 0.58, 0.0], [-0.78, 0.60, 0.05]]) * ANGSTROM


def chain_and_water(seed):
    """Two waters, the chain and two more waters: (18, 3) in bohr."""
    rng = np.random.default_rng(seed)
    corners = np.array([[0.1, 0.1, 0.1], [0.7, 0.2, 0.3], [0.2, 0.7, 0.6], [0.6, 0.6, 0.8]]) @ TRICLINIC
    waters = corners[:, None] + WATER
    chain = CHAIN + np.array([0.4, 0.3, 0.35]) @ TRICLINIC
    x = np.concatenate([*waters[:2], chain, *waters[2:]])
    return x + rng.normal(scale=0.03, size=x.shape)


def morse_bonds(top):
    """The bonds of [ bondtypes ] type 3, which OpenMM's reader refuses."""
    force = openmm.CustomBondForce("350*(1-exp(-18*(r-0.153)))^2")
    for i, j in ((1, 2), (3, 4)):
        rows = np.delete(np.arange(24), top.massless_rows)
        force.addBond(*(int(rows[6 + atom]) for atom in (i, j)))
    return force


@pytest.fixture
def sites_top(tmp_path):
    """sites.top with Morse bonds for pidelta, and with nothing in their place for OpenMM."""
    text = (DATA / "sites.top").read_text()
    assert text.count("BONDTYPE") == 2
    morse = "CA CA 3 0.153 350.0 18.0\n"
    (tmp_path / "pidelta.top").write_text(text.replace("BONDTYPE", "3"))
    (tmp_path / "openmm.top").write_text(text.replace("BONDTYPE", "1 0.153 0.0").replace(morse, ""))
    return tmp_path


@pytest.mark.parametrize("cell", [TRICLINIC, None], ids=["triclinic", "open"])
def test_gromacs_file_with_sites(sites_top, cell):
    top = read_topology(sites_top / "pidelta.top")
    assert (len(top), top.n_particles) == (18, 24)
    x = chain_and_water(0)
    rows, real = with_rows_for_sites(top, x)
    system = gromacs_system(sites_top / "openmm.top", cell)
    system.addForce(morse_bonds(top))
    use_conventions(system, CUTOFF, 1e30)
    energies, gradient = openmm_energies(system, rows, cell)
    evaluator = on_atoms(mm_evaluator(top, cutoff=None if cell is None else CUTOFF))
    term = evaluator.evaluate(x[None], None if cell is None else cell[None])
    found = {name: energy[0] for name, energy in term.components.items()}
    expected = dict.fromkeys(found, 0.0)
    for force, energy in zip(system.getForces(), energies, strict=True):
        expected[COMPONENT_OF[force.getName()]] += energy
    found["coulomb"] += found.pop("coulomb14")
    assert min(abs(found[name]) for name in ("bond", "morse_bond", "cmap", "lj14", "lj", "coulomb")) > 1e-6
    for name, energy in found.items():
        assert energy == pytest.approx(expected[name], rel=1e-9, abs=1e-12), name
    np.testing.assert_allclose(term.gradient[0], gradient[real], atol=1e-9)


def amber_system(path):
    return app.AmberPrmtopFile(str(path)).createSystem(
        constraints=None, rigidWater=False, removeCMMotion=False
    )


@pytest.mark.parametrize("cell", [TRICLINIC, None], ids=["triclinic", "open"])
def test_box_of_four_point_water(tmp_path, cell):
    path = tmp_path / "box.top"
    path.write_text((DATA / "tip4p.top").read_text().replace("SOL 8", "SOL 64"))
    top = read_topology(path)
    x = water_positions(64, TRICLINIC, seed=2)
    rows, real = with_rows_for_sites(top, x)
    system = gromacs_system(path, cell)
    use_conventions(system, CUTOFF, 1e30)
    energies, gradient = openmm_energies(system, rows, cell)
    evaluator = on_atoms(mm_evaluator(top, cutoff=None if cell is None else CUTOFF))
    term = evaluator.evaluate(x[None], None if cell is None else cell[None])
    assert term.energy[0] == pytest.approx(energies.sum(), rel=1e-9)
    np.testing.assert_allclose(term.gradient[0], gradient[real], atol=1e-9)


def test_protein_from_amber(tmp_path):
    """ff19SB, with its CMAP."""
    structure, _, _, positions = protein("amber19-all.xml")
    path = tmp_path / "protein.prmtop"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parmed.amber.AmberParm.from_structure(structure).write_parm(str(path))
    term = assert_same_as_openmm(read_topology(path), amber_system(path), positions)
    assert abs(term.components["cmap"][0]) > 1e-3


@pytest.fixture
def tip4p(tmp_path):
    """A box of 8 four-point waters as prmtop."""
    return write_four_point_prmtop(tmp_path / "tip4p.prmtop", (DATA / "tip4p.top").read_text())


def test_four_point_water_from_amber(tip4p):
    topology = read_topology(tip4p)
    assert (len(topology), topology.n_particles) == (24, 32)
    assert topology.massless_rows.tolist() == list(range(3, 32, 4))
    assert_same_as_openmm(topology, amber_system(tip4p), water_positions(8, np.eye(3) * 20.0, seed=0))


def test_restarts_may_list_the_sites_or_leave_them_out(tip4p, tmp_path):
    topology = read_topology(tip4p)
    positions = water_positions(8, np.eye(3) * 20.0, seed=0)
    rows, _ = with_rows_for_sites(topology, positions)
    for name, coordinates in (("listed.rst7", rows), ("left_out.rst7", positions)):
        restart = parmed.amber.Rst7(natom=len(coordinates))
        restart.coordinates = coordinates / ANGSTROM
        restart.box = [20.0, 21.0, 22.0, 90.0, 90.0, 90.0]
        restart.write(str(tmp_path / name))
        found = read_coordinates(tmp_path / name, topology)
        np.testing.assert_allclose(found.positions, positions, atol=1e-6)
        np.testing.assert_allclose(np.diag(found.cell) / ANGSTROM, [20.0, 21.0, 22.0])


def test_binary_restarts(tip4p, tmp_path):
    topology = read_topology(tip4p)
    positions = water_positions(8, np.eye(3) * 20.0, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that SciPy writes it
        restart = parmed.amber.NetCDFRestart.open_new(
            str(tmp_path / "water.nc"), natom=24, box=True, vels=False
        )
        restart.coordinates = positions / ANGSTROM
        restart.cell_lengths, restart.cell_angles = [20.0, 21.0, 22.0], [90.0, 80.0, 90.0]
        restart.close()
    found = read_coordinates(tmp_path / "water.nc", topology)
    np.testing.assert_allclose(found.positions, positions, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found.cell, axis=1) / ANGSTROM, [20.0, 21.0, 22.0])


def test_extra_points_outside_water_are_refused(tip4p):
    text = tip4p.read_text().replace("1.59990000E+01", "1.20110000E+01", 1)
    tip4p.write_text(text.replace("       8       1       1       0", "       6       1       1       0", 1))
    with pytest.raises(TopologyError, match="row 3 is an extra point; they are known in four-point water"):
        read_topology(tip4p)
