"""D3(BJ) and D4 dispersion: added to the energies of a QM engine, and to DFT labels."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from ase.data import chemical_symbols

from pidelta.errors import MissingExtraError, SetupError
from pidelta.qm.base import EmbeddingKind, QMEngine, QMResult
from pidelta.state import FloatArray, IntArray

DispersionMethod = Literal["d3bj", "d4"]

_PACKAGES: Mapping[DispersionMethod, str] = {"d3bj": "dftd3", "d4": "dftd4"}
_HEAVIEST = 103  # both packages return zero, or worse, beyond Lr


@dataclass(frozen=True)
class Damping:
    """Parameters of the rational (Becke-Johnson) damping of dispersion.

    Attributes:
        s8: scale of the 1/R^8 terms.
        a1: of the damping radius a1 R0 + a2.
        a2: in bohr.
        s6: scale of the 1/R^6 terms.
        s9: scale of the Axilrod-Teller-Muto three-body terms; 0 leaves them out.
    """

    s8: float
    a1: float
    a2: float
    s6: float = 1.0
    s9: float = 0.0

    def __str__(self) -> str:
        return " ".join(f"{name}={getattr(self, name):g}" for name in ("s6", "s8", "s9", "a1", "a2"))


PUBLISHED_DAMPING: Mapping[DispersionMethod, Mapping[str, Damping]] = {
    "d3bj": {
        "3ob": Damping(s8=3.209, a1=0.746, a2=4.191),
        "b3lyp": Damping(s8=1.9889, a1=0.3981, a2=4.4211),
        "blyp": Damping(s8=2.6996, a1=0.4298, a2=4.2359),
        "pbe": Damping(s8=0.7875, a1=0.4289, a2=4.4407),
        "pbe0": Damping(s8=1.2177, a1=0.4145, a2=4.8593),
        "revpbe": Damping(s8=2.3550, a1=0.5238, a2=3.5016),
        "bp86": Damping(s8=3.2822, a1=0.3946, a2=4.8516),
        "tpss": Damping(s8=1.9435, a1=0.4535, a2=4.4752),
        "tpssh": Damping(s8=2.2382, a1=0.4529, a2=4.6550),
        "r2scan": Damping(s8=0.78981345, a1=0.49484001, a2=5.73083694),
        "wb97x_v": Damping(s8=0.2641, a1=0.0, a2=5.4959),
        "wb97m_v": Damping(s8=0.3908, a1=0.5660, a2=3.1280),
    },
    "d4": {
        "3ob": Damping(s8=0.6635015, a1=0.5523240, a2=4.3537076, s9=1.0),
        "mio": Damping(s8=1.2916225, a1=0.5965326, a2=4.8778602, s9=1.0),
        "matsci": Damping(s8=3.3157614, a1=0.4826330, a2=5.3811976, s9=1.0),
        "pbc": Damping(s8=2.1667394, a1=0.5646391, a2=4.9576353, s9=1.0),
        "b3lyp": Damping(s8=2.02929367, a1=0.40868035, a2=4.53807137, s9=1.0),
        "pbe": Damping(s8=0.95948085, a1=0.38574991, a2=4.80688534, s9=1.0),
        "pbe0": Damping(s8=1.20065498, a1=0.40085597, a2=5.02928789, s9=1.0),
        "tpss": Damping(s8=1.76596355, a1=0.42822303, a2=4.54257102, s9=1.0),
        "r2scan": Damping(s8=0.60187490, a1=0.51559235, a2=5.77342911, s9=1.0),
    },
}
"""Published parameters by method and by Slater-Koster set or functional; three-body terms as published.

