"""A fixed bias that lowers the barrier of the proton transfer, for i-PI's ``ffdirect``.

    w(delta) = -height exp(-delta^2 / (2 width^2)),   delta = d(O1-H) - d(O2-H)

Its ``<parameters>``, in bohr and hartree: ``first``, ``hydrogen`` and ``second``, the indices of the three
atoms from 0, ``height`` and ``width``.
"""

from __future__ import annotations

import numpy as np
from ipi.pes.dummy import Dummy_driver
from numpy.typing import NDArray

__DRIVER_NAME__ = "custom"
__DRIVER_CLASS__ = "TransferBias"

Array = NDArray[np.float64]


def transfer_coordinate(positions: Array, first: int, hydrogen: int, second: int) -> Array:
    """d(first-hydrogen) - d(hydrogen-second) of positions (..., N, 3), in their unit."""
    proton = positions[..., hydrogen, :]
    to_first = np.linalg.norm(proton - positions[..., first, :], axis=-1)
    return np.asarray(to_first - np.linalg.norm(proton - positions[..., second, :], axis=-1))


def gaussian(delta: Array, height: float, width: float) -> Array:
    """The bias in hartree at delta in bohr."""
    return np.asarray(-height * np.exp(-0.5 * (delta / width) ** 2))


class TransferBias(Dummy_driver):  # type: ignore[misc]
    """The bias as i-PI calls it."""

    def __init__(
        self, first: int, hydrogen: int, second: int, height: float, width: float, verbosity: object = None
    ) -> None:
        self.atoms = (int(first), int(hydrogen), int(second))
        self.height, self.width = float(height), float(width)
        super().__init__(verbosity)

    def compute_structure(self, cell: Array, pos: Array) -> tuple[float, Array, Array, str]:
        """Energy, forces and virial of one structure; the virial is not needed in vacuum and is zero."""
        first, hydrogen, second = self.atoms
        delta = transfer_coordinate(pos, *self.atoms)
        energy = gaussian(delta, self.height, self.width)
        slope = -energy * delta / self.width**2
        forces = np.zeros_like(pos)
        for atom, sign in ((first, 1.0), (second, -1.0)):
            direction = pos[hydrogen] - pos[atom]
            pull = -sign * slope * direction / np.linalg.norm(direction)
            forces[hydrogen] += pull
            forces[atom] -= pull
        return float(energy), forces, np.zeros((3, 3)), ""
