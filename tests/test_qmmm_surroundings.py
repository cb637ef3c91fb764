"""Surroundings and their coupling: conformance, a hand-made sum over images, and what is refused."""

import numpy as np
import pytest

from mm_systems import DATA, acetamide_water
from mm_systems import TRICLINIC as WATER_CELL
from pidelta.core.particles import Particles
from pidelta.errors import GeometryError, SettingError
from pidelta.mm.readers import read_topology
from pidelta.mm.water import with_water
from pidelta.qmmm.coupling import CutoffCoupling
from pidelta.qmmm.energy import QMMMEvaluator
from pidelta.qmmm.partition import Partition
from pidelta.qmmm.surroundings import FixedCharges
from pidelta.state import Term
from pidelta.testing.qmmm import check_coupling, check_surroundings
from pidelta.testing.samples import Sample
from qmmm_systems import bare_topology, embedded, smooth_step

QM_CHARGES = np.array([0.4, -0.7, 0.3])
CUBE = np.diag([24.0, 25.0, 26.0])
TRICLINIC = np.array([[26.0, 0.0, 0.0], [7.0, 25.0, 0.0], [-6.0, 5.0, 27.0]])
CUTOFF, SWITCH = 10.0, 3.0
ALIKE = np.array([3, 4, 5]), np.array([60, 61, 62])


def make_system(cell, groups=60, seed=1, wrap=True):
    """Three QM atoms in the middle and three-atom groups everywhere, some broken across the cell."""
    rng = np.random.default_rng(seed)
    centre = 0.5 * cell.sum(axis=0)
    qm = centre + np.array([[0.0, 0.0, 0.0], [2.0, 0.5, 0.0], [4.0, -0.5, 1.0]])
    centres = rng.uniform(size=(4 * groups, 3)) @ cell
    apart = np.linalg.norm(centres[:, None] - qm[None], axis=2).min(axis=1) > 3.0
    molecules = centres[apart][:groups, None] + rng.normal(scale=0.8, size=(groups, 3, 3))
    if wrap:
        fractional = molecules @ np.linalg.inv(cell)
        molecules = (fractional - np.floor(fractional)) @ cell
    positions = np.concatenate([qm, molecules.reshape(-1, 3)])
    residues = np.repeat(np.arange(groups + 1), 3)
    firsts = 3 * np.arange(groups + 1)
    bonds = np.concatenate([np.stack([firsts, firsts + place], axis=1) for place in (1, 2)])
    charges = np.concatenate([np.zeros(3), np.tile([-0.8, 0.5, 0.4], groups)])
    return bare_topology(residues, charges, bonds), positions


def make_evaluator(topology, positions, cell):
    return embedded(topology, np.arange(3), positions, cell, CUTOFF, SWITCH)


def perturbed(positions, cell, wide=1.01):
    """Two structures in cells of their own."""
    other = positions + np.random.default_rng(3).normal(scale=0.05, size=positions.shape)
    return np.stack([positions, other]), np.stack([cell, wide * cell])


@pytest.mark.parametrize("cell", [CUBE, TRICLINIC], ids=["orthorhombic", "triclinic"])
def test_conformance(cell):
    topology, positions = make_system(cell)
    evaluator = make_evaluator(topology, positions, cell)
    sample = Sample(*perturbed(positions, cell), topology.residue_indices, ALIKE)
    check_surroundings(evaluator, sample)
    check_coupling(evaluator, evaluator.coupling, sample, QM_CHARGES)


def test_conformance_with_sites():
    """Acetamide in water of four points, in a triclinic cell: the charge of each water is at a site."""
    topology = with_water(read_topology(DATA / "acetamide-water.top"), "q-tip4p-f")
    positions = acetamide_water()
    evaluator = embedded(topology, np.arange(9), positions, WATER_CELL, 11.0, 4.0)
    alike = np.array([9, 10, 11]), np.array([30, 31, 32])
    sample = Sample(*perturbed(positions, WATER_CELL), topology.residue_indices, alike)
    check_surroundings(evaluator, sample)
    check_coupling(evaluator, evaluator.coupling, sample, np.linspace(-0.5, 0.4, 9))
    particles = evaluator.particles.place(positions[None], WATER_CELL[None])
    region = evaluator.surroundings.cut(particles, WATER_CELL[None])
    without_nucleus = region.site_numbers == 0
    assert np.all(region.site_charges[without_nucleus] <= 0.0)
    assert np.all(region.site_charges[region.site_numbers == 8] == 0.0)
    assert region.site_charges.min() < -1.0


