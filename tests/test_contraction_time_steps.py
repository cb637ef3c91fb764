"""What time steps do to a quantum oscillator, inputs/contraction/time_steps.py, beside known limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conftest import ROOT
from pidelta.units import FEMTOSECOND, WAVENUMBER

STRETCH = 3700 * WAVENUMBER


@pytest.fixture
def steps(script):
    return script("contraction", "time_steps")


def test_classical_oscillator_with_baoab_is_exact_and_with_obabo_that_of_verlet(steps):
    """Leimkuhler and Matthews: no error of positions. Velocity Verlet: k T / m (w^2 - w^4 t^2 / 4)."""
    exact = steps.TEMPERATURE / STRETCH**2
    for step in (0.25, 1.0):
        baoab = steps.Scheme("", step, 1, middle=True)
        assert steps.sampled_square(STRETCH, 0.0, 1, baoab) == pytest.approx(exact, rel=1e-10)
        obabo = replace(baoab, middle=False)
        verlet = exact / (1.0 - (STRETCH * step * FEMTOSECOND / 2.0) ** 2)
        assert steps.sampled_square(STRETCH, 0.0, 1, obabo) == pytest.approx(verlet, rel=1e-10)
        inner = steps.Scheme("", 4.0 * step, 4, middle=True)
        assert steps.sampled_square(STRETCH, 0.0, 1, inner) == pytest.approx(verlet, rel=1e-10)


def test_errors_fall_with_the_square_of_the_step_and_the_exact_energy_with_beads_is_known(steps):
    scheme = steps.Scheme("", 0.2, 1, middle=True)
    exact = steps.exact_kinetic_energy(STRETCH, 32)
    coarse, fine = (
        steps.sampled_kinetic_energy(STRETCH, 32, replace(scheme, outer=outer)) / exact - 1.0
        for outer in (0.2, 0.1)
    )
    assert coarse > 1e-4
    assert coarse / fine == pytest.approx(4.0, rel=0.02)
    # of infinitely many beads: w / 4 coth(w / 2 k T)
    limit = 0.25 * STRETCH / np.tanh(0.5 * STRETCH / steps.TEMPERATURE)
    assert steps.exact_kinetic_energy(STRETCH, 1024) == pytest.approx(limit, rel=1e-3)
    assert steps.exact_kinetic_energy(STRETCH, 1) == pytest.approx(0.5 * steps.TEMPERATURE)


def test_a_steady_force_in_kicks_stretches_less_as_a_trajectory_shows(steps):
    """Kicks of half the force at both ends of outer steps, free motion about the rest length between them."""
    force, outer, n = 1e-3, 2.0 * FEMTOSECOND, 20_000
    angle = STRETCH * outer
    rotation = np.array([[np.cos(angle), np.sin(angle) / STRETCH], [-STRETCH * np.sin(angle), np.cos(angle)]])
    kick, state, total = np.array([0.0, 0.5 * force * outer]), np.zeros(2), 0.0
    for _ in range(n):
        state = rotation @ (state + kick) + kick
        total += state[0]
    assert total / n / (force / STRETCH**2) == pytest.approx(steps.steady_stretch(STRETCH, 2.0), abs=1e-3)


def test_the_table_of_the_readme_is_the_one_that_is_computed(steps):
    text = (ROOT / "inputs" / "contraction" / "README.md").read_text(encoding="utf-8")
    assert "\n".join(steps.table()) in text
