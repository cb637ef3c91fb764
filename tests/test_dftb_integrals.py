"""Interpolation of Slater-Koster tables and their rotation, without published sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import BarycentricInterpolator
from scipy.special import eval_legendre

from pidelta.qm.dftb.basis import build_basis
from pidelta.qm.dftb.harmonics import gradient_products, harmonics, pullback
from pidelta.qm.dftb.integrals import PairGeometry, SlaterKosterIntegrals
from pidelta.qm.dftb.interpolation import segment_coefficients, set_tail
from pidelta.qm.dftb.parameters import ElementParameters, ParameterSet
from pidelta.qm.dftb.repulsive import polynomial_repulsive
from pidelta.qm.dftb.skf import INTEGRALS, SlaterKosterFile

SPACING, ROWS = 0.2, 40
RANGE = SPACING * ROWS


def polynomial(coefficients, table_row, t):
    return np.polynomial.polynomial.polyval(t, coefficients[table_row])


def test_segments_interpolate_the_eight_nearest_points():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(ROWS, 3))
    coefficients = segment_coefficients(table)
    for segment, first in ((0, 1), (3, 1), (4, 1), (5, 2), (20, 17), (35, 32), (37, 33), (39, 33)):
        nodes = np.arange(first, first + 8)
        expected = BarycentricInterpolator(nodes, table[nodes - 1])(segment + 0.3)
        np.testing.assert_allclose(polynomial(coefficients, segment, 0.3), expected, rtol=1e-9, atol=1e-9)


def test_tail_is_smooth_and_ends_in_zero():
    r = SPACING * np.arange(1, ROWS + 1)
    coefficients = segment_coefficients(np.exp(-0.3 * r)[:, None])
    set_tail(coefficients, SPACING)
    tail = np.polynomial.Polynomial(coefficients[-2, :, 0])
    for order in range(3):
        start = tail.deriv(order)(0.0) if order else tail(0.0)
        end = tail.deriv(order)(1.0) if order else tail(1.0)
        assert start == pytest.approx((-0.3) ** order * np.exp(-0.3 * RANGE), rel=1e-5)
        assert end == pytest.approx(0.0, abs=1e-12)
    assert not coefficients[-1].any()


def random_directions(number):
    vectors = np.random.default_rng(1).normal(size=(number, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_harmonics_obey_the_addition_theorem():
    """sum_m Y_lm(n) Y_lm(n') = P_l(n.n') holds for a complete orthogonal set of the right norm only."""
    directions = random_directions(6)
    values = harmonics(directions, 2)
    for shell, part in enumerate((values[:, :1], values[:, 1:4], values[:, 4:])):
        expected = eval_legendre(shell, directions @ directions.T)
        np.testing.assert_allclose(part @ part.T, expected, atol=1e-14)


def test_products_of_gradients():
    directions = random_directions(4)
    gradients = pullback(np.repeat(directions, 9, axis=0), np.tile(np.eye(9), (4, 1))).reshape(4, 9, 3)
    found = np.zeros((4, 9, 9))
    values = harmonics(directions, 2)
    for (a, b), expansion in gradient_products(2).items():
        found[:, a, b] = sum(factor * values[:, c] for c, factor in expansion.items())
    np.testing.assert_allclose(found, gradients @ gradients.transpose(0, 2, 1), rtol=0, atol=1e-14)


def random_set():
    """Random smooth tables of two elements with d orbitals: Ar and S stand for any."""
    rng = np.random.default_rng(2)
    r = SPACING * np.arange(1, ROWS + 1)[:, None]

    def table():
        return rng.normal(size=10) * np.exp(-0.5 * r) * np.cos(r + rng.normal(size=10))

    pairs = {
        (first, second): SlaterKosterFile(SPACING, table(), table(), polynomial_repulsive([0.0] * 8, 0.0))
        for first in ("S", "Ar")
        for second in ("S", "Ar")
    }
    elements = {
        symbol: ElementParameters(rng.normal(size=3), np.full(3, 0.3), np.array([2.0, 4.0, 0.0]))
        for symbol in ("S", "Ar")
    }
    return ParameterSet("random", "random:0", elements, pairs)


def evaluate(integrals, vector):
    vector = np.reshape(vector, (1, 1, 3))
    distance = np.linalg.norm(vector, axis=-1)
    geometry = PairGeometry(distance, vector / distance[..., None])
    return geometry, integrals.evaluate(geometry)


def test_block_along_z_is_the_table():
    """Along z the block is diagonal in m: sigma for m = 0, pi and delta for pairs of the others."""
    parameters = random_set()
    integrals = SlaterKosterIntegrals(
        build_basis(np.array([16, 18]), parameters), parameters, torch.device("cpu")
    )
    row = 9
    _, matrices = evaluate(integrals, [0.0, 0.0, SPACING * (row + 1)])
    for matrix, name in ((matrices.hamiltonian, "hamiltonian"), (matrices.overlap, "overlap")):
        block = np.zeros((9, 9))
        # Harmonics with |m| = 0, 1, 2 of each l; the second index tells cosine from sine.
        of_m = {0: {0: [0], 1: [3], 2: [6]}, 1: {1: [1, 2], 2: [7, 5]}, 2: {2: [4, 8]}}
        for (l1, l2, m), forward, backward in zip(
            INTEGRALS,
            getattr(parameters.pairs["S", "Ar"], name)[row],
            getattr(parameters.pairs["Ar", "S"], name)[row],
            strict=True,
        ):
            for a, b in zip(of_m[m][l1], of_m[m][l2], strict=True):
                block[a, b] = forward
                if l1 != l2:
                    block[b, a] = (-1.0) ** (l1 + l2) * backward
        np.testing.assert_allclose(matrix[0, :9, 9:], block, atol=1e-12)
        np.testing.assert_array_equal(matrix[0], matrix[0].T)


def test_rotation_turns_the_block():
    """Eigenvalues of H in the metric of S do not depend on the direction."""
    parameters = random_set()
    integrals = SlaterKosterIntegrals(
        build_basis(np.array([16, 18]), parameters), parameters, torch.device("cpu")
    )
    _, reference = evaluate(integrals, [0.0, 0.0, 5.1])
    _, turned = evaluate(integrals, 5.1 * random_directions(1))
    for name in ("hamiltonian", "overlap"):
        expected = torch.linalg.eigvalsh(getattr(reference, name))
        torch.testing.assert_close(torch.linalg.eigvalsh(getattr(turned, name)), expected)


@pytest.mark.parametrize("length", [1.3, 7.9, RANGE + 0.4, RANGE + 1.5])
def test_gradient_is_the_derivative(length):
    parameters = random_set()
    integrals = SlaterKosterIntegrals(
        build_basis(np.array([18, 16]), parameters), parameters, torch.device("cpu")
    )
    vector = length * random_directions(1)[0]
    rng = np.random.default_rng(3)
    weights = torch.tensor(rng.normal(size=(2, 1, 18, 18)))
    weights = weights + weights.mT

    def energy(displaced):
        _, matrices = evaluate(integrals, displaced)
        return float((weights[0] * matrices.hamiltonian + weights[1] * matrices.overlap).sum())

    geometry, matrices = evaluate(integrals, vector)
    found = integrals.gradient(geometry, matrices, weights[0], weights[1])[0, 0]
    numerical = [(energy(vector + h) - energy(vector - h)) / 2e-5 for h in 1e-5 * np.eye(3)]
    np.testing.assert_allclose(found, numerical, atol=1e-8)
