"""Averages of i-PI with pidelta's forces beside exact ones: quantum energies, isotopes, both regions alike."""

from __future__ import annotations

import harmonic_molecules as springs
import numpy as np
import pytest

TIME_STEP_ERROR = 0.002  # relative: (w dt / 2)^2 / 2 of the stiffest mode, and some


def check(sampled, exact, largest_error):
    """Within four standard errors, and these small enough to say something."""
    pairs = [(sampled.potential, exact.potential)]
    pairs += [(sampled.kinetic[s], k) for s, k in zip(springs.SYMBOLS, exact.kinetic, strict=True)]
    for mean, value in pairs:
        assert mean.error < largest_error * value
        assert abs(mean.value - value) < 4.0 * mean.error + TIME_STEP_ERROR * value


def test_many_beads_are_exact_in_the_limit_and_one_is_classical():
    limit, classical = springs.exact(0), springs.exact(1)
    many = springs.exact(4096)
    np.testing.assert_allclose(many.kinetic, limit.kinetic, rtol=1e-5)
    np.testing.assert_allclose(many.potential, limit.potential, rtol=1e-5)
    thermal = 0.5 * springs.KELVIN / springs.HARTREE_IN_KELVIN
    np.testing.assert_allclose(classical.kinetic, 3.0 * thermal)
    assert classical.potential == pytest.approx(6.0 * thermal)


def test_kinetic_energy_is_the_slope_of_the_free_energy_in_the_mass():
    beads, step = 8, 1e-4
    mass, *rest = springs.MASSES
    forward, back = (springs.free_energy(beads, (mass * (1.0 + s), *rest)) for s in (step, -step))
    assert -(forward - back) / (2.0 * step) == pytest.approx(springs.exact(beads).kinetic[0], rel=1e-6)


@pytest.mark.parametrize("beads", [1, 8])
def test_springs_have_the_energies_of_their_beads(tmp_path, beads):
    check(springs.sample(tmp_path, beads, 1200), springs.exact(beads), 0.03)


@pytest.mark.slow
@pytest.mark.parametrize("beads", [1, 2, 4, 8, 16, 32, 64])
def test_springs_converge_with_the_beads(tmp_path, beads):
    check(springs.sample(tmp_path, beads, 20_000), springs.exact(beads), 0.006)
