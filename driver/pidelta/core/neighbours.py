"""Verlet lists: lists of pairs, reused until atoms have moved by half of the skin."""

# mypy: allow-untyped-defs

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pidelta.core.compilation import compiled
from pidelta.core.pair_list import Exclusions, PairList, build_pair_list
from pidelta.state import FloatArray

Apply = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]

MEMORY = 2**28  # bytes of lists kept beyond those of one batch
# structures after which a list is old: more than the beads of all systems, which may come one by one
RECENT = 1024

_IDENTITY = np.eye(3)


class VerletLists:
    """Lists of recent structures, found again by their positions.

    The beads of a ring polymer may come in any order, together or one by one, so a list belongs to no slot: a
    structure takes any list that is valid for it, which is so while no atom is further than half of the skin
    from where it was when the list was made. In another cell that is where it would be if it had moved as the
    lattice did, and what the lattice shrank comes off the skin.

    Args:
        cutoff: in bohr; infinite to list all pairs, without cells only.
        skin: added to the cutoff, in bohr.
        exclusions: pairs to leave out.
    """

    def __init__(self, cutoff: float, skin: float, exclusions: Exclusions) -> None:
        self._cutoff = cutoff
        self._skin = skin
        self._exclusions = exclusions
        # which structure used each last, counted from the first; the latest at the end
        self._entries: dict[_Entry, int] = {}
        self._bytes = 0
        self._structures = 0
        self._reserved = 1

    def find(self, positions: FloatArray, cell: FloatArray | None) -> PairList:
        """As `find_all`, for one structure: (N, 3) in bohr and a cell (3, 3) or None."""
        return self.find_all([positions], [cell])[0]

    def find_all(
        self,
        positions: Sequence[FloatArray] | FloatArray,
        cells: Sequence[FloatArray | None],
        apply: Apply = map,
    ) -> list[PairList]:
        """Lists of all pairs within the cutoff, and of some more within the skin, for several structures.

        At least these lists are kept until the next call, however large.

        Args:
            positions: (N, 3) each, in bohr, unwrapped or not.
            cells: (3, 3) lattice vectors as rows in bohr, or None, for each structure.
            apply: as `map`, to make new lists.
        """
        structures = list(zip(positions, cells, strict=True))
        known = self._search(structures)
        made = apply(self._make, [s for s, entry in zip(structures, known, strict=True) if entry is None])
        rest = iter(made)
        used = [next(rest) if entry is None else entry for entry in known]
        self._structures += len(used)
        self._reserved = max(self._reserved, len(used))
        # the first at the very end, where the next search begins
        for entry in reversed(used):
            if self._entries.pop(entry, None) is None:
                self._bytes += entry.pairs.nbytes
            self._entries[entry] = self._structures
        self._forget()
        return [entry.pairs_in(cell) for entry, cell in zip(used, cells, strict=True)]

    def _search(self, structures: Sequence[tuple[FloatArray, FloatArray | None]]) -> list[_Entry | None]:
        """The latest list that fits each structure; those of the last call are tried in its order."""
        entries = list(reversed(self._entries))
        found: list[_Entry | None] = []
        begin = 0
        for structure in structures:
            places = (*range(begin, len(entries)), *range(begin))
            fits = (k for k in places if entries[k].fits(*structure, self._cutoff, self._skin))
            place = next(fits, None)
            found.append(None if place is None else entries[place])
            begin = begin if place is None else place + 1
        return found

    def _make(self, structure: tuple[FloatArray, FloatArray | None]) -> _Entry:
        positions, cell = structure
        pairs = build_pair_list(positions, cell, self._cutoff + self._skin, self._exclusions)
        return _Entry(positions.copy(), None if cell is None else cell.copy(), pairs)

    def _forget(self) -> None:
        """Drop old lists, and those not used for longest where they take too much memory."""
        while len(self._entries) > self._reserved:
            entry, last = next(iter(self._entries.items()))
            if last > self._structures - RECENT and self._bytes <= MEMORY:
                return
            del self._entries[entry]
            self._bytes -= entry.pairs.nbytes


@dataclass(frozen=True, eq=False)
class _Entry:
    positions: FloatArray
    cell: FloatArray | None
    pairs: PairList

    def fits(self, positions: FloatArray, cell: FloatArray | None, cutoff: float, skin: float) -> bool:
        """Whether the list holds all pairs within the cutoff of these positions.

        With the lattice deformed by F, rows v to v F, and no atom further than u from its deformed place, two
        atoms within the cutoff had a distance of at most (cutoff + 2 u) |1/F|.
        """
        if cell is None or self.cell is None:  # all pairs are listed
            return cell is self.cell
        if np.array_equal(cell, self.cell):
            return bool(_all_within(positions, self.positions, _IDENTITY, 0.25 * skin * skin))
        deformation = self._deformation(cell)
        stretch = float(np.linalg.norm(np.linalg.inv(deformation), 2))
        most = 0.5 * ((cutoff + skin) / stretch - cutoff)
        return most > 0.0 and bool(_all_within(positions, self.positions, deformation, most * most))

    def pairs_in(self, cell: FloatArray | None) -> PairList:
        """The list with the lattice vectors of a cell."""
        if cell is None or self.cell is None or np.array_equal(cell, self.cell):
            return self.pairs
        deformation = self._deformation(cell)
        return replace(
            self.pairs,
            offsets=self.pairs.offsets @ deformation,
            translations=self.pairs.translations @ deformation,
        )

    def _deformation(self, cell: FloatArray) -> FloatArray:
        assert self.cell is not None
        return np.asarray(np.linalg.solve(self.cell, cell))


@compiled(nogil=True)
def _all_within(a, b, f, limit):
    """Whether no row of a - b f has a square above the limit; stops at the first that has."""
    for i in range(len(a)):
        dx = a[i, 0] - (b[i, 0] * f[0, 0] + b[i, 1] * f[1, 0] + b[i, 2] * f[2, 0])
        dy = a[i, 1] - (b[i, 0] * f[0, 1] + b[i, 1] * f[1, 1] + b[i, 2] * f[2, 1])
        dz = a[i, 2] - (b[i, 0] * f[0, 2] + b[i, 1] * f[1, 2] + b[i, 2] * f[2, 2])
        if dx * dx + dy * dy + dz * dz > limit:
            return False
    return True
