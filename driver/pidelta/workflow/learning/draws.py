"""Geometries of the QM region beside dynamics: harmonic quantum samples, and principal components.

Both move the QM atoms alone, in the solvent of a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from pidelta.state import FloatArray
from pidelta.units import HARTREE_IN_KELVIN, WAVENUMBER

_LOWEST = 50.0 * WAVENUMBER
"""Softer modes than this are not harmonic, and imaginary ones are no oscillators: they are left alone."""
_STEP = 0.01
_TOLERANCE = 2e-4
_ITERATIONS = 200

Surface = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""Energies (B,) and gradients (B, n, 3) of QM geometries (B, n, 3) in a solvent that stays as it is."""


@dataclass(frozen=True)
class NormalModes:
    """Normal modes of n atoms about a minimum in their surroundings, M of them.

    Attributes:
        minimum: (n, 3) in bohr.
        masses: (n,) in electron masses.
        frequencies: (M,) angular, in hartree.
        directions: (3n, M) orthonormal, in mass-weighted coordinates.
    """

    minimum: FloatArray
    masses: FloatArray
    frequencies: FloatArray
    directions: FloatArray

    def variances(self, temperature: float) -> FloatArray:
        """(M,) of the mass-weighted coordinates of the quantum oscillators, in electron mass bohr^2.

        The Wigner function of a harmonic oscillator in equilibrium is a Gaussian with the variance
        1/(2 omega) coth(omega / 2 kT) (Hillery, O'Connell, Scully, Wigner, Phys. Rep. 106, 121 (1984)).

        Args:
            temperature: as k_B T; 0 for the ground state.
        """
        ground = 0.5 / self.frequencies
        if temperature < 1e-3 / HARTREE_IN_KELVIN:
            return ground
        return np.asarray(ground / np.tanh(0.5 * self.frequencies / temperature))

    def wigner(self, temperature: float, count: int, rng: np.random.Generator) -> FloatArray:
        """(count, n, 3) geometries drawn from the Wigner function at a temperature, as k_B T."""
        amplitudes = rng.normal(size=(count, len(self.frequencies))) * np.sqrt(self.variances(temperature))
        weighted = (amplitudes @ self.directions.T).reshape(count, -1, 3)
        return np.asarray(self.minimum + weighted / np.sqrt(self.masses)[:, None])


def normal_modes(surface: Surface, start: FloatArray, masses: FloatArray) -> NormalModes:
    """Go to the minimum near a geometry and diagonalise the Hessian there, by differences of gradients.

    Args:
        surface: energies and gradients.
        start: (n, 3) in bohr.
        masses: (n,) in electron masses.
    """
    minimum = _minimise(surface, start)
    size = start.size
    steps = _STEP * np.eye(size).reshape(size, *start.shape)
    _, gradients = surface(np.concatenate([minimum + steps, minimum - steps]))
    hessian = (gradients[:size] - gradients[size:]).reshape(size, size) / (2.0 * _STEP)
    weights = 1.0 / np.sqrt(np.repeat(masses, 3))
    values, directions = np.linalg.eigh(0.5 * (hessian + hessian.T) * weights[:, None] * weights)
    kept = values > _LOWEST**2
    return NormalModes(minimum, masses, np.sqrt(values[kept]), directions[:, kept])


def _minimise(surface: Surface, start: FloatArray) -> FloatArray:
    def energy_and_slope(flat: FloatArray) -> tuple[float, FloatArray]:
        energy, gradient = surface(flat.reshape(1, *start.shape))
        return float(energy[0]), gradient.ravel()

    found = minimize(
        energy_and_slope,
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": _TOLERANCE, "ftol": 1e-13, "maxiter": _ITERATIONS},
    )
    return np.asarray(found.x).reshape(start.shape)


@dataclass(frozen=True)
class PrincipalComponents:
    """Geometries of n atoms as a Gaussian about their mean, free of translation and rotation.

    Attributes:
        mean: (n, 3) in bohr.
        components: (r, 3n) each times its standard deviation, in bohr.
    """

    mean: FloatArray
    components: FloatArray

    @classmethod
    def of(cls, geometries: FloatArray) -> PrincipalComponents:
        """Those of geometries (F, n, 3), F > 1, wherever and however turned they are."""
        mean = geometries[0] - geometries[0].mean(axis=0)
        for _ in range(3):  # the mean that they are laid over is known better each time
            laid = np.stack([superpose(geometry, mean) for geometry in geometries])
            mean = laid.mean(axis=0)
        deviations = (laid - mean).reshape(len(laid), -1) / np.sqrt(len(laid) - 1)
        _, sizes, directions = np.linalg.svd(deviations, full_matrices=False)
        return cls(mean, sizes[:, None] * directions)

    def draw(self, count: int, scale: float, rng: np.random.Generator) -> FloatArray:
        """(count, n, 3) geometries, with `scale` times the standard deviations."""
        amplitudes = scale * rng.normal(size=(count, len(self.components)))
        return np.asarray(self.mean + (amplitudes @ self.components).reshape(count, -1, 3))


def superpose(geometry: FloatArray, onto: FloatArray) -> FloatArray:
    """A geometry (n, 3) moved and turned onto another one (Kabsch, Acta Cryst. A32, 922 (1976)).

    Deviations count alike for all atoms.
    """
    centre, target = geometry.mean(axis=0), onto.mean(axis=0)
    left, _, right = np.linalg.svd((geometry - centre).T @ (onto - target))
    left[:, -1] *= np.sign(np.linalg.det(left @ right))
    return np.asarray((geometry - centre) @ (left @ right) + target)
