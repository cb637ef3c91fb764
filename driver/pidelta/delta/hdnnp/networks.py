"""One neural network for each QM element; the sum of their outputs is the energy correction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

# A feature that varies less than this share of the most varying one of its kind is not magnified to
# unit variance; one that never varied in training has no say at all.
_NEAR_CONSTANT = 0.05
_CONSTANT = 1e-6


class AtomicNetworks(nn.Module):
    """Atomic energies from scaled features: a multilayer perceptron with SiLU for each element.

    Behler, Parrinello, PRL 98, 146401 (2007). The activation is infinitely differentiable, so forces are as
    smooth as the descriptors.

    Args:
        elements: number of QM elements.
        features: number of features of an atom.
        hidden: widths of the hidden layers.
        seed: seed of the initial weights.
    """

    mean: torch.Tensor
    inverse_scale: torch.Tensor
    energy_scale: torch.Tensor
    baseline: torch.Tensor

    def __init__(self, elements: int, features: int, hidden: Sequence[int], seed: int = 0) -> None:
        super().__init__()
        self.hidden = tuple(hidden)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.networks = nn.ModuleList(_perceptron(features, self.hidden) for _ in range(elements))
        self.register_buffer("mean", torch.zeros(elements, features, dtype=torch.float64))
        self.register_buffer("inverse_scale", torch.ones(elements, features, dtype=torch.float64))
        self.register_buffer("energy_scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("baseline", torch.zeros(elements, dtype=torch.float64))

    def forward(self, features: torch.Tensor, species: torch.Tensor) -> torch.Tensor:
        """Energy corrections (B,) in hartree of features (B, n, D) of atoms of `species` (n,)."""
        energy = self.baseline[species].sum().expand(len(features))
        for element, network in enumerate(self.networks):
            atoms = torch.nonzero(species == element).squeeze(1)
            if len(atoms):
                scaled = (features[:, atoms] - self.mean[element]) * self.inverse_scale[element]
                energy = energy + self.energy_scale * network(scaled).sum(dim=(1, 2))
        return energy

    @torch.no_grad()
    def fit_scalers(self, element: int, features: torch.Tensor, blocks: Sequence[slice]) -> None:
        """Set mean and scale of one element from all its atoms in the training set, (A, D)."""
        mean, deviation = features.mean(0), features.std(0, correction=0)
        inverse = torch.zeros_like(mean)
        for block in blocks:
            width = deviation[block]
            largest = float(width.max()) if len(width) else 0.0
            varies = width > _CONSTANT * max(largest, _CONSTANT)
            inverse[block] = torch.where(
                varies, 1.0 / width.clamp(min=max(_NEAR_CONSTANT * largest, 1e-12)), 0.0
            )
        self.mean[element] = mean
        self.inverse_scale[element] = inverse


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
