"""The fit of repulsives against potentials that are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import CubicSpline
from typer.testing import CliRunner

from dftb_sets import make_engine
from parametrisation_support import RECIPE, REPULSIVE
from pidelta.cli.slater_koster import slater_koster
from pidelta.data.frames import Frame, Label
from pidelta.data.store import FrameStore
from pidelta.errors import DataError, ParameterError
from pidelta.parametrisation.electronic import ElectronicTables, make_tables
from pidelta.parametrisation.recipe import Recipe, read_recipe
from pidelta.parametrisation.repulsive_basis import RepulsiveBasis
from pidelta.parametrisation.repulsive_fit import MoleculeData, fit_repulsives, missing_energies
from pidelta.parametrisation.set_files import write_set
from pidelta.qm.dftb import sets
from pidelta.qm.dftb.parameters import load_parameters
from pidelta.qm.dftb.repulsive import Repulsive, RepulsiveTables
from pidelta.qm.dftb.sets import read_folder

CUTOFFS = {("H", "H"): 3.6, ("H", "O"): 2.8, ("O", "O"): 3.2}


def evaluate(repulsive: Repulsive, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tables = RepulsiveTables([repulsive], np.zeros(1, dtype=np.int64))
    value, slope = tables.evaluate(r[:, None])
    return value[:, 0], slope[:, 0]


def test_basis_is_the_double_integral_of_hats() -> None:
    basis = RepulsiveBasis(1.45, 3.0, 0.2)
    assert basis.knots[0] <= 1.45 < basis.knots[1]
    r = np.linspace(basis.knots[0], 3.2, 77)
    value, slope = basis.evaluate(r)
    curvatures = np.random.default_rng(5).uniform(size=len(basis))
    # Independent: integrate the piecewise linear V'' numerically, down from the cutoff.
    fine = np.linspace(basis.knots[0], 3.2, 20001)
    second = np.interp(fine, np.append(basis.knots, 3.0), np.append(curvatures, 0.0), right=0.0)
    first = CubicSpline(fine, second).antiderivative()
    total = CubicSpline(fine, first(fine) - first(3.2)).antiderivative()
    np.testing.assert_allclose(slope @ curvatures, first(r) - first(3.2), atol=1e-6)
    np.testing.assert_allclose(value @ curvatures, total(r) - total(3.2), atol=1e-6)


def test_potential_is_that_of_the_basis_with_a_matched_head() -> None:
    basis = RepulsiveBasis(1.45, 3.0, 0.2)
    curvatures = np.random.default_rng(6).uniform(size=len(basis))
    curvatures[0] = 0.0  # no curvature: the head takes over from the next knot on
    potential = basis.repulsive(curvatures)
    r = np.linspace(basis.knots[1], 3.2, 41)
    value, slope = evaluate(potential, r)
    expected = [part @ curvatures for part in basis.evaluate(r)]
    np.testing.assert_allclose(value, expected[0], atol=1e-14)
    np.testing.assert_allclose(slope, expected[1], atol=1e-14)
    edge, step = basis.knots[1], 1e-6
    (below, above), slopes = evaluate(potential, np.array([edge - step, edge + step]))
    assert below == pytest.approx(above - 2.0 * step * slopes[1], abs=1e-10)
    assert slopes[0] == pytest.approx(slopes[1], abs=1e-5)
    assert np.all(np.diff(evaluate(potential, np.linspace(0.3, 2.9, 50))[1]) > 0.0)


def test_no_repulsion_is_refused() -> None:
    basis = RepulsiveBasis(1.45, 3.0, 0.2)
    with pytest.raises(ParameterError, match="V'' > 0 somewhere"):
        basis.repulsive(np.zeros(len(basis)))


def recipe_with_cutoffs(folder: Path, regularisation: float) -> Recipe:
    cutoffs = ", ".join(f"{a}-{b}: {value} bohr" for (a, b), value in CUTOFFS.items())
    path = folder / "recipe.yaml"
    repulsive = (
        f"{{orders: [2, 3], knots: 0.2 bohr, regularisation: {regularisation}, cutoffs: {{{cutoffs}}}}}"
    )
    path.write_text(RECIPE.replace(REPULSIVE, f"repulsive: {repulsive}"))
    return read_recipe(path)


def true_potential(pair: tuple[str, str], r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A convex potential that is smoother than the splines, and its derivative."""
    x = np.clip(CUTOFFS[pair] - r, 0.0, None)
    strength = {("H", "H"): 0.02, ("H", "O"): 0.1, ("O", "O"): 0.2}[pair]
    return strength * x**4, -4.0 * strength * x**3


