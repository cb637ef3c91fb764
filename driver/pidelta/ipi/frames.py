"""Trajectories of i-PI as files that are indexed first, so that any snapshot is read when it is needed.

i-PI's own reader goes through a file atom by atom, which takes minutes for the beads of a liquid. Lines of
one length, as i-PI writes them, are cut into columns here; pdb and extended xyz go to the readers of i-PI and
ASE.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pidelta.errors import DataError
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

_STEP = re.compile(r"Step:\s*(\d+)")
_UNIT = re.compile(r"(\w+)\{([^}]*)\}")
_EXTRAS = re.compile(r" ?#EXTRAS\((.*?)\)# Step:\s*(\d+)\s*$", re.MULTILINE)
READER_ERRORS = (ValueError, TypeError, IndexError, KeyError, EOFError, StopIteration, OverflowError)
"""What i-PI's and ASE's readers raise where a file is not as they expect it."""
_NAME_WIDTH = 8
_NUMBER_WIDTH = 13
"""With the blank before it."""
_DIGITS = [2, 4, 5, 6, 7, 8, 11, 12]
"""Where a number has its digits, those of the power of ten last."""


@dataclass(frozen=True)
class _Place:
    """Where a snapshot is: its first byte, its length, and its step; None without one in the comment.

    One that is not whole was being written when a run was killed, which went on in the same file.
    """

    start: int
    size: int
    step: int | None
    is_whole: bool = True


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
            found = list(_PLACES[path.suffix](path, file))
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

    def _cuts(self, found: list[_Place]) -> str:
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
                return _PARSERS[self.path.suffix](raw, atoms, index == 0)
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

        found = _UNIT.findall(comment)
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


def not_superseded(steps: IntArray | FloatArray) -> IntArray:
    """Indices of the rows after which the step only grows."""
    least_later = np.minimum.accumulate(np.append(steps[1:], np.inf)[::-1])[::-1]
    return np.flatnonzero(steps < least_later)


def goes_on(steps: Sequence[float], step: float | None) -> bool:
    """Whether what has a step may follow what was cut off: a killed run goes on from a checkpoint before it.

    Args:
        steps: (n,) or times, of what was written before the cut.
        step: of what was written after it.
    """
    return step is not None and (len(steps) < 2 or step < steps[-1] + 1.5 * abs(steps[1] - steps[0]))


def superseded_note(steps: IntArray | FloatArray, keep: IntArray, what: str) -> str:
    """What is to be said of rows or snapshots that are replaced by later ones; '' where there are none.

    Args:
        steps: (n,), or times.
        keep: what `not_superseded` leaves of them.
        what: they are.
    """
    if len(keep) == len(steps):
        return ""
    text = f"{len(steps) - len(keep)} of {len(steps)} {what} come again further on, and the later ones count"
    anew = np.flatnonzero(steps[1:] <= steps[0]) + 1
    if not len(anew):
        return text
    return f"{text}; number {anew[0] + 1} begins anew: are outputs of several runs joined?"


def _step_of(comment: str) -> int | None:
    match = _STEP.search(comment)
    return int(match.group(1)) if match else None


_Content = tuple[tuple[str, ...], FloatArray, FloatArray, str]


def _xyz_places(path: Path, file: BinaryIO) -> Iterator[_Place]:
    """Jump over the atoms of a snapshot if its lines have one length, else read them."""
    usual = b""
    while True:
        start = file.tell()
        head = file.readline()
        if not head.strip():
            return
        usual = usual or head
        if not head.strip().isdigit():
            text = head.strip().decode(errors="replace")
            raise DataError(f"{path}: expected the number of atoms, found {text!r}")
        count, comment, first = int(head), file.readline(), file.readline()
        after = file.tell()
        if b"Step:" in first or not _jump(file, first, after + len(first) * (count - 1), usual):
            file.seek(start)
            next_start = _head_within(file, usual)
            if next_start is not None:
                yield _Place(start, next_start - start, None, is_whole=False)
                file.seek(next_start)
                continue
            file.seek(after)
            lines = [comment, first, *(file.readline() for _ in range(count - 1))]
            cut = len(lines[-1]) < len(lines[-2].rstrip(b"\n")) and not lines[-1].endswith(b"\n")
            if not lines[-1] or cut:
                return
        yield _Place(start, file.tell() - start, _step_of(comment.decode(errors="replace")))


def _head_within(file: BinaryIO, head: bytes) -> int | None:
    """Where another snapshot begins before the end of the one that begins here; None where none does.

    It may begin within a line, which ends with the number of atoms; i-PI's comment follows.

    Args:
        file: at the beginning of a snapshot.
        head: the line with the number of atoms.
    """
    line = file.readline()
    is_first = line == head
    for _ in range(int(head) + 2):
        following = file.readline()
        if not is_first and b"Step:" in following and line.endswith(head):
            return file.tell() - len(following) - len(head)
        line, is_first = following, False
    return None


def _jump(file: BinaryIO, line: bytes, end: int, head: bytes) -> bool:
    """Go to `end`, where a snapshot ends if all its lines are as long as `line`; False if it does not."""
    if not line.endswith(b"\n"):
        return False
    file.seek(end - 1)
    found = file.read(1 + len(head))
    if found[:1] != b"\n" or found[1:] not in (b"", head):
        return False
    file.seek(end)
    return True


def _pdb_places(path: Path, file: BinaryIO) -> Iterator[_Place]:
    """Snapshots end with END."""
    start, step = 0, None
    for line in iter(file.readline, b""):
        column = line.rfind(b"TITLE ")  # where the next begins, after what a killed run left of this one
        if column > 0 or (column == 0 and step is not None):
            title = file.tell() - len(line) + column
            yield _Place(start, title - start, None, is_whole=False)
            start, step, line = title, None, line[column:]
        if step is None:
            step = _step_of(line.decode(errors="replace"))
        if line.strip() == b"END":
            yield _Place(start, file.tell() - start, step)
            start, step = file.tell(), None


def _binary_places(path: Path, file: BinaryIO) -> Iterator[_Place]:
    """Cell, number of atoms, values, length of the names, names, title, which ends with the cell's unit."""
    size = None
    length = path.stat().st_size
    start = 0
    while size is None or start + size <= length:
        if size is None:
            if length < 80:
                return
            file.seek(72)
            n_atoms = int(np.frombuffer(file.read(8), np.int64)[0])
            if not 0 < n_atoms < length // 24:
                raise DataError(f"{path}: expected a trajectory of i-PI in binary format")
            file.seek(80 + 24 * n_atoms)
            n_names = int(np.frombuffer(file.read(8), np.int64)[0])
            title_at = 88 + 24 * n_atoms + 4 * n_names
            file.seek(title_at)
            match = re.match(r".*?cell\{[^}]*\}", file.read(2000).decode("utf-32-le", errors="ignore"))
            if match is None:
                return
            size = title_at + 4 * len(match.group())
            continue
        file.seek(start + title_at)
        title = file.read(size - title_at).decode("utf-32-le", errors="ignore")
        if not title.endswith("}"):
            raise DataError(
                f"{path}: expected snapshots of {size} bytes each, as the first, found another at byte "
                f"{start}: was a run killed while it wrote one?"
            )
        yield _Place(start, size, _step_of(title))
        start += size


