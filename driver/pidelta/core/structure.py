"""Structure files: GROMACS .gro, .pdb, AMBER restarts and CHARMM .crd, .xyz."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import ase
import ase.io
import numpy as np
import parmed
from ase.data import atomic_numbers, chemical_symbols
from ase.geometry import cellpar_to_cell
from parmed.charmm import CharmmCrdFile

from pidelta.core.amber_restart import read_restart
from pidelta.core.cell import FARTHEST, is_cell, usable
from pidelta.core.elements import name_element
from pidelta.core.gromacs_box import gro_box, refuse_bad_box
from pidelta.core.names import Labels, NamedAtoms, NameDifference, compare_names
from pidelta.core.text_fields import is_number
from pidelta.errors import StructureError
from pidelta.state import FloatArray, IntArray, System
from pidelta.units import ANGSTROM

_COORDINATES_ONLY = (".rst7", ".inpcrd", ".rst", ".restrt", ".ncrst", ".nc", ".crd", ".mdcrd")
_PARMED = (".gro", ".pdb")
_KNOWN = (*_PARMED, ".xyz", *_COORDINATES_ONLY)


class TopologyAtoms(NamedAtoms, Protocol):
    """What a structure must fit.

    `massless_rows` (R,) are the rows of virtual sites in a file that lists them, `periodic` says that the
    system has a cell, `cell_angle` is the angle in degrees between its vectors where a file has their lengths
    alone, None if it is unknown.
    """

    @property
    def massless_rows(self) -> IntArray: ...  # noqa: D102
    @property
    def periodic(self) -> bool: ...  # noqa: D102
    @property
    def cell_angle(self) -> float | None: ...  # noqa: D102


@dataclass(frozen=True)
class Coordinates:
    """What a file says of the atoms of a topology.

    Attributes:
        positions: (N, 3) in bohr.
        cell: (3, 3) lattice rows in bohr, or None.
        labels: None where the file names no residues.
        name_differences: names in the file that are others in the topology.
    """

    positions: FloatArray
    cell: FloatArray | None
    labels: Labels | None
    name_differences: tuple[NameDifference, ...] = ()


def read_structure(path: Path) -> System:
    """Read atoms, positions and the cell.

    Raises:
        StructureError: the file is missing, malformed, of a type that names no elements, or a coordinate is
            not finite.
    """
    if path.suffix in _COORDINATES_ONLY:
        raise StructureError(
            f"{path}: expected a file that names elements, or a force field that does, found {path.suffix}"
        )
    content = _load(path)
    return _from_ase(content) if isinstance(content, ase.Atoms) else _from_parmed(path, content)


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


def read_coordinates(path: Path, atoms: TopologyAtoms) -> Coordinates:
    """Read positions, the cell and labels for the N atoms of a topology.

    Elements and names come from the topology then, so files without them (AMBER restarts, CHARMM .crd) will
    do. A file may list virtual sites, `massless_rows` of it, or leave them all out; where they are follows
    from the atoms.

    Raises:
        StructureError: as `read_structure`, and where the file does not hold N atoms, or has other elements
            or names of other elements.
    """
    count = len(atoms.numbers)
    found = _rows(path, atoms)
    rows = np.arange(len(found.positions))
    if len(atoms.massless_rows) and len(rows) == count + len(atoms.massless_rows):
        rows = np.delete(rows, atoms.massless_rows)
    if len(rows) != count:
        raise StructureError(
            f"{path}: expected {count} atoms as in the topology, found {len(found.positions)}"
        )
    if found.numbers is not None:
        _refuse_other_elements(path, rows, atoms.numbers, found.numbers[rows])
    labels = None if found.labels is None else found.labels.select(rows)
    differences = () if labels is None else compare_names(path, labels, atoms)
    return Coordinates(found.positions[rows], found.cell, labels, differences)


@dataclass(frozen=True)
class _Rows:
    """The rows of a file, in bohr; numbers (0 where unknown) and labels if it has them."""

    positions: FloatArray
    cell: FloatArray | None
    numbers: IntArray | None = None
    labels: Labels | None = None


def _rows(path: Path, atoms: TopologyAtoms) -> _Rows:
    content = _load(path, periodic=atoms.periodic)
    if isinstance(content, ase.Atoms):
        system = _from_ase(content)
        return _Rows(system.positions, system.cell, system.numbers)
    if isinstance(content, _Restart):
        return _Rows(content.coordinates * ANGSTROM, _cell_of_restart(path, content.box, atoms.cell_angle))
    positions, cell = _coordinates(content), _cell(_box(path, content))
    if isinstance(content, CharmmCrdFile):
        return _Rows(positions, cell, labels=_crd_labels(content))
    if path.suffix in _COORDINATES_ONLY:
        return _Rows(positions, cell)
    return _Rows(positions, cell, _element_column(path, len(positions)), _labels(content))


def _cell_of_restart(path: Path, box: FloatArray | None, angle: float | None) -> FloatArray | None:
    if box is not None and len(box) == 3:
        if angle is None:
            raise StructureError(
                f"{path}: expected a box with its angles, as that of the topology is triclinic, found lengths"
            )
        box = np.append(box, [angle] * 3)
    return _cell(box)


def _crd_labels(restart: Any) -> Labels:
    """RESID is the number in the segment, as in the .psf file; it may end in an insertion code."""
    resids = [re.match(r"-?\d+", resid) for resid in restart.resid]
    numbers = [
        int(found.group()) if found else ordinal for found, ordinal in zip(resids, restart.resno, strict=True)
    ]
    return Labels(
        tuple(restart.atname), tuple(restart.resname), np.array(numbers, dtype=np.int64), tuple(restart.segid)
    )


def _element_column(path: Path, count: int) -> IntArray | None:
    """(count,) atomic numbers in a .pdb file, 0 where it names none; None if it is no .pdb file."""
    if path.suffix != ".pdb":
        return None
    first_model = _text(path).split("\nENDMDL")[0].splitlines()
    symbols = [line[76:78].strip() for line in first_model if line.startswith(("ATOM", "HETATM"))]
    if len(symbols) != count:  # alternate locations
        return np.zeros(count, dtype=np.int64)
    return np.array([atomic_numbers.get(symbol.capitalize(), 0) for symbol in symbols], dtype=np.int64)


def _elements(path: Path, labels: Labels) -> IntArray:
    """(N,) as a file names them, else from the names of atoms; 0 is a site without mass."""
    numbers = _element_column(path, len(labels))
    found = np.zeros(len(labels), dtype=np.int64) if numbers is None else numbers
    residues = labels.residue_indices
    sizes = np.bincount(residues)[residues]
    for atom in np.flatnonzero(found == 0):
        named = name_element(labels.names[atom], alone=bool(sizes[atom] == 1))
        if named is None:
            raise StructureError(
                f"{path}: expected a name that stands for one element, found {labels.names[atom]} at atom "
                f"{atom}; a .xyz file, or a .pdb file with its column of elements, says which it is"
            )
        found[atom] = named
    return found


def _refuse_other_elements(path: Path, rows: IntArray, expected: IntArray, found: IntArray) -> None:
    wrong = np.flatnonzero((found > 0) & (found != expected))
    if len(wrong):
        first = wrong[0]
        raise StructureError(
            f"{path}: expected {chemical_symbols[expected[first]]} at atom {rows[first]} as in the topology, "
            f"found {chemical_symbols[found[first]]}"
        )


@dataclass(frozen=True)
class _Restart:
    """An AMBER restart: coordinates (N, 3) in angstrom, and the box in angstrom and degrees."""

    coordinates: FloatArray
    box: FloatArray | None


def _load(path: Path, *, periodic: bool = False) -> Any:
    """ASE atoms from .xyz, a `_Restart`, or ParmEd's structure from the others."""
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
                content: Any = _load_xyz(path)
                coordinates = content.positions
            else:
                content = _load_restart(path, periodic) if path.suffix in _COORDINATES_ONLY else None
                if content is None:
                    _refuse_bad_fields(path)
                    # ParmEd would look for bonds, 39 s of 30,000 atoms
                    options = {"skip_bonds": True} if path.suffix in _PARMED else {}
                    content = parmed.load_file(str(path), **options)
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


