"""Several models trained alike: their mean is the prediction, their spread its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pidelta.delta.base import CorrectionResult
from pidelta.delta.model import DeltaModel, evaluate_networks
from pidelta.errors import ModelError
from pidelta.state import Region


class Committee:
    """One or more models with the same descriptors and training methods.

    Args:
        models: the members.

    Raises:
        ModelError: there is no member, or two differ in descriptors or in what they were trained on.
    """

    def __init__(self, models: Sequence[DeltaModel]) -> None:
        if not models:
            raise ModelError("delta.models: expected at least one model, found none")
        first = models[0]
        for place, model in enumerate(models[1:], start=1):
            if model.settings != first.settings:
                raise ModelError(f"delta.models: model {place} has other descriptors than model 0")
            if model.training != first.training:
                raise ModelError(f"delta.models: model {place} was trained on other methods than model 0")
        self.models = tuple(models)

    def evaluate(self, region: Region) -> CorrectionResult:
        """The mean of the members, with their energies and spread as properties.

        ``delta_energies`` (B, K) are the corrections of the members and ``delta_standard_deviation`` (B,)
        their sample standard deviation, zero for K = 1, both in hartree. Errors are those of
        `DeltaModel.evaluate`.
        """
        networks = [model.networks for model in self.models]
        energies, mean = evaluate_networks(self.models[0].settings, networks, region)
        spread = energies.std(axis=0, ddof=1) if len(energies) > 1 else np.zeros_like(mean.energy)
        properties = {"delta_energies": energies.T, "delta_standard_deviation": spread}
        return replace(mean, properties=properties)
