"""Several reports side by side: differences with combined errors, and pictures on top of each other."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pidelta.analysis.pages import DATA, PAGE, draw, shown, table_row, to_json, write_text
from pidelta.analysis.sections import Curve, Number, Panel, Picture, Report, Section
from pidelta.errors import DataError


def write_comparison(reports: Sequence[Report], folder: Path) -> None:
    """Write ``report.md``, ``report.json`` and pictures into a folder, which exists.

    Args:
        reports: two or more, of different names; differences are from the first.
        folder: where to write.
    """
    names = [report.name for report in reports]
    lines = [f"# {' / '.join(names)}", "", *_facts(reports)]
    warnings = [f"- warning: {report.name}: {warning}" for report in reports for warning in report.warnings]
    if warnings:
        lines += ["", *warnings]
    if len(names) > 1:
        lines += ["", f"z: difference from {names[0]} in units of both errors together."]
    for title in dict.fromkeys(section.title for report in reports for section in report.sections):
        sections = [
            next((s for s in report.sections if s.title == title), Section(title)) for report in reports
        ]
        lines += ["", f"## {title}", "", *_table(names, sections)]
        for picture in overlaid(names, sections):
            draw(picture, folder / f"{picture.name}.png")
            lines += [f"![{picture.caption}]({picture.name}.png)", ""]
        for remark in dict.fromkeys(remark for section in sections for remark in section.remarks):
            having = [name for name, s in zip(names, sections, strict=True) if remark in s.remarks]
            lines.append(f"- {remark if len(having) == len(names) else ', '.join(having) + ': ' + remark}")
    write_text(folder / PAGE, "\n".join(lines).rstrip() + "\n")
    content = {"runs": [to_json(report) for report in reports], "differences": _differences(reports)}
    write_text(folder / DATA, json.dumps(content, indent=1) + "\n")


def distinct(reports: Sequence[Report]) -> list[Report]:
    """The reports under names of their own: as much of the path of their folder before them as that takes.

    Raises:
        DataError: one run is there twice.
    """
    names, depth = [report.name for report in reports], 0
    while len(set(names)) < len(names):
        depth += 1
        if all(depth > len(report.folder.parts) for report in reports):
            raise DataError(f"--compare: expected runs that differ, found {_twice(names)} twice")
        names = [str(Path(*report.folder.parts[-depth:], report.name)) for report in reports]
    return [replace(report, name=name) for report, name in zip(reports, names, strict=True)]


def _twice(names: Sequence[str]) -> str:
    return next(name for name in names if names.count(name) > 1)


def z_score(number: Number, reference: Number) -> float:
    """The difference of two numbers in units of both errors together; NaN where one has none."""
    error = math.hypot(number.mean.error, reference.mean.error)
    return (number.mean.value - reference.mean.value) / error if error > 0.0 else math.nan


def overlaid(names: Sequence[str], sections: Sequence[Section]) -> list[Picture]:
    """The pictures of a section with a panel for each curve, and in it a line for each run that has it.

    Curves in unlike units, which the label says, do not share a panel.
    """
    found: dict[tuple[str, str], dict[tuple[str, str, str], list[Curve]]] = {}
    frames: dict[tuple[str, str, str], Panel] = {}
    for name, section in zip(names, sections, strict=True):
        for picture in section.pictures:
            panels = found.setdefault((picture.name, picture.caption), {})
            for panel in picture.panels:
                for curve in panel.curves:
                    if curve.is_reference:
                        continue
                    key = (panel.title, curve.name, panel.y_label)
                    frames.setdefault(key, panel)
                    panels.setdefault(key, []).append(Curve(name, curve.x, curve.y, curve.error))
    return [
        Picture(
            picture,
            caption,
            tuple(
                Panel(
                    ", ".join(filter(None, key[:2])),
                    frames[key].x_label,
                    frames[key].y_label,
                    tuple(curves),
                    frames[key].marks,
                )
                for key, curves in panels.items()
            ),
        )
        for (picture, caption), panels in found.items()
    ]


def _facts(reports: Sequence[Report]) -> list[str]:
    titles = dict.fromkeys(title for report in reports for title, _ in report.facts)
    lines = [table_row(["", *(report.name for report in reports)]), table_row(["---"] * (len(reports) + 1))]
    lines += [table_row([title, *(dict(r.facts).get(title, "") for r in reports)]) for title in titles]
    return lines


def _table(names: Sequence[str], sections: Sequence[Section]) -> list[str]:
    rows = _rows(sections)
    if not rows:
        return []
    others = names[1:]
    head = ["", *names, "unit", *(f"z {name}" for name in others)]
    lines = [table_row(head), table_row(["---"] * len(head))]
    for (name, unit), numbers in rows.items():
        cells = [name, *("" if number is None else shown(number) for number in numbers), unit]
        for number in numbers[1:]:
            z = math.nan if number is None or numbers[0] is None else z_score(number, numbers[0])
            cells.append("" if math.isnan(z) else f"{z:+.1f}")
        lines.append(table_row(cells))
    return [*lines, ""]


def _rows(sections: Sequence[Section]) -> dict[tuple[str, str], list[Number | None]]:
    """The numbers of all runs by name and unit, None where a run has none."""
    keys = dict.fromkeys((number.name, number.unit) for section in sections for number in section.numbers)
    found = [{(number.name, number.unit): number for number in section.numbers} for section in sections]
    return {key: [numbers.get(key) for numbers in found] for key in keys}


def _differences(reports: Sequence[Report]) -> list[dict[str, object]]:
    """From the first run, as JSON."""
    first, rows = reports[0], []
    references = {(s.title, n.name, n.unit): n for s in first.sections for n in s.numbers}
    for report in reports[1:]:
        for section in report.sections:
            for number in section.numbers:
                reference = references.get((section.title, number.name, number.unit))
                if reference is None:
                    continue
                z = z_score(number, reference)
                rows.append(
                    {
                        "section": section.title,
                        "name": number.name,
                        "unit": number.unit,
                        "run": report.name,
                        "reference": first.name,
                        "difference": number.mean.value - reference.mean.value,
                        "error": math.hypot(number.mean.error, reference.mean.error),
                        "z": z,
                    }
                )
    return [
        {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in row.items()
        }
        for row in rows
    ]
