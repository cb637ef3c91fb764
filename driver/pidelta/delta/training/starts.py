"""Training that begins with the weights of earlier models: whether they fit the frames and the settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pidelta.checksums import checksum
from pidelta.data.embedding import same
from pidelta.delta.base import Provenance, difference, formula, symbols
from pidelta.delta.descriptors import DescriptorSettings
from pidelta.delta.loading import load_correction, model_kinds
from pidelta.delta.network_model import NetworkModel
from pidelta.errors import ModelError

_ELEMENTS = {"elements": "QM atoms of", "mm_elements": "MM atoms near the QM atoms of"}


@dataclass(frozen=True)
class Start:
    """An earlier model.

    Attributes:
        path: its file.
        digest: SHA-256 of the file.
        model: the model.
        learned: sources of the frames that it learned from, by the log beside it; None where that is not
            known.
        held_back: of those that validated it.
    """

    path: Path
    digest: str
    model: NetworkModel
    learned: frozenset[str] | None = None
    held_back: frozenset[str] = frozenset()


def read_starts(paths: Sequence[Path]) -> tuple[Start, ...]:
    """Read earlier models.

    Raises:
        ModelError: a file is missing, damaged or not a model with networks.
    """
    starts = []
    for path in paths:
        model = load_correction(path)
        if not isinstance(model, NetworkModel):
            raise ModelError(f"{path}: expected a model with networks to start from, found another")
        starts.append(Start(path, checksum(path), model, *_frames_of(path)))
    return tuple(starts)


def _frames_of(path: Path) -> tuple[frozenset[str] | None, frozenset[str]]:
    """Sources of the frames that a model learned from, its own earlier models too, and of those held back."""
    try:
        log: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        before = log["start"]
        learned = frozenset([*log["train_sources"], *(before["train_sources"] if before else [])])
        held_back = frozenset(log["validation_sources"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, frozenset()
    if "" in learned | held_back:  # of frames that nobody named
        return None, frozenset()
    return learned, held_back


def settings_of_starts(
    starts: Sequence[Start], kind: str, settings: DescriptorSettings, provenance: Provenance
) -> DescriptorSettings:
    """The settings of the training, with all elements that the earlier models know.

    Args:
        starts: the earlier models, at least one.
        kind: of the training.
        settings: of the training, with the elements of its frames.
        provenance: of its frames.

    Raises:
        ModelError: a model does not fit; the message names what.
    """
    wanted = settings
    for start in starts:
        model, found = start.model, start.model.settings
        kinds = {own: name for name, own in model_kinds().items()}
        if kinds[type(model)] != kind:
            raise ModelError(
                f"{start.path}: expected a model {kind} to start from, found {kinds[type(model)]}"
            )
        for name, text in _ELEMENTS.items():
            if not set(getattr(settings, name)) <= set(getattr(found, name)):
                frames, known = symbols(getattr(settings, name)), symbols(getattr(found, name))
                raise ModelError(f"{start.path}: expected a model of {text} {frames}, found one of {known}")
        known_elements = {name: getattr(found, name) for name in _ELEMENTS}
        wanted = replace(settings, **known_elements) if start is starts[0] else wanted
        for name, expected in asdict(wanted).items():
            if not same(expected, getattr(found, name)):
                raise ModelError(
                    f"{start.path}: expected a model with {name} {expected!r}, as in this training, found "
                    f"{getattr(found, name)!r}: the settings of the training can ask for that"
                )
        _check_provenance(start, provenance)
    return wanted


def _check_provenance(start: Start, provenance: Provenance) -> None:
    known = start.model.provenance
    if differs := difference(provenance, known):
        name, expected, found = differs
        raise ModelError(f"{start.path}: expected a model of the {name} {expected!r}, found {found!r}")
    for composition in provenance.compositions:
        if composition not in known.compositions:
            found = " or ".join(map(formula, known.compositions))
            raise ModelError(
                f"{start.path}: expected a model of the QM region {formula(composition)}, found {found}"
            )
