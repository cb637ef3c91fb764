"""The contract between a quantum-mechanical engine and the rest of pidelta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from pidelta.errors import SettingError
from pidelta.state import FloatArray, IntArray

EmbeddingKind = Literal["electrostatic", "mechanical"]

ALWAYS_REPORTED = ("scc_iterations", "scc_fallbacks")
"""Properties that say how an evaluation went, and so are reported without being asked for."""


@dataclass(frozen=True)
class QMResult:
    """Energies and derivatives of B structures of n QM atoms in an external potential.

    Attributes:
        energy: (B,) in hartree, with the interaction with the potential included.
        gradient: (B, n, 3) dE/dR in hartree/bohr at fixed values of the potential.
        charges: (B, n) net charges in e; they are dE/d(potential).
        properties: what else the engine gives, by the names in `QMEngine.properties`, each (B, ...), energies
            in hartree. These names mean the same for all engines:
            ``orbital_energies`` and ``occupations`` (B, C, N) of one channel (closed shells, up to 2
            electrons an orbital) or of spin up and spin down (up to 1); ``homo``, ``lumo``, ``gap`` (B,);
            ``spin_populations`` (B, n), electrons of spin up less those of spin down; ``entropy_term`` (B,),
            -T S of the electrons, which is part of the energy; ``scc_iterations`` (B,); ``scc_fallbacks``
            (B,), 1 where the SCC needed more than its usual method.
    """

    energy: FloatArray
    gradient: FloatArray
    charges: FloatArray
    properties: Mapping[str, FloatArray] = field(default_factory=dict)

    def first(self, count: int) -> QMResult:
        """The results of the first structures."""
        properties = {name: values[:count] for name, values in self.properties.items()}
        return QMResult(self.energy[:count], self.gradient[:count], self.charges[:count], properties)


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

    @property
    def embedding(self) -> EmbeddingKind:
        """Whether the potential polarises the QM region (electrostatic) or acts on fixed charges."""

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of all properties of its results."""

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


def reported_properties(engine: QMEngine, asked_for: Sequence[str]) -> tuple[str, ...]:
    """Names of the properties to report: those asked for, and how the evaluation went.

    Raises:
        SettingError: the engine does not give one of them.
    """
    unknown = [name for name in asked_for if name not in engine.properties]
    if unknown:
        known = ", ".join(engine.properties)
        given = f"some of {known}, which the engine gives" if known else "none, as the engine gives none"
        raise SettingError("properties", f"expected {given}, found {unknown[0]!r}")
    always = (name for name in ALWAYS_REPORTED if name in engine.properties)
    return tuple(dict.fromkeys((*always, *asked_for)))


def orbital_properties(energies: FloatArray, occupations: FloatArray) -> dict[str, FloatArray]:
    """Properties of orbitals in C channels: one for closed shells, two (spin up, spin down) else.

    The HOMO is the highest orbital that is at least half full, the LUMO the lowest one of the others.

    Args:
        energies: (B, C, N) in hartree.
        occupations: (B, C, N) electrons, up to 2 for closed shells and up to 1 else.

    Returns:
        The arrays given, and ``homo``, ``lumo`` and ``gap`` (B,) in hartree, nan without such an orbital.
    """
    filled = occupations * occupations.shape[1] >= 1.0
    homo = _finite(np.where(filled, energies, -np.inf).max(axis=(1, 2)))
    lumo = _finite(np.where(filled, np.inf, energies).min(axis=(1, 2)))
    return {
        "orbital_energies": energies,
        "occupations": occupations,
        "homo": homo,
        "lumo": lumo,
        "gap": lumo - homo,
    }


def _finite(values: FloatArray) -> FloatArray:
    return np.where(np.isfinite(values), values, np.nan)
