"""Writer of Slater-Koster files, simple format for s and p, extended (``@``) with d shells.

See `pidelta.qm.dftb.skf` for the format; what this writes, that reads back, and so does DFTB+.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from pidelta.errors import ParameterError
from pidelta.qm.dftb.repulsive import Repulsive
from pidelta.qm.dftb.skf import EXTENDED_COLUMNS, INTEGRALS, SlaterKosterFile
from pidelta.state import FloatArray

_EXTENDED_WIDTH = 20
_MATCHING = 1e-6


def exponential_head(
    start: float, value: float, slope: float, curvature: float
) -> tuple[float, float, float]:
    """Continue a repulsive below `start` as exp(-a1 r + a2) + a3 with its value and two derivatives.

    Args:
        start: in bohr.
        value, slope, curvature: V, V' < 0 and V'' > 0 there, in atomic units.

    Returns:
        a1, a2, a3.

    Raises:
        ParameterError: the slope is not negative or the curvature not positive, so that no such head exists.
    """
    if not (slope < 0.0 < curvature):
        raise ParameterError(
            f"repulsive at {start:.4f} bohr: expected V' < 0 and V'' > 0 for an exponential head, "
            f"found V' = {slope:.3e} and V'' = {curvature:.3e}"
        )
    a1 = -curvature / slope
    a2 = float(np.log(-slope / a1)) + a1 * start
    return a1, a2, value + slope / a1


def write_skf(path: Path, content: SlaterKosterFile, mass: float, documentation: Iterable[str]) -> None:
    """Write one .skf file.

    Args:
        path: the file.
        content: what it holds; `onsite` decides whether it is homonuclear.
        mass: of the first element in dalton.
        documentation: lines of provenance, which go after the data, where all readers ignore them.

    Raises:
        ParameterError: the repulsive has no exponential head with V' < 0 and V'' > 0, or does not join it.
    """
    _check_head(path, content.repulsive)
    extended = bool(np.any(content.hamiltonian[:, [integral[1] == 2 for integral in INTEGRALS]]))
    rows = len(content.hamiltonian)
    lines = ["@"] if extended else []
    # DFTB+ uses one row less than announced, so the last row is written twice.
    lines.append(f"{content.spacing:g} {rows + 1}")
    if content.onsite is not None:
        lines.append(_atom_line(content, extended))
    lines.append(f"{mass:.4f} 19*0.0")
    table = np.concatenate(
        [_columns(content.hamiltonian, extended), _columns(content.overlap, extended)], axis=1
    )
    lines += [_row(values) for values in [*table, table[-1]]]
    lines += _spline_lines(content.repulsive)
    lines += ["", "<Documentation>", *(f"  {line}" for line in documentation), "</Documentation>", ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def _check_head(path: Path, repulsive: Repulsive) -> None:
    a1, a2, a3 = repulsive.head
    start = repulsive.starts[0]
    exponential = np.exp(a2 - a1 * start)
    if not (a1 > 0.0 and np.isfinite(exponential) and exponential > 0.0):
        raise ParameterError(
            f"{path}: expected a repulsive head with V' < 0 and V'' > 0, "
            f"found exp({-a1:g} r + {a2:g}) + {a3:g}"
        )
    expected, found = repulsive.coefficients[0, :2], np.array([exponential + a3, -a1 * exponential])
    if np.any(np.abs(expected - found) > _MATCHING * (1.0 + np.abs(expected))):
        raise ParameterError(
            f"{path}: expected a repulsive head with V, V' = {expected[0]:.6g}, {expected[1]:.6g} at "
            f"{start:g} bohr, found {found[0]:.6g}, {found[1]:.6g}"
        )


def _atom_line(content: SlaterKosterFile, extended: bool) -> str:
    """On-site energies, spin-polarisation error (unused), U, occupations; highest shell first."""
    assert content.onsite is not None
    assert content.hubbard_u is not None
    assert content.occupations is not None
    padding = [0.0] if extended else []
    hubbard_u = [float(content.hubbard_u[-1])] if extended else []
    values = [*padding, *content.onsite[::-1], 0.0, *hubbard_u, *content.hubbard_u[::-1]]
    return " ".join(f"{value:.10g}" for value in [*values, *padding, *content.occupations[::-1]])


def _columns(table: FloatArray, extended: bool) -> FloatArray:
    if not extended:
        return table
    wide = np.zeros((len(table), _EXTENDED_WIDTH))
    wide[:, EXTENDED_COLUMNS] = table
    return wide


def _row(values: Sequence[float] | FloatArray) -> str:
    """Numbers, with runs of zeros as Fortran's repetition ``5*0.0``."""
    parts = []
    for text, run in groupby("0.0" if value == 0.0 else f"{value:.10e}" for value in values):
        count = len(list(run))
        parts += [f"{count}*0.0"] if text == "0.0" and count > 1 else [text] * count
    return " ".join(parts)


def _spline_lines(repulsive: Repulsive) -> list[str]:
    edges, rows = repulsive.starts, repulsive.coefficients[:-1]
    lines = ["Spline", f"{len(rows)} {edges[-1]:.10f}", " ".join(f"{value:.15e}" for value in repulsive.head)]
    for k, row in enumerate(rows):
        count = 6 if k == len(rows) - 1 else 4
        numbers = " ".join(f"{value:.15e}" for value in row[:count])
        lines.append(f"{edges[k]:.10f} {edges[k + 1]:.10f} {numbers}")
    return lines
