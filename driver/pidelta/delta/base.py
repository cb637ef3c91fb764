"""The contract of a correction to the low-level method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pidelta.state import FloatArray, Region, RegionGradient


@dataclass(frozen=True)
class CorrectionResult:
    """Energy corrections of B structures and their derivatives, in atomic units.

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

    def evaluate(self, region: Region) -> CorrectionResult:
        """Energy correction and its derivatives for a batch.

        Raises:
            ModelError: the region is not one the correction was made for.
            GeometryError: the energy is not finite, as when atoms coincide.
        """
