"""ASE calculators as the low level: energies in atomic units, mechanical embedding, and their errors."""

from __future__ import annotations

import json
import shutil
import sys

import ase.units
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT

from conftest import ROOT
from pidelta.cli.main import main
from pidelta.config import load_config
from pidelta.data.frames import Frame
from pidelta.data.store import FrameStore
from pidelta.errors import ConfigError, ModelError, RunError, SettingError
from pidelta.ipi.client import encode_extras
from pidelta.qm.ase import ASEEngine
from pidelta.setup import Setup
from pidelta.testing.derivatives import central_differences
from pidelta.testing.engines import check_engine
from pidelta.units import ANGSTROM
from pidelta.workflow.labelling import low_labels

LJ = "ase.calculators.lj.LennardJones"
EMT_PATH = "ase.calculators.emt.EMT"
WITH_EMT = "  engine: ase\n  ase: {calculator: ase.calculators.emt.EMT, options: {asap_cutoff: true}}\n"


def distorted(name, seed=0):
    atoms = molecule(name)
    atoms.positions += np.random.default_rng(seed).normal(0.0, 0.03, atoms.positions.shape)
    return atoms.numbers.astype(np.int64), atoms.positions * ANGSTROM, atoms


class Spy(Calculator):
    """Remembers the atoms; its free energy is what forces belong to."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012
    seen: list = []  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.seen.append(self.atoms.copy())
        stretch = self.atoms.positions - self.atoms.positions.mean(axis=0)
        energy = 0.5 * float((stretch**2).sum())
        self.results = {"energy": energy + 1.0, "free_energy": energy, "forces": -stretch}


class Failing(Spy):
    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        raise ValueError("no luck\nat all")


class NotANumber(Calculator):
    implemented_properties = ("energy", "forces")

    def calculate(self, *arguments):
        super().calculate(*arguments)
        self.results = {"energy": 1.0, "forces": np.full((len(self.atoms), 3), np.nan)}


class Forceless(Calculator):
    implemented_properties = ["energy"]  # noqa: RUF012


def test_engine_contract_with_emt():
    """The charges of EMT's atoms are by element, so that a permutation moves them along."""
    numbers, positions, _ = distorted("CH3CH2OH")
    by_element = {6: -0.2, 1: 0.1, 8: -0.2}

    def make(n):
        return ASEEngine(n, EMT_PATH, {}, charges=np.array([by_element[z] for z in n.tolist()]))

    charge = sum(by_element[z] for z in numbers.tolist())
    check_engine(make, numbers, positions, charge=charge)


def test_atomic_units():
    numbers, positions, atoms = distorted("CH3CH2OH")
    atoms.calc = EMT()
    engine = ASEEngine(numbers, EMT_PATH, {}, charges=np.zeros(len(numbers)))
    result = engine.evaluate(positions[None], np.zeros((1, len(numbers))))
    # ASE's bohr and pidelta's differ in the ninth digit.
    assert result.energy[0] == pytest.approx(atoms.get_potential_energy() / ase.units.Hartree, abs=1e-8)
    expected = -atoms.get_forces() * ase.units.Bohr / ase.units.Hartree
    np.testing.assert_allclose(result.gradient[0], expected, rtol=0, atol=1e-8)


def test_two_lennard_jones_atoms_in_a_field():
    """4 eps ((s/r)^12 - (s/r)^6) less its value at the cutoff, and q phi, in closed form."""
    options = {"sigma": 2.0 * ase.units.Bohr, "epsilon": 0.01 * ase.units.Hartree, "rc": 100.0}
    engine = ASEEngine(np.array([18, 18]), LJ, options, charges=np.array([0.5, -0.5]))
    r = np.array([2.1, 2.5, 4.0])
    positions = r[:, None, None] * np.array([[0.0, 0.0, 0.0], [0.0, 0.6, 0.8]])
    potential = np.array([[0.02, -0.01]] * 3)
    result = engine.evaluate(positions, potential)
    x = (2.0 / r) ** 6
    np.testing.assert_allclose(result.energy, 0.04 * (x**2 - x) + 0.015, rtol=0, atol=1e-9)
    slope = 0.04 * (-12.0 * x**2 + 6.0 * x) / r
    np.testing.assert_allclose(result.gradient[:, 1, 2], 0.8 * slope, rtol=0, atol=1e-9)
    assert engine.embedding == "mechanical"
    np.testing.assert_array_equal(result.charges, [[0.5, -0.5]] * 3)


