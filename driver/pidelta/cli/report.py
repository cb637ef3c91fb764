"""``pidelta report``: what came out of a run, as a page with pictures and as numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pidelta.errors import DataError, SetupError

if TYPE_CHECKING:
    from pidelta.analysis.report import ReportOptions
    from pidelta.analysis.sections import Report


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="i-PI inputs (or RESTART), or folders with one that has run."),
    ],
    config: Annotated[
        Path | None, typer.Option(help="The configuration; pidelta.yaml beside each input by default.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The folder to write; PREFIX-report beside the input by default.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="One page with all runs side by side.")] = False,
    bond: Annotated[
        list[str] | None, typer.Option(metavar="I-J", help="Atoms (from 0) whose distance is followed, too.")
    ] = None,
) -> None:
    """Analyse the outputs of runs: temperatures, kinetic energies, correlation times, structure, spectra."""
    console = Console()
    from pidelta.analysis.report import ReportOptions

    options = ReportOptions(bonds=tuple(_parse_bond(text) for text in bond or ()))
    if output is not None and len(runs) > 1 and not compare:
        raise SetupError("--output: expected one run, or --compare")
    found: list[Report] = []
    for run in runs:
        for folder, made in _reports(console, run, config, options):
            _write(console, made, folder if output is None or compare else output / made.system)
            found.append(made)
    if compare:
        _compare(console, found, output or Path("comparison"))


def _reports(
    console: Console, run: Path, config: Path | None, options: ReportOptions
) -> list[tuple[Path, Report]]:
    from pidelta.analysis.cost import read_cost
    from pidelta.analysis.report import SystemReport
    from pidelta.cli.report_input import composition_of
    from pidelta.ipi.outputs import find_input, read_outputs

    path = find_input(run)
    outputs = read_outputs(path)
    folder = path.parent / f"{outputs.prefix or path.stem}-report"
    reports = []
    for system in outputs.systems:
        composition, notes = composition_of(path, system, config)
        for note in notes:
            console.print(f"[yellow]note: {note}[/yellow]", soft_wrap=True)
        with console.status(f"{path.name}") as status:
            made = SystemReport(
                outputs,
                system,
                composition,
                read_cost(folder),
                options,
                lambda text: status.update(f"{path.name}: {text}"),
            ).make()
        reports.append((folder / system.name, made))
    return reports


def _write(console: Console, made: Report, folder: Path) -> None:
    from pidelta.analysis.pages import PAGE, write_report

    folder.mkdir(parents=True, exist_ok=True)
    write_report(made, folder)
    console.print(f"report: {folder / PAGE}", soft_wrap=True, highlight=False)


def _compare(console: Console, reports: list[Report], folder: Path) -> None:
    from pidelta.analysis.comparison import distinct, write_comparison
    from pidelta.analysis.pages import PAGE

    if len(reports) < 2:
        raise SetupError("--compare: expected two runs or more, or one with several systems")
    folder.mkdir(parents=True, exist_ok=True)
    write_comparison(distinct(reports), folder)
    console.print(f"comparison: {folder / PAGE}", soft_wrap=True, highlight=False)


def _parse_bond(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)-(\d+)", text.strip())
    if match is None or match.group(1) == match.group(2):
        raise DataError(f"--bond: expected two atoms such as 0-5, found {text!r}")
    return int(match.group(1)), int(match.group(2))
