"""Lennard-Jones tables over pairs of types: combination rules, their inverse, long-range correction."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pidelta.core.switching import quintic
from pidelta.state import FloatArray, IntArray

CombinationRule = Literal["lorentz-berthelot", "geometric"]
LJModifier = Literal["switch", "potential-shift", "none"]


def combine(sigma: FloatArray, epsilon: FloatArray, rule: CombinationRule) -> tuple[FloatArray, FloatArray]:
    """Tables c6 and c12, each (T, T), of c12/r^12 - c6/r^6.

    Args:
        sigma, epsilon: (T,) of the types.
        rule: of sigma; arithmetic or geometric mean. That of epsilon is always geometric.
    """
    if rule == "geometric":
        sigma_ij = np.sqrt(np.outer(sigma, sigma))
    else:
        sigma_ij = 0.5 * (sigma[:, None] + sigma[None, :])
    with np.errstate(over="ignore", invalid="ignore"):  # the topology refuses what is not finite
        c6 = 4.0 * np.sqrt(np.outer(epsilon, epsilon)) * sigma_ij**6
        return c6, c6 * sigma_ij**6


def sigma_epsilon(c6: FloatArray, c12: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The parameters (T,) of types from the diagonals (T,); zero where either coefficient is."""
    interacts = (c6 > 0.0) & (c12 > 0.0)
    safe6, safe12 = np.where(interacts, c6, 1.0), np.where(interacts, c12, 1.0)
    sigma = np.where(interacts, (safe12 / safe6) ** (1.0 / 6.0), 0.0)
    return sigma, np.where(interacts, safe6**2 / (4.0 * safe12), 0.0)


def tail_coefficient(
    types: IntArray, c6: FloatArray, c12: FloatArray, cutoff: float, switch: float, shift6: float
) -> float:
    """What truncation takes from the Lennard-Jones energy of a homogeneous system, times its volume.

    As in OpenMM (user guide, "NonbondedForce"): the mean over all pairs of particles, integrated from where
    the switch starts, with a pair distribution of one. With the potential shifted, the shift within the
    cutoff counts as well (GROMACS manual, "Long-range Van der Waals interactions").

    Args:
        types: (P,) indices into the tables.
        c6, c12: (T, T).
        cutoff: in bohr.
        switch: where the switch starts in bohr, infinite without one.
        shift6: cutoff^-6 if the potential is shifted, else 0.

    Returns:
        in hartree bohr^3; the correction is this divided by the volume.
    """
    counts = np.bincount(types, minlength=len(c6)).astype(np.float64)
    pairs = 0.5 * (np.outer(counts, counts) + np.diag(counts))
    repulsion, attraction = cutoff**-9 / 9.0, cutoff**-3 / 3.0
    if switch < cutoff:
        nodes, weights = np.polynomial.legendre.leggauss(64)
        u = 0.5 * (nodes + 1.0)
        r = switch + u * (cutoff - switch)
        lost = 0.5 * weights * (cutoff - switch) * (1.0 - quintic(u))
        repulsion += float(lost @ r**-10)
        attraction += float(lost @ r**-4)
    repulsion += shift6**2 * cutoff**3 / 3.0
    attraction += shift6 * cutoff**3 / 3.0
    mean = float((pairs * (c12 * repulsion - c6 * attraction)).sum() / pairs.sum())
    return 2.0 * np.pi * len(types) ** 2 * mean