def test_charge_multiplicity_and_free_energy():
    Spy.seen.clear()
    numbers = np.array([8, 1])
    engine = ASEEngine(numbers, f"{__name__}.Spy", {}, charges=np.zeros(2), charge=-1, multiplicity=3)
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    energy = engine.evaluate(positions[None], np.zeros((1, 2))).energy[0]
    assert energy == pytest.approx(ase.units.Bohr**2 / ase.units.Hartree, rel=1e-12)
    (atoms,) = Spy.seen
    assert atoms.get_initial_charges().sum() == pytest.approx(-1.0, abs=1e-14)
    assert atoms.get_initial_magnetic_moments().sum() == pytest.approx(2.0, abs=1e-14)
    assert atoms.info == {"charge": -1, "spin": 3}
    np.testing.assert_allclose(atoms.positions[1], [0.0, 0.0, 2.0 * ase.units.Bohr])


def test_identity_tells_methods_apart():
    numbers, zero = np.array([18, 18]), np.zeros(2)
    identities = [
        ASEEngine(numbers, LJ, {}, charges=zero).identity,
        ASEEngine(numbers, LJ, {"sigma": 2.0}, charges=zero).identity,
        ASEEngine(numbers, EMT_PATH, {}, charges=zero).identity,
        ASEEngine(numbers, LJ, {}, charges=np.array([0.1, -0.1])).identity,
    ]
    assert len(set(identities)) == len(identities)
    assert identities[0].startswith(f"ASE {LJ} {ase.__version__} options=")
    assert "mechanical embedding" in identities[0]


@pytest.mark.parametrize(
    ("calculator", "options", "message"),
    [
        ("EMT", {}, r"^calculator: expected a class with its module, found 'EMT'"),
        ("no.such.thing.Calculator", {}, r"^calculator: cannot import no.such.thing"),
        (
            "ase.calculators.emt.Emt",
            {},
            r"^calculator: expected a class of ase.calculators.*found 'Emt'",
        ),
        (
            "builtins.dict",
            {},
            r"^calculator: expected a calculator of ASE from .*found dict",
        ),
        (
            "ase.calculators.mixing.SumCalculator",
            {"colour": 1},
            r"^options: .* refuses them \(.*colour",
        ),
        (f"{__name__}.Forceless", {}, r"^calculator: expected one with forces, found none in "),
        (LJ, {"charge": 1}, r"^options.charge: expected 0, the charge of the QM region, found 1"),
    ],
)
def test_wrong_calculators_are_explained_in_one_line(calculator, options, message):
    with pytest.raises(SettingError, match=message) as error:
        ASEEngine(np.array([18]), calculator, options, charges=np.zeros(1))
    assert "\n" not in str(error.value)


def test_failing_calculation():
    engine = ASEEngine(np.array([18]), f"{__name__}.Failing", {}, charges=np.zeros(1))
    with pytest.raises(RunError, match=r"structure 0: .*Failing failed \(no luck at all\)"):
        engine.evaluate(np.zeros((1, 1, 3)), np.zeros((1, 1)))


def test_results_that_are_no_numbers():
    engine = ASEEngine(np.array([18]), f"{__name__}.NotANumber", {}, charges=np.zeros(1))
    with pytest.raises(RunError, match=r"structure 0: expected a finite energy and forces of .*NotANumber"):
        engine.evaluate(np.zeros((1, 1, 3)), np.zeros((1, 1)))