D3(BJ), two-body: functionals of Grimme, Ehrlich, Goerigk, J. Comput. Chem. 32, 1456 (2011), r2SCAN of
Ehlert et al., J. Chem. Phys. 154, 061101 (2021), wB97X-V and wB97M-V, whose VV10 it replaces, of Najibi
and Goerigk, JCTC 14, 5725 (2018); 3ob as the set itself says (3ob-3-1, README, for zeta = 4.00; also
Kubillus et al., JCTC 11, 332 (2015)). s-dftd3's ``dftb3`` is another fit, for zeta = 4.2 (Brandenburg,
Grimme, J. Phys. Chem. Lett. 5, 1785 (2014)). D4, with three-body terms: functionals of Caldeweyher et
al., J. Chem. Phys. 150, 154122 (2019), and r2SCAN of Ehlert et al.; Slater-Koster sets of Hourahine et
al., J. Chem. Phys. 152, 124101 (2020).
"""

DEFAULT_S9: Mapping[DispersionMethod, float] = {"d3bj": 0.0, "d4": 1.0}
"""Published parameters of D3(BJ) are for two-body terms, those of D4 for three-body terms as well."""

TITLES: Mapping[DispersionMethod, str] = {"d3bj": "D3(BJ)", "d4": "D4"}


class Dispersion:
    """The dispersion energy of an isolated molecule; a function of its geometry alone.

    D3: Grimme et al., J. Chem. Phys. 132, 154104 (2010), from the package ``dftd3``; D4: Caldeweyher et al.,
    J. Chem. Phys. 150, 154122 (2019), from the package ``dftd4``. D4 takes the total charge for its
    partial charges by electronegativity equilibration; D3 knows no charge.

    Args:
        numbers: (n,) atomic numbers.
        method: ``d3bj`` or ``d4``.
        damping: its parameters.
        charge: total charge in e.
        charge_scaling: ga and gc of D4, height and steepness of how polarisabilities scale with charges.

    Raises:
        MissingExtraError: the package is not installed.
        SetupError: an element has no parameters.
    """

    def __init__(
        self,
        numbers: IntArray,
        method: DispersionMethod,
        damping: Damping,
        charge: int = 0,
        charge_scaling: tuple[float, float] = (3.0, 2.0),
    ) -> None:
        interface = load_package(method)
        outside = numbers[(numbers < 1) | (numbers > _HEAVIEST)]
        if len(outside):
            raise SetupError(
                f"{TITLES[method]} dispersion: expected elements up to "
                f"{chemical_symbols[_HEAVIEST]}, found atomic number {outside[0]}"
            )
        self.name = f"{TITLES[method]} {damping}"
        self.program = f"{_PACKAGES[method]} {version(_PACKAGES[method])}"
        # The coefficients depend on the elements only; any geometry without coinciding atoms will do.
        apart = 10.0 * np.arange(3 * len(numbers), dtype=np.float64).reshape(-1, 3)
        parameters = {
            "s6": damping.s6,
            "s8": damping.s8,
            "s9": damping.s9,
            "a1": damping.a1,
            "a2": damping.a2,
        }
        if method == "d3bj":
            self._model = interface.DispersionModel(numbers, apart)
            self._parameters = interface.RationalDampingParam(**parameters)
        else:
            ga, gc = charge_scaling
            self._model = interface.DispersionModel(numbers, apart, charge=float(charge), ga=ga, gc=gc)
            self._parameters = interface.DampingParam(**parameters)

    def evaluate(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Energies (B,) in hartree and gradients (B, n, 3) in hartree/bohr of positions (B, n, 3) in bohr."""
        energies = np.zeros(len(positions))
        gradients = np.zeros(positions.shape)
        for row, geometry in enumerate(positions):
            self._model.update(geometry)
            result = self._model.get_dispersion(self._parameters, grad=True)
            energies[row], gradients[row] = result["energy"], result["gradient"]
        return energies, gradients


class DispersionCorrected:
    """Another engine with the dispersion of the QM region added (a `pidelta.qm.base.QMEngine`).

    Dispersion between QM and MM atoms is part of the force field's Lennard-Jones terms.

    Args:
        engine: the engine without dispersion.
        dispersion: that of the same atoms.
    """

    def __init__(self, engine: QMEngine, dispersion: Dispersion) -> None:
        self._engine = engine
        self._dispersion = dispersion

    @property
    def numbers(self) -> IntArray:
        """(n,) atomic numbers."""
        return self._engine.numbers

    @property
    def identity(self) -> str:
        """That of the engine, and the method and parameters of the dispersion."""
        return f"{self._engine.identity} + {self._dispersion.name}"

    @property
    def program(self) -> str:
        """The programs that evaluate the method, with their versions, for reports."""
        return f"{self._engine.program}, {self._dispersion.program}"

    @property
    def embedding(self) -> EmbeddingKind:
        """That of the engine."""
        return self._engine.embedding

    @property
    def properties(self) -> tuple[str, ...]:
        """Those of the engine."""
        return self._engine.properties

    def evaluate(
        self, positions: FloatArray, potential: FloatArray, coulomb_correction: FloatArray | None = None
    ) -> QMResult:
        """Evaluate a batch; see `pidelta.qm.base.QMEngine.evaluate` for shapes, units and errors."""
        result = self._engine.evaluate(positions, potential, coulomb_correction)
        energy, gradient = self._dispersion.evaluate(positions)
        return replace(result, energy=result.energy + energy, gradient=result.gradient + gradient)


def load_package(method: DispersionMethod) -> Any:
    """Import the interface of the package behind a method.

    Raises:
        MissingExtraError: it is not installed.
    """
    package = _PACKAGES[method]
    try:
        return importlib.import_module(f"{package}.interface")
    except ImportError:
        raise MissingExtraError(package, "dispersion", f"{TITLES[method]} dispersion") from None
