"""Where snapshots are in files of i-PI's formats, and what they say, by the ending of a file's name.

Lines of one length, as i-PI writes them in xyz, are cut into columns; pdb and extended xyz go to the readers
of i-PI and ASE.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pidelta.errors import DataError
from pidelta.state import FloatArray, IntArray

_STEP = re.compile(r"Step:\s*(\d+)")
UNIT = re.compile(r"(\w+)\{([^}]*)\}")
_NAME_WIDTH = 8
_NUMBER_WIDTH = 13
"""With the blank before it."""
_DIGITS = [2, 4, 5, 6, 7, 8, 11, 12]
"""Where a number has its digits, those of the power of ten last."""


@dataclass(frozen=True)
class Place:
    """Where a snapshot is: its first byte, its length, and its step; None without one in the comment.

    One that is not whole was being written when a run was killed, which went on in the same file.
    """

    start: int
    size: int
    step: int | None
    is_whole: bool = True


def _step_of(comment: str) -> int | None:
    match = _STEP.search(comment)
    return int(match.group(1)) if match else None


Content = tuple[tuple[str, ...], FloatArray, FloatArray, str]


def _xyz_places(path: Path, file: BinaryIO) -> Iterator[Place]:
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
                yield Place(start, next_start - start, None, is_whole=False)
                file.seek(next_start)
                continue
            file.seek(after)
            lines = [comment, first, *(file.readline() for _ in range(count - 1))]
            cut = len(lines[-1]) < len(lines[-2].rstrip(b"\n")) and not lines[-1].endswith(b"\n")
            if not lines[-1] or cut:
                return
        yield Place(start, file.tell() - start, _step_of(comment.decode(errors="replace")))


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


def _pdb_places(path: Path, file: BinaryIO) -> Iterator[Place]:
    """Snapshots end with END."""
    start, step = 0, None
    for line in iter(file.readline, b""):
        column = line.rfind(b"TITLE ")  # where the next begins, after what a killed run left of this one
        if column > 0 or (column == 0 and step is not None):
            title = file.tell() - len(line) + column
            yield Place(start, title - start, None, is_whole=False)
            start, step, line = title, None, line[column:]
        if step is None:
            step = _step_of(line.decode(errors="replace"))
        if line.strip() == b"END":
            yield Place(start, file.tell() - start, step)
            start, step = file.tell(), None


def _binary_places(path: Path, file: BinaryIO) -> Iterator[Place]:
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
        yield Place(start, size, _step_of(title))
        start += size


def _parse_xyz(raw: bytes, atoms: IntArray | None, with_names: bool) -> Content:
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


def _parse_slowly(mode: str, raw: bytes, atoms: IntArray | None) -> Content:
    """By i-PI's own reader; a pdb file that says no unit is in angstrom."""
    from ipi.utils.io import read_file_raw

    content = read_file_raw(mode, io.StringIO(raw.decode(errors="replace")))
    values = np.reshape(content["data"], (-1, 3))
    comment = content["comment"]
    if mode == "pdb" and not UNIT.search(comment):
        comment += " positions{angstrom} cell{angstrom}"
    return tuple(content["names"]), values if atoms is None else values[atoms], content["cell"], comment


def _parse_pdb(raw: bytes, atoms: IntArray | None, with_names: bool) -> Content:
    return _parse_slowly("pdb", raw, atoms)


def _parse_extended(raw: bytes, atoms: IntArray | None, with_names: bool) -> Content:
    """By ASE, whose forces come as results of a calculator."""
    from ase.io import read

    frame: Any = read(io.StringIO(raw.decode(errors="replace")), format="extxyz")
    comment = str(frame.info.get("ipi_comment", ""))
    quantity = next((name for name in dict(UNIT.findall(comment)) if name != "cell"), "positions")
    arrays = frame.arrays | (frame.calc.results if frame.calc is not None else {})
    values = np.asarray(arrays[quantity], dtype=np.float64)
    cell = np.array(frame.cell.array.T, dtype=np.float64)
    return tuple(frame.get_chemical_symbols()), values if atoms is None else values[atoms], cell, comment


def _parse_binary(raw: bytes, atoms: IntArray | None, with_names: bool) -> Content:
    cell = np.frombuffer(raw, np.float64, 9).reshape(3, 3)
    count = int(np.frombuffer(raw, np.int64, 1, 72)[0])
    values = np.frombuffer(raw, np.float64, 3 * count, 80).reshape(count, 3)
    after = 80 + 24 * count
    length = int(np.frombuffer(raw, np.int64, 1, after)[0])
    text = raw[after + 8 :].decode("utf-32-le")
    if not 0 < length < len(text):
        raise ValueError(f"names of {length} letters")
    return tuple(text[:length].split("|")), values if atoms is None else values[atoms], cell, text[length:]


PLACES = {".xyz": _xyz_places, ".extxyz": _xyz_places, ".pdb": _pdb_places, ".bin": _binary_places}
PARSERS = {".xyz": _parse_xyz, ".extxyz": _parse_extended, ".pdb": _parse_pdb, ".bin": _parse_binary}
