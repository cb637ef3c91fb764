"""Observers of a client: what looks at each request and its answer, beside the evaluator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pidelta.state import Evaluation, FloatArray

SPREAD = "delta_standard_deviation"
EXTRAPOLATION = "delta_extrapolation"


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
    """

    def __init__(self, spread_threshold: float) -> None:
        self.alarms = {SPREAD: Alarm(spread_threshold), EXTRAPOLATION: Alarm(1.0)}

    def after(self, positions: FloatArray, cells: FloatArray | None, evaluation: Evaluation) -> None:
        """Count the structures; what the evaluation lacks, as a single model lacks a spread, is left out."""
        members = evaluation.properties.get("delta_energies")
        for name, alarm in self.alarms.items():
            values = evaluation.properties.get(name)
            if name == SPREAD and (members is None or members.shape[1] < 2):
                values = None
            if values is not None and len(values):
                alarm.add(values)


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
