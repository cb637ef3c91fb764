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
    scrambled,
    water_positions,
)
from pidelta.mm.evaluator import MMEvaluator
from pidelta.mm.readers import read_topology
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KJ_PER_MOL

openmm = pytest.importorskip("openmm")
app = pytest.importorskip("openmm.app")

NM_PER_BOHR = 0.1 * BOHR_IN_ANGSTROM
CUTOFF = 11.5


def gromacs_system(name, cell):
    method = app.NoCutoff if cell is None else app.CutoffPeriodic
    vectors = None if cell is None else tuple(openmm.Vec3(*row) for row in cell * NM_PER_BOHR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # OpenMM leaves the file to the garbage collector
        top = app.GromacsTopFile(str(DATA / name), periodicBoxVectors=vectors, defines={"FLEXIBLE": "1"})
    return top.createSystem(nonbondedMethod=method, rigidWater=False, removeCMMotion=False)


def amber_system(path, cell):
    method = app.NoCutoff if cell is None else app.CutoffPeriodic
    vectors = None if cell is None else tuple(openmm.Vec3(*row) for row in cell * NM_PER_BOHR)
    prmtop = app.AmberPrmtopFile(str(path), periodicBoxVectors=vectors)
    return prmtop.createSystem(
        nonbondedMethod=method, rigidWater=False, constraints=None, removeCMMotion=False
    )


def use_conventions(system, cutoff, dielectric):
    """Apply the truncation of `MMEvaluator` to OpenMM's NonbondedForce."""
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setUseDispersionCorrection(False)
            force.setCutoffDistance(cutoff * NM_PER_BOHR)
            force.setReactionFieldDielectric(dielectric)
            force.setUseSwitchingFunction(True)
            force.setSwitchingDistance(0.9 * cutoff * NM_PER_BOHR)


def split_nonbonded(system):
    """Replace the NonbondedForce by four: Lennard-Jones, Coulomb, and both of the exceptions."""
    index = next(i for i, f in enumerate(system.getForces()) if isinstance(f, openmm.NonbondedForce))
    original = system.getForce(index)
    for particles_lj, particles_q, pairs_lj, pairs_q in np.eye(4):
        copy = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(original))
        for i in range(copy.getNumParticles()):
            q, sigma, epsilon = copy.getParticleParameters(i)
            copy.setParticleParameters(i, q * particles_q, sigma, epsilon * particles_lj)
        for i in range(copy.getNumExceptions()):
            a, b, qq, sigma, epsilon = copy.getExceptionParameters(i)
            copy.setExceptionParameters(i, a, b, qq * pairs_q, sigma, epsilon * pairs_lj)
        system.addForce(copy)
    system.removeForce(index)


def openmm_energies(system, positions, cell):
    """Energies in hartree by force, in their order, and the total gradient in hartree/bohr."""
    for group, force in enumerate(system.getForces()):
        force.setForceGroup(group)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    if cell is not None:
        context.setPeriodicBoxVectors(*(openmm.Vec3(*row) for row in cell * NM_PER_BOHR))
    context.setPositions(positions * NM_PER_BOHR)
    energies = [
        context.getState(getEnergy=True, groups={group}).getPotentialEnergy()._value / HARTREE_IN_KJ_PER_MOL
        for group in range(system.getNumForces())
    ]
    forces = context.getState(getForces=True).getForces(asNumpy=True)._value
    return np.array(energies), -forces * NM_PER_BOHR / HARTREE_IN_KJ_PER_MOL


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
    evaluator = MMEvaluator(
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
        MMEvaluator(read_topology(path), cutoff=CUTOFF).evaluate(acetamide_water()[None], TRICLINIC[None])
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
    term = MMEvaluator(read_topology(DATA / "mixed.top"), cutoff=None).evaluate(positions[None], None)
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
