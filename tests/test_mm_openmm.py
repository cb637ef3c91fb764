"""Energies and forces against OpenMM (Reference platform, double precision) on the same files."""

from __future__ import annotations

import warnings

import numpy as np
import parmed
import pytest

from mm_systems import (
    CUBIC,
    DATA,
    MIXED,
    TRICLINIC,
    acetamide_water,
    mm_evaluator,
    scrambled,
    water_positions,
)
from openmm_support import amber_system, gromacs_system, openmm_energies, split_nonbonded, use_conventions
from pidelta.core.cell import minimum_image
from pidelta.mm.readers import read_topology

CUTOFF = 11.5


def assert_same_gradient(found, expected):
    rms = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
    assert rms < 1e-8


def by_term(system):
    """Names of the components of `MMEvaluator` in the order of the forces of a split system."""
    names = {"HarmonicBondForce": "bond", "HarmonicAngleForce": "angle", "PeriodicTorsionForce": "torsion"}
    return [names[force.getName()] for force in system.getForces()[:-4]] + [
        "lj",
        "coulomb",
        "lj14",
        "coulomb14",
    ]


def assert_same_terms(topology, system, positions, cell, dielectric=np.inf):
    """Compare term by term; pidelta gets atoms scattered over the images, OpenMM whole molecules."""
    use_conventions(system, CUTOFF, 1e30 if np.isinf(dielectric) else dielectric)
    split_nonbonded(system)
    energies, gradient = openmm_energies(system, positions, cell)
    evaluator = mm_evaluator(
        topology, cutoff=None if cell is None else CUTOFF, reaction_field_dielectric=dielectric
    )
    if cell is None:
        term = evaluator.evaluate(positions[None], None)
    else:
        term = evaluator.evaluate(scrambled(positions, cell, seed=5)[None], cell[None])
    names = by_term(system)
    found = [term.components[name][0] for name in names]
    np.testing.assert_allclose(found, energies, rtol=1e-9, atol=1e-12, err_msg=str(names))
    np.testing.assert_allclose(term.energy[0], energies.sum(), rtol=1e-9)
    assert_same_gradient(term.gradient[0], gradient)


@pytest.mark.parametrize("cell", [CUBIC, TRICLINIC, None], ids=["cubic", "triclinic", "open"])
def test_flexible_water(cell):
    positions = water_positions(64, CUBIC if cell is None else cell, seed=0)
    system = gromacs_system("water.top", cell)
    assert_same_terms(read_topology(DATA / "water.top"), system, positions, cell)


@pytest.mark.parametrize("dielectric", [np.inf, 78.3, 1.0])
def test_reaction_field_of_finite_dielectric(dielectric):
    system = gromacs_system("water.top", CUBIC)
    positions = water_positions(64, CUBIC, seed=3)
    assert_same_terms(read_topology(DATA / "water.top"), system, positions, CUBIC, dielectric)


@pytest.mark.parametrize("modifier", ["switch", "none"])
def test_dispersion_correction(modifier):
    system = gromacs_system("acetamide-water.top", TRICLINIC)
    use_conventions(system, CUTOFF, 1e30)
    force = next(f for f in system.getForces() if f.getName() == "NonbondedForce")
    force.setUseSwitchingFunction(modifier == "switch")
    without = openmm_energies(system, acetamide_water(), TRICLINIC)[0].sum()
    force.setUseDispersionCorrection(True)
    expected = openmm_energies(system, acetamide_water(), TRICLINIC)[0].sum()
    topology = read_topology(DATA / "acetamide-water.top")
    evaluator = mm_evaluator(topology, cutoff=CUTOFF, lj_modifier=modifier, dispersion_correction=True)
    term = evaluator.evaluate(acetamide_water()[None], TRICLINIC[None])
    assert term.components["lj_tail"][0] == pytest.approx(expected - without, rel=1e-7)
    assert term.energy[0] == pytest.approx(expected, rel=1e-9)


