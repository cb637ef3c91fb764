"""Two-centre Hamiltonian and overlap integrals of confined atoms along the z axis.

H = T + V_A + V_B + v_xc[n_A + n_B] (density superposition; Elstner et al., Phys. Rev. B 58, 7260 (1998), and
Seifert, Porezag, Frauenheim, Int. J. Quantum Chem. 58, 185 (1996)), without the confinement. All terms are
in weak form, with first derivatives only. Points lie in a half-plane through both atoms and carry Becke's
weights (J. Chem. Phys. 88, 2547 (1988)); the azimuth is integrated analytically.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import make_interp_spline

from pidelta.parametrisation.atom import Atom
from pidelta.parametrisation.functionals import Functional
from pidelta.qm.dftb.skf import INTEGRALS
from pidelta.state import FloatArray

RADIAL_POINTS = 70
ANGULAR_POINTS = 36
_RADIAL_SCALE = 1.0  # bohr; half of the radial points lie within


@dataclass(frozen=True)
class ConfinedElement:
    """What the integrals need of an element.

    Attributes:
        orbitals: the atom whose orbitals are the basis, confined for the wave function.
        density: the atom whose density and potential superpose, confined for the density.
        valence: n of the valence shells s, p, d, as many as there are; the shells of l = 0, 1, 2.
    """

    orbitals: Atom
    density: Atom
    valence: tuple[int, ...]


@dataclass(frozen=True)
class _Field:
    """A function of the half-plane at points (n,): value, d/dz, d/ds with s the distance from the axis.

    `over_s` is m times the value over s: the azimuthal part of the gradient.
    """

    value: FloatArray
    dz: FloatArray
    ds: FloatArray
    over_s: FloatArray


# Solid harmonics r^l Theta_lm(z, s) by (l, m), with d/dz, d/ds and m/s times them. Their products with
# cos(m phi), or the constant for m = 0, are real spherical harmonics up to sqrt((2l + 1) / (4 pi)).
def _solid_harmonic(ell: int, m: int, z: FloatArray, s: FloatArray) -> tuple[FloatArray, ...]:
    zero, one = np.zeros_like(z), np.ones_like(z)
    root = np.sqrt(3.0)
    if (ell, m) == (0, 0):
        return one, zero, zero, zero
    if (ell, m) == (1, 0):
        return z, one, zero, zero
    if (ell, m) == (1, 1):
        return s, zero, one, one
    if (ell, m) == (2, 0):
        return z * z - 0.5 * s * s, 2.0 * z, -s, zero
    if (ell, m) == (2, 1):
        return root * z * s, root * s, root * z, root * z
    assert (ell, m) == (2, 2)
    return 0.5 * root * s * s, zero, root * s, root * s


class _Centre:
    """The orbitals, the density and the potential of one atom at points of the half-plane."""

    def __init__(self, element: ConfinedElement) -> None:
        self._density = element.density
        self._l_max = len(element.valence) - 1
        chosen = [element.orbitals.index(n, ell) for ell, n in enumerate(element.valence)]
        self._orbitals = element.orbitals.coefficients[chosen]
        self._occupied = [k for k, shell in enumerate(element.density.shells) if shell.occupation > 0.0]
        assert np.array_equal(element.orbitals.exponents, element.density.exponents)

    def evaluate(self, z: FloatArray, s: FloatArray) -> _CentreValues:
        """Evaluate at points relative to this atom."""
        u = z * z + s * s
        exponents = self._density.exponents
        gaussians = np.exp(-np.outer(u, exponents))
        shapes = gaussians @ self._orbitals.T
        slopes = gaussians @ (-exponents * self._orbitals).T
        fields = {}
        for ell in range(self._l_max + 1):
            g, g_u = np.sqrt((2 * ell + 1) / (4.0 * np.pi)) * np.stack([shapes[:, ell], slopes[:, ell]])
            for m in range(ell + 1):
                value, dz, ds, over_s = _solid_harmonic(ell, m, z, s)
                fields[ell, m] = _Field(
                    g * value, g * dz + 2.0 * z * g_u * value, g * ds + 2.0 * s * g_u * value, g * over_s
                )
        density, by_u = self._density_at(u, gaussians)
        return _CentreValues(
            fields, density, 2.0 * z * by_u, 2.0 * s * by_u, self._density.potential(np.sqrt(u))
        )

    def _density_at(self, u: FloatArray, gaussians: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Density and its derivative with respect to u = r^2."""
        density, by_u = np.zeros_like(u), np.zeros_like(u)
        for k in self._occupied:
            shell, coefficients = self._density.shells[k], self._density.coefficients[k]
            shape, slope = gaussians @ coefficients, gaussians @ (-self._density.exponents * coefficients)
            factor = shell.occupation / (4.0 * np.pi)
            density += factor * u**shell.ell * shape**2
            by_u += factor * 2.0 * u**shell.ell * shape * slope
            if shell.ell > 0:
                by_u += factor * shell.ell * u ** (shell.ell - 1) * shape**2
        return density, by_u


@dataclass(frozen=True)
class _CentreValues:
    fields: dict[tuple[int, int], _Field]
    density: FloatArray
    density_dz: FloatArray
    density_ds: FloatArray
    potential: FloatArray


