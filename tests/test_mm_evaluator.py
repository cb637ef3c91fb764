from __future__ import annotations

import numpy as np
import pytest

from mm_systems import (
    CUBIC,
    DATA,
    FORCE_FIELD,
    MIXED,
    TRICLINIC,
    acetamide_water,
    check_refused_geometries,
    mm_evaluator,
    scrambled,
    water_positions,
)
from pidelta.core.cell import minimum_image
from pidelta.errors import GeometryError, SetupError, TopologyError
from pidelta.mm.readers import read_topology
from pidelta.testing.evaluators import check_evaluator
from pidelta.testing.samples import Sample

CUTOFF = 11.5
SOLUTE = np.arange(9)


@pytest.fixture(scope="module")
def solution():
    return read_topology(DATA / "acetamide-water.top")


@pytest.fixture(scope="module")
def water():
    return read_topology(DATA / "water.top")


def batch(positions, n, scale=0.05, seed=0):
    return positions + np.random.default_rng(seed).normal(scale=scale, size=(n, *positions.shape))


def test_conformance_in_a_triclinic_cell(solution):
    evaluator = mm_evaluator(solution, cutoff=CUTOFF, cell=TRICLINIC)
    cells = np.stack([TRICLINIC, 1.01 * TRICLINIC])
    sample = Sample(batch(acetamide_water(), 2), cells, solution.residue_indices)
    check_evaluator(evaluator, sample, FORCE_FIELD)


def test_conformance_in_a_cubic_cell(water):
    evaluator = mm_evaluator(water, cutoff=CUTOFF, cell=CUBIC)
    positions = batch(water_positions(64, CUBIC, seed=2), 1)
    alike = np.arange(3), np.arange(60, 63)
    sample = Sample(positions, CUBIC[None], water.residue_indices, alike)
    check_evaluator(evaluator, sample, FORCE_FIELD)


@pytest.mark.parametrize(("name", "positions"), [("mixed.top", MIXED), ("acetamide-water.top", None)])
def test_conformance_without_cell(name, positions):
    topology = read_topology(DATA / name)
    evaluator = mm_evaluator(topology, cutoff=None)
    positions = acetamide_water() if positions is None else positions
    check_evaluator(evaluator, Sample(batch(positions, 2), None, topology.residue_indices), FORCE_FIELD)


def test_components_add_up_to_the_energy(solution):
    term = mm_evaluator(solution, cutoff=CUTOFF).evaluate(
        batch(acetamide_water(), 3), np.stack(3 * [TRICLINIC])
    )
    np.testing.assert_allclose(sum(term.components.values()), term.energy, rtol=1e-14)
    assert term.gradient.shape == (3, 189, 3)
    assert term.virial.shape == (3, 3, 3)


def test_results_do_not_depend_on_the_history_of_pair_lists(solution):
    rng = np.random.default_rng(3)
    used = mm_evaluator(solution, cutoff=CUTOFF)
    positions = acetamide_water()
    for _ in range(6):
        positions = positions + rng.normal(scale=0.25, size=positions.shape)
        fresh = mm_evaluator(solution, cutoff=CUTOFF)
        found, expected = (e.evaluate(positions[None], TRICLINIC[None]) for e in (used, fresh))
        np.testing.assert_allclose(found.energy, expected.energy, rtol=1e-12)
        np.testing.assert_allclose(found.gradient, expected.gradient, atol=1e-11)


def test_pair_energy_by_hand(water):
    """A molecule moves: its interaction with all others changes as the formulas say."""
    evaluator = mm_evaluator(water, cutoff=10.0, switch_distance=8.0)
    sigma6 = water.lj_c12[0, 0] / water.lj_c6[0, 0]
    epsilon = water.lj_c6[0, 0] / (4 * sigma6)
    positions = water_positions(64, CUBIC, seed=4)
    moved = positions.copy()
    moved[:3] += [0.3, -0.2, 0.1]
    found = evaluator.evaluate(np.stack([positions, moved]), np.stack([CUBIC, CUBIC]))
    expected = []
    for x in (positions, moved):
        r = np.linalg.norm(minimum_image(x[None, :3] - x[3:, None], CUBIC), axis=-1)
        qq = water.charges[None, :3] * water.charges[3:, None]
        coulomb = qq * (1 / r + r**2 / (2 * 10.0**3) - 3 / (2 * 10.0))
        oxygen = r[::3, 0]
        u = np.clip((oxygen - 8.0) / 2.0, 0, 1)
        lj = (
            4
            * epsilon
            * (sigma6**2 / oxygen**12 - sigma6 / oxygen**6)
            * (1 - u**3 * (10 - 15 * u + 6 * u**2))
        )
        expected.append([coulomb[r < 10.0].sum(), lj[oxygen < 10.0].sum()])
    np.testing.assert_allclose(
        np.diff(found.components["coulomb"]), np.diff(expected, axis=0)[:, 0], atol=1e-12
    )
    np.testing.assert_allclose(np.diff(found.components["lj"]), np.diff(expected, axis=0)[:, 1], atol=1e-12)


