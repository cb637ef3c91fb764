"""Spherical Kohn-Sham atoms, free or confined, in an even-tempered Gaussian basis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.linalg import eigh
from scipy.special import gamma

from pidelta.errors import RunError
from pidelta.parametrisation.functionals import ExchangeCorrelation, Functional
from pidelta.parametrisation.mixing import AndersonMixer
from pidelta.state import FloatArray

GRID_POINTS = 3000
_SMALLEST_RADIUS = 1e-6
_LARGEST_RADIUS = 60.0
_RATIO = 1.5  # 1.8 leaves 1e-4 in the overlap of carbon at 8 bohr
_SMALLEST_EXPONENT = 0.01
_LARGEST_EXPONENT = 5e4  # times Z^2
_SMALLEST_OVERLAP = 1e-9
_TOLERANCE = 1e-9
_MAX_ITERATIONS = 200
_OCCUPATION_STEP = 0.02


@dataclass(frozen=True)
class Shell:
    """A shell of an atom: quantum numbers n and ell, and its electrons, which may be a fraction or none."""

    n: int
    ell: int
    occupation: float


@dataclass(frozen=True)
class Atom:
    """A converged spherical atom, in atomic units.

    R_k(r) = r^l sum_i coefficients[k, i] exp(-exponents[i] r^2), normalised to int R^2 r^2 dr = 1 and
    positive at large distances.

    Attributes:
        charge: nuclear charge.
        shells: the shells, (K,).
        energies: (K,) orbital energies; those of a confined atom hold the confinement.
        total_energy: without the confinement's energy.
        exponents: (n,).
        coefficients: (K, n).
        radii: (GRID_POINTS,) a logarithmic grid.
        screening: (GRID_POINTS,) -r (V_nucleus + V_Hartree) there: from `charge` at the nucleus to the net
            charge far away.
    """

    charge: float
    shells: tuple[Shell, ...]
    energies: FloatArray
    total_energy: float
    exponents: FloatArray
    coefficients: FloatArray
    radii: FloatArray
    screening: FloatArray

    def energy(self, n: int, ell: int) -> float:
        """Return the orbital energy of a shell."""
        return float(self.energies[self.index(n, ell)])

    def index(self, n: int, ell: int) -> int:
        """Return the place of a shell in `shells`."""
        return [(shell.n, shell.ell) for shell in self.shells].index((n, ell))

    @property
    def highest_occupied(self) -> int:
        """The place in `shells` of the occupied shell of highest energy."""
        occupied = [k for k, shell in enumerate(self.shells) if shell.occupation > 0.0]
        return max(occupied, key=lambda k: float(self.energies[k]))

    @cached_property
    def _screening_spline(self) -> CubicSpline[np.float64]:
        return CubicSpline(np.log(self.radii), self.screening)

    def potential(self, r: FloatArray) -> FloatArray:
        """Return V_nucleus + V_Hartree at distances of any shape, in hartree/e of an electron."""
        inside = np.clip(r, self.radii[0], self.radii[-1])
        return -np.asarray(self._screening_spline(np.log(inside)), dtype=np.float64) / r


class _RadialBasis:
    """Normalised Gaussians r^l exp(-a r^2) of one l on the grid, made orthonormal, and their matrices."""

    def __init__(self, ell: int, exponents: FloatArray, r: FloatArray, weights: FloatArray) -> None:
        # int_0^inf r^(2l+2) exp(-2 a r^2) dr = Gamma(l + 3/2) / (2 (2a)^(l + 3/2))
        self.norms = np.sqrt(2.0 * (2.0 * exponents) ** (ell + 1.5) / gamma(ell + 1.5))
        values = self.norms * r[:, None] ** ell * np.exp(-np.outer(r**2, exponents))
        slopes = (ell / r[:, None] - 2.0 * np.outer(r, exponents)) * values
        ratio = 2.0 * np.sqrt(np.outer(exponents, exponents)) / np.add.outer(exponents, exponents)
        eigenvalues, vectors = np.linalg.eigh(ratio ** (ell + 1.5))
        kept = eigenvalues > _SMALLEST_OVERLAP
        self.orthonormal = vectors[:, kept] / np.sqrt(eigenvalues[kept])
        self.values = values @ self.orthonormal
        self.slopes = slopes @ self.orthonormal
        self._weights = weights
        centrifugal = self.potential_matrix(ell * (ell + 1) / r**2)
        self.kinetic = 0.5 * (self.slopes.T @ (weights[:, None] * self.slopes) + centrifugal)

    def potential_matrix(self, potential: FloatArray) -> FloatArray:
        matrix: FloatArray = self.values.T @ ((self._weights * potential)[:, None] * self.values)
        return matrix

    def gradient_matrix(self, vector: FloatArray) -> FloatArray:
        """Matrix of int vector (f g)' r^2 dr, the weak form of a gradient-corrected potential."""
        half: FloatArray = self.values.T @ ((self._weights * vector)[:, None] * self.slopes)
        both: FloatArray = half + half.T
        return both


