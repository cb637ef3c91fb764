"""Charges at the border of the surroundings: the step of an ion's force, and charges that do not add up."""

import numpy as np
import pytest

from pidelta.errors import SettingError
from pidelta.qmmm.border import border_facts, border_warnings, force_step, group_facts
from pidelta.qmmm.charges import charge_remainder, spread_remainder
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL
from qmmm_systems import bare_topology, embedded

H3O = np.array([[0, 0, 0], [0.94, 0, 0.25], [-0.47, 0.81, 0.25], [-0.47, -0.81, 0.25]]) * ANGSTROM
H3O_CHARGES = np.array([-0.2, 0.4, 0.4, 0.4])
IN_KCAL = HARTREE_IN_KCAL_PER_MOL / BOHR_IN_ANGSTROM
DIRECTIONS = [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, -1]]


def hydronium_and(charge, distance=20.0):
    topology = bare_topology([0, 0, 0, 0, 1], [0, 0, 0, 0, charge], [[0, 1], [0, 2], [0, 3]])
    positions = np.concatenate([H3O, [[0.0, 0.0, distance * ANGSTROM]]])
    return topology, embedded(topology, np.arange(4), positions, None, 14.0 * ANGSTROM, 2.0 * ANGSTROM)


def pulled(direction):
    """Distances in angstrom and forces in kcal/mol/angstrom of chloride that is pulled through the border."""
    _, evaluator = hydronium_and(-1.0)
    r = np.arange(11.9, 14.6, 0.01)
    positions = np.repeat(np.concatenate([H3O, np.zeros((1, 3))])[None], len(r), axis=0)
    positions[:, 4] = r[:, None] * ANGSTROM * np.array(direction)
    region = evaluator.surroundings.cut(positions, None)
    energies = evaluator.coupling.field(positions, None, region).potential @ H3O_CHARGES
    return r, -np.gradient(energies, r) * HARTREE_IN_KCAL_PER_MOL


def test_the_force_step_is_what_an_ion_feels():
    """The largest deviation from Coulomb's law, -332/r^2, and a figure on record."""
    _, evaluator = hydronium_and(-1.0)
    predicted = force_step(evaluator.surroundings, H3O, 1.0) * IN_KCAL
    found = []
    for direction in DIRECTIONS:
        r, force = pulled(direction)
        found.append(np.abs(force + 332.06 / r**2).max())
    assert max(found) == pytest.approx(predicted, rel=0.05)
    r, force = pulled([1, 0, 0])
    assert force[np.argmin(np.abs(r - 13.8))] == pytest.approx(-23.6, abs=0.3)  # Ewald: -1.3


def test_warning_of_ions_around_a_charged_region():
    topology, evaluator = hydronium_and(-1.0)
    (warning,) = border_warnings(evaluator.surroundings, H3O, 1, topology.label)
    assert "RES2:X4 (atom 4) with -1.00 e" in warning
    assert "its force is wrong by up to 37.8 kcal/mol/angstrom" in warning
    assert border_warnings(evaluator.surroundings, H3O, 0, topology.label) == []
    topology, evaluator = hydronium_and(0.005)
    assert border_warnings(evaluator.surroundings, H3O, 1, topology.label) == []


def test_facts_of_the_groups():
    _, evaluator = hydronium_and(-1.0)
    facts = group_facts(evaluator.surroundings, np.concatenate([H3O, np.zeros((1, 3))]), None)
    assert (facts.count, facts.several, facts.charge, facts.charged) == (1, 0, -1.0, 4)
    assert facts.radius == 0.0


@pytest.mark.parametrize(("distance", "counted"), [(11.0, (1, 0, 0)), (13.9, (0, 1, 0)), (20.0, (0, 0, 1))])
def test_facts_of_the_border(distance, counted):
    _, evaluator = hydronium_and(-1.0)
    positions = np.concatenate([H3O, [[distance * ANGSTROM, 0.0, 0.0]]])
    facts = border_facts(evaluator.surroundings, positions, None)
    assert (facts.whole, facts.partly, facts.outside) == counted
    weights = evaluator.surroundings.cut(positions[None], None).site_charges.sum() / -1.0
    assert facts.left_out == pytest.approx(weights - 1.0)
    # between the values with and without the ion in the middle of the switch, at 13 angstrom
    assert facts.jump == pytest.approx(1.0 / (13.0 * ANGSTROM))
    assert facts.jumping == 4


def test_a_neutral_group_jumps_by_its_dipole():
    """The potential of a dipole on the axis, of two charges close to each other."""
    topology = bare_topology([0, 1, 1], [0.0, 0.3, -0.3], [[1, 2]])
    cutoff = 14.0 * ANGSTROM
    positions = np.array([[0.0, 0.0, 0.0], [30.0, 0.0, 0.0], [30.0, 0.4, 0.0]])
    cell = 60.0 * np.eye(3)
    positions[2] += cell[1]
    evaluator = embedded(topology, [0], positions, cell, cutoff, 2.0 * ANGSTROM)
    facts = border_facts(evaluator.surroundings, positions, cell)
    r = 13.0 * ANGSTROM
    expected = 0.3 / (r - 0.2) - 0.3 / (r + 0.2)
    assert facts.jump == pytest.approx(expected, rel=1e-3)
    assert (facts.outside, facts.left_out) == (1, 0.0)


@pytest.mark.parametrize("total", [0.999, -0.0021, 1.0491])
def test_a_remainder_of_rounding_is_accepted_and_returned(total):
    charge = round(total)
    assert charge_remainder(np.array([total - 0.3, 0.3]), charge) == pytest.approx(total - charge)
    assert charge_remainder(np.array([1.00001]), 1) == 0.0


def test_charges_that_do_not_fit_are_refused():
    with pytest.raises(SettingError, match=r"^charge: expected \+1, as .* sum to \+0\.9990, found \+0"):
        charge_remainder(np.array([0.999]), 0)
    with pytest.raises(SettingError, match=r"^charge: .* an integer within 0\.05 e, found \+0\.4000"):
        charge_remainder(np.array([0.4]), 0)


def test_a_spread_remainder_keeps_the_charge_of_the_whole():
    charges = np.array([0.3, 0.1, -0.2, -0.2, 0.0])
    remainder = charge_remainder(charges[:2], 0, largest=np.inf)
    moved = spread_remainder(charges, np.array([0, 1]), remainder, np.array([2, 3]))
    assert moved[:2].sum() == pytest.approx(0.0, abs=1e-15)
    np.testing.assert_allclose(moved[2:], [0.0, 0.0, 0.0], atol=1e-15)
    assert moved.sum() == pytest.approx(charges.sum())
    with pytest.raises(SettingError, match=r"^charge_remainder: .* found atom 1"):
        spread_remainder(charges, np.array([0, 1]), remainder, np.array([1, 2]))
