"""`pidelta learn` as a whole: rounds that end, that go on after any stop, and one with i-PI and PySCF."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from pidelta.analysis.learning_page import write_learning_page
from pidelta.cli import conservation
from pidelta.cli.configuration_digest import configuration_digest
from pidelta.cli.learn import _Tasks
from pidelta.config import load_config, load_delta
from pidelta.data.store import FrameStore
from pidelta.delta.assessment import ErrorSummary
from pidelta.errors import DataError, RunError, SetupError
from pidelta.ipi.dynamics_input import PREFIX
from pidelta.ipi.trajectories import Snapshot
from pidelta.run_record import RECORD_VARIABLE, check_configuration
from pidelta.setup import Setup
from pidelta.state import FloatArray
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM
from pidelta.workflow import labelling
from pidelta.workflow.conservation import Run
from pidelta.workflow.learning.agreement import check_rounds
from pidelta.workflow.learning.loop import Loop
from pidelta.workflow.learning.pool import Subject
from pidelta.workflow.learning.rounds import (
    Round,
    RoundResult,
    completed,
    read_selection,
    why_to_end,
    write_json,
)
from pidelta.workflow.learning.settings import read_learning_file

DYNAMICS = "{temperature: 300 K, time: 12 fs, every: 1 fs}"
LEARN = f"""config: pidelta.yaml
training: train.yaml
models: 2
label: {{xc: PBE, basis: STO-3G, grid_level: 0}}
sample:
  - {DYNAMICS}
  - {{method: principal-components, draws: 4, solvents: 2}}
  - {{method: wigner, temperature: 300 K, draws: 4, solvents: 1}}
