"""Which frames to label: those on which the models differ, and of them those that differ from each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.data import covalent_radii
from scipy.spatial.distance import cdist

from pidelta.data.frames import Frame
from pidelta.delta.hdnnp.charge_features import ChargeFeatures
from pidelta.delta.hdnnp.settings import HDNNPSettings
from pidelta.delta.region_features import RegionFeatures
from pidelta.errors import MissingExtraError
from pidelta.state import FloatArray, IntArray
from pidelta.units import ANGSTROM

_CLOSEST = 0.6
"""Of the sum of covalent radii: atoms that are closer have collided."""
_FARTHEST = 14.0 * ANGSTROM
_LEAST_DEVIATION = 0.05
"""A feature that varies less than this share of the most varying one counts as if it did so."""


def descriptors(frames: Sequence[Frame]) -> FloatArray:
    """Descriptors (F, D) of frames of one QM region: features of its atoms, in the order of the atoms.

    They are those of the network of the paper, the surroundings included, each in units of its deviation.
    """
    elements = tuple(sorted({int(number) for frame in frames for number in frame.numbers}))
    sites = tuple(sorted({int(number) for frame in frames for number in frame.site_numbers} - {0}))
    settings = HDNNPSettings(elements=elements, mm_elements=sites, charge_cutoff=_FARTHEST)
    rows = np.stack(
        [RegionFeatures(settings, ChargeFeatures, frame.region).features().ravel() for frame in frames]
    )
    deviation = rows.std(axis=0)
    floor = max(_LEAST_DEVIATION * float(deviation.max(initial=0.0)), 1e-12)
    return np.asarray((rows - rows.mean(axis=0)) / deviation.clip(floor))


def load_picker() -> Any:
    """The class of farthest-point sampling.

    Raises:
        MissingExtraError: scikit-matter is not installed.
    """
    try:
        from skmatter.sample_selection import FPS
    except ImportError:
        raise MissingExtraError("skmatter", "learn", "picking diverse frames") from None
    return FPS


def farthest(candidates: FloatArray, known: FloatArray, count: int) -> IntArray:
    """Pick candidates one after the other, each the farthest from all that are known or picked.

    Args:
        candidates: (C, D).
        known: (K, D); with none the first pick is the first candidate.
        count: how many to pick at most; duplicates are not.

    Returns:
        (count,) indices of candidates in the order of picking.

    Raises:
        MissingExtraError: scikit-matter is not installed.
    """
    sampling = load_picker()
    count = min(count, len(candidates))
    if not count or len(candidates) == 1:
        return np.arange(count)
    start = list(range(len(known))) or [0]
    picker = sampling(initialize=start, n_to_select=len(known) + count)
    picker.fit(np.concatenate([known, candidates]))
    return np.asarray(picker.selected_idx_[len(known) : len(known) + count] - len(known), dtype=np.int64)


def most_uncertain(uncertainty: FloatArray, share: float, least: int) -> IntArray:
    """Indices of the share of candidates that are most uncertain, at least so many, the most uncertain first.

    Args:
        uncertainty: (C,) in any unit.
        share: of the candidates.
        least: the number that is asked of them.
    """
    count = min(len(uncertainty), max(least, int(np.ceil(share * len(uncertainty)))))
    return np.argsort(-uncertainty, kind="stable")[:count]


def has_collided(frame: Frame) -> bool:
    """Whether two QM atoms, or one and an MM atom, are so close that a label would teach nothing."""
    radii = covalent_radii * ANGSTROM
    own = radii[frame.numbers]
    among = cdist(frame.positions, frame.positions) / (own[:, None] + own)
    np.fill_diagonal(among, np.inf)
    around = cdist(frame.positions, frame.site_positions) / (own[:, None] + radii[frame.site_numbers])
    around = around[:, frame.site_numbers > 0]
    return bool(min(among.min(initial=np.inf), around.min(initial=np.inf)) < _CLOSEST)
