"""Label the frames of a store with DFT on the workers of a dask scheduler.

Frames and labels go through the scheduler, by pickle: who can reach its port can run anything as this user.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from pidelta.data.frames import Frame, Label
from pidelta.data.store import FrameStore
from pidelta.errors import MissingExtraError, PideltaError, RunError, SetupError
from pidelta.qm.reference_settings import ReferenceSettings
from pidelta.workflow.labelling import DEATHS, Outcome, checked_label

_PATIENCE = 30.0  # s for the scheduler to answer
_PAUSE = 30.0  # s after which workers are counted again, if no label came
_AHEAD = 2  # frames sent for each worker, so that none waits for the next
_PACKAGES = ("pidelta", "pyscf", "dftd3", "dftd4")  # that a label depends on


def dask_labels(
    store: FrameStore,
    indices: list[int],
    settings: ReferenceSettings,
    scheduler: str,
    check_every: int | None = None,
    note: Callable[[str], None] = print,
) -> Iterator[Outcome]:
    """Label frames with DFT on the workers of a scheduler, in the order they finish.

    The frames of a worker that is lost go to others. One whose workers die again and again has no label, but
    the error, as one that fails. Workers may come and go; without any, labels wait.

    Args:
        store: the frames; only read here, and open to others while labels are computed.
        indices: which frames.
        settings: the level of theory.
        scheduler: its address, such as ``tcp://host:8786``, or a file that it wrote.
        check_every: compare the gradient with differences for the first and each further frame of so many.
        note: is told that there are no workers.

    Raises:
        MissingExtraError: dask's `distributed` is not installed.
        SetupError: there is no such scheduler, its workers lack a package or have another version or several
            threads, or a frame or the level of theory cannot be labelled at all.
        RunError: the scheduler is lost, or workers die at one frame after the other.
    """
    waiting = iter(enumerate(indices))
    running: dict[Any, int] = {}
    deaths = 0
    packages = _versions()
    with _connected(scheduler) as client:
        _check_environments(client, scheduler)
        workers = _count_workers(client, None, note)
        while True:
            room = max(_AHEAD * max(workers, 1) - len(running), 0)
            for place, index in islice(waiting, room):
                check = check_every is not None and place % check_every == 0
                arguments = packages, store.frame(index), settings, check
                running[client.submit(_label, *arguments, pure=False)] = index
            if not running:
                return
            store.release()
            for future in _finished(running):
                index = running.pop(future)
                outcome, died = _result(client, scheduler, future)
                deaths = deaths + 1 if died else 0
                yield index, outcome
            if deaths >= DEATHS:
                raise RunError(f"labelling: the workers of {scheduler} died at {deaths} frames in a row")
            workers = _count_workers(client, workers, note)


def _label(
    packages: Mapping[str, str], frame: Frame, settings: ReferenceSettings, check: bool
) -> Label | RunError:
    """A label by a worker, or why there is none; errors of a run are no exceptions, which dask would log."""
    worker = importlib.import_module("distributed").get_worker()
    own = _versions()
    for package, expected in packages.items():
        if own.get(package, "none") != expected:
            raise SetupError(
                f"worker {worker.address}: expected {package} {expected} as here, found "
                f"{own.get(package, 'none')}"
            )
    if worker.state.nthreads != 1:
        raise SetupError(
            f"worker {worker.address}: expected one thread, found {worker.state.nthreads}: start workers by "
            "dask worker --nthreads 1 --nworkers N"
        )
    try:
        return checked_label(frame, settings, check)
    except RunError as error:
        return error


def _versions() -> dict[str, str]:
    """Of the packages that a label depends on, those that are installed."""
    found = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@contextmanager
def _connected(scheduler: str) -> Iterator[Any]:
    """A client of a scheduler; the loss of the scheduler becomes one line."""
    try:
        distributed = importlib.import_module("distributed")
    except ImportError:
        raise MissingExtraError("distributed", "dask", "labelling through dask") from None
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # a traceback for a lost scheduler
    address = _address(scheduler)
    try:
        if not address.startswith("inproc:"):  # for tests, in one process
            asyncio.run(_greet(distributed, address))
        client = distributed.Client(address, timeout=_PATIENCE)
    except (OSError, ValueError, TypeError, RuntimeError, asyncio.TimeoutError) as error:
        reason = (str(error).splitlines() or ["no answer"])[0]
        raise SetupError(f"{scheduler}: cannot reach a dask scheduler there: {reason}") from None
    try:
        yield client
    except (CancelledError, OSError) as error:
        if client.status == "running":
            raise
        raise RunError(f"{scheduler}: lost the dask scheduler; labels so far are kept") from error
    finally:
        client.close()


async def _greet(distributed: Any, address: str) -> None:
    """See that something there speaks dask's protocol: a client would wait for the answer for ever."""
    arguments = distributed.Security().get_connection_args("client")
    greeting = distributed.core.connect(address, timeout=_PATIENCE, **arguments)
    comm = await asyncio.wait_for(greeting, 2.0 * _PATIENCE)
    await comm.close()


def _address(scheduler: str) -> str:
    """The address of a scheduler, from the file that it wrote if it is one."""
    path = Path(scheduler)
    if not path.is_file():
        if ":" in scheduler:
            return scheduler
        raise SetupError(
            f"{scheduler or 'scheduler'}: expected the address of a dask scheduler, such as tcp://host:8786, "
            "or a file that one wrote, found no such file"
        )
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError):
        raise SetupError(
            f"{scheduler}: expected a file that dask scheduler --scheduler-file wrote, with an address"
        ) from None


def _check_environments(client: Any, scheduler: str) -> None:
    """See that the scheduler and its workers have this version of pidelta.

    What they run for it is Python's own, for a function of ours would not arrive there.
    """
    expected = _versions().get("pidelta")
    try:
        found = {f"scheduler {scheduler}": client.run_on_scheduler(version, "pidelta")}
    except PackageNotFoundError as error:
        found = {f"scheduler {scheduler}": error}
    for address, answer in client.run(version, "pidelta", on_error="return").items():
        found[f"worker {address}"] = answer
    for where, answer in found.items():
        answer = "none" if isinstance(answer, PackageNotFoundError) else answer
        if isinstance(answer, str) and answer != expected:
            raise SetupError(f"{where}: expected pidelta {expected} as here, found {answer}")


def _count_workers(client: Any, before: int | None, note: Callable[[str], None]) -> int:
    workers = len(client.nthreads())
    if not workers and before != 0:
        note("note: the scheduler has no workers; labels wait for some")
    return workers


def _finished(running: Mapping[Any, int]) -> list[Any]:
    """Those that are done; none after a pause in which nothing happened."""
    wait, patience = importlib.import_module("distributed").wait, _PAUSE
    try:
        return list(wait(list(running), timeout=patience, return_when="FIRST_COMPLETED").done)
    except asyncio.TimeoutError:
        return []


def _result(client: Any, scheduler: str, future: Any) -> tuple[Label | RunError, bool]:
    """The outcome of a frame, and whether its workers died."""
    try:
        return future.result(), False
    except importlib.import_module("distributed").KilledWorker as error:
        count, last = error.allowed_failures + 1, error.last_worker.address
        return RunError(f"{count} workers died, the last {last}, perhaps for want of memory"), True
    except (PideltaError, CancelledError):
        raise
    except Exception as error:
        _check_environments(client, scheduler)
        reason = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        if isinstance(reason, ImportError):  # of a worker that has left again
            raise SetupError(f"a worker of {scheduler}: expected pidelta there, found: {reason}") from error
        raise