def _parse_xyz(raw: bytes, atoms: IntArray | None, with_names: bool) -> _Content:
    """Columns of lines of one length, and words otherwise; the cell by i-PI's reader."""
    from ipi.utils.io.backends.io_xyz import read_xyz

    head, _, rest = raw.partition(b"\n")
    comment, _, body = rest.partition(b"\n")
    text, count = comment.decode(errors="replace"), int(head)
    if "GENH" in text:
        return _parse_slowly("xyz", raw, atoms)
    table = _table(body, count)
    names: tuple[str, ...] = ()
    if table is not None:
        chosen = table if atoms is None else table[atoms]
        values = _numbers(chosen[:, _NAME_WIDTH:])
        if with_names:
            names = tuple(row.tobytes().decode().strip() for row in table[:, :_NAME_WIDTH])
    else:
        words = np.array(body.split()).reshape(count, 4)
        values = words[:, 1:].astype(np.float64)
        values = values if atoms is None else values[atoms]
        names = tuple(word.decode() for word in words[:, 0])
    cell = read_xyz(io.StringIO(f"1\n{text}\nH 0 0 0\n"))[1]
    return names, values, cell, text


def _table(body: bytes, count: int) -> npt.NDArray[np.uint8] | None:
    """(count, width) characters of lines with i-PI's columns, %8s and three of %12.5e; None of others."""
    width = body.find(b"\n") + 1
    if width < _NAME_WIDTH + 6 or len(body) != count * width:
        return None
    table = np.frombuffer(body, np.uint8).reshape(count, width)
    ends = table[:, -1] == ord("\n")
    names = (table[:, _NAME_WIDTH - 1] > ord(" ")) & (table[:, _NAME_WIDTH] == ord(" "))
    letters = table[:, _NAME_WIDTH - 1] > ord("9")  # no name ends in a digit, numbers do
    return table if bool((ends & names & letters).all()) else None


