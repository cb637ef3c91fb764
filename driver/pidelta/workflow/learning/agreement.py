"""Whether frames and labels of earlier rounds go with the settings, before the next round samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pidelta.data.embedding import difference
from pidelta.data.frames import LabelKind
from pidelta.data.store import FrameStore
from pidelta.errors import DataError
from pidelta.workflow.learning.pool import Subject
from pidelta.workflow.learning.rounds import Round


def check_rounds(rounds: Sequence[Round], subject: Subject) -> None:
    """See that models can learn from all rounds at once.

    Frames have to be of one structure, QM region and embedding, and in rounds that are complete of one level
    of theory. What else the settings say may change from round to round.

    Args:
        rounds: those that are complete, and the one under way if it has frames.
        subject: what the settings ask for.

    Raises:
        DataError: a file of frames is of something else.
    """
    for each in rounds:
        for path in (each.test_frames, each.frames):
            if not path.exists():
                continue
            with FrameStore(path) as store:
                for what, expected, found in _differences(store, subject, each.result.exists()):
                    raise DataError(
                        f"{path}: expected {what} {expected}, as the settings ask for now, found {found}; "
                        "undo the change or choose another --output"
                    )


def _differences(store: FrameStore, subject: Subject, is_complete: bool) -> Iterator[tuple[str, str, str]]:
    """What differs, what it should be, and what it is."""
    own, other = (origin.get("structure", "none") for origin in (subject.origin, store.provenance))
    if own != other:
        yield "frames of", own, other
    if differs := difference(subject.region.surroundings.settings, store.embedding or {}):
        key, expected, found = differs
        yield f"frames cut with {key}", expected, found
    region = subject.region
    for frame in [store.frame(0)] if len(store) else []:
        for name in ("charge", "multiplicity"):
            if getattr(frame, name) != getattr(region, name):
                yield f"frames with {name}", str(getattr(region, name)), str(getattr(frame, name))
        if frame.numbers.tolist() != region.numbers.tolist():
            yield "a QM region of the elements", str(region.numbers.tolist()), str(frame.numbers.tolist())
    labels: list[tuple[LabelKind, str]] = [("reference", subject.reference), ("low", subject.low)]
    for kind, method in labels if is_complete else []:
        methods = store.methods(kind)
        if methods and method not in methods:
            yield f"{kind} labels by", method, "; ".join(methods)
