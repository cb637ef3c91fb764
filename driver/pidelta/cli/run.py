"""``pidelta run``: i-PI and its clients, with progress, a summary and plots."""

from __future__ import annotations

import logging
import math
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from pidelta.cli.evaluate import chosen_terms
from pidelta.cli.processors import allowed_processors, share_processors
from pidelta.cli.uncertainty import in_short, warnings
from pidelta.config import Config, load_config
from pidelta.errors import RunError, SetupError
from pidelta.state import common_terms

if TYPE_CHECKING:
    from pidelta.analysis.ipi_output import PropertiesFollower
    from pidelta.ipi.simulation import PropertiesFile, Simulation
    from pidelta.ipi.supervisor import Supervisor
    from pidelta.setup import Setup

REFRESH_SECONDS = 0.2
INTERRUPTED = 130
_UNIT_SYMBOLS = {"": "a.u.", "atomic_unit": "a.u.", "kelvin": "K", "electronvolt": "eV"}


class StepsProgress(Progress):
    """A bar of steps, and the state of the run in a line below: beside it, neither fits in 80 columns."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        super().__init__(*columns, console=console)

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bar and the line below it."""
        yield self.make_tasks_table(self.tasks)
        yield from (Text(task.fields["state"]) for task in self.tasks if task.fields["state"])


def run(
    input_file: Annotated[Path, typer.Argument(metavar="INPUT.xml", help="The i-PI input, or RESTART.")],
    config: Annotated[
        Path | None, typer.Option(help="The configuration; pidelta.yaml beside the input by default.")
    ] = None,
    clients: Annotated[
        int | None,
        typer.Option(min=1, help="Clients for each ffsocket; as many as can work at once by default."),
    ] = None,
    terms: Annotated[
        str | None, typer.Option(help="The terms that the run is about, such as mm+low; all by default.")
    ] = None,
) -> None:
    """Run i-PI and its clients, show progress, and end with a summary and plots; Ctrl-C stops cleanly."""
    console = Console()
    chosen = chosen_terms(terms)

    from pidelta.ipi.simulation import check_atom_order, read_simulation

    simulation = read_simulation(input_file)
    options = [] if config is None else ["--config", str(config)]
    options += [] if terms is None else ["--terms", terms]
    config = config or input_file.parent / "pidelta.yaml"
    settings = load_config(config)
    expected = list(settings.terms) if chosen is None else common_terms(settings.terms, chosen)
    _show_terms(console, simulation, expected)
    n_clients = _share_clients(console, simulation, settings, clients)

    # It would say that it found no folder for its cache, which matters little here.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from pidelta.analysis.ipi_output import PropertiesFollower
    from pidelta.cli.run_report import report
    from pidelta.ipi.extras import check_extras
    from pidelta.ipi.supervisor import Supervisor
    from pidelta.setup import Setup

    setup = Setup(settings)
    check_atom_order(simulation, setup.system)
    check_extras(simulation, expected, setup.extras)
    _check_virial(console, simulation, setup, expected)
    for warning in setup.warnings:
        console.print(f"[yellow]warning: {escape(warning)}[/yellow]", soft_wrap=True)
    file = simulation.main_properties
    follower = None if file is None else PropertiesFollower(file.path, continued=simulation.step > 0)
    started = time.monotonic()
    command = [sys.executable, "-m", "pidelta", "client", str(config.resolve())]
    command += [] if chosen is None else ["--terms", "+".join(expected)]
    supervisor = Supervisor(simulation, command, n_clients)
    finished = _supervise(supervisor, simulation, follower, console, options)
    if follower is None:
        console.print("no summary: the i-PI input asks for no <properties>")
    elif follower.has_started:
        report(console, simulation, supervisor, setup, time.monotonic() - started)
    for line in warnings(supervisor.alarms()):
        console.print(f"[yellow]warning: {line}[/yellow]", soft_wrap=True)
    if not finished:
        raise typer.Exit(INTERRUPTED)


