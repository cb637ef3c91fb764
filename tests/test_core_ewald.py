from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from pidelta.core.cell import heights, wrapping_shifts
from pidelta.core.ewald import (
    EwaldSum,
    excluded_pairs,
    self_and_background,
    smooth_part,
    splitting,
)
from pidelta.core.pme import ParticleMeshEwald, grid_for

TRICLINIC = np.array([[14.0, 0.0, 0.0], [-4.0, 13.5, 0.0], [3.5, -5.0, 13.0]])
CUBIC = 15.0 * np.eye(3)
NONE = np.zeros((0, 2), dtype=np.int64)


def direct_sum(positions, charges, cell, alpha, cutoff):
    """The part of the sum in real space by a plain loop over images: a reference, and slow."""
    positions = positions + wrapping_shifts(positions, cell)
    reach = np.ceil(cutoff / heights(cell)).astype(int)
    images = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1).reshape(-1, 3)
    energy = 0.0
    for image in images:
        r = np.linalg.norm(positions[None] + image @ cell - positions[:, None], axis=-1)
        near = (r < cutoff) & (r > 0.0)
        energy += 0.5 * (np.outer(charges, charges)[near] * special.erfc(alpha * r[near]) / r[near]).sum()
    return energy


def whole_energy(reciprocal, positions, charges, cell, cutoff):
    parts = reciprocal.evaluate(positions, charges, cell) + self_and_background(
        charges, reciprocal.alpha, cell
    )
    return parts.energy + direct_sum(positions, charges, cell, reciprocal.alpha, cutoff)


def random_charges(seed, net=0.0, n=40):
    rng = np.random.default_rng(seed)
    charges = rng.normal(size=n)
    return rng.uniform(-1.0, 2.0, (n, 3)), charges - charges.mean() + net / n


@pytest.mark.parametrize(
    ("name", "madelung", "cell", "positions", "charges", "neighbour"),
    [
        # Crandall, Delord, J. Phys. A 20, 2279 (1987); CsCl from the same series of constants
        (
            "NaCl",
            1.7475645946331822,
            2.0 * np.eye(3),
            np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), -1).reshape(-1, 3).astype(float),
            np.array([1, -1, -1, 1, -1, 1, 1, -1.0]),
            1.0,
        ),
        (
            "CsCl",
            1.76267477307099,
            np.eye(3),
            np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]),
            np.array([1.0, -1.0]),
            np.sqrt(0.75),
        ),
        (  # the primitive cell, skewed
            "NaCl",
            1.7475645946331822,
            np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]),
            np.array([[0.0, 0, 0], [1.0, 0, 0]]),
            np.array([1.0, -1.0]),
            1.0,
        ),
    ],
)
@pytest.mark.parametrize("method", ["ewald", "pme"])
def test_madelung_constants(name, madelung, cell, positions, charges, neighbour, method):
    alpha, cutoff = 3.0, 2.2
    reciprocal = EwaldSum(alpha, 1e-17) if method == "ewald" else ParticleMeshEwald(alpha, (60, 60, 60))
    energy = whole_energy(reciprocal, positions, charges, cell, cutoff)
    pairs = len(charges) / 2
    assert -energy / pairs * neighbour == pytest.approx(madelung, abs=1e-12 if method == "ewald" else 2e-6)


@pytest.mark.parametrize("net", [0.0, 1.7])
def test_the_energy_does_not_depend_on_the_splitting(net):
    fractional, charges = random_charges(0, net)
    positions = fractional @ TRICLINIC
    energies = [
        whole_energy(EwaldSum(alpha, 1e-16), positions, charges, TRICLINIC, 6.0 / alpha)
        for alpha in (0.35, 0.5, 0.7)
    ]
    np.testing.assert_allclose(energies, energies[0], atol=1e-11)


@pytest.mark.parametrize("cell", [CUBIC, TRICLINIC], ids=["cubic", "triclinic"])
@pytest.mark.parametrize("net", [0.0, 1.7])
def test_mesh_agrees_with_the_plain_sum(cell, net):
    fractional, charges = random_charges(1, net)
    positions, alpha = fractional @ cell, 0.4
    plain = EwaldSum(alpha, 1e-16).evaluate(positions, charges, cell)
    for points, tolerance in ((24, 1e-3), (48, 4e-5), (75, 5e-6)):
        mesh = ParticleMeshEwald(alpha, (points, points + 1, points)).evaluate(positions, charges, cell)
        assert mesh.energy == pytest.approx(plain.energy, abs=tolerance)
        for name in ("potential", "gradient"):
            np.testing.assert_allclose(getattr(mesh, name), getattr(plain, name), atol=tolerance)
        np.testing.assert_allclose(mesh.strain, plain.strain, atol=10 * tolerance)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-4, 1e-5])
