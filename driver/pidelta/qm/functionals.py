"""Functionals and bases by the names that PySCF has for them, checked before any work."""

from __future__ import annotations

import importlib
import re
import warnings
from typing import Any

from ase.data import chemical_symbols

from pidelta.errors import MissingExtraError, SettingError
from pidelta.state import IntArray

# PySCF has them without the dispersion that is a part of them.
_FITTED_WITH_DISPERSION = re.compile(r"(b97x?|oblyp|opbe|opwlyp|otpss|ssb|cf22)d[34]?\b|3c$")


def check_basis(key: str, basis: str, numbers: IntArray) -> None:
    """See that PySCF has a basis for elements.

    Args:
        key: the setting that names it.
        basis: its name.
        numbers: (n,) atomic numbers.

    Raises:
        SettingError: it has none.
    """
    gto = importlib.import_module("pyscf.gto")
    for symbol in sorted({chemical_symbols[number] for number in numbers}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PySCF advises to install further packages
            try:
                gto.basis.load(basis, symbol)
            except (KeyError, RuntimeError):
                raise SettingError(
                    key, f"expected one that PySCF has for {symbol}, found {basis!r}"
                ) from None


def checked_functional(name: str, dispersion: str | None) -> str:
    """A functional as PySCF names it, one that lacks no correction and whose dispersion is not counted twice.

    Args:
        name: of the functional.
        dispersion: what is added, ``d3bj`` or ``d4``.

    Raises:
        SettingError: PySCF does not know it, or it asks for another dispersion or other corrections.
    """
    dft = importlib.import_module("pyscf.dft")
    xc = _functional(dft, name)
    plain = re.sub("[-_]", "", xc.lower())
    if (
        re.search("-d[34]", xc.lower())
        or _FITTED_WITH_DISPERSION.search(plain)
        or dft.numint.NumInt()._xc_type(xc) == "HF"
    ):
        raise SettingError(
            "xc", f"expected a functional without dispersion in its name, or r2SCAN-3c, found {name!r}"
        )
    if dft.libxc.is_nlc(xc) and dispersion != "d3bj":
        raise SettingError(
            "dispersion", f"expected d3bj, which replaces VV10 of {xc}, found {dispersion or 'none'}"
        )
    return xc


def has_exchange(name: str) -> bool:
    """Whether a functional has exact exchange.

    Raises:
        MissingExtraError: PySCF is not installed.
        SettingError: PySCF does not know it.
    """
    try:
        dft = importlib.import_module("pyscf.dft")
    except ImportError:
        raise MissingExtraError("pyscf", "label", "a DFT label") from None
    _, long_range, short_range = dft.numint.NumInt().rsh_and_hybrid_coeff(_functional(dft, name), 0)
    return bool(long_range or short_range)


def _functional(dft: Any, name: str) -> str:
    """A functional as PySCF names it, known to it."""
    xc = "B3LYPG" if name.upper() == "B3LYP" else name
    try:
        dft.libxc.parse_xc(xc)
    except (KeyError, ValueError):
        raise SettingError("xc", f"expected a functional that PySCF has, found {name!r}") from None
    return xc
