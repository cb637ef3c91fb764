"""The embedding against differences of a toy energy, lattice shifts, and a hand-made sum over images."""

import numpy as np
import pytest

from pidelta.core.switching import smooth_step
from pidelta.errors import GeometryError, SetupError
from pidelta.qmmm.embedding import CutoffEmbedding
from pidelta.qmmm.partition import check_charge, make_partition
from pidelta.qmmm.point_charges import point_charge_gradients, point_charge_potential
from pidelta.state import RegionGradient, System
from pidelta.testing.derivatives import central_differences

QM_CHARGES = np.array([[0.4, -0.7, 0.3]])
CUBE = np.diag([24.0, 25.0, 26.0])
TRICLINIC = np.array([[26.0, 0.0, 0.0], [7.0, 25.0, 0.0], [-6.0, 5.0, 27.0]])
CUTOFF, SWITCH = 10.0, 3.0


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
    count = len(positions)
    residues = np.concatenate([np.zeros(3), 1 + np.repeat(np.arange(groups), 3)]).astype(np.int64)
    names = [(name,) * count for name in ("X", "R", "")]
    system = System(np.full(count, 8), positions, cell, *names[:2], residues, residues + 1, names[2])
    charges = np.concatenate([np.zeros(3), np.tile([-0.8, 0.5, 0.4], groups)])
    return system, charges


def make_embedding(system, charges):
    partition = make_partition(system, np.arange(3), charges)
    return CutoffEmbedding(partition, CUTOFF, SWITCH, system.cell)


def energy_of(embedding, positions, cells):
    region = embedding.region(positions, cells)
    phi = point_charge_potential(region.positions, region.site_positions, region.site_charges)
    return (phi * QM_CHARGES).sum(axis=1)


def gradient_of(embedding, positions, cells):
    region = embedding.region(positions, cells)
    charges = np.repeat(QM_CHARGES, len(positions), axis=0)
    parts = point_charge_gradients(region.positions, region.site_positions, region.site_charges, charges)
    return embedding.pull_back(region, RegionGradient(*parts))


@pytest.mark.parametrize("cell", [CUBE, TRICLINIC], ids=["orthorhombic", "triclinic"])
def test_gradient_is_that_of_the_energy(cell):
    system, charges = make_system(cell)
    embedding = make_embedding(system, charges)

    def energy(positions):
        return energy_of(embedding, positions, np.repeat(cell[None], len(positions), axis=0))

    gradient, _ = gradient_of(embedding, system.positions[None], cell[None])
    region = embedding.region(system.positions[None], cell[None])
    weights = region.site_charges[0] / charges[region.site_atoms[0]]
    switching = region.site_atoms[0][(weights > 0.05) & (weights < 0.95)]
    assert len(switching) > 10
    atoms = np.concatenate([np.arange(3), switching[:12], region.site_atoms[0][:6]])
    numerical = central_differences(energy, system.positions, atoms)
    assert np.abs(gradient[0, atoms] - numerical).max() < 1e-10
    assert np.abs(gradient.sum(axis=1)).max() < 1e-12


@pytest.mark.parametrize("cell", [CUBE, TRICLINIC], ids=["orthorhombic", "triclinic"])
def test_virial_is_minus_the_strain_derivative(cell):
    system, charges = make_system(cell)
    embedding = make_embedding(system, charges)
    _, virial = gradient_of(embedding, system.positions[None], cell[None])
    numerical = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            for sign in (1.0, -1.0):
                strain = np.eye(3)
                strain[i, j] += sign * 1e-5
                strained = (system.positions @ strain.T)[None], (cell @ strain.T)[None]
                numerical[i, j] -= sign * energy_of(embedding, *strained)[0] / 2e-5
    assert np.abs(virial[0] - numerical).max() < 1e-8


@pytest.mark.parametrize("cell", [CUBE, TRICLINIC], ids=["orthorhombic", "triclinic"])
def test_lattice_vectors_change_nothing(cell):
    system, charges = make_system(cell)
    embedding = make_embedding(system, charges)
    rng = np.random.default_rng(2)
    shifts = rng.integers(-3, 4, size=system.positions.shape) @ cell
    shifts[:3] = shifts[0]
    moved = (system.positions + shifts)[None]
    cells = cell[None]
    assert energy_of(embedding, moved, cells) == pytest.approx(
        energy_of(embedding, system.positions[None], cells), abs=1e-12
    )
    expected, _ = gradient_of(embedding, system.positions[None], cells)
    found, virial = gradient_of(embedding, moved, cells)
    assert np.abs(found - expected).max() < 1e-12
    assert np.abs(virial - virial.transpose(0, 2, 1)).max() < 1e-10


