"""``pidelta learn``: delta models from no labels at all, round by round."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pidelta.cli.processors import allowed_processors
from pidelta.config import load_config, load_delta
from pidelta.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pidelta.setup import Setup
    from pidelta.state import Evaluator
    from pidelta.workflow.conservation import Run
    from pidelta.workflow.learning.rounds import RoundResult
    from pidelta.workflow.learning.settings import LearningFile

_INTERRUPTED = 130


def learn(
    settings: Annotated[Path, typer.Argument(metavar="CONFIG", help="The settings, a YAML file.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder of the rounds; by default that of the settings' name.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Frames labelled at once.")] = allowed_processors(),
) -> None:
    """Sample, pick, label, train and test in rounds; start it again to go on where it stopped."""
    from pidelta.workflow.learning.settings import read_learning_file

    file = read_learning_file(settings)
    config = load_config(file.config)
    if config.qm is None:
        raise ConfigError(f"{file.config}: missing key qm")

    from pidelta.analysis.learning_page import PAGE, write_learning_page
    from pidelta.cli.configuration_digest import configuration_digest
    from pidelta.cli.supervision import signals_as_interrupts
    from pidelta.ipi.folder_lock import FolderLock
    from pidelta.setup import Setup
    from pidelta.workflow.learning.loop import Loop
    from pidelta.workflow.learning.pool import Subject

    root = settings.with_suffix("") if output is None else output
    console = Console()
    setup = Setup(config)
    _check_atoms(settings, file, setup)
    reference = _check_training(settings, file, setup)
    terms = tuple(term for term in config.terms if term != "delta")
    subject = Subject(
        setup.system,
        setup.qm_region,
        terms,
        setup.origin,
        configuration_digest(config.model_copy(update={"delta": None})),
        reference,
        setup.engine.identity,
    )
    command = shlex.join(
        ["pidelta", "learn", settings.name, *(() if output is None else ("--output", str(output)))]
    )

    def report(results: Sequence[RoundResult]) -> None:
        if results:
            write_learning_page(root, results, command)
            console.print(_line(results[-1]), soft_wrap=True, highlight=False)

    root.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(root, settings.name)
    try:
        with signals_as_interrupts():
            reason = Loop(root, file, subject, _Tasks(console, file, setup, workers), report).run()
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here")
        raise typer.Exit(_INTERRUPTED) from None
    finally:
        lock.release()
    console.print(f"{reason}; page: {root / PAGE}", soft_wrap=True, highlight=False)


def _check_atoms(path: Path, file: LearningFile, setup: Setup) -> None:
    """See that the distances of a bias are between QM atoms."""
    from pidelta.workflow.learning.settings import BiasedSource, UmbrellaSource

    known = set(setup.qm_region.partition.qm_atoms.tolist())
    for place, source in enumerate(file.sample):
        for pair in source.distances if isinstance(source, BiasedSource | UmbrellaSource) else ():
            if pair[0] == pair[1] or not known.issuperset(pair):
                raise ConfigError(
                    f"{path}: sample.{place}.distances: expected pairs of QM atoms "
                    f"({min(known)} to {max(known)}), found {list(pair)}"
                )


def _check_training(path: Path, file: LearningFile, setup: Setup) -> str:
    """See that labels can be made, and that they suit the training, before the first frame is sampled.

    Returns:
        The method of the reference labels.
    """
    from pidelta.cli.label import named_settings
    from pidelta.data.embedding import difference
    from pidelta.delta.training.settings import read_training_file
    from pidelta.qm.reference_settings import ReferenceSettings, check_level
    from pidelta.workflow.learning.selection import load_picker

    reference, region = ReferenceSettings(**file.label.model_dump()), setup.qm_region
    with named_settings(lambda quantity: f"{path}: label.{quantity}"):
        check_level(reference, region.numbers, region.charge, region.multiplicity)
    if file.select.method != "random":
        load_picker()
    found = read_training_file(file.training).embedding.as_mapping()
    if differs := difference(setup.qm_region.surroundings.settings, found):
        key, expected, given = differs
        raise ConfigError(
            f"{file.training}: embedding.{key}: expected {expected}, as the frames of {file.config} have it, "
            f"found {given}"
        )
    return reference.method


def _line(result: RoundResult) -> str:
    errors = result.corrected
    return (
        f"round {result.number}: {result.frames} frames, {result.test_frames} to test on: MAE energy "
        f"{errors.energy[0]:.3g} (low level alone {result.low.energy[0]:.3g}) kcal/mol, QM gradient "
        f"{errors.qm_gradient[0]:.3g} ({result.low.qm_gradient[0]:.3g}), MM gradient "
        f"{errors.mm_gradient[0]:.3g} ({result.low.mm_gradient[0]:.3g}) kcal/mol/Å; "
        f"{result.seconds / 3600.0:.2f} h"
    )


class _Tasks:
    """The work of a round, by what the other commands do."""

    def __init__(self, console: Console, file: LearningFile, setup: Setup, workers: int) -> None:
        from pidelta.run_record import recorded_values

        self._console, self._file, self._setup, self._workers = console, file, setup, workers
        self._values = recorded_values(setup.config.model_copy(update={"delta": None}))

    def note(self, text: str) -> None:
        """A line on the terminal."""
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    def dynamics(self, run: Run, committee: Path | None, bias: Path | None) -> None:
        """i-PI with one client, which has the configuration that the rounds have."""
        from pidelta.cli.conservation import run_all
        from pidelta.run_record import RECORD, recorded_values, write_record

        delta = self._setup.config.delta if committee is None else load_delta(committee)
        own = {} if delta is None else recorded_values(delta, "delta")
        run.folder.mkdir(parents=True, exist_ok=True)
        write_record(record := run.folder / RECORD, {**self._values, **own})
        command = [sys.executable, "-m", "pidelta", "client", str(self._setup.config.path)]
        for option, path in (("--delta", committee), ("--bias", bias)):
            command += [] if path is None else [option, str(path.resolve())]
        run_all(self._console, [run], command, record)

    def evaluator(self, committee: Path | None) -> Evaluator:
        """All terms, with the correction of a committee."""
        from pidelta.setup import Setup

        delta = None if committee is None else load_delta(committee)
        return Setup(self._setup.config.model_copy(update={"delta": delta})).evaluator()

    def label(self, frames: Path) -> None:
        """Labels by DFT and by the low level."""
        from pidelta.cli.label import label_with_dft, label_with_low_level, open_frames
        from pidelta.qm.reference_settings import ReferenceSettings

        reference = ReferenceSettings(**self._file.label.model_dump())
        with open_frames(frames) as store:
            label_with_dft(store, store.unlabelled("reference", reference.method), reference, self._workers)
            label_with_low_level(store, self._setup)

    def train(self, frames: Sequence[Path], folder: Path, reference: str, low: str) -> list[Path]:
        """As `pidelta train --resume`."""
        from pidelta.cli.train import train

        count = self._file.models
        train(list(frames), self._file.training, folder, count, resume=True, reference=reference, low=low)
        paths = [folder / f"delta-{place}.pt" for place in range(self._file.models)]
        missing = [path for path in paths if not path.exists()]
        if missing:
            raise DataError(f"{missing[0]}: expected a model from the training, found none")
        return paths
