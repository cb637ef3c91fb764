"""Atom masks of AMBER, read by ParmEd."""

from __future__ import annotations

import re
import warnings

import numpy as np
import parmed
from parmed.amber.mask import AmberMask

from pidelta.errors import SettingError
from pidelta.state import IntArray, System
from pidelta.units import BOHR_IN_ANGSTROM

_NUMBERS = re.compile(r"[1-9]\d*(-[1-9]\d*)?")
_NAME = re.compile(r"[\w*?+'\\-]*[A-Za-z_*?][\w*?+'\\-]*")


def select_by_mask(mask: str, system: System) -> IntArray:
    """Indices of the atoms of a mask such as ``:1-3,LIG@CA``, sorted.

    Atoms and residues count from 1 in the order of the file, as AMBER counts them.

    Raises:
        SettingError: the mask cannot be read, or a name or number in it matches no atom.
    """
    if system.cell is not None and ("<" in mask or ">" in mask):
        raise SettingError(
            "atoms",
            f"expected no distances in a mask, which know no periodic images, found {mask!r}: "
            "MDAnalysis's 'around' does",
        )
    structure = _structure(system)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            flags = _StrictMask(structure, mask).Selection()
    except SettingError:
        raise
    except Exception as error:  # ParmEd raises whatever a malformed mask leads to
        raise SettingError("atoms", f"expected an AMBER mask, found {mask!r} ({error})") from None
    return np.flatnonzero(flags)


class _StrictMask(AmberMask):
    """A mask all of whose names and numbers match: ParmEd passes over others, and reads @0 as the last."""

    def _selectElemMask(self, token: str) -> list[int]:  # noqa: N802 - ParmEd's name
        head = re.match(r"[:@][%/]?", token)
        if head is not None:
            for item in token[head.end() :].split(","):
                self._check(head.group(), item)
        return super()._selectElemMask(token)  # type: ignore[no-any-return]

    def _check(self, head: str, item: str) -> None:
        if not _NUMBERS.fullmatch(item) and not _NAME.fullmatch(item):
            raise SettingError(
                "atoms", f"expected names, numbers from 1 or ranges in a mask, found {head}{item} in {self}"
            )
        last = item.split("-")[-1]
        beyond = head == "@" and last.isdigit() and int(last) > len(self.parm.atoms)
        if beyond or not any(super()._selectElemMask(head + item)):
            raise SettingError("atoms", f"expected values that atoms have, found {head}{item} in {self}")


def _structure(system: System) -> parmed.Structure:
    """What masks are about: names, residues, elements and, for distances, positions."""
    structure = parmed.Structure()
    labels = zip(system.names, system.numbers, system.residue_names, system.residue_indices, strict=True)
    for name, number, residue_name, residue in labels:
        structure.add_atom(parmed.Atom(atomic_number=int(number), name=name), residue_name, int(residue))
    structure.coordinates = system.positions * BOHR_IN_ANGSTROM
    return structure
