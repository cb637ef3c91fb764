"""Training of delta models: the loss, what is learnt, resuming, the committee and the commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from delta_frames import write_store
from pidelta.cli import train as commands
from pidelta.data.store import FrameStore
from pidelta.delta.assessment import assess
from pidelta.delta.committee import Committee
from pidelta.delta.fitting import Fit
from pidelta.delta.model import DeltaModel, load_model
from pidelta.delta.settings import read_training_file
from pidelta.delta.targets import read_labelled
from pidelta.delta.training import initial_networks, prepare_training, train_models
from pidelta.errors import ConfigError, DataError, ModelError

SETTINGS = """
embedding: {scheme: cutoff, cutoff: 16.0 bohr, switch: 4.0 bohr}
descriptors: {radial_count: 8, env_count: 6, short_count: 3, short_cutoff: 9 bohr, radial_cutoff: 7 bohr}
training: {seed: 3, epochs: %d, batch_size: 10, hidden: [16, 16]}
"""


def settings_file(folder: Path, epochs: int):
    path = folder / "train.yaml"
    path.write_text(SETTINGS % epochs)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("frames") / "train.h5"
    write_store(path, 80, seed=100)
    return path


@pytest.fixture(scope="module")
def small_store(tmp_path_factory):
    path = tmp_path_factory.mktemp("frames") / "small.h5"
    write_store(path, 32, seed=100)
    return path


@pytest.fixture(scope="module")
def data(small_store, tmp_path_factory):
    file = read_training_file(settings_file(tmp_path_factory.mktemp("settings"), 4))
    return file.training, prepare_training(file, read_labelled([small_store]))


def weights(path: Path) -> list[torch.Tensor]:
    return list(load_model(path).networks.state_dict().values())


def test_frames_cut_with_another_embedding_are_refused(tmp_path):
    path = tmp_path / "frames.h5"
    write_store(path, 4, seed=1)
    file = read_training_file(settings_file(tmp_path, 1))
    with FrameStore(path, "a") as store:
        store.set_embedding({"scheme": "cutoff", "cutoff": 16.0, "switch": 3.0})
        with pytest.raises(DataError, match=r"expected frames cut with .*3.0.*, found .*4.0"):
            store.set_embedding(file.embedding.as_mapping())
    with pytest.raises(DataError, match=r"expected frames cut with .*4.0.*, found .*3.0"):
        read_labelled([path], file.embedding.as_mapping())
    assert len(read_labelled([path], {"scheme": "cutoff", "cutoff": 16.0, "switch": 3.0})) == 4


def test_errors_of_the_loss_are_those_of_the_model(small_store, data):
    """Gram matrices and Jacobians against the gradients that the model returns for the same networks."""
    settings, prepared = data
    frames = np.arange(len(prepared.sources))
    networks = initial_networks(prepared.settings, prepared.groups, frames, settings)
    fit = Fit(networks, prepared.groups, prepared.settings, frames, frames, settings)
    errors = fit.squared_errors((0, torch.arange(6)), create_graph=False)
    model = DeltaModel(prepared.settings, networks, prepared.training)
    for place, item in enumerate(read_labelled([small_store])[:6]):
        frame = item.frame
        result = model.evaluate(frame.region)
        low, reference, gradient = item.low, item.reference, result.gradient
        qm_error = gradient.positions[0] - reference.gradient + low.gradient
        mm_error = gradient.site_positions[0] - reference.site_gradient + low.site_gradient
        expected = {
            "energy": (result.energy[0] - reference.energy + low.energy) ** 2,
            "qm_gradient": (qm_error**2).mean(),
            "mm_gradient": (mm_error**2).mean(),
        }
        for name, value in expected.items():
            assert float(errors[name][place].detach()) == pytest.approx(value, rel=1e-7), name


def test_a_known_function_is_learnt(store, tmp_path):
    file = read_training_file(settings_file(tmp_path, 60))
    prepared = prepare_training(file, read_labelled([store]))
    (path,) = train_models(prepared, file.training, tmp_path)
    write_store(tmp_path / "held-out.h5", 20, seed=900, offset=-250.0)
    errors = assess(Committee([load_model(path)]), read_labelled([tmp_path / "held-out.h5"]))
    low, corrected = errors["low"], errors["low + delta"]
    assert corrected.energy[1] < 0.15 * low.energy[1]
    assert corrected.qm_gradient[1] < 0.13 * low.qm_gradient[1]
    assert corrected.mm_gradient[1] < 0.30 * low.mm_gradient[1]
    log = json.loads(path.with_suffix(".json").read_text())
    assert len(log["epochs"]) <= 60
    assert not set(log["train_sources"]) & set(log["validation_sources"])
    assert path.with_suffix(".png").stat().st_size > 1000


def test_training_depends_on_the_seed_alone(data, tmp_path):
    settings, prepared = data
    first = train_models(prepared, settings, tmp_path / "a", models=2)
    second = train_models(prepared, settings, tmp_path / "b", models=2)
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))
    assert not torch.equal(weights(first[0])[-1], weights(first[1])[-1])


def test_a_stopped_training_resumes_without_loss(data, tmp_path):
    settings, prepared = data
    whole = train_models(prepared, settings, tmp_path / "whole")

    def stop(model, history):
        if len(history) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_models(prepared, settings, tmp_path / "parts", report=stop)
    with pytest.raises(DataError, match="expected no earlier training"):
        train_models(prepared, settings, tmp_path / "parts")
    changed = settings.model_copy(update={"learning_rate": 0.1})
    with pytest.raises(ConfigError, match=r"training\.learning_rate: expected 0\.005"):
        train_models(prepared, changed, tmp_path / "parts", resume=True)
    parts = train_models(prepared, settings, tmp_path / "parts", resume=True)
    logs = [json.loads(path.with_suffix(".json").read_text()) for path in (whole[0], parts[0])]
    assert logs[0] == logs[1]
    assert all(torch.equal(a, b) for a, b in zip(weights(whole[0]), weights(parts[0]), strict=True))


def test_commands_train_and_test(small_store, tmp_path):
    app = typer.Typer()
    app.command()(commands.train)
    app.command()(commands.test)
    runner = CliRunner()
    arguments = ["--settings", str(settings_file(tmp_path, 3)), "--output", str(tmp_path / "out")]
    result = runner.invoke(
        app, ["train", str(small_store), *arguments, "--models", "2"], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert "delta-1.pt" in result.output
    table = tmp_path / "table.json"
    models = [f"--model={tmp_path / 'out' / f'delta-{k}.pt'}" for k in range(2)]
    result = runner.invoke(
        app, ["test", str(small_store), *models, "--output", str(table)], catch_exceptions=False
    )
    assert result.exit_code == 0
    errors = json.loads(table.read_text())["errors"]
    assert errors["low + delta"]["qm_gradient"][0] < errors["low"]["qm_gradient"][0]


def test_frames_of_another_low_level_are_refused(small_store, data, tmp_path):
    settings, prepared = data
    (path,) = train_models(prepared, settings.model_copy(update={"epochs": 1}), tmp_path)
    frames = read_labelled([small_store])
    frames[0] = type(frames[0])(frames[0].frame, frames[0].reference, frames[1].reference)
    with pytest.raises(ModelError, match="expected a low-level label by 'toy low'"):
        assess(Committee([load_model(path)]), frames)


def test_stores_without_both_labels_are_refused(tmp_path):
    write_store(tmp_path / "one.h5", 2, seed=0)
    with FrameStore(tmp_path / "none.h5", "a") as target, FrameStore(tmp_path / "one.h5") as source:
        target.append(source.frame(0))
    with pytest.raises(DataError, match="found none"):
        read_labelled([tmp_path / "none.h5"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("embedding: {scheme: cutoff, cutoff: 1.4 nm, switch: 0.2 nm}\nspeed: 3", "unknown key speed"),
        ("training: {epochs: 3}", "missing key embedding"),
        ("embedding: {cutoff: 1.4, switch: 0.2 nm}", "embedding.cutoff: expected a length with its unit"),
        ("embedding: {scheme: fixed}", "descriptors.env_cutoff"),
        ("embedding: [", "not a YAML file"),
        ("embedding: {cutoff: 1.4 nm, switch: 0.2 nm}\ntraining: {epochs: 0}", "training.epochs"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "train.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as info:
        read_training_file(path)
    assert message in str(info.value)
    assert str(path) in str(info.value)
    assert "\n" not in str(info.value)
