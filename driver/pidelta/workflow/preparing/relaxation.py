"""Relaxing a structure that was just built, before dynamics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pidelta.errors import RunError
from pidelta.state import Evaluator, FloatArray
from pidelta.units import ANGSTROM

_LONGEST_STEP = 0.1 * ANGSTROM
_FIRST_STEP, _MAX_STEP = 0.4, 1.2
"""In atomic units with masses of 1; the stiffest bonds, 0.6 hartree/bohr^2, bear 1.8."""


_HARSH = 0.5
"""hartree/bohr, with which dynamics would explode."""


def relax(
    evaluator: Evaluator,
    positions: FloatArray,
    cell: FloatArray,
    steps: int,
    gentle: float,
    report: Callable[[int, float], None],
) -> FloatArray:
    """Go downhill by FIRE with equal masses, no atom further than 0.1 angstrom at a time.

    Bitzek, Koskinen, Gaehler, Moseler, Gumbsch, Phys. Rev. Lett. 97, 170201 (2006).

    Args:
        evaluator: of the energy.
        positions: (N, 3) in bohr.
        cell: (3, 3) in bohr.
        steps: at most; fewer where all forces are gentle.
        gentle: a force on an atom in hartree/bohr at which dynamics may take over.
        report: called with the step and the largest force in hartree/bohr.

    Returns:
        (N, 3) in bohr.

    Raises:
        RunError: the energy cannot be evaluated, or forces are still harsh at the end.
    """
    velocities = np.zeros_like(positions)
    time_step, mixing, downhill, largest = _FIRST_STEP, 0.1, 0, 0.0
    forces = velocities
    for step in range(steps):
        forces = -evaluator.evaluate(positions[None], cell[None]).gradient[0]
        largest = float(np.linalg.norm(forces, axis=1).max())
        report(step, largest)
        if largest < gentle:
            return positions
        if np.vdot(forces, velocities) > 0.0:
            along = np.linalg.norm(velocities) / np.linalg.norm(forces)
            velocities = (1.0 - mixing) * velocities + mixing * along * forces
            downhill += 1
            if downhill > 5:
                time_step, mixing = min(1.1 * time_step, _MAX_STEP), 0.99 * mixing
        else:
            velocities[:] = 0.0
            time_step, mixing, downhill = 0.5 * time_step, 0.1, 0
        velocities += time_step * forces
        moves = time_step * velocities
        lengths = np.linalg.norm(moves, axis=1, keepdims=True)
        moves *= np.minimum(1.0, _LONGEST_STEP / np.maximum(lengths, 1e-12))
        positions, velocities = positions + moves, moves / time_step
    if largest > _HARSH:
        atom = int(np.linalg.norm(forces, axis=1).argmax())
        raise RunError(
            f"the relaxation ends with a force of {largest:.2g} hartree/bohr on atom {atom}, "
            f"expected less than {_HARSH}: do molecules overlap?"
        )
    return positions
