"""Who is QM, who is MM, which MM charges act together, and whether the charges of both fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pidelta.errors import SettingError
from pidelta.qmmm.groups import NO_GROUPS, ChargeGroups
from pidelta.state import FloatArray, IntArray

REMAINDER = 0.05
"""e: what the charges of a QM region may be off an integer by rounding, as those of AM1-BCC are."""

_EXACT = 1.0e-4


@dataclass(frozen=True)
class Partition:
    """The QM region among the P particles, and the charge groups of the rest.

    Attributes:
        numbers: (P,) atomic numbers, 0 for a particle without a nucleus.
        qm_indices: (n,) the QM atoms, sorted.
        charges: (P,) force-field charges in e, zero on QM atoms and their virtual sites.
        groups: the charge groups of the MM particles.
    """

    numbers: IntArray
    qm_indices: IntArray
    charges: FloatArray
    groups: ChargeGroups = NO_GROUPS

    @property
    def mm_numbers(self) -> IntArray:
        """(K,) atomic numbers of the MM particles with a nucleus."""
        numbers = self.numbers[self.groups.particles]
        return np.asarray(numbers[numbers > 0])

    @property
    def qm_numbers(self) -> IntArray:
        """(n,) atomic numbers of the QM atoms."""
        return self.numbers[self.qm_indices]


def spread_remainder(
    charges: FloatArray, qm_particles: IntArray, remainder: float, atoms: IntArray
) -> FloatArray:
    """Charges (P,) with a remainder of the QM particles moved, in equal shares, to MM atoms.

    Raises:
        SettingError: some of the atoms are QM.
    """
    inside = np.intersect1d(atoms, qm_particles)
    if len(inside):
        raise SettingError(
            "charge_remainder", f"expected atoms outside the QM region, found atom {inside[0]}"
        )
    moved = np.array(charges)
    moved[qm_particles] -= remainder / len(qm_particles)
    moved[atoms] += remainder / len(atoms)
    return moved


def charge_remainder(replaced: FloatArray, charge: int, *, spread: bool = False) -> float:
    """What the force-field charges that the QM method replaces have more than it puts in their place.

    A small remainder, which is one of rounding, may be dropped: the QM region then has the integer charge it
    is meant to have, the rest keeps its charges.

    Args:
        replaced: force-field charges in e of the QM atoms and their virtual sites.
        charge: total charge of the QM region in e.
        spread: whether a remainder of any size will be given to other atoms.

    Returns:
        the remainder in e.

    Raises:
        SettingError: the charges do not fit.
    """
    total = float(replaced.sum())
    if spread or abs(total - charge) <= REMAINDER:
        return 0.0 if abs(total - charge) < _EXACT else total - charge
    if abs(total - round(total)) <= REMAINDER:
        raise SettingError(
            "charge",
            f"expected {round(total):+d}, as the force-field charges of the QM atoms sum to {total:+.4f}, "
            f"found {charge:+d}",
        )
    raise SettingError(
        "charge",
        f"expected force-field charges of the QM atoms that sum to an integer within {REMAINDER:g} e, found "
        f"{total:+.4f}: choose other QM atoms, or MM atoms that take up the remainder as charge_remainder",
    )
