"""What an Ewald sum adds to the Coulomb interaction of pairs within the cutoff."""

from __future__ import annotations

from dataclasses import replace

from pidelta.core import ewald
from pidelta.core.charge_fields import ChargeFields
from pidelta.core.pme import reciprocal_sum
from pidelta.mm.nonbonded import Truncation
from pidelta.state import FloatArray, IntArray


class LongRange:
    """Reciprocal sum, self energy, neutralising background and excluded pairs.

    The direct part erfc(alpha r)/r of all charges within the cutoff, the atom itself and its excluded
    partners among them, is shifted to zero at the cutoff: the energy has no steps, forces are as without.

    Args:
        method: ``pme`` or ``ewald``.
        cutoff: of the pairs in bohr.
        tolerance: sets the splitting, exp(-(alpha cutoff)^2) = 2 tolerance, the grid of PME and the end of
            the plain sum. It is about the relative RMS error of the forces in liquid water.
        excluded: (E, 2) pairs that do not interact.
        charges: (N,) of the particles in e.
        cell: (3, 3) rows in bohr, that the grid of PME is made for; that of the first structure if None. The
            grid stays when the cell changes, so that the energy has no steps.
        fields: of these charges by that sum, where it is made already, to be shared.

    Raises:
        SettingError: the tolerance is too small for the memory of PME's grid.
    """

    def __init__(
        self,
        method: str,
        cutoff: float,
        tolerance: float,
        excluded: IntArray,
        charges: FloatArray,
        cell: FloatArray | None,
        fields: ChargeFields | None = None,
    ) -> None:
        self._method, self._cutoff, self._tolerance = method, cutoff, tolerance
        self._excluded, self._charges = excluded, charges
        self._alpha = ewald.splitting(cutoff, tolerance)
        self._shift = ewald.shift_at_cutoff(self._alpha, cutoff)
        self._fields = fields
        if cell is not None:
            self.prepare(cell)

    def prepare(self, cell: FloatArray) -> None:
        """Make the reciprocal sum for a cell, unless there is one."""
        if self._fields is None:
            reciprocal = reciprocal_sum(self._method, self._cutoff, self._tolerance, cell)
            self._fields = ChargeFields(reciprocal, self._charges)

    def truncate(self, end: Truncation) -> Truncation:
        """The same end of pair interactions, with the direct part of the sum for Coulomb."""
        return replace(end, smooth=ewald.shifted_part(self._alpha, self._cutoff))

    def evaluate(
        self, structure: int, x: FloatArray, cell: FloatArray, gradient: FloatArray, strain: FloatArray
    ) -> float:
        """Add to dE/dR (N, 3) and dE/d(strain) (3, 3), return the energy, all in atomic units.

        `structure` is its number in the request.
        """
        assert self._fields is not None
        charges = self._charges
        total = (
            ewald.energy_of(self._fields.make(structure, x, cell), charges)
            + ewald.self_and_background(charges, self._alpha, cell)
            + ewald.excluded_pairs(x, charges, cell, self._alpha, self._excluded)
        )
        gradient += total.gradient
        strain += total.strain
        i, j = self._excluded.T
        return total.energy - self._shift * float(0.5 * charges @ charges + charges[i] @ charges[j])
