"""The features of a response model that see the charges: the field of all sites and that of near ones."""

from __future__ import annotations

import numpy as np

from pidelta.delta.response.multipoles import MOMENTS, SiteField
from pidelta.delta.response.near_field import NearField
from pidelta.delta.response.settings import ResponseSettings
from pidelta.state import BoolArray, FloatArray


class ResponseField:
    """Both fields at the atoms of a batch of QM regions.

    Args:
        settings: of the model.
        positions: (B, n, 3) of the QM atoms in bohr.
        site_positions: (B, m, 3) in bohr.
        site_charges: (B, m) in e.
        padding: (B, m) which sites are none.
    """

    def __init__(
        self,
        settings: ResponseSettings,
        positions: FloatArray,
        site_positions: FloatArray,
        site_charges: FloatArray,
        padding: BoolArray,
    ) -> None:
        sites = (site_positions, site_charges, padding)
        self._far = SiteField(settings, positions, *sites)
        self._near = NearField(settings, positions, *sites)

    def features(self) -> FloatArray:
        """(B, n, 10 (1 + P)) moments at the QM atoms, in hartree/e over powers of bohr."""
        return np.concatenate([self._far.features(), self._near.features()], axis=-1)

    def pull_back(self, slopes: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Derivatives (B, n, 3) in the QM atoms, (B, m, 3) in the sites and (B, m) in their charges."""
        far = self._far.pull_back(slopes[..., :MOMENTS])
        near = self._near.pull_back(slopes[..., MOMENTS:])
        gradient, site_gradient, charge_gradient = (a + b for a, b in zip(far, near, strict=True))
        return gradient, site_gradient, charge_gradient

    def jacobian(self) -> FloatArray:
        """(n, 10 (1 + P), m, 3) d(moment of atom A)/dr_j of the first structure."""
        return np.concatenate([self._far.jacobian(), self._near.jacobian()], axis=1)
