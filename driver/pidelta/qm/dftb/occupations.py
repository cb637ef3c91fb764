"""Occupation of the orbitals of closed shells and of two spins, at zero and finite electronic temperature."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

_BISECTIONS = 60
# Gaps below this (hartree) are treated as this large in the response, so that it stays finite.
_SMALLEST_GAP = 1e-6
# Guards the division by -dN/dmu, which vanishes for a gap much larger than the temperature.
_SMALLEST_TOTAL = 1e-30


@dataclass(frozen=True)
class Occupations:
    """Occupations (B, C, N) and the entropy term -T S (B,) in hartree."""

    numbers: torch.Tensor
    entropy_term: torch.Tensor


@dataclass(frozen=True)
class Filling:
    """Fills orbitals with a fixed number of electrons in each channel.

    Without spin polarisation there is one channel whose orbitals take two electrons; a spin-polarised
    molecule has a channel of spin up and one of spin down, each with its own chemical potential.

    Attributes:
        filled: orbitals filled, by channel; half an orbital for an odd electron without spin polarisation.
        temperature: k_B T in hartree; 0 fills whole orbitals from below (aufbau).
    """

    filled: tuple[float, ...]
    temperature: float

    @property
    def capacity(self) -> float:
        """Electrons that an orbital takes."""
        return 2.0 if len(self.filled) == 1 else 1.0

    def occupy(self, energies: torch.Tensor) -> Occupations:
        """Fill orbitals of energies (B, C, N), ascending, in hartree."""
        if self.temperature == 0.0:
            numbers = _aufbau(self.filled, self.capacity, energies.shape[-1], energies.device)
            return Occupations(numbers.expand_as(energies), energies.new_zeros(len(energies)))
        filled = torch.sigmoid((self._fermi_levels(energies) - energies) / self.temperature)
        disorder = torch.special.xlogy(filled, filled) + torch.special.xlogy(1.0 - filled, 1.0 - filled)
        entropy_term = self.capacity * self.temperature * disorder.sum((-2, -1))
        return Occupations(self.capacity * filled, entropy_term)

    def _fermi_levels(self, energies: torch.Tensor) -> torch.Tensor:
        """Bisect for the chemical potentials (B, C, 1)."""
        expected = torch.tensor(self.filled, dtype=energies.dtype, device=energies.device).unsqueeze(-1)
        margin = 50.0 * self.temperature
        low, high = energies[..., :1] - margin, energies[..., -1:] + margin
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            filled = torch.sigmoid((middle - energies) / self.temperature).sum(-1, keepdim=True)
            too_few = filled < expected
            low, high = torch.where(too_few, middle, low), torch.where(too_few, high, middle)
        return 0.5 * (low + high)

    def response(
        self, channel: int, energies: torch.Tensor, numbers: torch.Tensor, transitions: torch.Tensor
    ) -> torch.Tensor:
        """Differentiate populations of centres by potentials at centres in first-order perturbation theory.

        Args:
            channel: which.
            energies, numbers: (B, N) orbital energies and occupations of the channel.
            transitions: (B, S, I, J) transition charges of every centre, for the ranges of `orbital_ranges`;
                overwritten.

        Returns:
            (B, S, S), symmetric and negative semidefinite, in e^2/hartree.
        """
        rows, columns = self.orbital_ranges(channel, energies.shape[-1])
        gaps = energies[:, rows].unsqueeze(-1) - energies[:, columns].unsqueeze(-2)
        if self.temperature == 0.0:
            inverse = gaps.clamp_(max=-_SMALLEST_GAP).mul_(-0.5 / self.capacity)
            return _response(transitions, inverse.rsqrt_())
        slopes = -numbers * (self.capacity - numbers) / (self.capacity * self.temperature)
        differences = numbers.unsqueeze(-1) - numbers.unsqueeze(-2)
        degenerate = gaps.abs() < _SMALLEST_GAP
        weights = torch.where(
            degenerate, slopes.unsqueeze(-1), differences / gaps.masked_fill(degenerate, 1.0)
        )
        # The chemical potential follows, so that the number of electrons stays.
        shift = (transitions.diagonal(dim1=-2, dim2=-1) * slopes.unsqueeze(-2)).sum(-1)
        total = slopes.sum(-1).clamp(max=-_SMALLEST_TOTAL)
        response = _response(transitions, (-weights).clamp(min=0.0).sqrt_())
        return response - shift.unsqueeze(-1) * shift.unsqueeze(-2) / total[:, None, None]

    def orbital_ranges(self, channel: int, orbitals: int) -> tuple[slice, slice]:
        """The ranges of orbitals i and j between which `response` needs transition charges."""
        if self.temperature == 0.0:
            count = int(self.filled[channel])
            return slice(0, count), slice(count, orbitals)
        return slice(0, orbitals), slice(0, orbitals)


@lru_cache(maxsize=16)
def _aufbau(filled: tuple[float, ...], capacity: float, orbitals: int, device: torch.device) -> torch.Tensor:
    """Fill whole orbitals from below: (C, N)."""
    numbers = torch.zeros(len(filled), orbitals, dtype=torch.float64, device=device)
    for channel, count in enumerate(filled):
        numbers[channel, : int(count)] = capacity
    return numbers


def _response(transitions: torch.Tensor, roots: torch.Tensor) -> torch.Tensor:
    """Return -sum_ij t_x,ij roots_ij^2 t_y,ij (B, S, S). Overwrites `transitions`."""
    scaled = transitions.mul_(roots.unsqueeze(1)).flatten(2)
    return -(scaled @ scaled.mT)
