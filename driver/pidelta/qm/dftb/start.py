"""What self-consistency starts from: neutral atoms, the last call, or an extrapolation of several."""

from __future__ import annotations

from collections import deque
from math import comb
from typing import Literal

import torch

from pidelta.qm.dftb.occupations import Filling

Start = Literal["none", "previous", "extrapolated"]
_HISTORY = {"none": 0, "previous": 1, "extrapolated": 5}


def neutral_populations(occupations: torch.Tensor, filling: Filling) -> torch.Tensor:
    """Spread the electrons of each channel over the sites as those of neutral atoms (S,) are; (C, S)."""
    filled = torch.tensor(filling.filled, dtype=occupations.dtype, device=occupations.device)
    return filling.capacity * filled.unsqueeze(-1) * (occupations / occupations.sum())


class StartingPopulations:
    """Guesses populations from those of earlier calls, if these had as many structures.

    Args:
        start: ``none``; ``previous``, those of the last call; or ``extrapolated``, for structures that are
            successive steps of a trajectory: the polynomial through the last five calls. Pulay and Fogarasi,
            Chem. Phys. Lett. 386, 272 (2004), do so for Fock matrices.
    """

    def __init__(self, start: Start) -> None:
        self._history: deque[torch.Tensor] = deque(maxlen=_HISTORY[start])

    def guess(self, structures: int) -> torch.Tensor | None:
        """Return populations (B, C, S), or None without a call to start from."""
        if not self._history or len(self._history[0]) != structures:
            return None
        calls = len(self._history)
        terms = [(-1) ** k * comb(calls, k + 1) * past for k, past in enumerate(self._history)]
        return torch.stack(terms).sum(0)

    def remember(self, populations: torch.Tensor) -> None:
        """Add the populations (B, C, S) of a call."""
        if self._history and len(self._history[0]) != len(populations):
            self._history.clear()
        self._history.appendleft(populations)

    def forget(self) -> None:
        """Start afresh."""
        self._history.clear()
