"""Averages of i-PI with pidelta's forces beside exact ones: quantum energies and the effect of isotopes."""

from __future__ import annotations

import numpy as np
import pytest

import harmonic_molecules as springs

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
    check(springs.sample(tmp_path, beads, 800), springs.exact(beads), 0.04)


@pytest.mark.slow
@pytest.mark.parametrize("beads", springs.BEADS)
def test_springs_converge_with_the_beads(tmp_path, beads):
    check(springs.sample(tmp_path, beads, 4000), springs.exact(beads), 0.015)


def test_heavier_isotopes_are_more_classical():
    """Free energy of a deuteron for a proton by an integral over the mass, beside the exact one."""
    light, heavy, *rest = springs.MASSES[0], 2.01410, *springs.MASSES[1:]
    nodes, weights = np.polynomial.legendre.leggauss(4)
    logarithms = 0.5 * np.log(heavy / light) * (nodes + 1.0) + np.log(light)
    slopes = [-springs.exact(16, (m, *rest)).kinetic[0] for m in np.exp(logarithms)]
    integral = 0.5 * np.log(heavy / light) * (weights @ slopes)
    difference = springs.free_energy(16, (heavy, *rest)) - springs.free_energy(16, springs.MASSES)
    assert integral == pytest.approx(difference, rel=1e-5)
    assert springs.exact(16, (heavy, *rest)).kinetic[0] < springs.exact(16).kinetic[0]


@pytest.mark.slow
def test_isotope_effect_of_springs_by_sampling(tmp_path):
    """The same integral with three masses that i-PI samples: deuterium in place of hydrogen."""
    light, heavy, *rest = springs.MASSES[0], 2.01410, *springs.MASSES[1:]
    nodes, weights = np.polynomial.legendre.leggauss(3)
    span = 0.5 * np.log(heavy / light)
    integral = variance = 0.0
    for index, (node, weight) in enumerate(zip(nodes, weights, strict=True)):
        mass = light * np.exp(span * (node + 1.0))
        folder = tmp_path / str(index)
        folder.mkdir()
        kinetic = springs.sample(folder, 16, 4000, (mass, *rest), seed=20103 + index).kinetic["H"]
        integral -= span * weight * kinetic.value
        variance += (span * weight * kinetic.error) ** 2
    difference = springs.free_energy(16, (heavy, *rest)) - springs.free_energy(16, springs.MASSES)
    assert variance**0.5 < 0.01 * abs(difference)
    assert abs(integral - difference) < 4.0 * variance**0.5 + TIME_STEP_ERROR * abs(difference)
