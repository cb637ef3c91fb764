"""An ion pulled from a charged QM region through the cutoffs of embedding and Ewald sum."""

import numpy as np

from pidelta.core.ewald import EwaldSum
from pidelta.core.pme import reciprocal_sum
from pidelta.qmmm.partition import Partition
from pidelta.qmmm.surroundings import CutRegion
from pidelta.units import ANGSTROM
from pulled_ion import (
    DIRECTION,
    DISTANCES,
    KCAL_PER_ANGSTROM,
    LENGTH,
    along,
    by_ewald,
    evaluate,
    path_positions,
)
from qmmm_systems import pme_coupling
from test_core_ewald import whole_energy

CELL = LENGTH * np.eye(3) * ANGSTROM
STEP = 0.01 * ANGSTROM


def test_force_of_fixed_charges_is_that_of_the_ewald_energy_of_the_cell():
    """With the mesh, the tolerance and the cutoff of a default set-up."""
    charges = np.array([-0.2, 0.4, 0.4, 0.4, -1.0])
    qm = np.arange(4)
    partition = Partition(np.array([8, 1, 1, 1, 17]), qm, np.where(charges == -1.0, charges, 0.0))
    cutoff = 10.0 * ANGSTROM
    coupling = pme_coupling(partition, reciprocal_sum("pme", cutoff, 1e-4, CELL), cutoff)
    positions = path_positions()[::10]
    none, cells = np.zeros((len(positions), 0)), np.repeat(CELL[None], len(positions), axis=0)
    region = CutRegion(partition.qm_numbers, positions[:, qm], none[..., None], none, none, none)
    field = coupling.field(positions, cells, region)
    gradient, _ = coupling.pull_back(field, np.repeat(charges[None, qm], len(positions), axis=0))
    reference, expected = EwaldSum(0.3, 1e-12), []
    for one in positions:
        energies = []
        for step in (STEP, -STEP):
            moved = one.copy()
            moved[4] += step * DIRECTION
            energies.append(whole_energy(reference, moved, charges, CELL, 18.0))
        expected.append((energies[1] - energies[0]) / (2.0 * STEP))
    difference = along(gradient) - np.array(expected) * KCAL_PER_ANGSTROM
    assert np.abs(difference).max() < 5e-3
    assert np.abs(expected).min() * KCAL_PER_ANGSTROM > 0.5


def test_the_force_of_dftb_has_no_step(tmp_path):
    """It is that of the Mulliken charges in the cell, and the gradient of the energy, all along the path."""
    found = evaluate(tmp_path, "pme")
    force = along(found.gradient)
    charges = np.column_stack([found.charges, np.full(len(DISTANCES), -1.0)])
    np.testing.assert_allclose(force[::4], by_ewald(charges), rtol=0, atol=5e-3)
    slope = -np.gradient(found.energy, DISTANCES * ANGSTROM)[1:-1] * KCAL_PER_ANGSTROM
    np.testing.assert_allclose(force[1:-1], slope, rtol=0, atol=5e-3)
    assert np.abs(np.diff(force)).max() < 0.2  # where Coulomb's law alone has 0.14
    assert np.abs(np.diff(force, 2)).max() < 0.01


def test_the_force_within_a_cutoff_has_one(tmp_path):
    found = evaluate(tmp_path, "cutoff")
    charges = np.column_stack([found.charges, np.full(len(DISTANCES), -1.0)])
    assert np.abs(along(found.gradient)[::4] - by_ewald(charges)).max() > 20.0
