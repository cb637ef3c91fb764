"""The device of the built-in engine, as far as it can be tested without a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import molecule

from dftb_sets import make_engine
from pidelta.errors import SetupError
from pidelta.qm.dftb import sets
from pidelta.units import ANGSTROM


def make(atoms, **settings):
    files = sets.builtin_set()[3]
    return make_engine(
        atoms.numbers.astype(np.int64),
        files.parameters(set(atoms.symbols)),
        order=3,
        hubbard_derivatives=files.description.hubbard_derivatives,
        damping_exponent=files.description.damping_exponent,
        **settings,
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"electronic_temperature": 0.02, "shell_resolved": True},
        {"charge": 1, "multiplicity": 2, "spin_constants": dict.fromkeys("HCS", -0.03)},
    ],
)
def test_every_tensor_is_made_on_the_device_of_the_engine(settings):
    """A tensor made without a device would land on `meta` here, and calculations with it would fail."""
    atoms = molecule("CH3SCH3")
    positions = np.repeat(atoms.positions[None] * ANGSTROM, 2, axis=0)
    positions[1] *= 1.02
    potential = np.full(positions.shape[:2], 0.01)
    correction = np.full((2, len(atoms), len(atoms)), 0.001)
    expected = make(atoms, **settings).evaluate(positions, potential, correction)
    with torch.device("meta"):
        engine = make(atoms, **settings)
        for _ in range(2):
            found = engine.evaluate(positions, potential, correction)
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=0, atol=1e-7)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_cuda_is_refused():
    with pytest.raises(SetupError, match=r"device: expected a GPU that torch .* can use, found none"):
        make(molecule("H2O"), device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_agrees_with_the_cpu():
    atoms = molecule("CH3SCH3")
    positions = atoms.positions[None] * ANGSTROM
    potential = np.full(positions.shape[:2], 0.01)
    expected = make(atoms).evaluate(positions, potential)
    found = make(atoms, device="cuda").evaluate(positions, potential)
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=0, atol=1e-8)
