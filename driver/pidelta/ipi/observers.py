"""Observers of a client: what looks at each request and its answer, beside the evaluator."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pidelta.state import Evaluation, FloatArray

SPREAD = "delta_standard_deviation"
EXTRAPOLATION = "delta_extrapolation"
_STATUS_SECONDS = 1.0


class Observer:
    """Sees each request of i-PI before and after it is evaluated; each method does nothing here."""

    def before(self, positions: FloatArray, cells: FloatArray | None) -> None:
        """Called with positions (B, N, 3) and cells (B, 3, 3), in bohr; may raise what is wrong with them."""

    def after(self, positions: FloatArray, cells: FloatArray | None, evaluation: Evaluation) -> None:
        """Called with the same and their evaluation, before it is sent; may raise what is wrong with it."""


@dataclass
class Alarm:
    """What was seen of a property that rises on structures unlike those a model was trained on.

    Attributes:
        threshold: above which a structure deserves a warning, in the unit of the property.
        structures: how many were seen.
        total, largest: the sum and the maximum over them.
        latest: mean over the last request.
        above: how many exceeded the threshold.
    """

    threshold: float
    structures: int = 0
    total: float = 0.0
    largest: float = 0.0
    latest: float = 0.0
    above: int = 0

    @property
    def mean(self) -> float:
        """The mean over all structures."""
        return self.total / max(self.structures, 1)

    def add(self, values: FloatArray) -> None:
        """Count values (B,), B > 0."""
        self.structures += len(values)
        self.total += float(values.sum())
        self.largest = max(self.largest, float(values.max()))
        self.latest = float(values.mean())
        self.above += int(np.count_nonzero(~(values <= self.threshold)))


class UncertaintyMonitor(Observer):
    """Watches how sure a correction is: the spread of its committee and how far it extrapolates.

    Args:
        spread_threshold: of the standard deviation of a committee, in hartree.
        status: a file that has the alarms as JSON, not older than about a second; None for none.
    """

    def __init__(self, spread_threshold: float, status: Path | None = None) -> None:
        self.alarms = {SPREAD: Alarm(spread_threshold), EXTRAPOLATION: Alarm(1.0)}
        self._status = status
        self._written = -math.inf

    def after(self, positions: FloatArray, cells: FloatArray | None, evaluation: Evaluation) -> None:
        """Count the structures; what the evaluation lacks, as a single model lacks a spread, is left out."""
        members = evaluation.properties.get("delta_energies")
        for name, alarm in self.alarms.items():
            values = evaluation.properties.get(name)
            if name == SPREAD and (members is None or members.shape[1] < 2):
                values = None
            if values is not None and len(values):
                alarm.add(values)
        if time.monotonic() - self._written > _STATUS_SECONDS:
            self.write_status()

    def write_status(self) -> None:
        """Replace the file at once, so that nobody reads half of it; a full disk does not end a run."""
        if self._status is None:
            return
        self._written = time.monotonic()
        draft = self._status.with_suffix(".draft")
        with contextlib.suppress(OSError):
            draft.write_text(
                json.dumps({name: asdict(alarm) for name, alarm in self.alarms.items()}), encoding="utf-8"
            )
            draft.replace(self._status)


def read_status(path: Path) -> dict[str, Alarm]:
    """The alarms in the file of an `UncertaintyMonitor`; none where it has not written yet."""
    try:
        return {
            name: Alarm(**values) for name, values in json.loads(path.read_text(encoding="utf-8")).items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def merge_alarms(several: Iterable[Mapping[str, Alarm]]) -> dict[str, Alarm]:
    """The alarms of several clients as one, without those that saw nothing."""
    by_name: dict[str, list[Alarm]] = {}
    for alarms in several:
        for name, alarm in alarms.items():
            if alarm.structures:
                by_name.setdefault(name, []).append(alarm)
    return {
        name: Alarm(
            threshold=alarms[0].threshold,
            structures=sum(alarm.structures for alarm in alarms),
            total=sum(alarm.total for alarm in alarms),
            largest=max(alarm.largest for alarm in alarms),
            latest=sum(alarm.latest for alarm in alarms) / len(alarms),
            above=sum(alarm.above for alarm in alarms),
        )
        for name, alarms in by_name.items()
    }