def _show_terms(console: Console, simulation: Simulation, terms: list[str]) -> None:
    """Say which socket serves which terms, and which of them the weights do not count once.

    Raises:
        SetupError: the forces do not add up to the terms.
    """
    notes = simulation.forces.check(simulation.path, terms)
    for ffsocket in simulation.forces.sockets:
        served = " + ".join(simulation.forces.served(ffsocket, terms))
        console.print(f"ffsocket {ffsocket.name}: {served}", markup=False, highlight=False)
    for note in notes:
        console.print(f"[yellow]note: {note}[/yellow]")


def _check_virial(console: Console, simulation: Simulation, setup: Setup, terms: list[str]) -> None:
    """See that there is a virial where the cell is to change; say where a pressure will be no number.

    Raises:
        SetupError: the cell of a molecule in vacuum would change, or there is no virial.
    """
    config, mm = setup.config, setup.config.mm
    if simulation.barostat and setup.system.cell is None:
        raise SetupError(
            f"{simulation.path}: {simulation.barostat}: expected a structure with a cell, found none in "
            f"{config.structure}"
        )
    if mm is None or mm.engine != "openmm" or mm.virial or not common_terms(["mm"], terms):
        return
    if simulation.barostat:
        raise SetupError(
            f"{config.path}: mm.virial: expected true with {simulation.barostat} in {simulation.path}, "
            "found false"
        )
    if simulation.pressures:
        names = ", ".join(simulation.pressures)
        console.print(f"[yellow]note: {names}: no numbers, as mm.virial is false[/yellow]", soft_wrap=True)


def _share_clients(
    console: Console, simulation: Simulation, config: Config, asked: int | None
) -> dict[str, int]:
    """Clients by ffsocket: those asked for, or those with a batch of beads and processors to work on it."""
    sockets, forces = simulation.forces.sockets, simulation.forces
    processors = allowed_processors()
    threads = 1 if config.mm is None else config.mm.threads
    batches = [math.ceil(forces.structures(ffsocket) / ffsocket.batch_size) for ffsocket in sockets]
    shares = share_processors(batches, processors // threads)
    counts = shares if asked is None else [asked] * len(sockets)
    if sum(counts) * threads > max(processors, len(sockets)):
        console.print(
            f"[yellow]note: {sum(counts)} clients with {threads} threads each share {processors} "
            "processors[/yellow]"
        )
    return {ffsocket.name: count for ffsocket, count in zip(sockets, counts, strict=True)}


def _supervise(
    supervisor: Supervisor,
    simulation: Simulation,
    follower: PropertiesFollower | None,
    console: Console,
    options: list[str],
) -> bool:
    """Run to the end (True) or until Ctrl-C or i-PI itself stops early (False).

    Raises:
        RunError: i-PI or a client failed; the message says how to go on.
    """
    try:
        with signals_as_interrupts(), supervisor:
            if supervisor.kept:
                names = ", ".join(path.name for path in supervisor.kept)
                console.print(f"kept logs of an earlier run: {names}", highlight=False, markup=False)
            try:
                _show_progress(supervisor, simulation, follower, console)
            except KeyboardInterrupt:
                console.print("stopping: i-PI writes RESTART ...")
                supervisor.stop()
    except RunError as error:
        raise RunError(f"{error}; {_how_to_go_on(supervisor, simulation, options)}") from error
    if supervisor.finished():
        return True
    hint = _how_to_go_on(supervisor, simulation, options)
    console.print(f"stopped; {hint}", soft_wrap=True, markup=False, highlight=False)
    return False


def _how_to_go_on(supervisor: Supervisor, simulation: Simulation, options: list[str]) -> str:
    path, step = supervisor.saved_state() or (simulation.path, simulation.step)
    if step <= simulation.step:
        again = shlex.join(["pidelta", "run", str(simulation.path), *options])
        return f"no step was saved: start again with: {again}"
    return f"continue from step {step} with: {shlex.join(['pidelta', 'run', str(path), *options])}"


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
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
    with StepsProgress(console) as progress:
        task = progress.add_task("steps", total=simulation.total_steps, completed=simulation.step, state="")
        while supervisor.is_running():
            row = None if follower is None else follower.latest()
            if row is not None and file is not None:
                state = [_describe(row, file), in_short(supervisor.alarms())]
                progress.update(task, completed=row.get("step"), state="  ".join(filter(None, state)))
            time.sleep(REFRESH_SECONDS)
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
