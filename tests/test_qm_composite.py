"""r2SCAN-3c: energies of other programs, derivatives, and that no part is left out or a matter of choice."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from ase.data import atomic_numbers

from conftest import ROOT
from pidelta.cli.main import main
from pidelta.data.frames import Frame
from pidelta.data.store import FrameStore
from pidelta.errors import MissingExtraError, SettingError
from pidelta.qm.composite import COMPOSITES, Counterpoise, load_counterpoise
from pidelta.qm.dispersion import Dispersion
from pidelta.qm.reference import label_frame
from pidelta.qm.reference_settings import ReferenceSettings, check_level
from pidelta.testing.derivatives import central_differences
from pidelta.units import ANGSTROM
from pidelta.workflow.learning.settings import LabelSettings

pytest.importorskip("dftd3")
pytest.importorskip("dftd4")
pytest.importorskip("pyscf")

R2SCAN_3C = ReferenceSettings("r2SCAN-3c")
PARTS = COMPOSITES["r2scan3c"]
RECORDS = json.loads((ROOT / "tests" / "data" / "r2scan-3c.json").read_text())["records"]
NONE = np.zeros((0, 3))


def structure(record):
    return np.array([atomic_numbers[symbol] for symbol in record["symbols"]]), np.array(record["positions"])


def water(length, angle):
    """As Psi4 orients it: the symmetry axis is z, the first hydrogen at negative y."""
    across, along = length * np.sin(0.5 * angle), length * np.cos(0.5 * angle)
    positions = np.array([[0.0, 0.0, 0.0], [0.0, -across, along], [0.0, across, along]]) * ANGSTROM
    return Frame(np.array([8, 1, 1]), positions, NONE, NONE[:, 0], NONE[:, 0].astype(int), source="water")


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["name"])
def test_parts_are_those_of_other_programs(record):
    """ORCA knows the parameters by itself and prints 9 digits; with s9 = 1 the dimer would be 9e-9 off."""
    numbers, positions = structure(record)
    dispersion, counterpoise = (
        part.evaluate(positions[None])[0][0] for part in R2SCAN_3C.corrections(numbers)
    )
    if "dispersion" in record:
        tolerance = 6e-10 if "ORCA" in record["source"] else 1e-11
        assert dispersion == pytest.approx(record["dispersion"], abs=tolerance)
    if "counterpoise" in record:
        # The first program has its tables and cut-offs in other digits.
        assert counterpoise == pytest.approx(record["counterpoise"], abs=1e-8)


def test_counterpoise_has_a_name_that_the_package_knows():
    """For other names, such as that with a hyphen, it returns 0 and no error."""
    numbers, positions = np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]) * ANGSTROM
    energy, gradient = Counterpoise(numbers, PARTS.counterpoise).evaluate(positions[None])
    # pyscf/dispersion, tests/test_gcp.py
    assert energy[0] == pytest.approx(0.0002982079859909563, abs=1e-9)
    assert np.linalg.norm(gradient) == pytest.approx(0.0007006492552500862, abs=1e-9)
    assert Counterpoise(numbers, "r2scan-3c").evaluate(positions[None])[0][0] == 0.0


def test_gradients_of_the_parts_are_derivatives():
    numbers, positions = structure(RECORDS[0])
    for part in R2SCAN_3C.corrections(numbers, charge=1):
        numerical = central_differences(lambda p, part=part: part.evaluate(p)[0], positions, np.arange(16))
        gradient = part.evaluate(positions[None])[1][0]
        np.testing.assert_allclose(gradient, numerical, rtol=0, atol=1e-8)
        assert np.abs(gradient).max() > 1e-5


def test_dispersion_has_its_charge_scaling():
    numbers, positions = structure(RECORDS[2])
    own = R2SCAN_3C.corrections(numbers)[0].evaluate(positions[None])[0][0]
    other = Dispersion(numbers, "d4", PARTS.damping).evaluate(positions[None])[0][0]
    assert other - own == pytest.approx(6.04e-5, abs=1e-6)


def test_water_is_that_of_psi4():
    """By a public input with its results: 99 radial and 590 angular points; fitted by the larger basis."""
    settings = replace(R2SCAN_3C, auxiliary_basis="def2-universal-jkfit", grid_level=4)
    label = label_frame(water(0.96, np.radians(104.5)), settings)
    assert label.energy == pytest.approx(-76.41835894, abs=5e-6)
    expected = [[0.0, 0.0, 0.00270896], [0.0, 0.00079913, -0.00135448], [0.0, -0.00079913, -0.00135448]]
    # The grid rests, which matters on oxygen.
    np.testing.assert_allclose(label.gradient[1:], expected[1:], rtol=0, atol=1e-4)
    np.testing.assert_allclose(label.gradient[0], expected[0], rtol=0, atol=5e-4)


def test_a_label_has_all_parts():
    frame = water(0.96, np.radians(104.5))
    quick = replace(R2SCAN_3C, grid_level=0)
    bare = label_frame(frame, ReferenceSettings("r2SCAN", basis="def2-mTZVPP", grid_level=0))
    full = label_frame(frame, quick)
    parts = [part.evaluate(frame.positions[None]) for part in quick.corrections(frame.numbers)]
    assert len(parts) == 2
    assert full.energy - bare.energy == pytest.approx(sum(energy[0] for energy, _ in parts), abs=1e-8)
    np.testing.assert_allclose(
        full.gradient - bare.gradient, sum(gradient[0] for _, gradient in parts), rtol=0, atol=1e-6
    )
    np.testing.assert_array_equal(full.site_gradient, bare.site_gradient)
    assert full.method == (
        "RKS r2SCAN-3c/def2-mTZVPP, density fitting def2-universal-jfit, grid level 0 at rest, "
        "SCF 1e-08 hartree"
    )
    others = [ReferenceSettings("r2SCAN", "def2-mTZVPP", dispersion=kind) for kind in ("none", "d3bj", "d4")]
    assert len({R2SCAN_3C.method, *(other.method for other in others)}) == 4


@pytest.mark.parametrize("name", ["r2scan3c", "R2SCAN-3C", "r2scan_3c"])
def test_spellings_are_one_method(name):
    assert ReferenceSettings(name).method == R2SCAN_3C.method
    own = ReferenceSettings(name, basis="def2-mtzvpp", dispersion="d4")
    assert own.method == R2SCAN_3C.method
    assert ReferenceSettings(**LabelSettings(xc=name).model_dump()) == ReferenceSettings(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--basis", "def2-SVP"), "--basis: expected def2-mTZVPP, that of r2SCAN-3c, found 'def2-SVP'"),
        (("--dispersion", "d3bj"), "--dispersion: expected d4, that of r2SCAN-3c, found d3bj"),
        (("--dispersion", "none"), "--dispersion: expected d4, that of r2SCAN-3c, found none"),
    ],
)
def test_no_part_is_a_matter_of_choice(tmp_path, monkeypatch, capsys, options, message):
    frame = water(0.96, 1.8)
    with FrameStore(tmp_path / "f.h5", "a") as store:
        store.append(replace(frame, source=""))
    arguments = ["pidelta", "label", str(tmp_path / "f.h5"), "--xc", "r2SCAN-3c", *options]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == f"pidelta: {message}\n"


@pytest.mark.parametrize(
    "name", ["B97-3c", "B97_3C", "b973c", "wB97X-D", "wb97xd3", "WB97X_D3", "GGA_XC_B97_D"]
)
def test_functionals_that_lack_a_part_are_refused(name):
    """PySCF would give them without the corrections that were made for them."""
    with pytest.raises(SettingError, match=r"xc: expected .*without dispersion in its name, or r2SCAN-3c, f"):
        check_level(ReferenceSettings(name), np.array([1, 1]), 0, 1)


@pytest.mark.parametrize("name", ["wB97X", "B97-1", "PW91", "OPBE"])
def test_functionals_with_similar_names_are_taken(name):
    check_level(ReferenceSettings(name), np.array([1, 1]), 0, 1)


def test_a_package_without_counterpoise(monkeypatch):
    monkeypatch.delattr(importlib.import_module("dftd3.interface"), "GeometricCounterpoise")
    with pytest.raises(MissingExtraError, match=r"counterpoise correction needs .* dftd3, 1.3 or later: pip"):
        load_counterpoise()
    with pytest.raises(MissingExtraError, match="a counterpoise correction needs"):
        _ = R2SCAN_3C.method
