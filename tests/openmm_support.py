"""OpenMM systems from files, and their energies on the Reference platform, in atomic units."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from mm_systems import DATA, mm_evaluator, on_atoms
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KJ_PER_MOL

openmm = pytest.importorskip("openmm")
app = pytest.importorskip("openmm.app")

NM_PER_BOHR = 0.1 * BOHR_IN_ANGSTROM
COMPONENT_OF = {
    "HarmonicBondForce": "bond",
    "CustomBondForce": "morse_bond",
    "HarmonicAngleForce": "angle",
    "CMAPTorsionForce": "cmap",
    "NonbondedForce": "coulomb",
    "LennardJonesForce": "lj",
    "LennardJonesExceptions": "lj14",
}


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
            force.setReactionFieldDielectric(dielectric)
        if isinstance(force, openmm.CustomNonbondedForce):
            force.setUseLongRangeCorrection(False)
        if isinstance(force, (openmm.NonbondedForce, openmm.CustomNonbondedForce)):
            force.setCutoffDistance(cutoff * NM_PER_BOHR)
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
    context.computeVirtualSites()
    energies = [
        context.getState(getEnergy=True, groups={group}).getPotentialEnergy()._value / HARTREE_IN_KJ_PER_MOL
        for group in range(system.getNumForces())
    ]
    forces = context.getState(getForces=True).getForces(asNumpy=True)._value
    return np.array(energies), -forces * NM_PER_BOHR / HARTREE_IN_KJ_PER_MOL


def with_rows_for_sites(topology, positions):
    """Positions as OpenMM wants them: all rows of the file; sites anywhere, OpenMM places them."""
    rows = np.zeros((len(topology) + len(topology.massless_rows), 3))
    real = np.delete(np.arange(len(rows)), topology.massless_rows)
    rows[real] = positions
    return rows, real


def assert_same_as_openmm(topology, system, positions):
    """Compare energies of each kind of term and the gradient, without periodicity; 1e-8 relative."""
    rows, real = with_rows_for_sites(topology, positions)
    energies, gradient = openmm_energies(system, rows, None)
    term = on_atoms(mm_evaluator(topology, cutoff=None)).evaluate(positions[None], None)
    found = {name: energy[0] for name, energy in term.components.items()}
    nonbonded = ("lj", "coulomb", "lj14", "coulomb14")
    pairs = sum(found.pop(name) for name in nonbonded)
    bonds = found["bond"] + found.pop("urey_bradley")
    expected = dict.fromkeys((*COMPONENT_OF.values(), "torsion", "improper", "pairs"), 0.0)
    names = COMPONENT_OF | {
        "PeriodicTorsionForce": "torsion",
        "RBTorsionForce": "torsion",
        "CustomTorsionForce": "improper",
        "HarmonicTorsionForce": "improper",
        "NonbondedForce": "pairs",
        "CustomNonbondedForce": "pairs",
        "CustomBondForce": "pairs",
    }
    for force, energy in zip(system.getForces(), energies, strict=True):
        expected[names[force.getName()]] += energy
    for name, energy in (found | {"bond": bonds, "pairs": pairs}).items():
        assert energy == pytest.approx(expected.get(name, 0.0), rel=1e-8, abs=1e-12), name
    difference = term.gradient[0] - gradient[real]
    assert np.sqrt(np.mean(difference**2) / np.mean(gradient[real] ** 2)) < 1e-8
    return term
