"""What training needs of each frame, computed once: features, their Jacobians and the targets.

Positions never change in training, so features and Jacobians are constants. With a = dE/d(feature) from the
networks, the QM gradient is J a, and the derivative of the networks in the positions themselves. The loss
needs the squared error on the sites alone,

    sum_j w_j |A_j^T a - t_j|^2.

Few sites are near enough for all features. On the far ones only the first features act, those of the field
of all charges, and their sum is a^T (A W A^T) a - 2 a^T (A W t) + t^T W t: a small matrix stands for
thousands of sites. The weight w of a site is in `site_weights`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree
from torch.nn.utils.rnn import pad_sequence

from pidelta.data.frames import Frame, LabelledFrame
from pidelta.delta.descriptors import DescriptorSettings, species_index
from pidelta.delta.region_features import FieldKind, RegionFeatures
from pidelta.state import FloatArray
from pidelta.units import ANGSTROM

_UNIT_DISTANCE = 3.0 * ANGSTROM  # where a site counts once


@dataclass(frozen=True)
class TargetGroup:
    """Prepared frames of the same QM atoms: F frames, n atoms, D features of which K see all charges.

    M sites at most are near the QM atoms of a frame, in P pairs with them that count for the Q features that
    end at the short-range cutoff; where a frame has fewer, zeros follow.

    Attributes:
        frames: (F,) place of each frame in the list that was prepared.
        species: (n,) place of each atom's element in the descriptor settings.
        positions: (F, n, 3) of the QM atoms in bohr.
        features: (F, n, D).
        jacobian: (F, n D, 3 n) d(feature)/dR of the QM atoms.
        gram, projection: (F, n K, n K) A W A^T and (F, n K) A W t of the far sites, see the module.
        near_jacobian: (F, 3 M, n K) sqrt(w) d(feature)/dr of the near sites.
        pair_atoms, pair_sites: (F, P) atom and near site of each pair.
        pair_jacobian: (F, P, Q, 3) sqrt(w) d(feature of the atom)/dr of the site.
        near_target: (F, 3 M) sqrt(w) t of the near sites.
        site_square: (F,) t^T W t of all sites.
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
    near_jacobian: torch.Tensor
    pair_atoms: torch.Tensor
    pair_sites: torch.Tensor
    pair_jacobian: torch.Tensor
    near_target: torch.Tensor
    site_square: torch.Tensor
    site_count: torch.Tensor
    energy: torch.Tensor
    gradient: torch.Tensor

    def site_errors(self, rows: torch.Tensor, far: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        """Squared errors (B,) of the gradient on sites, weighed, summed over them.

        Args:
            rows: (B,) of this group.
            far, near: (B, n, K) and (B, n, Q) dE/d(feature).
        """
        far = far.flatten(1)
        form = (torch.einsum("bk,bkl->bl", far, self.gram[rows]) * far).sum(1)
        target = self.near_target[rows]
        square = form - 2.0 * (self.projection[rows] * far).sum(1)
        square = square + self.site_square[rows] - target.square().sum(1)
        batch = torch.arange(len(rows))[:, None]
        of_pairs = torch.einsum("bpq,bpqc->bpc", near[batch, self.pair_atoms[rows]], self.pair_jacobian[rows])
        sites = target.shape[1] // 3
        places = (batch * sites + self.pair_sites[rows]).flatten()
        summed = target.new_zeros(len(rows) * sites, 3).index_add(0, places, of_pairs.flatten(0, 1))
        error = torch.einsum("bsk,bk->bs", self.near_jacobian[rows], far) + summed.view(target.shape) - target
        return square + error.square().sum(1)


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
            **{name: _stacked([row.pop(name) for row in members]) for name in list(members[0])},
        )
        for numbers, members in rows.items()
    ]


def _stacked(values: list[torch.Tensor]) -> torch.Tensor:
    """One tensor of all; those of sites differ in length."""
    if len({value.shape for value in values}) == 1:
        return torch.stack(values)
    padded: torch.Tensor = pad_sequence(values, batch_first=True)
    return padded


def _prepare_frame(
    settings: DescriptorSettings, field: FieldKind, item: LabelledFrame
) -> dict[str, torch.Tensor]:
    frame, reference, low = item.frame, item.reference, item.low
    features = RegionFeatures(settings, field, frame.region)
    jacobian, at_sites = (torch.from_numpy(array) for array in features.jacobian())
    root = torch.from_numpy(np.sqrt(site_weights(frame)))[:, None]
    target = root * torch.from_numpy(reference.site_gradient - low.site_gradient)
    count = settings.far_features
    far, of_near = root * at_sites[:, :count], root * at_sites[:, count:]
    atoms, sites = torch.nonzero((of_near != 0.0).any(3).any(1), as_tuple=True)
    near_sites, places = torch.unique(sites, return_inverse=True)
    elsewhere = torch.ones(len(root), dtype=torch.bool)
    elsewhere[near_sites] = False
    far = far.flatten(0, 1)
    outer, outer_target = far[:, elsewhere].flatten(1), target[elsewhere].flatten()
    return {
        "positions": torch.from_numpy(frame.positions),
        "features": torch.from_numpy(features.features()[0]),
        "jacobian": jacobian.flatten(2).flatten(0, 1),
        "gram": outer @ outer.mT,
        "projection": outer @ outer_target,
        "near_jacobian": far[:, near_sites].flatten(1).mT,
        "pair_atoms": atoms,
        "pair_sites": places,
        "pair_jacobian": of_near[atoms, :, sites],
        "near_target": target[near_sites].flatten(),
        "site_square": target.square().sum(),
        "site_count": torch.tensor(len(frame.site_charges), dtype=torch.float64),
        "energy": torch.tensor(reference.energy - low.energy, dtype=torch.float64),
        "gradient": torch.from_numpy(np.ravel(reference.gradient - low.gradient)),
    }


def site_weights(frame: Frame) -> FloatArray:
    """How much the gradient on each site counts, (m,): as the square of its distance to the nearest QM atom.

    What a dipole does to a charge falls as the cube of the distance. With equal weights the few sites within
    3 angstrom are nearly all of the loss, and the dipole and quadrupole of the region, which all others feel,
    stay wrong. With the cube the far ones improve a little more, at the cost of hydrogen bonds.
    """
    distances, _ = KDTree(frame.positions).query(frame.site_positions)
    return np.asarray((distances / _UNIT_DISTANCE) ** 2)
