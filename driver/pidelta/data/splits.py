"""A reproducible split into training and validation frames that no correlated frames straddle."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from itertools import groupby

import numpy as np

from pidelta.errors import DataError
from pidelta.state import IntArray

_FEW = 8  # names in a message
# A word of its own: the name of a file or folder may hold another one (step5/step5_production.pos_0.xyz).
_STEP = re.compile(r"(?<!\S)step\W*(\d+)(?![\w./\\-])", re.IGNORECASE)
# i-PI writes one trajectory file a bead (prefix.pos_3.xyz): beads of one step belong together. The number of
# run_3.xyz is that of a run.
_BEAD = re.compile(r"\bbead\W*\d+|(?<=\.pos)_\d+(?=\.\w+)", re.IGNORECASE)


def split_by_source(
    sources: Sequence[str], fraction: float, seed: int, blocks: int = 20
) -> tuple[IntArray, IntArray]:
    """Split frames into training and validation by blocks of consecutive steps of their trajectories.

    Frames of one step (the beads of a ring polymer) stay together; the steps of a trajectory, in order, are
    cut into blocks, and whole blocks are drawn for validation. Frames whose source names no step count
    as consecutive steps of one trajectory, in the order given.

    Args:
        sources: `Frame.source` of each frame, such as ``run.pos_3.xyz step 1200``.
        fraction: share of the frames for validation, between 0 and 1.
        seed: seed of the draw.
        blocks: number of blocks over all trajectories, about.

    Returns:
        Indices of the training frames and of the validation frames, both ascending, neither empty.

    Raises:
        DataError: there are fewer than two steps to divide.
    """
    pieces = _pieces(sources, blocks)
    validation: list[int] = []
    order = np.random.default_rng(seed).permutation(len(pieces))
    for piece in order[:-1]:
        validation += pieces[piece]
        if len(validation) >= fraction * len(sources):
            break
    return _divide(len(sources), validation)


def split_after(
    sources: Sequence[str], learned: Set[str], held_back: Set[str], fraction: float, seed: int
) -> tuple[IntArray, IntArray]:
    """Go on with the split of an earlier training, so that what it learned from validates nothing.

    Frames that it learned from are learned from again, those that it held back are held back again, and of
    new ones a share, in blocks. Where none of this leaves a frame to validate, or one to learn from, the
    split is `split_by_source`, as if there had been no earlier training.

    Args:
        sources: as there.
        learned: of the frames that the earlier model learned from.
        held_back: of those that validated it.
        fraction: share of the new frames for validation.
        seed: as there.

    Returns:
        Indices of the training frames and of the validation frames, both ascending, neither empty.

    Raises:
        DataError: there are fewer than two steps to divide.
    """
    new = [index for index, source in enumerate(sources) if source not in learned | held_back]
    validation = [index for index, source in enumerate(sources) if source in held_back - learned]
    if len({trajectory_and_step(sources[index], index) for index in new}) > 1:
        _, drawn = split_by_source([sources[index] for index in new], fraction, seed)
        validation += [new[place] for place in drawn]
    if not 0 < len(validation) < len(sources):
        return split_by_source(sources, fraction, seed)
    return _divide(len(sources), validation)


def hold_out(sources: Sequence[str], names: Sequence[str]) -> tuple[IntArray, IntArray]:
    """Split frames by whole trajectories.

    Args:
        sources: as in `split_by_source`.
        names: of trajectories for validation, without step and bead, or parts of names. One that is a
            whole name means that trajectory alone.

    Returns:
        Indices of the training frames and of the validation frames, both ascending, neither empty.

    Raises:
        DataError: a name fits no trajectory, or no frame is left to train on.
    """
    trajectories = [trajectory_name(source) for source in sources]
    known = list(dict.fromkeys(trajectories))
    chosen: set[str] = set()
    for name in names:
        fitting = {each for each in known if each == name} or {each for each in known if name in each}
        if not fitting:
            listed = ", ".join(known[:_FEW]) + (", ..." if len(known) > _FEW else "")
            raise DataError(
                f"training: expected trajectories of the frames for validation ({listed}), found {name!r}"
            )
        chosen |= fitting
    if chosen.issuperset(known):
        raise DataError(
            "training: expected frames of other trajectories than those for validation, found none"
        )
    held_back = [index for index, trajectory in enumerate(trajectories) if trajectory in chosen]
    return _divide(len(sources), held_back)


def resample_by_source(sources: Sequence[str], frames: IntArray, seed: int, blocks: int = 20) -> IntArray:
    """Draw blocks of consecutive steps of trajectories with replacement, as many as there are: a bootstrap.

    Args:
        sources: as in `split_by_source`.
        frames: indices of those to draw from.
        seed: seed of the draw.
        blocks: as there.

    Returns:
        Indices, ascending, some of them more than once.

    Raises:
        DataError: there are fewer than two steps.
    """
    pieces = _pieces([sources[index] for index in frames], blocks)
    drawn = np.random.default_rng(seed).integers(len(pieces), size=len(pieces))
    return np.asarray(np.sort(frames[[index for piece in drawn for index in pieces[piece]]]))


def folds_by_source(sources: Sequence[str], folds: int, blocks: int = 20) -> list[tuple[IntArray, IntArray]]:
    """Splits as those of `split_by_source`, without chance, in which every frame is held back once.

    The parts held back are about equal: the largest blocks are dealt first, each to the smallest part so far.

    Args:
        sources: as there.
        folds: number of splits; less where there are fewer steps.
        blocks: as there.

    Raises:
        DataError: there are fewer than two steps to divide.
    """
    dealt: list[list[int]] = [[] for _ in range(folds)]
    for piece in sorted(_pieces(sources, blocks), key=len, reverse=True):
        min(dealt, key=len).extend(piece)
    return [_divide(len(sources), held_back) for held_back in dealt if held_back]


def _divide(count: int, held_back: Sequence[int]) -> tuple[IntArray, IntArray]:
    chosen = np.zeros(count, dtype=bool)
    chosen[held_back] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _pieces(sources: Sequence[str], blocks: int) -> list[list[int]]:
    """Indices of the frames of each block of consecutive steps of a trajectory."""
    steps: dict[tuple[str, int], list[int]] = {}
    for index, source in enumerate(sources):
        steps.setdefault(trajectory_and_step(source, index), []).append(index)
    if len(steps) < 2:
        raise DataError(f"training: expected frames of at least 2 steps to split, found {len(steps)}")
    length = max(1, round(len(steps) / blocks))
    pieces: list[list[int]] = []
    for _, trajectory in groupby(sorted(steps), key=lambda place: place[0]):
        places = list(trajectory)
        pieces += [
            [index for place in places[start : start + length] for index in steps[place]]
            for start in range(0, len(places), length)
        ]
    return pieces


def trajectory_name(source: str) -> str:
    """What a trajectory is called: its source without step and bead."""
    trajectory, _ = trajectory_and_step(source, 0)
    return trajectory.strip() or source


def trajectory_and_step(source: str, index: int) -> tuple[str, int]:
    """Trajectory, whatever the bead, and step of a source; without a step, `index` stands for it."""
    match = next(reversed(list(_STEP.finditer(source))), None)
    if match is None:
        return "", index
    return _BEAD.sub("", source[: match.start()] + source[match.end() :]), int(match.group(1))
