"""``pidelta train`` and ``pidelta test``: delta models from labelled frames, and their errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track
from rich.table import Table

from pidelta.cli.processors import allowed_processors
from pidelta.errors import DataError
from pidelta.output_files import replacing

if TYPE_CHECKING:
    from pidelta.data.labelled import LabelledSet
    from pidelta.delta.assessment import ErrorSummary
    from pidelta.delta.calibration import Reliability
    from pidelta.delta.training.run import TrainingSet
    from pidelta.delta.training.settings import TrainingSettings


def train(
    frames: Annotated[list[Path], typer.Argument(help="Files of labelled frames.")],
    settings: Annotated[Path, typer.Option(help="The training settings, a YAML file.")],
    output: Annotated[Path, typer.Option(help="Folder for models, logs and learning curves.")],
    models: Annotated[int, typer.Option(min=1, help="Number of models of the committee.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a training that was stopped.")] = False,
    reference: Annotated[
        str | None, typer.Option(help="Method of the reference labels, or a part of its text.")
    ] = None,
    low: Annotated[
        str | None, typer.Option(help="Method of the low-level labels, or a part of its text.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Models trained at once.")] = allowed_processors(),
) -> None:
    """Train delta models on reference - low-level labels: OUTPUT/delta-0.pt, delta-1.pt, ..."""
    from pidelta.delta.training.run import prepare_training
    from pidelta.delta.training.settings import read_training_file

    file = read_training_file(settings)
    labelled = _read(frames, file.embedding.as_mapping(), reference, low)
    data = prepare_training(
        file, labelled.frames, lambda items: track(items, description="descriptors", transient=True)
    )
    print(
        f"{len(data.sources)} frames: {data.provenance.reference} - {data.provenance.low_level}, "
        f"{data.settings.feature_count} features"
    )
    for path in _train_with_progress(data, file.training, output, models, resume, workers):
        print(f"wrote {path}")


def _read(
    frames: list[Path], embedding: Mapping[str, str | float], reference: str | None, low: str | None
) -> LabelledSet:
    """Labelled frames, with notes on what was passed over."""
    from pidelta.data.labelled import read_labelled

    labelled = read_labelled(frames, embedding, reference, low)
    for note in labelled.notes:
        print(f"note: {note}")
    return labelled


def _train_with_progress(
    data: TrainingSet, settings: TrainingSettings, output: Path, models: int, resume: bool, workers: int
) -> list[Path]:
    from pidelta.delta.training.run import History, train_models

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        tasks = [progress.add_task(f"delta-{k}", total=settings.epochs, start=False) for k in range(models)]

        def report(model: int, history: History) -> None:
            best = min(row["validation_loss"] for row in history)
            progress.start_task(tasks[model])
            text = f"delta-{model}: loss {history[-1]['train_loss']:.4f}, best validation {best:.4f}"
            progress.update(tasks[model], completed=len(history), description=text)

        try:
            return train_models(data, settings, output, models, resume, report, workers)
        except KeyboardInterrupt:
            progress.console.print("stopped; the same command with --resume continues")
            raise typer.Exit(130) from None


def test(
    frames: Annotated[list[Path], typer.Argument(help="Files of labelled frames not trained on.")],
    model: Annotated[list[Path], typer.Option(help="A model; repeat for a committee.")],
    output: Annotated[Path | None, typer.Option(help="Write the table as JSON too.")] = None,  # noqa: PT028
) -> None:
    """Compare the low level alone and with the delta model with the reference."""
    from pidelta.delta.assessment import assess
    from pidelta.delta.calibration import calibrate
    from pidelta.delta.committee import Committee
    from pidelta.delta.loading import load_correction

    if output is not None and not output.parent.is_dir():
        raise DataError(f"{output}: expected a folder that exists, found none at {output.parent}")
    members = [load_correction(path) for path in model]
    committee = Committee(members)
    known = committee.provenance
    labelled = _read(frames, known.embedding, known.reference, known.low_level)
    errors = assess(committee, track(labelled.frames, description="frames", transient=True))
    Console().print(_error_table(errors, len(labelled)))
    reliability = calibrate(members, labelled.frames) if len(members) > 1 else None
    if reliability is not None:
        _show_reliability(reliability)
    if output is not None:
        factors = None if reliability is None else asdict(reliability.calibration)
        judgement = None if reliability is None else reliability.judgement
        content: dict[str, object] = {
            "calibration": factors,
            "judgement": None if judgement is None else asdict(judgement),
            "frames": len(labelled),
            "models": [str(path) for path in model],
            "units": "kcal/mol, kcal/mol/angstrom; pairs are MAE, RMSE",
            "errors": {name: asdict(summary) for name, summary in errors.items()},
        }
        with replacing(output) as stream:
            stream.write(json.dumps(content, indent=1) + "\n")


def _show_reliability(reliability: Reliability) -> None:
    """How far the spread is true, and the keys of a configuration that make it so."""
    factor = reliability.calibration
    print("factors that make the spread of the models as large as errors are, in the section delta:")
    print(f"  calibration: {{energy: {factor.energy:.3g}, force: {factor.force:.3g}}}")
    print(f"  offset: {reliability.offset:.6f} hartree   # for a weighted baseline (baseline_error)")
    print(reliability.judgement or "too few frames to judge these factors on others than those of their fit")


def _error_table(errors: dict[str, ErrorSummary], count: int) -> Table:
    table = Table(
        title=f"MAE (RMSE) against the reference, {count} frames",
        caption="Energies in kcal/mol after removing each method's mean error, as absolute energies differ; "
        "gradients in kcal/mol/Å",
    )
    for heading in ("method", "energy", "QM gradient", "MM gradient", "MM gradient within 5 Å"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for name, summary in errors.items():
        table.add_row(name, *(f"{mae:.4f} ({rmse:.4f})" for mae, rmse in asdict(summary).values()))
    return table
