"""Structure files: GROMACS .gro, .pdb, AMBER restarts and CHARMM .crd through ParmEd, .xyz through ASE."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import parmed
from ase.data import atomic_numbers, chemical_symbols
from ase.geometry import cellpar_to_cell
from parmed.charmm import CharmmCrdFile

from pidelta.core.cell import FARTHEST, is_cell, usable
from pidelta.errors import StructureError
from pidelta.state import FloatArray, IntArray, System
from pidelta.units import ANGSTROM

_AMBER_RESTARTS = (".rst7", ".inpcrd", ".ncrst")
_COORDINATES_ONLY = (*_AMBER_RESTARTS, ".nc", ".crd")
_PARMED = (".gro", ".pdb")
_KNOWN = (*_PARMED, ".xyz", *_COORDINATES_ONLY)


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

    def select(self, rows: IntArray) -> Labels:
        """The labels of some rows."""
        return Labels(
            tuple(self.names[row] for row in rows),
            tuple(self.residue_names[row] for row in rows),
            self.residue_numbers[rows],
            tuple(self.segments[row] for row in rows),
        )


@dataclass(frozen=True)
class Coordinates:
    """What a file says of the atoms of a topology.

    Attributes:
        positions: (N, 3) in bohr.
        cell: (3, 3) lattice rows in bohr, or None.
        labels: None where the file names no residues.
    """

    positions: FloatArray
    cell: FloatArray | None
    labels: Labels | None


def read_structure(path: Path) -> System:
    """Read atoms, positions and the cell.

    Raises:
        StructureError: the file is missing, malformed, of a type that names no elements, or a coordinate is
            not finite.
    """
    if path.suffix in _COORDINATES_ONLY:
        raise StructureError(f"{path}: a {path.suffix} file names no elements; it needs a section mm")
    content = _load(path)
    return _from_ase(content) if isinstance(content, ase.Atoms) else _from_parmed(content)


def without_massless(system: System) -> System:
    """The system without rows of no element, such as the virtual sites of a four-point model of water."""
    real = np.flatnonzero(system.numbers > 0)
    return System(
        numbers=system.numbers[real],
        positions=system.positions[real],
        cell=system.cell,
        names=tuple(system.names[i] for i in real),
        residue_names=tuple(system.residue_names[i] for i in real),
        residue_indices=system.residue_indices[real],
        residue_numbers=system.residue_numbers[real],
        segments=tuple(system.segments[i] for i in real),
    )


def read_coordinates(path: Path, numbers: IntArray, massless_rows: IntArray) -> Coordinates:
    """Read positions, the cell and labels for a topology of elements `numbers` (N,).

    Elements and names come from the topology then, so files without them (AMBER restarts, CHARMM .crd) will
    do. A file may list virtual sites, `massless_rows` of it, or leave them all out; where they are follows
    from the atoms.

    Raises:
        StructureError: as `read_structure`, and where the file does not hold N atoms or names other elements.
    """
    count = len(numbers)
    if path.suffix in _COORDINATES_ONLY:
        restart = _load(path)
        positions, cell = _coordinates(restart), _cell(getattr(restart, "box", None))
        labels = _crd_labels(restart) if isinstance(restart, CharmmCrdFile) else None
        found = np.zeros(len(positions), dtype=np.int64)
    else:
        system = read_structure(path)
        positions, cell = system.positions, system.cell
        labels = None
        if path.suffix in _PARMED:
            labels = Labels(system.names, system.residue_names, system.residue_numbers, system.segments)
        found = _named_elements(path, system)
    rows = np.arange(len(positions))
    if len(massless_rows) and len(positions) == count + len(massless_rows):
        rows = np.delete(rows, massless_rows)
    if len(rows) != count:
        raise StructureError(f"{path}: expected {count} atoms as in the topology, found {len(positions)}")
    _refuse_other_elements(path, rows, numbers, found[rows])
    return Coordinates(positions[rows], cell, None if labels is None else labels.select(rows))


def _crd_labels(restart: Any) -> Labels:
    """RESID is the number in the segment, as in the .psf file; it may end in an insertion code."""
    resids = [re.match(r"-?\d+", resid) for resid in restart.resid]
    numbers = [
        int(found.group()) if found else ordinal for found, ordinal in zip(resids, restart.resno, strict=True)
    ]
    return Labels(
        tuple(restart.atname), tuple(restart.resname), np.array(numbers, dtype=np.int64), tuple(restart.segid)
    )


def _named_elements(path: Path, system: System) -> IntArray:
    """(M,) atomic numbers of the rows of a file, 0 where it names no element and the reader guessed."""
    unknown = np.zeros(len(system), dtype=np.int64)
    if path.suffix == ".xyz":
        return system.numbers
    if path.suffix != ".pdb":
        return unknown
    first_model = path.read_text(encoding="utf-8", errors="replace").split("\nENDMDL")[0].splitlines()
    symbols = [line[76:78].strip() for line in first_model if line.startswith(("ATOM", "HETATM"))]
    if len(symbols) != len(system):  # alternate locations
        return unknown
    return np.array([atomic_numbers.get(symbol.capitalize(), 0) for symbol in symbols], dtype=np.int64)


def _refuse_other_elements(path: Path, rows: IntArray, expected: IntArray, found: IntArray) -> None:
    wrong = np.flatnonzero((found > 0) & (found != expected))
    if len(wrong):
        first = wrong[0]
        raise StructureError(
            f"{path}: expected {chemical_symbols[expected[first]]} at atom {rows[first]} as in the topology, "
            f"found {chemical_symbols[found[first]]}"
        )


def _load(path: Path) -> Any:
    """ASE atoms from .xyz, ParmEd's structure or restart from the others."""
    if not path.is_file():
        raise StructureError(f"{path}: no such structure file")
    if path.suffix not in _KNOWN:
        raise StructureError(
            f"{path}: expected a structure ending in {', '.join(_KNOWN)}, found {path.suffix!r}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path.suffix == ".xyz":
                _refuse_ipi_comment(path)
                content: Any = ase.io.read(path, format="extxyz", index=0)
                coordinates = content.positions
            else:
                _refuse_bad_fields(path)
                content = parmed.load_file(str(path))
                coordinates = content.coordinates
    except StructureError:
        raise
    except Exception as error:  # the readers raise whatever their parsing hits
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise StructureError(f"{path}: cannot be read as {path.suffix} ({reason})") from None
    if coordinates is None or np.size(coordinates) == 0:
        raise StructureError(f"{path}: expected atoms, found none")
    bad = np.flatnonzero(~usable(np.reshape(coordinates, (-1, 3)) * ANGSTROM))
    if len(bad):
        raise StructureError(
            f"{path}: expected finite coordinates below {FARTHEST:g} bohr, found others at atom {bad[0]}"
        )
    _check_cell(path, content)
    return content


def _check_cell(path: Path, content: Any) -> None:
    """A cell is three independent vectors, or none at all."""
    is_ase = isinstance(content, ase.Atoms)
    box = content.cell.array if is_ase else content.box
    if box is None or not np.any(np.asarray(box)[:3]):
        return
    try:
        cell = box if is_ase else _cell(box)
    except AssertionError:  # angles that no three vectors have
        cell = None
    if cell is None or not is_cell(np.asarray(cell)):
        found = np.asarray(box).tolist()
        raise StructureError(f"{path}: expected a cell of three independent vectors, found {found}")


def _refuse_ipi_comment(path: Path) -> None:
    """i-PI puts the unit and the cell into a comment that ASE does not read: both would be lost."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        comment = "".join(islice(lines, 1, 2))
    if "CELL(" in comment or "positions{" in comment:
        raise StructureError(f"{path}: expected a plain or extended .xyz in angstrom, found one of i-PI")


def _refuse_bad_fields(path: Path) -> None:
    """ParmEd skips coordinates of a restart that it cannot read, and takes what is left of a cut-off line."""
    with path.open("rb") as file:
        if file.read(3) == b"CDF":  # NetCDF
            return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if path.suffix == ".gro" and (
        len(lines) < int(lines[1]) + 3 or len(lines[int(lines[1]) + 2].split()) < 3
    ):
        raise StructureError(f"{path}: expected {int(lines[1])} atoms and the box, found {len(lines)} lines")
    rows: Iterable[tuple[int, str]] = []  # atoms and the columns of their coordinates
    width = 8
    if path.suffix == ".pdb":
        records = [line for line in lines if line.startswith(("ATOM", "HETATM"))]
        rows = enumerate(record[30:54] for record in records)
    elif path.suffix in _AMBER_RESTARTS:
        width = 12
        count = int(lines[1].split()[0])
        rows = ((atom, lines[2 + atom // 2][36 * (atom % 2) :][:36]) for atom in range(count))
    for atom, text in rows:
        for start in range(0, 3 * width, width):
            column = text[start : start + width]
            if len(column) < width or not _is_number(column):
                raise StructureError(
                    f"{path}: expected a coordinate in {width} columns, found {column!r} at atom {atom}"
                )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _from_ase(atoms: ase.Atoms) -> System:
    count = len(atoms)
    return System(
        numbers=np.asarray(atoms.numbers, dtype=np.int64),
        positions=np.asarray(atoms.positions, dtype=np.float64) * ANGSTROM,
        cell=np.asarray(atoms.cell.array, dtype=np.float64) * ANGSTROM if atoms.cell.rank == 3 else None,
        names=tuple(atoms.symbols),
        residue_names=("UNK",) * count,
        residue_indices=np.zeros(count, dtype=np.int64),
        residue_numbers=np.ones(count, dtype=np.int64),
        segments=("",) * count,
    )


def _from_parmed(content: parmed.Structure) -> System:
    atoms = content.atoms
    segments = [(atom.residue.segid or "").strip() for atom in atoms]
    if not any(segments):
        segments = [(atom.residue.chain or "").strip() for atom in atoms]
    return System(
        numbers=np.asarray([atom.atomic_number for atom in atoms], dtype=np.int64),
        positions=_coordinates(content),
        cell=_cell(content.box),
        names=tuple(atom.name for atom in atoms),
        residue_names=tuple(atom.residue.name for atom in atoms),
        residue_indices=np.asarray([atom.residue.idx for atom in atoms], dtype=np.int64),
        residue_numbers=np.asarray([atom.residue.number for atom in atoms], dtype=np.int64),
        segments=tuple(segments),
    )


def _coordinates(content: parmed.Structure) -> FloatArray:
    return np.reshape(np.asarray(content.coordinates, dtype=np.float64), (-1, 3)) * ANGSTROM


def _cell(box: FloatArray | None) -> FloatArray | None:
    """Lattice rows from lengths (angstrom) and angles (degrees)."""
    if box is None or not np.all(np.ravel(box)[:3] > 0.0):
        return None
    return np.asarray(cellpar_to_cell(np.ravel(box)[:6]), dtype=np.float64) * ANGSTROM
