"""Frames with both labels, by one reference and one low-level method, from one or more stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pidelta.data.embedding import difference
from pidelta.data.frames import Frame, Label, LabelKind, LabelledFrame
from pidelta.data.plausibility import outliers, suspicions
from pidelta.data.store import FrameStore, merged
from pidelta.errors import DataError


@dataclass(frozen=True)
class LabelledSet:
    """Frames to train or test on, alike in methods, charge and multiplicity.

    Attributes:
        frames: in the order of the stores.
        places: the store of each frame, and its number there.
        notes: lines on what was passed over, or cannot be judged.
    """

    frames: tuple[LabelledFrame, ...]
    places: tuple[tuple[Path, int], ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)


def read_labelled(
    paths: Sequence[Path],
    embedding: Mapping[str, str | float] | None = None,
    reference: str | None = None,
    low: str | None = None,
) -> LabelledSet:
    """Read the frames that have labels by both methods.

    Args:
        paths: the stores.
        embedding: what the frames must have been cut with, where a store knows it.
        reference, low: methods of the labels, or a part of their text that no other method in the stores has;
            None where there is but one.

    Raises:
        DataError: there are several methods and none is named, there is no frame with both labels, the frames
            differ in charge or multiplicity, were cut with another embedding, or gradients have another sign
            or unit than those of the low level.
    """
    methods = (_choose(paths, "reference", reference), _choose(paths, "low", low))
    found: list[LabelledFrame] = []
    places: list[tuple[Path, int]] = []
    notes: list[str] = []
    for path in paths:
        with FrameStore(path) as store:
            if embedding is not None and store.embedding is None:
                notes.append(f"{path}: does not say with which embedding its frames were cut")
            elif embedding is not None and (differs := difference(embedding, store.embedding or {})):
                key, wanted, has = differs
                raise DataError(f"{path}: expected frames cut with {key} {wanted}, found {has}")
            before = len(found)
            for index in range(len(store)):
                labels = (store.label(index, "reference", methods[0]), store.label(index, "low", methods[1]))
                if labels[0] is not None and labels[1] is not None:
                    found.append(LabelledFrame(store.frame(index), labels[0], labels[1]))
                    places.append((path, index))
                    _check_alike(found[0].frame, found[-1].frame, path, index)
            missing = len(store) - (len(found) - before)
            if missing:
                notes.append(f"{path}: {missing} of {len(store)} frames lack a label and are passed over")
    if not found:
        raise DataError(f"{_names(paths)}: expected frames with reference and low-level labels, found none")
    notes += _programs([item.reference for item in found])
    errors, doubts = suspicions(found, places)
    if errors:
        raise DataError(errors[0])
    notes += doubts
    return LabelledSet(tuple(found), tuple(places), tuple(notes))


def read_reference(
    paths: Sequence[Path], reference: str | None = None
) -> tuple[list[tuple[Frame, Label]], list[str]]:
    """Read the frames that have labels by the reference, whether they have low-level ones or not.

    Args:
        paths: the stores.
        reference: as in `read_labelled`.

    Returns:
        Frames with their labels, and notes on those that have none, or energies far from all others.

    Raises:
        DataError: there is no such label, there are several methods and none is named, or the frames differ
            in charge or multiplicity.
    """
    method = _choose(paths, "reference", reference)
    found: list[tuple[Frame, Label]] = []
    places: list[tuple[Path, int]] = []
    notes: list[str] = []
    for path in paths:
        with FrameStore(path) as store:
            labels = [store.label(index, "reference", method) for index in range(len(store))]
            for index, label in enumerate(labels):
                if label is not None:
                    found.append((store.frame(index), label))
                    places.append((path, index))
                    _check_alike(found[0][0], found[-1][0], path, index)
            if missing := labels.count(None):
                notes.append(f"{path}: {missing} of {len(store)} frames lack a label and are passed over")
    notes += outliers(np.array([label.energy for _, label in found]), [frame for frame, _ in found], places)
    return found, [*notes, *_programs([label for _, label in found])]


def has_labels(paths: Sequence[Path], kind: LabelKind) -> bool:
    """Whether a store has a label of this kind."""
    return bool(_methods(paths, kind))


def common_origin(paths: Sequence[Path]) -> tuple[dict[str, str | float], dict[str, str], list[str]]:
    """The embedding that all stores have, none where one does not say, the provenance of all, and notes.

    Raises:
        DataError: two stores were cut with different embeddings.
    """
    embeddings: dict[Path, dict[str, str | float]] = {}
    provenance: dict[str, str] = {}
    for path in paths:
        with FrameStore(path) as store:
            provenance = merged(provenance, store.provenance)
            if store.embedding is None:
                continue
            embeddings[path] = store.embedding
        first = next(iter(embeddings))
        if differs := difference(embeddings[first], embeddings[path]):
            key, expected, found = differs
            raise DataError(f"{path}: expected frames cut with {key} {expected}, as {first}, found {found}")
    silent = [path for path in dict.fromkeys(paths) if path not in embeddings]
    if not embeddings or silent:
        notes = [f"{path}: does not say with which embedding its frames were cut" for path in silent]
        return {}, provenance, notes if embeddings else []
    return embeddings[paths[0]], provenance, []


def _methods(paths: Sequence[Path], kind: LabelKind) -> list[str]:
    methods: dict[str, None] = {}
    for path in paths:
        with FrameStore(path) as store:
            methods |= dict.fromkeys(store.methods(kind))
    return list(methods)


def _choose(paths: Sequence[Path], kind: LabelKind, wanted: str | None) -> str:
    """The one method of a kind that is meant."""
    methods = _methods(paths, kind)
    if not methods:
        raise DataError(f"{_names(paths)}: expected frames with {kind} labels, found none")
    fitting = [method for method in methods if wanted is None or method == wanted]
    fitting = fitting or [method for method in methods if wanted is not None and wanted in method]
    if len(fitting) != 1:
        expected = "one method" if wanted is None else f"one that is or contains {wanted!r}"
        listed = "; ".join(fitting or methods)
        raise DataError(f"{_names(paths)}: {kind} labels: expected {expected}, found {listed}")
    return fitting[0]


def _programs(labels: Sequence[Label]) -> list[str]:
    """A note where reference labels come from several programs."""
    programs = Counter(label.program or "a program not named" for label in labels)
    if len(programs) < 2:
        return []
    counts = ", ".join(f"{name} ({count})" for name, count in programs.items())
    return [f"reference labels by one method come from several programs: {counts}"]


def _check_alike(first: Frame, other: Frame, path: Path, index: int) -> None:
    for name, expected, found in (
        ("charge", first.charge, other.charge),
        ("multiplicity", first.multiplicity, other.multiplicity),
    ):
        if expected != found:
            raise DataError(f"{path}: frame {index}: expected {name} {expected}, found {found}")


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths)
