"""The model of the paper: networks of the structure and of its environment as an element of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from pidelta.delta.files import Content
from pidelta.delta.hdnnp.charge_features import ChargeFeatures
from pidelta.delta.hdnnp.networks import AtomicNetworks
from pidelta.delta.hdnnp.settings import HDNNPSettings
from pidelta.delta.network_model import NetworkModel
from pidelta.state import FloatArray


class HDNNP(NetworkModel):
    """A high-dimensional neural network potential that corrects a QM region in its environment.

    Boeselt, Thuerlemann, Riniker, JCTC 17, 2641 (2021).
    """

    schema = "pidelta hdnnp 2"
    settings_class = HDNNPSettings
    networks_class = AtomicNetworks
    field = ChargeFeatures

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._converted: dict[tuple[AtomicNetworks, torch.dtype], AtomicNetworks] = {}

    def _evaluate(
        self, networks: Sequence[AtomicNetworks], *arrays: Any
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        return super()._evaluate([self._in_precision(own) for own in networks], *arrays)

    def _in_precision(self, networks: AtomicNetworks) -> AtomicNetworks:
        """These networks in the type of this model; copies are kept for the next call."""
        if self.dtype == torch.float64:
            return networks
        key = networks, self.dtype
        if key not in self._converted:
            self._converted[key] = networks.converted(self.dtype)
        return self._converted[key]

    @classmethod
    def settings_from(cls, content: Content) -> HDNNPSettings:
        """Settings in a file, which has the widths of the hidden layers beside the descriptors."""
        return HDNNPSettings(**content["settings"], hidden=tuple(content["hidden"]))

    def settings_content(self) -> dict[str, Any]:
        """What the file says of the settings."""
        settings = asdict(self.settings)
        hidden = settings.pop("hidden")
        return {"settings": settings, "hidden": hidden}
