"""The bare Coulomb potential of point charges at the QM nuclei, and its derivatives."""

from __future__ import annotations

import numpy as np

from pidelta.core.compilation import compiled
from pidelta.state import FloatArray


def point_charge_potential(
    positions: FloatArray, site_positions: FloatArray, site_charges: FloatArray
) -> FloatArray:
    """phi_A = sum_k q_k / |R_A - r_k|, in hartree/e.

    Args:
        positions: (B, n, 3) QM atoms in bohr.
        site_positions: (B, m, 3) charges in bohr.
        site_charges: (B, m) in e.

    Returns:
        (B, n) potential.
    """
    return np.asarray(_potential(positions, site_positions, site_charges))


def point_charge_gradients(
    positions: FloatArray, site_positions: FloatArray, site_charges: FloatArray, qm_charges: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Derivatives of sum_A q_A phi_A at fixed QM charges q_A, which are dE/dphi_A of the QM energy.

    Args:
        positions: (B, n, 3) QM atoms in bohr.
        site_positions: (B, m, 3) charges in bohr.
        site_charges: (B, m) in e.
        qm_charges: (B, n) net charges of the QM atoms in e.

    Returns:
        dE/dR (B, n, 3) and dE/dr (B, m, 3) in hartree/bohr, and dE/dq (B, m) in hartree/e.
    """
    qm, env, charge = _gradients(positions, site_positions, site_charges, qm_charges)
    return np.asarray(qm), np.asarray(env), np.asarray(charge)


@compiled()
def _potential(positions, site_positions, site_charges):  # type: ignore[no-untyped-def]
    batch, n, _ = positions.shape
    phi = np.zeros((batch, n))
    for b in range(batch):
        for k in range(site_charges.shape[1]):
            for a in range(n):
                x = positions[b, a, 0] - site_positions[b, k, 0]
                y = positions[b, a, 1] - site_positions[b, k, 1]
                z = positions[b, a, 2] - site_positions[b, k, 2]
                phi[b, a] += site_charges[b, k] / np.sqrt(x * x + y * y + z * z)
    return phi


@compiled()
def _gradients(positions, site_positions, site_charges, qm_charges):  # type: ignore[no-untyped-def]
    batch, n, _ = positions.shape
    m = site_charges.shape[1]
    qm = np.zeros((batch, n, 3))
    env = np.zeros((batch, m, 3))
    charge = np.zeros((batch, m))
    for b in range(batch):
        for k in range(m):
            for a in range(n):
                x = positions[b, a, 0] - site_positions[b, k, 0]
                y = positions[b, a, 1] - site_positions[b, k, 1]
                z = positions[b, a, 2] - site_positions[b, k, 2]
                inverse = 1.0 / np.sqrt(x * x + y * y + z * z)
                charge[b, k] += qm_charges[b, a] * inverse
                scale = qm_charges[b, a] * site_charges[b, k] * inverse**3
                qm[b, a, 0] -= scale * x
                qm[b, a, 1] -= scale * y
                qm[b, a, 2] -= scale * z
                env[b, k, 0] += scale * x
                env[b, k, 1] += scale * y
                env[b, k, 2] += scale * z
    return qm, env, charge
