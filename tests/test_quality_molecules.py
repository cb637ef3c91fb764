"""The molecules of the quality report: none that the built-in set was fitted to, and their data are there."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("rdkit")
pytest.importorskip("pyscf")

from molecules import canonical, dynamics_frames, read_molecules, training_smiles
from reference import OUTPUT, Reference, jobs


def test_molecules_are_not_in_the_training_list() -> None:
    molecules = read_molecules()
    trained = training_smiles()
    assert "O" in trained
    assert canonical("C(=O)C") in trained
    tested = {**molecules.sampled, **molecules.partners}
    found = {name: canonical(molecule.smiles) for name, molecule in tested.items()}
    found["malonaldehyde"] = canonical("O=CC=CO")
    assert {name for name, smiles in found.items() if smiles in trained} == set()


def test_there_are_enough_of_them_and_each_once() -> None:
    molecules = read_molecules()
    assert len(molecules.neutral) >= 20
    assert len(molecules.ions) >= 10
    assert len(molecules.settings["energies"]) >= 10
    smiles = [canonical(molecule.smiles) for molecule in molecules.sampled.values()]
    assert len(set(smiles)) == len(smiles)
    assert {name for pair in molecules.settings["energies"] for name in pair} <= set(molecules.minima)


def test_the_reference_has_what_the_report_needs() -> None:
    reference = Reference()
    assert OUTPUT.stat().st_size < 1.5e6
    needed = {key for key, _ in jobs(reference, None)}
    assert needed == set(reference.results)
    assert "def2-TZVP" in json.loads(OUTPUT.read_text())["method"]


@pytest.mark.parametrize("name", ["formamide", "glycolate"])
def test_geometries_are_made_again_as_stored(name: str) -> None:
    molecules, reference = read_molecules(), Reference()
    for number, frame in enumerate(dynamics_frames(molecules.sampled[name], molecules.settings["dynamics"])):
        stored = reference.frame(f"frame/{name}/{number}")
        np.testing.assert_array_equal(stored.numbers, frame.numbers)
        np.testing.assert_allclose(stored.positions, frame.positions, atol=1e-6)
        assert stored.charge == frame.charge


def test_gradients_of_the_reference_have_no_net_force_or_torque() -> None:
    reference = Reference()
    for key in reference.keys("frame"):
        result = reference.results[key]
        gradient, positions = np.array(result["gradient"]), np.array(result["positions"])
        assert np.abs(gradient.sum(axis=0)).max() < 2e-5, key
        assert np.abs(np.cross(positions, gradient).sum(axis=0)).max() < 1e-3, (
            key
        )  # the grid does not turn with the molecule
