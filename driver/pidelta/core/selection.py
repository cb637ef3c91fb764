"""Selections of atoms: MDAnalysis's language, AMBER masks, or indices.

Both languages pass over names and numbers that match nothing. Here each has to match an atom, because a
typing error would else leave atoms out of the QM region without a word.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_masses, chemical_symbols
from ase.geometry import cell_to_cellpar, cellpar_to_cell

from pidelta.errors import SettingError
from pidelta.state import FloatArray, IntArray, System
from pidelta.units import BOHR_IN_ANGSTROM

if TYPE_CHECKING:
    from MDAnalysis import Universe

_NEEDS_AXES = frozenset({"prop", "point", "cyzone", "cylayer"})
_NEEDS_CENTRE = frozenset({"sphzone", "sphlayer", "cyzone", "cylayer"})
_MANY = 8


def select(
    selection: str | Sequence[int],
    system: System,
    bonds: IntArray | None = None,
    charges: FloatArray | None = None,
) -> IntArray:
    """Indices of the selected atoms, sorted, from 0.

    Args:
        selection: ``all``; a list of indices from 0; an AMBER mask, which begins with ``:`` or ``@``, perhaps
            in parentheses or after ``!``; or a selection of MDAnalysis, lengths in angstrom. ``resid`` is the
            number in the structure file, ``index`` is from 0, and masks count atoms and residues from 1 in
            the order of the file.
        system: the atoms to choose from; distances are those of its positions.
        bonds: (nb, 2) bonded pairs, for ``bonded`` and ``same fragment as``.
        charges: (N,) in e, for ``charge``.

    Raises:
        SettingError: the selection cannot be read, a value in it matches no atom, or it selects nothing.
    """
    if not isinstance(selection, str):
        return _checked_indices(selection, len(system))
    text = selection.strip()
    if text == "all":
        return np.arange(len(system))
    if text.lstrip("(! ").startswith((":", "@")):
        from pidelta.core.amber_masks import select_by_mask

        chosen = select_by_mask(text, system)
    else:
        chosen = _select_by_language(text, system, bonds, charges)
    if not len(chosen):
        raise SettingError("atoms", f"expected a selection of atoms, found {text!r}, which selects none")
    return chosen


def describe_atoms(indices: IntArray, system: System) -> list[str]:
    """The atoms by residue, such as ``URA 1: N1 C2 O2``, one line for each; long lists are shortened."""
    lines = []
    residues = system.residue_indices[indices]
    for residue in dict.fromkeys(residues.tolist()):
        atoms = indices[residues == residue]
        names = [system.names[atom] for atom in atoms[: 4 * _MANY]]
        more = "" if len(names) == len(atoms) else f" and {len(atoms) - len(names)} more"
        first = atoms[0]
        label = f"{system.segments[first]} {system.residue_names[first]} {system.residue_numbers[first]}"
        lines.append(f"{label.strip()}: {' '.join(names)}{more}")
    if len(lines) > _MANY + 1:
        lines[_MANY:] = [f"and {len(lines) - _MANY} more residues"]
    return lines


def repeated_residue_numbers(indices: IntArray, system: System) -> list[str]:
    """A line where selected residues share a number, as in files whose numbers start again after 99999."""
    residues = system.residue_indices[indices]
    firsts = [int(indices[residues == residue][0]) for residue in dict.fromkeys(residues.tolist())]
    counts = Counter(
        f"{system.segments[atom]} {system.residue_names[atom]} {system.residue_numbers[atom]}".strip()
        for atom in firsts
    )
    return [
        f"the QM atoms are of {count} residues with one number, {label}: choose by indices if one is meant"
        for label, count in counts.most_common(1)
        if count > 1
    ]


def _checked_indices(indices: Sequence[int], count: int) -> IntArray:
    wrong = [index for index in indices if not 0 <= index < count]
    if wrong:
        raise SettingError("atoms", f"expected indices from 0 to {count - 1}, found {wrong[0]}")
    chosen = np.asarray(indices, dtype=np.int64)
    if len(chosen) == 0 or len(np.unique(chosen)) != len(chosen):
        raise SettingError("atoms", "expected at least one index, each once")
    return np.sort(chosen)


def _select_by_language(
    text: str, system: System, bonds: IntArray | None, charges: FloatArray | None
) -> IntArray:
    """By MDAnalysis, whose warnings of values that are compared in vain are errors here."""
    from MDAnalysis.core.selection import Parser
    from MDAnalysis.exceptions import SelectionWarning

    _refuse_ambiguity(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", SelectionWarning)
            universe = _universe(system, bonds, charges)
            _refuse_turned_axes(text, system)
            for part in _parts(Parser.parse(text, {}, periodic=True)):
                _check_part(part, universe)
            chosen = universe.select_atoms(text).indices
    except SettingError:
        raise
    except Exception as error:  # its parser raises whatever a malformed text leads to
        reason = " ".join(str(error).split())
        raise SettingError(
            "atoms",
            f"expected a selection of MDAnalysis, an AMBER mask or indices, found {text!r} ({reason})",
        ) from None
    return np.sort(np.asarray(chosen, dtype=np.int64))


def _refuse_ambiguity(text: str) -> None:
    """``a or b and c``: VMD and MDAnalysis do not read it alike."""
    after_or = [False]
    for token in text.replace("(", " ( ").replace(")", " ) ").split():
        if token == "(":
            after_or.append(False)
        elif token == ")" and len(after_or) > 1:
            after_or.pop()
        elif token == "or":
            after_or[-1] = True
        elif token == "and" and after_or[-1]:
            raise SettingError("atoms", f"expected parentheses where 'and' follows 'or', found {text!r}")


def _refuse_turned_axes(text: str, system: System) -> None:
    """MDAnalysis knows a cell by its lengths and angles: positions were turned if it lies otherwise."""
    if system.cell is None or np.allclose(system.cell, _standard_cell(system.cell), atol=1e-4):
        return
    found = sorted(_NEEDS_AXES & set(text.replace("(", " ").split()))
    if found:
        raise SettingError(
            "atoms",
            f"expected no {found[0]!r} in a cell whose first vector is not along x or whose second is not "
            f"in the xy plane, found {text!r}",
        )


def _standard_cell(cell: FloatArray) -> FloatArray:
    return np.asarray(cellpar_to_cell(cell_to_cellpar(cell)))


def _universe(system: System, bonds: IntArray | None, charges: FloatArray | None) -> Universe:
    """The system as MDAnalysis knows it, in angstrom, with all its attributes."""
    import MDAnalysis

    first, residues = np.unique(system.residue_indices, return_index=True, return_inverse=True)[1:]
    segments = [system.segments[atom] for atom in first]
    names_of_segments = list(dict.fromkeys(segments))
    universe = MDAnalysis.Universe.empty(
        len(system),
        n_residues=len(first),
        n_segments=len(names_of_segments),
        atom_resindex=residues,
        residue_segindex=[names_of_segments.index(segment) for segment in segments],
        trajectory=True,
    )
    attributes: dict[str, Sequence[object] | FloatArray | IntArray] = {
        "names": system.names,
        "elements": [chemical_symbols[number] for number in system.numbers],
        "masses": atomic_masses[system.numbers],
        "resnames": [system.residue_names[atom] for atom in first],
        "resids": system.residue_numbers[first],
        "resnums": system.residue_numbers[first],
        "segids": names_of_segments,
        "chainIDs": system.segments,
    }
    if charges is not None:
        attributes["charges"] = charges
    if bonds is not None:
        attributes["bonds"] = bonds
    for name, values in attributes.items():
        universe.add_TopologyAttr(name, values)
    positions = system.positions
    if system.cell is not None:
        standard = _standard_cell(system.cell)
        positions = positions @ np.linalg.inv(system.cell) @ standard
        universe.dimensions = cell_to_cellpar(standard * BOHR_IN_ANGSTROM)
    universe.atoms.positions = positions * BOHR_IN_ANGSTROM
    return universe


def _parts(node: Any) -> Iterator[Any]:
    """A selection of MDAnalysis and all that it is made of."""
    yield node
    for name in ("lsel", "rsel", "sel"):
        if hasattr(node, name):
            yield from _parts(getattr(node, name))


def _check_part(part: Any, universe: Universe) -> None:
    """Each value of a selection has to match; a centre has to be that of a whole molecule."""
    token = getattr(part, "token", "")
    if hasattr(part, "sel"):
        if token in _NEEDS_CENTRE:
            _refuse_broken(token, part.sel.apply(universe.atoms), universe)
        return
    if hasattr(part, "lsel"):
        return
    for name, single in _single_values(part):
        if not len(single.apply(universe.atoms)):
            known = sorted({str(value) for value in getattr(universe.atoms, getattr(part, "field", ""), [])})
            hint = f"; there are {', '.join(known)}" if 0 < len(known) <= _MANY else ""
            raise SettingError("atoms", f"expected values that atoms have, found {token} {name}{hint}")


def _single_values(part: Any) -> Iterator[tuple[str, Any]]:
    """A selection by several values as one selection for each, with the value as text."""
    fields = [name for name in ("values", "lowers", "uppers") if hasattr(part, name)]
    if not fields:
        yield "", part
        return
    for values in zip(*(getattr(part, name) for name in fields), strict=True):
        single = copy.copy(part)
        for name, value in zip(fields, values, strict=True):
            setattr(single, name, [value])
        yield " to ".join(_as_text(value) for value in values if value not in (None, (None, None))), single


def _as_text(value: object) -> str:
    """Of a number, a name, or a pair of residue number and insertion code."""
    return "".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _refuse_broken(token: str, group: Any, universe: Universe) -> None:
    """MDAnalysis takes the mean of the positions as they are, on both sides of a cell or not."""
    if universe.dimensions is None or not len(group):
        return
    scaled = group.positions @ np.linalg.inv(cellpar_to_cell(universe.dimensions))
    if (np.ptp(scaled, axis=0) > 0.5).any():
        raise SettingError(
            "atoms",
            f"expected a centre of {token} that lies within half of the cell, found atoms further apart: "
            "put the molecule together in the structure, or use 'around'",
        )
