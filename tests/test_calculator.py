"""The calculator among ASE's own tools: what these expect of any calculator, and what it refuses."""

import copy
import pickle
import socket
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError, all_properties
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.singlepoint import SinglePointCalculator
from ase.calculators.socketio import SocketIOCalculator
from ase.filters import FrechetCellFilter
from ase.io import Trajectory, read, write
from ase.mep import NEB
from ase.optimize import BFGS
from ase.vibrations import Vibrations

from mm_systems import water_positions
from pidelta import Calculator
from pidelta.config import load_config
from pidelta.errors import ConfigError, StructureError
from pidelta.setup import Setup
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM, HARTREE_IN_EV

BOX = np.diag([9.6, 9.9, 10.2])


def in_vacuum(folder, atoms, qm="{atoms: all}"):
    """The atoms with a calculator of DFTB alone."""
    write(folder / "molecule.xyz", atoms)
    (folder / "vacuum.yaml").write_text(f"structure: molecule.xyz\nqm: {qm}\n")
    atoms = atoms.copy()
    atoms.calc = Calculator(folder / "vacuum.yaml")
    return atoms


@pytest.fixture
def water(tmp_path):
    return in_vacuum(tmp_path, molecule("H2O"))


def box(folder, more=""):
    """27 waters in a periodic box, with `more` in the configuration."""
    positions = water_positions(27, BOX * ANGSTROM, seed=3) * BOHR_IN_ANGSTROM
    atoms = Atoms("OHH" * 27, positions, cell=BOX, pbc=True)
    write(folder / "box.xyz", atoms, format="extxyz")
    (folder / "box.yaml").write_text(
        "structure: box.xyz\n"
        # few pairs cross the cutoff while the cell is strained, and those that do interact weakly
        "mm: {water: q-spc-fw, cutoff: 0.45 nm, ewald_tolerance: 1e-6}\n"
        f"embedding: {{cutoff: 0.45 nm, switch: 0.1 nm}}\n{more}"
    )
    atoms.calc = Calculator(folder / "box.yaml")
    return atoms


@pytest.fixture
def classical_box(tmp_path):
    return box(tmp_path)


@pytest.fixture
def qmmm_box(tmp_path):
    return box(tmp_path, "qm: {atoms: [0, 1, 2]}\n")


def test_results_are_those_that_ase_knows(qmmm_box):
    qmmm_box.get_potential_energy()
    results = qmmm_box.calc.results
    assert set(results) == {"energy", "free_energy", "forces", "stress", "charges", "dipole"}
    assert set(results) <= set(all_properties)
    single = SinglePointCalculator(qmmm_box, **results)
    assert single.get_potential_energy() == results["energy"]
    properties = qmmm_box.get_properties(["energy", "forces", "stress", "charges"])
    np.testing.assert_allclose(properties["forces"], results["forces"], atol=1e-6)
    assert qmmm_box.get_potential_energy(force_consistent=True) == qmmm_box.get_potential_energy()


def test_the_dipole_is_that_of_the_charges(water):
    """In e angstrom and e; nothing is calculated where that is not allowed."""
    assert water.calc.get_property("dipole", water, allow_calculation=False) is None
    np.testing.assert_allclose(water.get_dipole_moment(), water.get_charges() @ water.positions, atol=1e-9)
    assert 1.4 < np.linalg.norm(water.get_dipole_moment()) / 0.20819434 < 2.2  # debye; 1.85 by experiment
    water.positions += 0.1
    assert water.calc.get_property("dipole", water, allow_calculation=False) is None


