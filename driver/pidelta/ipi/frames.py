"""Trajectories of i-PI as files that are indexed first, so that any snapshot is read when it is needed.

i-PI's own reader goes through a file atom by atom, which takes minutes for the beads of a liquid.
"""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from functools import cached_property
from pathlib import Path

import numpy as np

from pidelta.errors import DataError
from pidelta.ipi.frame_formats import PARSERS, PLACES, UNIT, Place
from pidelta.ipi.superseded import goes_on, not_superseded, superseded_note
from pidelta.state import FloatArray, IntArray

_DIMENSIONS = {
    "positions": "length",
    "x_centroid": "length",
    "r_gyration": "length",
    "velocities": "velocity",
    "v_centroid": "velocity",
    "momenta": "momentum",
    "p_centroid": "momentum",
    "forces": "force",
    "f_centroid": "force",
    "kinetic_cv": "energy",
    "kinetic_od": "energy",
}
"""Of the quantities that have three numbers an atom and can be read here."""

SUFFIXES = {"xyz": ".xyz", "pdb": ".pdb", "ase": ".extxyz", "bin": ".bin"}
"""What i-PI's formats end in."""

_EXTRAS = re.compile(r" ?#EXTRAS\((.*?)\)# Step:\s*(\d+)\s*$", re.MULTILINE)
READER_ERRORS = (ValueError, TypeError, IndexError, KeyError, EOFError, StopIteration, OverflowError)
"""What i-PI's and ASE's readers raise where a file is not as they expect it."""


class FrameFile:
    """The snapshots of one file, in the order of steps.

    Where the steps go back, because a killed run was continued from an older checkpoint, the snapshots that
    were computed again replace the old ones. An incomplete one is passed over, the last or where a killed run
    was continued.

    Args:
        path: a file ending in .xyz, .pdb, .extxyz or .bin, as i-PI writes them.
        quantity: i-PI's name of what it holds.

    Attributes:
        steps: (n,) of the simulation.
        is_cut_off: whether there is an incomplete last snapshot.
        notes: on other snapshots that do not count, a line each.

    Raises:
        DataError: the file is missing, is no such trajectory, or has no whole snapshot.
    """

    def __init__(self, path: Path, quantity: str = "positions") -> None:
        if path.suffix not in SUFFIXES.values():
            raise DataError(f"{path}: expected a trajectory of i-PI ending in {', '.join(SUFFIXES.values())}")
        if not path.is_file():
            raise DataError(f"{path}: no such trajectory")
        self.path = path
        self.quantity = quantity
        with path.open("rb") as file:
            found = list(PLACES[path.suffix](path, file))
            places = [place for place in found if place.is_whole]
            end = places[-1].start + places[-1].size if places else 0
            file.seek(end)
            self.is_cut_off = bool(file.read(4096).strip())
        if not places:
            raise DataError(f"{path}: expected at least one whole snapshot as i-PI writes it, found none")
        steps = np.array([i if place.step is None else place.step for i, place in enumerate(places)])
        keep = not_superseded(steps)
        self.notes = tuple(filter(None, [self._cuts(found), superseded_note(steps, keep, "snapshots")]))
        self._places = [places[index] for index in keep]
        self.steps: IntArray = steps[keep].astype(np.int64)
        self._factors: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def _cuts(self, found: list[Place]) -> str:
        """What is to be said of snapshots that are not whole; '' where all are.

        Raises:
            DataError: a run did not go on after one.
        """
        steps: list[int] = []
        for before, place in zip([None, *found], found, strict=False):
            if not place.is_whole:
                continue
            if before is not None and not before.is_whole and not goes_on(steps, place.step):
                raise DataError(
                    f"{self.path}: expected a whole snapshot before step {place.step}, found part of one"
                )
            steps += [] if place.step is None else [place.step]
        count = sum(not place.is_whole for place in found)
        return f"snapshots that a killed run did not finish are left out: {count}" if count else ""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the atoms, of the first snapshot."""
        return self._parse(0, None)[0]

    def read(self, index: int, atoms: IntArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Read one snapshot.

        Args:
            index: from 0.
            atoms: (M,) the atoms to read; all by default.

        Returns:
            (M, 3) values in atomic units, and the (3, 3) cell, lattice vectors as rows in bohr.

        Raises:
            DataError: it is malformed, in an unknown unit, has no cell, holds something else, or what is not
                finite.
        """
        _, values, cell, comment = self._parse(index, atoms)
        scale, cell_scale = self._scales(comment, index)
        cell = cell.T * cell_scale
        if not np.linalg.det(cell) > 0.0:  # without one i-PI takes a cell of negative vectors
            raise DataError(f"{self.path}: expected a cell in the comment of snapshot {index}, found none")
        self._check_finite(values, index, atoms)
        return values * scale, cell

    def _parse(
        self, index: int, atoms: IntArray | None
    ) -> tuple[tuple[str, ...], FloatArray, FloatArray, str]:
        """Names, values (M, 3) and cell (columns) as written, and the comment."""
        place = self._places[index]
        with self.path.open("rb") as file:
            file.seek(place.start)
            raw = file.read(place.size)
        try:
            with redirect_stdout(io.StringIO()):  # where i-PI says that it knows no mass for a name
                return PARSERS[self.path.suffix](raw, atoms, index == 0)
        except READER_ERRORS as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{self.path}: expected {self.quantity} as i-PI writes them in snapshot {index} ({reason})"
            ) from None

    def _check_finite(self, values: FloatArray, index: int, atoms: IntArray | None) -> None:
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(wrong):
            row = wrong[0]
            atom = row if atoms is None else atoms[row]
            found = " ".join(f"{value:.6g}" for value in values[row])
            raise DataError(
                f"{self.path}: expected finite {self.quantity} of atom {atom} in snapshot {index} "
                f"(step {self.steps[index]}), found {found}"
            )

    def _scales(self, comment: str, index: int) -> tuple[float, float]:
        """Atomic units per unit of the values and of the cell."""
        from ipi.utils.units import unit_to_internal

        found = UNIT.findall(comment)
        key = str(found)
        if key not in self._factors:
            units = dict(found)
            cell_unit = units.pop("cell", "atomic_unit")
            quantity = next(iter(units), self.quantity)
            if quantity != self.quantity:
                raise DataError(
                    f"{self.path}: expected {self.quantity} as i-PI writes them in snapshot {index}, "
                    f"found {quantity}"
                )
            try:
                with redirect_stdout(io.StringIO()):
                    self._factors[key] = (
                        unit_to_internal(_DIMENSIONS[quantity], units.get(quantity, "atomic_unit"), 1.0),
                        unit_to_internal("length", cell_unit, 1.0),
                    )
            except (KeyError, TypeError, ValueError):
                raise DataError(
                    f"{self.path}: expected units that i-PI knows in snapshot {index}, found {comment!r}"
                ) from None
        return self._factors[key]