@pytest.fixture
def solution(tmp_path):
    """Uracil, as EMT has it, in water."""
    for name in ("uracil-water.gro", "uracil-water.top"):
        shutil.copy(ROOT / "inputs" / "uracil-water" / name, tmp_path)
    path = tmp_path / "pidelta.yaml"
    path.write_text(
        "structure: uracil-water.gro\n"
        f"qm:\n  atoms: resname URA\n{WITH_EMT}"
        "mm: {topology: uracil-water.top, cutoff: 1.0 nm}\n"
    )
    return path


def test_forces_in_water_are_the_gradient(solution):
    config = load_config(solution)
    setup = Setup(config)
    system, evaluator = setup.system, setup.evaluator()
    cells = system.cell[None]
    evaluation = evaluator.evaluate(system.positions[None], cells)
    nearest = np.linalg.norm(system.positions[:, None] - system.positions[None, :12], axis=2).min(axis=1)
    atoms = np.concatenate([[0, 7, 11], 12 + np.argsort(nearest[12:])[:3]])

    def energy(positions):
        return evaluator.evaluate(positions, np.repeat(cells, len(positions), axis=0)).energy

    numerical = central_differences(energy, system.positions, atoms)
    np.testing.assert_allclose(evaluation.gradient[0, atoms], numerical, rtol=0, atol=1e-6)
    vacuum = setup.engine.evaluate(system.positions[None, :12], np.zeros((1, 12)))
    assert abs(evaluation.terms["low"].energy[0] - vacuum.energy[0]) > 1e-3  # water and the charges
    extras = json.loads(encode_extras(evaluation, 0))
    assert extras["embedding"] == "mechanical"
    assert np.abs(extras["charges"]).max() > 0.1


@pytest.mark.parametrize(
    ("method", "found"),
    [(WITH_EMT, "found 'ASE ase.calc"), ("  dftb: {dispersion: d3bj}\n", r"D3\(BJ\) s6=1")],
)
def test_delta_models_of_another_method_are_refused(solution, method, found):
    """The shipped ones correct built-in DFTB without dispersion."""
    if "dispersion" in method:
        pytest.importorskip("dftd3")
    shutil.copy(ROOT / "inputs" / "uracil-water" / "delta-0.pt", solution.parent)
    text = solution.read_text().replace(WITH_EMT, method)
    solution.write_text(text + "delta: {models: [delta-0.pt]}\n")
    with pytest.raises(ModelError, match=rf"expected the low-level method .*'DFTB3/.*{found}"):
        Setup(load_config(solution)).evaluator()


def test_low_level_labels(solution):
    """What delta models are trained on: the calculator, and the force field's charges among the others."""
    solution.write_text(solution.read_text() + "embedding: {scheme: cutoff}\n")
    config = load_config(solution)
    setup = Setup(config)
    system, region, engine = setup.system, setup.qm_region, setup.engine
    cut = region.cut(system.positions[None], system.cell[None])
    frame = Frame(
        numbers=region.numbers,
        positions=cut.positions[0],
        site_positions=cut.site_positions[0],
        site_charges=cut.site_charges[0],
        site_numbers=cut.site_numbers[0],
        source="made up",
    )
    with FrameStore(solution.parent / "f.h5", "a") as store:
        store.set_embedding(region.surroundings.settings)
        store.append(frame)
        ((_, label),) = low_labels(store, [0], engine, 0, 1)
    expected = setup.evaluator().evaluate(system.positions[None], system.cell[None]).terms["low"]
    assert label.energy == pytest.approx(expected.energy[0], abs=1e-10)
    assert label.method == engine.identity
    np.testing.assert_array_equal(label.charges, region.force_field_charges)


