"""Selections of atoms, such as ``resname URA`` or ``resid 1 and element O N``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ase.data import chemical_symbols

from pidelta.errors import ConfigError
from pidelta.state import IntArray, System

_FIELDS: dict[str, Callable[[System], Sequence[str]]] = {
    "resname": lambda system: system.residue_names,
    "resid": lambda system: [str(index + 1) for index in system.residue_indices],
    "name": lambda system: system.names,
    "element": lambda system: [chemical_symbols[number] for number in system.numbers],
    "index": lambda system: [str(index) for index in range(len(system))],
}


def select(selection: str | Sequence[int], system: System) -> IntArray:
    """Indices of the selected atoms, sorted, from 0.

    Args:
        selection: ``all``; a list of indices; or clauses joined by ``and``, each a field (``resname``,
            ``resid`` (from 1, in the order of the file), ``name``, ``element``, ``index`` (from 0)) and the
            values it may have.
        system: the atoms to choose from.

    Raises:
        ConfigError: the selection cannot be read, names an atom that is not there, or selects nothing.
    """
    if not isinstance(selection, str):
        return _checked_indices(selection, len(system))
    if selection.strip() == "all":
        return np.arange(len(system))
    mask = np.ones(len(system), dtype=bool)
    for clause in selection.split(" and "):
        field, *values = clause.split() or [""]
        if field not in _FIELDS or not values:
            raise ConfigError(
                f"qm.atoms: expected 'all', indices, or {'|'.join(_FIELDS)} with values, found {clause!r}"
            )
        mask &= np.isin(np.asarray(_FIELDS[field](system)), values)
    if not mask.any():
        raise ConfigError(f"qm.atoms: {selection!r} selects no atom")
    return np.flatnonzero(mask)


def _checked_indices(indices: Sequence[int], count: int) -> IntArray:
    wrong = [index for index in indices if not 0 <= index < count]
    if wrong:
        raise ConfigError(f"qm.atoms: expected indices from 0 to {count - 1}, found {wrong[0]}")
    chosen = np.asarray(indices, dtype=np.int64)
    if len(chosen) == 0 or len(np.unique(chosen)) != len(chosen):
        raise ConfigError("qm.atoms: expected at least one index, each once")
    return np.sort(chosen)
