"""PME and Ewald of the classical evaluator: derivatives, OpenMM's Reference platform, threads."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import special

from mm_systems import CUBIC, DATA, TRICLINIC, acetamide_water, mm_evaluator, scrambled, water_positions
from pidelta.core.cell import minimum_image
from pidelta.core.ewald import splitting
from pidelta.core.pme import grid_for
from pidelta.errors import SetupError
from pidelta.mm import nonbonded
from pidelta.mm.readers import read_topology
from pidelta.testing.evaluators import check_evaluator
from pidelta.testing.samples import Sample, Tolerances
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KJ_PER_MOL

CUTOFF = 11.5
NM_PER_BOHR = 0.1 * BOHR_IN_ANGSTROM


@pytest.fixture(scope="module")
def solution():
    return read_topology(DATA / "acetamide-water.top")


@pytest.fixture(scope="module")
def water():
    return read_topology(DATA / "water.top")


@pytest.mark.parametrize(("method", "extra_charge"), [("pme", 0.0), ("pme", 0.02), ("ewald", 0.02)])
def test_conformance(solution, method, extra_charge, monkeypatch):
    """With a tolerance that leaves no step at the cutoff for differences to meet; any grid will do."""
    monkeypatch.setattr("pidelta.core.pme.grid_for", lambda *_: (27, 25, 24))
    topology = replace(solution, charges=solution.charges + extra_charge)
    evaluator = mm_evaluator(
        topology, cutoff=CUTOFF, cell=TRICLINIC, electrostatics=method, ewald_tolerance=1e-9
    )
    noise = np.random.default_rng(0).normal(scale=0.05, size=(2, 189, 3))
    cells = np.stack([TRICLINIC, 1.01 * TRICLINIC])
    sample = Sample(acetamide_water() + noise, cells, topology.residue_indices)
    check_evaluator(
        evaluator, sample, Tolerances(scc=0.0, rounding=1e-9, mesh=0.0 if method == "ewald" else 1e-2)
    )


def openmm_evaluation(name, cell, positions, method, tolerance, grid):
    """Energy in hartree and gradient in hartree/bohr of OpenMM's Reference platform, in double precision."""
    openmm = pytest.importorskip("openmm")
    app = pytest.importorskip("openmm.app")
    vectors = tuple(openmm.Vec3(*row) for row in cell * NM_PER_BOHR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # OpenMM leaves the file to the garbage collector
        top = app.GromacsTopFile(str(DATA / name), periodicBoxVectors=vectors, defines={"FLEXIBLE": "1"})
    system = top.createSystem(
        nonbondedMethod={"pme": app.PME, "ewald": app.Ewald}[method],
        nonbondedCutoff=CUTOFF * NM_PER_BOHR,
        rigidWater=False,
        removeCMMotion=False,
        switchDistance=0.9 * CUTOFF * NM_PER_BOHR,
        ewaldErrorTolerance=tolerance,
    )
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setUseDispersionCorrection(False)
            if method == "pme":
                force.setPMEParameters(splitting(CUTOFF, tolerance) / NM_PER_BOHR, *grid)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPeriodicBoxVectors(*vectors)
    context.setPositions(positions * NM_PER_BOHR)
    state = context.getState(getEnergy=True, getForces=True)
    forces = state.getForces(asNumpy=True)._value
    return (
        state.getPotentialEnergy()._value / HARTREE_IN_KJ_PER_MOL,
        -forces * NM_PER_BOHR / HARTREE_IN_KJ_PER_MOL,
    )


def shift_of_the_direct_part(charges, positions, cell, tolerance):
    """OpenMM does not shift: erfc(alpha cutoff)/cutoff for each pair within the cutoff, by brute force."""
    i, j = np.triu_indices(len(positions), k=1)
    near = np.linalg.norm(minimum_image(positions[j] - positions[i], cell), axis=1) < CUTOFF
    pairs = charges[i[near]] @ charges[j[near]] + 0.5 * charges @ charges
    return pairs * special.erfc(splitting(CUTOFF, tolerance) * CUTOFF) / CUTOFF


@pytest.mark.parametrize(
    ("method", "name", "cell"),
    [
        ("pme", "water.top", CUBIC),
        ("pme", "water.top", TRICLINIC),
        ("pme", "acetamide-water.top", TRICLINIC),
        ("ewald", "water.top", CUBIC),  # OpenMM has no plain sum in triclinic cells
    ],
    ids=["pme-cubic", "pme-triclinic", "pme-acetamide", "ewald-cubic"],
)
def test_agreement_with_openmm(method, name, cell):
    # the same mesh in both; of the plain sum OpenMM chooses the vectors otherwise, so it has to converge
    tolerance, energy_error, gradient_error = {"pme": (5e-4, 1e-9, 1e-8), "ewald": (1e-8, 1e-7, 1e-6)}[method]
    positions = acetamide_water() if name.startswith("acetamide") else water_positions(64, cell, seed=0)
    grid = grid_for(cell, splitting(CUTOFF, tolerance), tolerance)
    energy, gradient = openmm_evaluation(name, cell, positions, method, tolerance, grid)
    evaluator = mm_evaluator(
        read_topology(DATA / name), cutoff=CUTOFF, electrostatics=method, ewald_tolerance=tolerance
    )
    term = evaluator.evaluate(scrambled(positions, cell, seed=5)[None], cell[None])
    shift = shift_of_the_direct_part(evaluator.topology.charges, positions, cell, tolerance)
    assert term.energy[0] + shift == pytest.approx(energy, abs=energy_error)
    error = np.sqrt(np.mean((term.gradient[0] - gradient) ** 2) / np.mean(gradient**2))
    assert error < gradient_error


@pytest.mark.parametrize("method", ["pme", "ewald"])
@pytest.mark.parametrize("tolerance", [1e-3, 5e-4, 1e-4, 1e-5])
def test_the_tolerance_is_about_the_error_of_the_forces(water, method, tolerance):
    positions = water_positions(64, CUBIC, seed=1)[None]
    exact, found = (
        mm_evaluator(water, cutoff=CUTOFF, electrostatics=kind, ewald_tolerance=size)
        .evaluate(positions, CUBIC[None])
        .gradient
        for kind, size in (("ewald", 1e-11), (method, tolerance))
    )
    assert np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)) < 1.5 * tolerance


