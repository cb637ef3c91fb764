"""``pidelta evaluate``: energies and gradients of structures, as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import ase.io
import numpy as np
import typer
from rich.progress import track

from pidelta.build import build_evaluator, read_system
from pidelta.config import Config, load_config
from pidelta.errors import ConfigError, StructureError
from pidelta.qmmm.energy import TERMS
from pidelta.state import Evaluation, FloatArray
from pidelta.units import ANGSTROM


def evaluate(
    config: Annotated[Path, typer.Argument(help="The configuration, a YAML file.")],
    frames: Annotated[
        Path | None, typer.Option(help="Structures to evaluate (any format ASE reads, all frames).")
    ] = None,
    terms: Annotated[str | None, typer.Option(help="Terms joined by +, such as dftb+delta.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where to write; standard output by default.")] = None,
) -> None:
    """Energies, gradients and charges of the structure or of FRAMES, in atomic units."""
    settings = load_config(config)
    evaluator = build_evaluator(settings, parse_terms(terms))
    structures = _read_frames(settings, frames, evaluator.numbers.tolist())
    results = [
        as_json(evaluator.evaluate(positions[None], None if cell is None else cell[None]))
        for positions, cell in track(structures, description="evaluating", disable=output is None)
    ]
    text = json.dumps({"frames": results}, indent=1)
    if output is None:
        print(text)
    else:
        output.write_text(text + "\n")


def parse_terms(text: str | None) -> frozenset[str] | None:
    """``dftb+delta`` as a set.

    Raises:
        ConfigError: a name is not that of a term.
    """
    if text is None:
        return None
    terms = frozenset(text.split("+"))
    unknown = sorted(terms - set(TERMS))
    if unknown:
        raise ConfigError(f"--terms: expected {', '.join(TERMS)} joined by +, found {unknown[0]!r}")
    return terms


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """A batch of one as plain lists, named as the design fixes it."""
    gradient = evaluation.gradient[0]
    point_charges = evaluation.extras.get("point_charge_gradient")
    if point_charges is not None:
        gradient = np.concatenate([gradient, point_charges[0]])
    return {
        "energy": float(evaluation.energy[0]),
        "gradient": gradient.tolist(),
        "terms": {
            name: {"energy": float(term.energy[0]), "gradient": term.gradient[0].tolist()}
            for name, term in evaluation.terms.items()
        },
        "charges": None if evaluation.charges is None else evaluation.charges[0].tolist(),
        "virial": evaluation.virial[0].tolist(),
        "timings": dict(evaluation.timings),
    }


def _read_frames(
    config: Config, frames: Path | None, numbers: list[int]
) -> list[tuple[FloatArray, FloatArray | None]]:
    """Positions and cells in bohr."""
    if frames is None:
        system = read_system(config)
        return [(system.positions, system.cell)]
    if not frames.is_file():
        raise StructureError(f"{frames}: no such file of frames")
    try:
        images = ase.io.read(frames, index=":")
    except Exception as error:  # ASE's readers raise whatever their parsing hits
        raise StructureError(f"{frames}: cannot be read ({' '.join(str(error).split())})") from None
    structures = []
    for index, atoms in enumerate(images):
        if atoms.numbers.tolist() != numbers:
            raise StructureError(
                f"{frames}: expected the {len(numbers)} atoms of {config.structure} in their order, "
                f"found others in frame {index}"
            )
        cell = atoms.cell.array * ANGSTROM if atoms.cell.rank == 3 else None
        structures.append((atoms.positions * ANGSTROM, cell))
    return structures