def test_the_tolerance_bounds_the_error_of_mesh_forces(tolerance):
    fractional, charges = random_charges(2, n=100)
    positions, alpha = fractional @ TRICLINIC, splitting(6.0, tolerance)
    exact = EwaldSum(alpha, 1e-16).evaluate(positions, charges, TRICLINIC).gradient
    grid = grid_for(TRICLINIC, alpha, tolerance)
    found = ParticleMeshEwald(alpha, grid).evaluate(positions, charges, TRICLINIC).gradient
    assert np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)) < tolerance


def both_methods():
    return [EwaldSum(0.4, 1e-8), ParticleMeshEwald(0.4, (16, 15, 18))]


@pytest.mark.parametrize("method", both_methods(), ids=["ewald", "pme"])
def test_derivatives_are_those_of_the_energy(method):
    """Also on a coarse grid, where the energy itself is rough."""
    fractional, charges = random_charges(3, net=0.5)
    positions = fractional @ TRICLINIC
    pairs = np.array([[0, 1], [0, 2], [5, 9]])

    def parts(x, q, cell):
        return (
            method.evaluate(x, q, cell)
            + self_and_background(q, method.alpha, cell)
            + excluded_pairs(x, q, cell, method.alpha, pairs)
        )

    def difference(function, step):
        return (function(step) - function(-step)) / (2 * step)

    found = parts(positions, charges, TRICLINIC)
    for atom, axis in ((0, 0), (1, 1), (17, 2)):

        def moved(step, atom=atom, axis=axis):
            x = positions.copy()
            x[atom, axis] += step
            return parts(x, charges, TRICLINIC).energy

        def charged(step, atom=atom):
            q = charges.copy()
            q[atom] += step
            return parts(positions, q, TRICLINIC).energy

        assert found.gradient[atom, axis] == pytest.approx(difference(moved, 1e-4), abs=1e-7)
        assert found.potential[atom] == pytest.approx(difference(charged, 1e-4), abs=1e-9)
    for a, b in np.ndindex(3, 3):

        def strained(step, a=a, b=b):
            deformation = np.eye(3)
            deformation[b, a] += step
            return parts(positions @ deformation, charges, TRICLINIC @ deformation).energy

        assert found.strain[a, b] == pytest.approx(difference(strained, 1e-5), abs=2e-8)


@pytest.mark.parametrize("method", both_methods(), ids=["ewald", "pme"])
def test_lattice_vectors_change_nothing(method):
    fractional, charges = random_charges(4)
    images = np.random.default_rng(5).integers(-3, 4, fractional.shape)
    here, there = (
        method.evaluate(x @ TRICLINIC, charges, TRICLINIC) for x in (fractional, fractional + images)
    )
    for name in ("energy", "potential", "gradient", "strain"):
        np.testing.assert_allclose(getattr(here, name), getattr(there, name), atol=1e-11)


def test_another_basis_of_the_lattice_changes_nothing():
    fractional, charges = random_charges(6)
    other = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]]) @ TRICLINIC
    positions = fractional @ TRICLINIC
    plain, skewed = (EwaldSum(0.4, 1e-15).evaluate(positions, charges, c) for c in (TRICLINIC, other))
    assert plain.energy == pytest.approx(skewed.energy, abs=1e-11)
    np.testing.assert_allclose(plain.gradient, skewed.gradient, atol=1e-11)
    mirrored = EwaldSum(0.4, 1e-15).evaluate(positions, charges, TRICLINIC[::-1])
    np.testing.assert_allclose(plain.strain, mirrored.strain, atol=1e-11)


def test_the_potential_is_that_of_a_probe():
    """The charges of some sites are zero: what they feel is the others' potential."""
    fractional, charges = random_charges(7)
    positions = fractional @ TRICLINIC
    charges[:3] = 0.0
    method = EwaldSum(0.5, 1e-15)
    with_probe = charges.copy()
    with_probe[1] = 1e-4
    before, after = (method.evaluate(positions, q, TRICLINIC).energy for q in (charges, with_probe))
    potential = method.evaluate(positions, charges, TRICLINIC).potential[1]
    own = method.evaluate(positions[1:2], np.ones(1), TRICLINIC).energy
    assert after - before == pytest.approx(1e-4 * potential + 1e-8 * own, abs=1e-13)


