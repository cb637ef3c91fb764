"""The contract between a quantum-mechanical engine and the rest of pidelta."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from pidelta.state import FloatArray, IntArray


@dataclass(frozen=True)
class QMResult:
    """Energies and derivatives of B structures of n QM atoms in an external potential.

    Attributes:
        energy: (B,) in hartree, with the interaction with the potential included.
        gradient: (B, n, 3) dE/dR in hartree/bohr at fixed values of the potential.
        charges: (B, n) net charges in e; they are dE/d(potential).
        iterations: (B,) SCC iterations done, 0 if the engine does not say.
        embedding: ``electrostatic`` if the potential polarises the QM region, ``mechanical`` if it acts on
            fixed charges.
    """

    energy: FloatArray
    gradient: FloatArray
    charges: FloatArray
    iterations: IntArray
    embedding: Literal["electrostatic", "mechanical"] = "electrostatic"


class QMEngine(Protocol):
    """A method that evaluates QM structures in an external electrostatic potential."""

    @property
    def numbers(self) -> IntArray:
        """(n,) atomic numbers of the QM region."""

    @property
    def identity(self) -> str:
        """The method and a hash of its parameters: models remember which one they were trained on."""

    def evaluate(
        self, positions: FloatArray, potential: FloatArray, coulomb_correction: FloatArray | None = None
    ) -> QMResult:
        """Evaluate a batch.

        Args:
            positions: (B, n, 3) in bohr.
            potential: (B, n) external potential at the nuclei in hartree/e.
            coulomb_correction: (B, n, n) symmetric K in hartree/e^2; adds 1/2 sum_AB q_A K_AB q_B to the
                energy (the interaction with the periodic images of the QM region).

        Raises:
            SCCConvergenceError: the charges did not converge.
            GeometryError: positions are not finite, or atoms coincide.
        """
