from functools import partial

import numpy as np
import pytest

from pidelta.core.cell import heights, is_cell, minimum_image, usable, wrapping_shifts
from pidelta.errors import GeometryError

POINTS = np.array([[1.0, 2.0, 3.0], [-4.0, 5.0, 6.0]])

CELLS = {
    "orthorhombic": np.diag([7.0, 9.0, 11.0]),
    "triclinic": np.array([[9.0, 0.0, 0.0], [-4.0, 8.0, 0.0], [3.0, -3.5, 7.5]]),
    "skewed, left-handed": np.array([[0.0, 8.0, 1.0], [9.0, 7.0, 0.0], [1.0, 9.0, 9.0]]),
}


@pytest.fixture(params=CELLS.values(), ids=CELLS.keys())
def cell(request):
    return request.param


def test_heights_are_distances_between_faces(cell):
    normals = np.array([np.cross(cell[1], cell[2]), np.cross(cell[2], cell[0]), np.cross(cell[0], cell[1])])
    expected = abs(np.linalg.det(cell)) / np.linalg.norm(normals, axis=1)
    np.testing.assert_allclose(heights(cell), expected, rtol=1e-13)
    np.testing.assert_allclose(heights(np.stack([cell, 2 * cell])), [expected, 2 * expected], rtol=1e-13)


def test_minimum_image_is_the_shortest_within_half_a_height(cell):
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(500, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    short = directions * rng.uniform(0, 0.4999 * heights(cell).min(), (500, 1))
    shifted = short + rng.integers(-4, 5, (500, 3)) @ cell
    np.testing.assert_allclose(minimum_image(shifted, cell), short, atol=1e-12)


def test_minimum_image_without_cell_changes_nothing():
    vectors = np.random.default_rng(0).normal(size=(4, 3))
    np.testing.assert_array_equal(minimum_image(vectors, None), vectors)


def test_wrapping_moves_by_lattice_vectors_into_the_cell(cell):
    positions = np.random.default_rng(1).normal(scale=30.0, size=(200, 3))
    shifts = wrapping_shifts(positions, cell)
    multiples = shifts @ np.linalg.inv(cell)
    np.testing.assert_allclose(multiples, np.rint(multiples), atol=1e-12)
    fractional = (positions + shifts) @ np.linalg.inv(cell)
    assert fractional.min() > -1e-12
    assert fractional.max() < 1 + 1e-12


SINGULAR = (
    np.zeros((3, 3)),
    np.array([[9.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 9.0]]),
    np.array([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [9.0, 9.0, 1e-12]]),
    np.diag([9.0, 9.0, np.nan]),
    np.diag([9.0, 9.0, np.inf]),
    np.diag([9.0, 9.0, 1e300]),
)


@pytest.mark.parametrize("cell", SINGULAR)
def test_cells_that_are_none(cell):
    assert not is_cell(cell)
    for use in (heights, partial(wrapping_shifts, POINTS), partial(minimum_image, POINTS)):
        with pytest.raises(GeometryError, match="expected a cell of three independent lattice vectors"):
            use(cell)


def test_small_and_large_cells():
    assert is_cell(np.stack([np.eye(3), 0.01 * np.eye(3), 1e5 * np.eye(3)])).all()


def test_usable_positions():
    points = np.array([[1.0, -1e7, 0.0], [0.0, 0.0, 1e300], [np.nan, 0.0, 0.0], [0.0, -np.inf, 0.0]])
    assert usable(points).tolist() == [True, False, False, False]
