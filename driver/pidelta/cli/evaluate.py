"""``pidelta evaluate``: energies and gradients of structures, as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress

from pidelta.cli.uncertainty import warnings
from pidelta.config import load_config
from pidelta.errors import ConfigError, RunError, StructureError
from pidelta.ipi.observers import Observer, UncertaintyMonitor
from pidelta.output_files import check_distinct, replacing
from pidelta.state import Evaluation, FloatArray, IntArray, json_values, parse_terms
from pidelta.units import ANGSTROM

if TYPE_CHECKING:
    import ase

    from pidelta.qmmm.energy import QMMMEvaluator
    from pidelta.setup import Setup


def evaluate(
    config: Annotated[Path, typer.Argument(help="The configuration, a YAML file.")],
    frames: Annotated[
        Path | None, typer.Option(help="Structures to evaluate (any format ASE reads, all frames).")
    ] = None,
    terms: Annotated[str | None, typer.Option(help="Terms joined by +, such as low+delta.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where to write; standard output by default.")] = None,
) -> None:
    """Energies, gradients and charges of the structure or of FRAMES, in atomic units."""
    settings, chosen = load_config(config), chosen_terms(terms)
    if output is not None:
        check_distinct(output, [config, *settings.files, *([] if frames is None else [frames])])

    from pidelta.setup import Setup

    setup = Setup(settings)
    evaluator = setup.evaluator(chosen)
    structures, doubts = _read_frames(setup, frames)
    monitor = UncertaintyMonitor(setup.spread_threshold) if evaluator.knows_spread else None
    # Opened first: a path that cannot be written to should not show after hours of work.
    with nullcontext(sys.stdout) if output is None else replacing(output) as stream:
        results = _evaluate_all(evaluator, structures, frames, [] if monitor is None else [monitor])
        stream.write(json.dumps({"frames": results}, indent=1) + "\n")
    for line in [*doubts, *setup.warnings(chosen), *([] if monitor is None else warnings(monitor.alarms))]:
        Console(stderr=True).print(f"warning: {line}", soft_wrap=True, markup=False, highlight=False)


def _evaluate_all(
    evaluator: QMMMEvaluator,
    structures: list[tuple[FloatArray, FloatArray | None]],
    frames: Path | None,
    observers: Sequence[Observer],
) -> list[dict[str, Any]]:
    """Evaluate one structure after the other, with a progress bar.

    Raises:
        RunError: one fails; the message names the frame.
    """
    results: list[dict[str, Any]] = []
    try:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            for positions, cell in progress.track(structures, description="evaluating"):
                request = positions[None], None if cell is None else cell[None]
                evaluation = evaluator.evaluate(*request)
                for observer in observers:
                    observer.after(*request, evaluation)
                results.append(as_json(evaluation))
    except RunError as error:
        if frames is None:
            raise
        raise RunError(f"{frames}, frame {len(results)}: {error}") from error
    return results


def chosen_terms(text: str | None) -> frozenset[str] | None:
    """The terms of the option ``--terms``, or None for all.

    Raises:
        ConfigError: a name is not that of a term.
    """
    try:
        return None if text is None else parse_terms(text)
    except ValueError as error:
        raise ConfigError(f"--terms: {error}") from None


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """A batch of one as plain lists, named as the design fixes it; no virial where it was not asked for."""
    return {
        "energy": float(evaluation.energy[0]),
        "gradient": evaluation.full_gradient[0].tolist(),
        "terms": {
            name: {"energy": float(term.energy[0]), "gradient": term.full_gradient[0].tolist()}
            for name, term in evaluation.terms.items()
        },
        "charges": None if evaluation.charges is None else evaluation.charges[0].tolist(),
        "dipole": None if evaluation.dipole is None else evaluation.dipole[0].tolist(),
        "embedding": evaluation.embedding,
        "virial": evaluation.virial[0].tolist() if np.isfinite(evaluation.virial).all() else None,
        "timings": dict(evaluation.timings),
        "properties": {name: json_values(values[0]) for name, values in evaluation.properties.items()},
    }


def _read_frames(
    setup: Setup, frames: Path | None
) -> tuple[list[tuple[FloatArray, FloatArray | None]], list[str]]:
    """Positions and cells in bohr, from what i-PI wrote or from any format of ASE, and what is odd in them.

    The first frame tells the order of its atoms. In a later one that looks wrong the atoms may as well have
    come apart, which somebody may want to look at.
    """
    system = setup.system
    if frames is None:
        return [(system.positions, system.cell)], []
    if not frames.is_file():
        raise StructureError(f"{frames}: no such file of frames")
    from pidelta.ipi.trajectories import is_trajectory_of_ipi, read_trajectory

    if is_trajectory_of_ipi(frames):
        images: list[tuple[IntArray, FloatArray, FloatArray | None]] = [
            (s.numbers, s.positions, s.cell) for s in read_trajectory(frames)
        ]
    else:
        images = [
            (a.numbers, a.positions * ANGSTROM, a.cell.array * ANGSTROM if a.pbc.all() else None)
            for a in _read_with_ase(frames)
        ]
    doubts: list[str] = []
    for index, (found, positions, cell) in enumerate(images):
        if not np.array_equal(found, system.numbers):
            raise StructureError(
                f"{frames}: expected the {len(system)} atoms of {setup.config.structure} in their order, "
                f"found others in frame {index}"
            )
        source = f"frame {index} of {frames}"
        setup.yardstick.check_unit(positions, cell, source)
        try:
            setup.yardstick.check_atoms(positions, cell, source)
        except StructureError as error:
            if not index:
                raise
            doubts.append(f"{error}, unless the molecules have come apart")
    return [(positions, cell) for _, positions, cell in images], doubts[:1]


def _read_with_ase(frames: Path) -> list[ase.Atoms]:
    import ase.io

    try:
        return list(ase.io.read(frames, index=":"))
    except Exception as error:  # ASE's readers raise whatever their parsing hits
        raise StructureError(f"{frames}: cannot be read ({' '.join(str(error).split())})") from None
