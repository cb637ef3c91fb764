"""Central differences: the judge of every analytic gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pidelta.state import FloatArray, IntArray

# Fourth-order central difference: the steps taken and their coefficients.
_STENCIL = ((-2.0, 1.0 / 12.0), (-1.0, -8.0 / 12.0), (1.0, 8.0 / 12.0), (2.0, -1.0 / 12.0))


def central_differences(
    energy: Callable[[FloatArray], FloatArray],
    positions: FloatArray,
    atoms: IntArray,
    step: float = 2.0e-3,
    report: Callable[[int], None] = lambda done: None,
) -> FloatArray:
    """Numerical gradient of an energy on some atoms, accurate to fourth order in `step`.

    Args:
        energy: positions (B, N, 3) -> energies (B,).
        positions: (N, 3) in bohr.
        atoms: (k,) indices of the atoms.
        step: displacement in bohr.
        report: called after each atom with the number of atoms done.

    Returns:
        (k, 3) in hartree/bohr.
    """
    gradient = np.zeros((len(atoms), 3))
    for row, atom in enumerate(atoms):
        displaced = np.repeat(positions[None], 3 * len(_STENCIL), axis=0)
        for axis in range(3):
            for point, (shift, _) in enumerate(_STENCIL):
                displaced[axis * len(_STENCIL) + point, atom, axis] += shift * step
        energies = energy(displaced).reshape(3, len(_STENCIL))
        gradient[row] = energies @ np.asarray([coefficient for _, coefficient in _STENCIL]) / step
        report(row + 1)
    return gradient
