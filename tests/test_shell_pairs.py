"""Pairs of shells that are left out of integrals, against all integrals of PySCF."""

from __future__ import annotations

import numpy as np
import pytest

from pidelta.qm.density_fitting import DensityFitting
from pidelta.qm.shell_pairs import functions_of, shell_groups, with_shells

gto = pytest.importorskip("pyscf.gto")
pyscf_scf = pytest.importorskip("pyscf.scf")


@pytest.fixture(scope="module")
def molecule():
    """Water, hydrogen sulphide and methanol in a row, 26 bohr long."""
    atoms = (
        "O 0 0 0; H 0 1.4 1.1; H 0 -1.4 1.1; S 11 0 0; H 11 1.8 1.7; H 11 -1.8 1.7; "
        "C 22 0 0; O 24.6 0.4 0; H 21 0 1.9; H 21 1.6 -1; H 21 -1.6 -1; H 25.6 -1.2 0"
    )
    return gto.M(atom=atoms, unit="Bohr", basis="def2-TZVP", verbose=0)


def test_each_ordered_pair_is_in_at_most_one_group_and_what_is_left_out_vanishes(molecule):
    counts = np.zeros((molecule.nao, molecule.nao), dtype=int)
    for group in shell_groups(molecule):
        counts[np.ix_(group.own, group.partners)] += 1
    assert counts.max() == 1
    assert 0.2 < counts.mean() < 0.9
    points = np.random.default_rng(1).uniform([-3, -4, -4], [28, 4, 4], size=(200, 3))
    left_out = molecule.intor("int1e_grids_ip", grids=points)[:, :, counts == 0]
    assert np.abs(left_out).max() < 1e-8
    overlaps = np.abs(molecule.intor("int1e_ovlp"))
    assert overlaps[counts == 0].max() < 1e-8
    assert (overlaps[counts == 1] > 1e-7).any()  # the bound is no wide one


def test_each_pair_is_there_once_but_for_those_within_a_group(molecule):
    counts = np.zeros((molecule.nao, molecule.nao))
    for group in shell_groups(molecule, once=True):
        counts[group.place] += 0.5 * group.multiplicities
        counts.T[group.place] += 0.5 * group.multiplicities
    assert set(np.unique(counts)) == {0.0, 1.0}
    assert np.abs(molecule.intor("int1e_ovlp"))[counts == 0].max() < 1e-8


def test_coulomb_without_the_other_pairs_is_that_with_all(molecule):
    density = pyscf_scf.hf.init_guess_by_minao(molecule)
    potentials = [
        DensityFitting(molecule, "def2-universal-jfit", with_exchange=exchange).coulomb(density)
        for exchange in (True, False)
    ]
    np.testing.assert_allclose(potentials[1], potentials[0], atol=1e-7)


def test_a_group_has_the_integrals_of_its_functions(molecule):
    points = np.array([[3.0, 1.0, -2.0], [14.0, 0.0, 2.0]])
    full = molecule.intor("int1e_grids_ip", grids=points)
    for group in shell_groups(molecule):
        own = group.molecule.intor("int1e_grids_ip", grids=points, shls_slice=group.slices)
        np.testing.assert_allclose(own, full[:, :, group.own][..., group.partners], atol=1e-14)


def test_shells_keep_their_order(molecule):
    shells = np.array([7, 2])
    some = with_shells(molecule, shells)
    expected = molecule.intor("int1e_kin")[
        np.ix_(functions_of(molecule, shells), functions_of(molecule, shells))
    ]
    np.testing.assert_allclose(some.intor("int1e_kin"), expected, atol=1e-14)
    assert (some.nbas, molecule.nbas > 40) == (2, True)  # the molecule keeps its own
