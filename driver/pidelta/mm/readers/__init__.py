"""Topology files of other programs, read through ParmEd."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np

from pidelta.errors import TopologyError
from pidelta.mm.readers.amber import read_amber
from pidelta.mm.readers.gromacs import read_gromacs
from pidelta.mm.topology import Topology

_READERS = {".top": read_gromacs, ".prmtop": read_amber, ".parm7": read_amber}


def read_topology(path: Path) -> Topology:
    """Read a GROMACS ``.top`` (with what it includes) or an AMBER ``.prmtop`` / ``.parm7`` file.

    Every term of the file is evaluated by pidelta, or the file is refused.

    Raises:
        TopologyError: the file is missing, of another kind or malformed, lacks parameters, or has a term that
            pidelta does not evaluate; the message names the file and the term.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise TopologyError(f"{path}: expected a file ending in {', '.join(_READERS)}, found {path.suffix!r}")
    if not path.is_file():
        raise TopologyError(f"{path}: no such file")
    topology = _READERS[path.suffix](path)
    _check_finite(topology)
    return topology


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
