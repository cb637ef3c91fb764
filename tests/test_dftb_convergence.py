"""Self-consistency that always ends, what it starts from, and overlaps that are no basis."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import made_up_set
from dftb_sets import make_engine
from pidelta.errors import GeometryError, SCCConvergenceError
from pidelta.qm.dftb import convergence
from pidelta.qm.dftb.parameters import load_parameters
from pidelta.qm.dftb.sets import builtin_set
from pidelta.qm.dftb.start import StartingPopulations

ETHYLENE = np.array([6, 6, 1, 1, 1, 1])
NORMAL = np.array(
    [[0, 0, -1.25], [0, 0, 1.25], [0, 1.75, -2.3], [0, -1.75, -2.3], [1.75, 0, 2.3], [-1.75, 0, 2.3]]
)
# Stretched, in fields, with gaps below 0.001 hartree: Newton's method oscillates.
SMALL_STEPS_HELP = (
    [
        [-0.3, 0.4, -2.8],
        [-0.7, 0.3, 2.6],
        [-0.5, 3.4, -4.3],
        [0.2, -3.8, -3.7],
        [3.8, 0.3, 4.4],
        [-5.0, 0.1, 4.1],
    ],
    [-0.01, -0.06, 0.01, 0.04, -0.03, -0.05],
)
ANNEALING_HELPS = (
    [
        [0.6, -0.6, -1.7],
        [0.1, -0.4, 2.1],
        [-0.5, 3.5, -4.0],
        [-0.3, -3.7, -4.0],
        [3.6, -0.1, 4.3],
        [-3.3, 0.0, 4.0],
    ],
    [0.03, -0.15, 0.06, -0.02, 0.04, -0.03],
)
FORMAMIDE = np.array([8, 6, 7, 1, 1, 1])
FORMAMIDE_POSITIONS = np.array(
    [
        [2.2, 0.4, 0.0],
        [0.3, -0.8, 0.0],
        [-1.9, 0.5, 0.1],
        [0.2, -2.9, 0.0],
        [-1.9, 2.4, -0.1],
        [-3.6, -0.4, 0.0],
    ]
)


@pytest.fixture(scope="module")
def parameters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "2"
    return load_parameters(made_up_set.write_made_up_set(folder, 2), "CH")


def evaluate(method, *structures):
    positions, potential = (np.array(values, dtype=float) for values in zip(*structures, strict=True))
    return method.evaluate(positions, potential)


@pytest.mark.parametrize("hard", [SMALL_STEPS_HELP, ANNEALING_HELPS])
def test_fallback_reaches_self_consistency_at_the_settings_asked_for(hard, parameters):
    result = evaluate(make_engine(ETHYLENE, parameters), (NORMAL, np.zeros(6)), hard)
    np.testing.assert_array_equal(result.properties["scc_fallbacks"], [False, True])
    assert result.properties["scc_iterations"][0] < 10
    assert result.properties["scc_iterations"][1] > 100
    alone = evaluate(make_engine(ETHYLENE, parameters), (NORMAL, np.zeros(6)))
    assert result.energy[0] == pytest.approx(alone.energy[0], abs=1e-11)
    # Aufbau, as at 0 K, and a state that reproduces itself.
    np.testing.assert_array_equal(np.unique(result.properties["occupations"]), [0.0, 2.0])
    method = make_engine(ETHYLENE, parameters)
    first, again = evaluate(method, hard), evaluate(method, hard)
    assert again.properties["scc_iterations"][0] == 1
    assert not again.properties["scc_fallbacks"][0]
    np.testing.assert_allclose(again.charges, first.charges, rtol=0, atol=1e-8)
    # The free energy goes to the energy of the ground state with the temperature, from below.
    warm = evaluate(make_engine(ETHYLENE, parameters, electronic_temperature=1e-5), hard)
    assert first.energy[0] - 1e-4 < warm.energy[0] < first.energy[0] + 1e-9


def test_fallbacks_are_logged_once(parameters, caplog):
    convergence._warn.cache_clear()
    with caplog.at_level(logging.WARNING, "pidelta"):
        evaluate(make_engine(ETHYLENE, parameters), (NORMAL, np.zeros(6)))
        assert not caplog.messages
        for _ in range(2):
            evaluate(make_engine(ETHYLENE, parameters, start="none"), SMALL_STEPS_HELP)
    assert [message[:20] for message in caplog.messages] == ["SCC did not converge"]


def test_no_solution_is_an_error(parameters):
    """An electron pair between two far atoms: whoever has it is above the other, so aufbau moves it back."""
    numbers = np.array([6, 1, 1, 1, 1])
    positions = np.array(
        [[0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [1.7, -1.0, 0.0], [-1.7, -1.0, 0.0], [0.0, 0.0, 30.0]]
    )
    method = make_engine(numbers, parameters)
    with pytest.raises(
        SCCConvergenceError, match="raise the number of SCC iterations or the electronic temp"
    ):
        evaluate(method, (positions, np.zeros(5)))
    warm = make_engine(numbers, parameters, electronic_temperature=0.002)
    assert np.isfinite(evaluate(warm, (positions, np.zeros(5))).energy).all()


@cache
def builtin():
    files = builtin_set()[3]
    return files.description, files.parameters(files.description.elements)


def formamide(**settings):
    description, parameters = builtin()
    return make_engine(
        FORMAMIDE,
        parameters,
        order=3,
        hubbard_derivatives=description.hubbard_derivatives,
        damping_exponent=description.damping_exponent,
        **settings,
    )


@pytest.mark.parametrize(
    "settings", [{}, {"multiplicity": 3, "spin_constants": dict.fromkeys("HCNO", -0.03)}]
)
def test_results_do_not_depend_on_the_start(settings):
    """A random walk of a batch whose slots are shuffled, which no guess can foresee."""
    rng = np.random.default_rng(0)
    engines = {start: formamide(start=start, **settings) for start in ("none", "previous", "extrapolated")}
    batch, iterations = FORMAMIDE_POSITIONS + rng.normal(0.0, 0.05, (4, 6, 3)), []
    for _ in range(8):
        batch = rng.permutation(batch + rng.normal(0.0, 0.02, batch.shape))
        results = {start: method.evaluate(batch, np.zeros((4, 6))) for start, method in engines.items()}
        iterations.append([results[start].properties["scc_iterations"].mean() for start in engines])
        for found in results.values():
            np.testing.assert_allclose(found.energy, results["none"].energy, rtol=0, atol=1e-10)
            np.testing.assert_allclose(found.charges, results["none"].charges, rtol=0, atol=1e-7)
            np.testing.assert_allclose(found.gradient, results["none"].gradient, rtol=0, atol=1e-7)
    _, previous, extrapolated = np.mean(iterations, axis=0)
    assert extrapolated < previous + 0.2


def test_extrapolation_finds_the_best_order_for_each_structure():
    """One structure follows a parabola, one jumps to and fro, as if exchanged with another."""
    start = StartingPopulations("extrapolated")
    calls = [np.array([0.3 * k**2 - k, (-1.0) ** k]).reshape(2, 1, 1) for k in range(12)]
    assert start.guess(2) is None
    for k, populations in enumerate(calls):
        if k in (1, 2):
            np.testing.assert_array_equal(start.guess(2), calls[k - 1])
        if k > 3:
            np.testing.assert_allclose(start.guess(2)[0], populations[0], rtol=1e-10)
            np.testing.assert_array_equal(start.guess(2)[1], calls[k - 1][1])
        start.remember(populations)
    assert start.guess(1) is None
    start.remember(calls[0][:1])
    np.testing.assert_array_equal(start.guess(1), calls[0][:1])
    start.forget()
    assert start.guess(1) is None


def test_starts_save_iterations_on_a_smooth_path():
    """Every structure of a batch vibrates in its own way, by 0.01 bohr a step; then the batch shrinks."""
    rng = np.random.default_rng(1)
    modes = rng.normal(0.0, 0.1, (2, 6, 3))
    iterations = {}
    for start in ("none", "previous", "extrapolated"):
        method = formamide(start=start)
        counts = [
            method.evaluate(FORMAMIDE_POSITIONS + np.sin(0.1 * step) * modes, np.zeros((2, 6))).properties[
                "scc_iterations"
            ]
            for step in range(20)
        ]
        iterations[start] = np.mean(counts[6:])
        last = FORMAMIDE_POSITIONS + np.sin(2.0) * modes[:1]
        alone = method.evaluate(last, np.zeros((1, 6)))
        assert alone.energy[0] == pytest.approx(
            formamide().evaluate(last, np.zeros((1, 6))).energy[0], abs=1e-10
        )
    assert iterations["extrapolated"] < iterations["previous"] - 0.5
    assert iterations["previous"] < iterations["none"] - 0.5


@pytest.mark.parametrize("curvature", [-1e-7, 1e-3])
def test_overlap_that_is_no_basis_is_named(parameters, curvature):
    """That of two hydrogens is 1 + curvature r^2 up to 3 bohr: nearly singular, or above 1."""
    file = parameters.pairs["H", "H"]
    r = file.spacing * np.arange(1, len(file.overlap) + 1)
    overlap = np.zeros_like(file.overlap)
    overlap[:, -1] = np.exp(curvature * r**2 - np.maximum(0.0, r - 3.0) ** 2)
    pairs = {("H", "H"): replace(file, overlap=overlap)}
    method = make_engine(np.array([1, 1]), replace(parameters, pairs=pairs))
    far, near = ([[0.0, 0.0, 0.0], [0.0, 0.0, z]] for z in (4.5, 2.0))
    evaluate(method, (far, np.zeros(2)))
    with pytest.raises(
        GeometryError,
        match=r"structure 1, atom 0 \(H\) and atom 1 \(H\): expected a positive definite overlap with "
        r"eigenvalues above 1e-06, found a distance of 2\.0000 bohr",
    ):
        evaluate(method, (far, np.zeros(2)), (near, np.zeros(2)))
