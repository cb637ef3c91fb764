"""``pidelta evaluate``: energies and gradients of structures, as JSON."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import ase
import ase.io
import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from pidelta.config import load_config
from pidelta.errors import ConfigError, StructureError
from pidelta.setup import Setup
from pidelta.state import Evaluation, FloatArray, IntArray, System, json_values, parse_terms
from pidelta.units import ANGSTROM
from pidelta.workflow.sampling import is_trajectory_of_ipi, read_trajectory


def evaluate(
    config: Annotated[Path, typer.Argument(help="The configuration, a YAML file.")],
    frames: Annotated[
        Path | None, typer.Option(help="Structures to evaluate (any format ASE reads, all frames).")
    ] = None,
    terms: Annotated[str | None, typer.Option(help="Terms joined by +, such as low+delta.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where to write; standard output by default.")] = None,
) -> None:
    """Energies, gradients and charges of the structure or of FRAMES, in atomic units."""
    setup = Setup(load_config(config))
    evaluator = setup.evaluator(chosen_terms(terms))
    structures = _read_frames(setup.system, frames, setup.config.structure)
    # Opened first: a path that cannot be written to should not show after hours of work.
    with nullcontext(sys.stdout) if output is None else output.open("w") as stream:
        results = [
            as_json(evaluator.evaluate(positions[None], None if cell is None else cell[None]))
            for positions, cell in track(
                structures, "evaluating", console=Console(stderr=True), transient=True
            )
        ]
        stream.write(json.dumps({"frames": results}, indent=1) + "\n")


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
    system: System, frames: Path | None, structure: Path
) -> list[tuple[FloatArray, FloatArray | None]]:
    """Positions and cells in bohr, from what i-PI wrote or from any format of ASE."""
    if frames is None:
        return [(system.positions, system.cell)]
    if not frames.is_file():
        raise StructureError(f"{frames}: no such file of frames")
    if is_trajectory_of_ipi(frames):
        images: list[tuple[IntArray, FloatArray, FloatArray | None]] = [
            (s.numbers, s.positions, s.cell) for s in read_trajectory(frames)
        ]
    else:
        images = [
            (a.numbers, a.positions * ANGSTROM, a.cell.array * ANGSTROM if a.cell.rank == 3 else None)
            for a in _read_with_ase(frames)
        ]
    for index, (found, _, _) in enumerate(images):
        if not np.array_equal(found, system.numbers):
            raise StructureError(
                f"{frames}: expected the {len(system)} atoms of {structure} in their order, "
                f"found others in frame {index}"
            )
    return [(positions, cell) for _, positions, cell in images]


def _read_with_ase(frames: Path) -> list[ase.Atoms]:
    try:
        return list(ase.io.read(frames, index=":"))
    except Exception as error:  # ASE's readers raise whatever their parsing hits
        raise StructureError(f"{frames}: cannot be read ({' '.join(str(error).split())})") from None
