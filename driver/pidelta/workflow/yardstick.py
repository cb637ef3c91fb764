"""The bonds of the structure as a yardstick: positions from elsewhere must have its atoms, order and unit."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import vesin
from ase.data import covalent_radii
from ase.geometry import cell_to_cellpar

from pidelta.core.cell import heights, minimum_image
from pidelta.errors import StructureError
from pidelta.ipi.observers import Observer
from pidelta.state import BoolArray, FloatArray, IntArray, System
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM, NANOMETER

_BOND_FACTOR = 1.25  # of the sum of covalent radii: what counts as bonded in the structure file
_STRETCH_FACTOR = 1.5  # of the structure's length: what no flexible bond reaches
_SHORT_FACTOR = 0.65  # of the structure's length or of the radii: what no bond is pressed to
_LEAST_BONDS = 3  # fewer may all have another length, as on a potential curve
_UNIT_TOLERANCE = 0.1
_UNITS = {"bohr": 1.0, "angstrom": ANGSTROM, "nm": NANOMETER}
_SAME_CELL = (0.03, 3.0)  # of its lengths, relative, and of its angles, in degrees
_STEP = 1.1  # bohr; shorter than any bond, so that no two atoms are exchanged within it
_FIRST = 2048  # structures that are looked at: i-PI asks for all beads of all systems before its first step
_KEPT = 128
_IPI_UNITS = (
    "name the unit in its file, as i-PI does with positions{angstrom} and cell{angstrom} in the comment; "
    "without one i-PI takes bohr"
)


@dataclass(frozen=True)
class Yardstick:
    """Bonds of a structure and what their lengths may become.

    Attributes:
        structure: the file of structure or force field, for messages.
        pairs: (nb, 2) bonded atoms.
        lengths: (nb,) in that file, in bohr.
        shortest: (nb,) that a bond may have, in bohr.
        reactive: (nb,) whether both atoms are QM, so that the bond may break.
        cell: (3, 3) lattice rows of the structure in bohr, or None for a molecule in vacuum.
        advice: how to name the unit, for messages.
    """

    structure: Path | str
    pairs: IntArray
    lengths: FloatArray
    shortest: FloatArray
    reactive: BoolArray
    cell: FloatArray | None
    advice: str = _IPI_UNITS

    @classmethod
    def of(cls, structure: Path, system: System, bonds: IntArray | None, qm_indices: IntArray) -> Yardstick:
        """Make one.

        Args:
            structure: the file of `system`.
            system: its atoms.
            bonds: (nb, 2) of the topology, or None to find them by distances.
            qm_indices: (n,) the QM atoms.
        """
        pairs = _bonds_by_radii(system) if bonds is None else bonds
        lengths = _distances(system.positions, pairs, system.cell)
        return cls.of_lengths(structure, system, pairs, lengths, qm_indices)

    @classmethod
    def of_lengths(
        cls,
        source: Path | str,
        system: System,
        pairs: IntArray,
        lengths: FloatArray,
        qm_indices: IntArray,
    ) -> Yardstick:
        """Make one of bonds whose lengths are known.

        Args:
            source: the file of the lengths.
            system: the atoms.
            pairs: (nb, 2) bonded atoms.
            lengths: (nb,) in bohr.
            qm_indices: (n,) the QM atoms.
        """
        radii = covalent_radii[system.numbers[pairs]].sum(axis=1) * ANGSTROM
        return cls(
            structure=source,
            pairs=pairs,
            lengths=lengths,
            shortest=_SHORT_FACTOR * np.minimum(lengths, radii),
            reactive=np.asarray(np.isin(pairs, qm_indices).all(axis=1)),
            cell=system.cell,
        )

    def check_unit(self, positions: FloatArray, cell: FloatArray | None, source: str) -> None:
        """Refuse positions or a cell whose unit was taken for another.

        Args:
            positions: (N, 3) in bohr.
            cell: (3, 3) lattice rows in bohr, or None.
            source: where they come from, for messages.

        Raises:
            StructureError: all bonds, or all heights of the cell, differ by the ratio of two units.
        """
        for scale in self._scales(positions, cell):
            self._refuse_unit(scale, "bonds", source)
        if self.cell is not None and cell is not None:
            ratios = heights(cell) / heights(self.cell)
            if np.ptp(ratios) < 0.05 * ratios.mean():
                self._refuse_unit(float(ratios.mean()), "cell vectors", source)

    def check_atoms(self, positions: FloatArray, cell: FloatArray | None, source: str) -> None:
        """Refuse atoms in another order or unit, where somebody may compute what no simulation reaches.

        Few bonds say nothing, as in `check_unit`, and those of QM atoms neither: they may be the points of a
        curve. Nor do short ones: atoms in another order have long ones, too.

        Args:
            positions: (N, 3) in bohr.
            cell: (3, 3) lattice rows in bohr; ignored for a molecule in vacuum.
            source: where they come from, for messages.

        Raises:
            StructureError: names the atoms, what was expected and what was found.
        """
        self.check_unit(positions, cell, source)
        found = self.distances(positions, cell)
        long = found > _STRETCH_FACTOR * self.lengths
        if len(self.pairs) >= _LEAST_BONDS:
            self._refuse_order(long & ~self.reactive, found, source)

    def check(self, positions: FloatArray, cell: FloatArray | None, source: str) -> None:
        """Refuse positions that are not those of a simulation of these atoms, in this order and unit.

        A flexible bond stretches, but not to one and a half times its length. Bonds of the QM region may
        break, so most of them have to be gone. Nothing presses a bond to two thirds of its length.

        Args:
            positions: (N, 3) in bohr.
            cell: (3, 3) lattice rows in bohr; ignored for a molecule in vacuum.
            source: where they come from, for messages.

        Raises:
            StructureError: names the atoms, what was expected and what was found.
        """
        self.check_unit(positions, cell, source)
        found = self.distances(positions, cell)
        self._refuse_order(self.strange(found), found, source)

    def distances(self, positions: FloatArray, cell: FloatArray | None) -> FloatArray:
        """(nb,) of the bonded atoms, in bohr; a cell is ignored for a molecule in vacuum."""
        return _distances(positions, self.pairs, cell if self.cell is not None else None)

    def strange(self, found: FloatArray) -> BoolArray:
        """(nb,) which bonds have a length in `found` that no simulation of these atoms gives them."""
        long = found > _STRETCH_FACTOR * self.lengths
        suspicious = long & ~self.reactive
        if 2 * np.count_nonzero(long & self.reactive) > np.count_nonzero(self.reactive):
            suspicious = long
        return np.asarray(suspicious | (found < self.shortest))

    def differences(self, positions: FloatArray, cell: FloatArray | None, source: str) -> list[str]:
        """What is unlike the structure in positions that pass `check`, and may be meant so.

        Bonds of QM atoms that are gone, as after a reaction, or because atoms of one element are in another
        order, which changes their Lennard-Jones types; without other bonds there are no types. Another cell,
        as of another pressure.

        Args:
            positions: (N, 3) in bohr.
            cell: (3, 3) lattice rows in bohr; ignored for a molecule in vacuum.
            source: where they come from, for messages.
        """
        lines = []
        found = self.distances(positions, cell)
        gone = np.flatnonzero((found > _STRETCH_FACTOR * self.lengths) & self.reactive)
        if len(gone) and not self.reactive.all():
            lines.append(
                f"{self._apart(int(gone[0]), found, source)}: if no reaction has broken the bond, QM atoms "
                "of one element are in another order"
            )
        if self.cell is not None and cell is not None:
            ours, theirs = cell_to_cellpar(self.cell), cell_to_cellpar(cell)
            lengths = np.abs(theirs[:3] / ours[:3] - 1.0).max()
            angles = np.abs(theirs[3:] - ours[3:]).max()
            if lengths > _SAME_CELL[0] or angles > _SAME_CELL[1]:
                lines.append(
                    f"{self.structure}: a cell of {_cell_text(ours)}, but {_cell_text(theirs)} in {source}"
                )
        return lines

    def _apart(self, bond: int, found: FloatArray, source: str) -> str:
        i, j = self.pairs[bond]
        return (
            f"{self.structure}: atoms {i} and {j} are bonded, "
            f"{self.lengths[bond] * BOHR_IN_ANGSTROM:.2f} angstrom, but "
            f"{found[bond] * BOHR_IN_ANGSTROM:.2f} angstrom apart in {source}"
        )

    def _refuse_order(self, suspicious: BoolArray, found: FloatArray, source: str) -> None:
        if suspicious.any():
            raise StructureError(
                f"{self._apart(int(np.flatnonzero(suspicious)[0]), found, source)}, "
                "which must list the atoms in the same order, with the unit of their positions"
            )

    def mistaken_unit(self, positions: FloatArray, cell: FloatArray | None) -> str | None:
        """By which ratio of two units the bonds differ, in words, or None."""
        for scale in self._scales(positions, cell):
            mistake = mistaken_unit(scale)
            if mistake is not None:
                return f"{scale:.3g} times that, {mistake}"
        return None

    def _scales(self, positions: FloatArray, cell: FloatArray | None) -> list[float]:
        """Lengths found in those of the structure, where they are much alike, by nearest images and without.

        Too large a unit makes molecules larger than the cell, where the nearest image means nothing.
        """
        if len(self.pairs) < _LEAST_BONDS:
            return []
        alike = []
        for lattice in (None if self.cell is None else cell, None):
            ratios = _distances(positions, self.pairs, lattice) / np.maximum(self.lengths, 1.0e-3)
            low, high = np.quantile(ratios, (0.1, 0.9))
            if high < 1.4 * low:
                alike.append(float(np.median(ratios)))
        return alike

    def _refuse_unit(self, scale: float, what: str, source: str) -> None:
        mistake = mistaken_unit(scale)
        if mistake is not None:
            raise StructureError(
                f"{self.structure}: expected {what} as long as here, found {scale:.3g} times that in "
                f"{source}, {mistake}: {self.advice}"
            )


def mistaken_unit(scale: float) -> str | None:
    """Which unit was taken for another, in words, where lengths are so many times what they should be."""
    for read, written in permutations(_UNITS, 2):
        if abs(scale * _UNITS[written] / _UNITS[read] - 1.0) < _UNIT_TOLERANCE:
            return f"as if {written} had been read as {read}"
    return None


class FirstPositions(Observer):
    """Checks the first positions of each bead and system, as i-PI sends no elements and no units with them.

    It says neither whose they are: a structure that goes on from an earlier one is not checked again, for its
    bonds may do what they want then.
    """

    def __init__(self, yardstick: Yardstick) -> None:
        self._yardstick = yardstick
        self._left = _FIRST
        self._seen: deque[FloatArray] = deque(maxlen=_KEPT)  # the one to come next is the first

    def before(self, positions: FloatArray, cells: FloatArray | None) -> None:
        """Raises StructureError as `Yardstick.check` does."""
        if self._left <= 0:
            return
        source = "the first positions from i-PI"
        if self._left < _FIRST:
            source = "later positions from i-PI (another system, or one that has blown up)"
        for index, structure in enumerate(positions):
            if not self._goes_on(structure):
                self._yardstick.check(structure, None if cells is None else cells[index], source)
            self._seen.append(structure.copy())
        self._left -= len(positions)
        if self._left <= 0:
            self._seen.clear()

    def _goes_on(self, structure: FloatArray) -> bool:
        for place, earlier in enumerate(self._seen):
            if is_near(structure, earlier):
                del self._seen[place]
                return True
        return False


def is_near(positions: FloatArray, earlier: FloatArray) -> bool:
    """Whether atoms (N, 3) have moved so little, in bohr, that they are the same, in the same order."""
    return bool(np.abs(positions - earlier).max(initial=0.0) < _STEP)


def _cell_text(parameters: FloatArray) -> str:
    lengths = ", ".join(f"{length * BOHR_IN_ANGSTROM:.2f}" for length in parameters[:3])
    return f"{lengths} angstrom and {', '.join(f'{angle:.1f}' for angle in parameters[3:])} degrees"


def _distances(positions: FloatArray, pairs: IntArray, cell: FloatArray | None) -> FloatArray:
    vectors = positions[pairs[:, 1]] - positions[pairs[:, 0]]
    return np.asarray(np.linalg.norm(minimum_image(vectors, cell), axis=1))


def _bonds_by_radii(system: System) -> IntArray:
    """Bonded pairs (nb, 2) of a molecule in vacuum, from its distances and covalent radii."""
    radii = covalent_radii[system.numbers] * ANGSTROM * _BOND_FACTOR
    neighbours = vesin.NeighborList(cutoff=2.0 * float(radii.max()), full_list=False)
    i, j, d = neighbours.compute(
        points=system.positions, box=np.zeros((3, 3)), periodic=False, quantities="ijd"
    )
    hydrogens = (system.numbers[i] == 1) & (system.numbers[j] == 1)
    bonded = (d < radii[i] + radii[j]) & ~hydrogens
    return np.stack([i[bonded], j[bonded]], axis=1).astype(np.int64)
