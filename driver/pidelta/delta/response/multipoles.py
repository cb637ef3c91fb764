"""Potential, field and field gradient of the sites at the QM atoms, compiled, and the way back.

With d = r_j - R_A, at QM atom A

    phi_A = sum_j q_j / d,    F_A = -dphi/dR_A = -sum_j q_j d / d^3,
    H_A = dF/dR_A = sum_j q_j (1/d^3 - 3 d d^T / d^5).

An energy with the derivatives a, b and c in phi_A, F_A and H_A acts on the sites as a charge, a dipole and a
quadrupole at R_A do, so that the way back is one more pass over the pairs, as fast as the first.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

import math

import numpy as np

from pidelta.core.compilation import compiled
from pidelta.delta.descriptors import DescriptorSettings
from pidelta.state import BoolArray, FloatArray

_vectorised = compiled(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})

MOMENTS = 10
"""phi, the three components of F, and xx, xy, xz, yy, yz, zz of H."""
COUNTS = np.array([1.0, 2.0, 2.0, 1.0, 2.0, 1.0])
"""How often each of these components is in H, which is symmetric."""

# Padding may lie anywhere, also on a QM atom, where 1/r would not be finite: it is moved here, in bohr.
_FAR = 1e6


class SiteField:
    """The field of the sites at the atoms of a batch of QM regions.

    Args:
        settings: of the model; the field has none.
        positions: (B, n, 3) of the QM atoms in bohr.
        site_positions: (B, m, 3) in bohr.
        site_charges: (B, m) in e.
        padding: (B, m) which sites are none.
    """

    def __init__(
        self,
        settings: DescriptorSettings,
        positions: FloatArray,
        site_positions: FloatArray,
        site_charges: FloatArray,
        padding: BoolArray,
    ) -> None:
        self._settings = settings
        self._structures = (positions, site_positions, site_charges, padding)

    def features(self) -> FloatArray:
        """(B, n, 10) `MOMENTS` at the QM atoms, in hartree/e over powers of bohr."""
        batch, n, _ = self._structures[0].shape
        moments = np.empty((batch, n, MOMENTS))
        for *structure, own in zip(*self._structures, moments, strict=True):
            _set_moments(*structure, own)
        return moments

    def pull_back(self, slopes: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Derivatives of an energy from its derivatives in the moments.

        Args:
            slopes: (B, n, 10) dE/d(moment).

        Returns:
            (B, n, 3) dE/dR of the QM atoms, (B, m, 3) of the sites, and (B, m) dE/dq, zero for padding.
        """
        gradient, site_gradient, charge_gradient = (np.empty_like(array) for array in self._structures[:3])
        arrays = (gradient, site_gradient, charge_gradient, np.ascontiguousarray(slopes))
        for arguments in zip(*self._structures, *arrays, strict=True):
            _set_gradient(*arguments)
        return gradient, site_gradient, charge_gradient

    def jacobian(self) -> FloatArray:
        """(n, 10, m, 3) d(moment of atom A)/dr_j of the first structure; in R_A it is minus the sum of it."""
        positions, *sites = (array[0] for array in self._structures)
        # each atom as a structure of its own
        atoms = SiteField(
            self._settings, positions[:, None], *(np.stack([array] * len(positions)) for array in sites)
        )
        slopes = np.eye(MOMENTS)[:, None, None].repeat(len(positions), axis=1)
        return np.stack([atoms.pull_back(own)[1] for own in slopes], axis=1)


@_vectorised
def _columns(positions, charges, padding):
    """Sites as x, y, z and charge (4, m), padding far away."""
    sites = np.empty((4, len(charges)))
    for j in range(len(charges)):
        if padding[j]:
            sites[0, j] = sites[1, j] = sites[2, j] = _FAR
        else:
            sites[0, j], sites[1, j], sites[2, j] = positions[j, 0], positions[j, 1], positions[j, 2]
        sites[3, j] = charges[j]
    return sites


@_vectorised
def _set_moments(atoms, site_positions, site_charges, padding, moments):
    sites = _columns(site_positions, site_charges, padding)
    for a in range(len(atoms)):
        phi = fx = fy = fz = trace = xx = xy = xz = yy = yz = zz = 0.0
        for j in range(sites.shape[1]):
            dx, dy, dz = sites[0, j] - atoms[a, 0], sites[1, j] - atoms[a, 1], sites[2, j] - atoms[a, 2]
            square = 1.0 / (dx * dx + dy * dy + dz * dz)
            first = sites[3, j] * math.sqrt(square)
            third = first * square
            fifth = 3.0 * third * square
            phi += first
            trace += third
            fx += third * dx
            fy += third * dy
            fz += third * dz
            xx += fifth * dx * dx
            xy += fifth * dx * dy
            xz += fifth * dx * dz
            yy += fifth * dy * dy
            yz += fifth * dy * dz
            zz += fifth * dz * dz
        moments[a, 0] = phi
        moments[a, 1], moments[a, 2], moments[a, 3] = -fx, -fy, -fz
        moments[a, 4], moments[a, 5], moments[a, 6] = trace - xx, -xy, -xz
        moments[a, 7], moments[a, 8], moments[a, 9] = trace - yy, -yz, trace - zz


@_vectorised
def _set_gradient(
    atoms, site_positions, site_charges, padding, gradient, site_gradient, charge_gradient, slopes
):
    """Set dE/dR of the atoms, that of the sites, and dE/dq, which is the potential of the multipoles."""
    sites = _columns(site_positions, site_charges, padding)
    at_sites = np.zeros(sites.shape)
    for a in range(len(atoms)):
        monopole, bx, by, bz, xx, xy, xz, yy, yz, zz = slopes[a]
        trace = xx + yy + zz
        sx = sy = sz = 0.0
        for j in range(sites.shape[1]):
            dx, dy, dz = sites[0, j] - atoms[a, 0], sites[1, j] - atoms[a, 1], sites[2, j] - atoms[a, 2]
            square = 1.0 / (dx * dx + dy * dy + dz * dz)
            first = math.sqrt(square)
            third = first * square
            fifth = 3.0 * third * square
            dipole = bx * dx + by * dy + bz * dz
            cx, cy, cz = (
                2.0 * xx * dx + xy * dy + xz * dz,
                xy * dx + 2.0 * yy * dy + yz * dz,
                xz * dx + yz * dy + 2.0 * zz * dz,
            )
            quadrupole = 0.5 * (cx * dx + cy * dy + cz * dz)
            at_sites[3, j] += monopole * first + (trace - dipole) * third - quadrupole * fifth
            along = sites[3, j] * (fifth * (dipole - trace + 5.0 * quadrupole * square) - monopole * third)
            third *= sites[3, j]
            fifth *= sites[3, j]
            px = along * dx - third * bx - fifth * cx
            py = along * dy - third * by - fifth * cy
            pz = along * dz - third * bz - fifth * cz
            at_sites[0, j] += px
            at_sites[1, j] += py
            at_sites[2, j] += pz
            sx -= px
            sy -= py
            sz -= pz
        gradient[a, 0], gradient[a, 1], gradient[a, 2] = sx, sy, sz
    for j in range(sites.shape[1]):
        for c in range(3):
            site_gradient[j, c] = at_sites[c, j]
        charge_gradient[j] = 0.0 if padding[j] else at_sites[3, j]
