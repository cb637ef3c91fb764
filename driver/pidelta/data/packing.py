"""Put frames and labels of several stores into one compact one, to keep and to hand on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from pidelta.data.store import FrameStore, LabelKind
from pidelta.errors import DataError


def pack(
    paths: Sequence[Path],
    output: Path,
    kinds: Sequence[LabelKind],
    *,
    labelled: bool,
    skip: int = 0,
    limit: int | None = None,
) -> int:
    """Copy what a compact store does not have yet; started again, it adds frames and labels that are new.

    Args:
        paths: the stores, in whose order frames are copied.
        output: the compact store; see `pidelta.data.store.ROUNDED` for what it rounds.
        kinds: of the labels that are copied.
        labelled: whether frames without any such label are left out.
        skip, limit: how many of its frames are passed over in each store, and copied at most.

    Returns:
        The number of frames in the compact store.

    Raises:
        DataError: a store cannot be read, or its frames were cut with another embedding than those before.
    """
    with FrameStore(output, "a", compact=True) as target:
        places = {frame.source: index for index, frame in enumerate(target)}
        for path in paths:
            if path.resolve() == output.resolve():
                raise DataError(f"{path}: expected another file than the output")
            with FrameStore(path) as store:
                if store.embedding is not None:
                    target.set_embedding(store.embedding)
                target.set_provenance(store.provenance)
                for index in islice(
                    _chosen(store, kinds, labelled), skip, None if limit is None else skip + limit
                ):
                    frame = store.frame(index)
                    if frame.source not in places:
                        places[frame.source] = target.append(frame)
                    _copy_labels(store, index, target, places[frame.source], kinds)
        return len(target)


def _chosen(store: FrameStore, kinds: Sequence[LabelKind], labelled: bool) -> list[int]:
    if not labelled:
        return list(range(len(store)))
    return sorted({index for kind in kinds for indices in store.methods(kind).values() for index in indices})


def _copy_labels(
    store: FrameStore, index: int, target: FrameStore, place: int, kinds: Sequence[LabelKind]
) -> None:
    for kind in kinds:
        for method in store.labels_of(index, kind):
            label = store.label(index, kind, method)
            if label is not None and method not in target.labels_of(place, kind):
                target.set_label(place, kind, label)
