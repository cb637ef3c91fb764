"""Where electrons are counted: on the atoms, or on their shells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pidelta.errors import ParameterError
from pidelta.qm.dftb.basis import Basis
from pidelta.qm.dftb.harmonics import ANGULAR_MOMENTUM
from pidelta.state import FloatArray, IntArray


@dataclass(frozen=True)
class Sites:
    """The S sites of the self-consistency and the Q pairs of sites on different atoms.

    Attributes:
        symbols: (S,) elements.
        atom: (S,) the atom of each site, ascending.
        orbital_site: (N,) the site of each orbital, ascending.
        occupations: (S,) electrons of the neutral atoms.
        hubbard_u: (S,) in hartree/e^2.
        first, second: (Q,) the sites of the pairs, that on the earlier atom first.
        pair: (Q,) the pair of atoms, an index into those of the basis.
    """

    symbols: tuple[str, ...]
    atom: IntArray
    orbital_site: IntArray
    occupations: FloatArray
    hubbard_u: FloatArray
    first: IntArray
    second: IntArray
    pair: IntArray

    @property
    def are_atoms(self) -> bool:
        """Whether every atom is one site."""
        return int(self.atom[-1]) + 1 == len(self.atom)


def atom_sites(basis: Basis) -> Sites:
    """One site for each atom, with U of the s shell."""
    hubbard_u = np.array([element.hubbard_u[0] for element in basis.elements])
    return _sites(basis, np.arange(len(basis.symbols)), basis.orbital_atom, basis.valence, hubbard_u)


def shell_sites(basis: Basis, own_u: bool) -> Sites:
    """One site for each shell, with its own U or, as if the atom were the site, that of the s shell.

    Raises:
        ParameterError: a shell's own U is not positive.
    """
    shells = [element.l_max + 1 for element in basis.elements]
    first_site = np.cumsum(shells) - shells
    orbital_site = first_site[basis.orbital_atom] + np.array(ANGULAR_MOMENTUM)[basis.orbital_harmonic]
    hubbard_u = [
        element.hubbard_u if own_u else np.full_like(element.hubbard_u, element.hubbard_u[0])
        for element in basis.elements
    ]
    for symbol, values in zip(basis.symbols, hubbard_u, strict=True):
        if not (values > 0.0).all():
            shell = int(np.argmin(values))
            raise ParameterError(
                f"{symbol}-{symbol}.skf: expected a positive U of the {'spd'[shell]} shell, as charges are "
                f"resolved by shell, found {values[shell]:g}"
            )
    atom = np.repeat(np.arange(len(shells)), shells)
    occupations = np.concatenate([element.occupations for element in basis.elements])
    return _sites(basis, atom, orbital_site, occupations, np.concatenate(hubbard_u))


def _sites(
    basis: Basis, atom: IntArray, orbital_site: IntArray, occupations: FloatArray, hubbard_u: FloatArray
) -> Sites:
    first, second = np.nonzero(atom[:, None] < atom)
    pair_index = np.zeros((len(basis.symbols),) * 2, dtype=np.int64)
    pair_index[basis.first, basis.second] = np.arange(len(basis.first))
    symbols = tuple(basis.symbols[index] for index in atom)
    pair = pair_index[atom[first], atom[second]]
    return Sites(symbols, atom, orbital_site, occupations, hubbard_u, first, second, pair)
