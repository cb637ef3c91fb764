"""Charge groups: small ones as they are, large ones in neutral pieces or with several centres."""

import numpy as np
import pytest

from mm_systems import DATA
from pidelta.core.virtual_sites import LINEAR, VirtualSites
from pidelta.errors import SettingError
from pidelta.mm.readers import read_topology
from pidelta.qmmm.groups import make_groups
from pidelta.units import ANGSTROM
from qmmm_systems import bare_topology, embedded


def chain(charges, residues=None):
    """Atoms bonded in a row along x, 2.5 bohr apart."""
    n = len(charges)
    bonds = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    positions = np.arange(n)[:, None] * np.array([2.5, 0.0, 0.0])
    return bare_topology(np.zeros(n) if residues is None else residues, charges, bonds), positions


def grouped(topology, positions, **options):
    groups = make_groups(topology, np.arange(topology.n_particles), positions, None, **options)
    return groups, [sorted(part.tolist()) for part in np.split(groups.particles, groups.starts[1:-1])]


def test_water_is_a_group_with_one_centre():
    topology = read_topology(DATA / "water.top")
    groups, members = grouped(topology, np.zeros((len(topology), 3)))
    assert members == [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(len(topology) // 3)]
    np.testing.assert_array_equal(groups.part_starts, np.arange(len(groups) + 1))


def test_a_lipid_is_split_into_neutral_groups():
    """Tails of neutral CH2, and a head whose opposite charges stay together."""
    charges = np.zeros(30)
    charges[14:17] = [0.9, 0.1, -1.0]
    groups, members = grouped(*chain(charges))
    assert [14, 15, 16] in members
    assert len(groups) == 28
    assert np.abs(groups.net_charges(charges)).max() < 1e-12


def test_charged_atoms_and_their_hydrogens_stay_together():
    """Fifteen CH2 of the kind C -0.18, H +0.09: each is a group."""
    carbons, hydrogens = np.arange(15), 15 + np.arange(30)
    backbone = np.stack([carbons[:-1], carbons[1:]], axis=1)
    bonds = np.concatenate([backbone, np.stack([np.repeat(carbons, 2), hydrogens], axis=1)])
    topology = bare_topology(np.zeros(45), np.where(np.arange(45) < 15, -0.18, 0.09), bonds)
    _, members = grouped(topology, np.zeros((45, 3)))
    assert sorted(members) == [[i, 15 + 2 * i, 16 + 2 * i] for i in range(15)]


def test_a_net_charge_goes_with_the_rest():
    charges = np.zeros(30)
    charges[10] = -1.0
    groups, members = grouped(*chain(charges))
    net = groups.net_charges(charges)
    assert sorted(net[net != 0.0]) == [-1.0]
    assert sum(len(part) for part in members) == 30


def test_without_neutral_pieces_a_residue_has_several_centres():
    """Charges as AM1-BCC gives them; a part is within some 4 angstrom of its centre."""
    rng = np.random.default_rng(1)
    charges = rng.normal(size=31)
    topology, positions = chain(charges - charges.mean())
    groups, _ = grouped(topology, positions)
    assert len(groups) == 1
    centres = groups.part_starts[-1]
    assert 31 / 7 <= centres <= 31 / 3
    assert groups.radii(positions, None).max() <= 4.0 * ANGSTROM
    for part in range(centres):
        inside = np.sort(groups.particles[groups.parts == part])
        np.testing.assert_array_equal(np.diff(inside), 1)  # bonded to one another


def test_no_charge_near_the_qm_region_is_left_out():
    """The end of a residue 60 angstrom long next to the QM atom, its middle far beyond the cutoff."""
    charges = np.concatenate([[0.0], [0.9, 0.05], np.full(46, -0.95 / 46)])
    topology, positions = chain(charges, residues=[0, *np.ones(48)])
    topology = bare_topology(topology.residue_indices, charges, topology.bonds.atoms[1:])
    region = embedded(topology, [0], positions, None, 12.0, 3.0).surroundings.cut(positions[None], None)
    full = dict(zip(region.site_particles[0].tolist(), region.site_charges[0], strict=True))
    np.testing.assert_allclose([full[i] for i in range(1, 49)], charges[1:], rtol=1e-12)


def test_several_molecules_and_ions_in_one_residue():
    charges = [1.0, -1.0, -0.8, 0.4, 0.4]
    topology = bare_topology(np.zeros(5), charges, [[2, 3], [2, 4]])
    _, members = grouped(topology, np.arange(15.0).reshape(5, 3) * 20.0)
    assert members == [[0], [1], [2, 3, 4]]


def test_what_cannot_be_split_is_refused():
    """A slab without bonds, its charges no integers: residue and radius are named; lists are a way out."""
    topology = bare_topology(np.zeros(4), [0.5, -0.5, 0.5, -0.5], [])
    spread = np.arange(4)[:, None] * np.array([5.0, 0.0, 0.0]) * ANGSTROM
    with pytest.raises(SettingError, match=r"^groups: .* found 7\.5 angstrom in the residue of RES1:X0"):
        grouped(topology, spread)
    _, members = grouped(topology, spread / 5.0)
    assert members == [[0, 1, 2, 3]]
    lists = [np.array([0]), np.array([1]), np.array([2]), np.array([3])]
    _, members = grouped(topology, spread, listed=lists)
    assert members == [[0], [1], [2], [3]]


def test_groups_by_molecule_and_listed():
    charges = np.zeros(12)
    topology, positions = chain(charges, residues=np.repeat([0, 1], 6))
    assert len(grouped(topology, positions)[1]) == 2
    assert grouped(topology, positions, unit="molecule")[1] == [list(range(12))]
    _, members = grouped(topology, positions, listed=[np.array([4, 5, 6, 7])])
    assert sorted(members) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(SettingError, match=r"^groups: expected atoms outside the QM region, each once.*X4"):
        grouped(topology, positions, listed=[np.array([3, 4]), np.array([4, 5])])
    with pytest.raises(SettingError, match=r"^groups: .*RES1:X0"):
        make_groups(topology, np.arange(1, 12), positions, None, listed=[np.array([0, 1])])


def test_virtual_sites_belong_to_their_atoms():
    sites = VirtualSites(np.array([[0, 1, 2]]), np.array([LINEAR]), np.array([[0.1, 0.1, 0.0]]))
    topology = bare_topology(np.zeros(3), [0.0, 0.5, 0.5, -1.0], [[0, 1], [0, 2]], sites)
    for listed in ([], [np.array([0, 1, 2])]):
        assert grouped(topology, np.zeros((4, 3)), listed=listed)[1] == [[0, 1, 2, 3]]


def test_a_broken_chain_is_made_whole_along_its_bonds():
    """A chain longer than half the cell, each atom shifted by lattice vectors of its own."""
    charges = np.linspace(-0.5, 0.5, 15)
    topology, positions = chain(np.concatenate([[0.0], charges]), residues=[0, *np.ones(15)])
    topology = bare_topology(topology.residue_indices, topology.charges, topology.bonds.atoms[1:])
    cell = np.diag([50.0, 30.0, 30.0])
    surroundings = embedded(topology, [0], positions, cell, 12.0, 3.0).surroundings
    shifts = np.random.default_rng(2).integers(-2, 3, size=positions.shape) @ cell
    shifts[0] = 0.0
    before = surroundings.cut(positions[None], cell[None])
    after = surroundings.cut((positions + shifts)[None], cell[None])
    for region in (before, after):
        order = np.argsort(region.site_positions[0, :, 0])
        steps = np.diff(region.site_positions[0, order, 0])
        np.testing.assert_allclose(steps[np.diff(region.site_particles[0, order]) == 1], 2.5, atol=1e-9)
    key = [np.sort(region.site_charges[0]) for region in (before, after)]
    np.testing.assert_allclose(*key, atol=1e-12)
