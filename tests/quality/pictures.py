"""Pictures of the quality report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from measure import Measurement
from molecules import Molecules

_STYLES = {
    "pidelta DFTB3": ("#2f6db3", "o"),
    "pidelta DFTB2": ("#7fb2e5", "s"),
    "mio DFTB2": ("#d8702a", "^"),
    "3ob DFTB3": ("#3a8f5c", "D"),
}
_DFT = "#303030"
_WIDEST = 0.04  # angstrom, of the errors of bonds
_DPI = 130


def draw_gradients(measurements: list[Measurement], molecules: Molecules, path: Path) -> None:
    """Force MAE of each molecule, one row each, in groups: neutral ones, ions, those with S or Cl."""
    known = measurements[0].gradient_errors
    groups = (molecules.neutral, molecules.ions, molecules.sulfur_chlorine)
    names, rows = [], []
    for number, group in enumerate(groups):
        for name in group:
            if name in known:
                rows.append(len(names) + 0.7 * number)
                names.append(name)
    figure = _figure(7.0, 0.8 + 0.22 * len(names))
    axis = figure.subplots()
    for measurement in measurements:
        colour, marker = _STYLES[measurement.method]
        values = [measurement.gradient_errors.get(name, np.nan) for name in names]
        axis.plot(values, rows, marker, color=colour, markersize=5, alpha=0.9, label=measurement.method)
    axis.set_yticks(rows, names, fontsize=8)
    axis.set_ylim(rows[-1] + 0.7, -0.7)
    axis.set_xlim(left=0.0)
    axis.set_xlabel("mean absolute error of the gradient / (eV/Å)")
    axis.legend(
        frameon=False, fontsize=8, ncols=len(measurements), loc="lower center", bbox_to_anchor=(0.4, 1.0)
    )
    _tidy(axis)
    figure.savefig(path, dpi=_DPI)


def draw_dimer(measurements: list[Measurement], path: Path) -> None:
    """Interaction of two waters along the O-O distance."""
    figure = _figure(6.0, 3.8)
    axis = figure.subplots()
    first = measurements[0].dimer
    axis.plot(first.coordinate, first.reference, color=_DFT, linewidth=2.0, label="B3LYP/def2-TZVPD")
    for measurement in measurements:
        colour, marker = _STYLES[measurement.method]
        curve = measurement.dimer
        axis.plot(
            curve.coordinate,
            curve.found,
            marker=marker,
            color=colour,
            linewidth=1.0,
            markersize=4,
            label=measurement.method,
        )
    axis.axhline(0.0, color="#a0a0a0", linewidth=0.7)
    axis.set_xlabel("O-O distance / Å")
    axis.set_ylabel("interaction energy / (kcal/mol)")
    axis.legend(frameon=False, fontsize=8)
    _tidy(axis)
    figure.savefig(path, dpi=_DPI)


def draw_bonds(measurements: list[Measurement], path: Path) -> None:
    """Errors of bond lengths by the elements of the bond."""
    kinds = measurements[0].bond_kinds
    figure = _figure(7.0, 3.8)
    axis = figure.subplots()
    width = 0.8 / len(measurements)
    for k, measurement in enumerate(measurements):
        colour, _ = _STYLES[measurement.method]
        for column, kind in enumerate(kinds):
            errors = np.sort(measurement.bond_errors(kind))
            if not len(errors):
                continue
            x = column + (k - 0.5 * (len(measurements) - 1)) * width
            spread = width * 0.3 * np.linspace(-1.0, 1.0, len(errors)) if len(errors) > 1 else [0.0]
            inside = np.abs(errors) < _WIDEST
            axis.plot((x + np.array(spread))[inside], errors[inside], ".", color=colour, markersize=3.5)
            for error in errors[~inside]:
                axis.plot(x, np.sign(error) * _WIDEST, "x", color=colour, markersize=5)
            axis.plot([x - 0.4 * width, x + 0.4 * width], 2 * [np.mean(errors)], color=colour, linewidth=1.6)
    axis.axhline(0.0, color="#808080", linewidth=0.8)
    axis.set_ylim(-1.05 * _WIDEST, 1.05 * _WIDEST)
    axis.set_xticks(range(len(kinds)), kinds)
    axis.set_ylabel("error of the bond length / Å")
    handles = [
        Line2D([], [], color=_STYLES[measurement.method][0], marker=".", label=measurement.method)
        for measurement in measurements
    ]
    axis.legend(
        handles=handles,
        frameon=False,
        fontsize=8,
        ncols=len(handles),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
    )
    _tidy(axis)
    figure.savefig(path, dpi=_DPI)


def draw_frequencies(measurements: list[Measurement], path: Path) -> None:
    """Relative errors of wavenumbers, a panel for each molecule."""
    names = sorted(measurements[0].vibrations)
    figure = _figure(7.0, 0.6 + 2.3 * len(names))
    axes = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, names, strict=True):
        for level, measurement in enumerate(measurements):
            colour, marker = _STYLES[measurement.method]
            vibrations = measurement.vibrations[name]
            x = vibrations.reference[-len(vibrations.relative_errors) :]
            axis.plot(
                x,
                100.0 * vibrations.relative_errors,
                marker,
                color=colour,
                markersize=4,
                alpha=0.85,
                zorder=9 - level,  # the first, whose target it is, on top
                label=f"{measurement.method}: RMS {100.0 * vibrations.rms:.1f} %",
            )
        axis.axhline(0.0, color="#808080", linewidth=0.8)
        axis.set_ylabel("error / %")
        axis.set_title(name, fontsize=9, loc="left")
        axis.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
        _tidy(axis)
    axes[-1].set_xlabel("wavenumber by B3LYP/def2-TZVP / cm$^{-1}$")
    figure.savefig(path, dpi=_DPI)


def draw_proton_transfer(measurements: list[Measurement], path: Path) -> None:
    """Energy of the shared proton of H5O2+ between fixed oxygens."""
    separations = sorted(measurements[0].zundel)
    figure = _figure(7.0, 3.4)
    axes = figure.subplots(1, len(separations), sharey=True, squeeze=False)[0]
    for axis, separation in zip(axes, separations, strict=True):
        _draw_half(
            axis,
            measurements[0].zundel[separation].coordinate,
            measurements[0].zundel[separation].reference,
            color=_DFT,
            linewidth=2.0,
            label="B3LYP/def2-TZVP",
        )
        for measurement in measurements:
            colour, marker = _STYLES[measurement.method]
            profile = measurement.zundel[separation]
            _draw_half(
                axis,
                profile.coordinate,
                profile.found,
                color=colour,
                marker=marker,
                markersize=4,
                linewidth=1.0,
                label=measurement.method,
            )
        axis.set_title(f"O-O {separation} Å", fontsize=9)
        axis.set_xlabel("proton from the middle / Å")
        axis.set_ylim(-4.0, 12.0)
        _tidy(axis)
    axes[0].set_ylabel("energy / (kcal/mol)")
    axes[0].legend(frameon=False, fontsize=7, loc="upper center")
    figure.savefig(path, dpi=_DPI)


def _draw_half(axis: Axes, x: np.ndarray, y: np.ndarray, **style: object) -> None:
    """Draw a symmetric curve from its right half."""
    axis.plot(np.concatenate([-x[:0:-1], x]), np.concatenate([y[:0:-1], y]), **style)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.5)
    axis.tick_params(labelsize=8)
