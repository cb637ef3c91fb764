"""Label the frames of a store with DFT, in parallel, and with the low-level method."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

import numpy as np

from pidelta.core.threads import one_thread
from pidelta.data.frames import Frame, Label, LabelKind
from pidelta.data.store import FrameStore
from pidelta.errors import DataError, MissingExtraError, RunError, SettingError, SetupError
from pidelta.qm.base import QMEngine
from pidelta.qm.reference import error_of_gradient, label_frame
from pidelta.qm.reference_settings import ReferenceSettings, check_level
from pidelta.qmmm.point_charges import point_charge_gradients, point_charge_potential

Outcome = tuple[int, Label | RunError]
"""A frame's index and its label, or why it has none."""

WORST_GRADIENT = 2e-4
"""Error of a gradient in hartree/bohr beyond which a label is refused; that of a grid at rest is 5e-5."""

DEATHS = 5
"""Workers that may die in a row before labelling gives up: each took one frame with it."""
_WANT = "perhaps for want of memory: use fewer --workers"


def check_frames(store: FrameStore, indices: list[int], settings: ReferenceSettings) -> None:
    """See that a level of theory suits all frames, before the first is labelled.

    Raises:
        MissingExtraError: PySCF, or the package of the dispersion, is not installed.
        SettingError: a setting is unknown, or does not suit a frame.
        SetupError: a frame cannot be labelled; the message names it.
    """
    known = set()
    for index in indices:
        frame = store.frame(index)
        kind = frame.numbers.tobytes(), frame.charge, frame.multiplicity
        if kind in known:
            continue
        known.add(kind)
        try:
            check_level(settings, frame.numbers, frame.charge, frame.multiplicity)
        except (SettingError, MissingExtraError):
            raise
        except SetupError as error:
            raise SetupError(f"{store.path}: frame {index}: {error}") from None


def reference_labels(
    store: FrameStore,
    indices: list[int],
    settings: ReferenceSettings,
    workers: int,
    check_every: int | None = None,
) -> Iterator[Outcome]:
    """Label frames with DFT in worker processes of one thread each, in the order they finish.

    A frame whose gradient is not the difference of energies, or whose worker dies, has no label, but the
    error.

    Args:
        store: the frames; only read here, and open to others while labels are computed.
        indices: which frames.
        settings: the level of theory.
        workers: number of processes.
        check_every: compare the gradient with differences for the first and each further frame of so many.

    Raises:
        SetupError: a frame or the level of theory cannot be labelled at all.
        RunError: one worker after the other died.
    """
    context = multiprocessing.get_context("spawn")

    def new_worker() -> ProcessPoolExecutor:
        # A pool of one: where several processes share a pool, nobody knows which frame killed it.
        return ProcessPoolExecutor(1, context, initializer=_start_worker)

    waiting = iter(enumerate(indices))
    idle = [new_worker() for _ in range(workers)]
    running: dict[Future[Label], tuple[int, ProcessPoolExecutor]] = {}
    deaths = 0
    with one_thread():
        try:
            while True:
                for place, index in islice(waiting, len(idle)):
                    check = check_every is not None and place % check_every == 0
                    worker = idle.pop()
                    try:
                        future = worker.submit(checked_label, store.frame(index), settings, check)
                    except BrokenProcessPool:  # it died while it waited
                        worker = new_worker()
                        future = worker.submit(checked_label, store.frame(index), settings, check)
                    running[future] = index, worker
                if not running:
                    return
                store.release()
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    index, worker = running.pop(future)
                    idle.append(worker)
                    outcome, died = _result(future)
                    deaths = deaths + 1 if died else 0
                    if died:
                        worker.shutdown()
                        idle[-1] = new_worker()
                    yield index, outcome
                if deaths >= DEATHS:
                    raise RunError(f"labelling: {deaths} worker processes died one after the other; {_WANT}")
        finally:
            for worker in [*idle, *(worker for _, worker in running.values())]:
                worker.shutdown(cancel_futures=True)


def checked_label(frame: Frame, settings: ReferenceSettings, check: bool) -> Label:
    """Label a frame with DFT and, if asked to, compare its gradient with a difference of energies.

    Raises:
        SetupError: the frame or the level of theory cannot be labelled.
        RunError: it has no label, or the two differ by more than `WORST_GRADIENT`.
    """
    label = label_frame(frame, settings)
    if check and (error := error_of_gradient(frame, label, settings)) > WORST_GRADIENT:
        raise RunError(
            f"frame {frame.source}: expected a gradient that is the difference of energies, found "
            f"{error:.1e} hartree/bohr between them; a finer grid may help"
        )
    return label


def _result(future: Future[Label]) -> tuple[Label | RunError, bool]:
    """The outcome of a frame, and whether its worker died."""
    try:
        return future.result(), False
    except BrokenProcessPool:
        return RunError(f"its worker process died, {_WANT}"), True
    except RunError as error:
        return error, False


def _start_worker() -> None:
    """Ctrl-C reaches the workers too: they shall end, and silently."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def low_labels(
    store: FrameStore, indices: list[int], engine: QMEngine, charge: int, multiplicity: int
) -> Iterator[Outcome]:
    """Label frames with the low-level method in the potential of their point charges.

    Args:
        store: the frames; only read here.
        indices: which frames.
        engine: the low-level method.
        charge, multiplicity: of the QM region that the engine was made for.

    Raises:
        DataError: a frame holds other atoms, or another charge or multiplicity.
    """
    for index in indices:
        frame = store.frame(index)
        if not np.array_equal(frame.numbers, engine.numbers):
            raise DataError(
                f"{store.path}: expected the elements {engine.numbers.tolist()} of the engine in frame "
                f"{index}, found {frame.numbers.tolist()}"
            )
        if (frame.charge, frame.multiplicity) != (charge, multiplicity):
            raise DataError(
                f"{store.path}: expected charge {charge} and multiplicity {multiplicity} in frame {index}, "
                f"found {frame.charge} and {frame.multiplicity}"
            )
        positions, sites = frame.positions[None], (frame.site_positions[None], frame.site_charges[None])
        try:
            result = engine.evaluate(positions, point_charge_potential(positions, *sites))
        except RunError as error:
            yield index, error
            continue
        qm_part, site_gradient, _ = point_charge_gradients(positions, *sites, result.charges)
        yield (
            index,
            Label(
                method=engine.identity,
                energy=float(result.energy[0]),
                gradient=result.gradient[0] + qm_part[0],
                site_gradient=site_gradient[0],
                charges=result.charges[0],
            ),
        )


def write_labels(
    store: FrameStore, kind: LabelKind, method: str, outcomes: Iterable[Outcome], replace: bool = False
) -> list[str]:
    """Store labels as they come, and the reasons of those that do not.

    Args:
        store: where labels go.
        kind: of the labels.
        method: of the labels.
        outcomes: the labels, or why there are none.
        replace: whether they may take the place of earlier labels by the same method.

    Returns:
        One line for each frame that has no label.

    Raises:
        DataError: there is an earlier label by the same method, and `replace` is not set.
    """
    failures = []
    for index, outcome in outcomes:
        if isinstance(outcome, Label):
            store.set_label(index, kind, outcome, replace=replace)
        else:
            store.set_failure(index, kind, method, str(outcome))
            failures.append(f"frame {index}: {outcome}")
    return failures
