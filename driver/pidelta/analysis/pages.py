"""Reports as pages: Markdown with pictures, and JSON with all numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pidelta.analysis.plots import COLOURS, DPI, new_figure, save, tidy
from pidelta.analysis.sections import Curve, Number, Panel, Picture, Report, Section
from pidelta.output_files import replacing
from pidelta.state import FloatArray

PAGE, DATA = "report.md", "report.json"
_GREY = "#5a5a5a"
_FEW_COLUMNS = 3


def write_report(report: Report, folder: Path) -> None:
    """Write ``report.md``, ``report.json`` and pictures into a folder, which exists."""
    lines = [f"# {report.name}", "", *_facts(report)]
    if report.warnings:
        lines += ["", *(f"- warning: {warning}" for warning in report.warnings)]
    for section in report.sections:
        lines += ["", f"## {section.title}", ""]
        lines += _table(section)
        for picture in section.pictures:
            draw(picture, folder / f"{picture.name}.png")
            lines += [f"![{picture.caption}]({picture.name}.png)", ""]
        lines += [f"- {remark}" for remark in section.remarks]
    write_text(folder / PAGE, "\n".join(lines).rstrip() + "\n")
    write_text(folder / DATA, json.dumps(to_json(report), indent=1) + "\n")


def to_json(report: Report) -> dict[str, Any]:
    """All numbers with errors and units, and all curves; what is not known is null."""
    return {
        "name": report.name,
        "facts": dict(report.facts),
        "warnings": list(report.warnings),
        "sections": [
            {
                "title": section.title,
                "numbers": [_number_json(number) for number in section.numbers],
                "curves": [
                    _curve_json(picture, panel, curve)
                    for picture in section.pictures
                    for panel in picture.panels
                    for curve in panel.curves
                ],
                "remarks": list(section.remarks),
            }
            for section in report.sections
        ],
    }


def draw(picture: Picture, path: Path) -> None:
    """Draw the panels of a picture in a grid."""
    count = len(picture.panels)
    columns = min(count, _FEW_COLUMNS)
    rows = -(-count // columns)
    width, height = max(3.2 * columns, 5.0), 2.3 * rows + 0.1
    figure = new_figure(width, height, finds_margins=False)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    figure.subplots_adjust(0.75 / width, 0.5 / height, 1.0 - 0.1 / width, 1.0 - 0.25 / height, 0.36, 0.5)
    for axis, panel in zip(axes, picture.panels, strict=False):
        colours = iter(COLOURS * len(panel.curves))
        power = _power_of_ten(panel)
        scale = 10.0**-power
        for curve in panel.curves:
            colour = _GREY if curve.is_reference else next(colours)
            style = "--" if curve.is_reference else "-"
            axis.plot(curve.x, scale * curve.y, style, color=colour, linewidth=1.3, label=curve.name or None)
            if curve.error is not None:
                low, high = scale * (curve.y - curve.error), scale * (curve.y + curve.error)
                axis.fill_between(curve.x, low, high, color=colour, alpha=0.25, linewidth=0.0)
        for mark in panel.marks:
            axis.axvline(mark.x, color=_GREY, linewidth=0.6, linestyle=":")
            axis.text(
                mark.x,
                0.98,
                mark.label,
                rotation=90,
                fontsize=6,
                ha="right",
                va="top",
                color=_GREY,
                transform=axis.get_xaxis_transform(),
            )
        axis.set_title(panel.title, loc="left", fontsize=9)
        axis.set_xlabel(panel.x_label, fontsize=9)
        label = f"10$^{{{-power}}}$ {panel.y_label}" if power else panel.y_label
        axis.set_ylabel(label, fontsize=9)
        if any(curve.name for curve in panel.curves) and len(panel.curves) > 1:
            axis.legend(frameon=False, fontsize=7)
        tidy(axis)
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", nbins=5)
        axis.ticklabel_format(axis="y", style="plain")
    for axis in axes[count:]:
        axis.set_visible(False)
    save(figure, path, DPI * 2 // 3)


def _power_of_ten(panel: Panel) -> int:
    """What its label takes from numbers with many digits; matplotlib would write it where the title is."""
    largest = max((float(np.abs(curve.y).max()) for curve in panel.curves if len(curve.y)), default=0.0)
    power = math.floor(math.log10(largest)) if 0.0 < largest < math.inf else 0
    return 0 if -2 <= power <= 4 else power


def shown(number: Number) -> str:
    """Value and error with the digits that the error leaves."""
    value, error = number.mean.value, number.mean.error
    if not math.isfinite(value):
        return "-"
    if not error > 0.0 or not math.isfinite(error):
        return f"{value:.5g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    if digits > 9 or abs(value) >= 1e7:
        return f"{value:.4g} ± {error:.2g}"
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _facts(report: Report) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in report.facts)]


def _table(section: Section) -> list[str]:
    if not section.numbers:
        return []
    titles = list(dict.fromkeys(title for number in section.numbers for title in number.details))
    with_expected = any(number.expected is not None for number in section.numbers)
    head = ["", "value", "unit", *(["expected", "z"] if with_expected else []), *titles]
    lines = [table_row(head), table_row(["---"] * len(head))]
    for number in section.numbers:
        cells = [number.name, shown(number), number.unit]
        if with_expected:
            cells += ["" if number.expected is None else f"{number.expected:.5g}"]
            cells += ["" if number.z is None else f"{number.z:+.1f}"]
        lines.append(table_row([*cells, *(_cell(number.details.get(title, "")) for title in titles)]))
    return [*lines, ""]


def table_row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def _cell(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _number_json(number: Number) -> dict[str, Any]:
    return {
        "name": number.name,
        "value": _finite(number.mean.value),
        "error": _finite(number.mean.error),
        "unit": number.unit,
        "expected": number.expected,
        "details": {title: _finite(value) for title, value in number.details.items()},
    }


def _curve_json(picture: Picture, panel: Panel, curve: Curve) -> dict[str, Any]:
    return {
        "picture": picture.name,
        "panel": panel.title,
        "name": curve.name,
        "x_label": panel.x_label,
        "y_label": panel.y_label,
        "x": _digits(curve.x),
        "y": _digits(curve.y),
        "error": None if curve.error is None else _digits(curve.error),
    }


def _finite(value: float | str) -> float | str | None:
    return value if isinstance(value, str) or math.isfinite(value) else None


def _digits(values: FloatArray) -> list[float | None]:
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


def write_text(path: Path, text: str) -> None:
    """Write a page, whole or not at all."""
    with replacing(path) as stream:
        stream.write(text)
