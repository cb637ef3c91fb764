"""``pidelta report``: what came out of a run, as a page with pictures and as numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pidelta.errors import DataError, SetupError

if TYPE_CHECKING:
    from rich.status import Status

    from pidelta.analysis.report import ReportOptions
    from pidelta.analysis.sections import Mark, Report
    from pidelta.setup import Setup


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
    mode: Annotated[
        list[str] | None,
        typer.Option(metavar="W=LABEL", help="A known vibration in 1/cm, marked in spectra: 1730=C=O."),
    ] = None,
) -> None:
    """Analyse the outputs of runs: temperatures, kinetic energies, correlation times, structure, spectra."""
    console = Console()
    from pidelta.analysis.report import ReportOptions
    from pidelta.cli.report_input import read_setup
    from pidelta.ipi.outputs import find_input

    options = ReportOptions(
        bonds=tuple(_parse_bond(text) for text in bond or ()),
        modes=tuple(_parse_mode(text) for text in mode or ()),
    )
    if output is not None and len(runs) > 1 and not compare:
        raise SetupError("--output: expected one run, or --compare")
    found: list[Report] = []
    for run in runs:
        path = find_input(run)
        found += write_reports(console, path, read_setup(path, config), options, None if compare else output)
    if compare:
        _compare(console, found, output or Path("comparison"))


def write_reports(
    console: Console, path: Path, setup: Setup | None, options: ReportOptions, output: Path | None = None
) -> list[Report]:
    """Write the report of each system of a run, and say where it is.

    Args:
        console: shows what is being done, and the pages.
        path: the i-PI input.
        setup: the configuration; None without one.
        options: of the user.
        output: the folder to write to; by default the one that belongs to the input.

    Raises:
        DataError: nothing has been written yet, or a file is malformed or of another input.
    """
    from pidelta.analysis.pages import PAGE, write_report
    from pidelta.analysis.report import SystemReport
    from pidelta.cli.report_input import composition_of, read_run, report_folder

    run = read_run(path)
    reports = []
    for index, system in enumerate(run.outputs.systems):
        with console.status(path.name) as status:

            def show(text: str, status: Status = status) -> None:
                status.update(f"{path.name}: {text}")

            made = SystemReport(run, index, composition_of(path, system, setup), options, show).make()
            folder = (output or report_folder(path, run.outputs.prefix)) / system.name
            show("pictures")
            folder.mkdir(parents=True, exist_ok=True)
            write_report(made, folder)
        console.print(f"report: {folder / PAGE}", soft_wrap=True, highlight=False)
        reports.append(made)
    return reports


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


def _parse_mode(text: str) -> Mark:
    from pidelta.analysis.sections import Mark

    number, _, label = text.partition("=")
    try:
        return Mark(float(number), label or number)
    except ValueError:
        raise DataError(
            f"--mode: expected a wavenumber and a label such as 1730=C=O, found {text!r}"
        ) from None
