"""From atoms, which i-PI knows, to particles, which terms evaluate: atoms, virtual sites, fixed charges."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pidelta.core.virtual_sites import VirtualSites
from pidelta.state import FloatArray


@dataclass(frozen=True)
class Particles:
    """What the particles of a system follow from; they are ordered by kind.

    Attributes:
        n_atoms: N; the atoms are particles 0 to N - 1.
        sites: the S virtual sites, which follow their atoms.
        fixed: (F, 3) positions in bohr of particles that nothing moves, such as point charges around a
            molecule in vacuum; a strain does not move them either.
    """

    n_atoms: int
    sites: VirtualSites = field(default_factory=VirtualSites)
    fixed: FloatArray = field(default_factory=lambda: np.zeros((0, 3)))

    def __len__(self) -> int:
        """Number P = N + S + F of particles."""
        return self.n_atoms + len(self.sites) + len(self.fixed)

    def place(self, positions: FloatArray, cells: FloatArray | None) -> FloatArray:
        """Positions (B, P, 3) of the particles in bohr.

        Args:
            positions: (B, N, 3) of the atoms in bohr.
            cells: (B, 3, 3) lattice vectors as rows in bohr, or None.
        """
        placed = np.empty((len(positions), len(self), 3))
        after_sites = self.n_atoms + len(self.sites)
        placed[:, : self.n_atoms] = positions
        placed[:, after_sites:] = self.fixed
        for b, atoms in enumerate(placed[:, :after_sites]):
            self.sites.place(atoms, None if cells is None else cells[b])
        return placed

    def pull_back(
        self, particles: FloatArray, cells: FloatArray | None, gradient: FloatArray, virial: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Derivatives with respect to atoms from those with respect to particles, by the chain rule.

        Args:
            particles: (B, P, 3) as `place` returned them.
            cells: as `place` had them.
            gradient: (B, P, 3) dE/dR of the particles in hartree/bohr.
            virial: (B, 3, 3) -dE/d(strain) in hartree, all particles taken to move along with the strain.

        Returns:
            (B, N, 3) dE/dR of the atoms and (B, 3, 3) the virial of a strain of atoms and cell.
        """
        if len(self) == self.n_atoms:
            return gradient, virial
        gradient, strain = gradient.copy(), -virial
        after_sites = self.n_atoms + len(self.sites)
        strain -= np.einsum("bpi,bpj->bij", gradient[:, after_sites:], particles[:, after_sites:])
        for b in range(len(gradient)):
            cell = None if cells is None else cells[b]
            self.sites.spread(particles[b, :after_sites], cell, gradient[b, :after_sites], strain[b])
        return gradient[:, : self.n_atoms].copy(), -strain
