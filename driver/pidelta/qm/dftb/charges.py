"""The part of the DFTB energy that depends on the electrons of the centres alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ChargeEnergy:
    """E(q) = sum_x phi_x q_x + 1/2 sum_xy q_x kernel_xy q_y - 1/3 sum_xy q_x Q_x q_y gamma3_xy.

    q are net charges of the charge centres, atoms or shells, and Q_x is the charge of the whole atom of
    centre x; where atoms are the centres Q = q. Gaus, Cui, Elstner, JCTC 7, 931 (2011), equation 25, is in
    terms of dq = -q; by shells: Gaus et al., JCTC 11, 4205 (2015).

    Attributes:
        potential: (B, S) phi in hartree/e.
        kernel: (B, S, S) gamma, with the Coulomb correction added, in hartree/e^2.
        gamma3: (B, S, S) in hartree/e^3, or None at second order.
        same_atom: (S, S) 1 for centres of one atom, else 0; None where atoms are the centres.
    """

    potential: torch.Tensor
    kernel: torch.Tensor
    gamma3: torch.Tensor | None
    same_atom: torch.Tensor | None = None

    def select(self, rows: torch.Tensor) -> ChargeEnergy:
        """Take some structures of the batch."""
        gamma3 = None if self.gamma3 is None else self.gamma3[rows]
        return ChargeEnergy(self.potential[rows], self.kernel[rows], gamma3, self.same_atom)

    def energy(self, charges: torch.Tensor) -> torch.Tensor:
        """Return E (B,) for charges (B, S)."""
        result = (charges * (self.potential + 0.5 * _apply(self.kernel, charges))).sum(-1)
        if self.gamma3 is not None:
            weights = charges * self._of_atom(charges)
            result = result - (weights * _apply(self.gamma3, charges)).sum(-1) / 3.0
        return result

    def slope(self, charges: torch.Tensor) -> torch.Tensor:
        """Return dE/dq (B, S)."""
        result = self.potential + _apply(self.kernel, charges)
        if self.gamma3 is None:
            return result
        atoms, field = self._of_atom(charges), _apply(self.gamma3, charges)
        mixed = atoms * field + self._of_atom(charges * field) + _apply(self.gamma3.mT, charges * atoms)
        return result.sub_(mixed, alpha=1.0 / 3.0)

    def hessian(self, charges: torch.Tensor) -> torch.Tensor:
        """Return d2E/dq2 (B, S, S)."""
        if self.gamma3 is None:
            return self.kernel
        field = torch.diag_embed(_apply(self.gamma3, charges))
        scaled = charges.unsqueeze(-1) * self.gamma3
        if self.same_atom is None:
            third = 2.0 * (field + scaled + scaled.mT)
        else:
            atoms = self._of_atom(charges).unsqueeze(-1) * self.gamma3
            half = field @ self.same_atom + atoms + self.same_atom @ scaled
            third = half + half.mT
        return self.kernel - third / 3.0

    def _of_atom(self, values: torch.Tensor) -> torch.Tensor:
        """Replace values (B, S) by their sums over the centres of an atom."""
        return values if self.same_atom is None else values @ self.same_atom


@dataclass(frozen=True)
class PopulationEnergy:
    """The energy of the electrons n (B, C, S) on the centres, for C = 1 (all) or C = 2 (up, down) spins.

    E(n) = charges(q) + 1/2 sum_xy m_x W_xy m_y with net charges q = Z - sum_s n_s and, for two spins,
    magnetisations m = n_up - n_down. W connects shells of one atom: Koehler, Seifert, Gerstmann, Elstner,
    Overhof, Frauenheim, PCCP 3, 5109 (2001); Koehler, Frauenheim, Hourahine, Seifert, Sternberg, J. Phys.
    Chem. A 111, 5622 (2007).

    Attributes:
        charges: the energy of the net charges.
        neutral: (S,) Z, the electrons of the neutral atoms.
        spin: (S, S) W in hartree, symmetric; None for closed shells.
    """

    charges: ChargeEnergy
    neutral: torch.Tensor
    spin: torch.Tensor | None = None

    def select(self, rows: torch.Tensor) -> PopulationEnergy:
        """Take some structures of the batch."""
        return PopulationEnergy(self.charges.select(rows), self.neutral, self.spin)

    def net_charges(self, populations: torch.Tensor) -> torch.Tensor:
        """Return q (B, S)."""
        return self.neutral - (populations[:, 0] if self.spin is None else populations.sum(1))

    def energy(self, populations: torch.Tensor) -> torch.Tensor:
        """Return E (B,)."""
        result = self.charges.energy(self.net_charges(populations))
        if self.spin is None:
            return result
        magnetisation = populations[:, 0] - populations[:, 1]
        return result + 0.5 * (magnetisation * (magnetisation @ self.spin)).sum(-1)

    def slope(self, populations: torch.Tensor) -> torch.Tensor:
        """Return dE/dn (B, C, S)."""
        result = -self.charges.slope(self.net_charges(populations)).unsqueeze(1)
        if self.spin is None:
            return result
        exchange = (populations[:, 0] - populations[:, 1]) @ self.spin
        return result + torch.stack((exchange, -exchange), dim=1)

    def hessian(self, populations: torch.Tensor) -> torch.Tensor:
        """Return d2E/dn2 (B, C S, C S)."""
        coulomb = self.charges.hessian(self.net_charges(populations))
        if self.spin is None:
            return coulomb
        like, unlike = coulomb + self.spin, coulomb - self.spin
        return torch.cat((torch.cat((like, unlike), -1), torch.cat((unlike, like), -1)), -2)


def _apply(matrix: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    return torch.bmm(matrix, vector.unsqueeze(-1)).squeeze(-1)
