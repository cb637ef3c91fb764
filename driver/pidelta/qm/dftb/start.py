"""What self-consistency starts from: neutral atoms, the last call, or an extrapolation of several."""

from __future__ import annotations

from collections import deque
from math import comb
from typing import Literal

import torch

from pidelta.qm.dftb.occupations import Filling

Start = Literal["none", "previous", "extrapolated"]
_HISTORY = {"none": 0, "previous": 1, "extrapolated": 4}


def neutral_populations(occupations: torch.Tensor, filling: Filling) -> torch.Tensor:
    """Spread the electrons of each channel over the sites as those of neutral atoms (S,) are; (C, S)."""
    electrons = filling.capacity * torch.tensor(filling.filled, dtype=occupations.dtype)
    return electrons.to(occupations.device).unsqueeze(-1) * (occupations / occupations.sum())


class StartingPopulations:
    """Guesses populations from those of earlier calls, if these had as many structures.

    Args:
        start: ``none``; ``previous``, the last call's; or ``extrapolated``, for structures that are successive
            steps of one trajectory: the predictor of Kolafa, J. Comput. Chem. 25, 335 (2004), over up to four
            calls.
    """

    def __init__(self, start: Start) -> None:
        self._history: deque[torch.Tensor] = deque(maxlen=_HISTORY[start])

    def guess(self, structures: int) -> torch.Tensor | None:
        """Return populations (B, C, S), or None without a call to start from."""
        if not self._history or len(self._history[0]) != structures:
            return None
        coefficients = predictor_coefficients(len(self._history))
        terms = (factor * past for factor, past in zip(coefficients, self._history, strict=True))
        return torch.stack(list(terms)).sum(0)

    def remember(self, populations: torch.Tensor) -> None:
        """Add the populations (B, C, S) of a call."""
        if self._history and len(self._history[0]) != len(populations):
            self._history.clear()
        self._history.appendleft(populations)

    def forget(self) -> None:
        """Start afresh."""
        self._history.clear()


def predictor_coefficients(calls: int) -> list[float]:
    """Weights of the last calls, the latest first: Kolafa's B_j, whose sum is 1."""
    norm = comb(2 * calls - 2, calls - 1)
    return [(-1) ** (j + 1) * j * comb(2 * calls, calls - j) / norm for j in range(1, calls + 1)]
