"""Occupation of the orbitals of closed-shell molecules, at zero and at finite electronic temperature."""

from __future__ import annotations

from dataclasses import dataclass

import torch

_BISECTIONS = 100
# Gaps below this (hartree) are treated as this large in the response, so that it stays finite.
_SMALLEST_GAP = 1e-6
# Guards the division by -dN/dmu, which vanishes for a gap much larger than the temperature.
_SMALLEST_TOTAL = 1e-30


@dataclass(frozen=True)
class Occupations:
    """Occupations (B, N) between 0 and 2 and the entropy term -T S (B,) in hartree."""

    numbers: torch.Tensor
    entropy_term: torch.Tensor


@dataclass(frozen=True)
class Filling:
    """Fills orbitals with an even number of electrons.

    Attributes:
        electrons: how many.
        temperature: k_B T in hartree; 0 fills from below (aufbau).
    """

    electrons: int
    temperature: float

    def occupy(self, energies: torch.Tensor) -> Occupations:
        """Fill orbitals of energies (B, N), ascending, in hartree."""
        if self.temperature == 0.0:
            numbers = torch.zeros_like(energies)
            numbers[:, : self.electrons // 2] = 2.0
            return Occupations(numbers, torch.zeros_like(energies[:, 0]))
        filled = torch.sigmoid((self._fermi_level(energies) - energies) / self.temperature)
        disorder = torch.special.xlogy(filled, filled) + torch.special.xlogy(1.0 - filled, 1.0 - filled)
        return Occupations(2.0 * filled, 2.0 * self.temperature * disorder.sum(-1))

    def _fermi_level(self, energies: torch.Tensor) -> torch.Tensor:
        """Bisect for the chemical potential (B, 1)."""
        margin = 50.0 * self.temperature
        low, high = energies[:, :1] - margin, energies[:, -1:] + margin
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            filled = torch.sigmoid((middle - energies) / self.temperature).sum(-1, keepdim=True)
            too_few = filled < self.electrons // 2
            low, high = torch.where(too_few, middle, low), torch.where(too_few, high, middle)
        return 0.5 * (low + high)

    def response(self, energies: torch.Tensor, transitions: torch.Tensor) -> torch.Tensor:
        """Differentiate atomic populations by atomic potentials in first-order perturbation theory.

        Args:
            energies: (B, N) orbital energies.
            transitions: (B, n, I, J) transition charges of every atom, for the ranges of `orbital_ranges`;
                overwritten.

        Returns:
            (B, n, n), symmetric and negative semidefinite, in e^2/hartree.
        """
        rows, columns = self.orbital_ranges(energies.shape[-1])
        gaps = energies[:, rows].unsqueeze(-1) - energies[:, columns].unsqueeze(-2)
        if self.temperature == 0.0:
            return _response(transitions, 4.0 / gaps.clamp(max=-_SMALLEST_GAP))
        numbers = self.occupy(energies).numbers
        slopes = -numbers * (2.0 - numbers) / (2.0 * self.temperature)
        differences = numbers.unsqueeze(-1) - numbers.unsqueeze(-2)
        degenerate = gaps.abs() < _SMALLEST_GAP
        weights = torch.where(
            degenerate, slopes.unsqueeze(-1), differences / gaps.masked_fill(degenerate, 1.0)
        )
        # The chemical potential follows, so that the number of electrons stays.
        shift = (transitions.diagonal(dim1=-2, dim2=-1) * slopes.unsqueeze(-2)).sum(-1)
        total = slopes.sum(-1).clamp(max=-_SMALLEST_TOTAL)
        response = _response(transitions, weights)
        return response - shift.unsqueeze(-1) * shift.unsqueeze(-2) / total[:, None, None]

    def orbital_ranges(self, orbitals: int) -> tuple[slice, slice]:
        """The ranges of orbitals i and j between which `response` needs transition charges."""
        if self.temperature == 0.0:
            return slice(0, self.electrons // 2), slice(self.electrons // 2, orbitals)
        return slice(0, orbitals), slice(0, orbitals)


def _response(transitions: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return sum_ij t_A,ij w_ij t_B,ij (B, n, n); no weight is positive. Overwrites `transitions`."""
    scaled = transitions.mul_((-weights).clamp(min=0.0).sqrt_().unsqueeze(1)).flatten(2)
    return -(scaled @ scaled.mT)
