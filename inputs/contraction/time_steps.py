"""What the time step alone does to a quantum oscillator, without the noise of a simulation.

    python inputs/contraction/time_steps.py

For a harmonic oscillator each normal mode of the ring polymer is propagated by a 2 x 2 matrix, and the
thermostat adds Gaussian noise: the covariance that a scheme samples solves C = M C M^T + N (Leimkuhler,
Matthews, Appl. Math. Res. Express 2013, 34). Beside it stands the exact one of so many beads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.linalg import solve_discrete_lyapunov

from pidelta.analysis.pages import table_row
from pidelta.state import FloatArray
from pidelta.units import FEMTOSECOND, HARTREE_IN_KELVIN, WAVENUMBER

TEMPERATURE = 300.0 / HARTREE_IN_KELVIN
CENTROID_TIME = 100.0 * FEMTOSECOND
Step = tuple[FloatArray, FloatArray]  # the matrix that acts on (position, momentum), and the noise it adds


@dataclass(frozen=True)
class Scheme:
    """A way to integrate; masses are 1.

    Attributes:
        label: for the table.
        outer: time step in fs, with one thermostat step.
        inner: inner steps, in each of which the force acts.
        middle: whether the thermostat acts in the middle (BAOAB) or at the ends (OBABO).
    """

    label: str
    outer: float
    inner: int
    middle: bool


SCHEMES = (
    Scheme("BAOAB, 0.25 fs", 0.25, 1, True),
    Scheme("BAOAB, 0.5 fs", 0.5, 1, True),
    Scheme("BAOAB, 1 fs", 1.0, 1, True),
    Scheme("OBABO, 0.25 fs", 0.25, 1, False),
    Scheme("OBABO, 0.5 fs", 0.5, 1, False),
    Scheme("BAOAB, 2 fs, inner steps of 0.5 fs", 2.0, 4, True),
    Scheme("BAOAB, 2 fs, inner steps of 0.25 fs", 2.0, 8, True),
)


def mode_frequencies(beads: int) -> FloatArray:
    """(beads,) of the free ring polymer, in atomic units."""
    return 2.0 * beads * TEMPERATURE * np.sin(np.pi * np.arange(beads) / beads)


def exact_kinetic_energy(frequency: float, beads: int) -> float:
    """Of an oscillator with so many beads, in hartree."""
    others = mode_frequencies(beads)[1:] ** 2
    return 0.5 * TEMPERATURE * float(1.0 + (frequency**2 / (frequency**2 + others)).sum())


def sampled_kinetic_energy(frequency: float, beads: int, scheme: Scheme) -> float:
    """By the centroid-virial estimator from what a scheme with PILE samples, in hartree."""
    squares = [sampled_square(frequency, mode, beads, scheme) for mode in mode_frequencies(beads)[1:]]
    return 0.5 * TEMPERATURE + 0.5 * frequency**2 * sum(squares) / beads


def sampled_square(frequency: float, mode: float, beads: int, scheme: Scheme) -> float:
    """The mean square of a normal mode of the ring polymer whose free frequency is `mode`."""
    step = scheme.outer * FEMTOSECOND
    kick, drift = partial(_kick, frequency), partial(_drift, mode)
    inner = step / scheme.inner
    friction = partial(_thermostat, 2.0 * mode or 1.0 / CENTROID_TIME, beads * TEMPERATURE)
    steps = [kick(0.5 * inner), drift(inner), kick(0.5 * inner)]
    if not scheme.middle:
        order = [friction(0.5 * step), *steps * scheme.inner, friction(0.5 * step)]
    elif scheme.inner == 1:
        halves = [kick(0.5 * step), drift(0.5 * step)]
        order = [*halves, friction(step), *reversed(halves)]
    else:
        order = [*steps * (scheme.inner // 2), friction(step), *steps * (scheme.inner // 2)]
    return float(_stationary(order)[0, 0])


def _stationary(order: Sequence[Step]) -> FloatArray:
    matrix, noise = np.eye(2), np.zeros((2, 2))
    for step, added in order:
        matrix, noise = step @ matrix, step @ noise @ step.T + added
    return np.asarray(solve_discrete_lyapunov(matrix, noise))


def _kick(frequency: float, time: float) -> Step:
    return np.array([[1.0, 0.0], [-(frequency**2) * time, 1.0]]), np.zeros((2, 2))


def _drift(mode: float, time: float) -> Step:
    """Free ring polymer, exactly."""
    if mode == 0.0:
        return np.array([[1.0, time], [0.0, 1.0]]), np.zeros((2, 2))
    c, s = np.cos(mode * time), np.sin(mode * time)
    return np.array([[c, s / mode], [-mode * s, c]]), np.zeros((2, 2))


def _thermostat(rate: float, heat: float, time: float) -> Step:
    keeps = np.exp(-rate * time)
    return np.diag([1.0, keeps]), np.diag([0.0, heat * (1.0 - keeps**2)])


def steady_stretch(frequency: float, outer: float) -> float:
    """How far a steady smooth force stretches a classical oscillator, as seen at the ends of outer steps.

    To what it does in truth: the force comes in kicks, half of one before and half after.
    """
    angle = 0.5 * frequency * outer * FEMTOSECOND
    return angle / float(np.tan(angle))


def table() -> list[str]:
    """Errors of the kinetic energy in percent: a row a scheme, a column an oscillator with so many beads."""
    columns = [(wavenumber, beads) for wavenumber in (3700, 1650) for beads in (8, 32)]
    rows = [["time steps", *(f"{wavenumber} 1/cm, {beads} beads" for wavenumber, beads in columns)]]
    rows.append(["---"] * len(rows[0]))
    for scheme in SCHEMES:
        cells = []
        for wavenumber, beads in columns:
            frequency = wavenumber * WAVENUMBER
            ratio = sampled_kinetic_energy(frequency, beads, scheme) / exact_kinetic_energy(frequency, beads)
            cells.append(f"{100.0 * (ratio - 1.0):+.2f}")
        rows.append([scheme.label, *cells])
    return [table_row(row) for row in rows]


if __name__ == "__main__":
    print("\n".join(table()))
    for step in (1.0, 2.0):
        ratio = steady_stretch(3700 * WAVENUMBER, step)
        print(f"3700 1/cm, outer steps of {step:g} fs: a steady force stretches it {ratio:.2f} times as far")
