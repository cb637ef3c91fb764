"""`pidelta check` and `pidelta evaluate`: DFTB+'s figures through the whole program, bad input in a line."""

import json
import shutil

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from conftest import ROOT
from dftb_sets import find_record
from pidelta.config import load_config
from pidelta.errors import StructureError
from pidelta.ipi.client import encode_extras
from pidelta.setup import Setup
from pidelta.state import parse_terms
from pidelta.testing.derivatives import central_differences
from pidelta.units import BOHR_IN_ANGSTROM
from pidelta.workflow.yardstick import FirstPositions

URACIL_WATER = ROOT / "inputs" / "uracil-water"


@pytest.fixture
def solution(tmp_path):
    """Uracil in water, DFTB and force field, the delta model left out."""
    for name in ("uracil-water.gro", "uracil-water.top"):
        shutil.copy(URACIL_WATER / name, tmp_path)
    (tmp_path / "pidelta.yaml").write_text(
        "structure: uracil-water.gro\n"
        "qm: {atoms: resname URA, charge: 0, dftb: {parameters: builtin}}\n"
        # differences of energies would see the small steps of PME where pairs cross the cutoff
        "mm: {topology: uracil-water.top, electrostatics: reaction-field, cutoff: 1.0 nm}\n"
        "embedding: {cutoff: 1.4 nm, switch: 0.2 nm}\n"
    )
    return tmp_path / "pidelta.yaml"


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("parameters", ["builtin", "exported"])
def test_evaluate_gives_dftbplus_energies_and_gradients(parameters, tmp_path, run):
    """Glycine in point charges, from files to JSON: angstrom in, the record's hartree and bohr out."""
    record = find_record("[NH3+]CC(=O)[O-]")
    dftb = "{parameters: builtin}"
    if parameters == "exported":
        assert run("slater-koster", "export", tmp_path / "set", "--order", 3) == 0
        derivatives = json.loads((tmp_path / "set" / "set.json").read_text())["hubbard_derivatives"]
        dftb = f"{{parameters: set, order: 3, hubbard_derivatives: {derivatives}, damping_exponent: 4.0}}"
    atoms = Atoms(record["symbols"], np.array(record["positions"]) * BOHR_IN_ANGSTROM)
    write(tmp_path / "m.extxyz", atoms, format="extxyz")
    (tmp_path / "m.extxyz").rename(tmp_path / "m.xyz")
    charges = np.column_stack([np.array(record["mm_positions"]) * BOHR_IN_ANGSTROM, record["mm_charges"]])
    np.savetxt(tmp_path / "charges.dat", charges, fmt="%.12f")
    config = tmp_path / "m.yaml"
    config.write_text(f"structure: m.xyz\npoint_charges: charges.dat\nqm: {{atoms: all, dftb: {dftb}}}\n")
    assert run("evaluate", config, "--output", tmp_path / "out.json") == 0
    (frame,) = json.loads((tmp_path / "out.json").read_text())["frames"]
    n = len(atoms)
    # ASE writes positions to 1e-8 angstrom.
    assert frame["energy"] == pytest.approx(record["energy"], abs=1e-7)
    assert np.abs(np.array(frame["gradient"][:n]) - record["gradient"]).max() < 1e-6
    assert np.abs(np.array(frame["gradient"][n:]) - record["mm_gradient"]).max() < 1e-6
    assert np.abs(np.array(frame["charges"]) - record["charges"]).max() < 1e-6
    assert set(frame["terms"]) == {"low"}


def test_terms_add_up_and_can_be_chosen(solution, run, tmp_path):
    totals = {}
    for terms in ("mm", "low", "mm+dftb", "mm.bonded+low.vacuum", "mm.nonbonded+low.embedding"):
        assert run("evaluate", solution, "--terms", terms, "--output", tmp_path / "out.json") == 0
        (totals[terms],) = json.loads((tmp_path / "out.json").read_text())["frames"]
        assert set(totals[terms]["terms"]) == parse_terms(terms)
    for key in ("energy", "gradient", "virial"):
        parts = np.array(totals["mm"][key]) + np.array(totals["low"][key])
        assert np.abs(np.array(totals["mm+dftb"][key]) - parts).max() < 1e-10
        stiff, smooth = (np.array(totals[terms][key]) for terms in list(totals)[-2:])
        assert np.abs(stiff + smooth - parts).max() < 1e-7


@pytest.fixture
def shipped(solution):
    """The set-up as it ships, delta models and all."""
    shutil.copy(URACIL_WATER / "pidelta.yaml", solution)
    for model in URACIL_WATER.glob("delta-*.pt"):
        shutil.copy(model, solution.parent)
    return solution


