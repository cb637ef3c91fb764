"""Topology files of other programs, read through ParmEd."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from pidelta.errors import TopologyError
from pidelta.mm.readers.amber import read_amber
from pidelta.mm.readers.charmm import read_charmm
from pidelta.mm.readers.gromacs import read_gromacs
from pidelta.mm.topology import Topology

_SUFFIXES = (".top", ".prmtop", ".parm7", ".prm7", ".psf")
_OLD_POINTERS = re.compile(r"( *\d+){12}\s*")


def read_topology(path: Path, parameters: Sequence[Path] = (), *, rigid_water: bool = False) -> Topology:
    """Read a GROMACS ``.top`` (with what it includes), AMBER ``.prmtop`` or ``.parm7``, or CHARMM ``.psf``.

    Every term of the file is evaluated by pidelta, or the file is refused.

    Args:
        path: the file.
        parameters: CHARMM parameter, topology and stream files (.prm, .rtf, .str) for a ``.psf``.
        rigid_water: accept rigid water, since the caller puts a flexible model in its place.

    Raises:
        TopologyError: a file is missing, of another kind or malformed, lacks parameters, or has a term that
            pidelta does not evaluate; the message names the file and the term.
    """
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        raise TopologyError(
            f"{path}: expected a file ending in {', '.join(_SUFFIXES)}, found {path.suffix!r}"
        )
    for file in (path, *parameters):
        if not file.is_file():
            raise TopologyError(f"{file}: no such file")
    if path.suffix != ".psf" and parameters:
        raise TopologyError(f"{path}: expected parameters with a CHARMM .psf only, found {parameters[0]}")
    if path.suffix == ".psf":
        topology = read_charmm(path, parameters)
    elif path.suffix == ".top" and not _is_amber(path):
        topology = read_gromacs(path, rigid_water=rigid_water)
    else:
        topology = read_amber(path)
    _check_atoms(topology)
    _check_finite(topology)
    return topology


def _is_amber(path: Path) -> bool:
    """AMBER's files often end in .top, too; before AMBER 7 they had no sections but twelve numbers a line."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first, second = file.readline(), file.readline()
    return first.startswith(("%VERSION", "%FLAG")) or _OLD_POINTERS.fullmatch(second) is not None


def _check_atoms(topology: Topology) -> None:
    """A term has no value where an atom stands twice among three that follow each other."""
    for item in fields(topology):
        atoms = getattr(getattr(topology, item.name), "atoms", np.zeros((0, 2), dtype=np.int64))
        for step in range(1, min(3, atoms.shape[1])):
            wrong = np.argwhere(atoms[:, step:] == atoms[:, :-step])
            if len(wrong):
                term, place = wrong[0]
                labels = " - ".join(topology.label(int(atom)) for atom in atoms[term])
                kind = item.name.replace("_", " ")
                raise TopologyError(
                    f"{topology.source}: {kind}: expected different atoms in {labels}, "
                    f"found {topology.label(int(atoms[term, place]))} twice"
                )


def _check_finite(topology: Topology) -> None:
    """Files can say nan, and numbers too large to be one."""
    for item in fields(topology):
        table = getattr(topology, item.name)
        atoms = getattr(table, "atoms", np.zeros((0, 2), dtype=np.int64))
        for values in vars(table).values() if hasattr(table, "atoms") else [table]:
            if not isinstance(values, np.ndarray) or np.isfinite(values).all():
                continue
            entry = tuple(np.argwhere(~np.isfinite(values))[0])
            labels = " - ".join(topology.label(int(atom)) for atom in atoms[entry[0] : entry[0] + 1].ravel())
            raise TopologyError(
                f"{topology.source}: {item.name.replace('_', ' ')}: expected finite parameters, "
                f"found {values[entry]} {labels}".rstrip()
            )
