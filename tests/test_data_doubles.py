"""Frames that stand twice in what is read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from delta_frames import random_frame
from pidelta.data.doubles import repeated


def test_copies_are_found_as_files_round_them_and_near_ones_are_not():
    frames = [random_frame(seed, source=f"step {seed}") for seed in range(4)]
    rounded = replace(frames[2], positions=frames[2].positions.round(5), source="another name")
    moved = frames[1].positions.copy()
    moved[2, 1] += 1e-4
    others = [
        replace(frames[1], positions=moved),
        replace(frames[1], site_charges=1.001 * frames[1].site_charges),
        replace(frames[1], charge=1),
        replace(frames[1], numbers=np.array([8, 6, 1, 9])),
        random_frame(1, sites=12),
    ]
    assert repeated([*frames, *others]) == []
    assert repeated([frames[0], rounded, *others, *frames, rounded]) == [7, 9, 11]
    assert repeated([]) == []
