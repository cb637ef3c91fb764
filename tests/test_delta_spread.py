"""The spread of a committee: calibrated, by atom, and as the weight of a weighted baseline."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from delta_frames import calibrate, random_frame, random_model, write_store
from pidelta.config import load_config
from pidelta.data.frames import Label, LabelledFrame
from pidelta.data.store import FrameStore
from pidelta.delta.base import CorrectionResult
from pidelta.delta.calibration import _factor
from pidelta.delta.committee import Committee
from pidelta.delta.files import models_digest
from pidelta.delta.spread import Calibration
from pidelta.errors import ConfigError, ModelError, RunError
from pidelta.ipi.observers import EXTRAPOLATION, SPREAD
from pidelta.state import Evaluation, RegionGradient
from pidelta.testing.corrections import check_batch_and_padding, check_derivatives, check_inputs_and_memory
from pidelta.units import KCAL_PER_MOL
from pidelta.workflow.uncertain import SpreadLimit, UncertainFrames
from qmmm_systems import sample_of
from test_qmmm_conformance import set_up

ERROR = 1.0


def baseline(members=3, **options):
    models = [random_model(seed) for seed in range(members)]
    return Committee(models, 0.01, baseline_error=ERROR, **options)


def test_a_weighted_baseline_has_the_gradient_of_its_energy():
    """In positions of atoms and sites and in charges, where the weight is far from 0 and 1."""
    frame = random_frame(5)
    committee = baseline(calibration=Calibration(energy=1.7))
    weight = committee.evaluate(frame.region).properties["delta_weight"][0]
    assert 0.02 < weight < 0.98
    check_derivatives(committee, frame)
    check_batch_and_padding(committee, frame)
    check_inputs_and_memory(committee, frame)


def test_the_weight_is_that_of_the_formula():
    frame = random_frame(3)
    committee = baseline(calibration=Calibration(energy=2.0))
    weighted, plain = (
        committee.evaluate(frame.region),
        Committee(committee.members, 0.01).evaluate(frame.region),
    )
    spread = 2.0 * plain.properties["delta_energies"].std(axis=1, ddof=1)
    expected = ERROR**2 / (ERROR**2 + spread**2)
    np.testing.assert_allclose(weighted.properties["delta_weight"], expected, rtol=1e-12)
    np.testing.assert_allclose(weighted.energy, expected * plain.energy, rtol=1e-12)
    np.testing.assert_allclose(weighted.properties[SPREAD], spread, rtol=1e-12)


def test_members_that_agree_are_trusted_and_give_their_mean():
    """A model twice: no spread, weight 1, and no division by zero."""
    model, frame = random_model(1), random_frame(2)
    found = Committee([model, model], baseline_error=ERROR).evaluate(frame.region)
    expected = model.evaluate(frame.region)
    assert found.properties["delta_weight"] == [1.0]
    np.testing.assert_allclose(found.gradient.positions, expected.gradient.positions, rtol=1e-12)
    with pytest.raises(ModelError, match="two models"):
        Committee([model], baseline_error=ERROR)


def test_the_spread_of_forces_is_that_of_the_members():
    frame = random_frame(4)
    members = [random_model(seed) for seed in range(3)]
    committee = Committee(members, calibration=Calibration(force=3.0), force_deviation=True)
    found = committee.evaluate(frame.region).properties["delta_force_deviation"][0]
    forces = np.array([member.evaluate(frame.region).gradient.positions[0] for member in members])
    for atom in range(len(frame.numbers)):
        variances = [np.var(forces[:, atom, axis], ddof=1) for axis in range(3)]
        assert found[atom] == pytest.approx(3.0 * np.sqrt(np.mean(variances)))


class Guess:
    """A member whose energy and gradient, in truth none, have an error that all members share and its own.

    The errors are drawn once for each frame, which is known by its first coordinate.
    """

    def __init__(self, seed, shared, own):
        self._seed, self._shared, self._own = seed, shared, own
        model = random_model()
        self.provenance, self.uncertainty_threshold, self.properties = model.provenance, 1.0, ()

    def evaluate(self, region):
        key = int(abs(region.positions[0, 0, 0]) * 1e12)
        common, private = np.random.default_rng(key), np.random.default_rng([key, 1 + self._seed])
        n = region.positions.shape[1]
        errors = self._shared * common.normal(size=3 * n + 1) + self._own * private.normal(size=3 * n + 1)
        zeros = np.zeros(region.site_positions.shape)
        gradient = RegionGradient(errors[1:].reshape(1, n, 3), zeros, zeros[..., 0])
        return CorrectionResult(errors[:1], gradient)


def guessed(members, count, sources=lambda place: "", factor=lambda place: 1.0):
    """Frames on which each member errs by a shared 3, `factor` times as large, and an own 1."""
    items = []
    for place in range(count):
        frame = random_frame(place, source=sources(place))
        key = int(abs(frame.positions[0, 0]) * 1e12)
        shared = (factor(place) - 1.0) * SHARED * np.random.default_rng(key).normal(size=13)
        zeros = np.zeros((24, 3)), np.zeros(4)
        low, reference = (
            Label("", sign * shared[0] / 2, sign * shared[1:].reshape(4, 3) / 2, *zeros)
            for sign in (1.0, -1.0)
        )
        items.append(LabelledFrame(frame, reference, low))
    return [Guess(seed, SHARED, 1.0) for seed in range(members)], items


SHARED = 3.0


@pytest.mark.parametrize("members", [2, 4])
def test_calibration_finds_how_much_larger_errors_are_than_the_spread(members):
    """Members err by a shared 3 and an own 1: the mean of 4 by sqrt(9 + 1/4), their spread is 1."""
    found = calibrate(*guessed(members, 300))
    expected = np.sqrt(9.0 + 1.0 / members)
    assert found.calibration.energy == pytest.approx(expected, rel=0.1)
    assert found.calibration.force == pytest.approx(expected, rel=0.05)
    calibrated = found.calibration.force * found.force_spread
    assert np.mean(calibrated**2) == pytest.approx(np.mean(found.force_errors**2), rel=1e-12)


@pytest.mark.parametrize(("members", "energies"), [(2, 0.5), (4, 0.609)])
def test_a_true_factor_covers_what_normal_errors_have_it_cover(members, energies):
    """The share of |t| < 1 for t of K - 1 degrees of freedom: arctan for two members, tables for four."""
    found = calibrate(*guessed(members, 300)).judgement
    assert found.parts == 5
    rng = np.random.default_rng(5)
    atoms = rng.normal(size=(100_000, 3)), rng.normal(size=(100_000, members, 3))
    forces = np.mean((atoms[0] ** 2).mean(axis=1) < atoms[1].var(axis=1, ddof=1).mean(axis=1))
    assert found.expected == (pytest.approx(energies, abs=1e-3), pytest.approx(forces, abs=5e-3))
    assert found.inside == (pytest.approx(energies, abs=0.07), pytest.approx(forces, abs=0.04))
    assert 0.75 < found.energy_ratios[0] < found.energy_ratios[1] < 1.3
    assert 0.9 < found.force_ratios[0] < found.force_ratios[1] < 1.1


def test_a_factor_is_not_judged_by_the_frames_that_it_was_fitted_to():
    """One of five trajectories errs three times as much: others are judged by factors that it is part of."""
    sources = [f"{name}.pos_0.xyz step {step}" for name in "abcde" for step in range(60)]
    members, items = guessed(4, 300, sources.__getitem__, lambda place: 1.0 if place < 240 else 3.0)
    found = calibrate(members, items).judgement
    own, large = 9.0 + 0.25, 81.0 + 0.25
    others = 4.0 * own / (3.0 * own + large)
    assert found.force_ratios[1] == pytest.approx(np.sqrt(large / own), rel=0.1)
    assert found.force_ratios[0] == pytest.approx(np.sqrt(others), rel=0.1)
    assert found.energy_ratios[1] == pytest.approx(np.sqrt(large / own), rel=0.25)


def test_few_frames_are_no_judgement():
    assert calibrate(*guessed(2, 2)).judgement is None
    assert calibrate(*guessed(2, 3)).judgement.parts == 3


def test_models_that_give_the_same_have_no_factor(tmp_path, run, capsys):
    """One file twice is refused; other files with the same networks, but for rounding, are said."""
    write_store(tmp_path / "frames.h5", 12, seed=30)
    model = random_model(1)
    for name, error in (("0", 0.1), ("1", 0.1), ("2", 0.2), ("3", 0.3)):
        model.validation_error = error
        model.save(tmp_path / f"{name}.pt")
    members = [part for k in (0, 1) for part in ("--model", tmp_path / f"{k}.pt")]
    assert run("test", tmp_path / "frames.h5", *members) == 2
    message = f"{tmp_path / '1.pt'}: expected models that differ, found the same as in {tmp_path / '0.pt'}"
    assert capsys.readouterr().err == f"pidelta: {message}\n"
    members = [part for k in (0, 2, 3) for part in ("--model", tmp_path / f"{k}.pt")]
    more = ["--output", tmp_path / "out.json", "--report", tmp_path / "page"]
    assert run("test", tmp_path / "frames.h5", *members, *more) == 0
    printed = capsys.readouterr().out
    assert "There is no factor that makes the spread" in printed
    assert "calibration:" not in printed
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["calibration"], found["judgement"]) == (None, None)
    assert "There is no factor" in (tmp_path / "page" / "report.md").read_text()


def test_a_single_frame_has_no_factor_and_noise_of_a_mean_is_no_spread():
    assert not calibrate(*guessed(2, 1)).compared
    found = calibrate(*guessed(2, 3))
    assert found.compared
    assert (_factor(found.energy_errors, 1e-9 * found.energy_errors)) == 1.0


def test_a_committee_is_calibrated_as_pidelta_test_says(tmp_path, run, capsys):
    """The factors and the offset that are printed make the spread as large as the errors."""
    write_store(tmp_path / "frames.h5", 12, seed=30)
    for seed in range(2):
        random_model(seed).save(tmp_path / f"{seed}.pt")
    arguments = [tmp_path / "frames.h5", "--model", tmp_path / "0.pt", "--model", tmp_path / "1.pt"]
    assert run("test", *arguments) == 0
    printed = capsys.readouterr().out
    energy = float(printed.split("energy: ")[1].split(",")[0])
    offset = float(printed.split("offset: ")[1].split(" hartree")[0])
    models = [tmp_path / "1.pt", tmp_path / "0.pt"]  # in whatever order
    assert f', models: "{models_digest(models)}"}}' in printed
    assert "In 5 parts by trajectory or time" in printed
    with FrameStore(tmp_path / "frames.h5") as store:
        frames = list(store)
        methods = ("toy low", "toy reference")
        truth = [
            store.label(i, "reference", methods[1]).energy - store.label(i, "low", methods[0]).energy
            for i in range(len(store))
        ]
    assert offset == pytest.approx(np.mean(truth), abs=1e-6)
    committee = Committee([random_model(0), random_model(1)], calibration=Calibration(energy=energy))
    results = [committee.evaluate(frame.region) for frame in frames]
    errors = np.array([result.energy[0] for result in results]) - truth
    spread = np.array([result.properties[SPREAD][0] for result in results])
    assert np.sqrt(np.mean(spread**2)) == pytest.approx(np.std(errors), rel=1e-2)


def test_a_run_ends_where_the_models_differ_too_much():
    limit = SpreadLimit(1.0 * KCAL_PER_MOL)
    calm, wild = (Evaluation({}, properties={SPREAD: np.array([0.1, s]) * KCAL_PER_MOL}) for s in (0.9, 1.5))
    limit.after(np.zeros((2, 1, 3)), None, calm)
    with pytest.raises(RunError, match=r"differ by 1.5 kcal/mol in structure 1 .* limit of 1 kcal/mol"):
        limit.after(np.zeros((2, 1, 3)), None, wild)


def test_uncertain_structures_are_kept_for_labels(tmp_path):
    """The most uncertain of a request, by spread or by reach, and none of the requests right after it."""
    setup = set_up(tmp_path, "cutoff", "dftb", "builtin", "cubic")
    path, sample = tmp_path / "uncertain.h5", sample_of(setup)
    positions = np.concatenate([sample.positions[:1], sample.positions[:1] + 0.1])
    cells = np.repeat(sample.cells[:1], 2, axis=0)
    observer = UncertainFrames(path, setup.qm_region, setup.system, 1.0, setup.origin)

    def see(spread, reach):
        properties = {SPREAD: np.array(spread), EXTRAPOLATION: np.array(reach)}
        observer.after(positions, cells, Evaluation({}, properties=properties))

    see([0.9, 0.8], [0.5, 1.0])
    assert not path.exists()
    see([0.9, 0.8], [0.5, 1.1])
    for _ in range(19):
        see([5.0, 4.0], [0.5, 0.5])
    see([5.0, 4.0], [0.5, 0.5])
    with FrameStore(path) as store:
        kept, origin = list(store), store.provenance
    assert len(kept) == 2
    digest = hashlib.sha256(setup.config.structure.read_bytes()).hexdigest()[:16]
    assert origin["structure"] == f"{setup.config.structure.name} sha256 {digest}"
    particles = setup.qm_region.particles.place(positions, cells)  # with the charge sites of the water
    for frame, own in zip(kept, (1, 0), strict=True):
        region = setup.surroundings.cut(particles[own : own + 1], cells[:1])
        np.testing.assert_allclose(frame.positions, region.positions[0], atol=1e-12)
        np.testing.assert_allclose(np.sort(frame.site_charges), np.sort(region.site_charges[0]), atol=1e-12)


def config(tmp_path, delta):
    path = tmp_path / "pidelta.yaml"
    path.write_text(f"structure: a.xyz\nqm: {{atoms: all}}\ndelta: {delta}\n")
    return path


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        ("{models: [a.pt], baseline_error: 1 kcal/mol, offset: 0 eV}", "expected two models"),
        ("{models: [a.pt, b.pt], baseline_error: 1 kcal/mol}", "expected offset"),
        (
            "{models: [a.pt, b.pt], baseline_error: 1 eV, offset: 0 eV, properties: [committee_pot]}",
            "expected no committee_pot",
        ),
        ("{models: [a.pt], stop_above: 1 eV}", "stop_above: expected two models or more, .* found one"),
        ("{models: [a.pt], warn_above: 1 eV}", "warn_above: expected two models"),
        ("{models: [a.pt], calibration: {energy: 2}}", "calibration: expected two models"),
        ("{models: [a.pt, b.pt], calibration: {energy: 0}}", "calibration.energy"),
        ("{models: [a.pt, b.pt], stop_above: 3}", "stop_above: expected an energy with its unit"),
        ("none.yaml", "none.yaml: no such file"),
    ],
)
def test_a_wrong_section_is_one_line(tmp_path, delta, expected):
    with pytest.raises(ConfigError, match=expected):
        load_config(config(tmp_path, delta))


def test_the_section_may_be_a_file_whose_paths_are_its_own(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "delta.yaml").write_text("models: [a.pt, b.pt]\noffset: 1 eV\n")
    found = load_config(config(tmp_path, "models/delta.yaml")).delta
    assert found.models == [tmp_path / "models" / "a.pt", tmp_path / "models" / "b.pt"]
