"""The split into training and validation frames."""

from __future__ import annotations

import numpy as np
import pytest

from pidelta.data.splits import folds_by_source, hold_out, resample_by_source, split_by_source
from pidelta.errors import DataError

# Two trajectories of four beads, in the order of files: bead 0 of all steps, then bead 1, ...
SOURCES = [
    f"{name}.pos_{bead}.xyz step {step}"
    for name in ("a", "b")
    for bead in range(4)
    for step in range(0, 500, 10)
]


def place(source):
    name, _, step = source.split(" ")[0], *source.split(" ")[1:]
    return name[0], int(step)


def test_beads_of_a_step_stay_together_and_blocks_are_whole():
    train, validation = split_by_source(SOURCES, 0.2, seed=0)
    assert sorted([*train, *validation]) == list(range(len(SOURCES)))
    assert 0.15 < len(validation) / len(SOURCES) < 0.3
    held = {place(SOURCES[index]) for index in validation}
    assert not held & {place(SOURCES[index]) for index in train}
    # Of the steps next to a validation step, most are in validation too: 100 steps, 20 blocks of 5.
    neighbours = [(name, step + 10) in held for name, step in held]
    assert np.mean(neighbours) >= 0.7


def test_split_is_reproducible_and_depends_on_the_seed():
    splits = [split_by_source(SOURCES, 0.1, seed)[1].tolist() for seed in (1, 1, 2)]
    assert splits[0] == splits[1]
    assert splits[0] != splits[2]


def test_sources_without_steps_are_taken_in_order():
    train, validation = split_by_source(["x"] * 40, 0.1, seed=0, blocks=10)
    assert len(validation) == 4
    assert np.ptp(validation) == 3
    assert len(train) == 36


def test_two_steps_are_the_least():
    train, validation = split_by_source(["a step 1", "a step 2"], 0.5, seed=0)
    assert len(train) == len(validation) == 1
    with pytest.raises(DataError, match="at least 2 steps"):
        split_by_source(["run.pos_0.xyz step 5", "run.pos_1.xyz step 5"], 0.5, seed=0)


def test_folds_hold_every_frame_back_once_and_keep_steps_together():
    folds = folds_by_source(SOURCES, 5)
    assert len(folds) == 5
    for train, held_back in folds:
        assert sorted([*train, *held_back]) == list(range(len(SOURCES)))
        assert not {place(SOURCES[index]) for index in held_back} & {place(SOURCES[index]) for index in train}
    assert sorted(index for _, held_back in folds for index in held_back) == list(range(len(SOURCES)))
    uneven = [
        f"a.pos_{bead}.xyz step {step}"
        for step, beads in ((0, 16), (1, 1), (2, 9), (3, 1))
        for bead in range(beads)
    ]
    assert [len(held_back) for _, held_back in folds_by_source(uneven, 3)] == [16, 9, 2]
    assert len(folds_by_source(SOURCES[:2], 5)) == 2
    with pytest.raises(DataError, match="at least 2 steps"):
        folds_by_source(SOURCES[:1], 5)


def test_trajectories_are_held_out_by_name_with_all_their_beads_and_steps():
    for name in ("b.pos.xyz", "b.p"):
        train, validation = hold_out(SOURCES, [name])
        assert {place(SOURCES[index])[0] for index in validation} == {"b"}
        assert {place(SOURCES[index])[0] for index in train} == {"a"}
        assert len(train) == len(validation) == 200


def test_a_whole_name_is_that_trajectory_and_a_part_all_that_have_it():
    sources = ["hot step 1", "hot-2 step 1", "cold step 1", "drawn from modes"]
    for names, expected in (
        (["hot"], [0]),
        (["ot"], [0, 1]),
        (["hot", "cold"], [0, 2]),
        (["drawn from modes"], [3]),
    ):
        assert hold_out(sources, names)[1].tolist() == expected


def test_a_name_of_no_trajectory_and_no_frames_left_are_said():
    with pytest.raises(DataError) as info:
        hold_out(SOURCES, ["a", "warm"])
    message = (
        "training: expected trajectories of the frames for validation (a.pos.xyz, b.pos.xyz), found 'warm'"
    )
    assert str(info.value) == message
    with pytest.raises(DataError, match="expected frames of other trajectories than those for validation"):
        hold_out(SOURCES, ["pos"])


def test_a_bootstrap_draws_whole_blocks_of_the_training_frames():
    train, validation = split_by_source(SOURCES, 0.2, seed=0)
    drawn = resample_by_source(SOURCES, train, seed=1)
    assert not set(drawn) & set(validation)
    counts = np.bincount(drawn, minlength=len(SOURCES))
    assert counts.max() > 1
    # Of many blocks a share of 1/e is not drawn.
    assert 0.45 < np.mean(counts[train] > 0) < 0.8
    for index, source in enumerate(SOURCES):  # beads of a step together
        assert all(
            counts[k] == counts[index] for k in range(len(SOURCES)) if place(SOURCES[k]) == place(source)
        )
    assert resample_by_source(SOURCES, train, seed=1).tolist() == drawn.tolist()
    assert resample_by_source(SOURCES, train, seed=2).tolist() != drawn.tolist()
