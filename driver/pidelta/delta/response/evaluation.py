"""Energies of several response models at once and the derivatives of their mean, by hand.

The formula is that of `networks.py`, whose automatic derivatives train the models and check these. By hand it
is faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pidelta.delta.radial_functions import gaussian_grid
from pidelta.delta.response.multipoles import COUNTS, MOMENTS
from pidelta.delta.response.networks import COEFFICIENTS, ResponseNetworks, Weights, field_invariants, stacked
from pidelta.delta.response.pairs import PairNetworks, pair_energies
from pidelta.delta.response.settings import ResponseSettings
from pidelta.state import FloatArray, IntArray


class JointEvaluation:
    """K models side by side.

    Args:
        settings: of the models.
        networks: their parameters.
        dtype: in which the networks of the atoms are evaluated. The field, pairs and all sums are float64.
    """

    def __init__(
        self,
        settings: ResponseSettings,
        networks: Sequence[ResponseNetworks],
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self._settings = settings
        weights = stacked(networks)
        self._baseline = weights.baseline.numpy()
        self._elements = [
            _Atoms(settings, weights, element, dtype) for element in range(len(settings.elements))
        ]
        radial, radial_bias, coupling, _, pair, pair_bias = (
            part[:, 0] for name in ("radial", "coupling", "pair") for part in weights.layers[name]
        )
        self._pairs = PairNetworks(
            gaussian_grid(1.5, settings.radial_cutoff, settings.pair_radial_count),
            radial.numpy(),
            radial_bias[:, 0].numpy(),
            coupling.numpy(),
            pair.mT.contiguous().numpy(),
            pair_bias[:, 0].numpy(),
        )

    def __call__(
        self, positions: FloatArray, features: FloatArray, species: IntArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Evaluate a batch.

        Args:
            positions: (B, n, 3) in bohr.
            features: (B, n, D), raw, in the order of `ResponseSettings`.
            species: (n,) place of each atom's element.

        Returns:
            energies (K, B) in hartree, and the derivatives of their mean in the features (B, n, D) and in the
            positions (B, n, 3) at fixed features.
        """
        first, last = self._settings.structure_count, self._settings.near_moments.stop
        powers = len(self._settings.near_powers)
        moments = features[..., first:last].copy()
        moments[..., 0] -= moments[..., 0].mean(axis=1, keepdims=True)
        atoms = [np.flatnonzero(species == element) for element in range(len(self._elements))]
        models, (batch, n, _) = len(self._baseline), features.shape
        energies = np.repeat(self._baseline[:, species].sum(axis=1)[:, None], batch, axis=1)
        own_count = COEFFICIENTS + powers  # what multiplies the field at an atom alone
        outputs = np.empty((batch, models, n, own_count + 2 * self._settings.pair_width))
        seen = _Invariants(moments[..., :MOMENTS])
        for element, own in zip(self._elements, atoms, strict=True):
            if len(own):
                energy, outputs[:, :, own] = element.forward(features[:, own], seen.values[:, own])
                energies += energy
        # The potentials go with charges, the square of the field with the polarisability.
        field = moments[..., 1:4]
        multiplied = np.empty((batch, n, own_count))
        multiplied[..., 0] = moments[..., 0]
        multiplied[..., 1] = 0.5 * (field**2).sum(axis=2)
        multiplied[..., COEFFICIENTS:] = moments[..., MOMENTS::MOMENTS]
        coefficients = outputs[..., :own_count]
        pair, found = pair_energies(
            self._pairs,
            np.ascontiguousarray(positions),
            np.ascontiguousarray(outputs[..., own_count:]),
            moments,
        )
        energies += (pair + (coefficients * multiplied[:, None]).sum(axis=(2, 3))).T

        moment_slopes, mean = found.moments, coefficients.mean(axis=1)
        moment_slopes[..., 0] += mean[..., 0]
        moment_slopes[..., 1:4] += mean[..., 1:2] * field
        moment_slopes[..., MOMENTS::MOMENTS] += mean[..., COEFFICIENTS:]
        output_slopes = np.concatenate(
            [np.broadcast_to(multiplied[:, None] / models, coefficients.shape), found.inputs], axis=-1
        )
        slopes = np.empty_like(features)
        for element, own in zip(self._elements, atoms, strict=True):
            if len(own):
                structure, invariants, near = element.backward(output_slopes[:, :, own])
                slopes[:, own, :first] = structure
                slopes[:, own, last:] = near
                moment_slopes[:, own, :MOMENTS] += seen.pull_back(invariants, own)
        moment_slopes[..., 0] -= moment_slopes[..., 0].mean(axis=1, keepdims=True)
        slopes[..., first:last] = moment_slopes
        return energies, slopes, found.positions


