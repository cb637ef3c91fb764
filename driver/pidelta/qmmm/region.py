"""The QM region of a set-up and what surrounds it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pidelta.core.particles import Particles
from pidelta.mm.topology import Topology
from pidelta.qmmm.charges import NOTHING_MOVED, MovedCharge
from pidelta.qmmm.links import Links
from pidelta.qmmm.partition import Partition
from pidelta.qmmm.surroundings import CutRegion, Surroundings
from pidelta.state import FloatArray, IntArray


@dataclass(frozen=True)
class QMRegion:
    """The QM region of a set-up and what surrounds it.

    Attributes:
        partition: which particles are QM, and the charge groups of the others.
        particles: the map from atoms to particles.
        surroundings: the rule for the point charges that the region sees.
        force_field: what is left to the force field, or None without one.
        force_field_charges: (n,) of the QM atoms in e, zero without a force field and for link hydrogens.
        remainder: in e, what these have more than `charge` and nothing else takes up.
        charge, multiplicity: of the region.
        links: the bonds that join it with MM atoms.
        moved: what of the charges of the QM atoms was given to MM atoms.
    """

    partition: Partition
    particles: Particles
    surroundings: Surroundings
    force_field: Topology | None
    force_field_charges: FloatArray
    remainder: float
    charge: int
    multiplicity: int
    links: Links = field(default_factory=Links)
    moved: MovedCharge = NOTHING_MOVED

    @property
    def numbers(self) -> IntArray:
        """(n,) atomic numbers of the QM atoms, link hydrogens included."""
        return self.partition.qm_numbers

    def cut(self, positions: FloatArray, cells: FloatArray | None) -> CutRegion:
        """QM atoms and scaled point charges for positions (B, N, 3) with lattice rows (B, 3, 3)."""
        return self.surroundings.cut(self.particles.place(positions, cells), cells)
