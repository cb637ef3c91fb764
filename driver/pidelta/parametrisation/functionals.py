"""Exchange and correlation of closed-shell densities, through libxc as PySCF brings it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pidelta.errors import MissingExtraError
from pidelta.state import FloatArray

FunctionalName = Literal["LDA", "PBE"]

# LDA: Slater exchange, correlation of Vosko, Wilk, Nusair, Can. J. Phys. 58, 1200 (1980), their formula V;
# PBE: Perdew, Burke, Ernzerhof, Phys. Rev. Lett. 77, 3865 (1996).
_LIBXC_NAMES: dict[FunctionalName, str] = {"LDA": "LDA_X,LDA_C_VWN", "PBE": "GGA_X_PBE,GGA_C_PBE"}


@dataclass(frozen=True)
class ExchangeCorrelation:
    """Exchange and correlation at points, in atomic units.

    Attributes:
        energy: (n,) energy per electron.
        by_density: (n,) derivative of the energy density with respect to the density.
        by_gradient: (n,) derivative with respect to the squared density gradient; zero for LDA.
    """

    energy: FloatArray
    by_density: FloatArray
    by_gradient: FloatArray


class Functional:
    """A local or semilocal functional of closed-shell densities.

    Args:
        name: ``LDA`` (Slater, VWN5) or ``PBE``.

    Raises:
        MissingExtraError: PySCF is not installed.
    """

    def __init__(self, name: FunctionalName) -> None:
        try:
            self._libxc: Any = importlib.import_module("pyscf.dft.libxc")
        except ModuleNotFoundError:
            raise MissingExtraError("pyscf", "slater-koster", "generating Slater-Koster tables") from None
        self.name = name
        self._code = _LIBXC_NAMES[name]
        self.uses_gradient = name != "LDA"

    def evaluate(self, density: FloatArray, gradient_norm: FloatArray) -> ExchangeCorrelation:
        """Evaluate a density (n,) and the norm of its gradient (n,)."""
        if not self.uses_gradient:
            energy, derivatives = self._libxc.eval_xc(self._code, density, spin=0, deriv=1)[:2]
            return ExchangeCorrelation(energy, derivatives[0], np.zeros_like(density))
        zero = np.zeros_like(density)
        rho = np.stack([density, gradient_norm, zero, zero])
        energy, derivatives = self._libxc.eval_xc(self._code, rho, spin=0, deriv=1)[:2]
        return ExchangeCorrelation(energy, derivatives[0], derivatives[1])
