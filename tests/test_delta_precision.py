"""Delta models whose networks are evaluated in float32: conformance, how far they differ, and NVE."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from delta_frames import random_frame, random_model, random_response
from pidelta.config import DeltaConfig
from pidelta.delta.committee import Committee
from pidelta.delta.loading import load_correction
from pidelta.testing import corrections
from pidelta.units import FEMTOSECOND

EPSILON = float(np.finfo(np.float32).eps)
MASSES = np.array([16.0, 12.0, 1.0, 1.0])[:, None] * 1822.9
SPRING = 0.5  # hartree/bohr^2, of each atom to where it began
STEPS, TIME_STEP = 200, 0.25 * FEMTOSECOND
KINDS = [random_model, random_response]


def single(made, seed=0):
    model = made(seed)
    model.dtype = torch.float32
    return model


@pytest.mark.parametrize("made", KINDS)
def test_conformance(made):
    corrections.check_single_precision(single(made), random_frame(0))
    corrections.check_single_precision(Committee([single(made, seed) for seed in range(3)]), random_frame(1))


def test_conformance_finds_a_wrong_gradient():
    class Wrong:
        properties = ("delta_extrapolation",)

        def evaluate(self, *arguments):
            result = single(random_model).evaluate(*arguments)
            wrong = replace(result.gradient, positions=1.003 * result.gradient.positions)
            return replace(result, gradient=wrong)

    with pytest.raises(AssertionError, match="positions: deviates"):
        corrections.check_single_precision(Wrong(), random_frame(0))


@pytest.mark.parametrize("made", KINDS)
def test_a_file_is_evaluated_in_the_precision_that_is_asked_for(made, tmp_path):
    """It differs from float64, by no more than the rounding of a thousand numbers; its file is the same."""
    original, region = made(3), random_frame(5).region
    original.save(tmp_path / "m.pt")
    results = {}
    for precision in ("float64", "float32"):
        model = load_correction(tmp_path / "m.pt", precision)
        results[precision] = model.evaluate(region)
        model.save(tmp_path / f"{precision}.pt")
        assert (tmp_path / f"{precision}.pt").read_bytes() == (tmp_path / "m.pt").read_bytes()
    exact, found = results["float64"], results["float32"]
    np.testing.assert_array_equal(exact.energy, original.evaluate(region).energy)
    for one, other in (
        (exact.energy, found.energy),
        (exact.gradient.positions, found.gradient.positions),
        (exact.gradient.site_positions, found.gradient.site_positions),
    ):
        assert other.dtype == np.float64
        assert 0.0 < np.abs(one - other).max() < 32.0 * EPSILON * np.abs(one).max()


@pytest.mark.parametrize("made", KINDS)
def test_a_constant_of_hundreds_of_hartree_costs_no_digits(made):
    """It is added in float64."""
    region, found = random_frame(2).region, []
    for constant in (0.0, 1000.0):
        models = made(0), single(made)
        for model in models:
            model.networks.baseline += constant
        exact, rounded = (model.evaluate(region).energy[0] for model in models)
        found.append(rounded - exact)
    assert found[1] == pytest.approx(found[0], abs=1e-10)
    assert exact > 3900.0


def test_the_precision_is_a_key_of_the_section_delta():
    assert DeltaConfig(models=["a.pt"]).precision == "float64"
    assert DeltaConfig(models=["a.pt"], precision="float32").precision == "float32"
    with pytest.raises(ValueError, match="float64"):
        DeltaConfig(models=["a.pt"], precision="float16")


def conserved(model, scale=1.0):
    """The energy (STEPS,) of formaldehyde on springs with a model, whose forces are multiplied by `scale`."""
    frame = random_frame(4)
    start = frame.positions
    x, velocities = start.copy(), np.random.default_rng(1).normal(0.0, 0.04, start.shape) / np.sqrt(MASSES)
    energies = []

    def function():
        result = model.evaluate(replace(frame, positions=x).region)
        energy = 0.5 * SPRING * ((x - start) ** 2).sum() + float(result.energy[0])
        return energy, SPRING * (x - start) + scale * result.gradient.positions[0]

    energy, gradient = function()
    for _ in range(STEPS):
        velocities -= 0.5 * TIME_STEP * gradient / MASSES
        x = x + TIME_STEP * velocities
        energy, gradient = function()
        velocities -= 0.5 * TIME_STEP * gradient / MASSES
        energies.append(energy + 0.5 * float((MASSES * velocities**2).sum()))
    return np.array(energies)


@pytest.mark.parametrize("made", KINDS)
def test_dynamics_conserves_energy_as_in_float64(made):
    """0.05 ps: what float32 adds is far below what the time step does, and a force that is 1 % off is not."""
    exact = conserved(made(0))
    allowed = 0.01 * np.ptp(exact)
    assert abs(np.ptp(conserved(single(made))) - np.ptp(exact)) < allowed
    assert abs(np.ptp(conserved(single(made), 1.01)) - np.ptp(exact)) > allowed
