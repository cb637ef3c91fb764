"""``pidelta report``: what came out of a run, as a page with pictures and as numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pidelta.cli.messages import show_warning
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
        Path | None,
        typer.Option(
            help="The configuration; by default that of the run, or pidelta.yaml beside each input."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="The folder to write; PREFIX-report beside the input by default, comparison beside the "
            "first with --compare."
        ),
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
    from pidelta.ipi.outputs import find_input, read_outputs

    options = ReportOptions(
        bonds=tuple(_parse_bond(text) for text in bond or ()),
        modes=tuple(_parse_mode(text) for text in mode or ()),
    )
    if output is not None and len(runs) > 1 and not compare:
        raise SetupError("--output: expected one run, or --compare")
    paths = [find_input(run) for run in runs]
    if compare and sum(len(read_outputs(path).systems) for path in paths) < 2:
        raise SetupError("--compare: expected two runs or more, or one with several systems")
    found: list[Report] = []
    for path in paths:
        setup = read_setup(path, config)
        if compare:
            found += [made for _, made in make_reports(console, path, setup, options)]
        else:
            write_reports(console, path, setup, options, output)
    if compare:
        _compare(console, found, output or paths[0].parent / "comparison")


def make_reports(
    console: Console, path: Path, setup: Setup | None, options: ReportOptions
) -> Iterator[tuple[Path, Report]]:
    """The report of each system of a run, and the folder that belongs to it.

    Args:
        console: shows what is being done.
        path: the i-PI input.
        setup: the configuration; None without one.
        options: of the user.

    Raises:
        DataError: nothing has been written yet, or a file is malformed or of another input.
    """
    from pidelta.analysis.report import SystemReport
    from pidelta.cli.report_input import composition_of, other_setup, read_run, report_folder

    run, difference = read_run(path), other_setup(path, setup)
    for index, system in enumerate(run.outputs.systems):
        with console.status(path.name) as status:

            def show(text: str, status: Status = status) -> None:
                status.update(f"{path.name}: {text}")

            made = SystemReport(run, index, composition_of(path, system, setup), options, show).make()
        if difference:
            made = replace(made, warnings=(difference, *made.warnings))
        for warning in made.warnings:
            show_warning(console, warning)
        yield report_folder(path, run.outputs.prefix) / system.name, made


def write_reports(
    console: Console, path: Path, setup: Setup | None, options: ReportOptions, output: Path | None = None
) -> None:
    """Write the report of each system of a run, and say where it is; as `make_reports`.

    Args:
        console, path, setup, options: see there.
        output: the folder to write to; by default the one that belongs to the input.
    """
    from pidelta.analysis.pages import PAGE, write_report

    for folder, made in make_reports(console, path, setup, options):
        target = folder if output is None else output / made.system
        target.mkdir(parents=True, exist_ok=True)
        with console.status(f"{path.name}: pictures"):
            write_report(made, target)
        console.print(f"report: {target / PAGE}", soft_wrap=True, highlight=False)


def _compare(console: Console, reports: list[Report], folder: Path) -> None:
    from pidelta.analysis.comparison import distinct, write_comparison
    from pidelta.analysis.pages import PAGE

    named = distinct(reports)
    folder.mkdir(parents=True, exist_ok=True)
    write_comparison(named, folder)
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
