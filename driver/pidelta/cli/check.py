"""``pidelta check``: what is wrong with a set-up, before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pidelta.cli import uncertainty
from pidelta.cli.conservation import report_conservation
from pidelta.cli.conservation_options import NVEOptions, plan_report
from pidelta.cli.description import describe_names, describe_setup, describe_terms
from pidelta.cli.messages import show_warning
from pidelta.config import Config, load_config
from pidelta.errors import RunError
from pidelta.ipi.observers import UncertaintyMonitor, merge_alarms
from pidelta.state import FloatArray, IntArray, System
from pidelta.testing.derivatives import central_differences
from pidelta.units import HARTREE_IN_KCAL_PER_MOL

if TYPE_CHECKING:
    from pidelta.qmmm.energy import QMMMEvaluator
    from pidelta.setup import Setup


@dataclass(frozen=True)
class _Tolerance:
    """What a check allows, in atomic units.

    Attributes:
        step: of the differences, in bohr.
        gradient: largest difference between a force and one from energies.
        shift: largest net force (but for the error of a PME mesh), and change of a force by lattice vectors.
    """

    step: float
    gradient: float
    shift: float


_DOUBLE = _Tolerance(2.0e-3, 1.0e-6, 1.0e-7)
_SINGLE = _Tolerance(1.0e-2, 1.0e-4, 1.0e-5)

_OVERLAP = 1.0
"""hartree/bohr; ten times the largest force in flexible water at 300 K."""


@dataclass(frozen=True)
class _Start:
    """The structure of the set-up as a batch of one."""

    positions: FloatArray
    cells: FloatArray | None


def check(
    config: Annotated[Path, typer.Argument(help="The configuration, a YAML file.")],
    atoms: Annotated[int, typer.Option(min=1, help="How many atoms of each kind to differentiate.")] = 8,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of the choice of atoms, of shifts and velocities.")
    ] = 0,
    nve: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Then run i-PI at constant energy for so long, such as 10ps."),
    ] = None,
    time_step: Annotated[
        list[str] | None,
        typer.Option(metavar="TIME", help="Of these runs, 0.25fs and 0.5fs by default; may be repeated."),
    ] = None,
    terms: Annotated[
        list[str] | None,
        typer.Option(help="Terms of these runs, such as mm+low, all by default; may be repeated."),
    ] = None,
    temperature: Annotated[str | None, typer.Option(help="Of these runs, 300K by default.")] = None,
    equilibrate: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="With a thermostat before them, 1ps by default; 0ps for none."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Of these runs, NAME-nve beside NAME.yaml by default."),
    ] = None,
) -> None:
    """Set-up, energies, forces against differences of the energy, and invariance to lattice shifts.

    With --nve also runs at constant energy, and the drift and fluctuation of their conserved quantity. The
    same command goes on with runs that were stopped.
    """
    console = Console()
    given = load_config(config)
    report = plan_report(NVEOptions(nve, time_step, terms, temperature, equilibrate, output, seed), given)

    from pidelta.setup import Setup
    from pidelta.testing.samples import kinds_of_atoms

    settings = _without_virial(given)
    setup = Setup(settings)
    system, evaluator = setup.system, setup.evaluator()
    rng = np.random.default_rng(seed)
    start = _Start(system.positions[None], None if system.cell is None else system.cell[None])
    tolerance = _tolerance(settings, evaluator)
    console.print(describe_setup(given, setup, evaluator))
    if setup.name_differences:
        console.print(describe_names(setup.name_differences))
    if setup.topology is not None:
        console.print(describe_terms(setup.topology, None if given.qm is None else setup.qm_region))
    for warning in setup.warnings():
        show_warning(console, warning)
    console.print(_energies(evaluator, start))
    _warn_of_overlap(console, setup, evaluator, start)
    _show_uncertainty(console, setup, evaluator, start)
    chosen = kinds_of_atoms(evaluator, start.positions[0], system.cell, atoms)
    worst = _check_gradient(console, evaluator, start, chosen, tolerance.step)
    net_force, change = _check_shifts(console, system, evaluator, start, rng)
    if not worst <= tolerance.gradient:
        raise RunError(
            f"{config}: expected forces within {tolerance.gradient:.0e} hartree/bohr of central differences, "
            f"found {worst:.1e}"
        )
    if not change <= tolerance.shift:
        raise RunError(
            f"{config}: expected no change of forces by lattice vectors, found {change:.1e} hartree/bohr"
        )
    allowed = max(tolerance.shift, _mesh_error(settings, evaluator, start))
    if not net_force <= allowed:
        raise RunError(
            f"{config}: expected no net force, within {allowed:.0e} hartree/bohr, found {net_force:.1e}"
        )
    console.print("[green]all checks passed[/green]")
    if report is not None:
        report_conservation(console, report, given, system)


def _without_virial(config: Config) -> Config:
    """No check looks at the virial, which costs OpenMM many evaluations."""
    if config.mm is None or config.mm.engine != "openmm":
        return config
    return config.model_copy(update={"mm": config.mm.model_copy(update={"virial": False})})


def _tolerance(config: Config, evaluator: QMMMEvaluator) -> _Tolerance:
    from pidelta.mm.openmm import OpenMMEvaluator

    classical = evaluator.classical.get("mm")
    if isinstance(classical, OpenMMEvaluator) and classical.precision != "double":
        return _SINGLE
    if config.mm is not None and config.mm.electrostatics in ("pme", "ewald"):
        # forces of an Ewald sum jump where pairs cross the cutoff
        return replace(_DOUBLE, gradient=max(_DOUBLE.gradient, 0.1 * config.mm.ewald_tolerance))
    return _DOUBLE


def _mesh_error(config: Config, evaluator: QMMMEvaluator, start: _Start) -> float:
    """The net force that the mesh of PME may leave: three times what the tolerance of its forces suggests.

    It is 0.2 to 1.1 times that in small boxes of water, and less in larger ones.
    """
    if config.mm is None or config.mm.electrostatics != "pme" or start.cells is None:
        return 0.0
    gradient = evaluator.evaluate(start.positions, start.cells).gradient
    return 3.0 * config.mm.ewald_tolerance * float(np.linalg.norm(gradient))


def _energies(evaluator: QMMMEvaluator, start: _Start) -> Table:
    evaluation = evaluator.evaluate(start.positions, start.cells)
    table = Table("term", "energy / hartree", "energy / kcal/mol", "largest force / hartree/bohr")
    for name, term in evaluation.terms.items():
        energy = float(term.energy[0])
        force = float(np.linalg.norm(term.gradient[0], axis=1).max())
        table.add_row(name, f"{energy:.6f}", f"{energy * HARTREE_IN_KCAL_PER_MOL:.2f}", f"{force:.4f}")
        for part, values in term.components.items():
            energy = float(values[0])
            if energy:
                row = f"{energy:.6f}", f"{energy * HARTREE_IN_KCAL_PER_MOL:.2f}"
                table.add_row(f"  {part.replace('_', ' ')}", *row)
    return table


def _warn_of_overlap(console: Console, setup: Setup, evaluator: QMMMEvaluator, start: _Start) -> None:
    """Forces of a structure just built are right and yet tear it apart in the first steps."""
    forces = np.linalg.norm(evaluator.evaluate(start.positions, start.cells).gradient[0], axis=1)
    atom = int(forces.argmax())
    if forces[atom] > _OVERLAP:
        name = f"atom {atom}" if setup.topology is None else setup.topology.label(atom)
        show_warning(
            console,
            f"the force on {name} is {forces[atom]:.1f} hartree/bohr, as where atoms overlap: relax the "
            "structure before dynamics",
        )


def _show_uncertainty(console: Console, setup: Setup, evaluator: QMMMEvaluator, start: _Start) -> None:
    """How sure the delta model is at the structure."""
    if not evaluator.knows_spread:
        return
    monitor = UncertaintyMonitor(setup.spread_threshold)
    monitor.after(start.positions, start.cells, evaluator.evaluate(start.positions, start.cells))
    alarms = merge_alarms([monitor.alarms])
    for name, value in uncertainty.rows(alarms):
        console.print(f"{name}: {value}", markup=False, highlight=False)
    for line in uncertainty.warnings(alarms):
        show_warning(console, line)


def _check_gradient(
    console: Console, evaluator: QMMMEvaluator, start: _Start, chosen: Mapping[str, IntArray], step: float
) -> float:
    gradient = evaluator.evaluate(start.positions, start.cells).gradient[0]

    def energy(positions: FloatArray) -> FloatArray:
        cells = None if start.cells is None else np.repeat(start.cells, len(positions), axis=0)
        return evaluator.evaluate(positions, cells).energy

    table = Table("kind", "atoms", "largest difference / hartree/bohr", title="forces against differences")
    worst = 0.0
    with Progress(console=console, transient=True) as progress:
        for kind, atoms in chosen.items():
            task = progress.add_task(kind, total=len(atoms))
            numerical = central_differences(
                energy,
                start.positions[0],
                atoms,
                step,
                report=lambda done, task=task: progress.update(task, completed=done),  # type: ignore[misc]
            )
            difference = float(np.abs(numerical - gradient[atoms]).max(initial=0.0))
            worst = float(np.maximum(worst, difference))
            table.add_row(kind, str(len(atoms)), f"{difference:.1e}")
    console.print(table)
    return worst


def _check_shifts(
    console: Console, system: System, evaluator: QMMMEvaluator, start: _Start, rng: np.random.Generator
) -> tuple[float, float]:
    """Print and return the largest net force, and change of a force by adding lattice vectors to residues."""
    table = Table("positions", "net force / hartree/bohr", "largest change of a force", title="invariance")
    plain = evaluator.evaluate(start.positions, start.cells).gradient[0]
    at_rest = float(np.abs(plain.sum(axis=0)).max())
    table.add_row("as in the structure", f"{at_rest:.1e}", "")
    if start.cells is None:
        console.print(table)
        # Fixed point charges take the rest of the force.
        return (0.0 if len(evaluator.particles.fixed) else at_rest), 0.0
    residues = int(system.residue_indices[-1]) + 1
    shifts = rng.integers(-2, 3, size=(residues, 3)) @ start.cells[0]
    shifted = evaluator.evaluate(start.positions + shifts[system.residue_indices], start.cells).gradient[0]
    change = float(np.abs(shifted - plain).max())
    net = float(np.abs(shifted.sum(axis=0)).max())
    table.add_row("molecules shifted by lattice vectors", f"{net:.1e}", f"{change:.1e}")
    console.print(table)
    return float(np.max([at_rest, net])), change
