"""Training geometries from SMILES."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.data import covalent_radii
from typer.testing import CliRunner

from pidelta.cli.slater_koster import slater_koster
from pidelta.data.frames import Frame
from pidelta.data.store import FrameStore
from pidelta.errors import ConfigError
from pidelta.qm.dftb.slater_koster.geometries import add_training_frames, training_frames
from pidelta.qm.dftb.slater_koster.recipe import TrainingRecipe
from pidelta.units import ANGSTROM, KELVIN
from slater_koster_support import RECIPE

pytest.importorskip("rdkit")


def recipe(**changes: object) -> TrainingRecipe:
    values = {
        "molecules": ["CO", "[NH4+]"],
        "complexes": ["O.O"],
        "frames": 2,
        "temperatures": ["500 K", "1500 K"],
        "separations": ["1 angstrom"],
        "seed": 1,
    }
    return TrainingRecipe.model_validate({**values, **changes})


def positions(frames: list[Frame]) -> np.ndarray:
    return np.stack([frame.positions for frame in frames])


def test_frames_of_a_molecule_are_shaken_and_whole() -> None:
    frames = list(training_frames("CO", recipe()))
    assert [frame.source for frame in frames] == ["CO 0", "CO 1", "CO 2", "CO 3"]
    assert frames[0].numbers.tolist() == [6, 8, 1, 1, 1, 1]
    bonds = np.linalg.norm(positions(frames)[:, 0] - positions(frames)[:, 1], axis=-1)
    expected = (covalent_radii[6] + covalent_radii[8]) * ANGSTROM
    np.testing.assert_allclose(bonds, expected, rtol=0.15)
    assert np.ptp(bonds) > 1e-3


def test_temperature_is_that_of_the_ensemble() -> None:
    # The C-H bond of MMFF94 has a force constant of 4.766 mdyn/angstrom: <x^2> = kT / k.
    frames = list(training_frames("C", recipe(frames=150, temperatures=["500 K"])))
    bonds = np.linalg.norm(positions(frames)[:, 1:] - positions(frames)[:, :1], axis=-1)
    constant = 4.766 * 143.9325 / 627.5095 / ANGSTROM**2  # MMFF94's own factor to kcal/mol/angstrom^2
    assert bonds.var() == pytest.approx(500.0 * KELVIN / constant, rel=0.2)


def test_charge_and_atoms_of_an_ion() -> None:
    frame = next(training_frames("[NH4+]", recipe()))
    assert frame.charge == 1
    assert sorted(frame.numbers.tolist()) == [1, 1, 1, 1, 7]


def test_complexes_are_bound_and_then_separated() -> None:
    frames = list(training_frames("O.O", recipe()))
    assert len(frames) == 3
    oxygens = positions(frames)[:, frames[0].numbers == 8]
    distances = np.linalg.norm(oxygens[:, 0] - oxygens[:, 1], axis=-1) / ANGSTROM
    assert np.all((distances[:2] > 2.4) & (distances[:2] < 3.6))
    assert 3.4 < distances[2] < 4.0


def test_seed_and_smiles_alone_decide() -> None:
    first = positions(list(training_frames("CO", recipe())))
    np.testing.assert_array_equal(first, positions(list(training_frames("CO", recipe(molecules=["CO"])))))
    assert np.any(first != positions(list(training_frames("CO", recipe(seed=2)))))


def test_a_store_is_filled_once(tmp_path: Path) -> None:
    with FrameStore(tmp_path / "frames.h5", "a") as store:
        whole = list(training_frames("CO", recipe()))
        store.append(whole[1])  # as an interrupted run leaves it
        assert list(add_training_frames(store, recipe())) == [("CO", 3), ("[NH4+]", 4), ("O.O", 3)]
        assert list(add_training_frames(store, recipe())) == [("CO", 0), ("[NH4+]", 0), ("O.O", 0)]
        assert len({frame.source for frame in store}) == len(store) == 11


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["CO", "not a molecule"], "expected a SMILES, found 'not a molecule'"),
        (["CO", "OC"], "expected different molecules, found CO and OC"),
    ],
)
@pytest.mark.filterwarnings("default")
def test_wrong_molecules_are_named(tmp_path: Path, names: list[str], message: str) -> None:
    with FrameStore(tmp_path / "frames.h5", "a") as store, pytest.raises(ConfigError, match=message):
        list(add_training_frames(store, recipe(molecules=names)))


def test_command_adds_frames(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    arguments = ["geometries", str(tmp_path / "frames.h5"), "--recipe", str(tmp_path / "recipe.yaml")]
    for added in (4, 0):
        result = CliRunner().invoke(slater_koster, arguments)
        assert result.exit_code == 0
        assert f"{added} frames added, 4 in all" in result.output
