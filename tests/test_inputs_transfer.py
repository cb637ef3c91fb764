"""The bias and the free energy of inputs/proton-transfer."""

from __future__ import annotations

import numpy as np
import pytest

from pidelta.units import ANGSTROM, HARTREE_IN_KCAL_PER_MOL, KELVIN

HEIGHT, WIDTH, ATOMS = 0.0105, 0.65, (0, 2, 1)


def test_the_force_of_the_bias_is_its_slope(script):
    bias = script("proton-transfer", "bias").TransferBias(*ATOMS, HEIGHT, WIDTH)
    positions = np.array([[0.0, 0.1, 0.2], [4.6, 0.3, -0.2], [2.0, 0.4, 0.5], [1.0, 2.0, 3.0]])
    _, forces, virial, _ = bias(np.eye(3), positions)
    slopes = np.zeros_like(positions)
    for index in np.ndindex(positions.shape):
        energies = []
        for step in (1e-4, -1e-4):
            moved = positions.copy()
            moved[index] += step
            energies.append(bias(np.eye(3), moved)[0])
        slopes[index] = (energies[0] - energies[1]) / 2e-4
    assert np.abs(forces).max() > 1e-3
    np.testing.assert_allclose(forces, -slopes, atol=1e-9)
    assert not virial.any()


def test_the_weights_take_the_bias_away(script):
    """Samples of a parabola, which is the sum of a known free energy and the bias."""
    module, gaussian = script("proton-transfer", "free_energy"), script("proton-transfer", "bias").gaussian
    temperature, force_constant = 300.0 * KELVIN, 0.004
    spread = np.sqrt(temperature / force_constant)
    delta = np.random.default_rng(1).normal(0.0, spread, 400_000)
    weights = gaussian(delta, HEIGHT, WIDTH) / temperature
    found = module.free_energy(delta[:, None], module.Samples(delta[:, None], delta, weights, temperature))
    at = module.MIDDLES * ANGSTROM
    expected = (0.5 * force_constant * at**2 - gaussian(at, HEIGHT, WIDTH)) * HARTREE_IN_KCAL_PER_MOL
    near = at < 2.5 * spread
    gaps = (found.values - (expected - expected[near].min()))[near]
    assert found.barrier == pytest.approx(expected[0] - expected[near].min(), abs=0.1)
    assert np.abs(gaps - gaps.mean()).max() < 0.1
    assert (np.abs(gaps - gaps.mean()) < 4.0 * found.errors[near] + 0.05).all()