def test_forces_of_the_shipped_set_up_are_the_gradient_of_the_energy(shipped):
    """All three terms: QM atoms, MM atoms next to them, and MM atoms whose weight is being switched off."""
    config = load_config(shipped)
    setup = Setup(config)
    system, evaluator = setup.system, setup.evaluator()
    cells = system.cell[None]
    evaluation = evaluator.evaluate(system.positions[None], cells)
    assert set(evaluation.terms) == {"mm", "low", "delta"}
    region = evaluator.surroundings.cut(system.positions[None], cells)
    weights = region.site_charges[0] / evaluator.partition.charges[region.site_particles[0]]
    switching = region.site_particles[0][(weights > 0.1) & (weights < 0.9)]
    nearest = np.linalg.norm(region.site_positions[0][:, None] - region.positions[0], axis=2).min(axis=1)
    nearby = region.site_particles[0][np.argsort(nearest)]
    for atoms in ([0, 4, 8, 11], nearby[:4], switching[:4]):

        def energy(positions):
            return evaluator.evaluate(positions, np.repeat(cells, len(positions), axis=0)).energy

        numerical = central_differences(energy, system.positions, np.asarray(atoms))
        assert np.abs(evaluation.gradient[0, atoms] - numerical).max() < 1e-6
        assert np.abs(evaluation.terms["delta"].gradient[0, atoms]).max() > 1e-6


def test_virial_of_the_shipped_set_up_is_minus_the_strain_derivative(shipped):
    config = load_config(shipped)
    setup = Setup(config)
    system, evaluator = setup.system, setup.evaluator()
    virial = evaluator.evaluate(system.positions[None], system.cell[None]).virial[0]
    for i, j in ((0, 0), (1, 2)):
        energies = []
        for sign in (1.0, -1.0):
            strain = np.eye(3)
            strain[i, j] += sign * 2e-6
            cell = system.cell @ strain.T
            energies.append(evaluator.evaluate((system.positions @ strain.T)[None], cell[None]).energy[0])
        assert virial[i, j] == pytest.approx(-(energies[0] - energies[1]) / 4e-6, abs=1e-5)


def test_check_finds_a_sound_set_up(shipped, run, capsys):
    assert run("check", shipped, "--atoms", 1) == 0
    output = capsys.readouterr().out
    assert "built-in pid 1.1" in output
    assert "being switched off" in output
    assert "spread of the delta models: 0." in output
    assert "extrapolation: " in output
    assert "URA 1: " in output
    assert "all checks passed" in output


@pytest.mark.parametrize(("distance", "overlaps"), [(1.9, True), (2.8, False)])
def test_check_warns_of_atoms_that_overlap(distance, overlaps, tmp_path, run, capsys):
    """Two waters: the Lennard-Jones force of the oxygens at 1.9 angstrom is 1.7 hartree/bohr."""
    lines = [
        f"{name} {x} {y} {z}"
        for shift in (0.0, distance)
        for name, x, y, z in (("O", shift, 0, 0), ("H", shift, 0.757, 0.586), ("H", shift, -0.757, 0.586))
    ]
    (tmp_path / "w.xyz").write_text("\n".join(["6", "", *lines, ""]))
    (tmp_path / "w.yaml").write_text("structure: w.xyz\nmm: {water: q-tip4p-f}\n")
    assert run("check", tmp_path / "w.yaml", "--atoms", 1) == 0
    output = capsys.readouterr().out
    assert ("overlap: relax the structure" in output) == overlaps
    assert (":O (atom " in output) == overlaps


def test_missing_files(solution, fail):
    assert "no such file" in fail("check", solution.parent / "none.yaml")
    edit(solution, "uracil-water.top", "none.top")
    assert "none.top: no such" in fail("check", solution)
    edit(solution, "none.top", "uracil-water.top")
    edit(solution, "uracil-water.gro", "none.gro")
    assert "none.gro: no such structure file" in fail("check", solution)


def test_missing_slater_koster_pair_is_named(solution, run, fail, capsys):
    folder = solution.parent / "slako"
    assert run("slater-koster", "export", folder, "--order", 2) == 0
    capsys.readouterr()
    (folder / "N-C.skf").unlink()
    edit(solution, "{parameters: builtin}", "{parameters: slako}")
    message = fail("check", solution)
    assert "N-C" in message
    assert str(folder) in message


def test_atom_counts_of_topology_and_structure_differ(solution, fail):
    edit(solution.parent / "uracil-water.top", "900", "899")
    assert "expected 2709 atoms as in the topology, found 2712" in fail("check", solution)