def test_ase_as_the_server_of_a_client(qmmm_box):
    """A process of its own, by TCP, as on another host."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "pidelta", "client", qmmm_box.calc.config.path, "--mode", "inet"]
    command += ["--address", "localhost", "--port", str(port)]
    served = qmmm_box.copy()
    with SocketIOCalculator(port=port, timeout=120.0) as served.calc, subprocess.Popen(command):
        for atoms in (qmmm_box, served):
            atoms.positions[0, 1] += 0.05
        assert served.get_potential_energy() == pytest.approx(qmmm_box.get_potential_energy(), abs=1e-5)
        np.testing.assert_allclose(served.get_forces(), qmmm_box.get_forces(), atol=1e-5)
        np.testing.assert_allclose(served.get_stress(), qmmm_box.get_stress(), atol=1e-7)
        served.calc.close()


def test_terms_are_in_the_evaluation(qmmm_box):
    energy = qmmm_box.get_potential_energy()
    terms = qmmm_box.calc.evaluation.terms
    assert set(terms) == {"low", "mm"}
    assert sum(term.energy[0] for term in terms.values()) * HARTREE_IN_EV == pytest.approx(energy, rel=1e-12)


@pytest.mark.parametrize("kind", ["classical_box", "qmmm_box"])
def test_stress_is_ases_numerical_one(kind, request):
    atoms = request.getfixturevalue(kind)
    # A larger step averages over the small jumps of the Ewald sum where pairs cross the cutoff.
    numerical = calculate_numerical_stress(atoms, eps=1e-4)
    np.testing.assert_allclose(atoms.get_stress(), numerical, atol=2e-5)
    assert np.abs(numerical).max() > 2e-3


def test_forces_are_ases_numerical_ones(qmmm_box):
    chosen = [0, 1, 5]
    numerical = calculate_numerical_forces(qmmm_box, eps=1e-4, iatoms=chosen)
    np.testing.assert_allclose(qmmm_box.get_forces()[chosen], numerical, atol=2e-4)


def test_a_cell_filter_relaxes_atoms_and_cell(classical_box):
    before, volume = classical_box.get_potential_energy(), classical_box.get_volume()
    BFGS(FrechetCellFilter(classical_box), logfile=None).run(fmax=0.01, steps=4)
    assert classical_box.get_potential_energy() < before - 0.1
    assert classical_box.get_volume() != volume


def test_no_stress_without_a_lattice(water):
    with pytest.raises(PropertyNotImplementedError):
        water.get_stress()
    with pytest.raises(PropertyNotImplementedError):
        water.calc.get_property("stress", water)
    water.set_cell(np.eye(3) * 5.0)
    with pytest.raises(PropertyNotImplementedError):
        BFGS(FrechetCellFilter(water), logfile=None).run(steps=2)


def test_properties_that_a_force_field_lacks(classical_box):
    with pytest.raises(PropertyNotImplementedError):
        classical_box.get_charges()
    with pytest.raises(PropertyNotImplementedError):
        classical_box.get_dipole_moment()


def test_no_stress_where_the_virial_is_switched_off(tmp_path):
    atoms = box(tmp_path)
    text = (tmp_path / "box.yaml").read_text()
    (tmp_path / "box.yaml").write_text(text.replace("nm, ewald", "nm, engine: openmm, virial: false, ewald"))
    expected = atoms.get_potential_energy()
    atoms.calc = Calculator(tmp_path / "box.yaml")
    assert atoms.get_potential_energy() == pytest.approx(expected, rel=1e-4)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


@pytest.mark.parametrize("pbc", [True, (True, False, False)])
def test_a_lattice_that_would_be_ignored_is_refused(water, pbc):
    water.set_cell(np.eye(3) * 4.0)
    water.pbc = pbc
    with pytest.raises(StructureError, match="expected atoms that are not periodic"):
        water.get_potential_energy()


@pytest.mark.parametrize("pbc", [False, (True, True, False)])
def test_a_lattice_that_is_missing_is_refused(classical_box, pbc):
    classical_box.pbc = pbc
    with pytest.raises(StructureError, match="periodic in three directions"):
        classical_box.get_potential_energy()


def test_a_flat_cell_is_refused(classical_box):
    classical_box.cell[2] = 0.0
    with pytest.raises(StructureError, match="expected a cell of three vectors"):
        classical_box.get_potential_energy()


def test_settings_are_refused(water):
    with pytest.raises(ConfigError, match=r"vacuum.yaml: expected settings in .* found charge"):
        water.calc.set(charge=1)
    assert water.calc.set() == {}
    with pytest.raises(TypeError, match="charge"):
        Calculator(water.calc.config, charge=1)


def test_initial_charges_must_be_those_of_the_configuration(tmp_path):
    cation = in_vacuum(
        tmp_path, Atoms("OH3", [[0, 0, 0.2], [0.9, 0, 0], [-0.5, 0.8, 0], [-0.5, -0.8, 0]]), "{charge: 1}"
    )
    energy = cation.get_potential_energy()
    for charges in ([0.4, 0.2, 0.2, 0.2], [0, 0, 0, 0]):
        cation.set_initial_charges(charges)
        assert cation.get_potential_energy() == pytest.approx(energy, abs=1e-6)
    cation.set_initial_charges([0, 0, 0, -1])
    with pytest.raises(StructureError, match=r"add up to \+1.*found -1.000"):
        cation.get_potential_energy()


def test_initial_charges_of_mm_atoms_must_be_those_of_the_force_field(qmmm_box):
    charges = np.tile([-0.84, 0.42, 0.42], 27)
    qmmm_box.set_initial_charges(charges)
    qmmm_box.get_potential_energy()
    charges[3] = 1.0
    qmmm_box.set_initial_charges(charges)
    with pytest.raises(StructureError, match=r"charge -0.840 of MM atom 3 .* found \+1.000"):
        qmmm_box.get_potential_energy()


def test_initial_magnetic_moments_must_fit_the_multiplicity(water, tmp_path):
    water.set_initial_magnetic_moments([0, 1, -1])
    with pytest.raises(StructureError, match="moments of zero or of 0 in all"):
        water.get_potential_energy()
    oxygen = in_vacuum(tmp_path, molecule("O2"), "{multiplicity: 3}")
    assert oxygen.get_initial_magnetic_moments().sum() == 2  # as ASE's collection has it
    energy = oxygen.get_potential_energy()
    oxygen.set_initial_magnetic_moments([0, 0])
    assert oxygen.get_potential_energy() == pytest.approx(energy, abs=1e-6)
    oxygen.set_initial_magnetic_moments([2, 2])
    with pytest.raises(StructureError, match=r"of 2 in all.*found 4.000"):
        oxygen.get_potential_energy()


def test_nothing_is_evaluated_twice_and_nothing_is_kept_too_long(water, monkeypatch):
    calls = []
    evaluate = water.calc._evaluator.evaluate
    monkeypatch.setattr(
        type(water.calc._evaluator), "evaluate", lambda self, *given: calls.append(1) or evaluate(*given)
    )
    first = water.get_potential_energy()
    water.get_forces(), water.get_charges(), water.get_dipole_moment()
    assert len(calls) == 1
    water.positions[1, 0] += 0.1
    assert water.get_potential_energy() != first
    assert len(calls) == 2
    other = Atoms("OH", [[0, 0, 0], [0, 0, 1]])
    with pytest.raises(StructureError):
        water.calc.calculate(other)
    assert water.calc.results == {}
    assert water.calc.evaluation is None
    with pytest.raises(StructureError):
        water.calc.get_potential_energy(other)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda calculator: pickle.loads(pickle.dumps(calculator))]
)
def test_copies_and_pickles_are_calculators_of_their_own(water, duplicate):
    energy, forces = water.get_potential_energy(), water.get_forces()
    twin = duplicate(water.calc)
    assert twin.results["energy"] == energy
    assert twin._evaluator.engine is not water.calc._evaluator.engine
    moved = water.copy()
    moved.positions[0, 1] += 0.05
    moved.calc = twin
    assert moved.get_potential_energy() != energy
    assert water.get_potential_energy() == energy
    twin.reset()
    moved.positions = water.positions
    np.testing.assert_allclose(moved.get_forces(), forces, atol=1e-6)


@pytest.mark.parametrize("how", ["shared", "copies", "threads"])
def test_nudged_elastic_band(tmp_path, how):
    """Inversion of ammonia: the highest image is flat, and above the ends."""
    start = in_vacuum(tmp_path, molecule("NH3"))
    BFGS(start, logfile=None).run(fmax=0.02)
    end = start.copy()
    end.positions[:, 2] *= -1.0
    images = [start.copy() for _ in range(3)] + [end]
    for image in images:
        image.calc = start.calc if how == "shared" else copy.deepcopy(start.calc)
    band = NEB(
        images, allow_shared_calculator=how == "shared", parallel=how == "threads", method="improvedtangent"
    )
    band.interpolate()
    BFGS(band, logfile=None).run(fmax=0.1, steps=20)
    energies = [image.get_potential_energy() for image in images]
    assert energies[0] == pytest.approx(energies[3], abs=1e-4)
    assert 0.05 < energies[1] - energies[0] < 0.5
    assert energies[1] == pytest.approx(energies[2], abs=5e-3)


def test_vibrations(water, tmp_path):
    BFGS(water, logfile=None).run(fmax=1e-3)
    vibrations = Vibrations(water, name=str(tmp_path / "vib"))
    vibrations.run()
    frequencies = np.sort(vibrations.get_frequencies().real)[-3:]
    # bend and stretches of water: 1649, 3832 and 3943 1/cm harmonic, with DFTB's errors
    np.testing.assert_allclose(frequencies, [1649, 3832, 3943], rtol=0.15)


def test_trajectories_and_files_keep_the_results(qmmm_box, tmp_path):
    energy, forces = qmmm_box.get_potential_energy(), qmmm_box.get_forces()
    with Trajectory(tmp_path / "box.traj", "w") as trajectory:
        trajectory.write(qmmm_box)
    write(tmp_path / "out.extxyz", qmmm_box)
    for path in (tmp_path / "box.traj", tmp_path / "out.extxyz"):
        found = read(path)
        assert found.get_potential_energy() == pytest.approx(energy, abs=1e-7)
        np.testing.assert_allclose(found.get_forces(), forces, atol=1e-7)
        np.testing.assert_allclose(found.get_stress(), qmmm_box.get_stress(), atol=1e-7)
        np.testing.assert_allclose(found.get_charges(), qmmm_box.get_charges(), atol=1e-7)
    assert read(tmp_path / "box.traj").calc.name == "pidelta"


def test_a_lattice_that_counts_is_the_one_of_the_atoms(classical_box):
    """Not that of the structure file."""
    before = classical_box.get_potential_energy()
    classical_box.set_cell(BOX * 1.05, scale_atoms=False)
    after = classical_box.get_potential_energy()
    config = load_config(classical_box.calc.config.path)
    evaluation = (
        Setup(config)
        .evaluator()
        .evaluate(classical_box.positions[None] * ANGSTROM, classical_box.cell.array[None] * ANGSTROM)
    )
    assert after == pytest.approx(evaluation.energy[0] * HARTREE_IN_EV, rel=1e-9)
    assert abs(after - before) > 0.01


def test_water_atoms_in_another_order(qmmm_box):
    """Elements do not show it; another calculation of the same atoms is not looked at."""
    swapped = qmmm_box.copy()
    swapped.positions[[6, 9]] = swapped.positions[[9, 6]]
    swapped.calc = qmmm_box.calc
    with pytest.raises(StructureError, match=r"box\.xyz: atoms 6 and 7 are bonded, .* in the ASE atoms"):
        swapped.get_potential_energy()
    qmmm_box.get_potential_energy()
    with pytest.raises(StructureError, match="atoms 6 and 7 are bonded"):
        swapped.get_potential_energy()
    copied = pickle.loads(pickle.dumps(qmmm_box.calc))
    with pytest.raises(StructureError, match="atoms 6 and 7 are bonded"):
        copied.get_property("energy", swapped)


@pytest.mark.parametrize(("scale", "unit"), [(ANGSTROM, "bohr"), (0.1, "nm")])
def test_positions_and_cell_in_another_unit(classical_box, scale, unit):
    classical_box.set_cell(classical_box.cell * scale, scale_atoms=True)
    with pytest.raises(StructureError, match=f"as if {unit} had been read as angstrom: ASE has positions"):
        classical_box.get_potential_energy()


def test_stretched_bonds_and_wrapped_atoms_pass(qmmm_box):
    """A QM bond at twice its length at once; an MM bond by steps, each of them in atoms of its own."""
    calculator = qmmm_box.calc
    broken = qmmm_box.copy()
    broken.positions[1] += 1.0 * (broken.positions[1] - broken.positions[0])
    broken.calc = calculator
    assert np.isfinite(broken.get_potential_energy())
    wrapped = qmmm_box.copy()
    wrapped.wrap()
    wrapped.calc = calculator
    reference = qmmm_box.get_potential_energy()
    assert wrapped.get_potential_energy() == pytest.approx(reference, abs=1e-6)
    for stretch in (1.0, 1.3, 1.6, 1.9):
        point = qmmm_box.copy()
        point.positions[4] += (stretch - 1.0) * (point.positions[4] - point.positions[3])
        point.calc = calculator
        assert np.isfinite(point.get_potential_energy())


@pytest.mark.parametrize("given", [None, {"structure": "molecule.xyz"}, 3])
def test_what_is_no_configuration(given):
    with pytest.raises(ConfigError, match=f"the path of one, found {type(given).__name__}$"):
        Calculator(given)


def test_charge_and_multiplicity_of_info(water, qmmm_box):
    water.info = {"charge": 0, "multiplicity": 1.0, "spin": 0}
    assert np.isfinite(water.get_potential_energy())
    for name, expected, found in (("charge", 0, 1), ("charge", 0, -1.0), ("multiplicity", 1, np.int64(3))):
        other = water.copy()
        other.info[name] = found
        other.calc = Calculator(water.calc.config)
        with pytest.raises(StructureError, match=f"the {name} {expected} of .*, found {found} in the ASE"):
            other.get_potential_energy()
    qmmm_box.info["charge"] = 1  # whose it is nothing says
    assert np.isfinite(qmmm_box.get_potential_energy())
