"""The nouns that rooms share: what is read, what methods are given, what comes out, who does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

TERMS = ("mm", "low", "delta")
"""The terms of the energy by role: the names that configurations, sockets and results use."""

PARTS = {
    "mm": ("mm.bonded", "mm.nonbonded"),
    "low": ("low.vacuum", "low.embedding"),
    "delta": ("delta.vacuum", "delta.embedding"),
}
"""Parts that terms are sums of, a stiff one and a smooth one, so that i-PI can treat each in its own way.

Listed 1-4 pairs are bonded. The embedding is what the surroundings, and for the low level the images of the
QM region, add to what the method says of the QM region in vacuum.
"""

_ALIASES = {"dftb": "low"}
TERM_NAMES = (*TERMS, *(part for parts in PARTS.values() for part in parts), *_ALIASES)


def parse_terms(text: str) -> frozenset[str]:
    """Terms and parts of terms joined by +, such as ``low+mm.bonded``, blanks and capitals allowed.

    ``dftb`` stands for ``low``.

    Raises:
        ValueError: a name is not that of a term, or a term or a part of it stands twice.
    """
    names = [name.strip().lower() for name in text.split("+")]
    terms = [_ALIASES.get(name, name) for name in names]
    for term, name in zip(terms, names, strict=True):
        if term not in TERM_NAMES:
            known = ", ".join((*TERMS, *smallest_parts(PARTS)))
            raise ValueError(f"expected {known} joined by +, found {name!r}")
    parts = smallest_parts(terms)
    for part in parts:
        if parts.count(part) > 1:
            raise ValueError(f"expected each term once, found {part} twice")
    return frozenset(terms)


def smallest_parts(terms: Iterable[str]) -> tuple[str, ...]:
    """Terms, with their parts in place of those that have any."""
    return tuple(part for term in terms for part in PARTS.get(term, (term,)))


def common_terms(terms: Iterable[str], others: Iterable[str]) -> list[str]:
    """What two sums of terms share, in the order of the first: terms, or parts of those not shared whole."""
    others = frozenset(others)
    pieces = smallest_parts(others)
    return [
        name
        for term in terms
        for name in ([term] if term in others else PARTS.get(term, (term,)))
        if name in others or name in pieces
    ]


def terms_beyond(terms: Iterable[str], others: Iterable[str]) -> list[str]:
    """Those terms, sorted, that another sum of terms does not have, or not whole."""
    parts = frozenset(smallest_parts(others))
    return sorted(term for term in terms if not parts.issuperset(smallest_parts([term])))


@dataclass(frozen=True)
class System:
    """Atoms in space, in atomic units.

    Attributes:
        numbers: (N,) atomic numbers.
        positions: (N, 3) in bohr.
        cell: (3, 3) lattice vectors as rows in bohr, or None without periodicity.
        names, residue_names: (N,) as read from the file, for selections and messages.
        residue_indices: (N,) from 0, rising: the distinct residues.
        residue_numbers: (N,) of the residues as the file has them; they need not be distinct.
        segments: (N,) names of the chains or segments of the file, '' where there are none.
    """

    numbers: IntArray
    positions: FloatArray
    cell: FloatArray | None
    names: tuple[str, ...]
    residue_names: tuple[str, ...]
    residue_indices: IntArray
    residue_numbers: IntArray
    segments: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True)
class Region:
    """The QM region and the point charges around it, for B structures: what every method of it is given.

    Structures with fewer sites than the largest are padded with sites of zero charge and number 0.

    Attributes:
        numbers: (n,) atomic numbers of the QM atoms, link hydrogens included.
        positions: (B, n, 3) in bohr, the region whole.
        site_positions: (B, m, 3) of the point charges in bohr, at the periodic image that is meant.
        site_charges: (B, m) in e, scaled by the weights of the surroundings.
        site_numbers: (B, m) atomic numbers, 0 for a charge without a nucleus.
    """

    numbers: IntArray
    positions: FloatArray
    site_positions: FloatArray
    site_charges: FloatArray
    site_numbers: IntArray

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True)
class RegionGradient:
    """Derivatives of an energy with respect to the arrays of a `Region`.

    Attributes:
        positions: (B, n, 3) dE/dR of the QM atoms in hartree/bohr.
        site_positions: (B, m, 3) dE/dr of the sites in hartree/bohr, at fixed charges.
        site_charges: (B, m) dE/dq of the sites in hartree/e.
    """

    positions: FloatArray
    site_positions: FloatArray
    site_charges: FloatArray


@dataclass(frozen=True)
class Term:
    """One term of the total energy for a batch of B structures.

    Attributes:
        energy: (B,) in hartree.
        gradient: (B, N, 3) dE/dR in hartree/bohr.
        virial: (B, 3, 3) -dE/d(strain) in hartree.
        components: named parts of the energy, each (B,), for reports.
        point_charge_gradient: (B, m, 3) dE/dR of fixed point charges, or None where there are none.
    """

    energy: FloatArray
    gradient: FloatArray
    virial: FloatArray
    components: Mapping[str, FloatArray] = field(default_factory=dict)
    point_charge_gradient: FloatArray | None = None

    @property
    def full_gradient(self) -> FloatArray:
        """(B, N + m, 3) gradient on the atoms and then on the fixed point charges, if any."""
        if self.point_charge_gradient is None:
            return self.gradient
        return np.concatenate([self.gradient, self.point_charge_gradient], axis=1)


def _total(parts: list[FloatArray]) -> FloatArray:
    """The sum; of one part it is that part, and no copy."""
    return reduce(np.add, parts)


@dataclass(frozen=True)
class Evaluation:
    """Energies and derivatives of a batch of B structures of N atoms.

    Attributes:
        terms: the terms, or parts of them, by name (`TERMS`, `PARTS`); their sum is the total.
        charges: (B, n_QM) net charges in e: Mulliken's, or with mechanical embedding the fixed ones of the
            force field; None where there are none, and without the low level in its embedding.
        dipole: (B, 3) dipole of the QM region in e bohr (origin: the coordinate origin), or None.
        timings: seconds spent, by part.
        properties: further results by name, each of shape (B, ...): a new property is a new name.
        embedding: ``electrostatic`` or ``mechanical``, or None without a QM region.
    """

    terms: Mapping[str, Term]
    charges: FloatArray | None = None
    dipole: FloatArray | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    properties: Mapping[str, FloatArray] = field(default_factory=dict)
    embedding: str | None = None

    @property
    def energy(self) -> FloatArray:
        """(B,) total energy in hartree."""
        return _total([term.energy for term in self.terms.values()])

    @property
    def gradient(self) -> FloatArray:
        """(B, N, 3) gradient of the total energy in hartree/bohr."""
        return _total([term.gradient for term in self.terms.values()])

    @property
    def full_gradient(self) -> FloatArray:
        """(B, N + m, 3) gradient on the atoms and then on the fixed point charges, if any."""
        return _total([term.full_gradient for term in self.terms.values()])

    @property
    def virial(self) -> FloatArray:
        """(B, 3, 3) virial of the total energy, -dE/d(strain), in hartree."""
        return _total([term.virial for term in self.terms.values()])


def json_values(values: FloatArray) -> Any:
    """Values as JSON has them: plain numbers in nested lists, null for those that are not finite."""
    plain = np.array(values, dtype=object)
    plain[~np.isfinite(values)] = None
    return plain.tolist()


class Evaluator(Protocol):
    """Anything that turns positions into energies and gradients."""

    @property
    def numbers(self) -> IntArray:
        """(N,) atomic numbers, in the order positions are expected."""

    def evaluate(self, positions: FloatArray, cells: FloatArray | None) -> Evaluation:
        """Evaluate positions (B, N, 3) with lattice rows (B, 3, 3), both in bohr, or None if not periodic."""
