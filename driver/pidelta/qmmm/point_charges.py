"""The bare Coulomb potential of point charges at the QM nuclei, and its derivatives."""

# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np

from pidelta.core.compilation import compiled
from pidelta.state import FloatArray

# Sums may be taken in any order, so that several sites are added up at once.
_vectorised = compiled(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})


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
    phi = np.empty(positions.shape[:2])
    for b, own in enumerate(phi):
        _potential(_columns(positions[b]), _columns(site_positions[b]), _columns(site_charges[b]), own)
    return phi


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
    qm, charge = np.empty(positions.shape), np.empty(site_charges.shape)
    sites = np.empty((len(site_positions), 3, site_positions.shape[1]))
    for b in range(len(positions)):
        qm[b], charge[b] = _gradients(
            _columns(positions[b]), _columns(site_positions[b]), _columns(site_charges[b]),
            _columns(qm_charges[b]), sites[b],
        )  # fmt: skip
    return qm, sites.transpose(0, 2, 1).copy(), charge


def _columns(values: FloatArray) -> FloatArray:
    return np.ascontiguousarray(values.T, dtype=np.float64)


@_vectorised
def _potential(atoms, sites, site_charges, phi):
    for a in range(len(phi)):
        x, y, z = atoms[0, a], atoms[1, a], atoms[2, a]
        total = 0.0
        for k in range(len(site_charges)):
            dx, dy, dz = x - sites[0, k], y - sites[1, k], z - sites[2, k]
            total += site_charges[k] / np.sqrt(dx * dx + dy * dy + dz * dz)
        phi[a] = total


@_vectorised
def _gradients(atoms, sites, site_charges, qm_charges, site_gradient):
    n, m = len(qm_charges), len(site_charges)
    qm, charge = np.zeros((n, 3)), np.zeros(m)
    site_gradient[:] = 0.0
    for a in range(n):
        x, y, z, q = atoms[0, a], atoms[1, a], atoms[2, a], qm_charges[a]
        gx = gy = gz = 0.0
        for k in range(m):
            dx, dy, dz = x - sites[0, k], y - sites[1, k], z - sites[2, k]
            inverse = 1.0 / np.sqrt(dx * dx + dy * dy + dz * dz)
            charge[k] += q * inverse
            scale = q * site_charges[k] * inverse * inverse * inverse
            gx -= scale * dx
            gy -= scale * dy
            gz -= scale * dz
            site_gradient[0, k] += scale * dx
            site_gradient[1, k] += scale * dy
            site_gradient[2, k] += scale * dz
        qm[a, 0], qm[a, 1], qm[a, 2] = gx, gy, gz
    return qm, charge
