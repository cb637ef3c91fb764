"""``pidelta run``: i-PI and its clients, with progress, a summary and plots."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pidelta.analysis.distributions import bond_length_distributions
from pidelta.analysis.ipi_output import PropertiesFollower, read_properties
from pidelta.analysis.plots import plot_bond_lengths, plot_thermodynamics
from pidelta.analysis.summary import summarise
from pidelta.cli.check import describe_method
from pidelta.config import Config, load_config
from pidelta.errors import DataError
from pidelta.ipi.simulation import PropertiesFile, Simulation, check_atom_order, read_simulation
from pidelta.ipi.supervisor import Supervisor
from pidelta.setup import Setup
from pidelta.state import IntArray, System

_REFRESH_SECONDS = 0.2
_INTERRUPTED = 130
_UNIT_SYMBOLS = {"": "a.u.", "atomic_unit": "a.u.", "kelvin": "K", "electronvolt": "eV"}


def run(
    input_file: Annotated[Path, typer.Argument(metavar="INPUT.xml", help="The i-PI input, or RESTART.")],
    config: Annotated[
        Path | None, typer.Option(help="The configuration; pidelta.yaml beside the input by default.")
    ] = None,
    clients: Annotated[
        int | None,
        typer.Option(min=1, help="Clients for each ffsocket; as many as can work at once by default."),
    ] = None,
) -> None:
    """Run i-PI and its clients, show progress, and end with a summary and plots; Ctrl-C stops cleanly."""
    console = Console()
    simulation = read_simulation(input_file)
    config = config or input_file.parent / "pidelta.yaml"
    settings = load_config(config)
    setup = Setup(settings)
    system = setup.system
    check_atom_order(simulation, system)
    command = [sys.executable, "-m", "pidelta", "client", str(config.resolve())]
    _show_terms(console, simulation, settings)
    file = simulation.main_properties
    follower = None if file is None else PropertiesFollower(file.path, continued=simulation.step > 0)
    started = time.monotonic()
    supervisor = Supervisor(simulation, command, clients or _useful_clients(simulation))
    finished = _supervise(supervisor, simulation, follower, console)
    if follower is None:
        console.print("no summary: the i-PI input asks for no <properties>")
    elif follower.has_started:
        _report(console, simulation, supervisor, setup, time.monotonic() - started)
    if not finished:
        raise typer.Exit(_INTERRUPTED)


def _show_terms(console: Console, simulation: Simulation, config: Config) -> None:
    """Say which socket serves which terms, and when that is not each term once."""
    available = config.terms
    served: list[str] = []
    for ffsocket in simulation.sockets:
        terms = [term for term in available if ffsocket.terms is None or term in ffsocket.terms]
        served += terms
        console.print(f"ffsocket {ffsocket.name}: {' + '.join(terms)}", markup=False, highlight=False)
    missing = [term for term in available if term not in served]
    twice = [term for term in available if served.count(term) > 1]
    for what, terms in (("no ffsocket serves", missing), ("several ffsockets serve", twice)):
        if terms:
            console.print(f"[yellow]note: {what} {', '.join(terms)}[/yellow]")


def _useful_clients(simulation: Simulation) -> int:
    """Clients of one ffsocket that find a batch of beads to work on and a core to do it."""
    batches = min(math.ceil(simulation.n_beads / ffsocket.batch_size) for ffsocket in simulation.sockets)
    return min(batches, os.cpu_count() or 1)


def _supervise(
    supervisor: Supervisor, simulation: Simulation, follower: PropertiesFollower | None, console: Console
) -> bool:
    """Run to the end (True) or until Ctrl-C or i-PI itself stops early (False)."""
    with _signals_as_interrupts(), supervisor:
        try:
            _show_progress(supervisor, simulation, follower, console)
        except KeyboardInterrupt:
            console.print("stopping: i-PI writes RESTART ...")
            supervisor.stop()
    if supervisor.finished():
        return True
    if supervisor.last_step() is not None:
        console.print(f"stopped; continue with: pidelta run {supervisor.restart_path}", soft_wrap=True)
    else:
        console.print("stopped before i-PI had a state to save: start again from the input", soft_wrap=True)
    return False


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Let SIGTERM and SIGHUP, from a batch system or a closed terminal, stop the run as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _show_progress(
    supervisor: Supervisor, simulation: Simulation, follower: PropertiesFollower | None, console: Console
) -> None:
    file = simulation.main_properties
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("steps", total=simulation.total_steps, completed=simulation.step, state="")
        while supervisor.is_running():
            row = None if follower is None else follower.latest()
            if row is not None and file is not None:
                progress.update(task, completed=row.get("step"), state=_describe(row, file))
            time.sleep(_REFRESH_SECONDS)
        if supervisor.finished():
            progress.update(task, completed=simulation.total_steps)


def _describe(row: dict[str, float], file: PropertiesFile) -> str:
    """Temperature and conserved quantity of the newest row, in the units i-PI was asked for."""
    units = dict(label.rstrip("}").partition("{")[::2] for label in file.columns)
    parts = []
    for name, symbol, digits in (("temperature", "T", 4), ("conserved", "conserved", 8)):
        if name in row:
            unit = _UNIT_SYMBOLS.get(units.get(name, ""), units.get(name, ""))
            parts.append(f"{symbol} {row[name]:.{digits}g} {unit}".rstrip())
    return "  ".join(parts)


def _report(
    console: Console,
    simulation: Simulation,
    supervisor: Supervisor,
    setup: Setup,
    wall_seconds: float,
) -> None:
    """Print the summary table, draw the plots and print their paths."""
    file, system = simulation.main_properties, setup.system
    if file is None:
        return
    try:
        properties = read_properties(file.path)
    except DataError as error:
        console.print(f"no summary: {error}", soft_wrap=True)
        return
    summary = summarise(
        properties,
        len(system),
        wall_seconds=wall_seconds,
        force_seconds_per_step=_force_seconds_per_step(simulation, supervisor),
    )
    table = Table(
        "quantity", "value", title=simulation.path.name, caption="means and drift leave out the first 5 %"
    )
    for row in summary.rows():
        table.add_row(*row)
    if setup.config.qm is not None:
        for row in describe_method(setup.config.qm):
            table.add_row(*row)
    console.print(table)
    thermo = simulation.plot_path("thermo")
    plot_thermodynamics(properties, len(system), thermo)
    console.print(f"plots: {thermo}", soft_wrap=True)
    distributions = simulation.plot_path("distributions")
    try:
        if _plot_distributions(simulation, _followed_atoms(setup), system, distributions):
            console.print(f"       {distributions}", soft_wrap=True)
    except DataError as error:
        console.print(f"no plot of bond lengths: {error}", soft_wrap=True)


def _force_seconds_per_step(simulation: Simulation, supervisor: Supervisor) -> float | None:
    """Seconds in the evaluators per step, the slowest client counting; None if no client reported."""
    step = supervisor.last_step()
    seconds = [float(summary.seconds_evaluating) for summary in supervisor.client_summaries()]
    if step is None or step <= simulation.step or not seconds:
        return None
    return max(seconds) / (step - simulation.step)


def _followed_atoms(setup: Setup) -> IntArray:
    """The QM atoms, or all atoms without a QM region."""
    return np.arange(len(setup.system)) if setup.config.qm is None else setup.qm_indices


def _plot_distributions(simulation: Simulation, atoms: IntArray, system: System, path: Path) -> bool:
    """Draw the bond lengths if positions of beads were written as xyz and there are X-H bonds."""
    trajectory = next((t for t in simulation.trajectories if t.is_bead_positions), None)
    files = [] if trajectory is None else trajectory.bead_files()
    if not files:
        return False
    distributions = bond_length_distributions(files, simulation.n_beads, atoms, system.numbers[atoms])
    if distributions:
        plot_bond_lengths(distributions, path)
    return bool(distributions)
