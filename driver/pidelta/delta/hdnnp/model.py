"""The model of the paper: networks of the structure and of its environment as an element of its own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pidelta.delta.files import Content
from pidelta.delta.hdnnp.charge_features import ChargeFeatures
from pidelta.delta.hdnnp.networks import AtomicNetworks
from pidelta.delta.hdnnp.settings import HDNNPSettings
from pidelta.delta.network_model import NetworkModel


class HDNNP(NetworkModel):
    """A high-dimensional neural network potential that corrects a QM region in its environment.

    Boeselt, Thuerlemann, Riniker, JCTC 17, 2641 (2021).
    """

    schema = "pidelta hdnnp 2"
    settings_class = HDNNPSettings
    networks_class = AtomicNetworks
    field = ChargeFeatures

    @classmethod
    def settings_from(cls, content: Content) -> HDNNPSettings:
        """Settings in a file, which has the widths of the hidden layers beside the descriptors."""
        return HDNNPSettings(**content["settings"], hidden=tuple(content["hidden"]))

    def settings_content(self) -> dict[str, Any]:
        """What the file says of the settings."""
        settings = asdict(self.settings)
        hidden = settings.pop("hidden")
        return {"settings": settings, "hidden": hidden}