def test_check_says_mechanical_embedding(tmp_path, monkeypatch, capsys):
    molecule("CH3CH2OH").write(tmp_path / "m.xyz", format="xyz")
    config = tmp_path / "m.yaml"
    config.write_text(f"structure: m.xyz\nqm:\n{WITH_EMT}")
    monkeypatch.setattr(sys, "argv", ["pidelta", "check", str(config)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit, match="0"):
        main()
    output = capsys.readouterr().out
    assert "mechanical embedding" in output
    assert "all checks passed" in output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("qm: {engine: ase}", "missing key qm.ase with engine: ase"),
        (f"qm:\n  dftb: {{order: 3}}\n{WITH_EMT}", "unknown key qm.dftb with engine: ase"),
        ("qm: {ase: {calculator: a.B}}", "unknown key qm.ase with engine: dftb"),
        (f"point_charges: q.dat\nqm:\n{WITH_EMT}", "point_charges: not with engine ase"),
    ],
)
def test_wrong_configurations(tmp_path, text, message):
    (tmp_path / "m.yaml").write_text(f"structure: m.xyz\n{text}\n")
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "m.yaml")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (WITH_EMT, "qm.properties: expected none, as the engine gives none, found 'gap'"),
        ("", "qm.properties: expected some of orbital_energies, .*scc_fallbacks, .* found 'colour'"),
        (
            "  dftb: {dispersion: d3bj}\n",
            "qm.properties: expected some of orbital_energies, .*found 'colour'",
        ),
    ],
)
def test_properties_that_the_engine_does_not_give(tmp_path, method, message):
    if "dispersion" in method:
        pytest.importorskip("dftd3")
    molecule("CH3CH2OH").write(tmp_path / "m.xyz", format="xyz")
    config = tmp_path / "m.yaml"
    config.write_text(f"structure: m.xyz\nqm:\n  properties: [gap, colour]\n{method}")
    with pytest.raises(ConfigError, match=message):
        Setup(load_config(config)).evaluator()


class TestTBLite:
    """GFN2-xTB by tblite."""

    OPTIONS = {"method": "GFN2-xTB", "accuracy": 0.001, "verbosity": 0}  # noqa: RUF012

    @pytest.fixture(autouse=True)
    def _needs_tblite(self):
        pytest.importorskip("tblite")

    def make(self, numbers, **settings):
        charges = np.full(len(numbers), settings.get("charge", 0) / len(numbers))
        return ASEEngine(numbers, "tblite.ase.TBLite", self.OPTIONS, charges=charges, **settings)

    def test_contract(self):
        numbers, positions, _ = distorted("CH3OH")
        check_engine(lambda n: self.make(n, charge=1, multiplicity=2), numbers, positions, charge=1)

    @pytest.mark.parametrize(("charge", "multiplicity"), [(0, 1), (-1, 2), (0, 3)])
    def test_charge_and_multiplicity_arrive(self, charge, multiplicity):
        from tblite.interface import Calculator as DirectCalculator

        numbers, positions, _ = distorted("H2O")
        direct = DirectCalculator("GFN2-xTB", numbers, positions, charge, multiplicity - 1)
        direct.set("verbosity", 0)
        direct.set("accuracy", 0.001)
        expected = direct.singlepoint()
        engine = self.make(numbers, charge=charge, multiplicity=multiplicity)
        result = engine.evaluate(positions[None], np.zeros((1, 3)))
        assert result.energy[0] == pytest.approx(float(expected["energy"]), abs=1e-8)
        np.testing.assert_allclose(result.gradient[0], expected["gradient"], rtol=0, atol=1e-7)

    def test_unknown_method(self):
        engine = ASEEngine(
            np.array([1, 1]), "tblite.ase.TBLite", {"method": "GFN7", "verbosity": 0}, charges=np.zeros(2)
        )
        with pytest.raises(RunError, match=r"tblite.ase.TBLite failed \(.*GFN7"):
            engine.evaluate(np.array([[[0.0, 0.0, 0.0], [0.0, 0.0, 1.4]]]), np.zeros((1, 2)))
