"""``pidelta train``: delta models from labelled frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track

from pidelta.cli.messages import show_warning
from pidelta.cli.processors import allowed_processors
from pidelta.cli.test import read_frames, write_errors
from pidelta.errors import SetupError
from pidelta.output_files import check_distinct

if TYPE_CHECKING:
    from pidelta.data.labelled import LabelledSet
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
    start: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="MODEL", help="An earlier model to go on from; repeat: one for each."),
    ] = None,
) -> None:
    """Train delta models on reference - low-level labels: OUTPUT/delta-0.pt, delta-1.pt, ..."""
    from pidelta.delta.training.run import keeps_start, model_paths, prepare_training, validation_loss
    from pidelta.delta.training.settings import read_training_file
    from pidelta.delta.training.starts import read_starts

    check_distinct(output, [settings, *frames])
    file = read_training_file(settings)
    starts = read_starts(start or [])
    if len(starts) not in (0, 1, models):
        raise SetupError(
            f"--from: expected one model, or {models} for --models {models}, found {len(starts)}"
        )
    labelled = read_frames(frames, file.embedding.as_mapping(), reference, low)
    data = prepare_training(
        file,
        labelled.frames,
        lambda items: track(items, description="descriptors", transient=True),
        starts,
    )
    print(
        f"{len(data.sources)} frames: {data.provenance.reference} - {data.provenance.low_level}, "
        f"{data.settings.feature_count} features"
    )
    console = Console(stderr=True)
    for text in _known_before(data, file.training, models):
        show_warning(console, text)
    complete = {path for path in model_paths(output, models) if path.exists()}
    for place, path in enumerate(_train_with_progress(data, file.training, output, models, resume, workers)):
        print(f"kept {path}" if path in complete else f"wrote {path}")
        if (loss := validation_loss(path)) > 1.0:
            show_warning(
                console,
                f"{path}: the loss on validation frames is {loss:.3g}, without the model 1: it does more "
                "harm than good",
            )
        if keeps_start(path):
            show_warning(
                console,
                f"{path}: no epoch was better than the earlier model on the validation frames, so it is that "
                "one again",
            )
        _validate(data, file.training, labelled, place, path)


def _known_before(data: TrainingSet, settings: TrainingSettings, models: int) -> list[str]:
    """Warnings of validation frames that an earlier model learned from, where it looks better than it is."""
    from pidelta.delta.training.run import known_to_start

    advice = "hold back new trajectories, training.validation_trajectories"
    found = []
    silent = [str(start.path) for start in data.starts if start.learned is None]
    if silent and not settings.validation_trajectories:
        found.append(
            f"{', '.join(silent)}: no log beside it says which frames it learned from; where they validate "
            f"it, no epoch looks better: {advice}"
        )
    for k in range(models):
        known = known_to_start(data, settings, k)
        if known is not None and known[0]:
            found.append(
                f"delta-{k}: the earlier model learned from {known[0]} of its {known[1]} validation frames, "
                f"where no epoch looks better: {advice}"
            )
    return found


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


def _validate(
    data: TrainingSet, settings: TrainingSettings, labelled: LabelledSet, place: int, path: Path
) -> None:
    """Write the errors of a model on its validation frames beside it, unless they are there."""
    from pidelta.analysis.model_errors import model_errors
    from pidelta.analysis.pages import PAGE
    from pidelta.delta.assessment import predict, summarise
    from pidelta.delta.committee import Committee
    from pidelta.delta.loading import load_correction
    from pidelta.delta.training.run import known_to_start, member_settings, split_frames, start_of

    folder = path.with_suffix(".validation")
    page = folder / PAGE
    if page.exists() and page.stat().st_mtime >= path.stat().st_mtime:
        return
    start, known = start_of(data, place), known_to_start(data, settings, place)
    _, validation = split_frames(data.sources, member_settings(settings, place), start)
    committee = Committee([load_correction(path)])
    items = [labelled.frames[index] for index in validation]
    predictions = predict(committee, track(items, description=path.stem, transient=True))
    note = "These frames chose the epoch that was kept, and descriptor ranges come from them, too"
    more = "" if settings.validation_trajectories else ": errors on other trajectories are larger"
    if start is not None and (known is None or known[0]):
        more += ". The earlier model may have learned from some of them"
    places = [labelled.places[index] for index in validation]
    errors = model_errors(predictions, places, summarise(predictions), None)
    title = f"Validation of {path.name}"
    write_errors(folder, title, committee.provenance, [path], errors, [f"{note}{more}."])
