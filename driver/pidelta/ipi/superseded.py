"""Rows and snapshots that a run which was killed and continued has written twice, or in part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pidelta.state import FloatArray, IntArray


def not_superseded(steps: IntArray | FloatArray) -> IntArray:
    """Indices of the rows after which the step only grows."""
    least_later = np.minimum.accumulate(np.append(steps[1:], np.inf)[::-1])[::-1]
    return np.flatnonzero(steps < least_later)


def goes_on(steps: Sequence[float], step: float | None) -> bool:
    """Whether what has a step may follow what was cut off: a killed run goes on from a checkpoint before it.

    Args:
        steps: (n,) or times, of what was written before the cut.
        step: of what was written after it.
    """
    return step is not None and (len(steps) < 2 or step < steps[-1] + 1.5 * abs(steps[1] - steps[0]))


def superseded_note(steps: IntArray | FloatArray, keep: IntArray, what: str) -> str:
    """What is to be said of rows or snapshots that are replaced by later ones; '' where there are none.

    Args:
        steps: (n,), or times.
        keep: what `not_superseded` leaves of them.
        what: they are.
    """
    if len(keep) == len(steps):
        return ""
    text = f"{len(steps) - len(keep)} of {len(steps)} {what} come again further on, and the later ones count"
    anew = np.flatnonzero(steps[1:] <= steps[0]) + 1
    if not len(anew):
        return text
    return f"{text}; number {anew[0] + 1} begins anew: are outputs of several runs joined?"
