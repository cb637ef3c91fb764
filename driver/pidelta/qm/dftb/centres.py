"""Charge centres, where the self-consistency counts electrons: the atoms, or their shells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pidelta.errors import ParameterError
from pidelta.qm.dftb.basis import Basis
from pidelta.qm.dftb.harmonics import ANGULAR_MOMENTUM
from pidelta.state import FloatArray, IntArray


@dataclass(frozen=True)
class ChargeCentres:
    """The S centres of the self-consistency and the Q pairs of centres on different atoms.

    Attributes:
        symbols: (S,) elements.
        atom: (S,) the atom of each centre, ascending.
        orbital_centre: (N,) the centre of each orbital, ascending.
        occupations: (S,) electrons of the neutral atoms.
        hubbard_u: (S,) in hartree/e^2.
        first, second: (Q,) the centres of the pairs, that on the earlier atom first.
        pair: (Q,) the pair of atoms, an index into those of the basis.
    """

    symbols: tuple[str, ...]
    atom: IntArray
    orbital_centre: IntArray
    occupations: FloatArray
    hubbard_u: FloatArray
    first: IntArray
    second: IntArray
    pair: IntArray

    @property
    def are_atoms(self) -> bool:
        """Whether every atom is one centre."""
        return int(self.atom[-1]) + 1 == len(self.atom)


def atom_centres(basis: Basis) -> ChargeCentres:
    """One centre for each atom, with U of the s shell."""
    hubbard_u = np.array([element.hubbard_u[0] for element in basis.elements])
    return _centres(basis, np.arange(len(basis.symbols)), basis.orbital_atom, basis.valence, hubbard_u)


def shell_centres(basis: Basis, own_u: bool) -> ChargeCentres:
    """One centre for each shell, with its own U or, as if the atom were the centre, that of the s shell.

    Raises:
        ParameterError: a shell's own U is not positive.
    """
    shells = [element.l_max + 1 for element in basis.elements]
    first_centre = np.cumsum(shells) - shells
    orbital_centre = first_centre[basis.orbital_atom] + np.array(ANGULAR_MOMENTUM)[basis.orbital_harmonic]
    hubbard_u = [
        element.hubbard_u if own_u else np.full_like(element.hubbard_u, element.hubbard_u[0])
        for element in basis.elements
    ]
    for symbol, values in zip(basis.symbols, hubbard_u, strict=True):
        if not (values > 0.0).all():
            shell = int(np.argmin(values))
            raise ParameterError(
                f"{symbol}-{symbol}.skf: expected a positive U of the {'spd'[shell]} shell, "
                f"found {values[shell]:g}, with charges resolved by shell"
            )
    atom = np.repeat(np.arange(len(shells)), shells)
    occupations = np.concatenate([element.occupations for element in basis.elements])
    return _centres(basis, atom, orbital_centre, occupations, np.concatenate(hubbard_u))


def _centres(
    basis: Basis, atom: IntArray, orbital_centre: IntArray, occupations: FloatArray, hubbard_u: FloatArray
) -> ChargeCentres:
    first, second = np.nonzero(atom[:, None] < atom)
    pair_index = np.zeros((len(basis.symbols),) * 2, dtype=np.int64)
    pair_index[basis.first, basis.second] = np.arange(len(basis.first))
    symbols = tuple(basis.symbols[index] for index in atom)
    pair = pair_index[atom[first], atom[second]]
    return ChargeCentres(symbols, atom, orbital_centre, occupations, hubbard_u, first, second, pair)
