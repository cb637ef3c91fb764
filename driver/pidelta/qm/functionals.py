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

_ROUGH, _REGULARISED = re.compile("_(REV)?SCAN"), re.compile("_R2?SCAN")
_GRID, _FINE_GRID = 2, 3


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
    if dft.libxc.needs_laplacian(xc):
        raise SettingError(
            "xc", f"expected a functional without the Laplacian of the density, found {name!r}"
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
    dft = _pyscf_dft()
    _, long_range, short_range = dft.numint.NumInt().rsh_and_hybrid_coeff(_functional(dft, name), 0)
    return bool(long_range or short_range)


def default_grid(name: str) -> int:
    """PySCF's level of the integration grid that a functional needs.

    SCAN and revSCAN vary so fast in space that gradients of water are off by 4e-3 to 4e-2 hartree/bohr on
    levels 2 and 3, and by 1e-3 on level 6. r2SCAN and rSCAN, which are made against that, need level 3.

    Raises:
        MissingExtraError: PySCF is not installed.
        SettingError: PySCF does not know it, or no usual level is enough.
    """
    parts = _parts(name)
    if any(_ROUGH.search(part) for part in parts):
        raise SettingError(
            "grid_level",
            f"expected one for {name}, whose gradients are off by 1e-3 hartree/bohr even on level 6, found "
            "none; r2SCAN is smooth",
        )
    return _FINE_GRID if any(_REGULARISED.search(part) for part in parts) else _GRID


def _parts(name: str) -> set[str]:
    """The functionals that one is made of, as libxc names them."""
    dft = _pyscf_dft()
    _, parts = dft.libxc.parse_xc(_functional(dft, name))
    numbers = {number for number, _ in parts}
    return {known for known, number in dft.libxc.XC_CODES.items() if number in numbers}


def _pyscf_dft() -> Any:
    try:
        return importlib.import_module("pyscf.dft")
    except ImportError:
        raise MissingExtraError("pyscf", "label", "a DFT label") from None


def _functional(dft: Any, name: str) -> str:
    """A functional as PySCF names it, known to it."""
    xc = "B3LYPG" if name.upper() == "B3LYP" else name
    try:
        dft.libxc.parse_xc(xc)
    except (KeyError, ValueError):
        raise SettingError("xc", f"expected a functional that PySCF has, found {name!r}") from None
    return xc
