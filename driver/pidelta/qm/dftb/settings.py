"""The settings of a DFTB calculation, the same for the built-in engine and DFTB+."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pidelta.errors import SettingError

Start = Literal["none", "previous", "extrapolated"]

SpinConstants = Mapping[str, float | Sequence[Sequence[float]]]
"""W by element in hartree: a matrix by the shells s, p, d, or one number for all of them."""


@dataclass(frozen=True)
class SCCSettings:
    """How charges become self-consistent.

    Attributes:
        tolerance: largest change of a population in the last SCC iteration, in e.
        max_iterations: most SCC iterations of one attempt.
        start: what the SCC of the built-in engine starts from, see `start.StartingPopulations`.
    """

    tolerance: float = 1e-8
    max_iterations: int = 100
    start: Start = "extrapolated"

    def __post_init__(self) -> None:
        if not 0.0 < self.tolerance < math.inf:
            raise SettingError("scc.tolerance", f"expected a finite number above 0, found {self.tolerance}")
        if self.max_iterations < 1:
            raise SettingError("scc.max_iterations", f"expected 1 or more, found {self.max_iterations}")


@dataclass(frozen=True)
class DFTBSettings:
    """The method, and the charge and spin of the molecule.

    DFTB2: Elstner et al., Phys. Rev. B 58, 7260 (1998); DFTB3: Gaus, Cui, Elstner, JCTC 7, 931 (2011).

    Attributes:
        order: 2 or 3.
        hubbard_derivatives: dU/dq by element in hartree/e^3, for order 3.
        damping_exponent: zeta of the damping of gamma for pairs with hydrogen (4.00 for 3ob); None: none.
        shell_resolved: each shell has its own charge and U; else charges are those of atoms, with U of the s
            shell.
        charge: total charge in e.
        multiplicity: 2 S + 1.
        spin_polarised: whether spins have their own orbitals at a multiplicity above 1; if not, the
            electronic temperature must be above 0.
        spin_constants: by element, for spin polarisation.
        electronic_temperature: k_B T in hartree. Above 0 the energy is the Mermin free energy.
        scc: how charges become self-consistent.
        device: the torch device of the built-in engine.

    Raises:
        SettingError: a number is out of range, or settings contradict each other.
    """

    order: int = 2
    hubbard_derivatives: Mapping[str, float] | None = None
    damping_exponent: float | None = None
    shell_resolved: bool = False
    charge: int = 0
    multiplicity: int = 1
    spin_polarised: bool = True
    spin_constants: SpinConstants | None = None
    electronic_temperature: float = 0.0
    scc: SCCSettings = SCCSettings()
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.order not in (2, 3):
            raise SettingError("order", f"expected 2 or 3, found {self.order}")
        if self.damping_exponent is not None and not 0.0 < self.damping_exponent < math.inf:
            raise SettingError(
                "damping_exponent", f"expected a finite number above 0, found {self.damping_exponent}"
            )
        if not 0.0 <= self.electronic_temperature < math.inf:
            raise SettingError(
                "electronic_temperature",
                f"expected a finite temperature of 0 or more, found {self.electronic_temperature} hartree",
            )
        if self.multiplicity > 1 and not self.spin_polarised and self.electronic_temperature == 0.0:
            raise SettingError(
                "spin_polarised",
                f"false with a multiplicity of {self.multiplicity} needs an electronic temperature above 0, "
                "found 0",
            )

    @property
    def has_two_spins(self) -> bool:
        """Whether spin up and spin down have their own orbitals."""
        return self.multiplicity > 1 and self.spin_polarised