def test_the_potential_of_four_point_water_is_that_of_its_three_charges():
    """q-TIP4P/F written out: +0.5564 e on hydrogens, -1.1128 e at 0.73612 O + 0.13194 (H + H)."""
    topology = with_water(read_topology(DATA / "acetamide-water.top"), "q-tip4p-f")
    positions = acetamide_water()
    evaluator = embedded(topology, np.arange(9), positions, None, 200.0, 1.0)
    particles = evaluator.particles.place(positions[None], None)
    region = evaluator.surroundings.cut(particles, None)
    found = evaluator.coupling.field(particles, None, region).potential[0]
    oxygen, first, second = positions[9:].reshape(-1, 3, 3).transpose(1, 0, 2)
    places = np.concatenate([first, second, 0.73612 * oxygen + 0.13194 * (first + second)])
    charges = np.repeat([0.5564, 0.5564, -1.1128], len(oxygen))
    distances = np.linalg.norm(positions[:9, None] - places, axis=2)
    np.testing.assert_allclose(found, (charges / distances).sum(axis=1), rtol=1e-10)


def test_conformance_of_large_groups():
    """Chains of charges without neutral pieces, longer than the switch: several centres each."""
    rng = np.random.default_rng(5)
    length, chains = 13, 4
    start = np.array([[1.0, 1.0, 1.0], [3.0, 16.0, 4.0], [2.0, 6.0, 18.0], [14.0, 20.0, 20.0]])
    steps = rng.normal(size=(chains, length, 3)) * 0.3 + np.array([1.6, 0.3, 0.2])
    chain_positions = (start[:, None] + np.cumsum(steps, axis=1)).reshape(-1, 3)
    qm = 0.5 * CUBE.sum(axis=0) + np.array([[0.0, 0.0, 0.0], [2.0, 0.5, 0.0], [4.0, -0.5, 1.0]])
    positions = np.concatenate([qm, chain_positions])
    charges = np.linspace(-0.31, 0.37, length)
    topology = bare_topology(
        np.repeat(np.arange(chains + 1), [3, *[length] * chains]),
        np.concatenate([np.zeros(3), np.tile(charges - charges.mean(), chains)]),
        [
            [0, 1], [1, 2],
            *([3 + length * c + i, 4 + length * c + i] for c in range(chains) for i in range(length - 1)),
        ],
    )  # fmt: skip
    evaluator = make_evaluator(topology, positions, CUBE)
    assert np.all(np.diff(evaluator.partition.groups.part_starts) > 1)
    sample = Sample(
        *perturbed(positions, CUBE),
        topology.residue_indices,
        (np.arange(3, 16), np.arange(16, 29)),
    )
    check_surroundings(evaluator, sample)
    check_coupling(evaluator, evaluator.coupling, sample, QM_CHARGES)


def test_conformance_of_fixed_charges():
    molecule = np.array([[0.0, 0.0, 0.0], [2.0, 0.5, 0.0], [4.0, -0.5, 1.0]])
    fixed, charges = np.array([[0.0, 4.0, 1.0], [-3.0, 1.0, 5.0]]), np.array([0.7, -0.3])
    partition = Partition(np.array([8, 1, 1, 0, 0]), np.arange(3), np.concatenate([np.zeros(3), charges]))
    surroundings = FixedCharges(partition)
    evaluator = QMMMEvaluator(
        partition.qm_numbers,
        periodic=False,
        particles=Particles(3, fixed=fixed),
        partition=partition,
        surroundings=surroundings,
        coupling=CutoffCoupling(surroundings),
    )
    sample = Sample(np.stack([molecule, molecule + 0.1]), None, np.zeros(3, dtype=np.int64))
    check_surroundings(evaluator, sample)
    check_coupling(evaluator, evaluator.coupling, sample, QM_CHARGES)


def energy_of(evaluator, positions, cell):
    cells = None if cell is None else cell[None]
    particles = evaluator.particles.place(positions[None], cells)
    region = evaluator.surroundings.cut(particles, cells)
    return float(evaluator.coupling.field(particles, cells, region).potential[0] @ QM_CHARGES)


