"""What `pidelta run` ends with: a table of means and drifts, and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from pidelta.analysis.distributions import bond_length_distributions
from pidelta.analysis.ipi_output import read_properties
from pidelta.analysis.plots import plot_bond_lengths, plot_thermodynamics
from pidelta.analysis.summary import summarise
from pidelta.cli import uncertainty
from pidelta.cli.description import describe_method
from pidelta.errors import DataError
from pidelta.ipi.simulation import Simulation
from pidelta.ipi.supervisor import Supervisor
from pidelta.output_files import back_up
from pidelta.setup import Setup
from pidelta.state import IntArray, System


def report(
    console: Console,
    simulation: Simulation,
    supervisor: Supervisor,
    setup: Setup,
    wall_seconds: float,
) -> None:
    """Print the summary table, draw the plots and print their paths.

    Pictures of an earlier run are kept under other names, as i-PI keeps its outputs; a run that continues
    draws its own anew.
    """
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
    for row in uncertainty.rows(supervisor.alarms()):
        table.add_row(*row)
    console.print(table)
    thermo = simulation.plot_path("thermo")
    _keep_earlier(console, simulation, thermo)
    plot_thermodynamics(properties, len(system), thermo)
    console.print(f"plots: {thermo}", soft_wrap=True)
    distributions = simulation.plot_path("distributions")
    _keep_earlier(console, simulation, distributions)
    try:
        if _plot_distributions(simulation, _followed_atoms(setup), system, distributions):
            console.print(f"       {distributions}", soft_wrap=True)
    except DataError as error:
        console.print(f"no plot of bond lengths: {error}", soft_wrap=True)


def _keep_earlier(console: Console, simulation: Simulation, picture: Path) -> None:
    if simulation.step == 0 and (kept := back_up(picture)) is not None:
        console.print(f"kept {picture.name} of an earlier run: {kept.name}", highlight=False, markup=False)


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
    trajectory = next((t for t in simulation.trajectories if t.quantity == "positions"), None)
    files = [] if trajectory is None else trajectory.files()
    if not files:
        return False
    distributions = bond_length_distributions(files, simulation.n_beads, atoms, system.numbers[atoms])
    if distributions:
        plot_bond_lengths(distributions, path)
    return bool(distributions)
