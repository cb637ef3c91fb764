"""Files with virtual sites, CMAP and CHARMM terms against OpenMM (Reference platform) on the same files."""

from __future__ import annotations

import numpy as np
import pytest

from mm_systems import DATA, TRICLINIC
from openmm_support import gromacs_system, openmm, openmm_energies, use_conventions
from pidelta.mm.evaluator import MMEvaluator
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


COMPONENT_OF = {
    "HarmonicBondForce": "bond",
    "CustomBondForce": "morse_bond",
    "HarmonicAngleForce": "angle",
    "CMAPTorsionForce": "cmap",
    "NonbondedForce": "coulomb",
    "LennardJonesForce": "lj",
    "LennardJonesExceptions": "lj14",
}


def chain_and_water(seed):
    """Two waters, the chain and two more waters: (18, 3) in bohr."""
    rng = np.random.default_rng(seed)
    corners = np.array([[0.1, 0.1, 0.1], [0.7, 0.2, 0.3], [0.2, 0.7, 0.6], [0.6, 0.6, 0.8]]) @ TRICLINIC
    waters = corners[:, None] + WATER
    chain = CHAIN + np.array([0.4, 0.3, 0.35]) @ TRICLINIC
    x = np.concatenate([*waters[:2], chain, *waters[2:]])
    return x + rng.normal(scale=0.03, size=x.shape)


def with_rows_for_sites(topology, positions):
    """Positions as OpenMM wants them: all rows of the file; sites anywhere, OpenMM places them."""
    rows = np.zeros((len(topology) + len(topology.massless_rows), 3))
    real = np.delete(np.arange(len(rows)), topology.massless_rows)
    rows[real] = positions
    return rows, real


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
    evaluator = MMEvaluator(top, cutoff=None if cell is None else CUTOFF)
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
