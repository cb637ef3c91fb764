"""Topology files of other programs, read through ParmEd."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pidelta.errors import TopologyError
from pidelta.mm.readers.amber import read_amber
from pidelta.mm.readers.charmm import read_charmm
from pidelta.mm.readers.gromacs import read_gromacs
from pidelta.mm.topology import Topology

_SUFFIXES = (".top", ".prmtop", ".parm7", ".psf")


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
    if path.suffix == ".psf":
        return read_charmm(path, parameters)
    if parameters:
        raise TopologyError(f"{path}: mm.parameters: expected with a CHARMM .psf only, found {parameters[0]}")
    return read_gromacs(path, rigid_water=rigid_water) if path.suffix == ".top" else read_amber(path)
