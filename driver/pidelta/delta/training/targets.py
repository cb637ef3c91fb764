"""What training needs of each frame, computed once: features, their Jacobians and the targets.

Positions never change in training, so features and Jacobians are constants. With a = dE/d(feature) from the
networks, the QM gradient is J a, and the derivative of the networks in the positions themselves. For the
environment only the squared error of the loss is needed,

    sum_j w_j |A_j^T a - t_j|^2 = a^T (A W A^T) a - 2 a^T (A W t) + t^T W t,

with A of shape (n K, 3 m): the Gram matrix A W A^T, (n K, n K), stands for the m sites, so that a training
step costs the same for 10 and for 10,000 of them. The weight w of a site is in `site_weights`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree

from pidelta.data.frames import Frame, LabelledFrame
from pidelta.delta.descriptors import DescriptorSettings, species_index
from pidelta.delta.region_features import FieldKind, RegionFeatures
from pidelta.state import FloatArray
from pidelta.units import ANGSTROM

_UNIT_DISTANCE = 3.0 * ANGSTROM  # where a site counts once


@dataclass(frozen=True)
class TargetGroup:
    """Prepared frames of the same QM atoms: F frames, n atoms, D features of which K see the environment.

    Attributes:
        frames: (F,) place of each frame in the list that was prepared.
        species: (n,) place of each atom's element in the descriptor settings.
        positions: (F, n, 3) of the QM atoms in bohr.
        features: (F, n, D).
        jacobian: (F, n D, 3 n) d(feature)/dR of the QM atoms.
        gram, projection: (F, n K, n K) A W A^T and (F, n K) A W t of the environment, see the module.
        site_square: (F,) t^T W t.
        site_count: (F,) number of sites m.
        energy: (F,) reference - low level in hartree.
        gradient: (F, 3 n) its gradient in hartree/bohr.
    """

    frames: torch.Tensor
    species: torch.Tensor
    positions: torch.Tensor
    features: torch.Tensor
    jacobian: torch.Tensor
    gram: torch.Tensor
    projection: torch.Tensor
    site_square: torch.Tensor
    site_count: torch.Tensor
    energy: torch.Tensor
    gradient: torch.Tensor


def prepare(
    settings: DescriptorSettings, field: FieldKind, labelled: Iterable[LabelledFrame]
) -> list[TargetGroup]:
    """Compute features, Jacobians and targets of frames, grouped by their QM atoms.

    Args:
        settings: descriptor settings; they know all elements of the frames.
        field: the kind of features that see the charges.
        labelled: the frames; an iterable that reports progress does so as they are prepared.
    """
    rows: dict[tuple[int, ...], list[dict[str, torch.Tensor]]] = {}
    for place, item in enumerate(labelled):
        row = _prepare_frame(settings, field, item) | {"frames": torch.tensor(place)}
        rows.setdefault(tuple(item.frame.numbers.tolist()), []).append(row)
    return [
        TargetGroup(
            species=torch.from_numpy(species_index(settings, numbers)),
            # popped, so that not all of it is in memory twice
            **{name: torch.stack([row.pop(name) for row in members]) for name in list(members[0])},
        )
        for numbers, members in rows.items()
    ]


def _prepare_frame(
    settings: DescriptorSettings, field: FieldKind, item: LabelledFrame
) -> dict[str, torch.Tensor]:
    frame, reference, low = item.frame, item.reference, item.low
    features = RegionFeatures(settings, field, frame.region)
    jacobian, at_sites = (torch.from_numpy(array) for array in features.jacobian())
    target = _difference(reference.site_gradient, low.site_gradient)
    at_sites = at_sites.flatten(2).flatten(0, 1)
    weights = torch.from_numpy(site_weights(frame)).repeat_interleave(3)
    weighted = at_sites * weights
    return {
        "positions": torch.from_numpy(frame.positions),
        "features": torch.from_numpy(features.features()[0]),
        "jacobian": jacobian.flatten(2).flatten(0, 1),
        "gram": weighted @ at_sites.mT,
        "projection": weighted @ target,
        "site_square": target @ (weights * target),
        "site_count": torch.tensor(len(frame.site_charges), dtype=torch.float64),
        "energy": torch.tensor(reference.energy - low.energy, dtype=torch.float64),
        "gradient": _difference(reference.gradient, low.gradient),
    }


def site_weights(frame: Frame) -> FloatArray:
    """How much the gradient on each site counts, (m,): as the square of its distance to the nearest QM atom.

    What a dipole does to a charge falls as the cube of the distance. With equal weights the few sites within
    3 angstrom are nearly all of the loss, and the dipole and quadrupole of the region, which all others feel,
    stay wrong. With the cube the far ones improve a little more, at the cost of hydrogen bonds.
    """
    distances, _ = KDTree(frame.positions).query(frame.site_positions)
    return np.asarray((distances / _UNIT_DISTANCE) ** 2)


def _difference(reference: FloatArray, low: FloatArray) -> torch.Tensor:
    return torch.from_numpy(np.ravel(reference - low))