def test_potential_shift():
    """Every pair of oxygens within the cutoff is raised by the same energy."""
    topology = read_topology(DATA / "water.top")
    x = water_positions(64, CUBIC, seed=0)
    oxygens = x[::3]
    d = minimum_image(oxygens[:, None] - oxygens[None], CUBIC)[np.triu_indices(64, k=1)]
    n_pairs = np.count_nonzero((d**2).sum(axis=1) < CUTOFF**2)
    cut, shifted = (
        mm_evaluator(topology, cutoff=CUTOFF, lj_modifier=modifier).evaluate(x[None], CUBIC[None])
        for modifier in ("none", "potential-shift")
    )
    at_cutoff = topology.lj_c12[0, 0] / CUTOFF**12 - topology.lj_c6[0, 0] / CUTOFF**6
    np.testing.assert_allclose(shifted.energy - cut.energy, -n_pairs * at_cutoff, rtol=1e-9)
    np.testing.assert_array_equal(shifted.gradient, cut.gradient)


def test_organic_molecule_in_water_from_gromacs():
    system = gromacs_system("acetamide-water.top", TRICLINIC)
    topology = read_topology(DATA / "acetamide-water.top")
    assert_same_terms(topology, system, acetamide_water(), TRICLINIC)


@pytest.fixture(scope="module")
def prmtop(tmp_path_factory):
    """The same system as an AMBER file, written by ParmEd."""
    path = tmp_path_factory.mktemp("amber") / "acetamide-water.prmtop"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        top = parmed.load_file(str(DATA / "acetamide-water.top"))
        del top.adjusts[:]
        top.adjust_types.clear()
        parmed.amber.AmberParm.from_structure(top).write_parm(str(path))
    return path


@pytest.mark.parametrize("cell", [TRICLINIC, None], ids=["triclinic", "open"])
def test_organic_molecule_in_water_from_amber(prmtop, cell):
    system = amber_system(prmtop, cell)
    assert_same_terms(read_topology(prmtop), system, acetamide_water(), cell)


def test_amber_and_gromacs_files_agree(prmtop):
    terms = [
        mm_evaluator(read_topology(path), cutoff=CUTOFF).evaluate(acetamide_water()[None], TRICLINIC[None])
        for path in (prmtop, DATA / "acetamide-water.top")
    ]
    for name, energy in terms[0].components.items():
        np.testing.assert_allclose(energy, terms[1].components[name], rtol=1e-6, err_msg=name)


def test_other_terms():
    """Geometric combination rule, Ryckaert-Bellemans, Urey-Bradley, impropers, explicit pairs, exclusions."""
    system = gromacs_system("mixed.top", None)
    positions = MIXED + np.random.default_rng(0).normal(scale=0.05, size=MIXED.shape)
    energies, gradient = openmm_energies(system, positions, None)
    names = [force.getName() for force in system.getForces()]
    term = mm_evaluator(read_topology(DATA / "mixed.top"), cutoff=None).evaluate(positions[None], None)
    found = {name: energy[0] for name, energy in term.components.items()}

    def expected(*forces):
        return sum(energy for energy, name in zip(energies, names, strict=True) if name in forces)

    assert min(abs(found[name]) for name in ("urey_bradley", "torsion", "improper", "lj", "lj14")) > 1e-6
    close = pytest.approx
    assert found["bond"] + found["urey_bradley"] == close(expected("HarmonicBondForce"), rel=1e-9)
    assert found["angle"] == close(expected("HarmonicAngleForce"), rel=1e-9)
    assert found["torsion"] == close(expected("RBTorsionForce"), rel=1e-9)
    assert found["improper"] == close(expected("HarmonicTorsionForce"), rel=1e-9)
    assert found["lj"] == close(expected("LennardJonesForce"), rel=1e-9)
    assert found["lj14"] == close(expected("LennardJonesExceptions"), rel=1e-9)
    assert found["coulomb"] + found["coulomb14"] == close(expected("NonbondedForce"), rel=1e-9)
    assert_same_gradient(term.gradient[0], gradient)