def test_without_cell_coulomb_is_bare(solution):
    positions = acetamide_water()[None]
    terms = [
        mm_evaluator(solution, cutoff=CUTOFF, electrostatics=method).evaluate(positions, None)
        for method in ("pme", "ewald", "reaction-field", "cutoff")
    ]
    for term in terms[1:]:
        np.testing.assert_array_equal(term.energy, terms[0].energy)


@pytest.mark.parametrize("batch", [1, 3])
def test_results_do_not_depend_on_threads(solution, batch, monkeypatch):
    monkeypatch.setattr("pidelta.mm.nonbonded._SMALLEST_PART", 100)
    noise = np.random.default_rng(0).normal(scale=0.05, size=(batch, 189, 3))
    positions, cells = acetamide_water() + noise, np.stack(batch * [TRICLINIC])
    one, three = (
        mm_evaluator(solution, cutoff=CUTOFF, cell=TRICLINIC, electrostatics="pme", threads=threads).evaluate(
            positions, cells
        )
        for threads in (1, 3)
    )
    for name in ("energy", "gradient", "virial"):
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name))


def test_a_grid_beyond_memory_is_refused(water):
    with pytest.raises(SetupError, match=r"^ewald_tolerance: 1e-12 needs a grid of .*; the plain Ewald sum"):
        mm_evaluator(water, cutoff=CUTOFF, cell=CUBIC, electrostatics="pme", ewald_tolerance=1e-12)


def test_parts_of_a_list_add_up(solution, monkeypatch):
    positions = acetamide_water()[None]
    whole = mm_evaluator(solution, cutoff=CUTOFF).evaluate(positions, TRICLINIC[None])
    monkeypatch.setattr("pidelta.mm.nonbonded._SMALLEST_PART", 100)
    parts = mm_evaluator(solution, cutoff=CUTOFF).evaluate(positions, TRICLINIC[None])
    np.testing.assert_allclose(parts.energy, whole.energy, rtol=1e-13)
    np.testing.assert_allclose(parts.gradient, whole.gradient, atol=1e-14)


def test_inverse_distances_have_double_precision():
    """They start from single precision, which may be an estimate of the processor."""
    r2 = np.exp(np.random.default_rng(0).uniform(-30.0, 30.0, 1000))
    inverse, zeros = np.empty(1000), np.zeros(1000)
    energy = nonbonded._coulomb(r2, inverse, 1.0, np.ones(1000), zeros, zeros.copy(), 0.0)
    np.testing.assert_allclose(inverse, 1.0 / np.sqrt(r2), rtol=1e-15)
    assert energy == pytest.approx((1.0 / np.sqrt(r2)).sum(), rel=1e-14)
