"""Frames that stand more than once in what is read, as where a file was copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import KDTree

from pidelta.data.frames import Frame, close, same_surroundings
from pidelta.data.labelled import LabelledSet

_REACH = 1e-3  # bohr; farther than rounding, nearer than two steps of a trajectory


def repeated(frames: Sequence[Frame]) -> list[int]:
    """Places of the frames that are the same as an earlier one, but for rounding, whatever their sources."""
    by_atoms: dict[tuple[int, ...], list[int]] = {}
    for place, frame in enumerate(frames):
        by_atoms.setdefault(tuple(frame.numbers.tolist()), []).append(place)
    found: set[int] = set()
    for places in by_atoms.values():
        tree = KDTree(np.array([frames[place].positions.ravel() for place in places]))
        for first, second in tree.query_pairs(_REACH, p=np.inf):
            place = max(places[first], places[second])
            one, other = (frames[places[index]] for index in (first, second))
            if close(one.positions, other.positions) and same_surroundings(one, other):
                found.add(place)
    return sorted(found)


def without_doubles(labelled: LabelledSet) -> LabelledSet:
    """Each frame once: twice it would count twice, and may validate itself."""
    doubles = set(repeated([item.frame for item in labelled.frames]))
    if not doubles:
        return labelled
    files = ", ".join(map(str, dict.fromkeys(labelled.places[place][0] for place in sorted(doubles))))
    note = f"{files}: {len(doubles)} frames are the same as earlier ones and are passed over"
    kept = [place for place in range(len(labelled)) if place not in doubles]
    return replace(
        labelled,
        frames=tuple(labelled.frames[place] for place in kept),
        places=tuple(labelled.places[place] for place in kept),
        notes=(*labelled.notes, note),
    )
