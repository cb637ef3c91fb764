"""The molecules of `inputs/studies/paper`: boxes, force fields against OpenMM, trajectories."""

from __future__ import annotations

import importlib
import sys
import warnings

import numpy as np
import pytest

from conftest import ROOT
from mm_systems import mm_evaluator
from pidelta.config import load_config
from pidelta.core.cell import heights
from pidelta.core.structure import read_coordinates
from pidelta.mm.readers import read_topology
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KJ_PER_MOL

STUDY = ROOT / "inputs" / "studies" / "paper"
sys.path.append(str(STUDY))  # last: other folders have modules of the same names
TRAJECTORIES = importlib.import_module("sampling").TRAJECTORIES
NM_PER_BOHR = 0.1 * BOHR_IN_ANGSTROM
TOLERANCE = 1e-6


def box(molecule, trajectory):
    """The structure that a trajectory starts from, as i-PI in its folder finds it."""
    return (STUDY / molecule / "runs" / trajectory.name / trajectory.box).resolve()


@pytest.mark.parametrize("molecule", TRAJECTORIES)
def test_frames_to_test_on_are_from_a_box_that_nothing_is_trained_on(molecule):
    trajectories = TRAJECTORIES[molecule]
    held_out = {box(molecule, trajectory) for trajectory in trajectories if trajectory.part == "heldout"}
    trained_on = {box(molecule, trajectory) for trajectory in trajectories if trajectory.part != "heldout"}
    assert held_out.isdisjoint(trained_on)
    assert len(trained_on) == 2
    for quantity in ("name", "seed"):
        assert len({getattr(trajectory, quantity) for trajectory in trajectories}) == len(trajectories)


@pytest.mark.parametrize("molecule", TRAJECTORIES)
def test_each_box_holds_the_molecule_and_all_that_it_sees(molecule):
    config = load_config(STUDY / molecule / "sampling.yaml")
    topology = read_topology(config.mm.topology)
    boxes = {box(molecule, trajectory) for trajectory in TRAJECTORIES[molecule]}
    found = [read_coordinates(path, topology) for path in sorted(boxes)]
    for coordinates in found:
        assert heights(coordinates.cell).min() > 2 * config.embedding.cutoff
    oxygens = [coordinates.positions[12::3] for coordinates in found]
    for k, first in enumerate(oxygens):
        for second in oxygens[:k]:
            moved = np.linalg.norm(first - second, axis=1)
            assert np.median(moved) > 10.0  # bohr: other configurations, not one that moved on


def test_the_molecules_are_in_the_same_water():
    waters = [
        (STUDY / folder / name).read_text().split("[ moleculetype ]")[-1].split("[ system ]")[0]
        for folder, name in (("benzene", "benzene-water.top"), ("../../uracil-water", "uracil-water.top"))
    ]
    assert waters[0] == waters[1]


@pytest.mark.parametrize("molecule", TRAJECTORIES)
def test_energy_and_forces_agree_with_openmm(molecule):
    """All of the force field, that of the molecule, too, as if nothing were quantum mechanical."""
    openmm = pytest.importorskip("openmm")
    app = pytest.importorskip("openmm.app")
    config = load_config(STUDY / molecule / "sampling.yaml")
    topology = read_topology(config.mm.topology)
    coordinates = read_coordinates(STUDY / molecule / "box-3.pdb", topology)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # OpenMM leaves the file to the garbage collector
        top = app.GromacsTopFile(str(config.mm.topology), periodicBoxVectors=coordinates.cell * NM_PER_BOHR)
    system = top.createSystem(
        nonbondedMethod=app.PME,
        nonbondedCutoff=config.mm.cutoff * NM_PER_BOHR,
        rigidWater=False,
        removeCMMotion=False,
        switchDistance=0.9 * config.mm.cutoff * NM_PER_BOHR,
        ewaldErrorTolerance=TOLERANCE,
    )
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setUseDispersionCorrection(False)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(coordinates.positions * NM_PER_BOHR)
    state = context.getState(getEnergy=True, getForces=True)
    energy = state.getPotentialEnergy()._value / HARTREE_IN_KJ_PER_MOL
    gradient = -state.getForces(asNumpy=True)._value * NM_PER_BOHR / HARTREE_IN_KJ_PER_MOL

    evaluator = mm_evaluator(
        topology, cutoff=config.mm.cutoff, electrostatics="pme", ewald_tolerance=TOLERANCE
    )
    term = evaluator.evaluate(coordinates.positions[None], coordinates.cell[None])
    assert term.energy[0] == pytest.approx(energy, rel=1e-6)
    error = np.sqrt(np.mean((term.gradient[0] - gradient) ** 2) / np.mean(gradient**2))
    assert error < 1e-5


def test_the_page_of_models_shows_their_rows():
    """Rows that are added or renamed without the page would leave it wrong."""
    models = importlib.import_module("models")
    assert models.page(models.Table(STUDY / "models.csv").rows) == (STUDY / "models.md").read_text("utf-8")
