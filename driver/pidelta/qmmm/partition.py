"""Who is QM, who is MM, and which MM charges act together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pidelta.qmmm.groups import NO_GROUPS, ChargeGroups
from pidelta.state import FloatArray, IntArray


@dataclass(frozen=True)
class Partition:
    """The QM region among the P particles, and the charge groups of the rest.

    Attributes:
        numbers: (P,) atomic numbers; 0 for a particle without a nucleus, and for a host, in whose place the
            QM region has a link hydrogen.
        qm_indices: (n,) the QM atoms and then their link hydrogens, sorted.
        charges: (P,) charges in e that the QM region feels, zero on QM atoms and their virtual sites: those
            of the force field, but for the hosts of link hydrogens and what is next to these.
        groups: the charge groups of the MM particles.
        n_links: how many of the QM particles are link hydrogens.
    """

    numbers: IntArray
    qm_indices: IntArray
    charges: FloatArray
    groups: ChargeGroups = NO_GROUPS
    n_links: int = 0

    @property
    def qm_atoms(self) -> IntArray:
        """(n - n_links,) the QM atoms, without link hydrogens."""
        return self.qm_indices[: len(self.qm_indices) - self.n_links]

    @property
    def mm_numbers(self) -> IntArray:
        """(K,) atomic numbers of the MM particles with a nucleus."""
        numbers = self.numbers[self.groups.particles]
        return np.asarray(numbers[numbers > 0])

    @property
    def qm_numbers(self) -> IntArray:
        """(n,) atomic numbers of the QM atoms, link hydrogens included."""
        return self.numbers[self.qm_indices]
