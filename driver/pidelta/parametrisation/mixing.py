"""Anderson's acceleration of a fixed-point iteration."""

from __future__ import annotations

import numpy as np

from pidelta.state import FloatArray


class AndersonMixer:
    """Anderson mixing: J. ACM 12, 547 (1965), as written by Eyert, J. Comput. Phys. 124, 271 (1996).

    Args:
        fraction: part of the residual that is added.
        memory: number of earlier iterations in use.
    """

    def __init__(self, fraction: float = 0.4, memory: int = 6) -> None:
        self._fraction = fraction
        self._memory = memory
        self._inputs: list[FloatArray] = []
        self._residuals: list[FloatArray] = []

    def mix(self, start: FloatArray, residual: FloatArray) -> FloatArray:
        """Return the next input from the last one (n,) and what the iteration changed it by (n,)."""
        step = start + self._fraction * residual
        if self._inputs:
            d_inputs = np.stack([start - earlier for earlier in self._inputs], axis=1)
            d_residuals = np.stack([residual - earlier for earlier in self._residuals], axis=1)
            weights = np.linalg.lstsq(d_residuals, residual, rcond=1e-12)[0]
            step = step - (d_inputs + self._fraction * d_residuals) @ weights
        self._inputs = [*self._inputs[-self._memory + 1 :], start]
        self._residuals = [*self._residuals[-self._memory + 1 :], residual]
        return step
