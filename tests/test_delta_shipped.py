"""The models that ship: what they say of themselves, where they are refused, and what gives an alarm."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT
from pidelta.config import load_config
from pidelta.delta.files import models_digest
from pidelta.errors import ModelError
from pidelta.qmmm.point_charges import point_charge_potential
from pidelta.setup import Setup
from pidelta.units import ANGSTROM, KCAL_PER_MOL

INPUTS = ROOT / "inputs" / "uracil-water"
BOND = (6, 10)  # C5-H5
WATERS = [750, 751, 752, 1017, 1018, 1019]  # two of them, next to uracil


@pytest.fixture(scope="module")
def setup():
    return Setup(load_config(INPUTS / "pidelta.yaml"))


SETS = {
    "uracil-water": ("../studies/paper/uracil/labels/heldout.h5", (0.083, 0.33, 0.0015)),
    "retinoic-acid-water": ("labels/heldout.h5", (0.46, 0.57, 0.0053)),
    "sam-cytosine-water": ("labels/test-*.h5", (0.378, 0.742, 0.0066)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_models_are_as_accurate_as_their_readme_says(name, tmp_path, run):
    """Low-level labels of today, `pidelta test`, and the factors that the configuration has."""
    folder = ROOT / "inputs" / name
    (labels, expected), settings = SETS[name], load_config(folder / "pidelta.yaml")
    frames = [Path(shutil.copy(path, tmp_path)) for path in sorted(folder.glob(labels))]
    for path in frames:
        assert run("label", path, "--low", folder / "pidelta.yaml") == 0
    models = [part for path in settings.delta.models for part in ("--model", path)]
    assert run("test", *frames, *models, "--output", tmp_path / "errors.json") == 0
    found = json.loads((tmp_path / "errors.json").read_text())
    errors = found["errors"]["low + delta"]
    maes = [errors[kind][0] for kind in ("energy", "qm_gradient", "mm_gradient")]
    assert maes == pytest.approx(expected, rel=0.03)
    for key in ("energy", "force"):
        assert found["calibration"][key] == pytest.approx(getattr(settings.delta.calibration, key), rel=0.01)


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ROOT.glob("inputs/*/*.yaml")) if "calibration:" in path.read_text()],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_calibrations_are_those_of_the_models(path):
    delta = load_config(path).delta
    assert delta.calibration.models == models_digest(delta.models)


@pytest.fixture
def config(tmp_path):
    """A copy of the set-up that a test can change."""
    for name in (
        "pidelta.yaml",
        "uracil-water.gro",
        "uracil-water.top",
        *(f"delta-{k}.pt" for k in range(3)),
    ):
        shutil.copy(INPUTS / name, tmp_path)
    return tmp_path / "pidelta.yaml"


def evaluate(setup, positions):
    region = setup.surroundings.cut(positions[None], setup.system.cell[None])
    return setup.correction.evaluate(region)


def test_energy_is_that_of_dft(setup):
    """The structure in its point charges, B3LYP-D3(BJ)/def2-SVP by PySCF; no frame of the training."""
    dft = -414.60420204  # `label_frame` of qm/reference.py
    region = setup.surroundings.cut(setup.system.positions[None], setup.system.cell[None])
    field = point_charge_potential(region.positions, region.site_positions, region.site_charges)
    low = setup.engine.evaluate(region.positions, field)
    corrected = setup.correction.evaluate(region)
    assert low.energy[0] + corrected.energy[0] == pytest.approx(dft, abs=0.3 * KCAL_PER_MOL)


def test_provenance(setup):
    provenance = setup.correction.provenance
    assert provenance.compositions == ((1, 1, 1, 1, 6, 6, 6, 6, 7, 7, 8, 8),)
    assert provenance.site_elements == (1, 8)
    assert (provenance.charge, provenance.multiplicity) == (0, 1)
    assert provenance.reference.startswith("RKS B3LYP (VWN-RPA)-D3(BJ)/def2-SVP")
    assert 0.1 * KCAL_PER_MOL < setup.correction.uncertainty_threshold < 1.0 * KCAL_PER_MOL


def test_a_stretched_bond_gives_alarms(setup):
    """C5-H5 longer by 0.4 angstrom: 0.9 kcal/mol more error, the spread warns; at 0.6 the reach, too."""
    positions = setup.system.positions
    bond = positions[BOND[1]] - positions[BOND[0]]
    found = {}
    for longer in (0.0, 0.1, 0.2, 0.4, 0.6):
        moved = positions.copy()
        moved[BOND[1]] += longer * ANGSTROM * bond / np.linalg.norm(bond)
        found[longer] = evaluate(setup, moved).properties
    assert found[0.2]["delta_standard_deviation"] < setup.spread_threshold
    assert found[0.4]["delta_standard_deviation"] > setup.spread_threshold
    distances = [float(found[longer]["delta_extrapolation"][0]) for longer in found]
    assert max(distances[:3]) < 0.7
    assert distances[3] > 0.8
    assert distances[4] > 1.1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"resname URA"', str([*range(12), *WATERS]), "a QM region C4H4N2O2, found C4H8N2O4"),
        ('"resname URA"', str(WATERS), "a QM region C4H4N2O2, found H4O2"),
        ("charge: 0", "charge: 0\n  multiplicity: 3", "multiplicity 1, found 3"),
        ("order: 3", "order: 2", "the low-level method it was trained on"),
        ("switch: 0.2 nm", "switch: 0.3 nm", "embedding switch"),
    ],
)
def test_another_set_up_is_refused(config, old, new, message):
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))
    with pytest.raises(ModelError, match=message) as info:
        _ = Setup(load_config(config)).correction
    assert "delta-0.pt: " in str(info.value)
    assert "\n" not in str(info.value)


def test_check_refuses_in_one_line(config, fail):
    """The case of a user who takes some waters into the QM region and keeps the models."""
    config.write_text(config.read_text().replace('"resname URA"', str([*range(12), *WATERS])))
    message = fail("check", config)
    assert message.endswith("delta model: expected a QM region C4H4N2O2, found C4H8N2O4")
    assert "delta-0.pt" in message


def test_check_refuses_a_damaged_model_in_one_line(config, fail):
    model = config.parent / "delta-1.pt"
    content = bytearray(model.read_bytes())
    content[-5000] ^= 4
    model.write_bytes(content)
    message = fail("check", config)
    assert "delta-1.pt" in message
    assert "damaged" in message


def test_one_model_twice_would_seem_sure_of_itself(config):
    shutil.copy(config.with_name("delta-0.pt"), config.with_name("delta-2.pt"))
    with pytest.raises(ModelError, match=r"delta-2.pt: expected models that differ, found .*delta-0.pt"):
        _ = Setup(load_config(config)).correction


def test_an_element_that_no_training_had_near_is_warned_of_where_models_are_asked_for():
    setup = Setup(load_config(ROOT / "inputs" / "sam-cytosine-water" / "pidelta.yaml"))
    (warning,) = setup.warnings()
    assert warning.startswith("delta: the training had no Cl near the QM atoms")
    assert setup.warnings({"mm", "delta.embedding"}) == [warning]
    assert setup.warnings({"mm", "low"}) == []
