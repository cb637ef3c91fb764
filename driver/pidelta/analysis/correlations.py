"""How fast a simulation forgets: correlation times, and independent samples for each hour of CPU time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pidelta.analysis.sections import Curve, Number, Panel, Picture, Section
from pidelta.analysis.statistics import Mean, autocorrelation, correlation_time, settled
from pidelta.state import FloatArray, IntArray

_LONGEST_SHOWN = 8.0
"""Correlation times that a picture spans."""


@dataclass(frozen=True)
class Series:
    """A quantity over time.

    Attributes:
        name: what it is.
        steps: (n,) of the simulation.
        values: (n,), or (n, k) of components or equivalent quantities that are averaged over.
    """

    name: str
    steps: IntArray
    values: FloatArray


@dataclass(frozen=True)
class Cost:
    """What a run took: CPU seconds of i-PI and all clients, and the steps done in them."""

    cpu_seconds: float
    steps: int


def correlation_section(
    series: Sequence[Series], step_ps: float, cost: Cost | None, missing: Sequence[str]
) -> Section:
    """Correlation times of some series, and what an hour of CPU time buys.

    Args:
        series: of any spacing; uneven ones get a remark and no number.
        step_ps: one step of the simulation in ps.
        cost: of the run; None where nobody measured it.
        missing: what is not in the output, a line each.
    """
    numbers, panels = [], []
    remarks = [
        "integrated autocorrelation times with the window of Sokal; 'short' where the run is not 100 times "
        "as long, so that the time is likely too small",
        *missing,
    ]
    if cost is None:
        remarks.append("samples per CPU hour are not known: run with `pidelta run`, which measures CPU time")
    for each in series:
        gaps = np.diff(settled(each.steps.astype(np.float64)))
        if len(gaps) and (gaps != gaps[0]).any():
            apart = f"{gaps.min():.0f} to {gaps.max():.0f} steps"
            remarks.append(f"{each.name}: rows are not evenly spaced in time, but {apart} apart")
            continue
        row_ps = step_ps * float(gaps[0]) if len(gaps) else math.nan
        found = correlation_time(settled(each.values))
        value = found.samples * row_ps
        if math.isnan(value):
            remarks.append(f"{each.name}: too few rows, or constant")
            continue
        # Relative error sqrt(2 (2 W + 1) / n) with a window W of five inefficiencies (Sokal).
        error = value * math.sqrt(2.0 * (20.0 * found.samples + 1.0) / len(settled(each.values)))
        details: dict[str, float | str] = {"independent samples": round(found.n_effective, 1)}
        if cost is not None:
            span = settled(each.steps.astype(np.float64))
            share = (span[-1] - span[0]) / cost.steps
            if share > 0.0:
                details["samples per CPU hour"] = round(
                    found.n_effective * 3600.0 / (cost.cpu_seconds * share), 2
                )
        details["run"] = "long enough" if found.is_reliable else "short"
        numbers.append(Number(each.name, Mean(value, error), "ps", details=details))
        panels.append(_panel(each, row_ps, value))
    pictures: tuple[Picture, ...] = ()
    if panels:
        pictures = (Picture("correlations", "autocorrelation functions", tuple(panels)),)
    return Section("Correlation times", tuple(numbers), pictures, tuple(remarks))


def _panel(series: Series, row_ps: float, time_ps: float) -> Panel:
    function = autocorrelation(settled(series.values))
    shown = min(len(function) // 2, max(int(_LONGEST_SHOWN * time_ps / row_ps), 20))
    time = np.arange(shown, dtype=np.float64) * row_ps
    return Panel(series.name, "time / ps", "autocorrelation", (Curve("", time, function[:shown]),))
