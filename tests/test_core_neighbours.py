import numpy as np
import pytest
import vesin

from pidelta.core.neighbours import VerletLists, _Entry
from pidelta.core.pair_list import Exclusions, build_pair_list

TRICLINIC = np.array([[20.0, 0.0, 0.0], [-6.0, 18.0, 0.0], [6.0, -8.0, 19.0]])
NONE = np.empty((0, 2), dtype=np.int64)


def listed(pairs, positions, radius=np.inf):
    """Rows (i, j, distance) of the pairs within a radius, with i < j, sorted."""
    entry, bit = np.nonzero(pairs.masks[:, None] >> np.arange(16) & 1)
    segment = np.searchsorted(pairs.start, entry, side="right") - 1
    p, q = 4 * pairs.first[segment] + bit // 4, 4 * pairs.partners[entry] + bit % 4
    wrapped = positions[pairs.order] + pairs.offsets
    distance = np.linalg.norm(wrapped[q] + pairs.translations[segment] - wrapped[p], axis=1)
    near = distance < radius
    return canonical(pairs.order[p][near], pairs.order[q][near], distance[near])


def canonical(i, j, distance):
    low, high = np.minimum(i, j), np.maximum(i, j)
    order = np.lexsort((distance, high, low))
    return np.stack([low, high, distance], axis=1)[order]


@pytest.mark.parametrize("cell", [np.diag([20.0, 25.0, 31.0]), TRICLINIC, 0.3 * TRICLINIC], ids=str)
@pytest.mark.parametrize("radius", [3.0, 7.5])
def test_agrees_with_vesin_for_unwrapped_positions(cell, radius):
    positions = np.random.default_rng(0).uniform(-2.0, 3.0, (150, 3)) @ cell
    pairs = build_pair_list(positions, cell, radius, Exclusions(NONE, 150))
    i, j, d = vesin.NeighborList(cutoff=radius, full_list=False).compute(positions, cell, True, "ijd")
    distinct = i != j
    i, j = i.astype(np.int64), j.astype(np.int64)
    expected = canonical(i[distinct], j[distinct], d[distinct])
    assert len(expected) > 50
    np.testing.assert_allclose(listed(pairs, positions, radius), expected, atol=1e-10)


def test_excluded_pairs_are_left_out_in_all_images():
    rng = np.random.default_rng(1)
    cell = 0.4 * TRICLINIC
    positions = rng.uniform(size=(40, 3)) @ cell
    excluded = rng.integers(0, 40, (60, 2))
    everything = listed(build_pair_list(positions, cell, 6.0, Exclusions(NONE, 40)), positions, 6.0)
    rest = listed(build_pair_list(positions, cell, 6.0, Exclusions(excluded, 40)), positions, 6.0)
    forbidden = {tuple(sorted(pair)) for pair in excluded.tolist()}
    expected = [row for row in everything.tolist() if (int(row[0]), int(row[1])) not in forbidden]
    assert 0 < len(expected) < len(everything)
    np.testing.assert_allclose(rest, expected, atol=1e-12)


def test_without_cell_all_pairs_are_listed():
    positions = np.random.default_rng(2).normal(scale=1e3, size=(30, 3))
    pairs = build_pair_list(positions, None, 1.0, Exclusions(np.array([[3, 4]]), 30))
    assert len(listed(pairs, positions)) == 30 * 29 // 2 - 1
    assert not pairs.offsets.any()


@pytest.fixture
def lists():
    return VerletLists(5.0, 2.0, Exclusions(NONE, 100))


@pytest.fixture
def positions():
    return np.random.default_rng(3).uniform(size=(100, 3)) @ TRICLINIC


def test_a_list_is_reused_until_an_atom_moves_by_half_the_skin(lists, positions):
    first = lists.find(positions, TRICLINIC)
    moved = positions.copy()
    moved[:, 0] += 0.999
    assert lists.find(moved, TRICLINIC) is first
    moved[17, 0] += 0.002
    assert lists.find(moved, TRICLINIC) is not first


