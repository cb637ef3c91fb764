"""Training that begins with an earlier model: where it begins, what it keeps, and what does not fit."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from delta_frames import EMBEDDING, write_store
from pidelta.data.labelled import read_labelled
from pidelta.data.store import FrameStore
from pidelta.delta.assessment import assess
from pidelta.delta.coverage import Coverage
from pidelta.delta.loading import load_correction
from pidelta.delta.network_model import NetworkModel
from pidelta.delta.training.run import coverage_group, prepare_training, train_models
from pidelta.delta.training.settings import read_training_file
from pidelta.delta.training.starts import read_starts
from pidelta.delta.training.targets import prepare
from pidelta.errors import ConfigError, ModelError

SETTINGS = """
model: {model}
embedding: {{scheme: cutoff, cutoff: 16.0 bohr, switch: {switch} bohr}}
descriptors: {{radial_count: 4, short_count: 3, short_cutoff: 9 bohr, radial_cutoff: 7 bohr}}
networks: {networks}
training: {{seed: 3, epochs: 3, batch_size: 10, learning_rate: {rate}}}
"""
NETWORKS = {"hdnnp": "{hidden: [8]}", "response": "{response_width: 16, energy_width: 8, pair_width: 8}"}


def settings(folder, model="response", networks=None, rate=1e-3, switch=4.0):
    path = folder / f"train-{model}.yaml"
    networks = NETWORKS[model] if networks is None else networks
    path.write_text(SETTINGS.format(model=model, networks=networks, rate=rate, switch=switch))
    return read_training_file(path)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    for name, count, seed in (("old", 16, 100), ("new", 12, 300)):
        write_store(folder / f"{name}.h5", count, seed)
    return folder


@pytest.fixture(scope="module")
def earlier(stores, tmp_path_factory):
    """A model of each kind."""
    folder = tmp_path_factory.mktemp("earlier")
    paths = {}
    for model in NETWORKS:
        file = settings(folder, model)
        data = prepare_training(file, read_labelled([stores / "old.h5"]).frames)
        (paths[model],) = train_models(data, file.training, folder / model)
    return paths


def continued(stores, file, *starts):
    frames = read_labelled([stores / "new.h5"]).frames
    return prepare_training(file, frames, starts=read_starts(starts))


@pytest.mark.parametrize("model", NETWORKS)
def test_training_begins_at_the_error_of_the_earlier_model_and_never_ends_above_it(
    stores, earlier, tmp_path, model
):
    """With steps that ruin it the weights of the start are kept, and with them its error."""
    start = earlier[model]
    ruinous, careful = settings(tmp_path, model, rate=30.0), settings(tmp_path, model, rate=1e-4)
    (path,) = train_models(continued(stores, ruinous, start), ruinous.training, tmp_path / "ruined")
    log = json.loads(path.with_suffix(".json").read_text())
    frames = read_labelled([stores / "new.h5"]).frames
    held_out = [item for item in frames if item.frame.source in log["validation_sources"]]
    old, new = (load_correction(each) for each in (start, path))
    raw = [
        old.evaluate(item.frame.region).energy[0] - item.reference.energy + item.low.energy
        for item in held_out
    ]
    assert log["start"]["errors"]["energy_rmse"] == pytest.approx(np.sqrt(np.mean(np.square(raw))), rel=1e-9)
    assert log["start"]["errors"]["validation_loss"] < min(row["validation_loss"] for row in log["epochs"])
    assert new.uncertainty_threshold == 2.0 * log["start"]["errors"]["energy_rmse"]
    states = [each.networks.state_dict() for each in (old, new)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    digest = hashlib.sha256(start.read_bytes()).hexdigest()
    assert new.provenance == replace(old.provenance, start=digest)
    assert log["start"]["sha256"] == digest
    (path,) = train_models(continued(stores, careful, start), careful.training, tmp_path / "better")
    log = json.loads(path.with_suffix(".json").read_text())
    losses = [row["validation_loss"] for row in log["epochs"]]
    assert min(losses) < log["start"]["errors"]["validation_loss"]
    assert losses[0] == pytest.approx(log["start"]["errors"]["validation_loss"], rel=0.2)
    after, before = (assess(load_correction(each), frames)["low + delta"] for each in (path, start))
    assert after.qm_gradient[1] < before.qm_gradient[1]


def test_descriptor_ranges_are_those_of_the_old_and_the_new_frames(stores, earlier, tmp_path):
    """An atom is as far as from the nearer of the two, before and after the file, and in a third training."""
    file = settings(tmp_path)
    start = load_correction(earlier["response"])
    data = continued(stores, file, earlier["response"])
    new = Coverage.of_training(
        data.settings,
        [coverage_group(data.kind, data.settings, group) for group in data.groups],
        data.sources,
    )
    write_store(tmp_path / "other.h5", 6, seed=700)
    others = read_labelled([tmp_path / "other.h5"]).frames
    (group,) = prepare(data.settings, data.kind.field, others)
    seen, species, _ = coverage_group(data.kind, data.settings, group)
    expected = np.minimum(new.by_atom(seen, species), start.coverage.by_atom(seen, species))
    assert (new.by_atom(seen, species) != start.coverage.by_atom(seen, species)).all()
    np.testing.assert_array_equal(data.coverage.by_atom(seen, species), expected)
    (path,) = train_models(data, file.training, tmp_path / "out")
    model = load_correction(path)
    assert isinstance(model, NetworkModel)
    assert model.coverage.digest == data.coverage.digest
    np.testing.assert_array_equal(model.coverage.by_atom(seen, species), expected)
    third = continued(stores, file, path, path)  # twice, and its newer frames again
    assert [each.digest for each in third.coverage.earlier] == [new.digest, start.coverage.digest]
    np.testing.assert_array_equal(third.coverage.by_atom(seen, species), expected)


def test_a_stopped_training_resumes_from_the_same_start_alone(stores, earlier, tmp_path):
    file = settings(tmp_path)
    data = continued(stores, file, earlier["response"])

    def stop(model, history):
        if len(history) == 2:
            raise KeyboardInterrupt

    (whole,) = train_models(data, file.training, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_models(data, file.training, tmp_path / "parts", report=stop)
    fresh = continued(stores, file)
    with pytest.raises(ConfigError, match=r"model to start from '[0-9a-f]{64}' of .*, found 'none'"):
        train_models(fresh, file.training, tmp_path / "parts", resume=True)
    (parts,) = train_models(data, file.training, tmp_path / "parts", resume=True)
    logs = [json.loads(path.with_suffix(".json").read_text()) for path in (whole, parts)]
    assert logs[0] == logs[1]
    states = [load_correction(path).networks.state_dict() for path in (whole, parts)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_model_that_does_not_fit_is_refused_in_one_line(stores, earlier, tmp_path):
    path = earlier["response"]
    wider = "{response_width: 24, energy_width: 8, pair_width: 8}"
    for file, message in (
        (settings(tmp_path, "hdnnp"), "expected a model hdnnp to start from, found response"),
        (
            settings(tmp_path, networks=wider),
            "expected a model with response_width 24, as in this training, found 16: the settings of the "
            "training can ask for that",
        ),
        (settings(tmp_path, switch=3.0), "expected a model of the embedding switch 3.0, found 4.0"),
    ):
        with pytest.raises(ModelError) as info:
            continued(stores, file, path)
        assert str(info.value) == f"{path}: {message}"


def changed(path, target, change):
    """The frames of a store, all changed alike."""
    with FrameStore(path) as source, FrameStore(target, "a") as store:
        store.set_embedding(EMBEDDING)
        for place in range(len(source)):
            labels = [source.label(place, kind, f"toy {kind}") for kind in ("reference", "low")]
            frame, labels = change(source.frame(place), labels)
            index = store.append(frame)
            for kind, label in zip(("reference", "low"), labels, strict=True):
                store.set_label(index, kind, label)


def test_other_elements_and_methods_are_refused_and_fewer_are_not(stores, earlier, tmp_path, run, capsys):
    path = earlier["response"]
    settings(tmp_path)

    def with_sulphur(frame, labels):
        return replace(frame, numbers=np.array([16, 6, 1, 1])), labels

    def smaller(frame, labels):
        return replace(frame, numbers=frame.numbers[:3], positions=frame.positions[:3]), [
            replace(label, gradient=label.gradient[:3], charges=label.charges[:3]) for label in labels
        ]

    def near_sodium(frame, labels):
        return replace(frame, site_numbers=np.where(frame.site_numbers == 8, 11, 1)), labels

    def by_another_method(frame, labels):
        return frame, [replace(labels[0], method="CCSD(T)"), labels[1]]

    for change, message in (
        (with_sulphur, "expected a model of QM atoms of H, C, S, found one of H, C, O"),
        (near_sodium, "expected a model of MM atoms near the QM atoms of H, Na, found one of H, O"),
        (smaller, "expected a model of the QM region CHO, found CH2O"),
        (by_another_method, "expected a model of the reference 'CCSD(T)', found 'toy reference'"),
    ):
        frames = tmp_path / f"{change.__name__}.h5"
        changed(stores / "new.h5", frames, change)
        arguments = [frames, "--settings", tmp_path / "train-response.yaml", "--output", tmp_path / "out"]
        assert run("train", *arguments, "--from", path) == 2
        assert capsys.readouterr().err == f"pidelta: {path}: {message}\n"
    assert run("train", *arguments, "--from", path, "--from", path) == 2
    message = "--from: expected one model, or 1 for --models 1, found 2"
    assert capsys.readouterr().err == f"pidelta: {message}\n"

    def without_oxygen_around(frame, labels):
        return replace(frame, site_numbers=np.ones_like(frame.site_numbers)), labels

    changed(stores / "new.h5", tmp_path / "fewer.h5", without_oxygen_around)
    arguments[0] = tmp_path / "fewer.h5"
    assert run("train", *arguments, "--from", path) == 0
    assert load_correction(tmp_path / "out" / "delta-0.pt").provenance.site_elements == (1, 8)


def renamed(path, target, name):
    """The frames of a store under the name of another trajectory."""
    changed(path, target, lambda frame, labels: (replace(frame, source=f"{name} {frame.source}"), labels))


@pytest.fixture(scope="module")
def two_trainings(stores, tmp_path_factory):
    """Old frames and a model of them; old and new frames under one settings file."""
    folder = tmp_path_factory.mktemp("two")
    settings(folder)
    for name in ("old", "new"):
        renamed(stores / f"{name}.h5", folder / f"{name}.h5", name)
    file = read_training_file(folder / "train-response.yaml")
    data = prepare_training(file, read_labelled([folder / "old.h5"]).frames)
    (path,) = train_models(data, file.training, folder / "first")
    return folder, path


def test_no_frame_that_the_earlier_model_learned_from_validates_the_later(two_trainings, run, capsys):
    """Or else no epoch is better than the earlier model, and training changes nothing."""
    folder, path = two_trainings
    arguments = [folder / "old.h5", folder / "new.h5", "--settings", folder / "train-response.yaml"]
    assert run("train", *arguments, "--from", path, "--output", folder / "second") == 0
    assert "learned from" not in capsys.readouterr().err
    first, second = (json.loads((folder / name / "delta-0.json").read_text()) for name in ("first", "second"))
    assert not set(second["validation_sources"]) & set(first["train_sources"])
    assert set(first["validation_sources"]) < set(second["validation_sources"])
    assert any(source.startswith("new") for source in second["validation_sources"])
    assert set(first["train_sources"]) < set(second["train_sources"])
    # A third one knows what the first learned from, though the second is its start.
    (third,) = read_starts([folder / "second" / "delta-0.pt"])
    assert third.learned == set(first["train_sources"]) | set(second["train_sources"])
    assert run("train", *arguments, "--from", path, "--output", folder / "second", "--resume") == 0
    assert "kept" in capsys.readouterr().out


def test_validation_by_frames_that_may_be_known_is_told(two_trainings, tmp_path, run, capsys):
    folder, path = two_trainings
    shutil.copy(path, tmp_path / "alone.pt")
    arguments = [folder / "old.h5", folder / "new.h5", "--settings", folder / "train-response.yaml"]
    assert run("train", *arguments, "--from", tmp_path / "alone.pt", "--output", tmp_path / "a") == 0
    error = capsys.readouterr().err
    assert f"{tmp_path / 'alone.pt'}: no log beside it says which frames it learned from" in error
    text = (folder / "train-response.yaml").read_text()
    (tmp_path / "held.yaml").write_text(
        text.replace("seed: 3", "validation_trajectories: [old]").replace(
            "learning_rate: 0.001", "learning_rate: 30"
        )
    )
    arguments = [folder / "old.h5", folder / "new.h5", "--settings", tmp_path / "held.yaml"]
    assert run("train", *arguments, "--from", path, "--output", tmp_path / "b") == 0
    error = capsys.readouterr().err
    learned = len(json.loads(path.with_suffix(".json").read_text())["train_sources"])
    assert f"delta-0: the earlier model learned from {learned} of its 16 validation frames" in error
    assert f"{tmp_path / 'b' / 'delta-0.pt'}: no epoch was better than the earlier model" in error
    page = (tmp_path / "b" / "delta-0.validation" / "report.md").read_text()
    assert "The earlier model may have learned from some of them" in page
