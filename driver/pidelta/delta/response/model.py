"""The response model: charges, dipoles, quadrupoles and polarisabilities in the field of the sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pidelta.delta.files import Content
from pidelta.delta.network_model import NetworkModel
from pidelta.delta.response.evaluation import JointEvaluation
from pidelta.delta.response.fields import ResponseField
from pidelta.delta.response.multipoles import COUNTS, MOMENTS
from pidelta.delta.response.networks import ResponseNetworks
from pidelta.delta.response.settings import ResponseSettings
from pidelta.state import FloatArray, IntArray


class Response(NetworkModel):
    """A correction that sees the sites by their potential, field and field gradient at the QM atoms.

    Those nearby it sees once more by these, for charge penetration, and by element and distance.

    See `networks.py` for its energy.
    """

    schema = "pidelta response 2"
    settings_class = ResponseSettings
    networks_class = ResponseNetworks
    field = ResponseField

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._joint: dict[tuple[tuple[ResponseNetworks, ...], torch.dtype], JointEvaluation] = {}

    def _evaluate(
        self,
        networks: Sequence[ResponseNetworks],
        positions: FloatArray,
        features: FloatArray,
        species: IntArray,
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        # What is made of their weights is kept for the next call: for this model alone, and in a committee.
        together = tuple(networks), self.dtype
        if together not in self._joint:
            self._joint[together] = JointEvaluation(self.settings, networks, self.dtype)
        return self._joint[together](positions, features, species)

    @staticmethod
    def coverage_features(settings: ResponseSettings, features: FloatArray) -> FloatArray:
        """Invariants in place of moments: phi, less its mean over the region but near ones, |F| and |H|."""
        parts = [features[..., : settings.structure_count]]
        for first in range(settings.structure_count, settings.near_moments.stop, MOMENTS):
            phi, field, gradient = np.split(features[..., first : first + MOMENTS], [1, 4], axis=-1)
            if first == settings.structure_count:
                phi = phi - phi.mean(axis=-2, keepdims=True)
            field = np.sqrt((field**2).sum(axis=-1, keepdims=True))
            gradient = np.sqrt((gradient**2 * COUNTS).sum(axis=-1, keepdims=True))
            parts += [phi, field, gradient]
        return np.concatenate([*parts, features[..., settings.near_moments.stop :]], axis=-1)

    @classmethod
    def settings_from(cls, content: Content) -> ResponseSettings:
        """The settings of a file; earlier ones have no near field."""
        given = {"near_powers": (), **content["settings"]}
        return ResponseSettings(**{**given, "near_powers": tuple(given["near_powers"])})
