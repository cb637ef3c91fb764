"""The names that a structure file gives its atoms, compared with those of the topology they belong to.

Programs name the same atoms differently (H1 or HW1, SOL or WAT), so other names are only told. Where a name
stands for another element, the atoms are in another order, and every energy would be wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from ase.data import chemical_symbols

from pidelta.core.elements import COMMON, named_elements
from pidelta.errors import StructureError
from pidelta.state import IntArray


@dataclass(frozen=True)
class Labels:
    """How a file names its atoms.

    Attributes:
        names, residue_names: (N,).
        residue_numbers: (N,) as the file has them.
        segments: (N,) names of chains or segments, '' where there are none.
    """

    names: tuple[str, ...]
    residue_names: tuple[str, ...]
    residue_numbers: IntArray
    segments: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def select(self, rows: IntArray) -> Labels:
        """The labels of some rows."""
        return Labels(
            tuple(self.names[row] for row in rows),
            tuple(self.residue_names[row] for row in rows),
            self.residue_numbers[rows],
            tuple(self.segments[row] for row in rows),
        )

    @property
    def residue_indices(self) -> IntArray:
        """(N,) of the distinct residues, from 0."""
        keys = list(zip(self.residue_numbers.tolist(), self.residue_names, self.segments, strict=True))
        starts = [i > 0 and key != keys[i - 1] for i, key in enumerate(keys)]
        return np.cumsum(starts, dtype=np.int64)


class NamedAtoms(Protocol):
    """Atoms as a topology has them: numbers, names and residues (N,)."""

    @property
    def numbers(self) -> IntArray: ...  # noqa: D102
    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def residue_names(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def residue_indices(self) -> IntArray: ...  # noqa: D102


@dataclass(frozen=True)
class NameDifference:
    """A name of atoms or residues in a structure file that is another in the topology.

    Attributes:
        found, expected: the names in the structure file and in the topology.
        count: how many there are.
        kind: ``atom`` or ``residue``, or ``number`` where the residues are more or fewer.
    """

    found: str
    expected: str
    count: int
    kind: str


def compare_names(path: Path, labels: Labels, atoms: NamedAtoms) -> tuple[NameDifference, ...]:
    """The names that differ: of atoms, then of residues, the most frequent first.

    Args:
        path: the structure file, for messages.
        labels: of its N atoms.
        atoms: the same N of the topology.

    Raises:
        StructureError: a name stands for another element than the topology has there.
    """
    residues = labels.residue_indices
    sizes = np.bincount(residues)[residues]
    pairs = []
    for atom, (name, expected) in enumerate(zip(labels.names, atoms.names, strict=True)):
        if _plain(name) == _plain(expected):
            continue
        pairs.append((name, expected))
        named = named_elements(name, alone=bool(sizes[atom] == 1))
        if named & COMMON and int(atoms.numbers[atom]) not in named:
            where = f"{labels.residue_names[atom]}{labels.residue_numbers[atom]}:{name}"
            symbol = chemical_symbols[atoms.numbers[atom]]
            raise StructureError(
                f"{path}: expected {expected} ({symbol}) at atom {atom} as in the topology, found {where}; "
                "are the atoms in another order?"
            )
    found = _counted(pairs, "atom")
    starts = np.flatnonzero(np.diff(atoms.residue_indices, prepend=-1))
    names = [(labels.residue_names[start], atoms.residue_names[start]) for start in starts]
    found += _counted((pair for pair in names if _plain(pair[0]) != _plain(pair[1])), "residue")
    if len(starts) != residues[-1] + 1:
        found.append(NameDifference(f"{residues[-1] + 1} residues", f"{len(starts)} residues", 1, "number"))
    return tuple(found)


def swapped_names(differences: Iterable[NameDifference]) -> list[NameDifference]:
    """Differences of atoms whose two names both occur on both sides: the atoms may be in another order."""
    atoms = [each for each in differences if each.kind == "atom"]
    common = {each.found for each in atoms} & {each.expected for each in atoms}
    return [each for each in atoms if {each.found, each.expected} <= common]


def _plain(name: str) -> str:
    """A name in capitals, with the digits that .pdb files may put in front, as in 1HB, at its end."""
    text = name.strip().upper()
    letters = text.lstrip("0123456789")
    return letters + text[: len(text) - len(letters)]


def _counted(pairs: Iterable[tuple[str, str]], kind: str) -> list[NameDifference]:
    return [NameDifference(*pair, count, kind) for pair, count in Counter(pairs).most_common()]
