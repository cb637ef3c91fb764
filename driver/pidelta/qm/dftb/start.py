"""What self-consistency starts from: neutral atoms, the last call, or an extrapolation of several."""

from __future__ import annotations

import numpy as np
import torch

from pidelta.qm.dftb.occupations import Filling
from pidelta.qm.dftb.settings import Start
from pidelta.state import FloatArray

_HISTORY = {"none": 0, "previous": 1, "extrapolated": 5}


def neutral_populations(occupations: torch.Tensor, filling: Filling) -> torch.Tensor:
    """Spread the electrons of each channel over the centres as those of neutral atoms (S,) are; (C, S)."""
    filled = torch.tensor(filling.filled, dtype=occupations.dtype, device=occupations.device)
    return filling.capacity * filled.unsqueeze(-1) * (occupations / occupations.sum())


class StartingPopulations:
    """Guesses populations from those of earlier calls, if these had as many structures.

    Polynomials through the last one, two, ... calls predict those of the next one (Pulay and Fogarasi, Chem.
    Phys. Lett. 386, 272 (2004), do so for Fock matrices). The guess for each structure of a batch is that of
    the polynomial that predicted the last call best: on a smooth trajectory one of high order, and the last
    call itself where structures come in no order.

    Args:
        start: ``none``; ``previous``, those of the last call; or ``extrapolated``, the best of the
            polynomials through up to five calls.
    """

    def __init__(self, start: Start) -> None:
        self._longest = _HISTORY[start]
        # Backward differences of the calls, from order 0. Those below order k sum to the prediction from k
        # calls; that of order k is how wrong the prediction of the last call from the k before it was.
        self._differences: list[FloatArray] = []

    def guess(self, structures: int) -> FloatArray | None:
        """Return populations (B, C, S), or None without a call to start from."""
        if not self._differences or len(self._differences[0]) != structures:
            return None
        differences = np.array(self._differences)
        if len(differences) < 3:
            last: FloatArray = differences[0]
            return last
        predictions = differences[:-1].cumsum(0)
        errors = (differences[1:] ** 2).sum((-2, -1))
        best: FloatArray = predictions[errors.argmin(0), np.arange(structures)]
        return best

    def remember(self, populations: FloatArray) -> None:
        """Add the populations (B, C, S) of a call."""
        if self._longest == 0:
            return
        before, self._differences = self._differences, [populations]
        if before and len(before[0]) == len(populations):
            for difference in before[: self._longest]:
                self._differences.append(self._differences[-1] - difference)

    def forget(self) -> None:
        """Start afresh."""
        self._differences = []
