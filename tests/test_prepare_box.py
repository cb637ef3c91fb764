"""Boxes of `pidelta prepare`: room, density, contacts, ions, relaxation; the force field against OpenMM."""

import numpy as np
import openmm
import openmm.app as app
import pytest
from openmm import unit
from scipy.spatial.distance import cdist

from pidelta.core.structure import read_coordinates
from pidelta.errors import RunError, SettingError
from pidelta.mm.evaluator import MMEvaluator
from pidelta.mm.readers import read_topology
from pidelta.mm.settings import ForceFieldSettings
from pidelta.state import Evaluation, Term
from pidelta.units import ANGSTROM, DALTON_IN_ELECTRON_MASS, HARTREE_IN_KJ_PER_MOL, NANOMETER
from pidelta.workflow.preparing import packing, topologies
from pidelta.workflow.preparing.components import Component, Request
from pidelta.workflow.preparing.layout import lay_out
from pidelta.workflow.preparing.molecules import read_molecule
from pidelta.workflow.preparing.relaxation import relax


def component(smiles, name, count=1, quantum=True):
    molecule = read_molecule(smiles, None, 1)
    structure = topologies.generic(molecule)
    if topologies.is_ion(molecule):
        structure = topologies.ion("Cl", -1)
    topologies.rename_residues(structure, name)
    return Component(
        Request(smiles, name, count, None, quantum, None),
        molecule.numbers,
        molecule.positions,
        molecule.charge,
        0,
        molecule,
        structure,
        smiles,
        (),
    )


@pytest.fixture(scope="module")
def layout():
    """Two methylammonium ions and acetonitrile in water, with two chlorides."""
    parts = [component("C[NH3+]", "MAM", count=2), component("CC#N", "ACN")]
    return lay_out(parts, "spc-fw", 1.0 * NANOMETER, 0.9 * NANOMETER, 7)


def test_molecules_keep_the_margin_however_they_turn(layout):
    molecules, edge = layout.box.molecules, layout.box.edge
    radius = 0.5 * cdist(molecules, molecules).max()
    assert 0.0 < edge - 2.0 * (radius + 1.0 * NANOMETER) < 0.011 * ANGSTROM
    assert min(molecules.min(), (edge - molecules).min()) >= 1.0 * NANOMETER


def test_a_single_atom_has_room_for_a_cutoff_as_long_as_the_margin():
    """Files have edges of a few digits: half of what they hold must not be less than the cutoff."""
    edge = packing.edge_for(np.zeros((1, 3)), 0.6 * NANOMETER)
    assert 0.5 * round(edge / ANGSTROM, 3) * ANGSTROM > 0.6 * NANOMETER


def test_nothing_overlaps_across_faces_either(layout):
    positions, molecules = layout.box.positions, layout.molecule_of_atom
    assert len(positions) == len(molecules)
    closest = packing.closest_contact(positions, molecules, layout.box.edge)
    vectors = positions[:, None] - positions[None, :500]
    vectors -= layout.box.edge * np.round(vectors / layout.box.edge)
    distances = np.linalg.norm(vectors, axis=2)
    distances[molecules[:, None] == molecules[None, :500]] = np.inf
    assert closest <= distances.min() + 1e-9
    assert closest > 1.2 * ANGSTROM


def test_the_density_is_that_of_water(layout):
    """0.997 g/cm3 at 300 K; molecules take 1.3 of their van der Waals volume."""
    box = layout.box
    numbers = np.concatenate([part.numbers for part in layout.components for _ in range(part.request.count)])
    free = box.edge**3 - 1.3 * packing.volume(numbers, box.molecules)
    mass = 18.0153 * (len(box.waters) + len(box.ions)) * DALTON_IN_ELECTRON_MASS
    grams_per_cm3 = 9.1093837015e-28 / 0.529177210903e-8**3
    assert mass / free * grams_per_cm3 == pytest.approx(0.997, rel=0.01)


