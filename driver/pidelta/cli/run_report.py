"""What `pidelta run` ends with: a table of means and drifts, and the report."""

from __future__ import annotations

import resource

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pidelta.analysis.cost import add_cost
from pidelta.analysis.ipi_output import read_properties
from pidelta.analysis.report import ReportOptions
from pidelta.analysis.summary import summarise
from pidelta.analysis.validity import wrong_numbers
from pidelta.cli import uncertainty
from pidelta.cli.description import describe_method
from pidelta.cli.messages import show_warning
from pidelta.cli.report import write_reports
from pidelta.cli.report_input import report_folder
from pidelta.errors import DataError
from pidelta.ipi.outputs import read_outputs
from pidelta.ipi.simulation import Simulation
from pidelta.ipi.supervisor import Supervisor
from pidelta.output_files import back_up
from pidelta.setup import Setup


def report(
    console: Console,
    simulation: Simulation,
    supervisor: Supervisor,
    setup: Setup,
    wall_seconds: float,
) -> None:
    """Print the summary table, and write the report of each system.

    A report of an earlier run is kept under another name, as i-PI keeps its outputs; a run that continues
    writes its own anew. What the run took in CPU time, of i-PI and all clients, is kept beside the report.
    """
    _show_summary(console, simulation, supervisor, setup, wall_seconds)
    folder = report_folder(simulation.path, simulation.prefix)
    if simulation.step == 0 and (kept := back_up(folder)) is not None:
        console.print(f"kept {folder.name} of an earlier run: {kept.name}", highlight=False, markup=False)
    folder.mkdir(exist_ok=True)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    add_cost(
        folder, simulation.step, supervisor.last_step() or simulation.step, usage.ru_utime + usage.ru_stime
    )
    try:
        write_reports(console, simulation.path, setup, ReportOptions())
    except DataError as error:
        console.print(f"no report: {error}", soft_wrap=True)


def _show_summary(
    console: Console, simulation: Simulation, supervisor: Supervisor, setup: Setup, wall_seconds: float
) -> None:
    """Print a table: of each system, under its name where there are several, then of the whole run."""
    file = simulation.main_properties
    if file is None:
        return
    table = Table(
        "quantity", "value", title=simulation.path.name, caption="means and drift leave out the first 5 %"
    )
    paths, outputs = simulation.of_systems(file.path), read_outputs(simulation.path).systems
    for name, path, system in zip(simulation.system_names, paths, outputs, strict=True):
        try:
            properties = read_properties(path)
            summary = summarise(properties, len(setup.system), wrong_numbers(system))
        except DataError as error:
            console.print(f"no summary: {error}", soft_wrap=True)
            continue
        for text in filter(None, map(properties.not_numbers, properties.columns)):
            show_warning(console, f"{path.name}: {text}")
        if len(paths) > 1:
            table.add_row(f"[bold]{escape(name)}[/bold]", "")
        for row in summary.rows():
            table.add_row(*row)
        table.add_section()
    if not table.rows:
        return
    table.add_row("wall time of this run", f"{wall_seconds:.1f} s")
    if (seconds := _force_seconds_per_step(simulation, supervisor)) is not None:
        table.add_row("force time per step", f"{1000.0 * seconds:.1f} ms")
    if setup.config.qm is not None:
        for row in describe_method(setup.config.qm):
            table.add_row(*row)
    for row in uncertainty.rows(supervisor.alarms()):
        table.add_row(*row)
    console.print(table)


def _force_seconds_per_step(simulation: Simulation, supervisor: Supervisor) -> float | None:
    """Seconds in the evaluators per step, the slowest client counting; None if no client reported."""
    step = supervisor.last_step()
    seconds = [float(summary.seconds_evaluating) for summary in supervisor.client_summaries()]
    if step is None or step <= simulation.step or not seconds:
        return None
    return max(seconds) / (step - simulation.step)