def test_properties_on_request(tmp_path, run):
    """A radical with a fixed charge: orbitals of both spins and what follows from them, for i-PI as well."""
    (tmp_path / "m.xyz").write_text("2\n\nO 0 0 0\nH 0 0 0.97\n")
    (tmp_path / "q.dat").write_text("0 0 3 0.4\n")
    config = tmp_path / "pidelta.yaml"
    names = ["orbital_energies", "occupations", "homo", "lumo", "gap", "spin_populations"]
    config.write_text(
        "structure: m.xyz\npoint_charges: q.dat\nqm:\n  multiplicity: 2\n"
        f"  properties: [{', '.join(names)}]\n"  # the built-in parameters bring their spin constants
    )
    assert run("evaluate", config, "--output", tmp_path / "out.json") == 0
    frame = json.loads((tmp_path / "out.json").read_text())["frames"][0]
    extras = frame["properties"]
    energies, occupations = np.array(extras["orbital_energies"]), np.array(extras["occupations"])
    assert energies.shape == occupations.shape == (2, 5)
    np.testing.assert_array_equal(occupations, [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]])
    assert extras["homo"] == max(energies[0, 3], energies[1, 2])
    assert extras["lumo"] == min(energies[0, 4], energies[1, 3])
    assert extras["gap"] == pytest.approx(extras["lumo"] - extras["homo"], abs=1e-15)
    assert sum(extras["spin_populations"]) == pytest.approx(1.0, abs=1e-10)
    assert extras["spin_populations"][0] > 0.9
    assert extras["scc_fallbacks"] == 0.0
    positions = Setup(load_config(config)).system.positions
    np.testing.assert_allclose(frame["dipole"], np.array(frame["charges"]) @ positions, atol=1e-12)

    evaluation = Setup(load_config(config)).evaluator().evaluate(positions[None], None)
    assert {*names, "charges", "dipole"} <= set(json.loads(encode_extras(evaluation, 0)))


def test_odd_electrons(solution, fail):
    molecule = solution.parent / "m.xyz"
    molecule.write_text("2\n\nO 0 0 0\nH 0 0 0.97\n")
    solution.write_text("structure: m.xyz\nqm: {atoms: all}\n")
    assert "qm.multiplicity: expected 2, 4 with the 7 valence electrons" in fail("check", solution)


def test_cutoffs_larger_than_half_the_box(solution, fail):
    edit(solution, "cutoff: 1.4 nm", "cutoff: 1.6 nm")
    assert "embedding.cutoff: expected at most half the cell" in fail("check", solution)
    edit(solution, "cutoff: 1.6 nm", "cutoff: 1.4 nm")
    edit(solution, "cutoff: 1.0 nm", "cutoff: 1.6 nm")
    assert "half" in fail("check", solution)


def test_length_without_its_unit(solution, fail):
    edit(solution, "cutoff: 1.4 nm", "cutoff: 1.4")
    assert "embedding.cutoff: expected a length with its unit" in fail("check", solution)


def test_nobody_listens(solution, fail):
    message = fail("client", solution, "--address", "pidelta-nobody-is-here", "--patience", 0.1)
    assert "no i-PI is listening at unix:/tmp/ipi_pidelta-nobody-is-here" in message


def test_wrong_terms(solution, fail):
    assert "--terms: expected mm, low, delta" in fail("evaluate", solution, "--terms", "dft")
    assert "expected terms among mm, low, found delta" in fail("evaluate", solution, "--terms", "delta")


def test_frames_of_another_molecule(solution, fail):
    write(solution.parent / "other.xyz", Atoms("OH2", np.eye(3)))
    assert "expected the 2712 atoms" in fail("evaluate", solution, "--frames", solution.parent / "other.xyz")


def test_frames_from_i_pi_keep_their_cell_and_unit(solution, run, tmp_path):
    """The structure written as i-PI does by default, in bohr with the cell in the comment."""
    system = Setup(load_config(solution)).system
    lengths = " ".join(f"{edge:.10f}" for edge in np.diag(system.cell))
    comment = (
        f"# CELL(abcABC): {lengths} 90 90 90 Step: 0 Bead: 0 positions{{atomic_unit}} cell{{atomic_unit}}"
    )
    rows = [
        f"{symbol} {x:.12e} {y:.12e} {z:.12e}"
        for symbol, (x, y, z) in zip(Atoms(system.numbers).symbols, system.positions, strict=True)
    ]
    (tmp_path / "pos_0.xyz").write_text("\n".join([str(len(system)), comment, *rows, ""]))
    outputs = []
    for options in ((), ("--frames", tmp_path / "pos_0.xyz")):
        assert run("evaluate", solution, *options, "--output", tmp_path / "out.json") == 0
        outputs += json.loads((tmp_path / "out.json").read_text())["frames"]
    # i-PI's bohr differs from CODATA 2018 in the eighth digit.
    assert outputs[1]["energy"] == pytest.approx(outputs[0]["energy"], abs=1e-5)


