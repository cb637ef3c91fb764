"""The page of the errors of delta models: its numbers on frames with errors known by hand, and its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from delta_frames import NUMBERS, calibrate, random_frame, random_model, random_response, write_store
from pidelta.analysis.model_errors import model_errors
from pidelta.analysis.model_page import write_model_page
from pidelta.data.frames import Frame, Label, LabelledFrame
from pidelta.data.labelled import read_labelled
from pidelta.delta.assessment import GRADIENT_UNIT, by_trajectory, predict, summarise
from pidelta.delta.base import CorrectionResult
from pidelta.delta.calibration import reliability
from pidelta.delta.committee import Committee
from pidelta.delta.loading import load_correction
from pidelta.delta.region_features import RegionFeatures
from pidelta.state import RegionGradient
from pidelta.units import ANGSTROM, HARTREE_IN_KCAL_PER_MOL

# A QM region O-H, and sites of H, O and no nucleus at these distances from O, away from H.
DISTANCES = np.array([1.5, 3.5, 20.0])
SITES = np.array([1, 8, 0])
# Energies of the low level and with the model, less the reference: with a constant of their own.
LOW_ENERGIES, ENERGIES = np.array([7.0, 8.0, 12.0]), np.array([-5.0, -5.0, -2.0])


def frame(place):
    return Frame(
        numbers=np.array([8, 1]),
        positions=np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.8]]),
        site_positions=np.array([[0.0, 0.0, -distance * ANGSTROM] for distance in DISTANCES]),
        site_charges=np.array([0.4, -0.8, 0.4]),
        site_numbers=SITES,
        source=f"run | 1 step {place}",
    )


def labelled(place):
    """Low level less reference: LOW_ENERGIES; 0.4 and -0.2 on O and H; 0.3, 0.2, 0.1 on the sites."""
    rng = np.random.default_rng(place)
    energy, gradient, site_gradient = rng.normal(), rng.normal(size=(2, 3)), rng.normal(size=(3, 3))
    errors = np.array([0.4, -0.2])[:, None], np.array([0.3, 0.2, 0.1])[:, None]
    reference = Label("toy reference", energy, gradient, site_gradient, np.zeros(2))
    low = (energy + LOW_ENERGIES[place], gradient + errors[0], site_gradient + errors[1])
    return LabelledFrame(frame(place), reference, Label("toy low", *low, np.zeros(2)))


class Known:
    """A correction that leaves ENERGIES; on O 0.04 of x alone, on H nothing; 0.03 on the nearest site.

    In the frame 1 it leaves ten times the error on O. The shift is an error of all components on O and H.
    """

    def __init__(self, energies=ENERGIES, shift=0.0):
        model = random_model(composition=(1, 8))
        self.provenance, self.uncertainty_threshold, self.properties = model.provenance, 1.0, ()
        self._energies, self._shift, self.place = energies, shift, 0

    def evaluate(self, region):
        place = self.place % 3
        self.place += 1
        gradient = np.array([[-0.4, -0.4, -0.4], [0.2, 0.2, 0.2]]) + self._shift
        gradient[0, 0] += 0.4 if place == 1 else 0.04
        sites = np.array([[-0.27] * 3, [-0.2] * 3, [-0.1] * 3])
        energy = self._energies[place] - LOW_ENERGIES[place]
        return CorrectionResult(
            np.array([energy]), RegionGradient(gradient[None], sites[None], np.zeros((1, 3)))
        )


class Ranged(Known):
    """The distance of O from the training is 0.5, in the second frame 1.5, and that of H 0.6."""

    def evaluate(self, region):
        result = super().evaluate(region)
        return replace(result, atom_extrapolation=np.array([[1.5 if self.place == 2 else 0.5, 0.6]]))


@pytest.fixture
def known():
    predictions = predict(Committee([Ranged()]), [labelled(place) for place in range(3)])
    places = [(Path("f.h5"), 2 * place) for place in range(3)]
    return model_errors(predictions, places, summarise(predictions), None)


def test_shares_hold_the_errors_of_their_atoms_alone(known):
    """MAE and RMSE of O: components 0.04, 0.4, 0.04 and six zeros."""
    squares = (2 * 0.04**2 + 0.4**2) / 9.0
    expected = {
        "qm_elements": [("H", 3, (0.2, 0.0), (0.2, 0.0)), ("O", 3, (0.4, 0.48 / 9), (0.4, squares**0.5))],
        "mm_distances": [
            ("0 to 2", 3, (0.3, 0.03), (0.3, 0.03)),
            ("3 to 4", 3, (0.2, 0.0), (0.2, 0.0)),
            ("beyond 14", 3, (0.1, 0.0), (0.1, 0.0)),
        ],
        "mm_elements": [
            ("no nucleus", 3, (0.1, 0.0), (0.1, 0.0)),
            ("H", 3, (0.3, 0.03), (0.3, 0.03)),
            ("O", 3, (0.2, 0.0), (0.2, 0.0)),
        ],
    }
    for name, shares in expected.items():
        found = getattr(known, name)
        assert [(share.name, share.atoms) for share in found] == [share[:2] for share in shares], name
        for share, (_, _, mae, rmse) in zip(found, shares, strict=True):
            assert np.array(share.mae) / GRADIENT_UNIT == pytest.approx(mae, abs=1e-12), name
            assert np.array(share.rmse) / GRADIENT_UNIT == pytest.approx(rmse, abs=1e-12), name
    summary = known.summary["low + delta"]
    assert summary.qm_gradient[1] / GRADIENT_UNIT == pytest.approx((squares / 2.0) ** 0.5)


def test_frames_have_their_own_errors_and_atoms_beyond_the_training(known):
    """Energies less their mean error: -2, -1, 3 of the low level, -1, -1, 2 with the model."""
    energies = np.array([found.energy for found in known.frames]) / HARTREE_IN_KCAL_PER_MOL
    np.testing.assert_allclose(energies, [[-2.0, -1.0], [-1.0, -1.0], [3.0, 2.0]], atol=1e-12)
    gradients = np.array([found.qm_gradient for found in known.frames]) / GRADIENT_UNIT
    np.testing.assert_allclose(gradients[:, 0], np.sqrt(0.1), rtol=1e-12)
    np.testing.assert_allclose(gradients[:, 1], np.array([0.04, 0.4, 0.04]) / np.sqrt(6.0), rtol=1e-12)
    assert [found.outside for found in known.frames] == [(), (0,), ()]
    # Relative to their RMS: 1.71 of the gradient in frame 1, 1.41 of the energy in frame 2.
    assert [(found.file, found.number) for found in known.worst(2)] == [("f.h5", 2), ("f.h5", 4)]


def test_errors_of_each_trajectory(tmp_path):
    """Frames 0 and 2, of two beads, and 1 and 3; errors of the low level 7, 12 and 8, 7, with the model
    -5, -2 and -5, -5."""
    sources = ["a.pos_0.xyz step 3", "b.xyz step 3", "a.pos_1.xyz step 3", "b.xyz step 4"]
    items = [
        replace(item, frame=replace(item.frame, source=source))
        for item, source in zip((labelled(place % 3) for place in range(4)), sources, strict=True)
    ]
    predictions = predict(Committee([Known()]), items)
    one, other = by_trajectory(predictions)
    assert [(each.name, each.frames) for each in (one, other)] == [("a.pos.xyz", 2), ("b.xyz", 2)]
    unit = HARTREE_IN_KCAL_PER_MOL
    for each, low, corrected in ((one, 9.5 - 8.5, -3.5 + 4.25), (other, 7.5 - 8.5, -5.0 + 4.25)):
        assert each.shift["low"] / unit == pytest.approx(low)
        assert each.shift["low + delta"] / unit == pytest.approx(corrected)
    assert one.summary["low"].energy[0] / unit == pytest.approx(2.5)
    assert one.summary["low + delta"].energy[0] / unit == pytest.approx(1.5)
    assert other.summary["low + delta"].energy == (0.0, 0.0)
    # Frame 1 has the error of 0.4 of x on O, frame 3 that of 0.04.
    assert other.summary["low + delta"].qm_gradient[0] / GRADIENT_UNIT == pytest.approx(0.44 / 12)
    places = [(Path("f.h5"), place) for place in range(4)]
    write_model_page(model_errors(predictions, places, summarise(predictions), None), tmp_path, "Errors", [])
    assert "| b.xyz, with the models | 2 | -0.75 |".replace("-0.75", f"{-0.75 * unit:+.3g}") in (
        tmp_path / "report.md"
    ).read_text(encoding="utf-8")
    assert by_trajectory(predictions[:1] + predictions[2:3]) == []
    assert by_trajectory(predictions[:2]) == []


def test_parity_is_of_the_reference_and_both_methods(known):
    parity = known.parity["energy"]
    references = np.array([labelled(place).reference.energy for place in range(3)])
    references = (references - references.mean()) * HARTREE_IN_KCAL_PER_MOL
    np.testing.assert_allclose(parity.reference, references, atol=1e-9)
    shifts = np.array([-1.0, -1.0, 2.0]) * HARTREE_IN_KCAL_PER_MOL
    np.testing.assert_allclose(parity.corrected, references + shifts, atol=1e-9)
    sites = known.parity["mm_gradient"]
    errors = (sites.low - sites.reference).reshape(3, 3, 3) / GRADIENT_UNIT
    np.testing.assert_allclose(errors, np.array([0.3, 0.2, 0.1])[:, None] * np.ones((3, 3, 3)), atol=1e-12)


def test_a_committee_covers_the_errors_that_are_within_its_spread():
    """Two members a constant apart, so that the spread is alike in all frames.

    Of energies with errors 1, 1 and 2 two are within their RMS, of the atoms all but O in the frame 1.
    """
    members = [Known(), Known(ENERGIES + 0.1, shift=0.02)]
    committee = Committee(members, force_deviation=True)
    predictions = predict(committee, [labelled(place) for place in range(3)])
    found = reliability(predictions, len(members))
    assert found.inside() == pytest.approx(2.0 / 3.0)
    assert found.calibration.energy == pytest.approx(np.sqrt(2.0) / (0.1 / np.sqrt(2.0)))
    assert found.forces_inside() == pytest.approx(5.0 / 6.0)
    assert all(each.result.atom_extrapolation is None for each in predictions)


@pytest.mark.parametrize("kind", [random_model, random_response])
def test_the_farthest_atom_is_what_the_model_warns_of(kind):
    model, region = kind(3), random_frame(7).region
    result = model.evaluate(region)
    distances = result.atom_extrapolation
    assert distances.shape == (1, len(NUMBERS))
    assert distances.max() == result.properties["delta_extrapolation"][0]
    for one_by_one in (False, True):
        found = Committee([model, kind(4)], force_deviation=one_by_one).evaluate(region).atom_extrapolation
        np.testing.assert_allclose(found, distances, rtol=1e-12)


def test_regions_of_different_size_are_calibrated_together():
    items = []
    for place in range(4):
        item, n = labelled(place % 3), 2 - place % 2
        own = Frame(
            item.frame.numbers[:n],
            item.frame.positions[:n],
            item.frame.site_positions,
            item.frame.site_charges,
            item.frame.site_numbers,
        )
        label = Label("", 0.1 * place, np.full((n, 3), 0.2), np.zeros((3, 3)), np.zeros(n))
        zero = Label("", 0.0, np.zeros((n, 3)), np.zeros((3, 3)), np.zeros(n))
        items.append(LabelledFrame(own, label, zero))

    class Flat(Known):
        def __init__(self, slope):
            super().__init__()
            self._slope = slope

        def evaluate(self, region):
            sites = np.zeros(region.site_positions.shape)
            gradient = RegionGradient(np.full(region.positions.shape, self._slope), sites, sites[..., 0])
            return CorrectionResult(np.array([self._slope]), gradient)

    # Errors -0.2 in all components; members at -0.1 and 0.1 have the spread 0.1 sqrt(2).
    found = calibrate([Flat(-0.1), Flat(0.1)], items)
    assert found.force_errors.shape == (6,)
    assert found.calibration.force == pytest.approx(0.2 / (0.1 * np.sqrt(2.0)))


def columns(page, title):
    """Cells of the first table after a title: of its head and of its rows."""
    lines = page.split(f"## {title}\n")[1].split("\n## ")[0].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in (rows[0], *rows[2:])]


def test_the_command_writes_a_page_with_pictures_and_all_numbers(tmp_path, run, capsys, monkeypatch):
    write_store(tmp_path / "frames.h5", 12, seed=30)
    models = []
    for seed in range(2):
        models += ["--model", tmp_path / f"{seed}.pt"]
        random_response(seed).save(models[-1])
    folder = tmp_path / "out" / "page"
    evaluated, features = [], RegionFeatures.features
    monkeypatch.setattr(RegionFeatures, "features", lambda self: evaluated.append(self) or features(self))
    assert run("test", tmp_path / "frames.h5", *models, "--report", folder) == 0
    assert f"report: {folder / 'report.md'}" in capsys.readouterr().out
    assert len(evaluated) == 2 * 12  # each frame once by each model
    names = ["errors.png", "parity.png", "report.json", "report.md", "spread.png"]
    assert sorted(path.name for path in folder.iterdir()) == names
    page, data = (folder / "report.md").read_text(), json.loads((folder / "report.json").read_text())
    for name in ("errors.png", "parity.png", "spread.png"):
        assert f"({name})" in page
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    head, *rows = columns(page, "Worst frames")
    assert head[:3] == ["frame", "file", "source"]
    assert len(rows) == 10
    worst = {(frame["file"], frame["number"]): frame for frame in data["frames"]}[tuple(data["worst"][0])]
    assert rows[0][:3] == [str(worst["number"]), worst["file"], worst["source"]]
    assert rows[0][3].startswith(f"{worst['energy'][1]:+.3g} (")
    assert [row["name"] for row in data["qm_gradient_by_element"]] == ["H", "C", "O"]
    assert [row["atoms"] for row in data["mm_gradient_by_element"]] == [16 * 12, 8 * 12]
    assert sum(row["atoms"] for row in data["mm_gradient_by_distance"]) == 24 * 12
    assert 0.0 <= data["spread"]["energies_inside"] <= 1.0
    committee = Committee([load_correction(path) for path in models[1::2]])
    (first, *_) = read_labelled([tmp_path / "frames.h5"]).frames
    expected = committee.evaluate(first.frame.region).properties["delta_extrapolation"][0]
    assert max(data["frames"][0]["extrapolation"]) == pytest.approx(expected)
