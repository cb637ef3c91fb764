"""Charge-weighted features, which show a QM atom its environment, with hand-written derivatives.

With q_j the charges and r the distance from QM atom i, they are sums sum_j q_j g(r_ij) over the whole
embedding, the environment as an element type of its own (Boeselt, Thuerlemann, Riniker, JCTC 17, 2641
(2021)), with two kinds of g:

- 1/r: the potential at the atom, exactly as the QM methods feel it. It has no cutoff of its own: the
  embedding scales the charges so that they vanish with two continuous derivatives at its edge, and a second
  cutoff would hide from the model what DFT and the low level see there;
- Gaussians times the cutoff function, centres in geometric progression, sigma equal to their distance: what
  a change of multipoles, overlap and polarisation feels, finely resolved where the field is strong.

There are B n m pairs and K functions; derivatives are summed over the functions first, so that no array
exceeds B n m K numbers.
"""

from __future__ import annotations

import torch

from pidelta.core.switching import quintic, quintic_slope
from pidelta.delta.hdnnp.settings import HDNNPSettings
from pidelta.delta.radial_functions import CLOSEST_SITE
from pidelta.state import BoolArray, FloatArray


class ChargeFeatures:
    """The charge-weighted features of a batch of QM regions, and the way back from their derivatives.

    Args:
        settings: descriptor settings.
        positions: (B, n, 3) of the QM atoms in bohr.
        site_positions: (B, m, 3) in bohr.
        site_charges: (B, m) in e.
        padding: (B, m) which sites are none.
    """

    def __init__(
        self,
        settings: HDNNPSettings,
        positions: FloatArray,
        site_positions: FloatArray,
        site_charges: FloatArray,
        padding: BoolArray,
    ) -> None:
        self._count, self._cutoff = settings.charge_count, settings.charge_cutoff
        self._positions, self._sites, self._charges, self._padding = (
            torch.from_numpy(array) for array in (positions, site_positions, site_charges, padding)
        )
        self._r = self._distances()
        ratio = (self._cutoff / CLOSEST_SITE) ** (1.0 / self._count)
        self._centres = CLOSEST_SITE * ratio ** torch.arange(self._count, dtype=torch.float64)
        self._etas = 0.5 / ((ratio - 1.0) * self._centres) ** 2
        self._bare = (self._r[..., None] - self._centres).square_().mul_(-self._etas).exp_()
        x = (self._r / self._cutoff).clamp(max=1.0)
        self._fall, self._fall_slope = quintic(x), quintic_slope(x) / self._cutoff

    def _distances(self) -> torch.Tensor:
        square = torch.zeros(())
        for axis in range(3):
            delta = self._sites[:, None, :, axis] - self._positions[:, :, None, axis]
            square = square + delta * delta
        # Padding may lie anywhere, also on a QM atom, where 1/r would not be finite: move it away.
        return square.sqrt_().masked_fill_(self._padding[:, None], 2.0 * self._cutoff)

    def features(self) -> FloatArray:
        """(B, n, K) the potential, then the Gaussians."""
        batch, n, m = self._r.shape
        weighted = (self._fall * self._charges[:, None]).reshape(batch * n, 1, m)
        sums = (weighted @ self._bare.flatten(0, 1)).reshape(batch, n, self._count)
        potential = (self._r.reciprocal() @ self._charges[..., None]).reshape(batch, n, 1)
        return torch.cat([potential, sums], dim=-1).numpy()

    def pull_back(self, slopes: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Derivatives of an energy from its derivatives in the features.

        Args:
            slopes: (B, n, K) dE/d(feature).

        Returns:
            (B, n, 3) dE/dR of the QM atoms through these features, (B, m, 3) dE/dR of the sites, and
            (B, m) dE/dq, zero for padding.
        """
        batch, n, m = self._r.shape
        weights = torch.from_numpy(slopes)
        value, slope = self._combine(weights[..., 1:].flatten(0, 1))
        inverse = self._r.reciprocal()
        potential = weights[..., :1] * inverse
        value = value.reshape(batch, n, m) + potential
        pair = (slope.reshape(batch, n, m) - potential * inverse) * self._charges[:, None] * inverse
        # sum_i pair_ij (r_j - R_i) without ever holding the vectors of all pairs.
        site_gradient = pair.sum(1)[..., None] * self._sites - pair.mT @ self._positions
        gradient = pair.sum(2)[..., None] * self._positions - pair @ self._sites
        charges = value.sum(1).masked_fill_(self._padding, 0.0)
        return gradient.numpy(), site_gradient.numpy(), charges.numpy()

    def _combine(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """sum_k a_k g_k(r) and its derivative in r, (B n, m), for Gaussians with weights a (B n, K)."""
        twice = 2.0 * self._etas * weights
        sums = self._bare.flatten(0, 1) @ torch.stack([weights, twice, twice * self._centres], dim=-1)
        value, first, second = sums.unbind(-1)
        r, fall, slope = (part.flatten(0, 1) for part in (self._r, self._fall, self._fall_slope))
        return fall * value, slope * value - fall * (r * first - second)

    def jacobian(self) -> FloatArray:
        """(n, K, m, 3) d(feature of atom i)/dr_j of the first structure; in R_i it is minus the sum of it."""
        r = self._r[0, ..., None]
        slopes = (
            self._fall_slope[0, ..., None] - 2.0 * self._etas * (r - self._centres) * self._fall[0, ..., None]
        )
        weighted = torch.cat([-(r**-2), self._bare[0] * slopes], dim=-1)
        vectors = (self._sites[0] - self._positions[0][:, None]) / r
        return ((weighted * self._charges[0, :, None]).transpose(1, 2)[..., None] * vectors[:, None]).numpy()