def _load_xyz(path: Path) -> ase.Atoms:
    """The one structure of a plain or extended .xyz; its cell counts where the file says so with pbc."""
    frames: Any = ase.io.read(path, format="extxyz", index=slice(0, 2))
    if len(frames) > 1:
        raise _several(path)
    atoms: ase.Atoms = frames[0]
    if not atoms.pbc.any():
        atoms.cell = None
    elif not atoms.pbc.all():
        found = " ".join("FT"[axis] for axis in atoms.pbc.astype(int))
        raise StructureError(f"{path}: expected all of pbc or none, found {found}")
    return atoms


def _several(path: Path) -> StructureError:
    """Nobody would know which of them was taken."""
    return StructureError(
        f"{path}: expected one structure, found several; pidelta evaluate takes them by --frames"
    )


def _load_restart(path: Path, periodic: bool) -> Any:
    """An AMBER restart in text or NetCDF 3; None if the file is a CHARMM .crd file."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"\x89HDF":
        raise StructureError(f"{path}: expected NetCDF 3, as AMBER writes it, found HDF5 (NetCDF 4)")
    if magic[:3] == b"CDF":
        content = parmed.load_file(str(path))
        if np.ndim(content.coordinates) == 3 and len(content.coordinates) != 1:
            frames = len(content.coordinates)
            raise StructureError(f"{path}: expected one structure, found an AMBER trajectory of {frames}")
        return content
    if path.suffix == ".crd" and CharmmCrdFile.id_format(str(path)):
        return None
    return _Restart(*read_restart(path, periodic=periodic))


def _check_cell(path: Path, content: Any) -> None:
    """A cell is three independent vectors, or none at all."""
    is_ase = isinstance(content, ase.Atoms)
    box = content.cell.array if is_ase else _box(path, content)
    if isinstance(content, _Restart) and box is not None and len(box) == 3:
        box = np.append(box, [90.0] * 3)  # the angles are the topology's
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
    """ParmEd takes what is left of a line that was cut off, and the first of several structures."""
    lines = _text(path).splitlines()
    if path.suffix == ".gro":
        refuse_bad_box(path, lines)
    if path.suffix == ".gro" and any(line.strip() for line in lines[int(lines[1]) + 3 :]):
        raise _several(path)
    if path.suffix != ".pdb":
        return
    if sum(line.split()[:1] == ["MODEL"] for line in lines) > 1:
        raise _several(path)
    records = [line for line in lines if line.startswith(("ATOM", "HETATM"))]
    for atom, record in enumerate(records):
        for start in range(30, 54, 8):
            column = record[start : min(start + 8, 54)]
            if len(column) < 8 or not is_number(column):
                raise StructureError(
                    f"{path}: expected a coordinate in 8 columns, found {column!r} at atom {atom}"
                )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


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


def _labels(content: parmed.Structure) -> Labels:
    atoms = content.atoms
    segments = [(atom.residue.segid or "").strip() for atom in atoms]
    if not any(segments):
        segments = [(atom.residue.chain or "").strip() for atom in atoms]
    return Labels(
        tuple(atom.name for atom in atoms),
        tuple(atom.residue.name for atom in atoms),
        np.asarray([atom.residue.number for atom in atoms], dtype=np.int64),
        tuple(segments),
    )


def _from_parmed(path: Path, content: parmed.Structure) -> System:
    labels = _labels(content)
    return System(
        numbers=_elements(path, labels),
        positions=_coordinates(content),
        cell=_cell(_box(path, content)),
        names=labels.names,
        residue_names=labels.residue_names,
        residue_indices=np.asarray([atom.residue.idx for atom in content.atoms], dtype=np.int64),
        residue_numbers=labels.residue_numbers,
        segments=labels.segments,
    )


def _coordinates(content: parmed.Structure) -> FloatArray:
    return np.reshape(np.asarray(content.coordinates, dtype=np.float64), (-1, 3)) * ANGSTROM


def _box(path: Path, content: Any) -> FloatArray | None:
    """Lengths and angles (6,), or lattice rows (3, 3), in angstrom and degrees."""
    return gro_box(_text(path).splitlines()) if path.suffix == ".gro" else getattr(content, "box", None)


def _cell(box: FloatArray | None) -> FloatArray | None:
    """Lattice rows in bohr, from rows in angstrom or from lengths (angstrom) and angles (degrees)."""
    if box is not None and np.shape(box) == (3, 3):
        return box * ANGSTROM if np.any(box) else None
    if box is None or not np.all(np.ravel(box)[:3] > 0.0):
        return None
    return np.asarray(cellpar_to_cell(np.ravel(box)[:6]), dtype=np.float64) * ANGSTROM