def read_extras(path: Path) -> tuple[IntArray, FloatArray]:
    """Read extras that were picked out by ``extra_type``: steps (n,) and values (n, k) in atomic units.

    What is not whole, the last or where a killed run was continued, is passed over.

    Raises:
        DataError: the file is missing, or holds other than k finite numbers a step.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path}: cannot read the extras: {error.strerror}") from error
    heads = list(_EXTRAS.finditer(text))
    ends = [match.start() for match in heads[1:]] + [len(text)]
    rows: list[list[float]] = []
    steps: list[int] = []
    is_cut = False
    for match, end in zip(heads, ends, strict=True):
        block, step = text[match.end() : end], int(match.group(2))
        if is_cut and not goes_on(steps, step):
            raise DataError(f"{path}: expected whole extras before those of step {step}, found part of them")
        is_cut = not block.endswith("\n") or not block.strip()
        block = block[: block.rfind("\n") + 1]
        if is_cut and not (rows and len(block.split()) == len(rows[0])):
            continue
        try:
            rows.append([float(word) for word in block.split()])
            is_finite = bool(np.isfinite(rows[-1]).all())
        except ValueError:
            is_finite = False
        if not is_finite:
            raise DataError(f"{path}: step {step}: expected finite numbers, found {block.strip()!r:.60}")
        steps.append(step)
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise DataError(f"{path}: expected extras of one length, as i-PI writes those of an extra_type")
    keep = not_superseded(np.array(steps))
    return np.array(steps, dtype=np.int64)[keep], np.array(rows)[keep]
