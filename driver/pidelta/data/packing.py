"""Put frames and labels of several stores into one compact one, to keep and to hand on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

from pidelta.data.frames import Frame, LabelKind, named
from pidelta.data.splits import trajectory_and_step
from pidelta.data.store import FrameStore
from pidelta.errors import DataError
from pidelta.output_files import check_distinct


def pack(
    paths: Sequence[Path],
    output: Path,
    kinds: Sequence[LabelKind],
    *,
    labelled: bool,
    skip: int = 0,
    every: int = 1,
    limit: int | None = None,
) -> int:
    """Copy what a compact store does not have yet; started again, it adds frames and labels that are new.

    Frames are the same where `FrameStore.find` says so, whatever their sources; of two labels by one method
    the first stays. Where another frame has a source already, the file's name is put before the source, so
    that a split does not take two trajectories for one. The store is written whole or not at all.

    Args:
        paths: the stores, in whose order frames are copied.
        output: the compact store; see `pidelta.data.store.ROUNDED` for what it rounds.
        kinds: of the labels that are copied.
        labelled: whether frames without any such label are left out.
        skip, every, limit: of each store, how many frames are passed over first, each such frame is copied,
            and so many at most.

    Returns:
        The number of frames in the compact store.

    Raises:
        DataError: a store cannot be read, its frames were cut with another embedding than those before, or
            one of both does not say with which, or there is nothing to copy.
    """
    check_distinct(output, paths)
    with FrameStore(output, "a", compact=True, whole=True) as target:
        copied, sources = 0, [frame.source for frame in target]
        for path in paths:
            with FrameStore(path) as store:
                stop = None if limit is None else skip + every * limit
                chosen = islice(_chosen(store, kinds, labelled), skip, stop, every)
                frames = {index: store.frame(index) for index in chosen}
                for index, place in _copy_frames(store, frames, target, sources):
                    _copy_labels(store, index, target, place, kinds)
                copied += len(frames)
        if not copied:
            what = "labelled frame" if labelled else "frame"
            after = f" after the first {skip}" if skip else ""
            names = ", ".join(str(path) for path in paths)
            raise DataError(f"{names}: expected a {what}{after}, found none")
        return len(target)


def _chosen(store: FrameStore, kinds: Sequence[LabelKind], labelled: bool) -> list[int]:
    if not labelled:
        return list(range(len(store)))
    return sorted({index for kind in kinds for indices in store.methods(kind).values() for index in indices})


def _copy_frames(
    store: FrameStore, frames: Mapping[int, Frame], target: FrameStore, sources: list[str]
) -> list[tuple[int, int]]:
    """Copy the frames that are new; return where in the target each one is.

    Args:
        store: where they are from.
        frames: by their index there.
        target: where they go.
        sources: of the frames of the target; it grows with them.
    """
    taken = set(sources)
    places = {index: target.find(frame) for index, frame in frames.items()}
    new = [frame.source for index, frame in frames.items() if places[index] is None]
    before = _prefixes_before(frames, places, sources)
    for source in new:  # another trajectory, though it shares frames
        if f"{before.get(_trajectory(source))}: {source}" in taken:
            before.pop(_trajectory(source))
    trajectories = {_trajectory(source) for source in new if source in taken} - set(before)
    renamed = {source for source in new if _trajectory(source) in trajectories}
    prefix = next(
        name
        for name in _prefixes(store.path)
        if not taken.intersection(f"{name}: {source}" for source in renamed)
    )
    before |= dict.fromkeys(trajectories, prefix)
    added = False
    for index, frame in frames.items():
        place = places[index]
        if place is None:
            place = target.find(frame)  # the same frame may be twice in a store
        if place is None:
            if not added:
                with named(str(store.path)):
                    target.set_embedding(store.embedding)
                target.set_provenance(store.provenance)
                added = True
            own = before.get(_trajectory(frame.source))
            sources.append(frame.source if own is None else f"{own}: {frame.source}")
            place = target.append(replace(frame, source=sources[-1]))
        places[index] = place
    return [(index, place) for index, place in places.items() if place is not None]


def _prefixes_before(
    frames: Mapping[int, Frame], places: Mapping[int, int | None], sources: Sequence[str]
) -> dict[str, str]:
    """What an earlier packing put before the sources of a trajectory that has grown since."""
    found = {}
    for index, place in places.items():
        if place is not None:
            own, there = frames[index].source, sources[place]
            if there.endswith(f": {own}"):
                found[_trajectory(own)] = there.removesuffix(f": {own}")
    return found


def _trajectory(source: str) -> str:
    """The trajectory of a source; one without a step is its own."""
    name, step = trajectory_and_step(source, -1)
    return source if step < 0 else name


def _prefixes(path: Path) -> Iterator[str]:
    yield path.stem
    yield from (f"{path.stem} ({number})" for number in count(2))


def _copy_labels(
    store: FrameStore, index: int, target: FrameStore, place: int, kinds: Sequence[LabelKind]
) -> None:
    for kind in kinds:
        for method in store.labels_of(index, kind):
            label = store.label(index, kind, method)
            if label is not None and method not in target.labels_of(place, kind):
                target.set_label(place, kind, label)
