"""What training needs of each frame, computed once: features, their Jacobians and the targets.

Positions never change in training, so features and Jacobians are constants. With a = dE/d(feature) from the
networks, the QM gradient is J a. For the environment only the squared error of the loss is needed,

    |A^T a - t|^2 = a^T (A A^T) a - 2 a^T (A t) + t^T t,

with A of shape (n K, 3 m): the Gram matrix A A^T, (n K, n K), stands for the m sites, so that a training step
costs the same for 10 and for 10,000 of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from pidelta.data.frames import LabelledFrame
from pidelta.delta.hdnnp.descriptors import (
    DescriptorSettings,
    angular_triples,
    site_species_index,
    species_index,
    structure_features,
)
from pidelta.delta.hdnnp.site_features import SiteFeatures
from pidelta.state import FloatArray


@dataclass(frozen=True)
class TargetGroup:
    """Prepared frames of the same QM atoms: F frames, n atoms, D features of which K see the environment.

    Attributes:
        frames: (F,) place of each frame in the list that was prepared.
        species: (n,) place of each atom's element in the descriptor settings.
        features: (F, n, D).
        jacobian: (F, n D, 3 n) d(feature)/dR of the QM atoms.
        gram, projection: (F, n K, n K) A A^T and (F, n K) A t of the environment, see the module.
        site_square: (F,) t^T t.
        site_count: (F,) number of sites m.
        energy: (F,) reference - low level in hartree.
        gradient: (F, 3 n) its gradient in hartree/bohr.
    """

    frames: torch.Tensor
    species: torch.Tensor
    features: torch.Tensor
    jacobian: torch.Tensor
    gram: torch.Tensor
    projection: torch.Tensor
    site_square: torch.Tensor
    site_count: torch.Tensor
    energy: torch.Tensor
    gradient: torch.Tensor


def prepare(settings: DescriptorSettings, labelled: Iterable[LabelledFrame]) -> list[TargetGroup]:
    """Compute features, Jacobians and targets of frames, grouped by their QM atoms.

    Args:
        settings: descriptor settings; they know all elements of the frames.
        labelled: the frames; an iterable that reports progress does so as they are prepared.
    """
    rows: dict[tuple[int, ...], list[dict[str, torch.Tensor]]] = {}
    for place, item in enumerate(labelled):
        row = _prepare_frame(settings, item) | {"frames": torch.tensor(place)}
        rows.setdefault(tuple(item.frame.numbers.tolist()), []).append(row)
    return [
        TargetGroup(
            species=species_index(settings, numbers),
            **{name: torch.stack([row[name] for row in members]) for name in members[0]},
        )
        for numbers, members in rows.items()
    ]


def _prepare_frame(settings: DescriptorSettings, item: LabelledFrame) -> dict[str, torch.Tensor]:
    frame, reference, low = item.frame, item.reference, item.low
    n = len(frame.numbers)
    species = species_index(settings, frame.numbers.tolist())
    positions = torch.from_numpy(frame.positions)
    sites = SiteFeatures(
        settings,
        positions[None],
        torch.from_numpy(frame.site_positions)[None],
        torch.from_numpy(frame.site_charges)[None],
        site_species_index(settings, frame.site_numbers[None]),
    )
    structure, slopes = _structure_jacobian(settings, species, positions)
    own, at_sites = sites.jacobian()
    jacobian = torch.zeros(n, settings.feature_count, n, 3, dtype=torch.float64)
    jacobian[:, : settings.structure_count] = slopes
    jacobian[torch.arange(n), settings.structure_count :, torch.arange(n)] = own

    target = _difference(reference.site_gradient, low.site_gradient)
    at_sites = at_sites.reshape(n * at_sites.shape[1], target.numel())
    return {
        "features": torch.cat([structure, sites.features()[0]], dim=-1),
        "jacobian": jacobian.reshape(-1, 3 * n),
        "gram": at_sites @ at_sites.mT,
        "projection": at_sites @ target,
        "site_square": target @ target,
        "site_count": torch.tensor(len(frame.site_charges), dtype=torch.float64),
        "energy": torch.tensor(reference.energy - low.energy, dtype=torch.float64),
        "gradient": _difference(reference.gradient, low.gradient),
    }


def _structure_jacobian(
    settings: DescriptorSettings, species: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Structure features (n, S) and their derivatives (n, S, n, 3), one copy of the structure for each
    coordinate.

    The derivative along a direction is that of J^T v in v: as J^T v is linear in v, reverse mode twice gives
    J d, at the cost of a batch of 3 n structures instead of n S backward passes.
    """
    n = len(positions)
    copies = positions.expand(3 * n, n, 3).clone().requires_grad_()
    features = structure_features(settings, species, copies, angular_triples(settings, positions[None]))
    dual = torch.zeros_like(features, requires_grad=True)
    (pulled,) = torch.autograd.grad(features, copies, dual, create_graph=True)
    directions = torch.eye(3 * n, dtype=torch.float64).reshape(3 * n, n, 3)
    (slopes,) = torch.autograd.grad(pulled, dual, directions)
    return features[0].detach(), slopes.permute(1, 2, 0).reshape(n, -1, n, 3)


def _difference(reference: FloatArray, low: FloatArray) -> torch.Tensor:
    return torch.from_numpy(np.ravel(reference - low))