def test_without_internal_leaves_only_lennard_jones_with_the_surroundings(solution):
    """E(all) - E(without internal) is the solute alone plus its Coulomb interaction with the water."""
    positions = acetamide_water()
    reduced = solution.without_internal(SOLUTE)
    assert not reduced.charges[SOLUTE].any()
    np.testing.assert_array_equal(reduced.charges[9:], solution.charges[9:])
    full, rest = (
        mm_evaluator(topology, cutoff=CUTOFF).evaluate(
            scrambled(positions, TRICLINIC, 6)[None], TRICLINIC[None]
        )
        for topology in (solution, reduced)
    )
    difference = {name: full.components[name][0] - rest.components[name][0] for name in full.components}
    assert not rest.components["torsion"].any()
    assert not rest.components["lj14"].any()

    distance = np.linalg.norm(minimum_image(positions[9:, None] - positions[None, :9], TRICLINIC), axis=-1)
    qq = solution.charges[9:, None] * solution.charges[None, :9]
    coulomb = qq * (1 / distance + distance**2 / (2 * CUTOFF**3) - 3 / (2 * CUTOFF))
    inner = np.linalg.norm(positions[:9, None] - positions[None, :9], axis=-1)
    excluded = np.eye(9, dtype=bool)
    i, j = solution.exclusions[solution.exclusions[:, 1] < 9].T
    excluded[i, j] = excluded[j, i] = True
    # nothing is further than three bonds in acetamide but the ends H - C - C - N - H
    assert (~excluded).sum() == 2 * 6
    ci, cj = np.nonzero(np.triu(~excluded))
    r = inner[ci, cj]
    q = solution.charges
    ends_coulomb = q[ci] * q[cj] * (1 / r + r**2 / (2 * CUTOFF**3) - 3 / (2 * CUTOFF))
    kinds = solution.lj_types
    ends_lj = solution.lj_c12[kinds[ci], kinds[cj]] / r**12 - solution.lj_c6[kinds[ci], kinds[cj]] / r**6
    expected = coulomb[distance < CUTOFF].sum() + ends_coulomb.sum()
    assert difference["coulomb"] == pytest.approx(expected, abs=1e-11)
    assert difference["lj"] == pytest.approx(ends_lj.sum(), abs=1e-11)

    bonded = mm_evaluator(solution, cutoff=None).evaluate(positions[None], None).components
    for name in ("torsion", "lj14", "coulomb14"):
        assert difference[name] == pytest.approx(bonded[name][0], abs=1e-12)


def test_conformance_without_internal(solution):
    reduced = solution.without_internal(SOLUTE[::-1])
    evaluator = mm_evaluator(reduced, cutoff=CUTOFF, cell=TRICLINIC)
    sample = Sample(batch(acetamide_water(), 1), TRICLINIC[None], solution.residue_indices)
    check_evaluator(evaluator, sample, FORCE_FIELD)


def test_a_region_of_all_atoms_has_no_energy(solution):
    evaluator = mm_evaluator(solution.without_internal(np.arange(len(solution))), cutoff=CUTOFF)
    term = evaluator.evaluate(acetamide_water()[None], TRICLINIC[None])
    assert term.energy[0] == 0.0
    assert not term.gradient.any()


def test_taking_out_part_of_a_molecule_is_refused(solution):
    with pytest.raises(TopologyError, match=r"cuts the bond ACM1:C1 \(atom 0\) - ACM1:C \(atom 4\)"):
        solution.without_terms([0, 1, 2, 3])


def test_a_straight_angle_and_a_flat_dihedral_have_finite_forces():
    topology = read_topology(DATA / "mixed.top")
    positions = MIXED.copy()
    positions[:4] = [[0, 0, 0], [2.9, 0, 0], [5.8, 0, 0], [8.5, 0, 0]]
    term = mm_evaluator(topology, cutoff=None).evaluate(positions[None], None)
    assert np.isfinite(term.gradient).all()


def test_set_up_errors(water):
    with pytest.raises(SetupError, match=r"cutoff of 6.35 angstrom exceeds half .* 6.30 angstrom"):
        mm_evaluator(water, cutoff=12.0, cell=CUBIC)
    with pytest.raises(SetupError, match="needs a cutoff"):
        mm_evaluator(water, cutoff=None, cell=CUBIC)
    with pytest.raises(SetupError, match="three independent lattice vectors"):
        mm_evaluator(water, cutoff=5.0, cell=np.ones((3, 3)))
    with pytest.raises(SetupError, match=r"^electrostatics: .* found 'fmm'"):
        mm_evaluator(water, cutoff=5.0, electrostatics="fmm")
    with pytest.raises(SetupError, match=r"^ewald_tolerance: expected 1e-12 to 0.05, found 0.5"):
        mm_evaluator(water, cutoff=5.0, electrostatics="pme", ewald_tolerance=0.5)
    with pytest.raises(SetupError, match=r"^switch_distance: .* found 6.000 bohr"):
        mm_evaluator(water, cutoff=5.0, switch_distance=6.0)
    with pytest.raises(SetupError, match=r"expected at least 1, found 0\.5"):
        mm_evaluator(water, cutoff=5.0, reaction_field_dielectric=0.5)


def test_geometry_errors(water):
    evaluator = mm_evaluator(water, cutoff=CUTOFF)
    positions = np.stack(2 * [water_positions(64, CUBIC, seed=0)])
    cells = np.stack(2 * [CUBIC])
    with pytest.raises(GeometryError, match=r"expected shape \(B, 192, 3\), found \(2, 191, 3\)"):
        evaluator.evaluate(positions[:, 1:], cells)
    check_refused_geometries(evaluator, positions, cells)
    with pytest.raises(GeometryError, match="needs a cutoff"):
        mm_evaluator(water, cutoff=None).evaluate(positions, cells)


def test_plain_cutoff_is_a_reaction_field_of_dielectric_one(water):
    positions = water_positions(64, CUBIC, seed=0)[None]
    plain = mm_evaluator(water, cutoff=CUTOFF, electrostatics="cutoff").evaluate(positions, CUBIC[None])
    field = mm_evaluator(water, cutoff=CUTOFF, reaction_field_dielectric=1.0).evaluate(positions, CUBIC[None])
    np.testing.assert_array_equal(plain.energy, field.energy)
