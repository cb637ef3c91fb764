"""Minima and harmonic frequencies from gradients; atomic units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_masses

from pidelta.units import ANGSTROM, DALTON_IN_ELECTRON_MASS, EV

EnergyAndGradient = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""Positions (n, 3) to energy and gradient (n, 3)."""

HARTREE_IN_WAVENUMBER = 219474.6313632
_LONGEST_STEP = 0.3  # bohr, of any atom
_SOFTEST = 3e-4  # hartree/bohr^2, the least curvature that a step assumes
_NOISE = 1e-6  # hartree
_MAX_STEPS = 100


@dataclass(frozen=True)
class Minimum:
    """A minimum: positions (n, 3), energy, and the number of gradients it took."""

    positions: np.ndarray
    energy: float
    gradients: int


def minimise(
    function: EnergyAndGradient,
    positions: np.ndarray,
    hessian: np.ndarray,
    largest_force: float = 0.05 * EV / ANGSTROM,
    project: Callable[[np.ndarray], np.ndarray] = lambda positions: positions,
    renew: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Minimum:
    """Minimise with steps along -|H|^-1 g from a good Hessian, which BFGS keeps up.

    When the largest force of an atom is below `largest_force`, a last step is taken, whose energy comes from
    the quadratic model, E + g s / 2: its error is of third order in the step.

    Args:
        function: the energy and its gradient.
        positions: (n, 3) the start.
        hessian: (3n, 3n) that of the start.
        largest_force: when to stop.
        project: puts positions back on a symmetry.
        renew: gives the Hessian of any positions, for Newton's method instead of BFGS.

    Raises:
        RuntimeError: no minimum was found.
    """
    x = project(positions)
    energy, gradient = function(x)
    radius = _LONGEST_STEP
    for count in range(1, _MAX_STEPS + 1):
        step = (project(x + _step(hessian, gradient, x, radius)) - x).ravel()
        if np.linalg.norm(gradient, axis=1).max() < largest_force:
            return Minimum(x + step.reshape(x.shape), energy + 0.5 * float(gradient.ravel() @ step), count)
        new_energy, new_gradient = function(x + step.reshape(x.shape))
        accepted = new_energy < energy + _NOISE
        if renew is None:
            hessian = _updated(hessian, step, (new_gradient - gradient).ravel())
        elif accepted:
            hessian = renew(x + step.reshape(x.shape))
        if accepted:
            x, energy, gradient = x + step.reshape(x.shape), new_energy, new_gradient
            radius = min(1.5 * radius, _LONGEST_STEP)
        else:
            radius = 0.4 * float(np.linalg.norm(step.reshape(x.shape), axis=1).max())
    raise RuntimeError(f"no minimum in {_MAX_STEPS} steps")


def _updated(hessian: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """BFGS, damped as Powell does (Nocedal, Wright, Numerical Optimization, 2006, procedure 18.2)."""
    along = hessian @ step
    curvature = step @ along
    if curvature <= 0.0:
        return hessian
    if change @ step < 0.2 * curvature:
        share = 0.8 * curvature / (curvature - change @ step)
        change = share * change + (1.0 - share) * along
    return hessian + np.outer(change, change) / (change @ step) - np.outer(along, along) / curvature


def _step(hessian: np.ndarray, gradient: np.ndarray, positions: np.ndarray, radius: float) -> np.ndarray:
    vibrations = _vibrations(positions, np.ones(len(positions)))
    values, vectors = np.linalg.eigh(vibrations.T @ hessian @ vibrations)
    modes = vibrations @ vectors
    step = -modes @ ((modes.T @ gradient.ravel()) / np.maximum(np.abs(values), _SOFTEST))
    step = step.reshape(gradient.shape)
    return step * min(1.0, radius / max(np.linalg.norm(step, axis=1).max(), 1e-12))


def _vibrations(positions: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Orthonormal mass-weighted displacements (3n, 3n - 6) without translations and rotations."""
    centred = positions - masses @ positions / masses.sum()
    rigid = [np.tile(axis, len(masses)) for axis in np.eye(3)]
    rigid += [np.cross(axis, centred).ravel() for axis in np.eye(3)]
    whole, _ = np.linalg.qr((np.array(rigid) * np.sqrt(np.repeat(masses, 3))).T, mode="complete")
    return whole[:, 6:]


def frequencies(hessian: np.ndarray, numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Harmonic wavenumbers (3n - 6,) in 1/cm of a non-linear molecule, imaginary ones negative."""
    masses = atomic_masses[numbers] * DALTON_IN_ELECTRON_MASS
    vibrations = _vibrations(positions, masses)
    weights = np.sqrt(np.repeat(masses, 3))
    values = np.linalg.eigvalsh(vibrations.T @ (hessian / np.outer(weights, weights)) @ vibrations)
    return np.sign(values) * np.sqrt(np.abs(values)) * HARTREE_IN_WAVENUMBER


def symmetriser(permutation: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a projection on the geometries that a proper rotation and this permutation (n,) leave alone."""

    def project(positions: np.ndarray) -> np.ndarray:
        centre = positions.mean(axis=0)
        x = positions - centre
        image = x[permutation]
        u, _, vt = np.linalg.svd(image.T @ x)
        turn = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
        return 0.5 * (x + image @ turn) + centre

    return project
