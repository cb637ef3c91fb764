"""``pidelta test``: errors of delta models on labelled frames."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pidelta.errors import DataError
from pidelta.output_files import check_distinct, replacing

if TYPE_CHECKING:
    from pidelta.analysis.model_errors import ModelErrors
    from pidelta.data.labelled import LabelledSet
    from pidelta.delta.assessment import ErrorSummary, TrajectoryErrors
    from pidelta.delta.base import Provenance
    from pidelta.delta.calibration import Reliability


def test(
    frames: Annotated[list[Path], typer.Argument(help="Files of labelled frames not trained on.")],
    model: Annotated[list[Path], typer.Option(help="A model; repeat for a committee.")],
    output: Annotated[Path | None, typer.Option(help="Write the table as JSON too.")] = None,  # noqa: PT028
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a page with pictures, and report.json, into a folder."),
    ] = None,  # noqa: PT028
) -> None:
    """Compare the low level alone and with the delta model with the reference."""
    from pidelta.delta.assessment import by_trajectory, predict, summarise
    from pidelta.delta.calibration import reliability as reliability_of
    from pidelta.delta.committee import Committee
    from pidelta.delta.files import models_digest
    from pidelta.delta.loading import load_members

    if output is not None and not output.parent.is_dir():
        raise DataError(f"{output}: expected a folder that exists, found none at {output.parent}")
    if output is not None:
        check_distinct(output, [*frames, *model])
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)
    members = load_members(model)
    committee = Committee(members, force_deviation=len(members) > 1)
    known = committee.provenance
    labelled = read_frames(frames, known.embedding, known.reference, known.low_level)
    notes = [*labelled.notes, *_known_frames(labelled, model)]
    for note in notes[len(labelled.notes) :]:
        print(f"note: {note}")
    predictions = predict(committee, track(labelled.frames, description="frames", transient=True))
    errors = summarise(predictions)
    Console().print(_error_table(errors, len(labelled)))
    trajectories = by_trajectory(predictions)
    if trajectories:
        Console().print(_trajectory_table(trajectories))
    reliability = reliability_of(predictions, len(members)) if len(members) > 1 else None
    digest = models_digest(model)
    if reliability is not None:
        _show_reliability(reliability, digest)
    if output is not None:
        factors: dict[str, object] | None = None
        if reliability is not None and reliability.compared:
            factors = {**asdict(reliability.calibration), "models": digest}
        judgement = None if reliability is None else reliability.judgement
        content: dict[str, object] = {
            "calibration": factors,
            "judgement": None if judgement is None else asdict(judgement),
            "frames": len(labelled),
            "models": [str(path) for path in model],
            "units": "kcal/mol, kcal/mol/angstrom; pairs of errors are MAE, RMSE",
            "errors": {name: asdict(summary) for name, summary in errors.items()},
            "trajectories": [asdict(each) for each in trajectories],
        }
        with replacing(output) as stream:
            stream.write(json.dumps(content, indent=1) + "\n")
    if report is not None:
        from pidelta.analysis.model_errors import model_errors

        details = model_errors(predictions, labelled.places, errors, reliability)
        write_errors(report, f"Errors on {len(labelled)} frames", known, model, details, notes)


def read_frames(
    frames: list[Path], embedding: Mapping[str, str | float], reference: str | None, low: str | None
) -> LabelledSet:
    """Labelled frames, with notes on what was passed over."""
    from pidelta.data.doubles import without_doubles
    from pidelta.data.labelled import read_labelled

    labelled = without_doubles(read_labelled(frames, embedding, reference, low))
    for note in labelled.notes:
        print(f"note: {note}")
    return labelled


def _known_frames(labelled: LabelledSet, models: Sequence[Path]) -> list[str]:
    """What to know of frames that the models learnt from or were chosen by, as far as their logs tell."""
    logs = {path: _log(path) for path in models}
    names = ("train_sources", "validation_sources")
    known = {source for log in logs.values() for name in names for source in log.get(name, ())}
    for log in logs.values():
        known |= set((log.get("start") or {}).get("train_sources") or ())
    notes = []
    known.discard("")  # of frames that nobody named
    if count := sum(item.frame.source in known for item in labelled.frames):
        notes.append(
            f"{count} of {len(labelled)} frames are, by their sources, those of the training of the models: "
            "errors on others are larger"
        )
    if silent := [str(path) for path, log in logs.items() if not log]:
        files = ", ".join(silent)
        notes.append(f"{files}: no log beside it, so whether the training had these frames is not known")
    return notes


def _log(model: Path) -> Mapping[str, Any]:
    """The log beside a model; empty where there is none."""
    from pidelta.delta.training.resuming import read_log

    try:
        return read_log(model)
    except DataError:
        return {}


def write_errors(
    folder: Path,
    title: str,
    known: Provenance,
    models: Sequence[Path],
    errors: ModelErrors,
    notes: Sequence[str],
) -> None:
    """Write the page of the errors of models, and say where it is.

    Args:
        folder: made where there is none.
        title: of the page.
        known: what the models were trained on.
        models: their files.
        errors: of them.
        notes: for the page.
    """
    from pidelta.analysis.model_page import write_model_page
    from pidelta.analysis.pages import PAGE

    files = ", ".join(dict.fromkeys(frame.file for frame in errors.frames))
    facts = [
        ("models", ", ".join(map(str, models))),
        ("frames", f"{len(errors.frames)} of {files}"),
        ("reference", known.reference),
        ("low level", known.low_level),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_model_page(errors, folder, title, facts, notes)
    print(f"report: {folder / PAGE}")


def _show_reliability(reliability: Reliability, digest: str) -> None:
    """How far the spread is true, and the keys of a configuration that make it so."""
    from pidelta.delta.calibration import NOTHING_COMPARED, verdict

    factor = reliability.calibration
    if reliability.compared:
        print("factors that make the spread of the models as large as errors are, in the section delta:")
        print(
            f'  calibration: {{energy: {factor.energy:.3g}, force: {factor.force:.3g}, models: "{digest}"}}'
        )
    else:
        print(f"{NOTHING_COMPARED} In the section delta:")
    print(f"  offset: {reliability.offset:.6f} hartree   # for a weighted baseline (baseline_error)")
    if reliability.compared:
        print(verdict(reliability.judgement, reliability.inside()))


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


def _trajectory_table(trajectories: Sequence[TrajectoryErrors]) -> Table:
    table = Table(
        title="MAE on each trajectory",
        caption="Energies in kcal/mol less the mean error of their trajectory; shift: by how much that "
        "differs from the mean of all frames",
    )
    for heading in ("trajectory", "frames", "method", "shift", "energy", "QM gradient", "MM gradient"):
        table.add_column(heading, justify="left" if heading in ("trajectory", "method") else "right")
    for each in trajectories:
        for place, (method, own) in enumerate(each.summary.items()):
            figures = [own.energy[0], own.qm_gradient[0], own.mm_gradient[0]]
            cells = [method, f"{each.shift[method]:+.2f}", *(f"{figure:.4f}" for figure in figures)]
            table.add_row(*(["", ""] if place else [each.name, str(each.frames)]), *cells)
    return table