class HalfPlaneGrid:
    """Becke's points and weights around two atoms at z = 0 and z = `distance`, in the half-plane s > 0.

    Weights hold r^2 dr dcos(theta) but not the azimuth.
    """

    def __init__(
        self, distance: float, radial_points: int = RADIAL_POINTS, angular_points: int = ANGULAR_POINTS
    ) -> None:
        # Gauss-Chebyshev of the second kind in x, r = (1 + x) / (1 - x): eq. 25 of Becke's paper.
        angles = np.arange(1, radial_points + 1) * np.pi / (radial_points + 1)
        x = np.cos(angles)
        r = _RADIAL_SCALE * (1.0 + x) / (1.0 - x)
        radial_weights = (
            np.pi / (radial_points + 1) * np.sin(angles) * 2.0 * _RADIAL_SCALE / (1.0 - x) ** 2 * r**2
        )
        cosines, angular_weights = np.polynomial.legendre.leggauss(angular_points)
        z = np.outer(r, cosines).ravel()
        s = np.outer(r, np.sqrt(1.0 - cosines**2)).ravel()
        weights = np.outer(radial_weights, angular_weights).ravel()
        # The second atom's points are the mirror image of the first one's.
        own = _becke_weight(z, s, distance)
        self.z = np.concatenate([z, distance - z])
        self.s = np.concatenate([s, s])
        self.weights = np.concatenate([weights * own, weights * own])


def _becke_weight(z: FloatArray, s: FloatArray, distance: float) -> FloatArray:
    mu = (np.hypot(z, s) - np.hypot(z - distance, s)) / distance
    for _ in range(3):
        mu = 1.5 * mu - 0.5 * mu**3
    return 0.5 * (1.0 - mu)


class PairIntegrator:
    """Two-centre integrals of two elements.

    Args:
        first, second: the elements A and B.
        functional: exchange and correlation.
    """

    def __init__(self, first: ConfinedElement, second: ConfinedElement, functional: Functional) -> None:
        self._centres = (_Centre(first), _Centre(second))
        self._functional = functional

    def integrals(self, distance: float, grid: HalfPlaneGrid | None = None) -> tuple[FloatArray, FloatArray]:
        """Integrals of A-B and of B-A at a distance in bohr.

        Returns:
            (20,) each: Hamiltonian in hartree, then overlap, columns as in `pidelta.qm.dftb.skf.INTEGRALS`.
        """
        grid = grid or HalfPlaneGrid(distance)
        first = self._centres[0].evaluate(grid.z, grid.s)
        second = self._centres[1].evaluate(grid.z - distance, grid.s)
        density_dz = first.density_dz + second.density_dz
        density_ds = first.density_ds + second.density_ds
        density = first.density + second.density
        xc = self._functional.evaluate(np.maximum(density, 1e-30), np.hypot(density_dz, density_ds))
        potential = grid.weights * (first.potential + second.potential + xc.by_density)
        slope_z = 2.0 * grid.weights * xc.by_gradient * density_dz
        slope_s = 2.0 * grid.weights * xc.by_gradient * density_ds

        result = np.zeros((2, 2 * len(INTEGRALS)))
        for l1, m1 in first.fields:
            for l2, m2 in second.fields:
                if m1 != m2:
                    continue
                a, b = first.fields[l1, m1], second.fields[l2, m2]
                azimuth = 2.0 * np.pi if m1 == 0 else np.pi  # of 1 and of cos^2
                product = a.value * b.value
                kinetic = a.dz * b.dz + a.ds * b.ds + a.over_s * b.over_s
                hamiltonian = (
                    potential @ product
                    + 0.5 * grid.weights @ kinetic
                    + slope_z @ (a.dz * b.value + a.value * b.dz)
                    + slope_s @ (a.ds * b.value + a.value * b.ds)
                )
                values = azimuth * np.array([hamiltonian, grid.weights @ product])
                for row, column, sign in _columns(l1, l2, m1):
                    result[row, [column, column + len(INTEGRALS)]] = sign * values
        return result[0], result[1]


def _columns(l1: int, l2: int, m: int) -> list[tuple[int, int, float]]:
    """Where <A l1 m| |B l2 m> belongs: 0 for A-B or 1 for B-A, the column, the sign.

    Files hold l1 <= l2; the mirror image of B-A along z is A-B, and changes the sign with l1 + l2.
    """
    places = []
    if l1 <= l2:
        places.append((0, INTEGRALS.index((l1, l2, m)), 1.0))
    if l2 <= l1:
        places.append((1, INTEGRALS.index((l2, l1, m)), (-1.0) ** (l1 + l2)))
    return places


def resample(distances: FloatArray, table: FloatArray, spacing: float) -> FloatArray:
    """Quintic spline of a table (rows, columns) at spacing, 2 spacing, ... to the last distance.

    Rows below the first distance, which no molecule reaches, repeat it.
    """
    rows = np.arange(1, round(distances[-1] / spacing) + 1) * spacing
    values = make_interp_spline(distances, table, k=5)(np.clip(rows, distances[0], distances[-1]))
    return np.asarray(values, dtype=np.float64)
