"""Scales of features for networks, from the frames of a training."""

from __future__ import annotations

from collections.abc import Sequence

import torch

# A feature that varies less than this share of the most varying one of its kind is not magnified to
# unit variance; one that never varied in training has no say at all.
_NEAR_CONSTANT = 0.05
_CONSTANT = 1e-6


def scales(
    features: Sequence[torch.Tensor],
    species: Sequence[torch.Tensor],
    element: int,
    blocks: Sequence[slice],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and inverse scale (D,) of the features of all atoms of an element.

    Args:
        features: (B, n, D) of the frames of each kind of QM region.
        species: (n,) the elements of each.
        element: which element.
        blocks: where features of one kind are.
    """
    own = torch.cat(
        [values[:, kinds == element].flatten(0, 1) for values, kinds in zip(features, species, strict=True)]
    )
    mean, deviation = own.mean(0), own.std(0, correction=0)
    inverse = torch.zeros_like(mean)
    for block in blocks:
        width = deviation[block]
        largest = float(width.max()) if len(width) else 0.0
        varies = width > _CONSTANT * max(largest, _CONSTANT)
        inverse[block] = torch.where(varies, 1.0 / width.clamp(min=max(_NEAR_CONSTANT * largest, 1e-12)), 0.0)
    return mean, inverse
