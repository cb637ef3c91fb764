"""Training: from stores of labelled frames to model files, with a log and a learning curve beside each."""

from __future__ import annotations

import json
import logging
import math
import shutil
import signal
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.spatial import KDTree

from pidelta.data.frames import LabelledFrame
from pidelta.data.splits import hold_out, resample_by_source, split_after, split_by_source
from pidelta.delta.base import Provenance
from pidelta.delta.coverage import Coverage, CoverageGroup
from pidelta.delta.descriptors import DescriptorSettings, check_short_cutoff
from pidelta.delta.loading import model_kinds
from pidelta.delta.network_model import FeatureNetworks, NetworkModel
from pidelta.delta.training.learning_curve import plot_learning_curve
from pidelta.delta.training.parallel import in_processes
from pidelta.delta.training.resuming import (
    check_checkpoint,
    check_complete,
    frames_digest,
    identity,
    read_log,
)
from pidelta.delta.training.settings import TrainingFile, TrainingSettings
from pidelta.delta.training.starts import Start, settings_of_starts
from pidelta.delta.training.targets import TargetGroup, prepare
from pidelta.errors import DataError, MissingExtraError, RunError
from pidelta.output_files import replacing
from pidelta.state import IntArray

if TYPE_CHECKING:
    from pidelta.delta.training.fitting import Fit

History = list[dict[str, float]]
# Called after each epoch with the place of the model in the committee.
EpochReport = Callable[[int, History], None]
Track = Callable[[Sequence[LabelledFrame]], Iterable[LabelledFrame]]

# Norm of the gradient of the loss above which a step of the optimiser is shortened.
_STEEPEST = 1.0
# Loss on validation frames, that of the low level being 1, of a model that is of no use to anyone.
_WORST = 100.0


@dataclass(frozen=True)
class TrainingSet:
    """Frames ready for training, shared by the models of a committee.

    Attributes:
        kind: of the models.
        settings: descriptors and networks.
        provenance: methods, embedding and compositions of the frames.
        sources: where each frame comes from.
        digest: of frames and labels.
        groups: features and targets.
        coverage: where the features lie, with those that the earlier models were trained on.
        starts: earlier models to begin with: none, one for all models, or one for each.
    """

    kind: type[NetworkModel]
    settings: DescriptorSettings
    provenance: Provenance
    sources: tuple[str, ...]
    digest: str
    groups: list[TargetGroup]
    coverage: Coverage
    starts: tuple[Start, ...] = ()


def prepare_training(
    file: TrainingFile,
    frames: Sequence[LabelledFrame],
    track: Track = iter,
    starts: tuple[Start, ...] = (),
) -> TrainingSet:
    """Compute descriptors and targets of all frames.

    Args:
        file: the settings.
        frames: labelled frames, alike in methods.
        track: wraps the frames, to show progress.
        starts: earlier models to begin with.

    Raises:
        ModelError: the short-range cutoff does not fit the embedding, or an earlier model not the training.
        DataError: the frames cannot be divided as the settings say.
    """
    sources = tuple(item.frame.source for item in frames)
    split_frames(sources, file.training)  # what is wrong with it is said before the long work
    first = frames[0]
    elements = np.unique(np.concatenate([item.frame.numbers for item in frames]))
    settings = file.model_settings(tuple(elements.tolist()), ())
    settings = replace(settings, mm_elements=_elements_near(frames, settings.short_cutoff))
    embedding = file.embedding.as_mapping()
    check_short_cutoff(settings, embedding)
    provenance = Provenance(
        low_level=first.low.method,
        reference=first.reference.method,
        embedding=embedding,
        compositions=tuple(sorted({tuple(sorted(item.frame.numbers.tolist())) for item in frames})),
        site_elements=settings.mm_elements,
        charge=first.frame.charge,
        multiplicity=first.frame.multiplicity,
    )
    if starts:
        settings = settings_of_starts(starts, file.model, settings, provenance)
        provenance = replace(provenance, site_elements=settings.mm_elements)
    kind = model_kinds()[file.model]
    groups = prepare(settings, kind.field, track(frames))
    seen = [coverage_group(kind, settings, group) for group in groups]
    coverage = Coverage.of_training(settings, seen, sources, [start.model.coverage for start in starts])
    return TrainingSet(kind, settings, provenance, sources, frames_digest(frames), groups, coverage, starts)