def test_a_reused_list_holds_all_pairs_within_the_cutoff(lists, positions):
    lists.find(positions, TRICLINIC)
    rng = np.random.default_rng(4)
    step = rng.normal(size=positions.shape)
    moved = positions + 0.99 * step / np.linalg.norm(step, axis=1)[:, None]
    reused = listed(lists.find(moved, TRICLINIC), moved, 5.0)
    fresh = listed(build_pair_list(moved, TRICLINIC, 5.0, Exclusions(NONE, 100)), moved, 5.0)
    assert len(fresh) > 100
    np.testing.assert_allclose(reused, fresh, atol=1e-10)


STRAIN = np.array([[0.98, 0.0, 0.01], [0.02, 1.01, 0.0], [0.0, -0.015, 0.99]])


def test_a_list_follows_the_cell(lists, positions):
    """As under a barostat: all pairs within the cutoff, at the right distances, in a strained cell."""
    first = lists.find(positions, TRICLINIC)
    rng = np.random.default_rng(5)
    step = rng.normal(size=positions.shape)
    moved = (positions + 0.85 * step / np.linalg.norm(step, axis=1)[:, None]) @ STRAIN
    cell = TRICLINIC @ STRAIN
    reused = lists.find(moved, cell)
    assert reused.partners is first.partners
    fresh = listed(build_pair_list(moved, cell, 5.0, Exclusions(NONE, 100)), moved, 5.0)
    assert len(fresh) > 100
    np.testing.assert_allclose(listed(reused, moved, 5.0), fresh, atol=1e-10)


def test_a_cell_that_shrinks_uses_up_the_skin(lists, positions):
    first = lists.find(positions, TRICLINIC)
    assert lists.find(0.715 * positions, 0.715 * TRICLINIC).partners is first.partners
    assert lists.find(0.714 * positions, 0.714 * TRICLINIC).partners is not first.partners


def test_lists_are_rebuilt_for_jumps_and_without_a_cell(lists, positions):
    first = lists.find(positions, TRICLINIC)
    jumped = positions.copy()
    jumped[5] += TRICLINIC[0]
    assert lists.find(jumped, TRICLINIC).partners is not first.partners
    assert lists.find(positions, 1.2 * TRICLINIC).partners is not first.partners
    assert lists.find(positions, None).partners is not first.partners


def test_beads_find_their_lists_in_any_slot(lists, positions):
    beads = [positions + 3.0 * k for k in range(4)]
    built = [lists.find(bead, TRICLINIC) for bead in beads]
    for k in (2, 0, 3, 1):
        assert lists.find(beads[k] + 0.1, TRICLINIC) is built[k]


def count_tries(monkeypatch):
    """A list that grows by one with each list that is tried."""
    tries, fits = [], _Entry.fits
    monkeypatch.setattr(_Entry, "fits", lambda *arguments: tries.append(1) or fits(*arguments))
    return tries


def test_a_long_run_tries_its_latest_list_first_and_forgets_old_ones(lists, positions, monkeypatch):
    monkeypatch.setattr("pidelta.core.neighbours.RECENT", 20)
    for k in range(100):
        lists.find(positions + 3.0 * k, TRICLINIC)
    tries = count_tries(monkeypatch)
    lists.find(positions + 297.1, TRICLINIC)
    assert len(tries) == 1
    lists.find(positions + 300.0, TRICLINIC)
    assert len(tries) <= 1 + 20


def test_a_batch_is_tried_in_the_order_of_the_last_one(lists, positions, monkeypatch):
    beads = np.array([positions + 3.0 * k for k in range(8)])
    lists.find_all(beads, 8 * [TRICLINIC])
    tries = count_tries(monkeypatch)
    lists.find_all(beads + 0.1, 8 * [TRICLINIC])
    assert len(tries) == 8


def test_old_lists_are_dropped_beyond_the_memory_limit(lists, positions, monkeypatch):
    monkeypatch.setattr("pidelta.core.neighbours.MEMORY", 0)
    lists.find_all([positions + 30.0, positions + 33.0], 2 * [TRICLINIC])
    built = [lists.find(positions + 3.0 * k, TRICLINIC) for k in range(3)]
    assert lists.find(positions + 6.0, TRICLINIC) is built[2]
    assert lists.find(positions + 3.0, TRICLINIC) is built[1]
    assert lists.find(positions, TRICLINIC) is not built[0]
