"""A spring on the distance of two atoms, for i-PI's ``ffdirect``.

    V(d) = 1/2 stiffness (d - distance)^2

Its ``<parameters>``, in bohr and hartree: ``first`` and ``second``, the indices of the atoms from 0,
``distance`` and ``stiffness``.
"""

from __future__ import annotations

import numpy as np
from ipi.pes.dummy import Dummy_driver
from numpy.typing import NDArray

from pidelta.core.cell import minimum_image
from pidelta.workflow.learning.bias import Restraint as Spring

__DRIVER_NAME__ = "custom"
__DRIVER_CLASS__ = "Restraint"

Array = NDArray[np.float64]


class Restraint(Dummy_driver):  # type: ignore[misc]
    """The spring as i-PI calls it."""

    def __init__(
        self, first: int, second: int, distance: float, stiffness: float, verbosity: object = None
    ) -> None:
        self.atoms = (int(first), int(second))
        self.spring = Spring(np.array([self.atoms]), np.ones(1), float(distance), float(stiffness))
        super().__init__(verbosity)

    def compute_structure(self, cell: Array, pos: Array) -> tuple[float, Array, Array, str]:
        """Energy, forces and virial of one structure; cell vectors are columns, as everywhere in i-PI."""
        first, second = self.atoms
        (energy,), (gradient,) = self.spring.evaluate(pos[None], cell.T[None])
        vector = minimum_image(pos[second] - pos[first], cell.T)
        return float(energy), -gradient, -np.outer(vector, gradient[second]), ""
