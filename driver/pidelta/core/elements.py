"""Elements that a file does not name, from masses, types and names of atoms.

Masses alone mislead: repartitioning to hydrogen makes 11.99 of the nitrogen of an amide. So do names: CA is
an alpha carbon or calcium.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from pidelta.state import FloatArray, IntArray

_HEAVIEST = 83  # bismuth: no force field has the others, and names such as AC1 are no actinium
_SYMBOLS = frozenset(chemical_symbols[1 : _HEAVIEST + 1])
COMMON = frozenset(
    atomic_numbers[symbol]
    for symbol in (
        "H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Se", "Br", "I", "Li", "Na", "Mg", "K", "Ca",
        "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Rb", "Sr", "Cd", "Cs", "Ba", "Hg",
    )
)  # fmt: skip
"""Elements that a name alone can be trusted to stand for: WO is an oxygen of water rather than tungsten."""

_CARRIERS = tuple(atomic_numbers[symbol] for symbol in ("B", "C", "N", "O", "Si", "P", "S"))
"""What hydrogen is bound to, and what repartitioning makes lighter."""

_IONS = {
    "SOD": "Na", "POT": "K", "CLA": "Cl", "CES": "Cs", "RUB": "Rb", "LIT": "Li", "CAL": "Ca", "BAR": "Ba",
    "CAD": "Cd", "IP": "Na", "IM": "Cl", "CIO": "Cs", "C0": "Ca", "QL": "Li", "QN": "Na", "QK": "K",
    "QR": "Rb", "QC": "Cs", "D": "H",
}  # fmt: skip
"""Names of CHARMM and AMBER that are no symbols, and deuterium."""

_EXTRA_POINTS = ("EP", "LP")


@cache
def named_elements(name: str, *, alone: bool = False) -> frozenset[int]:
    """The atomic numbers that the name or type of an atom may stand for, none where it says nothing.

    Digits before the letters do not count. CA may be carbon or calcium; `alone` in its residue, as ions are,
    a name of two letters that make a symbol is that symbol.
    """
    text = name.strip()
    symbols = {
        _IONS[alias] for alias in (text.upper(), text.upper().rstrip("+-0123456789")) if alias in _IONS
    }
    letters = re.sub("^[^A-Za-z]*", "", text)
    letters = re.split("[^A-Za-z]", letters)[0]
    if re.match(r"[A-Za-z]{3,}_", text) or not letters:  # such as opls_135
        return frozenset(atomic_numbers[symbol] for symbol in symbols)
    pair, first = letters[:2].capitalize(), letters[0].upper()
    if alone and len(letters) == 2 and pair in _SYMBOLS:
        symbols.add(pair)
    elif not (alone and symbols):
        symbols |= {symbol for symbol in (pair, first) if symbol in _SYMBOLS}
    return frozenset(atomic_numbers[symbol] for symbol in symbols)


def guess_elements(masses: FloatArray, types: Sequence[str], names: Sequence[str]) -> IntArray:
    """Atomic numbers (N,) from masses in dalton, types and names of atoms.

    0 is a site without mass, -1 an atom whose mass fits no element that its type and name stand for, see
    `misfit`. A mass that is no element's is accepted of carbon united with hydrogens, and where masses have
    been repartitioned.
    """
    is_heavy_hydrogen = (masses > 1.2) & (masses < 4.2) & (np.abs(masses - atomic_masses[2]) > 0.01)
    repartitioned = bool(is_heavy_hydrogen.any())
    found = [
        _element(float(mass), kind, name, repartitioned)
        for mass, kind, name in zip(masses, types, names, strict=True)
    ]
    return np.array(found, dtype=np.int64)


def united_hydrogens(mass: float, number: int) -> int:
    """How many hydrogens an atom of a mass in dalton is united with: of carbon, 1 to 4, else 0.

    Nitrogen and heavy carbon are near: 14.007 and 14.027 of CH2, 13.003 and 13.019 of CH.
    """
    if number != 6:
        return 0
    fits = [n for n in (1, 2, 3, 4) if abs(mass - 12.011 - 1.008 * n) < 0.006]
    return fits[0] if fits else 0


def contradiction(numbers: IntArray, masses: FloatArray) -> tuple[int, str] | None:
    """The first atom whose mass is that of another element than its number, and what is wrong with it.

    Args:
        numbers: (N,) as a file has them, 0 or less where it says nothing.
        masses: (N,) in dalton. Where a hydrogen is heavy, masses may have been moved to it; any atom may be
            united with up to four hydrogens, as GROMACS makes those of rigid groups.
    """
    moved = bool(((numbers == 1) & (masses > 1.2) & (masses < 4.2)).any())
    pairs, first = np.unique(np.stack([numbers, masses], axis=1), axis=0, return_index=True)
    for atom, (value, mass) in sorted(zip(first.tolist(), pairs.tolist(), strict=True)):
        number = int(value)
        other = int(np.argmin(np.abs(atomic_masses[1 : _HEAVIEST + 1] - mass))) + 1
        if not 0 < number <= _HEAVIEST or abs(mass - atomic_masses[other]) > 0.1:
            continue
        weight = float(atomic_masses[number])
        united = any(abs(mass - weight - 1.008 * n) < 0.012 for n in (1, 2, 3, 4))
        explained = (number == 1 and mass < 4.2) or (moved and _fits_repartitioned(mass, number))
        if abs(mass - weight) > 0.5 and not united and not explained:
            return atom, (
                f"expected a mass of {chemical_symbols[number]} as the atomic number {number} says, found "
                f"{mass:g}, that of {chemical_symbols[other]}"
            )
    return None


def misfit(mass: float, kind: str, name: str) -> str:
    """What is wrong with an atom that `guess_elements` knows no element for."""
    named = sorted(named_elements(kind) | named_elements(name))
    expected = " or ".join(chemical_symbols[number] for number in named) or "a known element"
    return (
        f"expected the atomic number, or a mass of {expected} as the name {name} and type {kind or '(none)'} "
        f"say, found {mass:g}"
    )


@cache
def _element(mass: float, kind: str, name: str, repartitioned: bool) -> int:
    if mass == 0.0 or kind.strip().upper() in _EXTRA_POINTS:
        return 0
    by_type, by_name = named_elements(kind), named_elements(name)
    named = by_type & by_name or by_type | by_name  # of types such as IP for sodium, either may be right
    if repartitioned:
        named -= {2}  # 4.03 is hydrogen of four times its mass
    exact = [number for number in named if _fits(mass, number)]
    if not exact and repartitioned:
        exact = [number for number in named if _fits_repartitioned(mass, number)]
        return exact[0] if len(exact) == 1 else -1
    if not exact and 6 in named and united_hydrogens(mass, 6):
        return 6
    if not named:
        exact = [number for number in range(1, _HEAVIEST + 1) if _fits(mass, number)]
    return min(exact, key=lambda number: abs(mass - atomic_masses[number]), default=-1)


def _fits(mass: float, number: int) -> bool:
    """Force fields round: 12, 12.01 or 12.011; hydrogen may be deuterium or tritium."""
    known = (1.008, 2.014, 3.016) if number == 1 else (float(atomic_masses[number]),)
    return any(abs(mass - weight) <= max(0.03, 0.003 * weight) for weight in known)


def _fits_repartitioned(mass: float, number: int) -> bool:
    """Hydrogen of up to four times its mass, or an atom that has given some to up to three hydrogens."""
    if number == 1:
        return 0.9 < mass < 4.2
    weight = float(atomic_masses[number])
    return number in _CARRIERS and weight - 9.2 < mass < weight + 0.1


def name_element(name: str, *, alone: bool = False) -> int | None:
    """The atomic number that a name stands for where there is no mass, as in a structure without a topology.

    0 is a massless site, None a name that says nothing or may be carbon or chlorine. Of names that may be of
    one letter or of two, as CA, two count only for an atom alone in its residue, in lower case (Ca), and for
    Br, Si, Se and Fe.
    """
    if re.fullmatch(r"(M|MW|EP\w?|LP\d*|L\d)", name.strip(), flags=re.IGNORECASE):
        return 0
    named = named_elements(name, alone=alone)
    if len(named) <= 1:
        return next(iter(named), None)
    letters = re.sub("^[^A-Za-z]*", "", name.strip())[:2]
    one, two = (atomic_numbers.get(symbol, 0) for symbol in (letters[0].upper(), letters.capitalize()))
    if letters.upper() == "CL":
        return two if letters == "Cl" else None
    is_two = letters == letters.capitalize() or letters.upper() in ("BR", "SI", "SE", "FE")
    return two if is_two and two in named else one