def shaken(numbers: list[int], positions: list[list[float]], count: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(scale=0.15, size=(count, len(numbers), 3))
    return np.array(positions) + noise


WATER = [8, 1, 1], [[0.0, 0.0, 0.0], [1.43, 1.1, 0.0], [-1.43, 1.1, 0.0]]
PEROXIDE = [8, 8, 1, 1], [[0.0, 0.0, 0.0], [2.75, 0.0, 0.0], [-0.3, 1.8, 0.2], [3.05, -0.9, 1.5]]


def repulsion(numbers: list[int], positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energy (F,) and gradient (F, n, 3) of the true potentials."""
    symbols = ["H" if number == 1 else "O" for number in numbers]
    energy, gradient = np.zeros(len(positions)), np.zeros(positions.shape)
    for i in range(len(numbers)):
        for j in range(i):
            pair = tuple(sorted((symbols[i], symbols[j])))
            vector = positions[:, i] - positions[:, j]
            distance = np.linalg.norm(vector, axis=-1)
            value, slope = true_potential(pair, distance)  # type: ignore[arg-type]
            energy += value
            force = (slope / distance)[:, None] * vector
            gradient[:, i] += force
            gradient[:, j] -= force
    return energy, gradient


def molecule_data(molecule: tuple[list[int], list[list[float]]], count: int, seed: int) -> MoleculeData:
    numbers, reference = molecule
    positions = shaken(numbers, reference, count, seed)
    energy, gradient = repulsion(numbers, positions)
    return MoleculeData(np.array(numbers), positions, energy + 100.0 * seed, gradient)


def test_fit_recovers_known_potentials_in_spite_of_outliers(tmp_path: Path) -> None:
    data = [molecule_data(WATER, 60, 1), molecule_data(PEROXIDE, 60, 2)]
    generator = np.random.default_rng(3)
    for molecule in data:
        wrong = generator.uniform(size=molecule.gradient.shape) < 0.02
        molecule.gradient[wrong] += generator.normal(scale=1.0, size=int(wrong.sum()))
        molecule.gradient[:] += generator.normal(scale=1e-3, size=molecule.gradient.shape)
    fit = fit_repulsives(data, recipe_with_cutoffs(tmp_path, 1e-6))
    for pair, low in ((("H", "O"), 1.5), (("O", "O"), 2.4), (("H", "H"), 2.5)):
        r = np.linspace(low, CUTOFFS[pair], 30)
        value, slope = evaluate(fit.repulsives[pair], r)
        expected = true_potential(pair, r)
        np.testing.assert_allclose(slope, expected[1], atol=4e-3)
        np.testing.assert_allclose(value, expected[0], atol=3e-3)
    assert fit.gradient_mae < 0.03  # the outliers alone make 0.016
    assert fit.distances["O", "O"] <= 60


def test_curvature_falls_from_positive_values(tmp_path: Path) -> None:
    data = molecule_data(PEROXIDE, 30, 4)
    attractive = MoleculeData(data.numbers, data.positions, data.energy, data.gradient.copy())
    vector = data.positions[:, 1] - data.positions[:, 0]
    pull = 0.05 * vector / np.linalg.norm(vector, axis=-1, keepdims=True)
    attractive.gradient[:, 1] += pull
    attractive.gradient[:, 0] -= pull
    fit = fit_repulsives([attractive, molecule_data(WATER, 30, 5)], recipe_with_cutoffs(tmp_path, 1e-4))
    for pair, potential in fit.repulsives.items():
        slope = evaluate(potential, np.linspace(1.0, CUTOFFS[pair], 200))[1]
        assert np.all(np.diff(slope) >= -1e-12)
        assert np.all(np.diff(slope, 2) <= 1e-12)


def test_a_pair_that_should_attract_is_refused_or_kept_repulsive(tmp_path: Path) -> None:
    data = molecule_data(PEROXIDE, 30, 4)
    vector = data.positions[:, 1] - data.positions[:, 0]
    pull = 5.0 * vector / np.linalg.norm(vector, axis=-1, keepdims=True)
    data.gradient[:, 1] += pull
    data.gradient[:, 0] -= pull
    data = replace(data, energy=np.zeros(30))
    recipe = recipe_with_cutoffs(tmp_path, 1e-4)
    with pytest.raises(ParameterError, match="pair O-O: expected a repulsive with V'' > 0 somewhere"):
        fit_repulsives([data, molecule_data(WATER, 30, 5)], recipe)
    kept = recipe.model_copy(
        update={"repulsive": recipe.repulsive.model_copy(update={"least_curvature": 0.03})}
    )
    potential = fit_repulsives([data, molecule_data(WATER, 30, 5)], kept).repulsives["O", "O"]
    start = float(potential.starts[0])
    slopes = evaluate(potential, np.array([start, start + 1e-4]))[1]
    assert 0.0299 < (slopes[1] - slopes[0]) / 1e-4 < 0.05


def test_a_pair_without_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"pair O-O: expected distances below its cutoff of 3\.20 bohr"):
        fit_repulsives([molecule_data(WATER, 5, 6)], recipe_with_cutoffs(tmp_path, 1e-4))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> ElectronicTables:
    pytest.importorskip("pyscf")
    folder = tmp_path_factory.mktemp("tables")
    return make_tables(recipe_with_cutoffs(folder, 1e-4), folder)


def labelled_store(
    path: Path, tables: ElectronicTables, molecule: tuple[list[int], list[list[float]]]
) -> FrameStore:
    store = FrameStore(path, "a")
    numbers, reference = molecule
    positions = shaken(numbers, reference, 6, 8)
    electronic = make_engine(np.array(numbers), tables.parameter_set("electronic")).evaluate(
        positions, np.zeros(positions.shape[:2])
    )
    energy, gradient = repulsion(numbers, positions)
    for k in range(len(positions)):
        index = store.append(
            Frame(
                np.array(numbers),
                positions[k],
                np.zeros((0, 3)),
                np.zeros(0),
                np.zeros(0, dtype=np.int64),
                source=f"test {k}",
            )
        )
        store.set_label(
            index,
            "reference",
            Label(
                "test",
                float(electronic.energy[k] + energy[k]),
                electronic.gradient[k] + gradient[k],
                np.zeros((0, 3)),
                np.zeros(len(numbers)),
            ),
        )
    return store


def test_missing_energies_are_reference_less_electronic(tables: ElectronicTables, tmp_path: Path) -> None:
    with labelled_store(tmp_path / "frames.h5", tables, WATER) as store:
        (found,), method = missing_energies(store, tables, 2, None)
        assert method == "test"
        energy, gradient = repulsion(WATER[0], found.positions)
        np.testing.assert_allclose(found.energy, energy, atol=1e-9)
        np.testing.assert_allclose(found.gradient, gradient, atol=1e-7)
        label = store.label(0, "reference")
        assert label is not None
        store.set_label(0, "reference", replace(label, method="other"))
        found, method = missing_energies(store, tables, 2, None)
        assert method == "other and test"
        assert [len(molecule.energy) for molecule in found] == [1, 5]
    with (
        FrameStore(tmp_path / "none.h5", "a") as store,
        pytest.raises(DataError, match="reference labels, found none"),
    ):
        missing_energies(store, tables, 2, None)


def test_files_of_a_set_give_the_fitted_energies(tables: ElectronicTables, tmp_path: Path) -> None:
    recipe = recipe_with_cutoffs(tmp_path, 1e-4)
    fit = fit_repulsives([molecule_data(WATER, 20, 9), molecule_data(PEROXIDE, 20, 10)], recipe)
    write_set(tmp_path / "set", recipe, 2, tables, fit, "B3LYP/test")
    assert "to B3LYP/test" in (tmp_path / "set" / "O-H.skf").read_text()
    described = read_folder(tmp_path / "set")
    assert described.description.hubbard_derivatives == tables.hubbard_derivatives
    assert described.description.damping_exponent == recipe.repulsive.damping_exponent
    assert described.description.reference == "B3LYP/test"
    assert described.description.dispersion == sets.DispersionD3(s8=1.9889, a1=0.3981, a2=4.4211)
    numbers, positions = PEROXIDE[0], shaken(*PEROXIDE, 2, 11)
    results = [
        make_engine(np.array(numbers), parameters).evaluate(positions, np.zeros(positions.shape[:2]))
        for parameters in (
            load_parameters(tmp_path / "set", ["H", "O"]),
            described.parameters(["H", "O"]),
            tables.parameter_set("fitted", fit.repulsives),
        )
    ]
    for result in results[:2]:
        np.testing.assert_allclose(result.energy, results[2].energy, atol=1e-9)
        np.testing.assert_allclose(result.gradient, results[2].gradient, atol=1e-8)


def test_command_writes_a_set(tables: ElectronicTables, tmp_path: Path) -> None:
    runner = CliRunner()
    recipe_with_cutoffs(tmp_path, 1e-4)
    frames, recipe = tmp_path / "frames.h5", ["--recipe", str(tmp_path / "recipe.yaml")]
    for molecule in (WATER, PEROXIDE):
        with labelled_store(frames, tables, molecule):
            pass
    arguments = ["fit", str(frames), str(tmp_path / "set"), "--cache", str(tmp_path / "cache"), *recipe]
    result = runner.invoke(slater_koster, arguments)
    assert result.exit_code == 0, result.output
    assert "fitted to test with mean absolute errors of" in result.output
    files = ["H-H.skf", "H-O.skf", "O-H.skf", "O-O.skf", "set.json"]
    for order in (2, 3):
        assert sorted(path.name for path in (tmp_path / "set" / f"order-{order}").iterdir()) == files
    packed = sets.open_set(tmp_path / "set" / "test-1.tar.xz")
    assert sorted(packed) == [2, 3]
    for made in packed.values():
        assert made.description.spin_constants == {
            symbol: np.round(matrix, 6).tolist() for symbol, matrix in tables.spin_constants.items()
        }


def test_one_command_makes_a_set_and_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("pyscf")
    pytest.importorskip("rdkit")
    cutoffs = "{H-H: 3.4 bohr, H-O: 3.2 bohr, O-O: 3.4 bohr}"
    text = RECIPE.replace(REPULSIVE, f"repulsive: {{orders: [2], knots: 0.4 bohr, cutoffs: {cutoffs}}}")
    text = text.replace('{frames: 4, smiles: ["O"]}', '{frames: 1, smiles: ["[H][H]", "OO"]}')
    text += '  complexes: ["O.O"]\n  complex_frames: 1\n'
    (tmp_path / "recipe.yaml").write_text(text)
    arguments = ["make", str(tmp_path / "made"), "--recipe", str(tmp_path / "recipe.yaml"), "--workers", "1"]
    result = CliRunner().invoke(slater_koster, arguments)
    assert result.exit_code == 0, result.output
    assert "3 frames added" in result.output
    assert "2 of 3 frames to label with" in result.output
    assert "def2-SVPD" in result.output
    (made,) = sets.open_set(tmp_path / "made" / "test-1.tar.xz").values()
    assert "def2-SVP," in made.description.reference
    assert "def2-SVPD," in made.description.reference
    result = CliRunner().invoke(slater_koster, arguments)
    assert result.exit_code == 0, result.output
    assert result.output.count("0 of 3 frames to label with") == 2
