"""Conversions to and from atomic units, and quantities written with their unit.

Constants are CODATA 2018 (Tiesinga et al., Rev. Mod. Phys. 93, 025010 (2021)).
"""

from __future__ import annotations

import math
import re
import unicodedata

BOHR_IN_ANGSTROM = 0.529177210903
HARTREE_IN_EV = 27.211386245988
HARTREE_IN_KJ_PER_MOL = 2625.4996394799
HARTREE_IN_KCAL_PER_MOL = HARTREE_IN_KJ_PER_MOL / 4.184
HARTREE_IN_KELVIN = 315775.02480407
ATOMIC_TIME_IN_FEMTOSECOND = 0.024188843265857
DALTON_IN_ELECTRON_MASS = 1822.888486209

ANGSTROM = 1.0 / BOHR_IN_ANGSTROM
NANOMETER = 10.0 * ANGSTROM
EV = 1.0 / HARTREE_IN_EV
KJ_PER_MOL = 1.0 / HARTREE_IN_KJ_PER_MOL
KCAL_PER_MOL = 1.0 / HARTREE_IN_KCAL_PER_MOL
KELVIN = 1.0 / HARTREE_IN_KELVIN
WAVENUMBER = 1.0 / 219474.6313632  # as an energy, and as an angular frequency

FEMTOSECOND = 1.0 / ATOMIC_TIME_IN_FEMTOSECOND
PICOSECOND = 1000.0 * FEMTOSECOND

_UNITS: dict[str, dict[str, float]] = {
    "length": {
        "nm": NANOMETER,
        "angstrom": ANGSTROM,
        "A": ANGSTROM,
        "Å": ANGSTROM,
        "bohr": 1.0,
        "pm": 0.01 * ANGSTROM,
    },
    "temperature": {"K": KELVIN, "hartree": 1.0, "eV": EV},
    "angle": {"deg": math.pi / 180.0, "rad": 1.0},
    "time": {"fs": FEMTOSECOND, "ps": PICOSECOND, "ns": 1000.0 * PICOSECOND},
    "energy": {"hartree": 1.0, "eV": EV, "kJ/mol": KJ_PER_MOL, "kcal/mol": KCAL_PER_MOL},
    "gradient": {
        "hartree/bohr": 1.0,
        "eV/angstrom": EV / ANGSTROM,
        "kcal/mol/angstrom": KCAL_PER_MOL / ANGSTROM,
    },
    "stiffness": {
        "hartree/bohr^2": 1.0,
        "eV/angstrom^2": EV / ANGSTROM**2,
        "kcal/mol/angstrom^2": KCAL_PER_MOL / ANGSTROM**2,
    },
}

_QUANTITY = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-zÅ/]+(?:\^2)?)\s*")


def parse_quantity(text: object, dimension: str) -> float:
    """Convert text such as ``1.4 nm`` to atomic units.

    Args:
        text: a number followed by a unit.
        dimension: ``length``, ``angle``, ``temperature`` (as k_B T in hartree), ``time``, ``energy``,
            ``gradient`` or ``stiffness``.

    Raises:
        ValueError: the unit is missing or unknown; the message says what was expected and found.
    """
    units, article = _UNITS[dimension], "an" if dimension[0] in "ae" else "a"
    match = _QUANTITY.fullmatch(unicodedata.normalize("NFC", text)) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"expected {article} {dimension} with its unit ({', '.join(units)}), found {text!r}")
    number, unit = match.groups()
    if unit not in units:
        raise ValueError(f"expected {article} {dimension} in one of {', '.join(units)}, found {text!r}")
    value = float(number) * units[unit]
    if not math.isfinite(value):
        raise ValueError(f"expected a finite {dimension}, found {text!r}")
    return value