def test_ions_balance_the_charge_far_from_molecules_and_each_other(layout, tmp_path):
    assert len(layout.box.ions) == 2
    layout.write(tmp_path / "s.prmtop", tmp_path / "s.rst7")
    topology = read_topology(tmp_path / "s.prmtop")
    assert topology.charges.sum() == pytest.approx(0.0, abs=1e-6)
    assert cdist(layout.box.ions, layout.box.molecules).min() > 8.0 * ANGSTROM
    assert np.linalg.norm(layout.box.ions[0] - layout.box.ions[1]) > 8.0 * ANGSTROM
    coordinates = read_coordinates(tmp_path / "s.rst7", topology)
    np.testing.assert_allclose(coordinates.positions, layout.box.positions, atol=1e-6)
    assert layout.qm_charge == 2
    assert layout.qm_residues == ("MAM", "ACN")


def test_waters_are_whole_and_of_the_model(layout):
    oh = np.linalg.norm(layout.box.waters[:, 1:] - layout.box.waters[:, :1], axis=2)
    assert np.abs(oh - 1.012 * ANGSTROM).max() < 0.15 * ANGSTROM


def test_a_seed_makes_the_same_box():
    parts = [component("C[NH3+]", "MAM"), component("CO", "MET")]
    first, again, other = (
        lay_out(parts, "spc-fw", 0.7 * NANOMETER, 0.7 * NANOMETER, seed).box.positions for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert first.shape != other.shape or not np.allclose(first, other)


def test_a_margin_below_the_cutoff_is_refused():
    with pytest.raises(SettingError, match=r"expected at least the cutoff, 1.4 nm.* found 1 nm"):
        lay_out([component("C", "MOL")], "spc-fw", 1.0 * NANOMETER, 1.4 * NANOMETER, 1)


def test_names_that_are_not_the_qm_region_alone_are_refused():
    parts = [component("C", "WAT")]
    with pytest.raises(SettingError, match="found WAT"):
        lay_out(parts, "spc-fw", 0.7 * NANOMETER, 0.7 * NANOMETER, 1)


def test_molecules_side_by_side_touch():
    """3.5 angstrom between the nearest atoms, whatever they are."""
    rng = np.random.default_rng(4)
    chain = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 8.0], [0.0, 0.0, 16.0]])
    placed = packing.put_together([chain, chain, chain], rng).reshape(3, 3, 3)
    apart = [cdist(placed[i], np.concatenate(placed[:i])).min() for i in (1, 2)]
    assert apart == pytest.approx([3.5 * ANGSTROM] * 2, abs=0.01)
    assert np.ptp(placed.reshape(-1, 3), axis=0).max() < 3 * 16.0


def test_the_volume_of_spheres():
    """Helium's radius is 1.4 angstrom; half of two that overlap at one radius is 27/32 of a sphere."""
    sphere = 4.0 / 3.0 * np.pi * (1.4 * ANGSTROM) ** 3
    one = packing.volume(np.array([2]), np.zeros((1, 3)))
    two = packing.volume(np.array([2, 2]), np.array([[0.0, 0.0, 0.0], [1.4 * ANGSTROM, 0.0, 0.0]]))
    assert one == pytest.approx(sphere, rel=0.05)
    assert two == pytest.approx(2 * 27 / 32 * sphere, rel=0.05)


def test_molecules_come_back_whole_into_the_middle(layout):
    box = layout.box
    rng = np.random.default_rng(1)
    shifts = box.edge * rng.integers(-2, 3, (len(box.waters), 1, 3))
    moved = np.concatenate([box.molecules, box.ions + box.edge, (box.waters + shifts).reshape(-1, 3)]) + 5.0
    back = packing.wrapped(box, moved)
    middle = back[: len(box.molecules)].mean(axis=0)
    assert middle == pytest.approx([0.5 * box.edge] * 3)
    waters = back[len(box.molecules) + len(box.ions) :].reshape(-1, 3, 3)
    np.testing.assert_allclose(waters - waters[:, :1], box.waters - box.waters[:, :1], atol=1e-9)
    assert ((waters[:, 0] >= 0.0) & (waters[:, 0] < box.edge)).all()


