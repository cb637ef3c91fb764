"""Training of delta models: the loss, what is learnt, resuming, the committee and the commands."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from delta_frames import write_store
from pidelta.cli import test as testing
from pidelta.cli import train as training
from pidelta.data.labelled import read_labelled
from pidelta.data.store import FrameStore
from pidelta.delta.assessment import GRADIENT_UNIT, assess
from pidelta.delta.committee import Committee
from pidelta.delta.coverage import Coverage
from pidelta.delta.loading import load_correction
from pidelta.delta.training.fitting import Fit
from pidelta.delta.training.parallel import in_processes
from pidelta.delta.training.run import coverage_group, initial_networks, prepare_training, train_models
from pidelta.delta.training.settings import read_training_file
from pidelta.delta.training.targets import prepare
from pidelta.errors import ConfigError, DataError, ModelError, RunError
from pidelta.units import ANGSTROM

SETTINGS = """
model: {model}
embedding: {{scheme: cutoff, cutoff: 16.0 bohr, switch: 4.0 bohr}}
descriptors: {{radial_count: 8, short_count: 3, short_cutoff: 9 bohr, radial_cutoff: 7 bohr}}
networks: {networks}
training: {{seed: 3, epochs: {epochs}, batch_size: 10}}
"""
NETWORKS = {"hdnnp": "{hidden: [16, 16]}", "response": "{response_width: 32, pair_width: 16}"}
KINDS = pytest.mark.parametrize("model", NETWORKS)


def settings_file(folder: Path, epochs: int, model: str = "response"):
    path = folder / "train.yaml"
    path.write_text(SETTINGS.format(model=model, networks=NETWORKS[model], epochs=epochs))
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
def both(small_store, tmp_path_factory):
    """Settings and prepared frames for both kinds of models."""
    prepared = {}
    for model in NETWORKS:
        file = read_training_file(settings_file(tmp_path_factory.mktemp("settings"), 4, model))
        prepared[model] = file.training, prepare_training(file, read_labelled([small_store]).frames)
    return prepared


@pytest.fixture(scope="module")
def data(both):
    return both["response"]


def weights(path: Path) -> list[torch.Tensor]:
    return list(load_correction(path).networks.state_dict().values())


def test_frames_cut_with_another_embedding_are_refused(tmp_path):
    path = tmp_path / "frames.h5"
    file = read_training_file(settings_file(tmp_path, 1))
    with FrameStore(path, "a") as store:
        store.set_embedding({"scheme": "cutoff", "cutoff": 16.0, "switch": 3.0})
    write_store(path, 4, seed=1)
    with (
        FrameStore(path, "a") as store,
        pytest.raises(DataError, match=r"expected frames cut with switch 0.158753 nm, found 0.211671 nm"),
    ):
        store.set_embedding(file.embedding.as_mapping())
    with pytest.raises(DataError, match=r"expected frames cut with switch 0.211671 nm, found 0.158753 nm"):
        read_labelled([path], file.embedding.as_mapping())
    assert len(read_labelled([path], {"scheme": "cutoff", "cutoff": 16.0, "switch": 3.0})) == 4


def weighted_square(item, errors):
    """Mean over components; each site counts as the square of its distance, in 3 angstrom."""
    nearest = [min(np.linalg.norm(item.frame.positions - site, axis=1)) for site in item.frame.site_positions]
    return np.mean(
        [
            (distance / (3.0 * ANGSTROM)) ** 2 * (error**2).mean()
            for distance, error in zip(nearest, errors, strict=True)
        ]
    )


@KINDS
def test_gradients_count_more_than_energies_unless_the_settings_say_how_much(small_store, both, model):
    settings, prepared = both[model]
    frames = np.arange(len(prepared.sources))
    networks = initial_networks(prepared, frames, settings.seed)
    items = read_labelled([small_store]).frames
    energies = np.array([item.reference.energy - item.low.energy for item in items])
    squares = {
        "qm_gradient": np.mean([(item.reference.gradient - item.low.gradient) ** 2 for item in items]),
        "mm_gradient": np.mean(
            [weighted_square(item, item.reference.site_gradient - item.low.site_gradient) for item in items]
        ),
    }
    arguments = networks, prepared.groups, prepared.settings, frames, frames
    found = Fit(*arguments, settings).weights
    terms = {name: found[name] * square / energies.var() for name, square in squares.items()}
    assert terms == pytest.approx({"qm_gradient": 100.0, "mm_gradient": 30.0}, rel=1e-6)
    given = settings.model_copy(update={"qm_gradient_weight": 3.0, "mm_gradient_weight": 0.0})
    assert Fit(*arguments, given).weights == {"energy": 1.0, "qm_gradient": 3.0, "mm_gradient": 0.0}


@KINDS
def test_errors_of_the_loss_are_those_of_the_model(small_store, both, model):
    """Gram matrices and Jacobians against the gradients that the model returns for the same networks."""
    settings, prepared = both[model]
    frames = np.arange(len(prepared.sources))
    networks = initial_networks(prepared, frames, settings.seed)
    fit = Fit(networks, prepared.groups, prepared.settings, frames, frames, settings)
    errors = fit.squared_errors(networks, (0, torch.arange(6)), create_graph=False)
    correction = prepared.kind(prepared.settings, networks, prepared.coverage, 0.0, prepared.provenance)
    for place, item in enumerate(read_labelled([small_store]).frames[:6]):
        frame = item.frame
        result = correction.evaluate(frame.region)
        low, reference, gradient = item.low, item.reference, result.gradient
        qm_error = gradient.positions[0] - reference.gradient + low.gradient
        mm_error = gradient.site_positions[0] - reference.site_gradient + low.site_gradient
        expected = {
            "energy": (result.energy[0] - reference.energy + low.energy) ** 2,
            "qm_gradient": (qm_error**2).mean(),
            "mm_gradient": weighted_square(item, mm_error),
        }
        for name, value in expected.items():
            assert float(errors[name][place].detach()) == pytest.approx(value, rel=1e-7), name


@KINDS
def test_a_known_function_is_learnt(store, tmp_path, model):
    file = read_training_file(settings_file(tmp_path, 40, model))
    prepared = prepare_training(file, read_labelled([store]).frames)
    (path,) = train_models(prepared, file.training, tmp_path)
    write_store(tmp_path / "held-out.h5", 20, seed=900, offset=-250.0)
    errors = assess(Committee([load_correction(path)]), read_labelled([tmp_path / "held-out.h5"]).frames)
    low, corrected = errors["low"], errors["low + delta"]
    assert corrected.energy[1] < 0.25 * low.energy[1]
    assert corrected.qm_gradient[1] < 0.15 * low.qm_gradient[1]
    assert corrected.mm_gradient[0] < 0.35 * low.mm_gradient[0]
    log = json.loads(path.with_suffix(".json").read_text())
    assert len(log["epochs"]) <= 40
    assert not set(log["train_sources"]) & set(log["validation_sources"])
    assert path.with_suffix(".png").stat().st_size > 1000


def test_training_depends_on_the_seed_alone_and_not_on_processes(data, tmp_path):
    settings, prepared = data
    first = train_models(prepared, settings, tmp_path / "a", models=2)
    second = train_models(prepared, settings, tmp_path / "b", models=2, workers=2)
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))
    assert not torch.equal(weights(first[0])[-1], weights(first[1])[-1])


def end_at_once(data, model, report):
    """A task whose process dies for the first model, while the second one waits for ever."""
    if model == 0:
        os._exit(9)
    time.sleep(600.0)


def test_a_process_that_dies_ends_the_training_with_one_line(data):
    with pytest.raises(RunError, match=r"^training: a worker process died.*use fewer --workers$"):
        in_processes(data[1], [0, 1], 2, end_at_once, lambda model, found: None)


def stop(model, history):
    if len(history) == 2:
        raise KeyboardInterrupt


def test_a_stopped_training_resumes_without_loss(data, tmp_path):
    settings, prepared = data
    whole = train_models(prepared, settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_models(prepared, settings, tmp_path / "parts", report=stop)
    with pytest.raises(DataError, match="expected no earlier training"):
        train_models(prepared, settings, tmp_path / "parts")
    changed = settings.model_copy(update={"learning_rate": 0.1})
    with pytest.raises(ConfigError, match=r"last.ckpt: expected training.learning_rate 0\.003"):
        train_models(prepared, changed, tmp_path / "parts", resume=True)
    parts = train_models(prepared, settings, tmp_path / "parts", resume=True)
    logs = [json.loads(path.with_suffix(".json").read_text()) for path in (whole[0], parts[0])]
    assert logs[0] == logs[1]
    assert all(torch.equal(a, b) for a, b in zip(weights(whole[0]), weights(parts[0]), strict=True))


def test_commands_train_and_test(small_store, tmp_path):
    app = typer.Typer()
    app.command()(training.train)
    app.command()(testing.test)
    runner = CliRunner()
    arguments = ["--settings", str(settings_file(tmp_path, 3)), "--output", str(tmp_path / "out")]
    result = runner.invoke(
        app,
        ["train", str(small_store), *arguments, "--models", "2", "--workers", "1"],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    assert "delta-1.pt" in result.output
    for k in range(2):
        folder = tmp_path / "out" / f"delta-{k}.validation"
        names = {"report.md", "report.json", "parity.png", "errors.png"}
        assert {path.name for path in folder.iterdir()} == names
        log = json.loads((tmp_path / "out" / f"delta-{k}.json").read_text())
        page = json.loads((folder / "report.json").read_text())
        assert [frame["source"] for frame in page["frames"]] == log["validation_sources"]
        best = min(log["epochs"], key=lambda row: row["validation_loss"])["qm_gradient_rmse"]
        assert page["errors"]["low + delta"]["qm_gradient"][1] == pytest.approx(best * GRADIENT_UNIT)
    table = tmp_path / "table.json"
    models = [f"--model={tmp_path / 'out' / f'delta-{k}.pt'}" for k in range(2)]
    result = runner.invoke(
        app, ["test", str(small_store), *models, "--output", str(table)], catch_exceptions=False
    )
    assert result.exit_code == 0
    errors = json.loads(table.read_text())["errors"]
    assert errors["low + delta"]["qm_gradient"][0] < errors["low"]["qm_gradient"][0]
    assert "note: 32 of 32 frames are, by their sources, those of the training of the models" in result.output
    copied = shutil.copy(small_store, tmp_path / "copy.h5")
    shutil.move(tmp_path / "out" / "delta-1.json", tmp_path / "elsewhere.json")
    write_store(tmp_path / "new.h5", 3, seed=900)
    files = [str(path) for path in (small_store, copied, tmp_path / "new.h5")]
    result = runner.invoke(app, ["test", *files, models[1]], catch_exceptions=False)
    lines = result.output.replace("\n", " ")
    assert f"note: {copied}: 32 frames are the same as earlier ones and are passed over" in lines
    assert f"{tmp_path / 'out' / 'delta-1.pt'}: no log beside it" in lines
    assert "35 frames" in lines


def test_complete_models_are_those_that_this_training_would_make(data, tmp_path):
    """Otherwise a committee is of different models, or a page of validation of frames that one knows."""
    settings, prepared = data
    settings = settings.model_copy(update={"epochs": 1})
    (path,) = train_models(prepared, settings, tmp_path)
    assert train_models(prepared, settings, tmp_path, resume=True) == [path]
    more_patient = settings.model_copy(update={"patience": 1000})
    assert train_models(prepared, more_patient, tmp_path, resume=True) == [path]
    log = path.with_suffix(".json")
    renamed = replace(prepared, sources=tuple(f"other {source}" for source in prepared.sources))
    farther = replace(prepared.settings, angular_zeta=9.0)
    longer = settings.model_copy(update={"epochs": 2})
    for frames, options, message in (
        (renamed, settings, r"json: expected the \d+ training and \d+ validation frames that it names"),
        (prepared, longer, "pt: expected training.epochs 1 of .* found 2"),
        (replace(prepared, settings=farther), settings, "pt: expected angular_zeta 8.0 of .* found 9.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            train_models(frames, options, tmp_path, models=2, resume=True)
        assert sorted(tmp_path.iterdir()) == [log, path.with_suffix(".png"), path]
    log.unlink()
    with pytest.raises(DataError, match=r"delta-0.json: expected the log of a model"):
        train_models(prepared, settings, tmp_path, resume=True)


def with_labels(items, change):
    """The same frames with other reference labels."""
    return [replace(item, reference=change(item.reference)) for item in items]


def test_models_of_another_reference_or_of_labels_since_replaced_are_not_kept(small_store, tmp_path):
    """Complete or not; one of a version whose log has no digest is known by its methods."""
    file = read_training_file(settings_file(tmp_path, 2))
    items = read_labelled([small_store]).frames
    other = with_labels(items, lambda label: replace(label, method="PBE0"))
    # The sum of the energies stays.
    turned = with_labels(items, lambda label: replace(label, gradient=-label.gradient))
    prepared, by_pbe0, replaced = (prepare_training(file, frames) for frames in (items, other, turned))
    (path,) = train_models(prepared, file.training, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_models(prepared, file.training, tmp_path / "parts", report=stop)
    for folder in ("whole", "parts"):
        for data, message in (
            (by_pbe0, "expected reference 'toy reference' of the .*, found 'PBE0': train anew"),
            (replaced, "expected digest of frames and labels '[0-9a-f]{16}' of the .*: train anew"),
        ):
            with pytest.raises(ConfigError, match=message) as info:
                train_models(data, file.training, tmp_path / folder, models=2, resume=True)
            assert str(info.value).startswith(str(tmp_path / folder / "delta-0."))
    log = path.with_suffix(".json")
    content = json.loads(log.read_text())
    del content["frames"]
    log.write_text(json.dumps(content))
    assert train_models(prepared, file.training, tmp_path / "whole", resume=True) == [path]
    with pytest.raises(ConfigError, match="expected reference 'toy reference'"):
        train_models(by_pbe0, file.training, tmp_path / "whole", resume=True)


def test_a_model_of_another_kind_is_named(both, tmp_path):
    train_models(both["hdnnp"][1], both["hdnnp"][0].model_copy(update={"epochs": 1}), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_models(both["hdnnp"][1], both["hdnnp"][0], tmp_path / "parts", report=stop)
    for folder in ("whole", "parts"):
        with pytest.raises(ConfigError, match=r"expected model 'hdnnp' of the .*, found 'response'"):
            train_models(both["response"][1], both["response"][0], tmp_path / folder, resume=True)


def test_a_damaged_checkpoint_is_one_line(data, tmp_path):
    settings, prepared = data
    last = tmp_path / "delta-0.checkpoints" / "last.ckpt"
    last.parent.mkdir()
    last.write_bytes(b"PK\3\4 cut")
    with pytest.raises(
        DataError, match=r"last.ckpt: expected a checkpoint to go on from, found none to read"
    ):
        train_models(prepared, settings, tmp_path, resume=True)


@pytest.mark.parametrize("model", ["hdnnp"])
def test_a_model_that_diverged_is_not_written_and_one_that_does_harm_is_warned_of(
    small_store, both, model, tmp_path, run, capsys
):
    settings, prepared = both[model]
    steep = settings.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(RunError, match=r"delta-0.pt: expected a validation loss below 1, .*learning_rate"):
        train_models(prepared, steep, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    path = settings_file(tmp_path, 1, model)
    arguments = ["train", small_store, "--settings", path, "--output", tmp_path / "out"]
    text = path.read_text()
    path.write_text(text.replace("seed: 3", "seed: 3, learning_rate: 0.3"))
    assert run(*arguments) == 0
    captured = capsys.readouterr()
    assert f"wrote {tmp_path / 'out' / 'delta-0.pt'}" in captured.out
    assert "delta-0.pt: the loss on validation frames is" in captured.err
    assert run(*arguments, "--resume") == 0
    captured = capsys.readouterr()
    assert f"kept {tmp_path / 'out' / 'delta-0.pt'}" in captured.out
    assert "wrote" not in captured.out
    assert "does more harm than good" in captured.err


def test_a_bootstrap_of_one_step_says_so(small_store, tmp_path):
    path = settings_file(tmp_path, 1)
    path.write_text(
        path.read_text().replace("seed: 3", "seed: 3, bootstrap: true, validation_fraction: 0.99")
    )
    file = read_training_file(path)
    message = r"^training.bootstrap: expected frames of at least 2 steps .* found 2 of one step"
    with pytest.raises(DataError, match=message):
        prepare_training(file, read_labelled([small_store]).frames)


@pytest.mark.parametrize("powers", ["[4]", "[5, 5]", "[18, 5]", "[65]", "[true]", "[5.0]"])
def test_near_powers_are_refused_in_one_line(powers, tmp_path):
    path = settings_file(tmp_path, 1)
    path.write_text(path.read_text().replace("pair_width: 16", f"pair_width: 16, near_powers: {powers}"))
    with pytest.raises(ConfigError, match=r"train.yaml: networks.near_powers.*: [^\n]*$"):
        read_training_file(path)


def test_repeated_frames_count_as_often_as_they_are_drawn(both):
    """The loss over rows with a repeated frame is that of the rows written out."""
    settings, prepared = both["response"]
    frames = np.arange(len(prepared.sources))
    networks = initial_networks(prepared, frames, settings.seed)
    drawn = np.array([0, 2, 2, 5])
    fit = Fit(networks, prepared.groups, prepared.settings, drawn, frames, settings)
    (rows,) = fit.train_rows
    assert prepared.groups[0].frames[rows].tolist() == [0, 2, 2, 5]
    assert sum(len(batch[1]) for batch in fit._batches(fit.train_rows)) == 4


def test_members_are_validated_on_trajectories_by_name_and_learn_from_draws(small_store, tmp_path):
    path = settings_file(tmp_path, 1)
    text = path.read_text().replace("seed: 3", "seed: 3, bootstrap: true, validation_trajectories: [warm]")
    path.write_text(text)
    file = read_training_file(path)
    items = read_labelled([small_store]).frames
    with pytest.raises(DataError, match=r"^training: expected trajectories .*\(run.pos.xyz\), found 'warm'$"):
        prepare_training(file, items, lambda frames: pytest.fail("descriptors before the split"))
    named = [
        replace(item, frame=replace(item.frame, source=item.frame.source.replace("run", name)))
        for item, name in zip(items, ["cold", "cold", "cold", "warm"] * 8, strict=True)
    ]
    prepared = prepare_training(file, named)
    logs = [
        json.loads(trained.with_suffix(".json").read_text())
        for trained in train_models(prepared, file.training, tmp_path / "out", models=2)
    ]
    for log in logs:
        assert log["validation_sources"] == [item.frame.source for item in named[3::4]]
        assert len(log["train_sources"]) > len(set(log["train_sources"]))
    assert logs[0]["train_sources"] != logs[1]["train_sources"]


def test_frames_of_another_low_level_are_refused(small_store, data, tmp_path):
    settings, prepared = data
    (path,) = train_models(prepared, settings.model_copy(update={"epochs": 1}), tmp_path)
    frames = list(read_labelled([small_store]).frames)
    frames[0] = type(frames[0])(frames[0].frame, frames[0].reference, frames[1].reference)
    with pytest.raises(ModelError, match="expected a low-level label by 'toy low'"):
        assess(Committee([load_correction(path)]), frames)


def test_stores_without_both_labels_are_refused(tmp_path):
    write_store(tmp_path / "one.h5", 2, seed=0)
    with FrameStore(tmp_path / "none.h5", "a") as target, FrameStore(tmp_path / "one.h5") as source:
        target.append(source.frame(0))
        target.append(source.frame(1))
    with pytest.raises(DataError, match="expected frames with reference labels, found none"):
        read_labelled([tmp_path / "none.h5"])
    with FrameStore(tmp_path / "none.h5", "a") as target, FrameStore(tmp_path / "one.h5") as source:
        target.set_label(0, "low", source.label(0, "low", "toy low"))
        target.set_label(1, "reference", source.label(1, "reference", "toy reference"))
    with pytest.raises(DataError, match="expected frames with reference and low-level labels, found none"):
        read_labelled([tmp_path / "none.h5"])


def relabel(path, index, method, program=""):
    """Another reference label beside the one that is there."""
    with FrameStore(path, "a") as store:
        label = store.label(index, "reference", "toy reference")
        other = replace(label, method=method, program=program, energy=label.energy - 1e-3)
        store.set_label(index, "reference", other, replace=True)


def test_labels_by_several_methods_are_picked_by_name_and_never_mixed(tmp_path):
    path = tmp_path / "frames.h5"
    write_store(path, 4, seed=1)
    relabel(path, 2, "RKS PBE/def2-SVP")
    with pytest.raises(DataError) as info:
        read_labelled([path])
    message = f"{path}: reference labels: expected one method, found toy reference; RKS PBE/def2-SVP"
    assert str(info.value) == message
    for wanted in ("toy reference", "toy", "RKS"):
        frames = read_labelled([path], reference=wanted)
        assert len(frames) == (1 if wanted == "RKS" else 4)
    assert frames.frames[0].reference.method == "RKS PBE/def2-SVP"
    assert frames.notes == (f"{path}: 3 of 4 frames lack a label and are passed over",)
    for wanted, found in (("B3LYP", "toy reference; RKS PBE/def2-SVP"), ("e", "toy reference; RKS PBE/def2")):
        with pytest.raises(DataError, match=f"contains '{wanted}', found {found}"):
            read_labelled([path], reference=wanted)


def test_another_version_of_the_program_is_the_same_method_and_said(tmp_path):
    path = tmp_path / "frames.h5"
    write_store(path, 4, seed=1)
    relabel(path, 1, "toy reference", "Toy 2.0")
    labelled = read_labelled([path])
    assert len(labelled) == 4
    (note,) = labelled.notes
    assert note.endswith("several programs: a program not named (3), Toy 2.0 (1)")


def test_an_unknown_embedding_is_said(tmp_path):
    write_store(tmp_path / "frames.h5", 4, seed=1)
    (note,) = read_labelled([tmp_path / "frames.h5"], {"scheme": "fixed"}).notes
    assert note.endswith("does not say with which embedding its frames were cut")


def test_a_model_remembers_what_it_was_trained_on(tmp_path):
    """Two compositions; charge, elements of the sites, and its errors in validation."""
    path = tmp_path / "frames.h5"
    write_store(path, 12, seed=1)
    with FrameStore(path, "a") as store:
        for place in range(12):
            frame, labels = store.frame(place), []
            for kind, method in (("reference", "toy reference"), ("low", "toy low")):
                label = store.label(place, kind, method)
                cut = {"gradient": label.gradient[:3], "charges": label.charges[:3]}
                labels.append((kind, replace(label, **cut)))
            smaller = replace(frame, numbers=frame.numbers[:3], positions=frame.positions[:3])
            index = store.append(smaller)
            for kind, label in labels:
                store.set_label(index, kind, label)
    file = read_training_file(settings_file(tmp_path, 2))
    prepared = prepare_training(file, read_labelled([path]).frames)
    (trained,) = train_models(prepared, file.training, tmp_path / "out")
    model = load_correction(trained)
    assert model.provenance.compositions == ((1, 1, 6, 8), (1, 6, 8))
    assert model.provenance.site_elements == (1, 8)
    assert (model.provenance.charge, model.provenance.multiplicity) == (0, 1)
    epochs = json.loads(trained.with_suffix(".json").read_text())["epochs"]
    best = min(epochs, key=lambda row: row["validation_loss"])
    assert model.uncertainty_threshold == 2.0 * best["energy_rmse"]


def test_frames_that_are_all_alike_are_within_their_coverage(store, data):
    _, prepared = data
    kind, settings = prepared.kind, prepared.settings
    (group,) = prepare(settings, kind.field, read_labelled([store]).frames[:1] * 4)
    seen, species, frames = coverage_group(kind, settings, group)
    coverage = Coverage.of_training(settings, [(seen, species, frames)], [f"step {k}" for k in range(4)])
    for features in (seen, seen + 0.1):
        assert (coverage.extrapolation(features, species) <= 1.0).all() == (features is seen)


def reach(prepared, group):
    seen, species, _ = coverage_group(prepared.kind, prepared.settings, group)
    return list(prepared.coverage.extrapolation(seen, species))


def test_held_out_frames_are_within_the_coverage_and_long_bonds_beyond_it(store, data, tmp_path):
    """Frames of the distribution of the training lie near 1 at most, a stretched C-H bond far above."""
    _, prepared = data
    write_store(tmp_path / "held-out.h5", 30, seed=900)
    ordinary, stretched = [], []
    for item in read_labelled([tmp_path / "held-out.h5"]).frames:
        bond = item.frame.positions[3] - item.frame.positions[1]
        positions = item.frame.positions.copy()
        positions[3] += 1.0 * bond / np.linalg.norm(bond)
        for frame, found in ((item.frame, ordinary), (replace(item.frame, positions=positions), stretched)):
            found += reach(
                prepared, *prepare(prepared.settings, prepared.kind.field, [replace(item, frame=frame)])
            )
    assert np.quantile(ordinary, 0.9) < 1.0
    assert np.max(ordinary) < 1.2
    assert np.min(stretched) > 1.0
    assert np.median(stretched) > 2.0 * np.median(ordinary)
    for group in prepared.groups:
        assert max(reach(prepared, group)) <= 0.8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("embedding: {scheme: cutoff, cutoff: 1.4 nm, switch: 0.2 nm}\nspeed: 3", "unknown key speed"),
        ("training: {epochs: 3}", "missing key embedding"),
        ("embedding: {cutoff: 1.4, switch: 0.2 nm}", "embedding.cutoff: expected a length with its unit"),
        ("model: hdnnp\nembedding: {scheme: fixed}", "descriptors.charge_cutoff"),
        (
            "embedding: {cutoff: 1.4 nm, switch: 0.2 nm}\ndescriptors: {charge_count: 3}",
            "descriptors.charge_count: not an option of the model response",
        ),
        (
            "model: hdnnp\nembedding: {cutoff: 1.4 nm, switch: 0.2 nm}\nnetworks: {pair_width: 3}",
            "networks.pair_width: not an option of the model hdnnp",
        ),
        (
            "embedding: {scheme: fixed}\ntraining: {validation_fraction: 0.2, validation_trajectories: [a]}",
            "training: expected validation_fraction or validation_trajectories, found both",
        ),
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


@KINDS
def test_frames_without_sites_are_trained_on(model, tmp_path):
    """No feature sees near sites then, nor is there a gradient on sites."""
    write_store(tmp_path / "train.h5", 12, seed=7, sites=0)
    file = read_training_file(settings_file(tmp_path, 1, model))
    if model == "response":
        file = file.model_copy(update={"networks": file.networks.model_copy(update={"near_powers": ()})})
    prepared = prepare_training(file, read_labelled([tmp_path / "train.h5"]).frames)
    assert (
        prepared.settings.feature_count == prepared.settings.structure_count + prepared.settings.far_features
    )
    (path,) = train_models(prepared, file.training, tmp_path / "models")
    errors = json.loads(path.with_suffix(".json").read_text())["epochs"][-1]
    assert errors["mm_gradient_rmse"] == 0.0
    assert errors["qm_gradient_rmse"] > 0.0
