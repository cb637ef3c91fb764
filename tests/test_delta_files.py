"""Files of delta models: what is written is read; the damaged and the foreign are refused in one line."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from delta_frames import random_frame, random_model, random_response
from pidelta.delta.files import read_file, write_file
from pidelta.delta.loading import load_correction
from pidelta.errors import ModelError

SCHEMA = "pidelta hdnnp 2"


@pytest.fixture
def path(tmp_path):
    random_model().save(tmp_path / "model.pt")
    return tmp_path / "model.pt"


def refused(path, match="expected"):
    with pytest.raises(ModelError, match=match) as info:
        load_correction(path)
    assert "\n" not in str(info.value)
    assert path.name in str(info.value)


@pytest.mark.parametrize("made", [random_model, random_response])
def test_saved_model_gives_the_same_bits(made, tmp_path):
    model, region = made(), random_frame(7).region
    model.save(tmp_path / "m.pt")
    loaded = load_correction(tmp_path / "m.pt")
    assert loaded.settings == model.settings
    assert loaded.provenance == model.provenance
    assert loaded.uncertainty_threshold == model.uncertainty_threshold
    before, after = model.evaluate(region), loaded.evaluate(region)
    np.testing.assert_array_equal(after.energy, before.energy)
    for name in ("positions", "site_positions", "site_charges"):
        np.testing.assert_array_equal(getattr(after.gradient, name), getattr(before.gradient, name))
    for name, values in before.properties.items():
        np.testing.assert_array_equal(after.properties[name], values)


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


def test_files_that_are_no_models_are_refused(tmp_path, capsys):
    refused(tmp_path / "missing.pt", "no such model file")
    refused(tmp_path, "no such model file")
    for name, content in (
        ("junk.pt", b"not a model"),
        ("empty.pt", b""),
        ("line.pt", b"\n"),
        ("name.pt", SCHEMA.encode() + b"\n"),
        ("binary.pt", bytes(range(256)) * 40),
        ("pickle.pt", pickle.dumps(Payload())),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "expected a delta model")
    torch.save({"schema": "pidelta delta model 1"}, tmp_path / "old.pt")
    refused(tmp_path / "old.pt", "the old format without one: train the model again")
    write_file(tmp_path / "other.pt", "pidelta hdnnp 1", {})
    refused(tmp_path / "other.pt", "'pidelta hdnnp 2', found 'pidelta hdnnp 1', of another version: train")
    write_file(tmp_path / "payload.pt", SCHEMA, {"settings": Payload()})
    refused(tmp_path / "payload.pt", "expected a delta model")
    assert "executed" not in capsys.readouterr().out


def test_every_flipped_bit_is_refused(path, tmp_path):
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    header = content.index(b"\n") + 1
    places = np.concatenate(
        [np.arange(8 * header), rng.integers(8 * header, 8 * len(content), 300), [8 * len(content) - 1]]
    )
    broken = tmp_path / "broken.pt"
    for place in places:
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        broken.write_bytes(flipped)
        refused(broken)


def test_cut_and_lengthened_files_are_refused(path, tmp_path):
    content = path.read_bytes()
    broken = tmp_path / "broken.pt"
    for size in (1, 20, 90, 120, len(content) // 2, len(content) - 1):
        broken.write_bytes(content[:size])
        refused(broken)
    broken.write_bytes(content + b"\0")
    refused(broken, "damaged")


def rewritten(path, change):
    """The file with other content and a checksum that fits it."""
    schema, content = read_file(path)
    change(content)
    write_file(path, schema, content)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["baseline", "inverse_scale", "networks.0.0.weight"])
def test_numbers_that_are_not_finite_are_refused(path, name, value):
    rewritten(path, lambda content: content["state"][name].view(-1)[-1:].fill_(value))
    refused(path, f"expected finite numbers, found others in state.{name}")


def test_plain_values_that_are_not_finite_are_refused(path):
    rewritten(path, lambda content: content.update(validation_error=float("nan")))
    refused(path, "found others in validation_error")
    rewritten_path = path.with_name("other.pt")
    random_model().save(rewritten_path)
    rewritten(rewritten_path, lambda content: content["settings"].update(angular_zeta=float("inf")))
    refused(rewritten_path, r"found others in settings\.angular_zeta")


def test_other_units_are_refused(path, monkeypatch):
    monkeypatch.setattr("pidelta.delta.files.UNITS", "eV, angstrom, e")
    random_model().save(path)
    monkeypatch.undo()
    refused(path, "in hartree, bohr, e, found one in 'eV, angstrom, e'")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("settings"),
        lambda content: content.pop("provenance"),
        lambda content: content["provenance"].pop("compositions"),
        lambda content: content["provenance"].update(weather="fine"),
        lambda content: content.pop("validation_error"),
        lambda content: content["state"].pop("baseline"),
        lambda content: content["state"].update(baseline=torch.zeros(2, dtype=torch.float64)),
        lambda content: content["settings"].update(radial_count=3),
        lambda content: content.update(hidden=(8, 8)),
        lambda content: content.update(coverage=None),
        lambda content: content["coverage"].pop("structure"),
        lambda content: content["coverage"]["structure"].pop(),
        lambda content: content["coverage"]["sites"][0].update(mean=torch.zeros(2)),
    ],
)
def test_incomplete_content_is_refused(path, change):
    rewritten(path, change)
    refused(path, "expected a complete model")


def test_a_failed_save_leaves_the_earlier_file(path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        random_model(1).save(path)
    assert path.read_bytes() == before
