"""Who is QM, who is MM, and which MM atoms enter the embedding together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pidelta.errors import SetupError
from pidelta.state import FloatArray, IntArray, System

_CHARGE_TOLERANCE = 1.0e-3


@dataclass(frozen=True)
class Partition:
    """The QM region and the charge groups of the rest.

    Attributes:
        numbers: (N,) atomic numbers of all atoms.
        qm_indices: (n,) the QM atoms, sorted.
        charges: (N,) force-field charges in e, zero on QM atoms.
        group_atoms: (M,) the MM atoms, group by group.
        group_starts: (G + 1,) where each charge group starts in `group_atoms`.
    """

    numbers: IntArray
    qm_indices: IntArray
    charges: FloatArray
    group_atoms: IntArray
    group_starts: IntArray

    @property
    def qm_numbers(self) -> IntArray:
        """(n,) atomic numbers of the QM atoms."""
        return self.numbers[self.qm_indices]


def make_partition(system: System, qm_indices: IntArray, charges: FloatArray, qm_charge: int) -> Partition:
    """Split a system; the MM atoms of one residue are one charge group.

    Args:
        system: all atoms.
        qm_indices: (n,) the QM atoms.
        charges: (N,) force-field charges in e.
        qm_charge: total charge of the QM region, which the force-field charges it replaces must add up to,
            so that the total charge of the system stays what the topology says.

    Raises:
        SetupError: the charges do not fit.
    """
    replaced = float(charges[qm_indices].sum())
    if abs(replaced - qm_charge) > _CHARGE_TOLERANCE:
        raise SetupError(
            f"qm.charge: expected {replaced:+.4f}, the sum of the force-field charges of the QM atoms, "
            f"found {qm_charge:+d}"
        )
    is_mm = np.ones(len(system), dtype=bool)
    is_mm[qm_indices] = False
    mm_charges = np.where(is_mm, charges, 0.0)
    group_atoms = np.flatnonzero(is_mm)
    residues = system.residue_indices[group_atoms]
    changes = np.flatnonzero(np.diff(residues)) + 1
    starts = np.concatenate([[0], changes, [len(group_atoms)]]) if len(group_atoms) else np.zeros(1)
    return Partition(system.numbers, qm_indices, mm_charges, group_atoms, starts.astype(np.int64))
