"""How well runs at constant energy conserve it: drift and fluctuation of each, and their picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pidelta.analysis.ipi_output import has_rows, read_properties
from pidelta.analysis.plots import COLOURS, new_figure, save, tidy
from pidelta.analysis.statistics import mean_with_error
from pidelta.analysis.summary import Drift, fit_drift, time_in_ps
from pidelta.errors import DataError
from pidelta.state import FloatArray
from pidelta.units import HARTREE_IN_EV, HARTREE_IN_KELVIN

_FEWEST_ROWS = 4


@dataclass(frozen=True)
class Conservation:
    """What one run shows.

    Attributes:
        terms: of the energy, as ``mm+low``.
        time_step: as it is to be shown, with its unit.
        time_ps: (n,) of the rows, in ps.
        energy: (n,) the conserved quantity less its first value, in meV/atom.
        temperature: the mean, in K.
        drift: by a line through all rows.
    """

    terms: str
    time_step: str
    time_ps: FloatArray
    energy: FloatArray
    temperature: float
    drift: Drift


def read_conservation(path: Path, n_atoms: int, terms: str, time_step: str) -> Conservation | None:
    """Read the properties of a run at constant energy, finished or not.

    Args:
        path: the properties file, with time, temperature and conserved quantity.
        n_atoms: number of atoms.
        terms, time_step: to be shown.

    Returns:
        None if there are too few rows yet.

    Raises:
        DataError: the file is not what i-PI writes.
    """
    if not has_rows(path):
        return None
    properties = read_properties(path)
    time_ps = time_in_ps(properties)
    if time_ps is None or "conserved" not in properties or "temperature" not in properties:
        raise DataError(f"{path}: expected columns time, conserved and temperature")
    if len(time_ps) < _FEWEST_ROWS:
        return None
    conserved = properties.atomic("conserved")
    return Conservation(
        terms=terms,
        time_step=time_step,
        time_ps=time_ps,
        energy=(conserved - conserved[0]) * (1000.0 * HARTREE_IN_EV / n_atoms),
        temperature=mean_with_error(properties.atomic("temperature")).value * HARTREE_IN_KELVIN,
        drift=fit_drift(time_ps, conserved, n_atoms),
    )


def plot_conservation(results: Sequence[Conservation], path: Path) -> None:
    """Draw the conserved quantity of each run over time with its line, a panel for each combination of terms.

    What fluctuates less lies above what fluctuates more.

    Args:
        results: at least one.
        path: the PNG file to write.
    """
    combinations = list(dict.fromkeys(result.terms for result in results))
    figure = new_figure(7.0, 0.7 + 2.3 * len(combinations))
    panels = figure.subplots(len(combinations), 1, sharex=True, squeeze=False)[:, 0]
    for axis, terms in zip(panels, combinations, strict=True):
        shown = sorted((r for r in results if r.terms == terms), key=lambda r: -r.drift.rms)
        for result, colour in zip(shown, COLOURS * len(shown), strict=False):
            drift = result.drift
            label = f"{result.time_step}: {drift.slope.shown('+.2g')} meV/atom/ps"
            axis.plot(result.time_ps, result.energy, color=colour, linewidth=0.5, alpha=0.5)
            line = result.energy.mean() + drift.slope.value * (result.time_ps - result.time_ps.mean())
            axis.plot(result.time_ps, line, color=colour, linewidth=1.6, label=label, zorder=3)
        axis.set_title(terms.replace("+", " + "), loc="left", fontsize=9)
        axis.set_ylabel("Δ conserved\n/ (meV/atom)")
        axis.legend(frameon=False, fontsize=8, loc="best")
        tidy(axis)
    panels[-1].set_xlabel("time / ps")
    panels[-1].set_xlim(0.0, max(float(np.max(result.time_ps)) for result in results))
    save(figure, path)
