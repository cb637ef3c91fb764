"""The split into training and validation frames."""

from __future__ import annotations

import numpy as np
import pytest

from pidelta.data.splits import (
    folds_by_source,
    hold_out,
    resample_by_source,
    split_after,
    split_by_source,
    trajectory_and_step,
)
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


@pytest.mark.parametrize(
    ("source", "trajectory", "step"),
    [
        ("step5_production.pos_0.xyz step 40", "step5_production.pos.xyz ", 40),
        ("step5/md.pos_12.xyz step 40", "step5/md.pos.xyz ", 40),
        ("a step 7/md.pos_0.xyz step 40 minimum", "a step 7/md.pos.xyz  minimum", 40),
        ("Step: 40, bead 3", ", ", 40),
        ("runs/run_1.xyz step 40", "runs/run_1.xyz ", 40),
        ("run_2.pos_01.pdb step 40", "run_2.pos.pdb ", 40),
        ("footstep 40", "", 99),
        ("step5/md.pos_0.xyz", "", 99),
        ("step 5.xyz", "", 99),
    ],
)
def test_the_step_is_the_last_word_of_a_source_and_the_bead_that_of_i_pi(source, trajectory, step):
    assert trajectory_and_step(source, 99) == (trajectory, step)


def test_names_that_hold_the_word_step_keep_their_steps():
    """As CHARMM-GUI calls them; all frames of a name were one step, half of the data was held back."""
    sources = [f"step{k}_production.pos_0.xyz step {10 * n}" for k in (5, 6) for n in range(50)]
    train, validation = split_by_source(sources, 0.1, seed=0)
    assert (len(train), len(validation)) == (90, 10)


def test_runs_by_number_are_no_beads_of_one():
    sources = [f"run_{k}.xyz step {n}" for k in range(4) for n in range(10)]
    for _, held_back in folds_by_source(sources, 4):
        assert len(held_back) == 10
    assert hold_out(sources, ["run_2"])[1].tolist() == list(range(20, 30))


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


def test_a_later_split_goes_on_with_the_earlier_one():
    """What was learned from never validates, what was held back does again, and a share of new frames."""
    old, new = SOURCES[:200], [source.replace("b.", "c.") for source in SOURCES[200:]]
    train, validation = split_by_source(old, 0.1, seed=5)
    learned, held = ({old[index] for index in part} for part in (train, validation))
    train, validation = split_after([*old, *new], learned, held, 0.1, seed=0)
    assert sorted([*train, *validation]) == list(range(400))
    found = {[*old, *new][index] for index in validation}
    assert not found & learned
    assert held < found
    assert found - held < set(new)
    assert 0.08 < len(found - held) / len(new) < 0.2
    steps = {place(source) for source in found - held}
    assert not steps & {place([*old, *new][index]) for index in train}


def test_a_later_split_of_few_new_frames_validates_by_those_held_back_before():
    learned, held = set(SOURCES[:40]), set(SOURCES[40:50])
    train, validation = split_after([*SOURCES[:50], "c step 1"], learned, held, 0.1, seed=0)
    assert validation.tolist() == list(range(40, 50))
    assert train[-1] == 50


def test_a_later_split_without_frames_to_validate_is_the_ordinary_one():
    for learned, held in ((set(SOURCES), set()), (set(), set(SOURCES))):
        train, validation = split_after(SOURCES, learned, held, 0.1, seed=3)
        expected = split_by_source(SOURCES, 0.1, seed=3)
        assert [train.tolist(), validation.tolist()] == [part.tolist() for part in expected]