select: {{frames: 5}}
test: {{frames: 3, dynamics: {DYNAMICS}}}
trust: 2 kcal/mol
budget: {{rounds: 2}}
"""
TRAIN = """embedding: {scheme: cutoff, cutoff: 1.4 nm, switch: 0.2 nm}
training: {epochs: 2, patience: 2}
"""


@pytest.fixture
def folder(tmp_path):
    """A quantum-mechanical water among three others."""
    water = molecule("H2O").positions
    places = np.array([[0, 0, 0], [2.9, 0.2, 0.1], [-0.8, 2.8, 0.3], [0.4, -0.5, 2.9]])
    lines = [
        f"{symbol} {x:.6f} {y:.6f} {z:.6f}"
        for place in places
        for symbol, (x, y, z) in zip("OHH", water + place, strict=True)
    ]
    (tmp_path / "waters.xyz").write_text("\n".join(["12", "four waters", *lines]) + "\n")
    (tmp_path / "pidelta.yaml").write_text(
        "structure: waters.xyz\nqm: {atoms: [0, 1, 2]}\nmm: {water: spc-fw}\n"
    )
    (tmp_path / "train.yaml").write_text(TRAIN)
    (tmp_path / "learn.yaml").write_text(LEARN)
    return tmp_path


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    """Train here: processes are tested with the training, and each loads PyTorch anew."""

    def here(data, models, workers, task, report):
        for model in models:
            task(data, model, report)

    monkeypatch.setattr("pidelta.delta.training.run.in_processes", here)


class StoppedError(Exception):
    """In place of a kill."""


class StandIns(_Tasks):
    """Random walks for i-PI, DFTB of second order for DFT; all ends when `lives` pieces of work are done."""

    def __init__(self, setup: Setup, lives: int = 10**6) -> None:
        super().__init__(QUIET, read_learning_file(setup.config.path.with_name("learn.yaml")), setup, 1)
        config = setup.config
        other = config.qm.model_copy(update={"dftb": config.qm.dftb.model_copy(update={"order": 2})})
        self._reference = Setup(config.model_copy(update={"qm": other}))
        self.lives = lives

    def live(self):
        self.lives -= 1
        if self.lives < 0:
            raise StoppedError

    def note(self, text):
        pass

    def dynamics(self, run, committee, bias):
        assert (committee is None) == ("round-00" in run.folder.parts)
        rng = np.random.default_rng(run.dynamics.seed)
        path = run.folder / f"{PREFIX}.pos_0.xyz"
        steps = range(0, run.dynamics.steps + 1, run.dynamics.snapshots)
        with path.open("w") as stream:
            for step in steps:
                if step == 10:
                    self.live()
                positions = self._setup.system.positions + rng.normal(0.0, 0.06, (12, 3))
                stream.write(snapshot(positions, step))
        (run.folder / "RESTART").write_text(f"<simulation><step>{run.dynamics.steps}</step></simulation>")

    def label(self, frames):
        engine, low = self._reference.engine, self._setup.engine
        with FrameStore(frames, "a") as store:
            for index in store.unlabelled("reference", "stand-in"):
                self.live()
                for _, label in labelling.low_labels(store, [index], engine, 0, 1):
                    store.set_label(index, "reference", replace(label, method="stand-in"))
            if store.label(0, "reference", "another level") is None:  # as a level that was set back leaves it
                label = store.label(0, "reference", "stand-in")
                store.set_label(0, "reference", replace(label, method="another level"))
            left = store.unlabelled("low", low.identity)
            labelling.write_labels(store, "low", low.identity, labelling.low_labels(store, left, low, 0, 1))

    def train(self, frames, folder, reference, low):
        self.live()
        return super().train(frames, folder, reference, low)


class QUIET:
    """A console that says nothing."""

    @staticmethod
    def print(*words, **options):
        pass


def snapshot(positions: FloatArray, step: int) -> str:
    lines = [
        "12",
        f"# CELL(abcABC): 999.0 999.0 999.0 90.0 90.0 90.0 Step: {step} Bead: 0 "
        "positions{angstrom} cell{angstrom}",
    ]
    lines += [
        f"{symbol} {x:.10f} {y:.10f} {z:.10f}"
        for symbol, (x, y, z) in zip("OHH" * 4, positions / ANGSTROM, strict=True)
    ]
    return "\n".join(lines) + "\n"


def subject_of(setup, reference="stand-in"):
    digest = configuration_digest(setup.config)
    identity = setup.engine.identity
    return Subject(setup.system, setup.qm_region, ("mm", "low"), setup.origin, digest, reference, identity)


def learn(folder, root, lives=10**6):
    """Start the loop with stand-ins, once."""
    setup = Setup(load_config(folder / "pidelta.yaml"))
    file = read_learning_file(folder / "learn.yaml")
    subject = subject_of(setup)
    return Loop(root, file, subject, StandIns(setup, lives), lambda results: None).run()


def test_a_loop_that_is_stopped_anywhere_ends_in_the_same_state(folder):
    """Stopped before and in labelling, before a training, and twice in the second round."""
    whole, parts = folder / "whole", folder / "parts"
    assert learn(folder, whole) == "the budget of 2 rounds is spent"
    for lives in (0, 3, 7, 10, 1):
        with pytest.raises(StoppedError):
            learn(folder, parts, lives)
    assert len(completed(parts)) == 1
    assert learn(folder, parts) == "the budget of 2 rounds is spent"
    for number in range(2):
        one, other = Round(whole, number), Round(parts, number)
        picked, again = read_selection(one.selection), read_selection(other.selection)
        assert replace(picked, plane=[]) == replace(again, plane=[])
        np.testing.assert_allclose(picked.plane, again.plane, atol=1e-3)
        for name in ("frames", "test_frames"):
            with FrameStore(getattr(one, name)) as first, FrameStore(getattr(other, name)) as second:
                assert len(first) == len(second) == (5 if name == "frames" else 3)
                assert {"structure", "pidelta", "learn"} <= set(first.provenance)
                assert '"temperature":' in first.provenance["learn"]
                for a, b in zip(first, second, strict=True):
                    assert a.source == b.source
                    # Charges start from those of the last call, which a stop forgets: 1e-8 e. The soft modes
                    # of models of five frames make more of it in Wigner samples, whose spread is 0.1 bohr.
                    np.testing.assert_allclose(a.positions, b.positions, atol=1e-3)
    for one, other in zip(completed(whole), completed(parts), strict=True):
        assert (one.frames, one.test_frames) == (other.frames, other.test_frames)
        for errors, others in ((one.low, other.low), (one.corrected, other.corrected)):
            np.testing.assert_allclose(
                list(asdict(errors).values()), list(asdict(others).values()), rtol=1e-4
            )
    check_results(whole, folder)


def check_results(whole, folder):
    """What two rounds leave behind: frames of all sources, a page that shows it, models that are used."""
    results = completed(whole)
    assert [result.frames for result in results] == [5, 10]
    assert [result.test_frames for result in results] == [3, 6]
    assert results[0].before is None
    assert results[1].before.qm_gradient[0] > 0.0
    assert 0.0 < results[0].seconds < results[1].seconds
    selection = read_selection(Round(whole, 1).selection)
    assert selection.sampled == {"1-md": 12, "2-principal-components": 4, "3-wigner": 4}
    write_learning_page(whole, results, "pidelta learn learn.yaml")
    page = (whole / "page.md").read_text()
    assert "parts by trajectory or time" in page
    assert "10 labelled frames to train on, 6 to test on" in page
    for picture in ("errors.png", "frames.png", "spread.png"):
        assert picture in page
        assert (whole / picture).stat().st_size > 1000
    (folder / "pidelta.yaml").write_text(
        (folder / "pidelta.yaml").read_text() + "delta: whole/round-01/models/delta.yaml\n"
    )
    setup = Setup(load_config(folder / "pidelta.yaml"))
    found = setup.evaluator().evaluate(setup.system.positions[None], None)
    assert 0.0 < found.properties["delta_weight"][0] <= 1.0


def test_a_run_that_fails_counts_as_far_as_it_went(folder):
    """And one without any snapshot is an error."""

    class Failing(StandIns):
        def dynamics(self, run, committee, bias):
            super().dynamics(run, committee, bias)
            (run.folder / "RESTART").unlink()
            if run.folder.name == "1-md":
                path = run.folder / f"{PREFIX}.pos_0.xyz"
                lines = path.read_text().splitlines(keepends=True)
                path.write_text("".join(lines[: self.kept * 14]))
                raise RunError("the molecule fell apart")

    setup = Setup(load_config(folder / "pidelta.yaml"))
    text = LEARN.replace("rounds: 2", "rounds: 1").replace("frames: 5", "frames: 3")
    (folder / "learn.yaml").write_text(text)
    file = read_learning_file(folder / "learn.yaml")
    subject = subject_of(setup)
    tasks = Failing(setup)
    tasks.kept = 1
    with pytest.raises(RunError, match="fell apart"):
        Loop(folder / "out", file, subject, tasks, lambda results: None).run()
    tasks.kept = 6
    Loop(folder / "out", file, subject, tasks, lambda results: None).run()
    selection = read_selection(Round(folder / "out", 0).selection)
    assert selection.sampled["1-md"] == 5
    assert "the molecule fell apart" in selection.notes[0]


@pytest.mark.parametrize("round_number", [0, 1])
def test_dynamics_have_the_configuration_that_the_rounds_have(folder, monkeypatch, round_number):
    """Each client reads it anew, and the models of the round before in place of its own."""
    config = load_config(folder / "pidelta.yaml")
    tasks = _Tasks(QUIET, read_learning_file(folder / "learn.yaml"), Setup(config), 1)
    committee = None
    if round_number:
        (folder / "delta.pt").write_bytes(b"a model")
        (committee := folder / "delta.yaml").write_text("models: [delta.pt]\n")
    records = []
    monkeypatch.setattr(conservation, "run_all", lambda *arguments: records.append(arguments[3]))
    tasks.dynamics(Run(folder / "1-md", None, None), committee, None)
    monkeypatch.setenv(RECORD_VARIABLE, str(records[0]))

    def check():
        read = load_config(folder / "pidelta.yaml")
        check_configuration(
            read.model_copy(update={"delta": load_delta(committee)}) if round_number else read
        )

    check()
    waters, text = folder / "waters.xyz", (folder / "waters.xyz").read_text()
    waters.write_text(text.replace("four waters", "others"))
    with pytest.raises(SetupError, match=r"structure: expected waters\.xyz as when the run began"):
        check()
    waters.write_text(text)
    if round_number:
        (folder / "delta.pt").write_bytes(b"another model")
        with pytest.raises(SetupError, match=r"delta\.models\.0: expected delta\.pt as when the run began"):
            check()


def test_windows_begin_where_the_one_before_ended_and_later_where_they_ended_themselves(folder):
    class Recording(StandIns):
        def __init__(self, setup):
            super().__init__(setup)
            self.runs = {}

        def dynamics(self, run, committee, bias):
            place = run.folder.relative_to(folder / "out")
            assert place not in self.runs
            springs = None if bias is None else json.loads(bias.read_text())["centre"]
            self.runs[place] = (run.start, springs, run.dynamics.seed)
            rng = np.random.default_rng(run.dynamics.seed)
            with (run.folder / f"{PREFIX}.pos_0.xyz").open("w") as stream:
                for step in range(0, run.dynamics.steps + 1, run.dynamics.snapshots):
                    moved = rng.normal(0.0, 0.06, (12, 3))
                    stream.write(snapshot(self._setup.system.positions + moved, step))
            (run.folder / "RESTART").write_text("<simulation><step>60</step></simulation>")

    umbrella = f"{{method: umbrella, distances: [[0, 1]], centres: [1 angstrom, 1.2 angstrom], {DYNAMICS[1:]}"
    text = LEARN.replace(f"  - {DYNAMICS}\n", f"  - {DYNAMICS}\n  - {umbrella}\n", 1)
    (folder / "learn.yaml").write_text(text)
    setup = Setup(load_config(folder / "pidelta.yaml"))
    subject = subject_of(setup)
    tasks = Recording(setup)
    file = read_learning_file(folder / "learn.yaml")
    Loop(folder / "out", file, subject, tasks, lambda results: None).run()
    windows = [Path(f"round-0{k}/2-umbrella/0{n}") for k in range(2) for n in range(2)]
    starts = [tasks.runs[window][0] for window in windows]
    out = folder / "out"
    assert starts[0] == out / "start.xyz"
    assert starts[1] == out / windows[0] / "RESTART"
    assert starts[2:] == [out / windows[0] / "RESTART", out / windows[1] / "RESTART"]
    centres = [tasks.runs[window][1] * BOHR_IN_ANGSTROM for window in windows]
    assert centres == pytest.approx([1.0, 1.2, 1.0, 1.2])
    assert len({seed for _, _, seed in tasks.runs.values()}) == len(tasks.runs)
    assert read_selection(Round(out, 1).selection).sampled["2-umbrella"] == 24


UMBRELLA = f"{{method: umbrella, distances: [[0, 1]], centres: [1 angstrom, 1.2 angstrom], {DYNAMICS[1:]}"
BIASED = f"{{method: metadynamics, distances: [[0, 1]], {DYNAMICS[1:]}"


class Interrupted(StandIns):
    """Stopped in the middle of its run number `runs`."""

    def __init__(self, setup, runs):
        super().__init__(setup)
        self.runs = runs

    def dynamics(self, run, committee, bias):
        super().dynamics(run, committee, bias)
        self.runs -= 1
        if self.runs == 0:
            (run.folder / "RESTART").write_text("<simulation><step>7</step></simulation>")
            raise StoppedError


def start(folder, text, runs):
    """The notes of a loop that is stopped in a run."""
    (folder / "learn.yaml").write_text(text)
    setup = Setup(load_config(folder / "pidelta.yaml"))
    tasks = Interrupted(setup, runs)
    notes = []
    tasks.note = notes.append
    file = read_learning_file(folder / "learn.yaml")
    with pytest.raises(StoppedError):
        Loop(folder / "out", file, subject_of(setup), tasks, lambda results: None).run()
    return notes


@pytest.mark.parametrize(
    ("source", "old", "new", "expected"),
    [
        (DYNAMICS, "300 K", "900 K", "temperature 900 K, found those with 300 K"),
        (DYNAMICS, "every", "time_step: 0.25 fs, every", "time_step 0.25 fs, found those with 0.5 fs"),
        (DYNAMICS, "12 fs", "24 fs", "time 24 fs, found those with 12 fs"),
        (DYNAMICS, "{temp", "{beads: 4, temp", "beads 4, found those with 1"),
        (UMBRELLA, "1.2 angstrom", "1.3 angstrom", "centre 1.3 angstrom, found those with 1.2 angstrom"),
        (
            UMBRELLA,
            "temp",
            "stiffness: 90 kcal/mol/angstrom^2, temp",
            r"stiffness 90 kcal/mol/angstrom\^2, found .* 100",
        ),
        (BIASED, "temp", "width: 0.1 A, temp", "width 0.1 angstrom, found those with 0.05 angstrom"),
        (BIASED, "temp", "barrier: 5 kcal/mol, temp", "barrier 5 kcal/mol, found those with 10 kcal/mol"),
        (BIASED, "[0, 1]", "[0, 2]", r"distances \[\[0, 2\]\], found those with \[\[0, 1\]\]"),
    ],
)
def test_a_run_that_has_begun_goes_on_by_the_same_settings_alone(folder, source, old, new, expected):
    """Others are refused, and taken once its folder is removed."""

    def text(line):
        return LEARN.replace(f"  - {DYNAMICS}\n", f"  - {DYNAMICS}\n  - {line}\n", 1)

    runs = 4 if source is UMBRELLA else 3  # after that of the tests and the first source
    start(folder, text(source), runs)
    changed = text(source.replace(old, new, 1))
    with pytest.raises(SetupError, match=f"expected runs with {expected}.*; remove this folder") as caught:
        start(folder, changed, 1)
    run = Path(str(caught.value).split(": ")[0])
    assert run.parent.name in ("round-00", "2-umbrella")
    if source is UMBRELLA and old == "1.2 angstrom":
        assert run.name == "01"  # and the window before is as it was
    shutil.rmtree(run.parent if run.parent.name == "2-umbrella" else run)
    start(folder, changed, 1)


def test_a_run_goes_on_by_the_same_configuration_and_seed_alone(folder):
    start(folder, LEARN, 2)
    with pytest.raises(SetupError, match=r"round-00/test: expected runs with seed 3, found those with 0"):
        start(folder, f"seed: 3\n{LEARN}", 1)
    config = (folder / "pidelta.yaml").read_text()
    (folder / "pidelta.yaml").write_text(f"# a comment\n{config}")
    start(folder, LEARN, 1)
    (folder / "pidelta.yaml").write_text(config.replace("spc-fw", "q-tip4p-f"))
    with pytest.raises(SetupError, match=r"round-00/test: expected runs with configuration \w+, found"):
        start(folder, LEARN, 1)


def test_a_run_without_a_record_is_taken_with_a_note_and_one_without_a_step_begins_anew(folder):
    start(folder, LEARN, 2)
    run = folder / "out" / "round-00" / "1-md"
    (run / "options.json").unlink()
    notes = start(folder, LEARN, 1)
    assert "note: round-00 1-md does not say by which settings it was made, and is taken as it is" in notes
    (run / "RESTART").unlink()
    changed = LEARN.replace("300 K", "310 K", 1)
    start(folder, changed, 1)
    assert json.loads((run / "options.json").read_text())["temperature"] == "310 K"


def changed_subject(setup, name):
    """What a first round was made for, with one thing changed."""
    subject = subject_of(setup)
    if name == "reference":
        return replace(subject, reference="a third level")
    if name == "low":
        return replace(subject, low="another method")
    if name == "structure":
        return replace(subject, origin={**subject.origin, "structure": "other.xyz sha256 0"})
    region = subject.region
    if name == "elements":
        numbers = np.roll(region.partition.numbers, 1)
        return replace(subject, region=replace(region, partition=replace(region.partition, numbers=numbers)))
    return replace(subject, region=replace(region, **{name: getattr(region, name) + 2}))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "reference",
            "test.h5: expected reference labels by a third level, .* found another level; stand-in",
        ),
        ("low", "test.h5: expected low labels by another method, .* found DFTB3"),
        ("structure", "test.h5: expected frames of other.xyz sha256 0, .* found waters.xyz sha256"),
        ("charge", "test.h5: expected frames with charge 2, .* found 0"),
        ("multiplicity", "test.h5: expected frames with multiplicity 3, .* found 1"),
        ("elements", r"test.h5: expected a QM region of the elements \[1, 8, 1\], .* found \[8, 1, 1\]"),
    ],
)
def test_what_does_not_go_with_earlier_rounds_is_refused_before_the_next_samples(folder, name, expected):
    setup = Setup(load_config(folder / "pidelta.yaml"))
    file = read_learning_file(folder / "learn.yaml")
    earlier = Round(folder / "out", 0)
    earlier.folder.mkdir(parents=True)
    system = setup.system
    start = Snapshot(0, system.numbers, system.positions, np.eye(3))
    for path in (earlier.test_frames, earlier.frames):
        with FrameStore(path, "a") as store:
            store.set_embedding(setup.surroundings.settings)
            store.set_provenance(setup.origin)
            store.append(subject_of(setup).frame(start, "made up"))
        StandIns(setup).label(path)
    write_json(earlier.result, result())
    check_rounds([earlier], subject_of(setup))
    changed = Loop(
        folder / "out", file, changed_subject(setup, name), StandIns(setup, 0), lambda results: None
    )
    with pytest.raises(DataError, match=f"{expected}.*; undo the change or choose another") as caught:
        changed.run()
    assert "\n" not in str(caught.value)
    assert not (folder / "out" / "round-01").exists()


def test_frames_that_are_picked_stay_and_that_is_said(folder):
    class Stopping(StandIns):
        def train(self, *arguments):
            raise StoppedError

    notes = []
    for text in (LEARN, LEARN.replace("frames: 5", "frames: 4"), LEARN):
        (folder / "learn.yaml").write_text(text)
        setup = Setup(load_config(folder / "pidelta.yaml"))
        tasks = Stopping(setup)
        tasks.note = notes.append
        file = read_learning_file(folder / "learn.yaml")
        with pytest.raises(StoppedError):
            Loop(folder / "out", file, subject_of(setup), tasks, lambda results: None).run()
    assert [note for note in notes if note.startswith("note")] == [
        "note: round 0: its frames were picked before seed, sample, select or test changed, and stay"
    ]
    with FrameStore(Round(folder / "out", 0).frames) as store:
        assert len(store) == 5


def test_a_committee_is_what_its_section_names(tmp_path):
    """Where three models were trained before a stop and the settings ask for two now."""
    current = Round(tmp_path, 0)
    current.models.mkdir(parents=True)
    for place in range(3):
        (current.models / f"delta-{place}.pt").write_text("")
    current.committee.write_text("models: [delta-0.pt, delta-1.pt]\n")
    assert current.model_files() == [current.models / "delta-0.pt", current.models / "delta-1.pt"]
    current.committee.write_text("models: 3\n")
    with pytest.raises(DataError, match=r"delta\.yaml: expected what pidelta learn writes"):
        current.model_files()


def result(number=0, frames=20, seconds=3600.0, energy=1.0, gradient=2.0):
    errors = ErrorSummary((energy, energy), (gradient, gradient), (0.1, 0.1), (0.2, 0.2))
    return RoundResult(number, seconds, frames, 10, errors, errors, None, (1.0, 1.0), 0.5, [], [])


@pytest.mark.parametrize(
    ("options", "hours", "expected"),
    [
        ("budget: {rounds: 2}", 0.0, None),
        ("budget: {rounds: 1}", 0.0, "1 rounds"),
        ("budget: {frames: 38}", 0.0, None),
        ("budget: {frames: 37}", 0.0, "37 labelled frames: there are 30"),
        ("budget: {hours: 2.1}", 1.0, None),
        ("budget: {hours: 1.9}", 1.0, "1.9 hours: 1.00 are spent"),
        ("targets: {energy: 1.1 kcal/mol}", 0.0, "errors asked for"),
        ("targets: {energy: 0.9 kcal/mol}", 0.0, None),
        ("targets: {energy: 1.1 kcal/mol, qm_gradient: 1.9 kcal/mol/angstrom}", 0.0, None),
        ("targets: {energy: 1.1 kcal/mol, qm_gradient: 2.1 kcal/mol/angstrom}", 0.0, "errors asked for"),
    ],
)
def test_targets_and_budget_end_the_loop(folder, options, hours, expected):
    text = LEARN.replace("budget: {rounds: 2}", options)
    (folder / "learn.yaml").write_text(text)
    found = why_to_end([result()], read_learning_file(folder / "learn.yaml"), hours)
    assert found is None if expected is None else expected in found
    assert why_to_end([], read_learning_file(folder / "learn.yaml"), 100.0) is None


@pytest.mark.parametrize("method", ["metadynamics", "umbrella, centres: [1 angstrom]"])
def test_a_bias_on_atoms_that_are_not_quantum_is_refused(folder, fail, method):
    text = LEARN.replace(
        DYNAMICS, f"{{method: {method}, distances: [[0, 5]], {DYNAMICS[1:]}\n  - {DYNAMICS}", 1
    )
    (folder / "learn.yaml").write_text(text)
    line = fail("learn", folder / "learn.yaml")
    assert "learn.yaml: sample.0.distances: expected pairs of QM atoms (0 to 2), found [0, 5]" in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("embedding: {scheme: pme}\n", "train.yaml: embedding.scheme: .*found 'pme'"),
        ("embedding: {scheme: fixed}\n", "train.yaml: embedding.scheme: expected cutoff, .*found fixed"),
        (
            "embedding: {scheme: cutoff, cutoff: 0.7 nm, switch: 0.2 nm}\n",
            "train.yaml: embedding.cutoff: expected .* nm, as the frames of .*, found 0.7 nm",
        ),
    ],
    ids=["scheme", "fixed", "cutoff"],
)
def test_settings_of_the_training_are_checked_before_anything_is_sampled(folder, fail, text, expected):
    (folder / "train.yaml").write_text(text)
    line = fail("learn", folder / "learn.yaml")
    assert re.search(expected, line), line
    assert not (folder / "learn" / "round-00").exists()


def test_what_a_later_step_needs_is_looked_for_before_anything_is_sampled(folder, fail, monkeypatch):
    settings = folder / "learn.yaml"
    good = settings.read_text()
    settings.write_text(good.replace("STO-3G", "def2-NONSENSE"))
    assert "expected one that PySCF has for H, found 'def2-NONSENSE'" in fail("learn", settings)
    settings.write_text(good)
    monkeypatch.setitem(sys.modules, "skmatter.sample_selection", None)
    line = fail("learn", folder / "learn.yaml")
    assert "picking diverse frames needs the package skmatter: pip install 'pidelta[learn]'" in line
    assert not (folder / "learn" / "round-00").exists()


@pytest.mark.parametrize(
    ("region", "label", "expected"),
    [
        (
            "multiplicity: 3",
            "grid_level: 0",
            "learn.yaml: label.unrestricted: expected where electrons are unpaired, found 10 electrons and "
            "multiplicity 3",
        ),
        ("multiplicity: 3", "dispersion: d4", "learn.yaml: label.dispersion: found no published"),
        (
            "multiplicity: 1",
            "auxiliary_basis: nonsense",
            "learn.yaml: label.auxiliary_basis: expected one that",
        ),
    ],
    ids=["radical", "dispersion", "basis"],
)
def test_a_level_that_does_not_suit_the_region_is_refused_before_anything_is_sampled(
    folder, fail, region, label, expected
):
    config, settings = folder / "pidelta.yaml", folder / "learn.yaml"
    config.write_text(config.read_text().replace("[0, 1, 2]", f"[0, 1, 2], {region}"))
    xc = "revTPSS" if "dispersion" in label else "PBE"
    settings.write_text(LEARN.replace("xc: PBE", f"xc: {xc}").replace("grid_level: 0", label))
    assert expected in fail("learn", settings)
    assert not (folder / "learn" / "round-00").exists()


def test_learning_needs_a_region(folder, fail):
    (folder / "pidelta.yaml").write_text("structure: waters.xyz\nmm: {water: spc-fw}\n")
    assert "missing key qm" in fail("learn", folder / "learn.yaml")


@pytest.mark.slow
def test_with_ipi_and_pyscf(folder, run):
    """Classical, ring polymer and biased dynamics; a second call does nothing but write the page."""
    pytest.importorskip("pyscf")
    text = LEARN.replace("rounds: 2", "rounds: 1").replace(
        f"  - {DYNAMICS}\n",
        f"  - {DYNAMICS}\n  - {{beads: 4, {DYNAMICS[1:]}\n"
        f"  - {{method: metadynamics, distances: [[0, 1]], {DYNAMICS[1:]}\n",
    )
    (folder / "learn.yaml").write_text(text)
    assert run("learn", folder / "learn.yaml", "--workers", 1) == 0
    selection = read_selection(Round(folder / "learn", 0).selection)
    assert selection.sampled["1-md"] == 12
    assert selection.sampled["2-md"] == 48
    assert selection.sampled["3-metadynamics"] == 12
    bias = json.loads((folder / "learn" / "round-00" / "3-metadynamics" / "bias.json").read_text())
    assert len(bias["centres"]) == 12 + 48
    before = (folder / "learn" / "page.md").read_text()
    assert run("learn", folder / "learn.yaml") == 0
    assert (folder / "learn" / "page.md").read_text() == before
