"""Committees: each member's energy, forces and virial, and what i-PI's ffcommittee makes of them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from conftest import ROOT
from pidelta.config import load_config
from pidelta.errors import SettingError, SetupError
from pidelta.qmmm.members import COMMITTEE_PROPERTIES
from pidelta.setup import Setup

SOURCE = ROOT / "inputs" / "uracil-water"
MODELS = ("delta-0.pt", "delta-1.pt", "delta-2.pt")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Uracil in 900 waters with three delta models, whose members are reported."""
    folder = tmp_path_factory.mktemp("committee")
    for name in ("uracil-water.gro", "uracil-water.top", "init.pdb", *MODELS):
        shutil.copy(SOURCE / name, folder)
    text = (SOURCE / "pidelta.yaml").read_text()
    names = ", ".join(COMMITTEE_PROPERTIES)
    (folder / "pidelta.yaml").write_text(text.replace("delta-2.pt]", f"delta-2.pt], properties: [{names}]"))
    return folder / "pidelta.yaml"


@pytest.fixture(scope="module")
def setup(config):
    return Setup(load_config(config))


def two_structures(setup):
    rng = np.random.default_rng(4)
    positions = np.stack([setup.system.positions] * 2)
    positions += 0.02 * rng.normal(size=positions.shape)
    return positions, np.stack([setup.system.cell] * 2)


@pytest.mark.parametrize("terms", ["delta", "low+delta"])
def test_members_are_those_of_models_alone_and_their_mean_is_the_energy(setup, terms):
    terms = frozenset(terms.split("+"))
    positions, cells = two_structures(setup)
    both = setup.evaluator(terms).evaluate(positions, cells)
    pot, force, virial = (both.properties[name] for name in COMMITTEE_PROPERTIES)
    n = len(setup.system)
    assert (pot.shape, force.shape, virial.shape) == ((2, 3), (2, 3, 3 * n), (2, 3, 9))
    np.testing.assert_allclose(pot.mean(axis=1), both.energy, rtol=1e-12)
    np.testing.assert_allclose(force.mean(axis=1), -both.gradient.reshape(2, -1), atol=1e-12)
    np.testing.assert_allclose(virial.mean(axis=1), both.virial.reshape(2, -1), atol=1e-10)
    np.testing.assert_allclose(pot.std(axis=1, ddof=1), both.properties["delta_standard_deviation"])
    for member in range(3):
        alone = setup.evaluator(terms, member).evaluate(positions, cells)
        assert set(COMMITTEE_PROPERTIES).isdisjoint(alone.properties)
        np.testing.assert_allclose(pot[:, member], alone.energy, atol=1e-9)
        np.testing.assert_allclose(force[:, member], -alone.gradient.reshape(2, -1), atol=1e-8)
        np.testing.assert_allclose(virial[:, member], alone.virial.reshape(2, -1), atol=1e-7)
    with pytest.raises(SettingError, match="member: expected 0 to 2, as there are 3 models, found 3"):
        setup.evaluator(terms, 3)


def test_forces_and_virials_of_members_are_derivatives(setup):
    """By displacements of atoms of the molecule and near it, and by a strain of cell and molecules."""
    evaluator = setup.evaluator(frozenset({"delta"}))
    positions, cells = (values[:1] for values in two_structures(setup))
    found = evaluator.evaluate(positions, cells).properties
    rng, step = np.random.default_rng(5), 3e-4

    def slope(moved):
        plus, minus = (
            evaluator.evaluate(*moved(sign * step)).properties["committee_pot"][0] for sign in (1, -1)
        )
        return (plus - minus) / (2.0 * step)

    direction = rng.normal(size=positions.shape)
    expected = np.einsum("ki,i->k", found["committee_force"][0], direction.ravel())
    np.testing.assert_allclose(-slope(lambda x: (positions + x * direction, cells)), expected, rtol=1e-5)

    strain = rng.normal(size=(3, 3))
    strain += strain.T

    def strained(x):
        matrix = np.eye(3) + 0.1 * x * strain
        return positions @ matrix, cells @ matrix

    expected = 0.1 * found["committee_virial"][0] @ strain.ravel()
    np.testing.assert_allclose(-slope(strained), expected, rtol=1e-5)


def test_properties_of_members_that_there_are_not(config, tmp_path):
    wrong = tmp_path / "pidelta.yaml"
    wrong.write_text(config.read_text().replace("committee_pot", "committee_energy"))
    with pytest.raises(SetupError, match=r"delta\.properties"):
        load_config(wrong)
