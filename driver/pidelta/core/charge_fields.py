"""The reciprocal field of all charges of a force field, made once for each structure of a request."""

from __future__ import annotations

import numpy as np

from pidelta.core.ewald import ReciprocalField, ReciprocalSum
from pidelta.state import FloatArray


class ChargeFields:
    """Fields of fixed charges, which the force field makes and the coupling takes up.

    A field is found again by the very positions it was made for; others are made anew, so that results do not
    depend on who asked before.

    Args:
        reciprocal: the sum.
        charges: (P,) of all particles in e.
    """

    def __init__(self, reciprocal: ReciprocalSum, charges: FloatArray) -> None:
        self.reciprocal = reciprocal
        self.charges = charges
        self._shared = False
        self._kept: dict[int, tuple[FloatArray, FloatArray, ReciprocalField]] = {}

    def share(self) -> None:
        """Keep what is made until it is taken."""
        self._shared = True

    def make(self, structure: int, positions: FloatArray, cell: FloatArray) -> ReciprocalField:
        """The field of a structure of a request, of positions (P, 3) and lattice rows (3, 3) in bohr."""
        field = self.reciprocal.field(positions, self.charges, cell)
        if self._shared:
            self._kept[structure] = positions.copy(), cell.copy(), field
        return field

    def take(self, structure: int, positions: FloatArray, cell: FloatArray) -> ReciprocalField:
        """That field, which is kept no longer, or a new one if there is none; arguments as `make`."""
        kept = self._kept.pop(structure, None)
        if kept is not None and np.array_equal(kept[0], positions) and np.array_equal(kept[1], cell):
            return kept[2]
        return self.reciprocal.field(positions, self.charges, cell)
