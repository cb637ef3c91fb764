"""Electrons of both spins, and the constants of their interaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.linalg import block_diag

from pidelta.errors import SetupError
from pidelta.qm.dftb.basis import Basis
from pidelta.state import FloatArray

SpinConstants = Mapping[str, float | Sequence[Sequence[float]]]
"""W by element in hartree: a matrix by the shells s, p, d, or one number for all of them."""

_LISTED = 4


def filled_orbitals(
    electrons: int, orbitals: int, multiplicity: int, polarised: bool = True
) -> tuple[float, ...]:
    """Count the filled orbitals of spin up and down, or those that both spins share.

    They share them in closed shells, and in other molecules where these are not spin-polarised.

    Raises:
        SetupError: the electrons cannot have that multiplicity.
    """
    possible = range(1 + electrons % 2, min(electrons, 2 * orbitals - electrons) + 2, 2)
    if multiplicity not in possible:
        named = [str(value) for value in possible[:_LISTED]]
        if len(possible) > _LISTED:
            named += [f"... {possible[-1]}"]
        raise SetupError(
            f"qm.multiplicity: expected {', '.join(named)} with the {electrons} valence electrons that "
            f"qm.charge leaves, found {multiplicity}"
        )
    if multiplicity == 1 or not polarised:
        return (0.5 * electrons,)
    up = (electrons + multiplicity - 1) // 2
    return (up, electrons - up)


def spin_blocks(basis: Basis, constants: SpinConstants | None) -> dict[str, FloatArray]:
    """Return W of every element of a molecule, by shells: (l_max + 1, l_max + 1) in hartree.

    Raises:
        SetupError: the constants of an element are missing, or are no symmetric matrix of its size.
    """
    blocks = {}
    for symbol, element in zip(basis.symbols, basis.elements, strict=True):
        if constants is None or symbol not in constants:
            raise SetupError(
                "qm.dftb.spin_constants: a multiplicity above 1 needs those of every element, "
                f"found none for {symbol}"
            )
        shells = element.l_max + 1
        given = constants[symbol]
        rows = given if isinstance(given, Sequence) else [[given] * shells] * shells
        if [len(row) for row in rows] != [shells] * shells or not np.array_equal(rows, np.transpose(rows)):
            names = ", ".join("spd"[:shells])
            raise SetupError(
                f"qm.dftb.spin_constants.{symbol}: expected a number or a symmetric {shells} x {shells} "
                f"matrix (shells {names}), found {given}"
            )
        blocks[symbol] = np.array(rows, dtype=np.float64)
    return blocks


def spin_matrix(basis: Basis, blocks: Mapping[str, FloatArray]) -> FloatArray:
    """Lay out W for the shells of all atoms: (S, S) in hartree, zero between atoms."""
    return np.asarray(block_diag(*(blocks[symbol] for symbol in basis.symbols)))