def _elements_near(frames: Sequence[LabelledFrame], cutoff: float) -> tuple[int, ...]:
    """Atomic numbers of the MM atoms that are within a cutoff of a QM atom in one of the frames."""
    found: set[int] = set()
    for item in frames:
        tree = KDTree(item.frame.positions)
        distances, _ = tree.query(item.frame.site_positions, distance_upper_bound=cutoff)
        found |= set(item.frame.site_numbers[distances < cutoff].tolist())
    return tuple(sorted(found - {0}))


def coverage_group(
    kind: type[NetworkModel], settings: DescriptorSettings, group: TargetGroup
) -> CoverageGroup:
    """What the coverage of the training is made from, or judges."""
    seen = kind.coverage_features(settings, group.features.numpy())
    return seen, group.species.numpy(), group.frames.numpy()


def train_models(
    data: TrainingSet,
    settings: TrainingSettings,
    output: Path,
    models: int = 1,
    resume: bool = False,
    report: EpochReport = lambda model, history: None,
    workers: int = 1,
) -> list[Path]:
    """Train a committee: model k has its own split, initial weights and order of frames.

    Each model is written to ``delta-k.pt`` with ``delta-k.json`` (the log) and ``delta-k.png`` (the learning
    curve). A training that was stopped is taken up from ``delta-k.checkpoints`` by `resume`; models that are
    complete are kept.

    Args:
        data: from `prepare_training`.
        settings: the training settings.
        output: folder, made where there is none.
        models: number of models.
        resume: continue a stopped training.
        report: called after each epoch.
        workers: models trained at once, each in a process of its own where there are several.

    Raises:
        MissingExtraError: Lightning is not installed.
        DataError: there are too few frames, or `output` holds models and `resume` is not set.
        ConfigError: settings, methods, frames or labels differ from those of the training to resume, or of
            models that are complete.
        RunError: a model diverged; it is not written.
        KeyboardInterrupt: the training was stopped; at most the epoch under way is lost.
    """
    try:
        import lightning  # noqa: F401
    except ImportError:
        raise MissingExtraError("lightning", "train", "training") from None
    output.mkdir(parents=True, exist_ok=True)
    paths = model_paths(output, models)
    for path in paths:
        if not resume and (path.exists() or _checkpoints(path).exists()):
            raise DataError(
                f"{path}: expected no earlier training here, found one: resume it or move it away"
            )
    for k, path in enumerate(paths):
        _check_earlier(path, data, member_settings(settings, k), start_of(data, k))
    waiting = [k for k, path in enumerate(paths) if not path.exists()]
    task = partial(_train_member, settings, paths)
    if min(workers, len(waiting)) > 1:
        in_processes(data, waiting, workers, task, report)
    else:
        for k in waiting:
            task(data, k, report)
    return paths


def model_paths(output: Path, models: int) -> list[Path]:
    """Where the models of a committee go."""
    return [output / f"delta-{k}.pt" for k in range(models)]


def _check_earlier(path: Path, data: TrainingSet, settings: TrainingSettings, start: Start | None) -> None:
    """Whether a model that is complete, or a training that was stopped, is of this training."""
    present = identity(data, settings, start)
    if path.exists():
        division = split_frames(data.sources, settings, start)
        check_complete(path, present, [[data.sources[index] for index in part] for part in division])
    elif (last := _last_checkpoint(path)).exists():
        check_checkpoint(last, present)


def _train_member(
    settings: TrainingSettings, paths: Sequence[Path], data: TrainingSet, k: int, report: EpochReport
) -> None:
    _train_one(data, member_settings(settings, k), paths[k], partial(report, k), start_of(data, k))


