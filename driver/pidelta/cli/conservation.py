"""The part of `pidelta check --nve` that runs i-PI at constant energy and reports drift and fluctuation."""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from pidelta.cli.evaluate import chosen_terms
from pidelta.cli.run import INTERRUPTED, REFRESH_SECONDS, StepsProgress, signals_as_interrupts
from pidelta.config import Config
from pidelta.errors import ConfigError, RunError
from pidelta.state import System
from pidelta.units import ATOMIC_TIME_IN_FEMTOSECOND, parse_quantity

if TYPE_CHECKING:
    from rich.progress import TaskID

    from pidelta.workflow.conservation import Run

DEFAULT_TIME_STEPS = ("0.25fs", "0.5fs")
_FEWEST_STEPS = 10
_PICTURE = "conservation.png"


@dataclass(frozen=True)
class NVEOptions:
    """The options of the report as they were given, None where they were not."""

    duration: str
    time_steps: Sequence[str]
    terms: Sequence[str]
    temperature: str
    equilibrate: str
    output: Path | None
    seed: int


@dataclass(frozen=True)
class Report:
    """What is to be run.

    Attributes:
        folder: where everything goes.
        options: what must not change in a folder, as texts.
        runs: in their order.
    """

    folder: Path
    options: dict[str, str | int]
    runs: list[Run]


def plan_report(given: NVEOptions, config: Config) -> Report:
    """Read the options.

    Raises:
        ConfigError: one of them is wrong; the message names it.
    """
    from pidelta.workflow.conservation import Conditions, plan_runs

    duration = _quantity("--nve", given.duration, "time")
    equilibration = _quantity("--equilibrate", given.equilibrate, "time", zero=True)
    temperature = _quantity("--temperature", given.temperature, "temperature")
    time_steps = [_quantity("--time-step", text, "time") for text in given.time_steps]
    for text, time_step in zip(given.time_steps, time_steps, strict=True):
        if duration < _FEWEST_STEPS * time_step:
            raise ConfigError(
                f"--nve: expected at least {_FEWEST_STEPS} time steps of {text}, found {given.duration}"
            )
    combinations = list(dict.fromkeys(_terms(text, config) for text in given.terms)) or [config.terms]
    folder = given.output or config.path.with_name(f"{config.path.stem}-nve")
    conditions = Conditions(duration, equilibration, temperature, given.seed)
    options: dict[str, str | int] = {
        "configuration": _digest(config),
        "--nve": _shown_time(duration),
        "--equilibrate": _shown_time(equilibration),
        "--temperature": given.temperature,
        "--seed": given.seed,
    }
    return Report(
        folder, options, plan_runs(folder, conditions, combinations, list(dict.fromkeys(time_steps)))
    )


def _quantity(option: str, text: str, dimension: str, zero: bool = False) -> float:
    try:
        value = parse_quantity(text, dimension)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None
    if value < 0.0 or (value == 0.0 and not zero):
        raise ConfigError(f"{option}: expected a {dimension} above 0, found {text!r}")
    return value


def _terms(text: str, config: Config) -> tuple[str, ...]:
    chosen = chosen_terms(text) or frozenset()
    if unknown := sorted(chosen - set(config.terms)):
        raise ConfigError(f"--terms: expected terms among {', '.join(config.terms)}, found {unknown[0]}")
    return tuple(term for term in config.terms if term in chosen)


def _shown_time(value: float) -> str:
    femtoseconds = value * ATOMIC_TIME_IN_FEMTOSECOND
    return f"{femtoseconds / 1000.0:.10g} ps" if femtoseconds >= 1000.0 else f"{femtoseconds:.10g} fs"


def _digest(config: Config) -> str:
    """A checksum of the configuration and of the files that it names."""
    found = hashlib.sha256(config.path.read_bytes())
    for path in sorted(_paths(config)):
        if path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _paths(value: object) -> set[Path]:
    if isinstance(value, Path):
        return {value}
    if isinstance(value, BaseModel):
        value = list(value.__dict__.values())
    return set().union(*(_paths(each) for each in value)) if isinstance(value, list) else set()


def conserve(console: Console, report: Report, config: Config, system: System) -> None:
    """Run what is left to run, and print drift and fluctuation of all runs; Ctrl-C stops cleanly.

    Raises:
        SetupError: the folder is that of a report with other options, or of one under way.
        RunError: i-PI or a client failed.
        typer.Exit: it was stopped.
    """
    from pidelta.workflow.conservation import claim_folder

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # as in `pidelta run`
    claim_folder(report.folder, report.options, system)
    command = [sys.executable, "-m", "pidelta", "client", str(config.path)]
    try:
        with signals_as_interrupts():
            run_all(console, report.runs, command)
    except KeyboardInterrupt:
        _show(console, report, len(system))
        console.print(f"stopped; the same command goes on with the runs in {report.folder}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    except RunError as error:
        raise RunError(f"{error}; the same command goes on with the runs in {report.folder}") from error
    _show(console, report, len(system))


def run_all(console: Console, runs: Sequence[Run], client_command: Sequence[str]) -> None:
    """Run one after the other what is not finished, with a progress bar over all.

    Raises:
        RunError: i-PI or a client failed, or i-PI ended early.
        KeyboardInterrupt: after i-PI has saved its state.
    """
    with StepsProgress(console) as progress:
        task = progress.add_task("steps", total=sum(run.dynamics.steps for run in runs), state="")
        done = 0
        for run in runs:
            if not run.is_finished:
                _run_one(run, client_command, progress, task, done)
            done += run.dynamics.steps
            progress.update(task, completed=done, state="")


def _run_one(
    run: Run, client_command: Sequence[str], progress: StepsProgress, task: TaskID, before: int
) -> None:
    from pidelta.analysis.ipi_output import PropertiesFollower
    from pidelta.ipi.simulation import read_simulation
    from pidelta.ipi.supervisor import Supervisor

    simulation = read_simulation(run.next_input())
    follower = PropertiesFollower(run.properties, continued=simulation.step > 0)
    whole = run.picoseconds(run.dynamics.steps)
    with Supervisor(simulation, client_command, {}) as supervisor:
        try:
            while supervisor.is_running():
                if (row := follower.latest()) is not None:
                    step = int(row["step"])
                    time_done = f"{run.picoseconds(step):.3g} of {whole:.3g} ps"
                    state = f"{run.name}: {time_done}  T {row['temperature']:.4g} K"
                    progress.update(task, completed=before + step, state=state)
                time.sleep(REFRESH_SECONDS)
        except KeyboardInterrupt:
            supervisor.stop()
            raise
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
