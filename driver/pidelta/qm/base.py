"""The contract between a quantum-mechanical engine and the rest of pidelta."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from pidelta.errors import SetupError
from pidelta.state import BoolArray, FloatArray, IntArray

PropertyName = Literal[
    "orbital_energies", "occupations", "homo", "lumo", "gap", "spin_populations", "entropy_term"
]
"""Results on request: energies in hartree, populations in electrons, as in `Orbitals` and `QMResult`."""


@dataclass(frozen=True)
class Orbitals:
    """Orbitals of B structures in C channels: one for closed shells, two (spin up, spin down) else.

    Attributes:
        energies: (B, C, N) in hartree, ascending.
        occupations: (B, C, N) electrons, up to 2 for closed shells and up to 1 else.
    """

    energies: FloatArray
    occupations: FloatArray

    @property
    def homo(self) -> FloatArray:
        """(B,) energy of the highest orbital that is at least half full, nan if there is none."""
        return _finite(np.where(self._filled, self.energies, -np.inf).max(axis=(1, 2)))

    @property
    def lumo(self) -> FloatArray:
        """(B,) energy of the lowest orbital that is less than half full, nan if there is none."""
        return _finite(np.where(self._filled, np.inf, self.energies).min(axis=(1, 2)))

    @property
    def gap(self) -> FloatArray:
        """(B,) LUMO less HOMO in hartree."""
        return self.lumo - self.homo

    @property
    def _filled(self) -> BoolArray:
        return np.asarray(self.occupations * self.occupations.shape[1] >= 1.0)


@dataclass(frozen=True)
class QMResult:
    """Energies and derivatives of B structures of n QM atoms in an external potential.

    Attributes:
        energy: (B,) in hartree, with the interaction with the potential included.
        gradient: (B, n, 3) dE/dR in hartree/bohr at fixed values of the potential.
        charges: (B, n) net charges in e; they are dE/d(potential).
        iterations: (B,) SCC iterations done, 0 if the engine does not say.
        fallbacks: (B,) whether the SCC needed more than its usual method, or None if the engine does not say.
        spin_populations: (B, n) electrons of spin up less those of spin down, or None as above.
        entropy_term: (B,) -T S of the electrons in hartree, which is part of the energy, or None as above.
        orbitals: their energies and occupations, or None as above.
        embedding: ``electrostatic`` if the potential polarises the QM region, ``mechanical`` if it acts on
            fixed charges.
    """

    energy: FloatArray
    gradient: FloatArray
    charges: FloatArray
    iterations: IntArray
    fallbacks: BoolArray | None = None
    spin_populations: FloatArray | None = None
    entropy_term: FloatArray | None = None
    orbitals: Orbitals | None = None
    embedding: Literal["electrostatic", "mechanical"] = "electrostatic"

    def property(self, name: PropertyName) -> FloatArray:
        """Return a result on request, (B, ...).

        Raises:
            SetupError: the engine does not have it.
        """
        if name == "spin_populations":
            found = self.spin_populations
        elif name == "entropy_term":
            found = self.entropy_term
        else:
            found = None if self.orbitals is None else _orbital_property(self.orbitals, name)
        if found is None:
            raise SetupError(f"qm.properties: expected what the engine has, found {name}")
        return found


def _orbital_property(orbitals: Orbitals, name: PropertyName) -> FloatArray:
    if name == "orbital_energies":
        return orbitals.energies
    if name == "occupations":
        return orbitals.occupations
    return {"homo": orbitals.homo, "lumo": orbitals.lumo, "gap": orbitals.gap}[name]


def _finite(values: FloatArray) -> FloatArray:
    return np.where(np.isfinite(values), values, np.nan)


class QMEngine(Protocol):
    """A method that evaluates QM structures in an external electrostatic potential."""

    @property
    def numbers(self) -> IntArray:
        """(n,) atomic numbers of the QM region."""

    @property
    def identity(self) -> str:
        """The method and a hash of its parameters: models remember which one they were trained on."""

    @property
    def program(self) -> str:
        """The program that evaluates the method, with its version, for reports."""

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
