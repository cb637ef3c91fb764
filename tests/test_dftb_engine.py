"""The DFTB engine: the engine contract, self-consistency, temperature and errors."""

from __future__ import annotations

import numpy as np
import pytest

from dftb_sets import builtin, engine, find_record, make_engine, molecule
from pidelta.errors import GeometryError, ParameterError, SCCConvergenceError, SetupError
from pidelta.qm.dftb.engine import DFTBEngine
from pidelta.qm.dftb.settings import DFTBSettings
from pidelta.testing.engines import check_charges, check_engine, check_gradient

URACIL = "O=c1cc[nH]c(=O)[nH]1"
WATER = (np.array([8, 1, 1]), np.array([[0.0, 0.0, 0.1], [0.0, 1.45, 1.2], [0.1, -1.4, 1.25]]))


def vacuum(method, positions):
    return method.evaluate(positions[None], np.zeros((1, len(positions))))


def test_contract_notices_a_wrong_engine():
    """A potential that is missing from the energy must not pass."""

    class Forgetful(DFTBEngine):
        def evaluate(self, positions, potential, coulomb_correction=None):
            return super().evaluate(positions, 0.0 * potential, coulomb_correction)

    def make(numbers):
        return Forgetful(numbers, builtin(2)[1], DFTBSettings())

    with pytest.raises(AssertionError, match="the charges are dE/d"):
        check_engine(make, *WATER)


@pytest.mark.parametrize("temperature", [0.002, 0.02])
def test_mermin_free_energy(temperature):
    """The gradient is that of the free energy, which is lower where the temperature matters."""
    numbers, positions = molecule(find_record("CC(=O)O"))
    method = engine(numbers, electronic_temperature=temperature)
    # A stretched bond, so that the gap is small.
    positions = positions + 0.6 * np.arange(len(numbers))[:, None] / len(numbers)
    cold = vacuum(engine(numbers), positions)
    warm = vacuum(method, positions)
    assert warm.energy[0] < cold.energy[0] - (1e-6 if temperature > 0.01 else -1e-12)
    potential = np.linspace(-0.02, 0.02, len(numbers))
    check_gradient(method, positions, potential)
    check_charges(method, positions, potential)


def test_low_temperature_is_aufbau():
    numbers, positions = molecule(find_record(URACIL))
    cold = vacuum(engine(numbers), positions)
    warm = vacuum(engine(numbers, electronic_temperature=3e-4), positions)
    np.testing.assert_allclose(warm.energy, cold.energy, atol=1e-10)
    np.testing.assert_allclose(warm.gradient, cold.gradient, atol=1e-8)


def test_energy_of_far_apart_molecules_adds_up():
    numbers, positions = WATER
    one = vacuum(engine(numbers, order=2), positions)
    pair = vacuum(engine(np.tile(numbers, 2), order=2), np.concatenate((positions, positions + 3e4)))
    assert pair.energy[0] == pytest.approx(2 * one.energy[0], abs=1e-9)


@pytest.mark.parametrize(("number", "charge"), [(8, 0), (6, 0), (6, 2), (1, -1)])
def test_single_atom(number, charge):
    """An atom has its charge, no forces, and feels the potential as a point charge does."""
    method = engine(np.array([number]), charge=charge)
    results = [method.evaluate(np.zeros((1, 1, 3)), np.full((1, 1), phi)) for phi in (0.0, 0.3)]
    np.testing.assert_allclose(results[0].charges, [[charge]], atol=1e-12)
    np.testing.assert_array_equal(results[0].gradient, np.zeros((1, 1, 3)))
    assert results[1].energy[0] - results[0].energy[0] == pytest.approx(0.3 * charge, abs=1e-12)


def test_warm_start_saves_iterations_and_changes_nothing():
    numbers, positions = molecule(find_record(URACIL))
    rng = np.random.default_rng(0)
    cold = engine(numbers, start="none")
    warm = engine(numbers)
    vacuum(warm, positions)
    moved = positions + rng.normal(0.0, 0.01, positions.shape)
    expected, found = vacuum(cold, moved), vacuum(warm, moved)
    assert found.properties["scc_iterations"][0] < expected.properties["scc_iterations"][0]
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.charges, expected.charges, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=0, atol=1e-8)


@pytest.mark.parametrize("temperature", [0.0, 0.01])
@pytest.mark.parametrize("order", [2, 3])
def test_few_iterations_from_neutral_atoms(order, temperature):
    """Newton's method converges quadratically only if the charge response is right."""
    numbers, positions = molecule(find_record(URACIL))
    batch = positions + np.random.default_rng(0).normal(0.0, 0.05, (8, *positions.shape))
    method = engine(numbers, order, electronic_temperature=temperature, tolerance=1e-10)
    assert method.evaluate(batch, np.zeros(batch.shape[:2])).properties["scc_iterations"].max() <= 6


