"""The part of `pidelta check --nve` that runs i-PI at constant energy and reports drift and fluctuation."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from pidelta.cli.conservation_options import Report
from pidelta.cli.messages import show_note, show_warning
from pidelta.cli.progress import REFRESH_SECONDS, StepsProgress
from pidelta.cli.run import INTERRUPTED
from pidelta.cli.uncertainty import warnings
from pidelta.config import Config
from pidelta.errors import RunError
from pidelta.state import System
from pidelta.units import ATOMIC_TIME_IN_FEMTOSECOND

if TYPE_CHECKING:
    from rich.progress import TaskID

    from pidelta.workflow.conservation import Run

_PICTURE = "conservation.png"


def report_conservation(console: Console, report: Report, config: Config, system: System) -> None:
    """Run what is left to run, and print drift and fluctuation of all runs; Ctrl-C stops cleanly.

    Raises:
        SetupError: a run is under way in the folder.
        RunError: i-PI or a client failed.
        typer.Exit: it was stopped.
    """
    from pidelta.cli.supervision import signals_as_interrupts
    from pidelta.run_record import RECORD, write_record
    from pidelta.workflow.conservation import claim_folder

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # as in `pidelta run`
    claim_folder(report.folder, report.options, system)
    for note in report.notes:
        show_note(console, note)
    write_record(record := report.folder / RECORD, report.record)
    command = [sys.executable, "-m", "pidelta", "client", str(config.path)]
    try:
        with signals_as_interrupts():
            run_all(console, report.runs, command, record)
    except KeyboardInterrupt:
        _show(console, report, len(system))
        console.print(f"stopped; the same command goes on with the runs in {report.folder}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    except RunError as error:
        _show(console, report, len(system))
        raise RunError(f"{error}; the same command goes on with the runs in {report.folder}") from error
    _show(console, report, len(system))


def run_all(console: Console, runs: Sequence[Run], client_command: Sequence[str], record: Path) -> None:
    """Run one after the other what is not finished, with a progress bar over all.

    Args:
        console: where progress is shown.
        runs: in their order.
        client_command: of a client, without its address.
        record: of the configuration that all runs have, by `write_record`; a client that reads another ends
            its run.

    Raises:
        RunError: i-PI or a client failed, or i-PI ended early.
        KeyboardInterrupt: after i-PI has saved its state.
    """
    from pidelta.run_record import RECORD_VARIABLE

    variables = {RECORD_VARIABLE: str(record.resolve())}
    with StepsProgress(console) as progress:
        task = progress.add_task("steps", total=sum(run.dynamics.steps for run in runs), state="")
        done = 0
        for run in runs:
            if not run.is_finished:
                _run_one(run, client_command, variables, progress, task, done)
            progress.console.print(f"{run.name}: finished", highlight=False)
            done += run.dynamics.steps
            progress.update(task, completed=done, state="")


def _run_one(
    run: Run,
    client_command: Sequence[str],
    variables: Mapping[str, str],
    progress: StepsProgress,
    task: TaskID,
    before: int,
) -> None:
    from pidelta.analysis.ipi_output import PropertiesFollower
    from pidelta.ipi.simulation import read_simulation
    from pidelta.ipi.supervisor import Supervisor

    simulation = read_simulation(run.next_input())
    follower = PropertiesFollower(run.properties, continued=simulation.step > 0)
    whole = run.picoseconds(run.dynamics.steps)
    with Supervisor(simulation, client_command, {}, variables=variables) as supervisor:
        try:
            while supervisor.is_running():
                if (row := follower.latest()) is not None:
                    step = int(row["step"])
                    time_done = f"{run.picoseconds(step):.3g} of {whole:.3g} ps"
                    state = f"{run.name}: {time_done}  T {row['temperature']:.4g} K"
                    progress.update(task, completed=before + step, state=state)
                time.sleep(REFRESH_SECONDS)
        except KeyboardInterrupt:
            progress.console.print("stopping: i-PI writes RESTART ...")
            supervisor.stop()
            raise
    for line in warnings(supervisor.alarms()):
        show_warning(progress.console, f"{run.name}: {line}")
    if not run.is_finished:
        raise RunError(
            f"{run.folder}: expected {run.dynamics.steps} steps, i-PI ended after {run.steps_done}"
        )


def _show(console: Console, report: Report, n_atoms: int) -> None:
    """Print the table of all runs at constant energy, as far as they are, and draw the picture."""
    from pidelta.analysis.conservation import plot_conservation, read_conservation

    table = Table(
        "terms",
        "time step",
        "time / ps",
        "T / K",
        "drift / meV/atom/ps",
        "fluctuation / meV/atom",
        title="conserved quantity",
    )
    results = []
    for run in report.runs:
        if run.is_equilibration:
            continue
        step = f"{run.dynamics.time_step * ATOMIC_TIME_IN_FEMTOSECOND:.6g} fs"
        result = read_conservation(run.properties, n_atoms, "+".join(run.dynamics.terms), step)
        if result is None:
            continue
        results.append(result)
        table.add_row(
            result.terms,
            step,
            f"{result.time_ps[-1]:.4g}",
            f"{result.temperature:.1f}",
            result.drift.slope.shown("+.2g"),
            f"{result.drift.rms:.2g}",
        )
    if not results:
        return
    console.print(table)
    picture = report.folder / _PICTURE
    plot_conservation(results, picture)
    console.print(f"picture: {picture}", soft_wrap=True)
