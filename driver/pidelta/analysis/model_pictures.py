"""The pictures of the errors of delta models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from pidelta.analysis.model_errors import METHOD_TITLES, ModelErrors, Parity, Share
from pidelta.analysis.plots import COLOURS, new_figure, save, tidy
from pidelta.state import FloatArray

_GREY = "#8a8a8a"
_LEGEND = tuple(METHOD_TITLES.values())
_MOST_POINTS = 50_000  # of a panel; more take long and show no more


def draw_parity(errors: ModelErrors, path: Path) -> None:
    """Energies and components of gradients against those of the reference, without and with the models."""
    figure = new_figure(9.6, 3.5)
    for axis, (name, title) in zip(
        figure.subplots(1, 3),
        (
            ("energy", "energy / kcal/mol"),
            ("qm_gradient", "QM gradient / kcal/mol/Å"),
            ("mm_gradient", "MM gradient / kcal/mol/Å"),
        ),
        strict=True,
    ):
        _draw_parity(axis, errors.parity[name])
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_xlabel("reference", fontsize=9)
        tidy(axis)
        axis.tick_params(labelsize=8)
        axis.locator_params(nbins=5)
    figure.axes[0].set_ylabel("method", fontsize=9)
    handles = figure.axes[0].get_lines()[:2]
    figure.legend(
        handles, _LEGEND, loc="outside lower center", ncols=2, frameon=False, fontsize=8, markerscale=3.0
    )
    save(figure, path)


def _draw_parity(axis: Axes, values: Parity) -> None:
    stride = -(-len(values.reference) // _MOST_POINTS) or 1
    reference, low, corrected = (
        array[::stride] for array in (values.reference, values.low, values.corrected)
    )
    size = 4.0 if len(reference) < 500 else 2.0
    for method, colour in ((low, COLOURS[1]), (corrected, COLOURS[0])):
        axis.plot(reference, method, ".", color=colour, markersize=size, alpha=0.6, markeredgewidth=0.0)
    every = np.concatenate([reference, low, corrected, [0.0]])
    margin = 0.04 * float(np.ptp(every)) or 1.0
    ends = (float(every.min()) - margin, float(every.max()) + margin)
    axis.plot(ends, ends, "--", color=_GREY, linewidth=0.8, zorder=1)
    axis.set(xlim=ends, ylim=ends, aspect="equal")


def draw_shares(errors: ModelErrors, path: Path) -> None:
    """Errors of gradients by element and by distance, as bars on a logarithmic scale."""
    figure = new_figure(9.6, 3.3)
    axes = figure.subplots(1, 3, width_ratios=(2, 4, 2))
    for axis, shares, title, label in zip(
        axes,
        (errors.qm_elements, errors.mm_distances, errors.mm_elements),
        ("QM gradient", "MM gradient", "MM gradient"),
        ("QM element", "distance from the nearest QM atom / Å", "MM element"),
        strict=True,
    ):
        _draw_bars(axis, shares)
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_xlabel(label, fontsize=9)
    axes[0].set_ylabel("RMSE / kcal/mol/Å", fontsize=9)
    figure.legend(axes[0].containers, _LEGEND, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    save(figure, path)


def _draw_bars(axis: Axes, shares: Sequence[Share]) -> None:
    places = np.arange(len(shares))
    for method, colour in ((0, COLOURS[1]), (1, COLOURS[0])):
        heights = [share.rmse[method] for share in shares]
        axis.bar(places + 0.38 * (method - 0.5), heights, 0.36, color=colour)
    if any(value > 0.0 for share in shares for value in share.rmse):
        axis.set_yscale("log")
    tidy(axis)
    axis.grid(visible=False, axis="x")
    names = [share.name.replace(" to ", "-").replace("beyond", ">") for share in shares]
    axis.set_xticks(places, names, fontsize=8)


def draw_spread(spread: FloatArray, errors: FloatArray, path: Path) -> None:
    """Errors of energies against the calibrated spread of a committee, (F,) in kcal/mol."""
    figure = new_figure(4.6, 3.6)
    axis = figure.subplots()
    errors = np.abs(errors)
    end = 1.05 * float(max(spread.max(), errors.max(), 1e-6))
    line = np.array([0.0, end])
    axis.fill_between(line, 0.0, line, color=COLOURS[2], alpha=0.15, linewidth=0.0, label="within the spread")
    axis.fill_between(
        line, line, 2.0 * line, color=COLOURS[1], alpha=0.12, linewidth=0.0, label="within twice"
    )
    axis.scatter(spread, errors, s=14, color=COLOURS[0])
    axis.set(xlim=(0.0, end), ylim=(0.0, end))
    axis.set_xlabel("calibrated spread / kcal/mol", fontsize=9)
    axis.set_ylabel("error of the energy / kcal/mol", fontsize=9)
    axis.legend(framealpha=0.9, edgecolor="none", fontsize=8, loc="upper right")
    tidy(axis)
    save(figure, path)
