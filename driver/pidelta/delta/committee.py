"""Several models trained alike: their mean is the prediction, their spread its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pidelta.delta.model import DeltaModel, DeltaResult, evaluate_networks
from pidelta.errors import ModelError
from pidelta.state import FloatArray, IntArray


@dataclass(frozen=True)
class CommitteeResult(DeltaResult):
    """The mean of K models (as in `DeltaResult`) and how far they disagree.

    Attributes:
        energies: (K, B) energy correction of each model in hartree.
        standard_deviation: (B,) sample standard deviation of the energies in hartree; zero for K = 1.
    """

    energies: FloatArray
    standard_deviation: FloatArray


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

    def evaluate(
        self,
        numbers: IntArray,
        positions: FloatArray,
        env_positions: FloatArray,
        env_charges: FloatArray,
        env_numbers: IntArray,
    ) -> CommitteeResult:
        """Evaluate the mean and the spread; arguments and errors as in `DeltaModel.evaluate`."""
        energies, mean = evaluate_networks(
            self.models[0].settings,
            [model.networks for model in self.models],
            numbers,
            positions,
            env_positions,
            env_charges,
            env_numbers,
        )
        spread = energies.std(axis=0, ddof=1) if len(energies) > 1 else np.zeros_like(mean.energy)
        return CommitteeResult(
            energy=mean.energy,
            gradient=mean.gradient,
            env_gradient=mean.env_gradient,
            charge_gradient=mean.charge_gradient,
            energies=energies,
            standard_deviation=spread,
        )
