"""``pidelta check``: what is wrong with a set-up, before it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from pidelta.cli import uncertainty
from pidelta.config import Config, DFTBConfig, MMConfig, QMConfig, load_config
from pidelta.core.cell import heights
from pidelta.errors import RunError
from pidelta.ipi.observers import UncertaintyMonitor, merge_alarms
from pidelta.state import FloatArray, IntArray, System
from pidelta.testing.derivatives import central_differences
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL

if TYPE_CHECKING:
    from pidelta.core.names import NameDifference
    from pidelta.mm.topology import Topology
    from pidelta.qmmm.energy import QMMMEvaluator
    from pidelta.qmmm.surroundings import CutoffSurroundings
    from pidelta.setup import Setup
_SHOWN = 8
"""How many names that differ are listed."""


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


@dataclass(frozen=True)
class _Start:
    """The structure of the set-up as a batch of one."""

    positions: FloatArray
    cells: FloatArray | None


def check(
    config: Annotated[Path, typer.Argument(help="The configuration, a YAML file.")],
    atoms: Annotated[int, typer.Option(min=1, help="How many atoms of each kind to differentiate.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the choice of atoms and shifts.")] = 0,
) -> None:
    """Set-up, energies, forces against differences of the energy, and invariance to lattice shifts."""
    console = Console()
    given = load_config(config)

    from pidelta.setup import Setup

    settings = _without_virial(given)
    setup = Setup(settings)
    system, evaluator = setup.system, setup.evaluator()
    rng = np.random.default_rng(seed)
    start = _Start(system.positions[None], None if system.cell is None else system.cell[None])
    tolerance = _tolerance(settings, evaluator)
    console.print(_describe(given, setup, evaluator))
    if setup.name_differences:
        console.print(_describe_names(setup.name_differences))
    if setup.topology is not None:
        console.print(_describe_terms(setup.topology, evaluator))
    for warning in setup.warnings:
        console.print(f"[yellow]warning: {escape(warning)}[/yellow]", soft_wrap=True)
    console.print(_energies(evaluator, start))
    _show_uncertainty(console, setup, evaluator, start)
    chosen = _choose_atoms(evaluator, start, atoms, rng)
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


def _without_virial(config: Config) -> Config:
    """No check looks at the virial, which costs OpenMM many evaluations."""
    if config.mm is None or config.mm.engine != "openmm":
        return config
    return config.model_copy(update={"mm": config.mm.model_copy(update={"virial": False})})


def _tolerance(config: Config, evaluator: QMMMEvaluator) -> _Tolerance:
    from pidelta.mm.openmm import OpenMMEvaluator

    classical = evaluator.classical
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


def _describe(config: Config, setup: Setup, evaluator: QMMMEvaluator) -> Table:
    from ase.data import chemical_symbols

    from pidelta.core.selection import describe_atoms
    from pidelta.qmmm.surroundings import CutoffSurroundings

    system, topology = setup.system, setup.topology
    table = Table(title=f"set-up {config.path.name}", show_header=False)
    table.add_row("atoms", f"{len(system)} (residues: {int(system.residue_indices[-1]) + 1})")
    if system.cell is not None:
        lengths = np.linalg.norm(system.cell, axis=1) * BOHR_IN_ANGSTROM
        table.add_row("cell", " x ".join(f"{length:.2f}" for length in lengths) + " angstrom")
    if config.mm is not None and topology is not None:
        table.add_row("force field", f"{_describe_source(config.mm, topology)}, by {_engine_name(evaluator)}")
        table.add_row("pair interactions", _describe_truncation(config.mm, system.cell))
        if config.mm.engine == "openmm" and config.mm.virial:
            table.add_row("virial", "12 more evaluations; mm.virial: false saves them")
    if config.qm is not None and evaluator.partition is not None and evaluator.engine is not None:
        symbols = [chemical_symbols[number] for number in evaluator.partition.qm_numbers]
        table.add_row("QM region", f"{len(symbols)} atoms: {' '.join(symbols)}; charge {config.qm.charge:+d}")
        atoms = describe_atoms(evaluator.partition.qm_atoms, system)
        table.add_row("by residue", escape("\n".join(atoms)))
        table.add_row("engine", evaluator.engine.program)
        for row in describe_method(config.qm):
            table.add_row(*row)
        table.add_row("low-level method", evaluator.engine.identity)
    if isinstance(evaluator.surroundings, CutoffSurroundings) and topology is not None:
        lengths_text = ", ".join(
            f"{name} {value * BOHR_IN_ANGSTROM:.2f} angstrom" if isinstance(value, float) else str(value)
            for name, value in evaluator.surroundings.settings.items()
        )
        if config.embedding.scheme == "pme" and config.mm is not None and system.cell is not None:
            table.add_row("coupling", _describe_ewald(setup, config.mm, system.cell))
            lengths_text = f"for delta models and labels: {lengths_text}"
        table.add_row("embedding", lengths_text)
        table.add_row("charge groups", _describe_groups(setup, topology, evaluator.surroundings))
    if evaluator.partition is not None and config.point_charges is not None:
        charges = evaluator.partition.charges[len(system) :]
        table.add_row(
            "point charges",
            f"{len(charges)} from {config.point_charges.name}, {charges.sum():+.4f} e in all; they take up "
            "the net force of the molecule",
        )
    if config.delta is not None:
        table.add_row("delta", ", ".join(path.name for path in config.delta.models))
    return table


def _describe_names(differences: tuple[NameDifference, ...]) -> Table:
    """The names most often different; each row counts those that differ alike."""
    table = Table("", "in the structure", "in the topology", "how many", title="names that differ")
    for row in differences[:_SHOWN]:
        table.add_row(row.kind, row.found, row.expected, str(row.count))
    if len(differences) > _SHOWN:
        rest = differences[_SHOWN:]
        table.add_row("others", "", "", str(sum(row.count for row in rest)))
    return table


def _describe_ewald(setup: Setup, mm: MMConfig, cell: FloatArray) -> str:
    """What the low level feels, and the background that makes up for a net charge."""
    from pidelta.core.ewald import background_energy, splitting

    net = float(setup.qm_region.partition.charges.sum()) + setup.qm_region.charge
    text = f"{mm.electrostatics}: all MM charges and the periodic images of the QM region"
    if abs(net) < 1e-3:
        return f"{text}; the cell is neutral"
    energy = background_energy(net, splitting(mm.cutoff, mm.ewald_tolerance), cell)
    return f"{text}; the cell has {net:+.3f} e, made up for by a background ({energy:.6f} hartree)"


def _describe_groups(setup: Setup, topology: Topology, surroundings: CutoffSurroundings) -> str:
    """How many there are, and the extremes: a charge this near to the QM region always counts in full."""
    from pidelta.qmmm.border import CHARGED, group_facts

    cell = setup.system.cell
    cells = None if cell is None else cell[None]
    particles = setup.qm_region.particles.place(setup.system.positions[None], cells)[0]
    facts = group_facts(surroundings, particles, cell)
    if facts is None:
        return "none"
    parts = [str(facts.count)]
    if facts.several:
        parts.append(f"{facts.several} of them large and counted whole as soon as a part is near")
    parts.append(f"up to {facts.radius * BOHR_IN_ANGSTROM:.2f} angstrom wide: {topology.label(facts.widest)}")
    if abs(facts.charge) > CHARGED:
        parts.append(f"net charges up to {facts.charge:+.3f} e: {topology.label(facts.charged)}")
    else:
        parts.append("all neutral")
    full = (surroundings.cutoff - surroundings.switch - facts.radius) * BOHR_IN_ANGSTROM
    parts.append(f"charges within {full:.1f} angstrom of a QM atom count in full")
    return "; ".join(parts)


def describe_method(qm: QMConfig) -> list[tuple[str, str]]:
    """What the low-level method is, as names and values for a table."""
    from pidelta.qm.dispersion import TITLES

    if qm.engine == "ase":
        return [
            ("calculator", qm.ase.calculator),
            ("coupling", "mechanical embedding: MM charges do not polarise the QM region"),
        ]
    rows = [("parameters", _parameters(qm.dftb))]
    if qm.dftb.dispersion.method != "none":
        rows.append(("dispersion", TITLES[qm.dftb.dispersion.method]))
    return rows


def _engine_name(evaluator: QMMMEvaluator) -> str:
    from pidelta.mm.openmm import OpenMMEvaluator

    classical = evaluator.classical
    return classical.description if isinstance(classical, OpenMMEvaluator) else "the built-in evaluator"


def _describe_source(mm: MMConfig, topology: Topology) -> str:
    from pidelta.mm.water import find_water

    sources = [] if mm.topology is None else [mm.topology.name]
    if mm.water is not None:
        sources.append(f"water: {mm.water} ({len(find_water(topology))} molecules)")
    return ", ".join(sources)


def _describe_truncation(mm: MMConfig, cell: FloatArray | None) -> str:
    if cell is None:
        return "all pairs, without cutoff"
    largest = 0.5 * float(heights(cell).min()) * BOHR_IN_ANGSTROM
    method: str = mm.electrostatics
    if method in ("pme", "ewald"):
        method += f" at a tolerance of {mm.ewald_tolerance:g}"
    return (
        f"{method}, cutoff {mm.cutoff * BOHR_IN_ANGSTROM:.2f} angstrom; half of the smallest height "
        f"of the cell is {largest:.2f} angstrom"
    )


def _describe_terms(topology: Topology, evaluator: QMMMEvaluator) -> Table:
    """How many terms there are, how many of them the QM method replaces, and the charges."""
    rest = topology
    if evaluator.partition is not None:
        rest = topology.without_internal(evaluator.partition.qm_atoms)
    table = Table("kind", "in all", "left to QM", "evaluated", title="terms of the force field")
    remaining = rest.counts
    for kind, count in topology.counts.items():
        if count:
            table.add_row(f"{kind}s", str(count), str(count - remaining[kind]), str(remaining[kind]))
    loose = _count_loose_atoms(topology)
    if loose:
        table.add_row("[yellow]atoms without a bond, in residues of several[/yellow]", str(loose))
    whole, mm = float(topology.charges.sum()), float(rest.charges.sum())
    charges = (round(charge, 4) + 0.0 for charge in (whole, whole - mm, mm))  # + 0.0 makes -0.0 positive
    table.add_row("net charge / e", *(f"{charge:+.4f}" for charge in charges))
    return table


def _count_loose_atoms(topology: Topology) -> int:
    """Atoms that nothing holds: of a file that was cut off, most likely."""
    held = np.isin(np.arange(len(topology)), topology.bonded_pairs)
    residue_sizes = np.bincount(topology.residue_indices)
    return int(np.count_nonzero(~held & (residue_sizes[topology.residue_indices] > 1)))


def _parameters(dftb: DFTBConfig) -> str:
    from pidelta.qm.dftb.sets import builtin_set

    if dftb.parameters != "builtin":
        return str(dftb.parameters)
    description = builtin_set()[dftb.order].description
    return f"built-in {description.name} {description.version}"


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


def _show_uncertainty(console: Console, setup: Setup, evaluator: QMMMEvaluator, start: _Start) -> None:
    """How sure the delta model is at the structure."""
    if evaluator.delta is None:
        return
    monitor = UncertaintyMonitor(setup.spread_threshold)
    monitor.after(start.positions, start.cells, evaluator.evaluate(start.positions, start.cells))
    alarms = merge_alarms([monitor.alarms])
    for name, value in uncertainty.rows(alarms):
        console.print(f"{name}: {value}", markup=False, highlight=False)
    for line in uncertainty.warnings(alarms):
        console.print(f"[yellow]warning: {line}[/yellow]")


def _choose_atoms(
    evaluator: QMMMEvaluator, start: _Start, count: int, rng: np.random.Generator
) -> dict[str, IntArray]:
    """Some QM atoms, the MM atoms next to them, and MM atoms whose weight is being switched off."""
    everyone = np.arange(len(evaluator.numbers))
    if evaluator.partition is None or evaluator.surroundings is None:
        return {"MM": _sample(everyone, 3 * count, rng)}
    partition = evaluator.partition
    region = evaluator.surroundings.cut(evaluator.particles.place(start.positions, start.cells), start.cells)
    chosen = {"QM": _sample(partition.qm_atoms, count, rng)}
    atoms = region.site_particles[0]
    real = (atoms >= 0) & (atoms < len(everyone)) & (partition.charges[atoms] != 0.0)
    atoms, charges, positions = atoms[real], region.site_charges[0, real], region.site_positions[0, real]
    if len(atoms):
        weights = charges / partition.charges[atoms]
        distances = np.linalg.norm(positions[:, None] - region.positions[0][None], axis=2).min(axis=1)
        chosen["MM nearby"] = atoms[np.argsort(distances)[:count]]
        chosen["MM in the switching region"] = _sample(
            np.unique(atoms[(weights > 0.01) & (weights < 0.99)]), count, rng
        )
    return chosen


def _sample(indices: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    return np.sort(rng.choice(indices, size=min(count, len(indices)), replace=False))


def _check_gradient(
    console: Console, evaluator: QMMMEvaluator, start: _Start, chosen: dict[str, IntArray], step: float
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
