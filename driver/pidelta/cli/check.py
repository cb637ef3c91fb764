"""``pidelta check``: what is wrong with a set-up, before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from ase.data import chemical_symbols
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pidelta.build import build_evaluator, read_system
from pidelta.config import Config, DFTBConfig, load_config
from pidelta.errors import RunError
from pidelta.qm.dftb.sets import builtin_set
from pidelta.qmmm.energy import QMMMEvaluator
from pidelta.state import FloatArray, IntArray, System
from pidelta.testing.derivatives import central_differences
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL

GRADIENT_TOLERANCE = 1.0e-6
SHIFT_TOLERANCE = 1.0e-7


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
    settings = load_config(config)
    system = read_system(settings)
    evaluator = build_evaluator(settings)
    rng = np.random.default_rng(seed)
    start = _Start(system.positions[None], None if system.cell is None else system.cell[None])
    console.print(_describe(settings, system, evaluator))
    console.print(_energies(evaluator, start))
    worst = _check_gradient(console, evaluator, start, _choose_atoms(evaluator, start, atoms, rng))
    change = _check_shifts(console, system, evaluator, start, rng)
    if not worst <= GRADIENT_TOLERANCE:
        raise RunError(
            f"{config}: expected forces within {GRADIENT_TOLERANCE:.0e} hartree/bohr of central differences, "
            f"found {worst:.1e}"
        )
    if not change <= SHIFT_TOLERANCE:
        raise RunError(
            f"{config}: expected no net force and no change by lattice vectors, "
            f"found {change:.1e} hartree/bohr"
        )
    console.print("[green]all checks passed[/green]")


def _describe(config: Config, system: System, evaluator: QMMMEvaluator) -> Table:
    table = Table(title=f"set-up {config.path.name}", show_header=False)
    table.add_row("atoms", f"{len(system)} (residues: {int(system.residue_indices[-1]) + 1})")
    if system.cell is not None:
        lengths = np.linalg.norm(system.cell, axis=1) * BOHR_IN_ANGSTROM
        table.add_row("cell", " x ".join(f"{length:.2f}" for length in lengths) + " angstrom")
    if config.mm is not None:
        cutoff = f"{config.mm.cutoff * BOHR_IN_ANGSTROM:.2f} angstrom" if evaluator.periodic else "no cutoff"
        source = config.mm.topology.name if config.mm.topology is not None else config.mm.water
        table.add_row("force field", f"{source}, {config.mm.electrostatics}, {cutoff}")
    if config.qm is not None and evaluator.partition is not None and evaluator.engine is not None:
        symbols = [chemical_symbols[number] for number in evaluator.partition.qm_numbers]
        table.add_row("QM region", f"{len(symbols)} atoms: {' '.join(symbols)}; charge {config.qm.charge:+d}")
        table.add_row("parameters", _parameters(config.qm.dftb))
        table.add_row("low-level method", evaluator.engine.identity)
    if evaluator.embedding is not None and config.mm is not None:
        lengths_text = ", ".join(
            f"{name} {value * BOHR_IN_ANGSTROM:.2f} angstrom" if isinstance(value, float) else str(value)
            for name, value in evaluator.embedding.settings.items()
        )
        table.add_row("embedding", lengths_text)
    if evaluator.embedding is not None and config.point_charges is not None:
        charges = evaluator.embedding.environment(system.positions[None], None).charges[0]
        table.add_row(
            "point charges",
            f"{len(charges)} from {config.point_charges.name}, {charges.sum():+.4f} e in all; they take up "
            "the net force of the molecule",
        )
    if config.delta is not None:
        table.add_row("delta", ", ".join(path.name for path in config.delta.models))
    return table


def _parameters(dftb: DFTBConfig) -> str:
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
    return table


def _choose_atoms(
    evaluator: QMMMEvaluator, start: _Start, count: int, rng: np.random.Generator
) -> dict[str, IntArray]:
    """Some QM atoms, the MM atoms next to them, and MM atoms whose weight is being switched off."""
    everyone = np.arange(len(evaluator.numbers))
    if evaluator.partition is None or evaluator.embedding is None:
        return {"MM": _sample(everyone, 3 * count, rng)}
    partition = evaluator.partition
    environment = evaluator.embedding.environment(start.positions, start.cells)
    chosen = {"QM": _sample(partition.qm_indices, count, rng)}
    atoms = environment.atoms[0]
    real = (atoms >= 0) & (partition.charges[atoms] != 0.0)
    atoms, charges, positions = atoms[real], environment.charges[0, real], environment.positions[0, real]
    if len(atoms):
        weights = charges / partition.charges[atoms]
        distances = np.linalg.norm(positions[:, None] - environment.qm_positions[0][None], axis=2).min(axis=1)
        chosen["MM nearby"] = atoms[np.argsort(distances)[:count]]
        chosen["MM in the switching region"] = _sample(
            np.unique(atoms[(weights > 0.01) & (weights < 0.99)]), count, rng
        )
    return chosen


def _sample(indices: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    return np.sort(rng.choice(indices, size=min(count, len(indices)), replace=False))


def _check_gradient(
    console: Console, evaluator: QMMMEvaluator, start: _Start, chosen: dict[str, IntArray]
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
                report=lambda done, task=task: progress.update(task, completed=done),  # type: ignore[misc]
            )
            difference = float(np.abs(numerical - gradient[atoms]).max(initial=0.0))
            worst = float(np.maximum(worst, difference))
            table.add_row(kind, str(len(atoms)), f"{difference:.1e}")
    console.print(table)
    return worst


def _check_shifts(
    console: Console, system: System, evaluator: QMMMEvaluator, start: _Start, rng: np.random.Generator
) -> float:
    """Print and return the largest net force, or change of a force by adding lattice vectors to residues."""
    table = Table("positions", "net force / hartree/bohr", "largest change of a force", title="invariance")
    plain = evaluator.evaluate(start.positions, start.cells).gradient[0]
    at_rest = float(np.abs(plain.sum(axis=0)).max())
    table.add_row("as in the structure", f"{at_rest:.1e}", "")
    if start.cells is None:
        console.print(table)
        # Fixed point charges take the rest of the force.
        return 0.0 if evaluator.embedding is not None and evaluator.embedding.has_fixed_charges else at_rest
    residues = int(system.residue_indices[-1]) + 1
    shifts = rng.integers(-2, 3, size=(residues, 3)) @ start.cells[0]
    shifted = evaluator.evaluate(start.positions + shifts[system.residue_indices], start.cells).gradient[0]
    change = float(np.abs(shifted - plain).max())
    net = float(np.abs(shifted.sum(axis=0)).max())
    table.add_row("molecules shifted by lattice vectors", f"{net:.1e}", f"{change:.1e}")
    console.print(table)
    return float(np.max([at_rest, net, change]))
