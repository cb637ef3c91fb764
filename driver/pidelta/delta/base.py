"""The contract of a correction to the low-level method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pidelta.state import FloatArray, Region, RegionGradient


@dataclass(frozen=True)
class CorrectionResult:
    """Energy corrections of B structures and their derivatives, in atomic units.

    Properties that corrections have in common, where they have them:

    - ``delta_energies`` (B, K): the corrections of the K members of a committee in hartree;
    - ``delta_standard_deviation`` (B,): their sample standard deviation in hartree, zero for K = 1;
    - ``delta_extrapolation`` (B,): how far the structure lies from those the model was trained on. Training
      frames are at 1 and below; above 1 the model extrapolates.

    Attributes:
        energy: (B,) in hartree.
        gradient: dE/d of the arrays of the region.
        properties: further results by name, each of shape (B, ...).
    """

    energy: FloatArray
    gradient: RegionGradient
    properties: Mapping[str, FloatArray] = field(default_factory=dict)


class Correction(Protocol):
    """A model of (reference - low level)."""

    @property
    def uncertainty_threshold(self) -> float:
        """Standard deviation of a committee in hartree above which a structure deserves a warning.

        It is the energy error that the model had on frames held back from its training.
        """

    def evaluate(self, region: Region) -> CorrectionResult:
        """Energy correction and its derivatives for a batch.

        Raises:
            ModelError: the region is not one the correction was made for.
            GeometryError: the energy is not finite, as when atoms coincide.
        """