def test_periodic_system_without_a_cell(solution, fail):
    system = Setup(load_config(solution)).system
    molecule = Atoms(system.numbers, system.positions * BOHR_IN_ANGSTROM)
    write(solution.parent / "nocell.xyz", molecule, format="xyz")
    message = fail("evaluate", solution, "--frames", solution.parent / "nocell.xyz")
    assert "expected a cell with the positions" in message


def test_output_that_cannot_be_written(solution, fail):
    path = solution.parent / "none" / "out.json"
    assert fail("evaluate", solution, "--output", path) == f"pidelta: {path}: No such file or directory"


def test_charge_that_the_force_field_does_not_have(solution, fail):
    edit(solution, "charge: 0", "charge: 1")
    assert "qm.charge: expected +0, as the force-field charges" in fail("check", solution)


def test_point_charges_need_four_columns(tmp_path, fail):
    (tmp_path / "m.xyz").write_text("3\n\nO 0 0 0\nH 0 0.76 0.59\nH 0 -0.76 0.59\n")
    (tmp_path / "charges.dat").write_text("1.0 2.0 3.0\n")
    config = tmp_path / "m.yaml"
    config.write_text("structure: m.xyz\npoint_charges: charges.dat\nqm: {atoms: all}\n")
    assert "expected four columns x y z q, found 3" in fail("check", config)
    for text, message in (
        ("", "expected point charges, a line x y z q each, found none"),
        ("# x y z q\n", "expected point charges, a line x y z q each, found none"),
        ("5 0 0 0.1\n0 0 nan 0.1\n", "expected finite columns x y z q, found 0 0 nan 0.1 for charge 1"),
    ):
        (tmp_path / "charges.dat").write_text(text)
        assert message in fail("check", config)


def test_first_frame_of_i_pi_must_have_the_structures_order(solution):
    """Water written H O H, the solute at the end, and two of its atoms swapped; a stretched bond is fine."""
    config = load_config(solution)
    system = Setup(config).system
    yardstick = Setup(config).yardstick
    cells = system.cell[None]
    shifts = np.random.default_rng(0).integers(-1, 2, size=(len(system), 3)) @ system.cell
    FirstPositions(yardstick).before((system.positions + shifts)[None], cells)
    order = np.arange(len(system))
    hoh = order.copy()
    hoh[[12, 13]] = hoh[[13, 12]]
    for wrong in (hoh, np.roll(order, -12), order[::-1]):
        with pytest.raises(StructureError, match="must list the atoms in the same order"):
            FirstPositions(yardstick).before(system.positions[wrong][None], cells)
    stretched = system.positions.copy()
    stretched[8] += 0.8 * (stretched[8] - stretched[0])  # a QM proton about to leave
    FirstPositions(yardstick).before(stretched[None], cells)


def test_units_of_the_ase_calculator(solution):
    from pidelta import Calculator

    config = load_config(solution)
    system = Setup(config).system
    atoms = Atoms(
        system.numbers,
        system.positions * BOHR_IN_ANGSTROM,
        cell=system.cell * BOHR_IN_ANGSTROM,
        pbc=True,
        calculator=Calculator(config),
    )
    evaluation = Setup(config).evaluator().evaluate(system.positions[None], system.cell[None])
    assert atoms.get_potential_energy() == pytest.approx(evaluation.energy[0] * 27.211386246, rel=1e-9)
    assert atoms.get_charges()[:12].sum() == pytest.approx(0.0, abs=1e-9)
    forces, stress = atoms.get_forces(), atoms.get_stress()
    assert forces.shape == (2712, 3)
    for atom in (0, 12):
        differences = np.zeros(3)
        for axis in range(3):
            for sign in (1.0, -1.0):
                moved = atoms.copy()
                moved.positions[atom, axis] += sign * 1e-3
                moved.calc = atoms.calc
                differences[axis] -= sign * moved.get_potential_energy() / 2e-3
        assert np.abs(forces[atom] - differences).max() < 1e-4
    energies = []
    for sign in (1.0, -1.0):
        strained = atoms.copy()
        strained.set_cell(atoms.cell * np.array([[1.0 + sign * 1e-5], [1.0], [1.0]]), scale_atoms=True)
        strained.calc = atoms.calc
        energies.append(strained.get_potential_energy())
    assert stress[0] == pytest.approx((energies[0] - energies[1]) / 2e-5 / atoms.get_volume(), abs=2e-6)


def test_the_ase_calculator_refuses_other_atoms(solution):
    from pidelta import Calculator

    calculator = Calculator(solution)
    with pytest.raises(StructureError, match="expected 2712 atoms, found 3"):
        Atoms("OH2", np.eye(3), calculator=calculator).get_potential_energy()
