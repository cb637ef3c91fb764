"""The models of a committee trained at once, each in a process of one thread."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import fields, replace
from multiprocessing import get_context
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import torch

from pidelta.core.threads import one_thread
from pidelta.delta.training.targets import TargetGroup
from pidelta.errors import RunError

if TYPE_CHECKING:
    from pidelta.delta.training.run import TrainingSet

Report = Callable[[int, Any], None]
Task = Callable[["TrainingSet", int, Report], None]
"""What is done for the model at a place of the committee."""

_POLL = 0.2  # s between looks at what the processes report


class _Shared:
    """What a process got when it started."""

    data: TrainingSet
    reports: SimpleQueue[tuple[int, Any]]


def in_processes(data: TrainingSet, models: Sequence[int], workers: int, task: Task, report: Report) -> None:
    """Do a task for each of some models, in processes that share the prepared frames.

    The frames are in a temporary file that the processes map into memory, so that they are there once.

    Args:
        data: the prepared frames.
        models: places of the models in the committee.
        workers: number of processes.
        task: called with the frames, the place of a model and how to report; it and what it holds are sent
            to the processes.
        report: called here with the place of a model and what its task reports.

    Raises:
        RunError: a process died.
        KeyboardInterrupt: Ctrl-C, which reaches the processes, too; they end first.
    """
    context = get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, context.Manager() as manager:
        path = Path(folder) / "groups.pt"
        torch.save([_tensors(group) for group in data.groups], path)
        reports = manager.Queue()
        arguments = (replace(data, groups=[]), path, reports)
        with one_thread(), ProcessPoolExecutor(workers, context, _start, arguments) as pool:
            try:
                waiting = {pool.submit(_run, task, model) for model in models}
                # A pool watches a process from the submission after the one that started it on.
                waiting.add(pool.submit(_nothing))
                while waiting:
                    done, waiting = wait(waiting, timeout=_POLL)
                    _pass_on(reports, report)
                    for future in done:
                        future.result()
            except BrokenProcessPool:
                raise RunError(
                    "training: a worker process died, perhaps for want of memory; use fewer --workers"
                ) from None


def _nothing() -> None:
    """Done when all else is."""


def _pass_on(reports: Any, report: Report) -> None:
    with suppress(Empty):
        while True:
            report(*reports.get_nowait())


def _tensors(group: TargetGroup) -> dict[str, torch.Tensor]:
    return {field.name: getattr(group, field.name) for field in fields(group)}


def _start(data: TrainingSet, path: Path, reports: Any) -> None:
    groups = torch.load(path, mmap=True, weights_only=True)
    _Shared.data = replace(data, groups=[TargetGroup(**group) for group in groups])
    _Shared.reports = reports


def _run(task: Task, model: int) -> None:
    try:
        task(_Shared.data, model, lambda model, found: _Shared.reports.put((model, found)))
    except KeyboardInterrupt:
        # Ctrl-C, or the end of another process, after which the pool would wait for this one for ever.
        os._exit(130)
