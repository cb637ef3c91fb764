"""Minima and frequencies of the quality report, on functions whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from ase.data import atomic_masses

from minima import HARTREE_IN_WAVENUMBER, frequencies, minimise, symmetriser
from pidelta.units import DALTON_IN_ELECTRON_MASS

CONSTANT, LENGTH = 0.4, 2.5
PAIRS = [(0, 1), (0, 2), (1, 2)]
TRIANGLE = LENGTH * np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, np.sqrt(0.75), 0.0]])


def springs(positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Three atoms held by equal springs."""
    energy, gradient = 0.0, np.zeros_like(positions)
    for i, j in PAIRS:
        vector = positions[j] - positions[i]
        distance = np.linalg.norm(vector)
        energy += 0.5 * CONSTANT * (distance - LENGTH) ** 2
        pull = CONSTANT * (distance - LENGTH) * vector / distance
        gradient[j] += pull
        gradient[i] -= pull
    return float(energy), gradient


def hessian(positions: np.ndarray) -> np.ndarray:
    moves = 1e-4 * np.eye(9).reshape(9, 3, 3)
    return np.array([(springs(positions + m)[1] - springs(positions - m)[1]).ravel() / 2e-4 for m in moves])


@pytest.mark.parametrize("renew", [None, hessian], ids=["bfgs", "newton"])
def test_minimum_of_springs(renew) -> None:
    start = TRIANGLE + np.random.default_rng(0).normal(scale=0.15, size=(3, 3))
    found = minimise(springs, start, hessian(start), 1e-6, renew=renew)
    distances = [np.linalg.norm(found.positions[i] - found.positions[j]) for i, j in PAIRS]
    np.testing.assert_allclose(distances, LENGTH, atol=1e-5)
    assert found.energy == pytest.approx(0.0, abs=1e-9)


def test_last_step_comes_with_its_energy() -> None:
    start = TRIANGLE.copy()
    start[1, 0] += 0.05
    found = minimise(springs, start, hessian(TRIANGLE), largest_force=1.0)
    assert found.gradients == 1
    assert abs(found.energy) < 0.1 * springs(start)[0]
    assert springs(found.positions)[0] < 0.1 * springs(start)[0]


def test_frequencies_of_a_triangle() -> None:
    # Three equal masses and springs: breathing 3 k / m, and a degenerate pair of 3 k / (2 m).
    mass = atomic_masses[6] * DALTON_IN_ELECTRON_MASS
    expected = HARTREE_IN_WAVENUMBER * np.sqrt(CONSTANT / mass * np.array([1.5, 1.5, 3.0]))
    found = frequencies(hessian(TRIANGLE), np.array([6, 6, 6]), TRIANGLE)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_symmetriser_makes_a_rotation_a_symmetry() -> None:
    # Exchange of atoms 0 and 1 of a triangle makes it isosceles.
    project = symmetriser(np.array([1, 0, 2]))
    skewed = TRIANGLE + np.random.default_rng(1).normal(scale=0.1, size=(3, 3))
    isosceles = project(skewed)
    first, second = (np.linalg.norm(isosceles[k] - isosceles[2]) for k in (0, 1))
    assert first == pytest.approx(second, abs=2e-3)
    np.testing.assert_allclose(project(project(isosceles)), project(isosceles), atol=1e-6)