class _Invariants:
    """phi, |F| and |H| (B, n, 3) as `field_invariants` makes them of moments (B, n, 10), and the way back."""

    def __init__(self, moments: FloatArray) -> None:
        phi, field, gradient = (torch.from_numpy(part) for part in np.split(moments, [1, 4], axis=-1))
        self.values = field_invariants(phi[..., 0], field, gradient).numpy()
        self._moments = moments

    def pull_back(self, slopes: FloatArray, atoms: IntArray) -> FloatArray:
        """dE/d(moment) (B, N, 10) of some atoms from their dE/d(invariant) (B, N, 3)."""
        field, gradient = np.split(self._moments[:, atoms, 1:], [3], axis=-1)
        slopes = slopes / np.where([True, False, False], 1.0, self.values[:, atoms])
        return np.concatenate(
            [slopes[..., :1], slopes[..., 1:2] * field, slopes[..., 2:] * gradient * COUNTS], axis=-1
        )


class _Atoms:
    """The networks of the atoms of one element, of K models; `backward` goes with the last `forward`.

    All that they are given and give is float64, whatever they are evaluated in.
    """

    def __init__(
        self, settings: ResponseSettings, weights: Weights, element: int, dtype: torch.dtype
    ) -> None:
        self._settings = settings
        self._dtype = dtype
        self._layers = {
            name: (matrix[:, element].to(dtype), bias[:, element].to(dtype))
            for name, (matrix, bias) in weights.layers.items()
            if name not in ("radial", "coupling", "pair")
        }
        self._first = self._layers["first"][0].transpose(1, 2).flatten(0, 1).contiguous()  # (K H, S)

    def forward(self, features: FloatArray, invariants: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Energies (K, B), and outputs (B, K, N, O) for the field.

        Args:
            features: (B, N, D) of N atoms.
            invariants: (B, N, 3) of the field at them.
        """
        settings = self._settings
        batch, count, _ = features.shape
        own = torch.from_numpy(features.reshape(batch * count, -1)).to(self._dtype)
        structure, near = own[:, : settings.structure_count], own[:, settings.near_moments.stop :]
        models = len(self._layers["first"][1])
        hidden = (structure @ self._first.T).reshape(len(own), models, -1).transpose(0, 1)
        hidden = hidden + self._layers["first"][1]
        width = settings.energy_width
        seen = torch.from_numpy(invariants.reshape(len(own), -1)).to(self._dtype)
        hidden[..., width:] += self._map("field", seen.expand(models, -1, -1))
        self._hidden = _Silu(hidden)
        shared = self._hidden.value
        self._energy = _Silu(self._map("energy", shared[..., :width] if width else shared))
        energy = self._map("energy_out", self._energy.value)
        output = self._map("response", shared[..., width:])
        if settings.short_width:
            output, short = output.split(
                [output.shape[-1] - settings.short_width, settings.short_width], dim=-1
            )
            self._near = _Silu(short + self._map("near", near.expand(models, -1, -1)))
            self._short = _Silu(self._map("short", self._near.value))
            energy = energy + self._map("short_out", self._short.value)
        self._shape = (models, batch, count)
        return (
            energy.reshape(self._shape).double().sum(2).numpy(),
            output.reshape(*self._shape, -1).transpose(0, 1).double().numpy(),
        )

    def backward(self, slopes: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Derivatives of the mean energy in structure (B, N, S), invariants (B, N, 3) and near (B, N, R).

        Args:
            slopes: (B, K, N, O) dE/d(output).
        """
        settings = self._settings
        models, batch, count = self._shape
        parts = [torch.from_numpy(slopes).to(self._dtype).transpose(0, 1).reshape(models, batch * count, -1)]
        near = torch.zeros(batch * count, settings.short_features, dtype=self._dtype)
        share = torch.full((models, batch * count, 1), 1.0 / models, dtype=self._dtype)
        if settings.short_width:
            short = self._short.backward(self._back("short_out", share))
            short = self._near.backward(self._back("short", short))
            near = self._back("near", short).sum(0)
            parts.append(short)
        hidden = self._back("response", torch.cat(parts, dim=-1))
        energy = self._back("energy", self._energy.backward(self._back("energy_out", share)))
        hidden = torch.cat([energy, hidden], dim=-1) if settings.energy_width else energy + hidden
        hidden = self._hidden.backward(hidden)
        invariants = self._back("field", hidden[..., settings.energy_width :]).sum(0)
        structure = hidden.transpose(0, 1).flatten(1) @ self._first
        return (
            structure.reshape(batch, count, -1).double().numpy(),
            invariants.reshape(batch, count, -1).double().numpy(),
            near.reshape(batch, count, -1).double().numpy(),
        )

    def _map(self, name: str, x: torch.Tensor) -> torch.Tensor:
        matrix, bias = self._layers[name]
        return torch.baddbmm(bias, x, matrix)

    def _back(self, name: str, slopes: torch.Tensor) -> torch.Tensor:
        return slopes @ self._layers[name][0].mT


class _Silu:
    """x sigmoid(x), and the way back."""

    def __init__(self, x: torch.Tensor) -> None:
        self._sigmoid = torch.sigmoid(x)
        self.value = x * self._sigmoid

    def backward(self, slopes: torch.Tensor) -> torch.Tensor:
        """dE/dx from dE/d(value)."""
        return slopes * torch.addcmul(self._sigmoid, self.value, 1.0 - self._sigmoid)
