"""Which potential the low-level method feels, and what comes back from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pidelta.qmmm.point_charges import point_charge_gradients, point_charge_potential
from pidelta.qmmm.surroundings import CutRegion, Surroundings
from pidelta.state import FloatArray, RegionGradient


@dataclass(frozen=True)
class Field:
    """The electrostatic field at the QM nuclei of B structures.

    Attributes:
        potential: (B, n) in hartree/e.
        kernel: (B, n, n) symmetric K in hartree/e^2, of the interaction 1/2 sum_AB q_A K_AB q_B of the QM
            region with its periodic images, or None without them.
        region: what it was made from.
    """

    potential: FloatArray
    kernel: FloatArray | None
    region: CutRegion


class Coupling(Protocol):
    """Electrostatics between a QM region and what surrounds it."""

    def field(self, particles: FloatArray, cells: FloatArray | None, region: CutRegion) -> Field:
        """What the low level feels.

        Args:
            particles: (B, P, 3) in bohr.
            cells: (B, 3, 3) lattice rows in bohr, or None if not periodic.
            region: as `Surroundings.cut` made it of these; its QM atoms are those of the field.
        """

    def pull_back(self, field: Field, charges: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Derivatives of sum_A q_A phi_A + 1/2 sum_AB q_A K_AB q_B at fixed charges.

        Args:
            field: as `field` made it.
            charges: (B, n) net charges q of the QM atoms in e.

        Returns:
            gradient (B, P, 3) in hartree/bohr and virial (B, 3, 3) in hartree.
        """


class CutoffCoupling:
    """The bare Coulomb sum over the sites of the surroundings: what delta models and labels see as well.

    Args:
        surroundings: the rule by which the sites were chosen.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings

    def field(self, particles: FloatArray, cells: FloatArray | None, region: CutRegion) -> Field:
        """phi_A = sum_k q_k / |R_A - r_k| with the scaled charges q_k of the sites."""
        phi = point_charge_potential(region.positions, region.site_positions, region.site_charges)
        return Field(phi, None, region)

    def pull_back(self, field: Field, charges: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See `Coupling.pull_back`."""
        region = field.region
        parts = point_charge_gradients(region.positions, region.site_positions, region.site_charges, charges)
        return self._surroundings.pull_back(region, RegionGradient(*parts))