def start_of(data: TrainingSet, k: int) -> Start | None:
    """The earlier model that model k begins with."""
    return data.starts[k % len(data.starts)] if data.starts else None


def member_settings(settings: TrainingSettings, k: int) -> TrainingSettings:
    """The settings of model k of a committee, which has a seed of its own."""
    return settings.model_copy(update={"seed": settings.seed + k})


def split_frames(
    sources: Sequence[str], settings: TrainingSettings, start: Start | None = None
) -> tuple[IntArray, IntArray]:
    """Indices of the frames that a model learns from, repeated by a bootstrap, and of those that validate it.

    Args:
        sources: of all frames.
        settings: those of the model (`member_settings`).
        start: the earlier model that it begins with, whose division goes on.

    Raises:
        DataError: there are too few frames to divide, or no trajectory of a name in the settings.
    """
    if settings.validation_trajectories:
        train, validation = hold_out(sources, settings.validation_trajectories)
    elif start is not None and start.learned is not None:
        train, validation = split_after(
            sources, start.learned, start.held_back, settings.validation_fraction, settings.seed
        )
    else:
        train, validation = split_by_source(sources, settings.validation_fraction, settings.seed)
    if settings.bootstrap:
        try:
            train = resample_by_source(sources, train, settings.seed)
        except DataError:
            raise DataError(
                "training.bootstrap: expected frames of at least 2 steps to draw from beside those for "
                f"validation, found {len(train)} of one step: hold back fewer"
            ) from None
    return train, validation


def _train_one(
    data: TrainingSet,
    settings: TrainingSettings,
    path: Path,
    report: Callable[[History], None],
    start: Start | None,
) -> None:
    from pidelta.delta.training.fitting import Fit

    train, validation = split_frames(data.sources, settings, start)
    provenance = data.provenance
    if start is None:
        networks = initial_networks(data, train, settings.seed)
    else:
        networks = data.kind.networks_class(data.settings)
        networks.load_state_dict(start.model.networks.state_dict())
        compositions = start.model.provenance.compositions
        provenance = replace(provenance, start=start.digest, compositions=compositions)
    origin = identity(data, settings, start)
    fit = Fit(networks, data.groups, data.settings, train, validation, settings, origin)
    first = None if start is None else fit.validation_errors()
    state = _run(fit, settings, path, report)
    kept = min(fit.history, key=_loss)
    if start is not None and first is not None and first["validation_loss"] <= _loss(kept):
        # No epoch is better than the earlier model.
        kept, state = first, start.model.networks.state_dict()
    if _loss(kept) > _WORST:
        shutil.rmtree(_checkpoints(path))
        raise RunError(
            f"{path}: expected a validation loss below 1, that of the low level alone, found "
            f"{kept['validation_loss']:.3g} at best, by too few frames or too high a training.learning_rate; "
            "no model is written"
        )
    networks.load_state_dict(state)
    log = {
        "settings": settings.model_dump(),
        "reference": data.provenance.reference,
        "low_level": data.provenance.low_level,
        "frames": data.digest,
        "train_sources": [data.sources[index] for index in train],
        "validation_sources": [data.sources[index] for index in validation],
        "units": "hartree, hartree/bohr, of MM atoms times d / 3 angstrom; losses relative to the low level",
        "start": None
        if start is None
        else {
            "model": str(start.path),
            "sha256": start.digest,
            "errors": first,
            "train_sources": None if start.learned is None else sorted(start.learned),
        },
        "epochs": fit.history,
    }
    with replacing(path.with_suffix(".json")) as stream:
        stream.write(json.dumps(log, indent=1) + "\n")
    plot_learning_curve(fit.history, path.with_suffix(".png"))
    # The model comes last: where it is, the training is complete.
    data.kind(data.settings, networks, data.coverage, kept["energy_rmse"], provenance).save(path)
    shutil.rmtree(_checkpoints(path))


