"""Pictures of a simulation: thermodynamics over time, and bond lengths of beads and centroid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pidelta.analysis.distributions import BondLengths
from pidelta.analysis.ipi_output import Properties
from pidelta.analysis.statistics import settled
from pidelta.analysis.summary import fit_drift, time_in_ps
from pidelta.state import FloatArray
from pidelta.units import HARTREE_IN_EV, HARTREE_IN_KELVIN

_BLUE, _ORANGE, _GREEN, _GREY = "#2f6db3", "#d8702a", "#3a8f5c", "#5a5a5a"
COLOURS = (_BLUE, _ORANGE, _GREEN, "#8a5aa8")
DPI = 160


def plot_thermodynamics(properties: Properties, n_atoms: int, path: Path) -> None:
    """Draw temperature, drift of the conserved quantity and potential energy over time, as far as written.

    Args:
        properties: as read from the file.
        n_atoms: number of atoms, for the drift per atom.
        path: the PNG file to write.
    """
    time_ps = time_in_ps(properties)
    if time_ps is not None:
        x, label = time_ps, "time / ps"
    else:
        x = properties.columns.get(
            "step", np.arange(len(next(iter(properties.columns.values()))), dtype=float)
        )
        label = "step"
    panels = [name for name in ("temperature", "conserved", "potential") if name in properties]
    figure = new_figure(7.0, 0.6 + 2.0 * max(len(panels), 1))
    axes = figure.subplots(max(len(panels), 1), 1, sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, panels, strict=False):
        values = properties.atomic(name)
        if name == "temperature":
            _draw_series(axis, x, values * HARTREE_IN_KELVIN, "temperature / K", _ORANGE)
        elif name == "potential":
            _draw_series(axis, x, values * HARTREE_IN_EV, "potential / eV", _GREEN)
        else:
            _draw_drift(axis, x, values, n_atoms, time_ps is not None)
    axes[-1].set_xlabel(label)
    axes[-1].set_xlim(x[0], x[-1] if x[-1] > x[0] else x[0] + 1.0)
    figure.align_ylabels()
    figure.savefig(path, dpi=DPI)


def plot_bond_lengths(distributions: Sequence[BondLengths], path: Path) -> None:
    """Draw the distribution of X-H bond lengths, filled for the beads and as a line for the centroids.

    Args:
        distributions: at least one kind of bond.
        path: the PNG file to write.
    """
    figure = new_figure(6.4, 0.7 + 1.9 * len(distributions))
    axes = figure.subplots(len(distributions), 1, sharex=True, squeeze=False)[:, 0]
    # A stray bond of a reacting molecule must not squeeze all others.
    shortest = min(np.quantile(bonds.beads, 0.001) for bonds in distributions)
    longest = max(np.quantile(bonds.beads, 0.999) for bonds in distributions)
    margin = max(0.1 * (longest - shortest), 0.01)
    fewest = min(len(bonds.beads if bonds.centroid is None else bonds.centroid) for bonds in distributions)
    bins = int(np.clip(3.0 * np.sqrt(fewest), 20, 70))
    edges = np.linspace(shortest - margin, longest + margin, bins)
    for axis, bonds, colour in zip(axes, distributions, _cycle(len(distributions)), strict=True):
        axis.hist(
            bonds.beads, edges, density=True, color=colour, alpha=0.45, label=_legend("beads", bonds.beads)
        )
        if bonds.centroid is not None:
            axis.hist(
                bonds.centroid,
                edges,
                density=True,
                histtype="step",
                color=_GREY,
                linewidth=1.3,
                label=_legend("centroid", bonds.centroid),
            )
        axis.set_ylabel(f"p({bonds.kind}) / Å$^{{-1}}$")
        axis.legend(frameon=False, fontsize=8)
        tidy(axis)
    axes[-1].set_xlabel("bond length / Å")
    figure.savefig(path, dpi=DPI)


def new_figure(width: float, height: float) -> Figure:
    """Return a figure that belongs to no window and no global state."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    FigureCanvasAgg(figure)
    return figure


def _draw_series(axis: Axes, x: FloatArray, values: FloatArray, label: str, colour: str) -> None:
    mean = float(settled(values).mean())
    axis.plot(x, values, color=colour, linewidth=0.7, alpha=0.55)
    window = len(values) // 20
    if window > 1:
        smooth = np.convolve(values, np.full(window, 1.0 / window), mode="valid")
        start = (window - 1) // 2
        axis.plot(x[start : start + len(smooth)], smooth, color=colour, linewidth=1.8)
    axis.axhline(mean, color=_GREY, linewidth=0.9, linestyle="--")
    axis.set_ylabel(label)
    unit = label.split(" / ")[-1]
    axis.set_title(f"mean {mean:.6g} {unit}", loc="right", fontsize=8, color=_GREY)
    _limit(axis, values)
    tidy(axis)


def _draw_drift(axis: Axes, x: FloatArray, conserved: FloatArray, n_atoms: int, in_ps: bool) -> None:
    energy = (conserved - conserved[0]) * (1000.0 * HARTREE_IN_EV / n_atoms)
    axis.plot(x, energy, color=_BLUE, linewidth=1.0)
    if in_ps and len(x) > 2:
        slope = fit_drift(settled(x), settled(conserved), n_atoms).slope.value
        line = settled(energy).mean() + slope * (x - settled(x).mean())
        axis.plot(x, line, color=_GREY, linewidth=0.9, linestyle="--")
        axis.set_title(f"drift {slope:+.3g} meV/atom/ps", loc="right", fontsize=8, color=_GREY)
    axis.set_ylabel("Δ conserved\n/ (meV/atom)")
    _limit(axis, energy)
    tidy(axis)


def _limit(axis: Axes, values: FloatArray) -> None:
    """Fit the axis to what comes after the first steps, whose jump from a cold start would flatten it."""
    low, high = float(settled(values).min()), float(settled(values).max())
    if high > low:
        margin = 0.08 * (high - low)
        axis.set_ylim(low - margin, high + margin)


def _legend(name: str, lengths: FloatArray) -> str:
    return f"{name}: {lengths.mean():.3f} ± {lengths.std():.3f} Å"


def _cycle(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def tidy(axis: Axes) -> None:
    """Give an axis the style of all pictures."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.5)
    axis.tick_params(labelsize=9)