def test_weights_are_those_of_the_formula_summed_over_all_images():
    """Every group at every image in 5x5x5 cells, with the weight written out as in the design."""
    system, charges = make_system(CUBE)
    embedding = make_embedding(system, charges)
    qm = system.positions[:3]
    expected = 0.0
    for group in range(60):
        atoms = np.arange(3) + 3 + 3 * group
        first = system.positions[atoms[0]]
        vectors = system.positions[atoms] - first
        whole = first + vectors - np.round(vectors / np.diag(CUBE)) * np.diag(CUBE)
        for image in np.ndindex(5, 5, 5):
            moved = whole + (np.array(image) - 2) @ CUBE
            distances = np.linalg.norm(qm - moved.mean(axis=0), axis=1)
            weight = 1.0 - np.prod(1.0 - smooth_step(distances, CUTOFF - SWITCH, CUTOFF)[0])
            separations = np.linalg.norm(qm[:, None] - moved[None], axis=2)
            expected += weight * (QM_CHARGES[0][:, None] * charges[atoms] / separations).sum()
    assert energy_of(embedding, system.positions[None], CUBE[None])[0] == pytest.approx(expected, abs=1e-11)


def test_batch_of_different_sizes_equals_single_structures():
    system, charges = make_system(CUBE)
    embedding = make_embedding(system, charges)
    other = system.positions + np.random.default_rng(3).normal(scale=0.5, size=system.positions.shape)
    both = np.stack([system.positions, other])
    cells = np.repeat(CUBE[None], 2, axis=0)
    sizes = [embedding.region(p[None], CUBE[None]).site_charges.shape[1] for p in both]
    assert sizes[0] != sizes[1]
    gradient, virial = gradient_of(embedding, both, cells)
    for b in range(2):
        single, single_virial = gradient_of(embedding, both[b][None], CUBE[None])
        assert np.abs(gradient[b] - single[0]).max() < 1e-13
        assert np.abs(virial[b] - single_virial[0]).max() < 1e-12


def test_without_a_cell_far_groups_have_no_weight():
    system, charges = make_system(CUBE, wrap=False)
    embedding = CutoffEmbedding(make_partition(system, np.arange(3), charges), CUTOFF, SWITCH)
    region = embedding.region(system.positions[None], None)
    nearest = np.linalg.norm(region.site_positions[0][:, None] - system.positions[:3], axis=2).min(axis=1)
    assert np.all(region.site_charges[0][nearest > CUTOFF + 4.0] == 0.0)
    assert np.any(region.site_charges[0] != 0.0)


def test_cutoff_larger_than_half_the_cell_is_refused():
    system, charges = make_system(CUBE)
    partition = make_partition(system, np.arange(3), charges)
    with pytest.raises(SetupError, match=r"embedding.cutoff: expected at most half the cell, 12.000 bohr"):
        CutoffEmbedding(partition, 12.5, SWITCH, CUBE)
    embedding = CutoffEmbedding(partition, CUTOFF, SWITCH, CUBE)
    with pytest.raises(GeometryError, match="at most half the cell"):
        embedding.region(0.7 * system.positions[None], 0.7 * CUBE[None])


def test_qm_region_as_large_as_half_the_cell_is_refused():
    system, charges = make_system(CUBE)
    embedding = make_embedding(system, charges)
    stretched = system.positions.copy()
    stretched[1] += [-9.0, 0.0, 0.0]
    stretched[2] += [4.0, 0.0, 0.0]
    with pytest.raises(GeometryError, match="QM region spans"):
        embedding.region(stretched[None], CUBE[None])


def test_charge_of_the_qm_region_must_be_what_it_replaces():
    charges = np.array([0.25, 0.25, 0.5, -1.0])
    check_charge(np.arange(3), charges, 1)
    with pytest.raises(SetupError, match=r"qm.charge: expected \+1.0000.*found \+0"):
        check_charge(np.arange(3), charges, 0)
