"""Watch i-PI and its clients: show how far they are, stop them on a signal, and say how to go on."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from rich.console import Console, Group
from rich.markup import escape

from pidelta.analysis.ipi_output import PropertiesFollower
from pidelta.cli.progress import REFRESH_SECONDS, StepsProgress, SystemsTable
from pidelta.cli.uncertainty import in_short
from pidelta.errors import RunError
from pidelta.ipi.simulation import Simulation
from pidelta.ipi.supervisor import Supervisor


def systems_table(simulation: Simulation) -> SystemsTable | None:
    """What is to be shown of the systems; None where the input asks for no properties."""
    file = simulation.main_properties
    if file is None:
        return None
    continued = simulation.step > 0
    followers = [PropertiesFollower(path, continued) for path in simulation.of_systems(file.path)]
    return SystemsTable(simulation, file, followers)


def supervise(
    supervisor: Supervisor,
    simulation: Simulation,
    systems: SystemsTable | None,
    console: Console,
    options: Sequence[str],
) -> bool:
    """Run to the end (True) or until Ctrl-C or i-PI itself stops early (False).

    Args:
        supervisor: not yet entered.
        simulation: what it runs.
        systems: what is shown of it, beside the steps.
        console: where progress is shown.
        options: of the command line, for a command that goes on.

    Raises:
        RunError: i-PI or a client failed; the message says how to go on.
    """
    try:
        with signals_as_interrupts(), supervisor:
            if supervisor.kept:
                names = ", ".join(path.name for path in supervisor.kept)
                console.print(f"kept logs of an earlier run: {names}", highlight=False, markup=False)
            try:
                _show_progress(supervisor, simulation, systems, console)
            except KeyboardInterrupt:
                console.print("stopping: i-PI writes RESTART ...")
                supervisor.stop()
    except RunError as error:
        raise RunError(f"{error}; {_how_to_go_on(supervisor, simulation, options)}") from error
    if supervisor.finished():
        if (words := supervisor.last_words()).is_early:
            console.print(f"i-PI: {words.message}", soft_wrap=True, markup=False, highlight=False)
        return True
    hint = _how_to_go_on(supervisor, simulation, options)
    console.print(f"stopped; {hint}", soft_wrap=True, markup=False, highlight=False)
    return False


def _how_to_go_on(supervisor: Supervisor, simulation: Simulation, options: Sequence[str]) -> str:
    state = supervisor.saved_state()
    if state is None or state.step <= simulation.step:
        again = shlex.join(["pidelta", "run", str(simulation.path), *options])
        return f"no step was saved: start again with: {again}"
    command = shlex.join(["pidelta", "run", str(state.path), *options])
    return f"continue from step {state.step} with: {command}"


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
    supervisor: Supervisor, simulation: Simulation, systems: SystemsTable | None, console: Console
) -> None:
    restarted = 0
    with StepsProgress(console) as progress:
        task = progress.add_task("steps", total=simulation.total_steps, completed=simulation.step, state="")
        while supervisor.is_running():
            step = None if systems is None else systems.update()
            if systems is not None and step is not None:
                state = Group(systems.table(), in_short(supervisor.alarms()))
                progress.update(task, completed=step, state=state)
            for reason in supervisor.restarted[restarted:]:
                restarted += 1
                text = f"[yellow]{escape(reason)}: started again ({restarted})[/yellow]"
                progress.console.print(text, soft_wrap=True)
            time.sleep(REFRESH_SECONDS)
        if supervisor.finished():
            end = simulation.total_steps if supervisor.last_step() is None else supervisor.last_step()
            progress.update(task, completed=end, total=end)
