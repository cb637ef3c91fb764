"""Pairs of QM atoms and sites near each other, compiled."""

# mypy: allow-untyped-defs

from __future__ import annotations

import math

import numpy as np

from pidelta.core.compilation import compiled

_compiled = compiled(nogil=True, error_model="numpy")


@_compiled
def near_pairs(x, sites, skipped, cutoff):
    """Atom, site (P, 2) and distance (P,) of all pairs within the cutoff but those of skipped sites (m,)."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for i in range(len(x)):
        for c in range(3):
            low[c], high[c] = min(low[c], x[i, c] - cutoff), max(high[c], x[i, c] + cutoff)
    pairs, distances = np.empty((len(x), 2), np.int64), np.empty(len(x))
    count = 0
    for j in range(len(sites)):
        a, b, c = sites[j]
        outside = a < low[0] or a > high[0] or b < low[1] or b > high[1] or c < low[2] or c > high[2]
        if skipped[j] or outside:
            continue
        if count + len(x) > len(distances):
            pairs = np.concatenate((pairs, np.empty_like(pairs)))
            distances = np.concatenate((distances, np.empty_like(distances)))
        for i in range(len(x)):
            r = math.sqrt((a - x[i, 0]) ** 2 + (b - x[i, 1]) ** 2 + (c - x[i, 2]) ** 2)
            if r < cutoff:
                pairs[count] = i, j
                distances[count] = r
                count += 1
    return pairs[:count], distances[:count]
