"""How sure the delta model is, in words: while a run goes on, in tables, and as warnings."""

from __future__ import annotations

from collections.abc import Mapping

from pidelta.ipi.observers import EXTRAPOLATION, SPREAD, Alarm
from pidelta.units import HARTREE_IN_KCAL_PER_MOL


def in_short(alarms: Mapping[str, Alarm]) -> str:
    """The newest and the largest spread, for the line of progress."""
    parts = []
    if alarm := alarms.get(SPREAD):
        newest, largest = (_energy(value) for value in (alarm.latest, alarm.largest))
        parts.append(f"spread {newest} (max {largest}) kcal/mol")
    if (alarm := alarms.get(EXTRAPOLATION)) and alarm.above:
        parts.append(f"{_share(alarm)} outside the training")
    return "  ".join(parts)


def rows(alarms: Mapping[str, Alarm]) -> list[tuple[str, str]]:
    """Names and values for a table; nothing without a delta model."""
    table = []
    if alarm := alarms.get(SPREAD):
        several = f"mean {_energy(alarm.mean)}, largest " if alarm.structures > 1 else ""
        text = f"{several}{_energy(alarm.largest)} kcal/mol (warning above {_energy(alarm.threshold)})"
        table.append(("spread of the delta models", text))
    elif alarms:
        table.append(("spread of the delta models", "none: a single model cannot say how sure it is"))
    if alarm := alarms.get(EXTRAPOLATION):
        outside = f", {_share(alarm)} of the structures above 1" if alarm.above else ""
        table.append(("extrapolation", f"{alarm.largest:.2f} at most{outside} (training: 1 and below)"))
    return table


def warnings(alarms: Mapping[str, Alarm]) -> list[str]:
    """What a user has to know of; nothing where all structures are like those of the training."""
    lines = []
    if (alarm := alarms.get(SPREAD)) and alarm.above:
        lines.append(
            f"the delta models differ by more than {_energy(alarm.threshold)} kcal/mol in {_share(alarm)} of "
            f"the structures, by {_energy(alarm.largest)} at most: energies there may be that wrong"
        )
    if (alarm := alarms.get(EXTRAPOLATION)) and alarm.above:
        lines.append(
            f"{_share(alarm)} of the structures lie outside what the delta models were trained on "
            f"(largest {alarm.largest:.2f}, training 1): label some of them and train again"
        )
    return lines


def _energy(value: float) -> str:
    return f"{value * HARTREE_IN_KCAL_PER_MOL:.3g}"


def _share(alarm: Alarm) -> str:
    return f"{100.0 * alarm.above / alarm.structures:.3g} %"
