"""Impropers of CHARMM parameter files.

ParmEd sorts the four types of an improper and keeps one line of the same types; here types are matched by
position and lines that contradict each other are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from pidelta.errors import TopologyError
from pidelta.mm.readers.conversion import multiplicities, no_parameters
from pidelta.mm.topology import Harmonic, Torsions
from pidelta.state import FloatArray, IntArray
from pidelta.units import KCAL_PER_MOL

_Types = tuple[str, ...]
_Parameters = tuple[float, int, float]
"""Force constant in kcal/mol, periodicity, phase in degrees; the periodicity of harmonic terms is 0."""

_HEADER = ("IMPR", "IMPH")
_OTHER_HEADERS = (
    "ATOM", "BOND", "ANGL", "THET", "DIHE", "PHI", "CMAP", "NONB", "NBON", "NBFI", "HBON", "THOL", "END"
)  # fmt: skip


def impropers(
    path: Path, parameters: Sequence[Path], atoms: IntArray, of_psf: Sequence[Any]
) -> tuple[Harmonic, Torsions]:
    """Harmonic impropers, and those that a parameter file gives a periodicity.

    Args:
        path: the .psf file, for messages.
        parameters: parameter and stream files.
        atoms: (n, 4) atoms of the impropers.
        of_psf: the atoms that these are indices of, with names and types.

    Raises:
        TopologyError: an improper has no parameters, or has several lines of them.
    """
    known = _read(parameters)
    found = np.zeros((len(atoms), 3))
    for row, values in zip(atoms.tolist(), found, strict=True):
        types = tuple(of_psf[atom].type.upper() for atom in row)
        key = _match(types, known)
        if key is None:
            labels = [(atom, of_psf[atom].name, of_psf[atom].type) for atom in row]
            raise TopologyError(f"{path}: {no_parameters('improper', labels)}")
        if len(known[key]) > 1:
            raise TopologyError(
                f"{path}: improper {' '.join(types)}: expected one line of parameters, "
                f"found {len(known[key])} different ones of {' '.join(key)}"
            )
        values[:] = known[key][0]
    harmonic = found[:, 1] == 0.0
    phases = np.deg2rad(found[:, 2])
    energies: FloatArray = found[:, 0] * KCAL_PER_MOL
    return (
        Harmonic(atoms[harmonic], 2.0 * energies[harmonic], phases[harmonic]),
        Torsions(
            atoms[~harmonic], energies[~harmonic], found[~harmonic, 1].astype(np.int64), phases[~harmonic]
        ),
    )


def _read(parameters: Sequence[Path]) -> dict[_Types, list[_Parameters]]:
    """The different lines of parameters of each four types, these in either order but always the same."""
    known: dict[_Types, list[_Parameters]] = {}
    for file in parameters:
        inside = False
        for line in file.read_text(encoding="utf-8", errors="replace").upper().splitlines():
            words = line.partition("!")[0].split()
            if words and words[0].startswith(_HEADER) and len(words) == 1:  # of more words in a topology
                inside = True
            elif words and words[0].startswith(_OTHER_HEADERS):
                inside = False
            elif words and inside:
                values = _parameters(file, words)
                same = known.setdefault(_key(tuple(words[:4])), [])
                same += [values] if values not in same else []
    return known


def _parameters(file: Path, words: list[str]) -> _Parameters:
    """The periodicity may be missing; it is then 0."""
    try:
        k, *periodicity, phase = (float(word) for word in words[4:7])
    except ValueError:
        raise TopologyError(
            f"{file}: expected four types and two or three numbers of an improper, found {' '.join(words)!r}"
        ) from None
    where = f"{file}: improper {' '.join(words[:4])}"
    return k, int(multiplicities(where, np.array(periodicity or [0.0]))[0]), phase


def _match(types: _Types, known: dict[_Types, list[_Parameters]]) -> _Types | None:
    """The types that a file lists for these, with as few wildcards X as there are, each for one position."""
    for count in range(4):
        for places in combinations(range(4), count):
            key = _key(tuple("X" if place in places else types[place] for place in range(4)))
            if key in known:
                return key
    return None


def _key(types: _Types) -> _Types:
    return min(types, types[::-1])
