"""One neural network for each QM element; the sum of their outputs is the energy correction."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from pidelta.delta.hdnnp.settings import HDNNPSettings
from pidelta.delta.network_model import FeatureNetworks
from pidelta.delta.scaling import scales


class AtomicNetworks(FeatureNetworks):
    """Atomic energies from scaled features: a multilayer perceptron with SiLU for each element.

    Behler, Parrinello, PRL 98, 146401 (2007). The activation is infinitely differentiable, so forces are as
    smooth as the descriptors.

    Args:
        settings: the features and the widths of the hidden layers.
        seed: seed of the initial weights.
    """

    def __init__(self, settings: HDNNPSettings, seed: int = 0) -> None:
        super().__init__()
        self._blocks = settings.blocks
        self._dtype = torch.float64
        elements, features = len(settings.elements), settings.feature_count
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.networks = nn.ModuleList(_perceptron(features, settings.hidden) for _ in range(elements))
        self.register_buffer("mean", torch.zeros(elements, features, dtype=torch.float64))
        self.register_buffer("inverse_scale", torch.ones(elements, features, dtype=torch.float64))
        self.register_buffer("energy_scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("baseline", torch.zeros(elements, dtype=torch.float64))

    def forward(self, positions: torch.Tensor, features: torch.Tensor, species: torch.Tensor) -> torch.Tensor:
        """Energy corrections (B,) in hartree of features (B, n, D) of atoms of `species` (n,)."""
        energy = self.baseline[species].sum().expand(len(features))
        for element, network in enumerate(self.networks):
            atoms = torch.nonzero(species == element).squeeze(1)
            if len(atoms):
                scaled = (features[:, atoms] - self.mean[element]) * self.inverse_scale[element]
                own = network(scaled.to(self._dtype)).double()
                energy = energy + self.energy_scale * own.sum(dim=(1, 2))
        return energy

    def converted(self, dtype: torch.dtype) -> AtomicNetworks:
        """A copy whose networks are evaluated in another type; what is added up stays float64."""
        other = copy.deepcopy(self)
        other.networks.to(dtype)
        other._dtype = dtype
        return other

    @torch.no_grad()
    def fit_scales(self, features: Sequence[torch.Tensor], species: Sequence[torch.Tensor]) -> None:
        """Set mean and scale of each element from all its atoms in the training."""
        for element in range(len(self.mean)):
            self.mean[element], self.inverse_scale[element] = scales(features, species, element, self._blocks)


def _perceptron(features: int, hidden: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = features
    for size in hidden:
        layers += [nn.Linear(width, size, dtype=torch.float64), nn.SiLU()]
        width = size
    output = nn.Linear(width, 1, dtype=torch.float64)
    for layer in (*layers, output):
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers, output)
