"""What the differences among the members of a committee say: how wrong their mean may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pidelta.delta.base import CorrectionResult
from pidelta.state import FloatArray, RegionGradient


@dataclass(frozen=True)
class Calibration:
    """What the standard deviation of the members is multiplied by, so that it is as large as errors are.

    Members that learnt from the same frames err alike, and differ less than they err (Musil et al., J. Chem.
    Theory Comput. 15, 906 (2019)).

    Attributes:
        energy: the factor of energies.
        force: that of forces on QM atoms.
    """

    energy: float = 1.0
    force: float = 1.0


def force_deviation(members: Sequence[CorrectionResult]) -> FloatArray:
    """Standard deviation (B, n) of K members, of the components of the force on each QM atom.

    It is the root of the mean variance of the three components, in hartree/bohr; zero for K = 1.
    """
    forces = np.stack([member.gradient.positions for member in members])
    if len(forces) == 1:
        return np.zeros(forces.shape[1:3])
    return np.asarray(np.sqrt(forces.var(axis=0, ddof=1).mean(axis=-1)))


def weigh_down(
    mean: CorrectionResult, members: Sequence[CorrectionResult], variance: FloatArray, error: float
) -> tuple[CorrectionResult, FloatArray]:
    """Let a correction count the less, the more the members differ: the weighted baseline.

    The energy is w mean, with w = e^2/(e^2 + s^2), e the error that the low level is trusted to have and s
    the spread (Imbalzano et al., J. Chem. Phys. 154, 074102 (2021)). Its gradient has that of w, which
    follows from the members' gradients: d(s^2) = 2 a^2/(K - 1) sum_k (E_k - mean) dE_k.

    Args:
        mean: of the K members, K > 1, near zero in the mean over structures.
        members: each of them.
        variance: (B,) s^2 in hartree^2, a^2 times the sample variance of the members.
        error: e in hartree.

    Returns:
        The weighted correction, without properties, and w (B,).
    """
    weight = error**2 / (error**2 + variance)
    energies = np.stack([member.energy for member in members])
    deviations = energies - energies.mean(axis=0)
    raw = (deviations**2).sum(axis=0)  # with the factor a^2/(K - 1) it is the variance
    factor = np.divide(variance, raw, out=np.zeros_like(raw), where=raw > 0.0)
    # d(w E) = w dE + E dw, and dw = -w^2/e^2 d(s^2)
    slopes = -2.0 * mean.energy * weight**2 / error**2 * factor * deviations

    def gradient(of_mean: FloatArray, of_members: Sequence[FloatArray]) -> FloatArray:
        own = np.einsum("b,b...->b...", weight, of_mean)
        return np.asarray(own + np.einsum("kb,kb...->b...", slopes, np.stack(of_members)))

    gradients = [member.gradient for member in members]
    weighted = RegionGradient(
        gradient(mean.gradient.positions, [each.positions for each in gradients]),
        gradient(mean.gradient.site_positions, [each.site_positions for each in gradients]),
        gradient(mean.gradient.site_charges, [each.site_charges for each in gradients]),
    )
    return CorrectionResult(weight * mean.energy, weighted), weight
