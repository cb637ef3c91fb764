"""The response model: charges, dipoles, quadrupoles and polarisabilities in the field of the sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pidelta.delta.network_model import NetworkModel
from pidelta.delta.response.evaluation import JointEvaluation
from pidelta.delta.response.multipoles import MOMENTS, SiteField
from pidelta.delta.response.networks import ResponseNetworks
from pidelta.delta.response.settings import ResponseSettings
from pidelta.state import FloatArray, IntArray


class Response(NetworkModel):
    """A correction that is exact in the far field of the sites up to the second order of what it is made of.

    See `networks.py` for its energy.
    """

    schema = "pidelta response 1"
    settings_class = ResponseSettings
    networks_class = ResponseNetworks
    field = SiteField

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._joint: dict[tuple[ResponseNetworks, ...], JointEvaluation] = {}

    def _evaluate(
        self,
        networks: Sequence[ResponseNetworks],
        positions: FloatArray,
        features: FloatArray,
        species: IntArray,
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        # What is made of their weights is kept for the next call: for this model alone, and in a committee.
        together = tuple(networks)
        if together not in self._joint:
            self._joint[together] = JointEvaluation(self.settings, networks)
        return self._joint[together](positions, features, species)

    @staticmethod
    def coverage_features(settings: ResponseSettings, features: FloatArray) -> FloatArray:
        """Invariants in place of the moments: phi less its mean over the region, |F| and |H|."""
        first = settings.structure_count
        moments = features[..., first : first + MOMENTS]
        phi = moments[..., :1] - moments[..., :1].mean(axis=-2, keepdims=True)
        twice = np.array([1.0, 2.0, 2.0, 1.0, 2.0, 1.0])  # off-diagonal components
        field = np.sqrt((moments[..., 1:4] ** 2).sum(axis=-1, keepdims=True))
        gradient = np.sqrt((moments[..., 4:] ** 2 * twice).sum(axis=-1, keepdims=True))
        parts = [features[..., :first], phi, field, gradient, features[..., first + MOMENTS :]]
        return np.concatenate(parts, axis=-1)