def _loss(row: Mapping[str, float]) -> float:
    """The loss on validation frames; one that is no number is worse than all others."""
    loss = row["validation_loss"]
    return loss if math.isfinite(loss) else math.inf


def validation_loss(path: Path) -> float:
    """Loss of a complete model on its validation frames; that of the low level alone is 1.

    Raises:
        DataError: its log cannot be read.
    """
    log = read_log(path)
    start = log.get("start") or {}
    return min(_loss(row) for row in [*log["epochs"], *([start["errors"]] if start else [])])


def keeps_start(path: Path) -> bool:
    """Whether no epoch of a complete model was better than the earlier model that it began with.

    Raises:
        DataError: its log cannot be read.
    """
    log = read_log(path)
    start = log.get("start")
    return start is not None and _loss(start["errors"]) <= min(map(_loss, log["epochs"]))


def known_to_start(data: TrainingSet, settings: TrainingSettings, k: int) -> tuple[int, int] | None:
    """Of how many validation frames of model k its earlier model learned, and how many there are.

    None without an earlier model, and where no log says what it learned from.
    """
    start = start_of(data, k)
    if start is None or start.learned is None:
        return None
    _, validation = split_frames(data.sources, member_settings(settings, k), start)
    return sum(data.sources[index] in start.learned for index in validation), len(validation)


def initial_networks(data: TrainingSet, train: IntArray, seed: int) -> FeatureNetworks:
    """Networks with seeded weights and with scales and energy baseline from the training frames."""
    networks: FeatureNetworks = data.kind.networks_class(data.settings, seed)
    own = [torch.isin(group.frames, torch.from_numpy(train)) for group in data.groups]
    networks.fit_scales(
        [group.features[rows] for group, rows in zip(data.groups, own, strict=True)],
        [group.species for group in data.groups],
    )
    energies = torch.cat([group.energy[rows] for group, rows in zip(data.groups, own, strict=True)]).numpy()
    count = len(data.settings.elements)
    composition = np.concatenate(
        [
            np.tile(np.bincount(group.species.numpy(), minlength=count), (int(rows.sum()), 1))
            for group, rows in zip(data.groups, own, strict=True)
        ]
    ).astype(np.float64)
    baseline, *_ = np.linalg.lstsq(composition, energies, rcond=None)
    networks.baseline.copy_(torch.from_numpy(baseline))
    spread = float((energies - composition @ baseline).std())
    if spread > 0.0:
        networks.energy_scale.fill_(spread / np.sqrt(composition.sum(1).mean()))
    return networks


def _run(
    fit: Fit,
    settings: TrainingSettings,
    path: Path,
    report: Callable[[History], None],
) -> dict[str, torch.Tensor]:
    """Train, from the last checkpoint where there is one, and return the state with the least loss."""
    import lightning
    from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    checkpoint = ModelCheckpoint(
        dirpath=_checkpoints(path),
        filename="best",
        monitor="validation_loss",
        save_last=True,
        enable_version_counter=False,
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=settings.epochs,
        gradient_clip_val=_STEEPEST,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        inference_mode=False,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[
            LambdaCallback(on_train_epoch_end=lambda trainer, module: report(module.history)),
            EarlyStopping("validation_loss", patience=settings.patience),
            checkpoint,
        ],
    )
    last = _last_checkpoint(path)
    with warnings.catch_warnings():
        # Lightning's own use of a name that PyTorch renames, and its surprise at a resumed training.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists", category=UserWarning)
        try:
            trainer.fit(fit, ckpt_path=last if last.exists() else None)
        except SystemExit:
            # Lightning turns Ctrl-C into an exit and stops listening to it.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from None
    state = torch.load(checkpoint.best_model_path, weights_only=True)["state_dict"]
    prefix = "averaged."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _checkpoints(path: Path) -> Path:
    return path.with_suffix(".checkpoints")


def _last_checkpoint(path: Path) -> Path:
    return _checkpoints(path) / "last.ckpt"