class Springs:
    """Independent springs of two strengths to the origin: 0.1 and 0.6 hartree/bohr^2."""

    numbers = np.array([1, 1])

    def evaluate(self, positions, cells):
        k = np.array([0.1, 0.6])[:, None]
        energy = 0.5 * (k * positions**2).sum(axis=(1, 2))
        return Evaluation({"mm": Term(energy, k * positions, np.zeros((1, 3, 3)))})


def test_relaxation_goes_downhill_and_ends_when_forces_are_gentle():
    forces = []
    start = np.array([[9.0, 0.0, 0.0], [0.0, 4.0, 1.0]])
    end = relax(Springs(), start, np.eye(3), 300, 0.02, lambda step, force: forces.append(force))
    assert len(forces) < 300
    assert forces[-1] < 0.02 < forces[0]
    assert np.linalg.norm(0.6 * end[1]) < 0.02
    assert np.array_equal(relax(Springs(), start, np.eye(3), 300, 5.0, lambda *_: None), start)


def test_a_relaxation_that_fails_is_an_error():
    with pytest.raises(RunError, match=r"force of .* on atom 1"):
        relax(Springs(), np.array([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]), np.eye(3), 3, 0.02, lambda *_: None)


def test_bonds_that_break_or_form_are_named(layout):
    """A proton of the second methylammonium that is a bohr nearer to carbon than to nitrogen."""
    positions = layout.box.positions.copy()
    assert layout.changed_bonds(positions) == []
    atoms = layout.components[0].structure.atoms
    nitrogen = next(atom.idx for atom in atoms if atom.atomic_number == 7)
    hydrogen = next(atom.idx for atom in atoms[nitrogen].bond_partners if atom.atomic_number == 1)
    carbon = next(atom.idx for atom in atoms if atom.atomic_number == 6)
    first = len(atoms)
    away = positions[first + carbon] - positions[first + nitrogen]
    positions[first + hydrogen] = positions[first + carbon] + 2.0 * away / np.linalg.norm(away)
    changes = layout.changed_bonds(positions)
    assert any("broke" in change and atoms[hydrogen].name in change for change in changes)
    assert f"MAM: the bond {atoms[carbon].name} - {atoms[hydrogen].name} formed" in changes


@pytest.mark.parametrize("model", ["spc-fw", "q-spc-fw", "tip3p-flexible"])
def test_energies_of_the_topology_are_those_of_openmm(model, tmp_path):
    """All pairs, from the .prmtop by OpenMM's own reader: methylammonium without bonds, chloride, water."""
    box = lay_out([component("C[NH3+]", "MAM")], model, 0.7 * NANOMETER, 0.7 * NANOMETER, 3)
    box.write(tmp_path / "s.prmtop", tmp_path / "s.rst7")
    parameters = app.AmberPrmtopFile(str(tmp_path / "s.prmtop"))
    system = parameters.createSystem(nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False)
    context = openmm.Context(
        system, openmm.VerletIntegrator(1.0), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(box.box.positions / NANOMETER)
    state = context.getState(getEnergy=True, getForces=True)
    expected = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) / HARTREE_IN_KJ_PER_MOL
    topology = read_topology(tmp_path / "s.prmtop")
    evaluator = MMEvaluator(topology, ForceFieldSettings(cutoff=None))
    term = evaluator.evaluate(box.box.positions[None], None)
    assert term.energy[0] == pytest.approx(expected, rel=1e-6)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    np.testing.assert_allclose(
        -term.gradient[0], forces / HARTREE_IN_KJ_PER_MOL / NANOMETER, atol=2e-6, rtol=1e-5
    )
