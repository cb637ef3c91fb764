"""Electrons of both spins, and the constants of their interaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.linalg import block_diag

from pidelta.errors import SettingError
from pidelta.qm.dftb.basis import Basis
from pidelta.qm.dftb.settings import DFTBSettings, SpinConstants
from pidelta.state import FloatArray

_LISTED = 4


def filled_orbitals(basis: Basis, settings: DFTBSettings) -> tuple[float, ...]:
    """Count the filled orbitals of spin up and down, or those that both spins share.

    They share them in closed shells, and in other molecules where these are not spin-polarised.

    Raises:
        SettingError: the charge leaves too few or too many electrons, or they cannot have the multiplicity.
    """
    orbitals, multiplicity = len(basis.onsite), settings.multiplicity
    electrons = round(float(basis.valence.sum())) - settings.charge
    if not 0 < electrons <= 2 * orbitals:
        raise SettingError(
            "charge",
            f"expected one that leaves 1 to {2 * orbitals} valence electrons, found {settings.charge}, which "
            f"leaves {electrons}",
        )
    possible = range(1 + electrons % 2, min(electrons, 2 * orbitals - electrons) + 2, 2)
    if multiplicity not in possible:
        named = [str(value) for value in possible[:_LISTED]]
        if len(possible) > _LISTED:
            named += [f"... {possible[-1]}"]
        raise SettingError(
            "multiplicity",
            f"expected {', '.join(named)} with the {electrons} valence electrons that a charge of "
            f"{settings.charge} leaves, found {multiplicity}",
        )
    if not settings.has_two_spins:
        return (0.5 * electrons,)
    up = (electrons + multiplicity - 1) // 2
    return (up, electrons - up)


def spin_blocks(basis: Basis, constants: SpinConstants | None) -> dict[str, FloatArray]:
    """Return W of every element of a molecule, by shells: (l_max + 1, l_max + 1) in hartree.

    Raises:
        SettingError: the constants of an element are missing, or are no symmetric matrix of its size.
    """
    blocks = {}
    for symbol, element in zip(basis.symbols, basis.elements, strict=True):
        if constants is None or symbol not in constants:
            raise SettingError(
                "spin_constants",
                f"expected those of every element with a multiplicity above 1, found none for {symbol}",
            )
        shells = element.l_max + 1
        given = constants[symbol]
        rows = given if isinstance(given, Sequence) else [[given] * shells] * shells
        if [len(row) for row in rows] != [shells] * shells or not np.array_equal(rows, np.transpose(rows)):
            names = ", ".join("spd"[:shells])
            raise SettingError(
                f"spin_constants.{symbol}",
                f"expected a number or a symmetric {shells} x {shells} matrix (shells {names}), "
                f"found {given}",
            )
        blocks[symbol] = np.array(rows, dtype=np.float64)
    return blocks


def spin_matrix(basis: Basis, blocks: Mapping[str, FloatArray]) -> FloatArray:
    """Lay out W for the shells of all atoms: (S, S) in hartree, zero between atoms."""
    return np.asarray(block_diag(*(blocks[symbol] for symbol in basis.symbols)))