def test_bad_start_is_forgotten():
    """Charges of another world as a start must not make a normal molecule fail."""
    numbers, positions = molecule(find_record(URACIL))
    method = engine(numbers)
    expected = vacuum(method, positions)
    method.evaluate(positions[None], np.linspace(-0.4, 0.4, len(numbers))[None])
    np.testing.assert_allclose(vacuum(method, positions).energy, expected.energy, rtol=0, atol=1e-10)


def test_tolerance_is_kept():
    numbers, positions = molecule(find_record("CC(=O)[O-]"))
    loose, tight = (vacuum(engine(numbers, charge=-1, tolerance=t), positions) for t in (1e-3, 1e-12))
    assert loose.properties["scc_iterations"][0] < tight.properties["scc_iterations"][0]
    assert 1e-12 < np.abs(loose.charges - tight.charges).max() < 1e-3


def test_structures_that_converge_at_different_times():
    """Results and iterations stay in the slots of their structures."""
    numbers, positions = molecule(find_record("CC(=O)[O-]"))
    stretch = np.array([1.0, 1.25, 0.97, 1.4])
    batch = stretch[:, None, None] * positions
    method = engine(numbers, charge=-1, start="none")
    together = method.evaluate(batch, np.zeros(batch.shape[:2]))
    assert len(set(together.properties["scc_iterations"])) > 1
    for row, geometry in enumerate(batch):
        alone = vacuum(method, geometry)
        assert together.properties["scc_iterations"][row] == alone.properties["scc_iterations"][0]
        np.testing.assert_allclose(together.energy[row], alone.energy[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(together.gradient[row], alone.gradient[0], rtol=0, atol=1e-10)


def test_unconverged_scc_names_the_structure():
    numbers, positions = molecule(find_record("CC(=O)O"))
    method = engine(numbers, max_iterations=1)
    batch = np.stack((positions, positions + 1.0))
    with pytest.raises(SCCConvergenceError, match="structure 1: SCC did not converge in") as caught:
        method.evaluate(batch, np.stack((np.zeros(len(numbers)), np.linspace(-0.3, 0.3, len(numbers)))))
    assert caught.value.iterations > 1
    assert caught.value.last_change > 1e-8
    np.testing.assert_array_equal(caught.value.numbers, numbers)
    np.testing.assert_array_equal(caught.value.positions, positions + 1.0)


def test_bad_geometries():
    numbers, positions = WATER
    method = engine(numbers, order=2)
    broken = np.stack((positions, positions))
    broken[1, 2, 0] = np.nan
    with pytest.raises(
        GeometryError, match=r"structure 1, atom 2 \(H\): expected finite positions, found nan"
    ):
        method.evaluate(broken, np.zeros((2, 3)))
    with pytest.raises(
        GeometryError, match=r"structure 0, atom 1 \(H\): expected finite potential, found inf"
    ):
        method.evaluate(positions[None], np.array([[0.0, np.inf, 0.0]]))
    broken[1] = positions
    broken[1, 2] = positions[1] + [0.0, 0.0, 0.05]
    with pytest.raises(GeometryError, match=r"structure 1, atom 1 \(H\) and atom 2 \(H\): .*0\.0500 bohr"):
        method.evaluate(broken, np.zeros((2, 3)))


def test_impossible_settings():
    numbers, _ = WATER
    with pytest.raises(SetupError, match="leaves 1 to 12 valence electrons, found 8"):
        engine(numbers, order=2, charge=8)
    with pytest.raises(SetupError, match="order: expected 2 or 3, found 1"):
        make_engine(numbers, builtin(2)[1], order=1)
    with pytest.raises(
        SetupError, match=r"hubbard_derivatives: expected .* every element .*, found none for H"
    ):
        engine(numbers, hubbard_derivatives={"O": -0.1})
    with pytest.raises(ParameterError, match=r"atom 0: expected one of .* found Ne"):
        engine(np.array([10]))


def test_identity_tells_methods_apart():
    numbers, _ = WATER
    methods = [
        engine(numbers, order=2),
        engine(numbers, order=2, damping_exponent=4.2),
        engine(numbers, hubbard_derivatives={"O": -0.1, "H": -0.1}),
        engine(numbers, hubbard_derivatives={"O": -0.1, "H": -0.2}),
        engine(numbers, order=2, electronic_temperature=0.001),
        engine(numbers),
    ]
    identities = [method.identity for method in methods]
    assert len(set(identities)) == len(identities)
    assert identities[0].startswith("DFTB2/skf:")
    assert engine(numbers, order=2).identity == identities[0]
    np.testing.assert_array_equal(methods[0].numbers, numbers)
