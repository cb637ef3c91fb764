"""Features that show a QM atom its MM environment, with hand-written derivatives.

With q_j the charges and r the distance from QM atom i, the charge-weighted features are sum_j q_j g(r_ij)
over the whole embedding, the environment as an element type of its own (Boeselt, Thuerlemann, Riniker,
JCTC 17, 2641 (2021)), with two kinds of g:

- 1/r: the potential at the atom, exactly as the QM methods feel it. It has no cutoff of its own: the
  embedding scales the charges so that they vanish with two continuous derivatives at its edge, and a second
  cutoff would hide from the model what DFT and the low level see there;
- Gaussians times the cutoff function, centres in geometric progression, sigma equal to their distance: what
  a change of multipoles, overlap and polarisation feels, finely resolved where the field is strong.

The short-range features are plain sums of Gaussians over MM atoms of one element. There are B n m pairs and
K functions; derivatives are summed over the functions first, so that no array exceeds B n m K numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pidelta.delta.hdnnp.descriptors import (
    DescriptorSettings,
    cutoff_and_slope,
    cutoff_function,
    gaussian_grid,
)

# No MM nucleus comes closer to a QM nucleus than about this, in bohr.
_CLOSEST = 3.0


@dataclass(frozen=True)
class _Gaussians:
    """exp(-eta_k (r - c_k)^2) fc(r)."""

    centres: torch.Tensor
    etas: torch.Tensor
    cutoff: float

    def bare(self, r: torch.Tensor) -> torch.Tensor:
        """exp(-eta_k (r - c_k)^2) without the cutoff function, (..., K) for r (...)."""
        shifted = r[..., None] - self.centres
        return shifted.square_().mul_(-self.etas).exp_()

    def combine(
        self,
        bare: torch.Tensor,
        r: torch.Tensor,
        fall: tuple[torch.Tensor, torch.Tensor],
        weights: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """sum_k a_k g_k(r) and its derivative in r.

        Args:
            bare: (N, m, K) from `bare`.
            r: (N, m) in bohr.
            fall: the cutoff function and its slope at r, each (N, m).
            weights: (N, K), the a_k.
        """
        twice = 2.0 * self.etas * weights
        sums = bare @ torch.stack([weights, twice, twice * self.centres], dim=-1)
        value, first, second = sums.unbind(-1)
        return fall[0] * value, fall[1] * value - fall[0] * (r * first - second)

    def slopes(self, r: torch.Tensor) -> torch.Tensor:
        """(..., K) dg_k/dr."""
        fall, fall_slope = cutoff_and_slope(r, self.cutoff)
        inner = fall_slope[..., None] - 2.0 * self.etas * (r[..., None] - self.centres) * fall[..., None]
        return self.bare(r) * inner


def _charge_gaussians(settings: DescriptorSettings) -> _Gaussians:
    ratio = (settings.charge_cutoff / _CLOSEST) ** (1.0 / settings.charge_count)
    centres = _CLOSEST * ratio ** torch.arange(settings.charge_count, dtype=torch.float64)
    return _Gaussians(centres, 0.5 / ((ratio - 1.0) * centres) ** 2, settings.charge_cutoff)


class SiteFeatures:
    """The environment of a batch of QM regions: features, and the way back from their derivatives.

    A site counts through its charge in the charge-weighted features and through its element in the
    short-range ones. One without a nucleus (number 0, such as the charge site of a four-point water) has only
    the former; one with neither is padding.

    Args:
        settings: descriptor settings.
        positions: (B, n, 3) of the QM atoms in bohr.
        site_positions: (B, m, 3) in bohr.
        site_charges: (B, m) in e.
        site_species: (B, m) place of each atomic number in `settings.mm_elements`, -1 without a nucleus.
    """

    def __init__(
        self,
        settings: DescriptorSettings,
        positions: torch.Tensor,
        site_positions: torch.Tensor,
        site_charges: torch.Tensor,
        site_species: torch.Tensor,
    ) -> None:
        self._settings = settings
        self._positions, self._site_positions, self._charges = positions, site_positions, site_charges
        self._padding = (site_charges == 0.0) & (site_species < 0)
        self._r = self._distances()

        self._charge_functions = _charge_gaussians(settings)
        self._bare = self._charge_functions.bare(self._r)
        self._fall = cutoff_and_slope(self._r, settings.charge_cutoff)
        self._short_functions = _Gaussians(
            *gaussian_grid(_CLOSEST, settings.short_cutoff, settings.short_count), settings.short_cutoff
        )
        near = (self._r < settings.short_cutoff) & (site_species >= 0)[:, None]
        self._short_pairs = torch.nonzero(near, as_tuple=True)
        structure, atom, site = self._short_pairs
        n, elements = positions.shape[1], len(settings.mm_elements)
        self._short_rows = (structure * n + atom) * elements + site_species[structure, site]

    def _distances(self) -> torch.Tensor:
        square = torch.zeros(())
        for axis in range(3):
            delta = self._site_positions[:, None, :, axis] - self._positions[:, :, None, axis]
            square = square + delta * delta
        # Padding may lie anywhere, also on a QM atom, where 1/r would not be finite: move it away.
        return square.sqrt_().masked_fill_(self._padding[:, None], 2.0 * self._settings.charge_cutoff)

    def features(self) -> torch.Tensor:
        """(B, n, K) charge-weighted and then short-range features."""
        batch, n, m = self._r.shape
        weighted = (self._fall[0] * self._charges[:, None]).reshape(batch * n, 1, m)
        sums = (weighted @ self._bare.flatten(0, 1)).reshape(batch, n, self._settings.charge_count)
        potential = (self._r.reciprocal() @ self._charges[..., None]).reshape(batch, n, 1)

        r = self._r[self._short_pairs]
        fall = cutoff_function(r, self._settings.short_cutoff)
        values = self._short_functions.bare(r) * fall[:, None]
        elements, count = len(self._settings.mm_elements), self._settings.short_count
        short = values.new_zeros(batch * n * elements, count).index_add_(0, self._short_rows, values)
        return torch.cat([potential, sums, short.reshape(batch, n, elements * count)], dim=-1)

    def pull_back(self, slopes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Derivatives of an energy from its derivatives in the features.

        Args:
            slopes: (B, n, K) dE/d(feature).

        Returns:
            (B, n, 3) dE/dR of the QM atoms through these features, (B, m, 3) dE/dR of the sites, and
            (B, m) dE/dq, zero for padding.
        """
        batch, n, m = self._r.shape
        settings = self._settings
        count = 1 + settings.charge_count
        value, slope = self._charge_functions.combine(
            self._bare.flatten(0, 1),
            self._r.flatten(0, 1),
            (self._fall[0].flatten(0, 1), self._fall[1].flatten(0, 1)),
            slopes[..., 1:count].flatten(0, 1),
        )
        inverse = self._r.reciprocal()
        potential = slopes[..., :1] * inverse
        value = value.reshape(batch, n, m) + potential
        pair = (slope.reshape(batch, n, m) - potential * inverse) * self._charges[:, None]

        r = self._r[self._short_pairs]
        weights = slopes[..., count:].reshape(-1, settings.short_count)[self._short_rows]
        pair[self._short_pairs] += (self._short_functions.slopes(r) * weights).sum(-1)

        pair *= inverse
        # sum_i pair_ij (r_j - R_i) without ever holding the vectors of all pairs.
        site_gradient = pair.sum(1)[..., None] * self._site_positions - pair.mT @ self._positions
        gradient = pair.sum(2)[..., None] * self._positions - pair @ self._site_positions
        return gradient, site_gradient, value.sum(1).masked_fill_(self._padding, 0.0)

    def jacobian(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Derivatives of the features of the first structure in the positions.

        Returns:
            (n, K, 3) d(feature of atom i)/dR_i and (n, K, m, 3) d(feature of atom i)/dr_j.
        """
        r, charges = self._r[0], self._charges[0]
        weighted = torch.cat([-(r**-2)[..., None], self._charge_functions.slopes(r)], dim=-1)
        n, m = r.shape
        elements, count = len(self._settings.mm_elements), self._settings.short_count
        short = r.new_zeros(m, n * elements, count)
        _, _, site = self._short_pairs
        short[site, self._short_rows] = self._short_functions.slopes(r[self._short_pairs[1:]])
        short = short.reshape(m, n, elements * count).transpose(0, 1)
        slopes = torch.cat([weighted * charges[:, None], short], dim=-1) / r[..., None]
        vectors = self._site_positions[0] - self._positions[0][:, None]
        moves = slopes.transpose(1, 2)[..., None] * vectors[:, None]
        return -moves.sum(2), moves