class AtomSolver:
    """Self-consistent spherical atoms with fractional occupations; Kohn-Sham without spin polarisation.

    The grid holds 3,000 points in equal steps of ln r, on which the trapezoidal rule is as good as exact for
    functions that are smooth and vanish at both ends.

    Args:
        charge: nuclear charge.
        shells: the shells, with 2 (2l + 1) electrons at most each.
        functional: exchange and correlation, or None for none and no Hartree term (one electron alone).
    """

    def __init__(self, charge: float, shells: Sequence[Shell], functional: Functional | None) -> None:
        self._charge = charge
        self._shells = tuple(shells)
        self._functional = functional
        logarithms = np.linspace(np.log(_SMALLEST_RADIUS), np.log(_LARGEST_RADIUS), GRID_POINTS)
        self._logarithms = logarithms
        self._r: FloatArray = np.exp(logarithms)
        self._weights = self._r**3 * (logarithms[1] - logarithms[0])
        largest = _LARGEST_EXPONENT * charge**2
        count = int(np.ceil(np.log(largest / _SMALLEST_EXPONENT) / np.log(_RATIO))) + 1
        self._exponents = np.asarray(_SMALLEST_EXPONENT * _RATIO ** np.arange(count), dtype=np.float64)
        self._bases = {
            ell: _RadialBasis(ell, self._exponents, self._r, self._weights)
            for ell in {s.ell for s in self._shells}
        }

    def solve(self, confinement: float | None = None, shells: Sequence[Shell] | None = None) -> Atom:
        """Converge the atom.

        Args:
            confinement: r0 of the potential (r / r0)^2 in bohr; None for the free atom.
            shells: the same shells as at construction with other occupations.

        Raises:
            RunError: the density did not converge.
        """
        chosen = self._shells if shells is None else tuple(shells)
        external = np.zeros_like(self._r) if confinement is None else (self._r / confinement) ** 2
        if self._functional is None:
            bare = self._orbitals(chosen, external - self._charge / self._r, None)
            return self._result(chosen, *bare, None)
        electrons = sum(shell.occupation for shell in chosen)
        # A screened nucleus as a start: Green, Sellin, Zachor, Phys. Rev. 184, 1 (1969), simplified.
        screened = 1.0 + (self._charge - 1.0) * np.exp(-self._r * self._charge ** (1.0 / 3.0))
        density = self._density(chosen, self._orbitals(chosen, external - screened / self._r, None)[1])
        mixer = AndersonMixer()
        # The mixer's norm: electrons, not their density.
        scale = np.sqrt(4.0 * np.pi * self._weights * self._r)
        for _ in range(_MAX_ITERATIONS):
            energies, orbitals = self._kohn_sham(chosen, external, density)
            change = self._density(chosen, orbitals) - density
            if 4.0 * np.pi * self._weights @ np.abs(change[0]) < _TOLERANCE * max(1.0, electrons):
                return self._result(chosen, energies, orbitals, density)
            mixed = mixer.mix((density * scale).ravel(), (change * scale).ravel())
            density = mixed.reshape(density.shape) / scale
        raise RunError(
            f"atom of charge {self._charge:g}: the density did not converge in {_MAX_ITERATIONS} iterations"
        )

    def hubbard(self) -> tuple[float, float]:
        """U = d(energy of the highest occupied shell)/d(its electrons) of the free atom, and dU/dn.

        Both by central differences of the Kohn-Sham eigenvalue, as in Elstner et al., Phys. Rev. B 58, 7260
        (1998) for U and Gaus, Cui, Elstner, JCTC 7, 931 (2011) for its derivative; in hartree.
        """
        middle = self.solve()
        k = middle.highest_occupied

        def energy(change: float) -> float:
            shells = list(self._shells)
            shells[k] = replace(shells[k], occupation=shells[k].occupation + change)
            return float(self.solve(shells=shells).energies[k])

        step = _OCCUPATION_STEP
        lower, upper = energy(-step), energy(step)
        return (upper - lower) / (2.0 * step), (upper - 2.0 * float(middle.energies[k]) + lower) / step**2

    def _kohn_sham(
        self, shells: tuple[Shell, ...], external: FloatArray, density: FloatArray
    ) -> tuple[FloatArray, list[FloatArray]]:
        xc = self._exchange_correlation(density)
        potential = external - self._screening(density) / self._r + xc.by_density
        return self._orbitals(shells, potential, 2.0 * xc.by_gradient * density[1])

    def _exchange_correlation(self, density: FloatArray) -> ExchangeCorrelation:
        assert self._functional is not None
        # Mixing may leave tiny negative values in the tail.
        return self._functional.evaluate(np.maximum(density[0], 1e-30), np.abs(density[1]))

    def _orbitals(
        self, shells: tuple[Shell, ...], potential: FloatArray, gradient_part: FloatArray | None
    ) -> tuple[FloatArray, list[FloatArray]]:
        """Energies (K,) and coefficients in the orthonormal basis of each shell."""
        energies = np.zeros(len(shells))
        orbitals: list[FloatArray] = [np.zeros(0)] * len(shells)
        for ell, basis in self._bases.items():
            matrix = basis.kinetic + basis.potential_matrix(potential)
            if gradient_part is not None:
                matrix = matrix + basis.gradient_matrix(gradient_part)
            highest = max(shell.n for shell in shells if shell.ell == ell) - ell - 1
            values, vectors = eigh(matrix, subset_by_index=(0, highest))
            for k, shell in enumerate(shells):
                if shell.ell == ell:
                    energies[k] = values[shell.n - ell - 1]
                    orbitals[k] = vectors[:, shell.n - ell - 1]
        return energies, orbitals

    def _density(self, shells: tuple[Shell, ...], orbitals: Sequence[FloatArray]) -> FloatArray:
        """(2, points) density and its radial derivative."""
        density = np.zeros((2, len(self._r)))
        for shell, orbital in zip(shells, orbitals, strict=True):
            value, slope = self._bases[shell.ell].values @ orbital, self._bases[shell.ell].slopes @ orbital
            density[0] += shell.occupation / (4.0 * np.pi) * value**2
            density[1] += shell.occupation / (4.0 * np.pi) * 2.0 * value * slope
        return density

    def _screening(self, density: FloatArray) -> FloatArray:
        """-r (V_nucleus + V_Hartree) of a density by Gauss's law."""
        radial = 4.0 * np.pi * self._r**3 * density[0]
        enclosed = CubicSpline(self._logarithms, radial).antiderivative()(self._logarithms)
        outer = CubicSpline(self._logarithms, radial / self._r).antiderivative()(self._logarithms)
        return np.asarray(self._charge - enclosed - self._r * (outer[-1] - outer), dtype=np.float64)

    def _result(
        self,
        shells: tuple[Shell, ...],
        energies: FloatArray,
        orbitals: Sequence[FloatArray],
        density: FloatArray | None,
    ) -> Atom:
        coefficients = np.zeros((len(shells), len(self._exponents)))
        kinetic = 0.0
        for k, (shell, orbital) in enumerate(zip(shells, orbitals, strict=True)):
            basis = self._bases[shell.ell]
            values = basis.values @ orbital
            sign = np.sign(values[np.abs(values * self._r) > 1e-4][-1])
            coefficients[k] = sign * basis.norms * (basis.orthonormal @ orbital)
            kinetic += shell.occupation * float(orbital @ basis.kinetic @ orbital)
        if density is None:
            total, screening = float("nan"), np.full_like(self._r, self._charge)
        else:
            screening = self._screening(density)
            # Half of the Hartree energy: V_H = V - V_nucleus.
            electrostatic = -0.5 * (screening + self._charge) / self._r
            xc = self._exchange_correlation(density)
            total = kinetic + 4.0 * np.pi * float(self._weights @ (density[0] * (electrostatic + xc.energy)))
        return Atom(self._charge, shells, energies, total, self._exponents, coefficients, self._r, screening)
