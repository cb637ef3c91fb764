"""What is done about structures on which a correction is not sure: they are kept, or the run ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pidelta.data.store import FrameStore
from pidelta.errors import RunError
from pidelta.ipi.observers import EXTRAPOLATION, SPREAD, Observer
from pidelta.ipi.trajectories import Snapshot
from pidelta.qmmm.region import QMRegion
from pidelta.state import Evaluation, FloatArray, System
from pidelta.units import HARTREE_IN_KCAL_PER_MOL
from pidelta.workflow.sampling import cut_frame

_REQUESTS_BETWEEN = 20
"""Structures of neighbouring steps are nearly the same."""


class UncertainFrames(Observer):
    """Keeps structures with a spread above a threshold, or outside the training, as frames to label.

    The most uncertain of a request is kept, and then none for 20 requests. Several clients share the file.

    Args:
        path: the file of frames.
        region: the QM region and the rule for its surroundings.
        system: atoms and cell.
        threshold: of the spread, in hartree.
        origin: where the frames come from, see `FrameStore.provenance`.
        most: frames in the file above which no more are added.
    """

    def __init__(
        self,
        path: Path,
        region: QMRegion,
        system: System,
        threshold: float,
        origin: Mapping[str, str],
        most: int = 500,
    ) -> None:
        self._origin = origin
        self._path, self._region, self._system = path, region, system
        self._threshold, self._most = threshold, most
        self._wait = 0

    def after(self, positions: FloatArray, cells: FloatArray | None, evaluation: Evaluation) -> None:
        """Keep the most uncertain structure, if one is uncertain."""
        self._wait = max(0, self._wait - 1)
        spread = evaluation.properties.get(SPREAD)
        if self._wait or spread is None or not len(spread):
            return
        excess = spread / self._threshold
        if (outside := evaluation.properties.get(EXTRAPOLATION)) is not None:
            excess = np.maximum(excess, outside)
        worst = int(np.argmax(excess))
        if excess[worst] <= 1.0:
            return
        self._wait = _REQUESTS_BETWEEN
        periodic = self._system.cell is not None
        cell = np.eye(3) if cells is None else cells[worst]
        snapshot = Snapshot(0, self._system.numbers, positions[worst], cell)
        with _locked(self._path), FrameStore(self._path, "a") as store:
            if len(store) < self._most:
                store.set_embedding(self._region.surroundings.settings)
                store.set_provenance(self._origin)
                source = f"uncertain step {len(store)}"
                store.append(cut_frame(snapshot, self._region, periodic, source))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time, also while the file is made: another would find half of one."""
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class SpreadLimit(Observer):
    """Ends a run where the members of a committee differ too much.

    Args:
        limit: of the spread, in hartree.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit

    def after(self, positions: FloatArray, cells: FloatArray | None, evaluation: Evaluation) -> None:
        """See how much they differ.

        Raises:
            RunError: by more than the limit.
        """
        spread = evaluation.properties.get(SPREAD)
        if spread is None or not len(spread) or spread.max() <= self._limit:
            return
        found, limit = (f"{value * HARTREE_IN_KCAL_PER_MOL:.3g}" for value in (spread.max(), self._limit))
        raise RunError(
            f"the delta models differ by {found} kcal/mol in structure {int(np.argmax(spread))} of the "
            f"request, more than the limit of {limit} kcal/mol"
        )
