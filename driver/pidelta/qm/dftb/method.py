"""DFTB as a user chooses it: which parameters, and what comes with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from pidelta.errors import SettingError
from pidelta.qm.base import QMEngine
from pidelta.qm.dftb.parameters import (
    PUBLISHED_DAMPING_EXPONENTS,
    PUBLISHED_HUBBARD_DERIVATIVES,
    ParameterSet,
    load_parameters,
)
from pidelta.qm.dftb.sets import SetFiles, builtin_set
from pidelta.qm.dftb.settings import DFTBSettings
from pidelta.qm.dispersion import (
    PUBLISHED_DAMPING,
    TITLES,
    Damping,
    Dispersion,
    DispersionCorrected,
    DispersionMethod,
)
from pidelta.state import IntArray


@dataclass(frozen=True)
class DispersionSettings:
    """Dispersion among the QM atoms.

    Attributes:
        method: ``d3bj`` or ``d4``.
        damping: its parameters, or the name of the Slater-Koster set or functional they are published for;
            None: those of the parameters in use.
    """

    method: DispersionMethod
    damping: Damping | str | None = None


@dataclass(frozen=True)
class MethodInputs:
    """What an engine is made from, for the elements of one molecule.

    Attributes:
        parameters: the Slater-Koster set.
        files: where it comes from.
        settings: with all that belongs to the set filled in.
    """

    parameters: ParameterSet
    files: Path | SetFiles
    settings: DFTBSettings


@dataclass(frozen=True)
class DFTBMethod:
    """Settings, and where their gaps are filled from: the built-in set, or a published one by its name.

    Attributes:
        settings: Hubbard derivatives, the damping exponent and spin constants may be left out.
        folder: of .skf files; None: the built-in set.
        published: name of the set whose Hubbard derivatives and damping exponent go with the parameters, as
            .skf files do not hold them; None: what the built-in set says, or none.
        dispersion: added to the energy, if any.
    """

    settings: DFTBSettings
    folder: Path | None = None
    published: str | None = None
    dispersion: DispersionSettings | None = None

    def inputs(self, numbers: IntArray) -> MethodInputs:
        """Read the parameters of atoms (n,) and complete the settings.

        Raises:
            ParameterError: the set lacks a file or an element, or a file is malformed.
            SettingError: the set does not go with the settings, or a name is unknown.
        """
        elements = sorted({chemical_symbols[number] for number in np.unique(numbers)})
        settings = self._with_published()
        _check_symbols("hubbard_derivatives", settings.hubbard_derivatives or {})
        _check_symbols("spin_constants", settings.spin_constants or {})
        if self.folder is not None:
            return MethodInputs(load_parameters(self.folder, elements), self.folder, settings)
        files = _builtin(settings.order)
        description = files.description
        settings = replace(
            settings,
            hubbard_derivatives=settings.hubbard_derivatives or description.hubbard_derivatives,
            damping_exponent=settings.damping_exponent or description.damping_exponent,
            spin_constants=settings.spin_constants or description.spin_constants,
        )
        return MethodInputs(files.parameters(elements), files, settings)

    def with_dispersion(self, engine: QMEngine) -> QMEngine:
        """Add the dispersion of its atoms to an engine, if there is any.

        Raises:
            SettingError: there is no published damping for the parameters.
            SetupError: an element has no dispersion parameters, or a package is missing.
        """
        if self.dispersion is None:
            return engine
        method, charge = self.dispersion.method, self.settings.charge
        return DispersionCorrected(engine, Dispersion(engine.numbers, method, self._damping(), charge))

    def _with_published(self) -> DFTBSettings:
        """Settings with the Hubbard derivatives and the damping exponent of the published set."""
        name = self.published
        if name is None:
            return self.settings
        if name not in PUBLISHED_HUBBARD_DERIVATIVES:
            known = ", ".join(PUBLISHED_HUBBARD_DERIVATIVES)
            raise SettingError("hubbard_derivatives", f"expected values or {known}, found {name!r}")
        return replace(
            self.settings,
            hubbard_derivatives=PUBLISHED_HUBBARD_DERIVATIVES[name],
            damping_exponent=self.settings.damping_exponent or PUBLISHED_DAMPING_EXPONENTS[name],
        )

    def _damping(self) -> Damping:
        """Parameters of the dispersion: as given, or those published for the Slater-Koster set."""
        assert self.dispersion is not None
        method, damping = self.dispersion.method, self.dispersion.damping
        if isinstance(damping, Damping):
            return damping
        if damping is None and self.folder is None:
            functional = _builtin(self.settings.order).description.dispersion
            if method == "d3bj" and functional is not None:
                return Damping(**functional.model_dump())
            damping = "b3lyp"  # of the labels behind the repulsives
        name, published = damping or self.published, PUBLISHED_DAMPING[method]
        if name is None or name not in published:
            raise SettingError(
                "dispersion.damping",
                f"expected s8, a1 and a2, or one of {', '.join(published)} as published for "
                f"{TITLES[method]}, found {name or 'none'}",
            )
        return published[name]


def _builtin(order: int) -> SetFiles:
    orders = builtin_set()
    if not orders:
        raise SettingError(
            "parameters", "expected a folder of .skf files; the built-in set is not in this version"
        )
    if order not in orders:
        known = " or ".join(map(str, orders))
        raise SettingError("order", f"expected {known} with the built-in parameters, found {order}")
    return orders[order]


def _check_symbols(quantity: str, symbols: Iterable[str]) -> None:
    """A value under a name that is no element would never be used."""
    for symbol in symbols:
        if symbol not in chemical_symbols[1:]:
            raise SettingError(quantity, f"expected symbols of elements, such as H or Cl, found {symbol!r}")
