"""Atoms in the files that i-PI reads and writes, by i-PI's own readers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from ase.data import atomic_numbers

from pidelta.errors import DataError
from pidelta.state import FloatArray, IntArray

_STEP = re.compile(r"Step:\s*(\d+)")
_ISOTOPES = {"D": 1, "T": 1}
_READER_ERRORS = (ValueError, TypeError, IndexError, KeyError, EOFError, StopIteration)


@dataclass(frozen=True)
class Snapshot:
    """One configuration of a trajectory.

    Attributes:
        step: the step of the simulation.
        numbers: (N,) atomic numbers.
        positions: (N, 3) in bohr.
        cell: (3, 3) lattice vectors as rows in bohr.
    """

    step: int
    numbers: IntArray
    positions: FloatArray
    cell: FloatArray


def number_of(name: str) -> int | None:
    """The atomic number that i-PI's name of an atom stands for: an element, D or T; None for other names."""
    return _ISOTOPES.get(name) or atomic_numbers.get(name) or None  # ASE knows X, a dummy, as 0


def is_trajectory_of_ipi(path: Path) -> bool:
    """Whether a file has the comment with units and cell that i-PI writes into .xyz and .pdb."""
    if path.suffix not in (".xyz", ".pdb"):
        return False
    with path.open(encoding="utf-8", errors="replace") as lines:
        return any("positions{" in line or "CELL(" in line for line in islice(lines, 3))


def read_names(path: Path, mode: str) -> tuple[str, ...]:
    """The names of the atoms that a simulation starts from.

    Args:
        path: the file.
        mode: ``xyz`` or ``pdb``, as in the i-PI input.

    Raises:
        DataError: i-PI cannot read the file, or it has fewer atoms than it says.
    """
    from ipi.utils.io import read_file_raw

    with path.open(encoding="utf-8", errors="replace") as file:
        try:
            with redirect_stdout(io.StringIO()):  # where i-PI says that it knows no mass for a name
                names: list[str] = read_file_raw(mode, file)["names"].tolist()
        except _READER_ERRORS as error:
            reason = " ".join(str(error).split()) or "it ends too early"
            raise DataError(f"{path}: expected atoms as i-PI reads them from {mode}: {reason}") from None
    if "" in names:
        raise DataError(f"{path}: expected {len(names)} atoms as line 1 says, found {names.index('')}")
    return tuple(names)


def count_snapshots(path: Path) -> int:
    """How many whole snapshots a trajectory has.

    Raises:
        DataError: as `read_trajectory`.
    """
    with _open(path) as file:
        return sum(1 for _ in _blocks(path, file))


def read_trajectory(path: Path, *, every: int = 1, atoms: IntArray | None = None) -> Iterator[Snapshot]:
    """Read the positions of one bead, one snapshot after the other.

    An incomplete last snapshot, which a running or killed simulation leaves, is passed over.

    Args:
        path: an ``.xyz`` or ``.pdb`` file as i-PI writes it, units and cell in its comment lines.
        every: read each such snapshot.
        atoms: indices of the atoms to read, of an ``.xyz`` file; all by default.

    Raises:
        DataError: the file is missing, is not such a trajectory, has no whole snapshot, or holds something
            else than positions.
    """
    from ipi.utils.io import read_file

    mode = path.suffix.removeprefix(".")
    index = -1
    with _open(path) as file:
        for index, block in enumerate(_blocks(path, file)):
            if index % every:
                continue
            lines = block if atoms is None else _only(block, atoms)
            try:
                with redirect_stdout(io.StringIO()):
                    content = read_file(mode, io.StringIO("".join(lines)), dimension="length")
            except _READER_ERRORS as error:
                reason = " ".join(str(error).split())
                raise DataError(
                    f"{path}: expected positions as i-PI writes them in snapshot {index} ({reason})"
                ) from None
            cell = np.array(content["cell"].h.T, dtype=np.float64)
            if not np.linalg.det(cell) > 0.0:  # without one i-PI takes a cell of negative vectors
                raise DataError(f"{path}: expected a cell in the comment of snapshot {index}, found none")
            step = _STEP.search(content["comment"])
            yield Snapshot(
                step=int(step.group(1)) if step else index,
                numbers=_numbers(content["atoms"].names.tolist(), path),
                positions=np.array(content["atoms"].q, dtype=np.float64).reshape(-1, 3),
                cell=cell,
            )
    if index < 0:
        raise DataError(f"{path}: expected at least one whole snapshot as i-PI writes it, found none")


def _open(path: Path) -> TextIO:
    if path.suffix not in (".xyz", ".pdb"):
        raise DataError(f"{path}: expected a trajectory of i-PI ending in .xyz or .pdb")
    if not path.is_file():
        raise DataError(f"{path}: no such trajectory")
    return path.open(encoding="utf-8", errors="replace")


def _blocks(path: Path, file: TextIO) -> Iterator[list[str]]:
    """The lines of each whole snapshot. A cut-off line, the last one, is shorter than those before."""
    while True:
        block = _xyz_block(path, file) if path.suffix == ".xyz" else _pdb_block(file)
        if not block:
            return
        if not block[-1].endswith("\n") and len(block[-1]) < len(block[-2].rstrip("\n")):
            return
        yield block


def _xyz_block(path: Path, file: TextIO) -> list[str]:
    """The number of atoms, the comment and the atoms; nothing where the file ends before."""
    head = file.readline()
    if not head.strip():
        return []
    if not head.strip().isdecimal():
        raise DataError(f"{path}: expected the number of atoms, found {head.strip()!r}")
    count = int(head)
    lines = [head, *islice(file, count + 1)]
    return lines if len(lines) == count + 2 else []


def _pdb_block(file: TextIO) -> list[str]:
    lines: list[str] = []
    for line in file:
        lines.append(line)
        if line.strip() == "END":
            return [*lines[:-1], "END\n"]
    return []


def _only(block: list[str], atoms: IntArray) -> list[str]:
    """The snapshot of an .xyz file with these atoms alone."""
    return [f"{len(atoms)}\n", block[1], *(block[atom + 2] for atom in atoms)]


def _numbers(names: list[str], path: Path) -> IntArray:
    numbers = [number_of(name) for name in names]
    if None in numbers:
        found = names[numbers.index(None)]
        raise DataError(f"{path}: expected the symbol of an element, found {found!r}")
    return np.array(numbers, dtype=np.int64)