@pytest.mark.parametrize("tolerance", [0.05, 5e-4, 1e-6, 1e-10])
def test_polynomial_of_the_smooth_part(tolerance):
    alpha = splitting(20.0, tolerance)
    r = np.linspace(1e-3, 20.0, 2001)
    coefficients = smooth_part(alpha, 20.0)
    found = np.polynomial.polynomial.polyval(2.0 * (r / 20.0) ** 2 - 1.0, coefficients)
    np.testing.assert_allclose(1.0 / r + found, special.erfc(alpha * r) / r, atol=2e-12)
    slope = np.polynomial.polynomial.polyder(coefficients)
    slope = np.polynomial.polynomial.polyval(2.0 * (r / 20.0) ** 2 - 1.0, slope) * 4.0 * r / 400.0
    gaussian = 2.0 * alpha / np.sqrt(np.pi) * np.exp(-((alpha * r) ** 2))
    expected = -(special.erfc(alpha * r) / r + gaussian) / r
    np.testing.assert_allclose(slope - 1.0 / r**2, expected, atol=1e-9, rtol=1e-10)


def test_excluded_pairs_at_any_distance():
    """Down to a virtual site on its atom, where erf(x)/x must be expanded."""
    charges, alpha = np.array([0.7, -1.1]), 0.3
    for r in (1e-9, 1e-3, 0.02, 0.033, 0.034, 1.0, 6.0):
        positions = np.array([[0.0, 0.0, 0.0], [r, 0.0, 0.0]])
        found = excluded_pairs(positions, charges, CUBIC, alpha, np.array([[0, 1]]))
        x = alpha * r
        assert found.energy == pytest.approx(0.77 * special.erf(x) / r, rel=1e-12)
        series = -(x**2) * alpha / np.sqrt(np.pi) * (4 / 3 - 4 / 5 * x**2 + 2 / 7 * x**4) / r
        closed = (2 * alpha / np.sqrt(np.pi) * np.exp(-(x**2)) - special.erf(x) / r) / r
        slope = series if x < 0.05 else closed
        assert found.gradient[1, 0] == pytest.approx(0.77 * slope, rel=2e-8)
        assert found.gradient[0, 0] == -found.gradient[1, 0]
    # the nearest image counts, and no other
    shifted = positions + np.array([[0, 0, 0], [3, -1, 0]]) @ CUBIC
    assert excluded_pairs(shifted, charges, CUBIC, alpha, np.array([[0, 1]])).energy == pytest.approx(
        found.energy, rel=1e-12
    )


def sums(cell):
    return EwaldSum(0.4, 1e-14), ParticleMeshEwald(0.4, grid_for(cell, 0.4, 1e-4))


@pytest.mark.parametrize("cell", [CUBIC, TRICLINIC], ids=["cubic", "triclinic"])
@pytest.mark.parametrize("method", [0, 1], ids=["ewald", "pme"])
def test_fields_and_kernel_are_parts_of_the_whole_sum(cell, method):
    reciprocal = sums(cell)[method]
    fractional, charges = random_charges(3, net=0.7)
    positions = fractional @ cell
    whole = reciprocal.evaluate(positions, charges, cell)
    here, there = slice(0, 7), slice(7, None)
    near, far = (reciprocal.field(positions[part], charges[part], cell) for part in (here, there))
    near_here, near_here_slope = near.at(positions[here])
    near_there, near_there_slope = near.at(positions[there])
    far_here, far_here_slope = far.at(positions[here])
    far_there, far_there_slope = far.at(positions[there])

    for found, expected in zip(near.at_charges_of(far), near.at(positions[there]), strict=True):
        np.testing.assert_array_equal(found, expected)
    kernel = reciprocal.kernel(positions[here], cell)
    np.testing.assert_allclose(kernel @ charges[here], near_here, atol=1e-13)
    np.testing.assert_allclose(near_here + far_here, whole.potential[here], atol=1e-13)
    np.testing.assert_allclose(near_there + far_there, whole.potential[there], atol=1e-13)
    slopes = np.concatenate([near_here_slope + far_here_slope, near_there_slope + far_there_slope])
    np.testing.assert_allclose(charges[:, None] * slopes, whole.gradient, atol=1e-13)
    np.testing.assert_allclose(near.strain(far) + far.strain(), whole.strain, atol=1e-12)


def test_the_plain_sum_has_no_steps_as_the_cell_changes():
    """Vectors come and go; the energy is the integral of its slope, by Simpson's rule, all the same."""
    positions, charges = random_charges(0, 0.0)
    method, scales = EwaldSum(0.45, 1e-4), np.linspace(0.95, 1.05, 401)
    fractional = positions @ np.linalg.inv(TRICLINIC)
    found = [method.evaluate(fractional @ (s * TRICLINIC), charges, s * TRICLINIC) for s in scales]
    energies = np.array([each.energy for each in found])
    slopes = np.array([np.trace(each.strain) for each in found]) / scales
    step = scales[1] - scales[0]
    integrals = (slopes[:-2:2] + 4.0 * slopes[1:-1:2] + slopes[2::2]) * step / 3.0
    np.testing.assert_allclose(np.diff(energies[::2]), integrals, rtol=0, atol=1e-9)
