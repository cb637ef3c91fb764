"""What self-consistency starts from: neutral atoms, the last call, or an extrapolation of several."""

from __future__ import annotations

from collections import deque
from math import comb
from typing import Literal

import numpy as np
import torch

from pidelta.qm.dftb.occupations import Filling
from pidelta.state import FloatArray, IntArray

Start = Literal["none", "previous", "extrapolated"]
_HISTORY = {"none": 0, "previous": 1, "extrapolated": 5}


def neutral_populations(occupations: torch.Tensor, filling: Filling) -> torch.Tensor:
    """Spread the electrons of each channel over the sites as those of neutral atoms (S,) are; (C, S)."""
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
        length = _HISTORY[start]
        self._history: deque[FloatArray] = deque(maxlen=length)
        self._predictions: FloatArray | None = None
        # One row for each polynomial, of the factors of the calls, the last one first.
        self._polynomials = np.array(
            [[(-1.0) ** k * comb(calls, k + 1) for k in range(length)] for calls in range(1, length + 1)]
        )
        self._best: IntArray | None = None

    def guess(self, structures: int) -> FloatArray | None:
        """Return populations (B, C, S), or None without a call to start from."""
        if not self._history or len(self._history[0]) != structures:
            return None
        calls = len(self._history)
        past = np.array(self._history)
        predictions = self._polynomials[:calls, :calls] @ past.reshape(calls, -1)
        self._predictions = predictions.reshape(past.shape)
        return self._predictions[self._best, np.arange(structures)]

    def remember(self, populations: FloatArray) -> None:
        """Add the populations (B, C, S) of a call."""
        if self._history and len(self._history[0]) != len(populations):
            self.forget()
        if self._predictions is None:
            self._best = np.zeros(len(populations), dtype=np.int64)
        else:
            errors = ((self._predictions - populations) ** 2).sum((-2, -1))
            self._best = errors.argmin(0)
        self._history.appendleft(populations)

    def forget(self) -> None:
        """Start afresh."""
        self._history.clear()
        self._predictions = None
