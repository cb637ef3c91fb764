"""What has to be the same when a stopped training goes on, and when models that are complete are kept."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pidelta.data.embedding import same
from pidelta.data.frames import LabelledFrame
from pidelta.delta.base import Provenance
from pidelta.delta.descriptors import DescriptorSettings
from pidelta.delta.loading import load_correction, model_kinds
from pidelta.delta.network_model import NetworkModel
from pidelta.delta.training.settings import EmbeddingSettings, TrainingSettings
from pidelta.delta.training.starts import Start
from pidelta.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pidelta.delta.training.run import TrainingSet

Identity = dict[str, Any]
"""What tells trainings of the same frames apart, as names and plain values; the first are told first."""

_DIGEST = "digest of frames and labels"
_LOG = {"settings": dict, "train_sources": list, "validation_sources": list, "epochs": list}
_ADVICE = "train anew, in another folder"


def frames_digest(frames: Iterable[LabelledFrame]) -> str:
    """Digest of frames, where they come from and what their labels say, in this order."""
    digest = hashlib.sha256()
    for item in frames:
        frame = item.frame
        digest.update(frame.source.encode() + b"\0")
        for array in (frame.numbers, frame.positions, frame.site_positions, frame.site_charges):
            digest.update(np.ascontiguousarray(array).tobytes())
        for label in (item.reference, item.low):
            for values in (label.energy, label.gradient, label.site_gradient):
                digest.update(np.asarray(values, dtype=np.float64).tobytes())
    return digest.hexdigest()[:16]


def identity(data: TrainingSet, settings: TrainingSettings, start: Start | None) -> Identity:
    """What tells this training from others, for one model of it.

    Args:
        data: the prepared frames.
        settings: those of the model.
        start: the earlier model that it begins with.
    """
    training = json.loads(settings.model_dump_json())
    found = _identity(data.kind, data.provenance, training, data.settings, start.digest if start else "")
    return {**found, _DIGEST: data.digest, "weights of MM atoms": "square of the distance"}


def _identity(
    kind: type[NetworkModel],
    provenance: Provenance,
    training: Mapping[str, object],
    settings: DescriptorSettings,
    start: str,
) -> Identity:
    names = {own: name for name, own in model_kinds().items()}
    found = {
        "model": names[kind],
        "reference": provenance.reference,
        "low-level method": provenance.low_level,
        "charge": provenance.charge,
        "multiplicity": provenance.multiplicity,
        **{f"embedding {key}": provenance.embedding.get(key) for key in EmbeddingSettings.model_fields},
        **{f"training.{key}": value for key, value in training.items() if key != "patience"},
        **asdict(settings),
        "model to start from": start or "none",
    }
    plain: Identity = json.loads(json.dumps(found))  # lists of tuples, as files have them
    return plain


def read_log(path: Path) -> dict[str, Any]:
    """The log beside a model that is complete.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    log = path.with_suffix(".json")
    try:
        known: dict[str, Any] = json.loads(log.read_text(encoding="utf-8"))
        for name, kind in _LOG.items():
            if not isinstance(known[name], kind):
                raise TypeError
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{log}: expected the log of a model that is complete, found none to read") from None
    return known


def check_checkpoint(path: Path, present: Identity) -> None:
    """Whether a training that was stopped is this one.

    Args:
        path: the last checkpoint.
        present: of this training.

    Raises:
        DataError: it cannot be read.
        ConfigError: settings, other than the patience, methods, frames or labels differ.
    """
    try:
        known = dict(torch.load(path, weights_only=True)["origin"])
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError):
        raise DataError(
            f"{path}: expected a checkpoint to go on from, found none to read: {_ADVICE}"
        ) from None
    missing = dict.fromkeys(present, "another version's")
    _compare(path, {**missing, **known}, present, "training to resume")


def check_complete(path: Path, present: Identity, sources: Sequence[Sequence[str]]) -> None:
    """Whether a model that is complete is what this training would make.

    The log of an earlier version has no digest of frames and labels; the rest is compared.

    Args:
        path: the model.
        present: of this training.
        sources: of the frames that the model is to learn from, and of those that are to validate it.

    Raises:
        ModelError: the model cannot be read.
        DataError: its log cannot.
        ConfigError: settings, other than the patience, methods, frames or labels differ.
    """
    log, known_log = path.with_suffix(".json"), read_log(path)
    model = load_correction(path)
    assert isinstance(model, NetworkModel)
    provenance, training = model.provenance, known_log["settings"]
    known = _identity(type(model), provenance, training, model.settings, provenance.start)
    _compare(path, known, present, "model that is complete")
    own = [known_log["train_sources"], known_log["validation_sources"]]
    if own != [list(part) for part in sources]:
        raise ConfigError(
            f"{log}: expected the {len(own[0])} training and {len(own[1])} validation frames that it "
            f"names, found others: frames or their division changed, so {_ADVICE}"
        )
    if "frames" in known_log:
        _compare(log, {_DIGEST: known_log["frames"]}, present, "model that is complete")


def _compare(path: Path, known: Identity, present: Identity, what: str) -> None:
    for key, expected in known.items():
        found = present.get(key)
        if not same(expected, found):
            raise ConfigError(
                f"{path}: expected {key} {expected!r} of the {what}, found {found!r}: {_ADVICE}"
            )
