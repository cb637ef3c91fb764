"""Composite methods: a functional with the basis, dispersion and counterpoise correction made for it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pidelta.errors import MissingExtraError
from pidelta.qm.dispersion import Damping, DispersionMethod
from pidelta.state import FloatArray, IntArray


@dataclass(frozen=True)
class Composite:
    """A composite method; no part of it is a matter of choice.

    Attributes:
        name: as publications and labels have it.
        functional: as PySCF names it.
        basis: as PySCF names it.
        dispersion: the kind of dispersion.
        damping: its parameters.
        charge_scaling: ga and gc of D4; see `pidelta.qm.dispersion.Dispersion`.
        counterpoise: the geometrical counterpoise correction as the package ``dftd3`` names it.
    """

    name: str
    functional: str
    basis: str
    dispersion: DispersionMethod
    damping: Damping
    charge_scaling: tuple[float, float]
    counterpoise: str


COMPOSITES: Mapping[str, Composite] = {
    "r2scan3c": Composite(
        name="r2SCAN-3c",
        functional="r2SCAN",
        basis="def2-mTZVPP",
        dispersion="d4",
        damping=Damping(s8=0.0, a1=0.42, a2=5.65, s9=2.0),
        charge_scaling=(2.0, 1.0),
        counterpoise="r2scan3c",
    )
}
"""By `plain` name. r2SCAN-3c: Grimme, Hansen, Ehlert, Mewes, J. Chem. Phys. 154, 064103 (2021).

The interface of dftd4 has a1 and a2 under its name, but leaves s9 at 1 and the charge scaling of other
methods; only its program sets 2, 2 and 1. With these D4 is that of ORCA 6.1.
"""


def plain(name: str) -> str:
    """A name of a method or basis without what is often written in more than one way."""
    return name.lower().replace("-", "").replace("_", "")


class Counterpoise:
    """The geometrical counterpoise correction (gCP) of an isolated molecule, by its geometry alone.

    Kruse and Grimme, J. Chem. Phys. 136, 154101 (2012), from the package ``dftd3``.

    Args:
        numbers: (n,) atomic numbers.
        method: as the package names it. It returns 0 for names that it does not know.

    Raises:
        MissingExtraError: the package is not installed.
    """

    def __init__(self, numbers: IntArray, method: str) -> None:
        self._interface = load_counterpoise()
        self._numbers = numbers
        self._method = method

    def evaluate(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Energies (B,) in hartree and gradients (B, n, 3) in hartree/bohr of positions (B, n, 3) in bohr."""
        energies = np.zeros(len(positions))
        gradients = np.zeros(positions.shape)
        for row, geometry in enumerate(positions):
            model = self._interface.GeometricCounterpoise(self._numbers, geometry, method=self._method)
            result = model.get_counterpoise(grad=True)
            energies[row], gradients[row] = result["energy"], result["gradient"]
        return energies, gradients


def load_counterpoise() -> Any:
    """Import the interface of the package behind gCP.

    Raises:
        MissingExtraError: it is not installed, or too old to have gCP.
    """
    try:
        interface = importlib.import_module("dftd3.interface")
        _ = interface.GeometricCounterpoise
    except (ImportError, AttributeError):
        raise MissingExtraError("dftd3, 1.3 or later", "dispersion", "a counterpoise correction") from None
    return interface
