"""Atoms, orbitals and pairs of one composition: everything about a structure that is not its geometry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from pidelta.errors import ParameterError
from pidelta.qm.dftb.harmonics import ANGULAR_MOMENTUM, count
from pidelta.qm.dftb.parameters import ElementParameters, ParameterSet
from pidelta.state import FloatArray, IntArray


@dataclass(frozen=True)
class Basis:
    """n atoms, N orbitals and the P = n (n - 1) / 2 pairs i < j of atoms.

    Attributes:
        symbols: (n,) elements.
        elements: (n,) their parameters.
        valence: (n,) valence electrons of the neutral atoms.
        onsite: (N,) orbital energies in hartree.
        orbital_atom: (N,) the atom of each orbital, ascending.
        orbital_harmonic: (N,) the angular part, an index into `harmonics`.
        first, second: (P,) the atoms of the pairs.
        pair_types: (P,) index of each pair into `type_symbols`.
        type_symbols: the ordered pairs of elements that occur.
    """

    symbols: tuple[str, ...]
    elements: tuple[ElementParameters, ...]
    valence: FloatArray
    onsite: FloatArray
    orbital_atom: IntArray
    orbital_harmonic: IntArray
    first: IntArray
    second: IntArray
    pair_types: IntArray
    type_symbols: tuple[tuple[str, str], ...]

    @property
    def l_max(self) -> int:
        """The highest angular momentum of any atom."""
        return ANGULAR_MOMENTUM[int(self.orbital_harmonic.max())]


def build_basis(numbers: IntArray, parameters: ParameterSet) -> Basis:
    """Lay out the orbitals of atoms with atomic numbers (n,).

    Raises:
        ParameterError: an element is not in the parameter set.
    """
    symbols = tuple(chemical_symbols[number] for number in numbers)
    for atom, symbol in enumerate(symbols):
        if symbol not in parameters.elements:
            raise ParameterError(
                f"{parameters.name}: atom {atom}: expected one of {', '.join(parameters.elements)}, "
                f"found {symbol}"
            )
    elements = tuple(parameters.elements[symbol] for symbol in symbols)
    harmonics = [np.arange(count(element.l_max)) for element in elements]
    shells = np.array(ANGULAR_MOMENTUM)
    first, second = (index.astype(np.int64) for index in np.triu_indices(len(symbols), 1))
    pairs = [(symbols[i], symbols[j]) for i, j in zip(first, second, strict=True)]
    type_symbols = tuple(sorted(set(pairs)))
    index = {pair: row for row, pair in enumerate(type_symbols)}
    return Basis(
        symbols=symbols,
        elements=elements,
        valence=np.array([element.occupations.sum() for element in elements]),
        onsite=np.concatenate(
            [element.onsite[shells[rows]] for element, rows in zip(elements, harmonics, strict=True)]
        ),
        orbital_atom=np.repeat(np.arange(len(symbols)), [len(rows) for rows in harmonics]),
        orbital_harmonic=np.concatenate(harmonics),
        first=first,
        second=second,
        pair_types=np.array([index[pair] for pair in pairs], dtype=np.int64),
        type_symbols=type_symbols,
    )