def test_weights_are_those_of_the_formula_summed_over_all_images():
    """Every group at every image in 5x5x5 cells, with the weight written out as in the design."""
    topology, positions = make_system(CUBE)
    evaluator = make_evaluator(topology, positions, CUBE)
    qm = positions[:3]
    expected = 0.0
    for group in range(60):
        atoms = np.arange(3) + 3 + 3 * group
        first = positions[atoms[0]]
        vectors = positions[atoms] - first
        whole = first + vectors - np.round(vectors / np.diag(CUBE)) * np.diag(CUBE)
        for image in np.ndindex(5, 5, 5):
            moved = whole + (np.array(image) - 2) @ CUBE
            distances = np.linalg.norm(qm - moved.mean(axis=0), axis=1)
            weight = 1.0 - np.prod(1.0 - smooth_step(distances, CUTOFF - SWITCH, CUTOFF)[0])
            separations = np.linalg.norm(qm[:, None] - moved[None], axis=2)
            expected += weight * (QM_CHARGES[:, None] * topology.charges[atoms] / separations).sum()
    assert energy_of(evaluator, positions, CUBE) == pytest.approx(expected, abs=1e-11)


def test_structures_of_a_batch_may_have_different_numbers_of_sites():
    topology, positions = make_system(CUBE)
    evaluator = make_evaluator(topology, positions, CUBE)
    other = positions + np.random.default_rng(3).normal(scale=0.5, size=positions.shape)
    regions = [evaluator.surroundings.cut(one[None], CUBE[None]) for one in (positions, other)]
    assert regions[0].site_charges.shape != regions[1].site_charges.shape
    both = evaluator.surroundings.cut(np.stack([positions, other]), np.stack([CUBE, CUBE]))
    for b, region in enumerate(regions):
        m = region.site_charges.shape[1]
        np.testing.assert_array_equal(both.site_charges[b, :m], region.site_charges[0])
        np.testing.assert_array_equal(both.site_charges[b, m:], 0.0)
        np.testing.assert_array_equal(both.site_numbers[b, m:], 0)


def test_without_a_cell_far_groups_have_no_weight():
    topology, positions = make_system(CUBE, wrap=False)
    region = make_evaluator(topology, positions, None).surroundings.cut(positions[None], None)
    nearest = np.linalg.norm(region.site_positions[0][:, None] - positions[:3], axis=2).min(axis=1)
    assert np.all(region.site_charges[0][nearest > CUTOFF + 4.0] == 0.0)
    assert np.any(region.site_charges[0] != 0.0)


def test_cutoff_larger_than_half_the_cell_is_refused():
    topology, positions = make_system(CUBE)
    with pytest.raises(SettingError, match=r"^cutoff: expected at most half the cell, 6.35 angstrom"):
        embedded(topology, np.arange(3), positions, CUBE, 12.5, SWITCH)
    with pytest.raises(SettingError, match=r"^switch: expected between 0 and the cutoff"):
        embedded(topology, np.arange(3), positions, CUBE, 10.0, 10.0)
    evaluator = make_evaluator(topology, positions, CUBE)
    with pytest.raises(GeometryError, match="at most half the cell"):
        evaluator.surroundings.cut(0.7 * positions[None], 0.7 * CUBE[None])


def test_qm_region_as_large_as_half_the_cell_is_refused():
    topology, positions = make_system(CUBE)
    evaluator = make_evaluator(topology, positions, CUBE)
    stretched = positions.copy()
    stretched[1] += [-9.0, 0.0, 0.0]
    stretched[2] += [4.0, 0.0, 0.0]
    with pytest.raises(GeometryError, match="QM region spans"):
        evaluator.surroundings.cut(stretched[None], CUBE[None])


@pytest.mark.parametrize("energy", [1e247, -1e13, np.nan, np.inf])
def test_numbers_that_are_no_energies(energy):
    class Nonsense:
        def evaluate(self, particles, cells):
            return Term(np.array([0.0, energy]), np.zeros((2, 3, 3)), np.zeros((2, 3, 3)))

    evaluator = QMMMEvaluator(np.array([8, 1, 1]), False, Particles(3), classical={"mm": Nonsense()})
    with pytest.raises(GeometryError, match=r"structure 1: expected an energy below .* from mm"):
        evaluator.evaluate(np.zeros((2, 3, 3)), None)
