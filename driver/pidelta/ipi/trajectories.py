"""Atoms in the files that i-PI reads and writes, by i-PI's own readers."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from pidelta.errors import DataError
from pidelta.ipi.frames import READER_ERRORS, FrameFile
from pidelta.state import FloatArray, IntArray

_ISOTOPES = {"D": 1, "T": 1}


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
        except READER_ERRORS as error:
            reason = _fault_of_pdb(path) if mode == "pdb" else ""
            reason = reason or " ".join(str(error).split()) or "it ends too early"
            raise DataError(f"{path}: expected atoms as i-PI reads them from {mode}: {reason}") from None
    if "" in names:
        raise DataError(f"{path}: expected {len(names)} atoms as line 1 says, found {names.index('')}")
    return tuple(names)


def _fault_of_pdb(path: Path) -> str:
    """The first line that i-PI's reader of PDB takes for something else; '' if there is none."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        line, first = next(lines, ""), 1
        if "TITLE" in line:
            line, first = next(lines, ""), 2
        if not line.startswith("CRYST1"):
            found = line.strip()[:30]
            return f"line {first}: expected CRYST1 with the cell, first or after one TITLE, found {found!r}"
        for number, line in enumerate(lines, first + 1):
            if line.strip() in ("", "END"):
                break
            if not line.startswith(("ATOM", "HETATM")):
                return f"line {number}: expected ATOM, HETATM or END, found {line.strip()[:30]!r}"
    return ""


def read_trajectory(path: Path, *, every: int = 1, atoms: IntArray | None = None) -> Iterator[Snapshot]:
    """Read the positions of one bead, one snapshot after the other.

    An incomplete last snapshot, which a running or killed simulation leaves, is passed over, and snapshots
    that were computed again after a restart replace the old ones.

    Args:
        path: a file as i-PI writes it, units and cell in its comments.
        every: read each such snapshot.
        atoms: indices of the atoms to read; all by default.

    Raises:
        DataError: the file is missing, is not such a trajectory, has no whole snapshot, or holds something
            else than positions.
    """
    file = FrameFile(path)
    numbers = _numbers(file.names, path)
    numbers = numbers if atoms is None else numbers[atoms]
    for index in range(0, len(file), every):
        positions, cell = file.read(index, atoms)
        yield Snapshot(int(file.steps[index]), numbers, positions, cell)


def _numbers(names: Sequence[str], path: Path) -> IntArray:
    numbers = [number_of(name) for name in names]
    if None in numbers:
        found = names[numbers.index(None)]
        raise DataError(f"{path}: expected the symbol of an element, found {found!r}")
    return np.array(numbers, dtype=np.int64)
