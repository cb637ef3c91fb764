"""Training geometries from SMILES."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from ase.data import covalent_radii
from typer.testing import CliRunner

from parametrisation_support import RECIPE
from pidelta.cli.slater_koster import slater_koster
from pidelta.data.frames import Frame
from pidelta.data.store import FrameStore
from pidelta.errors import ConfigError, DataError
from pidelta.parametrisation.geometries import (
    add_training_frames,
    dihedral_frames,
    training_frames,
    transfer_frames,
    wants_diffuse_functions,
)
from pidelta.parametrisation.recipe import DihedralScan, TrainingRecipe, TransferScan
from pidelta.units import ANGSTROM, KELVIN

pytest.importorskip("rdkit")


def recipe(**changes: object) -> TrainingRecipe:
    values = {
        "labels": {"xc": "B3LYP", "basis": "def2-SVP", "diffuse_basis": "def2-SVPD"},
        "molecules": [{"frames": 2, "smiles": ["CO", "[NH4+]"]}],
        "complexes": ["O.O"],
        "complex_frames": 2,
        "temperatures": ["500 K", "1500 K"],
        "separations": ["1 angstrom"],
        "seed": 1,
    }
    return TrainingRecipe.model_validate({**values, **changes})


def group(frames: int, *smiles: str) -> list[dict[str, object]]:
    return [{"frames": frames, "smiles": smiles}]


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
    frames = list(training_frames("C", recipe(molecules=group(150, "C"), temperatures=["500 K"])))
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
    np.testing.assert_array_equal(
        first, positions(list(training_frames("CO", recipe(molecules=group(2, "CO")))))
    )
    assert np.any(first != positions(list(training_frames("CO", recipe(seed=2)))))


def test_a_store_is_filled_once(tmp_path: Path) -> None:
    with FrameStore(tmp_path / "frames.h5", "a") as store:
        whole = list(training_frames("CO", recipe()))
        store.append(whole[1])  # as an interrupted run leaves it
        assert list(add_training_frames(store, recipe())) == [("CO", 3), ("[NH4+]", 4), ("O.O", 3)]
        assert list(add_training_frames(store, recipe())) == [("CO", 0), ("[NH4+]", 0), ("O.O", 0)]
        assert len({frame.source for frame in store}) == len(store) == 11


def test_a_store_of_another_recipe_is_refused(tmp_path: Path) -> None:
    with FrameStore(tmp_path / "frames.h5", "a") as store:
        list(add_training_frames(store, recipe()))
        with pytest.raises(DataError, match="expected CO 0 with the geometry of the recipe, found another"):
            list(add_training_frames(store, recipe(seed=2)))
        with pytest.raises(DataError, match=r"expected frames of the recipe alone, found O\.O 0"):
            list(add_training_frames(store, recipe(complexes=[])))


def dihedral(positions: np.ndarray) -> float:
    """Of four points, in degrees between 0 and 180, by the normals of their planes."""
    b1, b2, b3 = np.diff(positions, axis=0)
    first, second = np.cross(b1, b2), np.cross(b2, b3)
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def scan(molecule: str, atoms: str, *angles: int) -> DihedralScan:
    return DihedralScan(molecule=molecule, atoms=atoms, angles=[f"{angle} deg" for angle in angles])


def test_a_torsion_has_its_angles_and_the_rest_is_relaxed() -> None:
    frames = list(dihedral_frames(scan("OC=O", "[#1]OC=O", 0, 90, 180), 1))
    assert frames[0].source == "OC=O [#1]OC=O 0"
    assert frames[0].numbers.tolist() == [8, 6, 8, 1, 1]
    found = [dihedral(frame.positions[[3, 0, 1, 2]]) for frame in frames]
    np.testing.assert_allclose(found, [0.0, 90.0, 180.0], atol=0.5)
    bonds = np.linalg.norm(positions(frames)[:, 0] - positions(frames)[:, 1], axis=-1) / ANGSTROM
    assert bonds[1] > bonds[0] + 0.002  # less conjugation; a rigid turn leaves it as it is


def test_an_inversion_goes_from_planar_to_pyramidal() -> None:
    frames = list(dihedral_frames(scan("N", "[#1]N([#1])[#1]", 180, 120), 1))
    sums = []
    for frame in frames:
        bonds = frame.positions[1:] - frame.positions[0]
        unit = bonds / np.linalg.norm(bonds, axis=-1, keepdims=True)
        cosines = (unit @ unit.T)[np.triu_indices(3, k=1)]
        sums.append(float(np.degrees(np.arccos(cosines)).sum()))
    assert sums[0] == pytest.approx(360.0, abs=0.1)
    assert sums[1] < 335.0


def test_a_proton_goes_from_one_molecule_to_the_other() -> None:
    transfer = TransferScan(complex="[NH4+].O", lengths=["2.7 angstrom"], fractions=[0.4, 0.6])
    for frame, fraction in zip(transfer_frames(transfer, 1), (0.4, 0.6), strict=True):
        assert frame.charge == 1
        nitrogen, oxygen = (frame.positions[frame.numbers == number][0] for number in (7, 8))
        assert np.linalg.norm(nitrogen - oxygen) == pytest.approx(2.7 * ANGSTROM)
        on_the_way = nitrogen + fraction * (oxygen - nitrogen)
        assert np.linalg.norm(frame.positions - on_the_way, axis=-1).min() < 1e-9


def test_ions_and_complexes_want_diffuse_functions() -> None:
    frames = [next(training_frames(smiles, recipe())) for smiles in ("CO", "[NH4+]", "O.O")]
    assert [wants_diffuse_functions(frame) for frame in frames] == [False, True, True]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dihedral_frames(scan("CO", "[#1]O", 0), 1), "CO: expected a SMARTS of 4 atoms, found"),
        (lambda: dihedral_frames(scan("CO", "CCCC", 0), 1), "CO: expected atoms that match CCCC, found none"),
        (
            lambda: transfer_frames(
                TransferScan(complex="[Na+].[Cl-]", lengths=["2 bohr"], fractions=[0.5]), 1
            ),
            r"expected a hydrogen bond in \[Na\+\]\.\[Cl-\], found none",
        ),
        (
            lambda: transfer_frames(TransferScan(complex="O", lengths=["2 bohr"], fractions=[0.5]), 1),
            "expected two molecules, found O",
        ),
    ],
)
def test_wrong_scans_are_named(make: Callable[[], Iterator[Frame]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(make())


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
        list(add_training_frames(store, recipe(molecules=group(1, *names))))


def test_command_adds_frames(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    arguments = ["geometries", str(tmp_path / "frames.h5"), "--recipe", str(tmp_path / "recipe.yaml")]
    for added in (4, 0):
        result = CliRunner().invoke(slater_koster, arguments)
        assert result.exit_code == 0
        assert f"{added} frames added, 4 in all" in result.output
