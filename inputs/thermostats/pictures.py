"""The pictures of the study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from family import FOLDER, TEMPERATURE, Run
from matplotlib.axes import Axes
from observables import Result, hides_slow_exchange

from pidelta.analysis.plots import COLOURS, DPI, new_figure, tidy

Results = dict[Run, Result]
SHOWN = ("nve", "svr-100", "langevin-100", "langevin-10", "gle")


def draw(results: Results) -> None:
    """Draw what there is to be drawn, into the folder of the page."""
    uracil = {run: result for run, result in results.items() if run.system == "uracil"}
    if uracil:
        draw_temperatures(uracil, FOLDER / "temperatures.png")
    classical = {run: result for run, result in uracil.items() if run.beads == 1}
    if classical:
        draw_spectra(classical, FOLDER / "spectra.png")
        draw_trade(classical, FOLDER / "trade.png")
    molecule = {run: result for run, result in results.items() if run.system == "molecule"}
    if molecule:
        draw_self_consistency(molecule, FOLDER / "self-consistency.png")


def draw_temperatures(results: Results, path: Path) -> None:
    """Both regions by thermostat, of centroids in ring polymers; hollow where the error is too small.

    Shorter and longer runs of a thermostat are neighbours.
    """
    figure = new_figure(6.4, 1.1 + 0.3 * len(results))
    axis = figure.subplots()
    labels = list(dict.fromkeys((run.beads, run.label) for run in results))
    results = dict(sorted(results.items(), key=lambda each: labels.index((each[0].beads, each[0].label))))
    names = [
        f"{run.label}{f', {run.beads} beads' if run.beads > 1 else ''}: {result.picoseconds:.0f} ps"
        for run, result in results.items()
    ]
    places = np.arange(len(results))[::-1]
    for group, colour, shift in (("QM", COLOURS[1], 0.14), ("MM", COLOURS[0], -0.14)):
        for place, (run, result) in zip(places, results.items(), strict=True):
            value, error = result.temperatures[group]
            hollow = group == "QM" and hides_slow_exchange(run, result)
            fill = "white" if hollow else colour
            axis.errorbar(
                value, place + shift, xerr=error, fmt="o", ms=4.5, mfc=fill, capsize=2, color=colour
            )
        axis.plot([], [], "o", ms=4.5, color=colour, label=group)
    axis.axvspan(0.99 * TEMPERATURE, 1.01 * TEMPERATURE, color="0.9", zorder=0)
    axis.axvline(TEMPERATURE, color="0.5", linewidth=0.8)
    axis.set_yticks(places, names)
    axis.set_ylim(-0.5, len(results) - 0.5)
    axis.set_xlabel("kinetic temperature / K\ngrey: 298 K ± 1 %; hollow: error too small")
    axis.legend(frameon=False, fontsize=8)
    tidy(axis)
    figure.savefig(path, dpi=DPI)


def draw_spectra(results: Results, path: Path) -> None:
    """Densities of states of both regions and the infrared spectrum of water, by thermostat."""
    figure = new_figure(7.2, 6.6)
    axes = figure.subplots(3, 1, sharex=True)
    titles = {
        "QM": "uracil, density of states",
        "MM": "water, density of states",
        "infrared": "water, infrared",
    }
    for axis, (kind, title) in zip(axes, titles.items(), strict=True):
        for (run, result), colour in zip(_shown(results), ("0.35", *COLOURS), strict=False):
            x, y = result.spectra["wavenumber"], result.spectra[kind]
            axis.plot(x, y, color=colour, linewidth=1.1, label=run.label)
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_yticks([])
        tidy(axis)
    axes[0].legend(frameon=False, fontsize=8, ncols=2)
    axes[-1].set_xlabel("wavenumber / cm$^{-1}$")
    axes[-1].set_xlim(0, 4500)
    figure.savefig(path, dpi=DPI)


def draw_trade(results: Results, path: Path) -> None:
    """How fast the QM region samples over how fast water diffuses, by the longest run of each thermostat."""
    longest: dict[str, Result] = {}
    for run, result in results.items():
        if not hides_slow_exchange(run, result):
            before = longest.get(run.label, result)
            longest[run.label] = max(before, result, key=lambda one: one.picoseconds)
    figure = new_figure(7.6, 4.2)
    axis = figure.subplots()
    styles = [(colour, marker) for marker in "os^" for colour in (*COLOURS, "0.35")]
    for (label, result), (colour, marker) in zip(longest.items(), styles, strict=False):
        value, error = result.diffusion
        rate = result.times["QM kinetic"][1] / result.picoseconds
        axis.errorbar(
            value, rate, xerr=error, fmt=marker, ms=5, capsize=2, color=colour, linestyle="", label=label
        )
    axis.set_yscale("log")
    axis.set_xlabel("diffusion of water / Å$^2$ ps$^{-1}$")
    axis.set_ylabel("independent QM kinetic energies / ps$^{-1}$")
    axis.legend(frameon=False, fontsize=8)
    tidy(axis)
    figure.savefig(path, dpi=DPI)


def draw_self_consistency(results: Results, path: Path) -> None:
    """Drift and fluctuation of the conserved quantity over the tolerance of the charges."""
    figure = new_figure(7.0, 3.2)
    axes = figure.subplots(1, 2)
    for (label, start), colour in zip(_kinds(results), [*COLOURS, "0.35", "0.6"], strict=False):
        runs = [run for run in results if run.label == label and run.scc.endswith(start)]
        x = [float(run.scc.removeprefix("tolerance: ").split(",")[0]) for run in runs]
        drift = np.array([results[run].drift for run in runs])
        _line(axes[0], x, np.abs(drift[:, 0]), colour, f"{label}, {start}")
        _line(axes[1], x, [results[run].fluctuation for run in runs], colour, f"{label}, {start}")
    axes[0].set_ylabel("|drift| / meV/atom/ps")
    axes[1].set_ylabel("fluctuation / meV/atom")
    axes[1].legend(frameon=False, fontsize=7)
    for axis in axes:
        axis.set_xlabel("tolerance of the charges / e")
        tidy(axis)
    figure.savefig(path, dpi=DPI)


def _line(axis: Axes, x: list[float], y: object, colour: str, label: str) -> None:
    axis.loglog(x, y, "o-", ms=4, linewidth=1.0, color=colour, label=label)


def _kinds(results: Results) -> list[tuple[str, str]]:
    return list(dict.fromkeys((run.label, run.scc.split("start: ")[1]) for run in results))


def _shown(results: Results) -> Iterator[tuple[Run, Result]]:
    for key in SHOWN:
        yield from ((run, result) for run, result in results.items() if run.name.endswith(f"-1-{key}"))
