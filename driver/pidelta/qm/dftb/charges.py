"""The part of the DFTB energy that depends on the charges of the atoms alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ChargeEnergy:
    """E(q) = sum_A phi_A q_A + 1/2 sum_AB q_A kernel_AB q_B - 1/3 sum_AB q_A^2 q_B gamma3_AB.

    q are net charges. Gaus, Cui, Elstner, JCTC 7, 931 (2011), equation 25, is in terms of dq = -q.

    Attributes:
        potential: (B, n) phi in hartree/e.
        kernel: (B, n, n) gamma, with the Coulomb correction added, in hartree/e^2.
        gamma3: (B, n, n) in hartree/e^3, or None at second order.
    """

    potential: torch.Tensor
    kernel: torch.Tensor
    gamma3: torch.Tensor | None

    def select(self, rows: torch.Tensor) -> ChargeEnergy:
        """Take some structures of the batch."""
        gamma3 = None if self.gamma3 is None else self.gamma3[rows]
        return ChargeEnergy(self.potential[rows], self.kernel[rows], gamma3)

    def energy(self, charges: torch.Tensor) -> torch.Tensor:
        """Return E (B,) for charges (B, n)."""
        result = (charges * (self.potential + 0.5 * _apply(self.kernel, charges))).sum(-1)
        if self.gamma3 is not None:
            result = result - (charges**2 * _apply(self.gamma3, charges)).sum(-1) / 3.0
        return result

    def slope(self, charges: torch.Tensor) -> torch.Tensor:
        """Return dE/dq (B, n)."""
        result = self.potential + _apply(self.kernel, charges)
        if self.gamma3 is not None:
            mixed = 2.0 * charges * _apply(self.gamma3, charges) + _apply(self.gamma3.mT, charges**2)
            result = result - mixed / 3.0
        return result

    def hessian(self, charges: torch.Tensor) -> torch.Tensor:
        """Return d2E/dq2 (B, n, n)."""
        if self.gamma3 is None:
            return self.kernel
        scaled = charges.unsqueeze(-1) * self.gamma3
        third = torch.diag_embed(_apply(self.gamma3, charges)) + scaled + scaled.mT
        return self.kernel - 2.0 / 3.0 * third


def _apply(matrix: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