def _numbers(table: npt.NDArray[np.uint8]) -> FloatArray:
    """The three numbers of each line, of characters such as ``  1.23450e+01 -2.00000e-03  0.00000e+00\\n``.

    Raises:
        ValueError: there is something else.
    """
    if table.shape[1] == 3 * _NUMBER_WIDTH + 1:
        numbers = table[:, :-1].reshape(-1, _NUMBER_WIDTH)
        digits = numbers[:, _DIGITS] - np.uint8(ord("0"))  # other characters wrap around to more than 9
        points = (numbers[:, 3] == ord(".")) & (numbers[:, 9] == ord("e"))
        minus, negative_power = numbers[:, 1] == ord("-"), numbers[:, 10] == ord("-")
        signs = (minus | (numbers[:, 1] == ord(" "))) & (negative_power | (numbers[:, 10] == ord("+")))
        if (digits <= 9).all() and (points & signs).all():
            mantissas = digits[:, :6].astype(np.int64) @ (10 ** np.arange(5, -1, -1))
            powers = digits[:, 6].astype(np.int64) * 10 + digits[:, 7]
            scaled = mantissas * 10.0 ** (np.where(negative_power, -powers, powers) - 5)
            return np.asarray(np.where(minus, -scaled, scaled)).reshape(len(table), 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy deprecates text that ends early: it is an error here, too
        try:
            values = np.fromstring(table.tobytes(), sep=" ")
        except DeprecationWarning:
            raise ValueError("expected three numbers an atom") from None
    return values.reshape(len(table), 3)


def _parse_slowly(mode: str, raw: bytes, atoms: IntArray | None) -> _Content:
    """By i-PI's own reader; a pdb file that says no unit is in angstrom."""
    from ipi.utils.io import read_file_raw

    content = read_file_raw(mode, io.StringIO(raw.decode(errors="replace")))
    values = np.reshape(content["data"], (-1, 3))
    comment = content["comment"]
    if mode == "pdb" and not _UNIT.search(comment):
        comment += " positions{angstrom} cell{angstrom}"
    return tuple(content["names"]), values if atoms is None else values[atoms], content["cell"], comment


def _parse_pdb(raw: bytes, atoms: IntArray | None, with_names: bool) -> _Content:
    return _parse_slowly("pdb", raw, atoms)


def _parse_extended(raw: bytes, atoms: IntArray | None, with_names: bool) -> _Content:
    """By ASE, whose forces come as results of a calculator."""
    from ase.io import read

    frame: Any = read(io.StringIO(raw.decode(errors="replace")), format="extxyz")
    comment = str(frame.info.get("ipi_comment", ""))
    quantity = next((name for name in dict(_UNIT.findall(comment)) if name != "cell"), "positions")
    arrays = frame.arrays | (frame.calc.results if frame.calc is not None else {})
    values = np.asarray(arrays[quantity], dtype=np.float64)
    cell = np.array(frame.cell.array.T, dtype=np.float64)
    return tuple(frame.get_chemical_symbols()), values if atoms is None else values[atoms], cell, comment


def _parse_binary(raw: bytes, atoms: IntArray | None, with_names: bool) -> _Content:
    cell = np.frombuffer(raw, np.float64, 9).reshape(3, 3)
    count = int(np.frombuffer(raw, np.int64, 1, 72)[0])
    values = np.frombuffer(raw, np.float64, 3 * count, 80).reshape(count, 3)
    after = 80 + 24 * count
    length = int(np.frombuffer(raw, np.int64, 1, after)[0])
    text = raw[after + 8 :].decode("utf-32-le")
    if not 0 < length < len(text):
        raise ValueError(f"names of {length} letters")
    return tuple(text[:length].split("|")), values if atoms is None else values[atoms], cell, text[length:]


_PLACES = {".xyz": _xyz_places, ".extxyz": _xyz_places, ".pdb": _pdb_places, ".bin": _binary_places}
_PARSERS = {".xyz": _parse_xyz, ".extxyz": _parse_extended, ".pdb": _parse_pdb, ".bin": _parse_binary}
