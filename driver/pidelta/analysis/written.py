"""What a run has written of what its input asks for, and whether it fits the input and itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pidelta.analysis.ipi_output import Properties, read_properties
from pidelta.errors import DataError
from pidelta.ipi.simulation import PropertiesFile
from pidelta.state import FloatArray, IntArray
from pidelta.units import ATOMIC_TIME_IN_FEMTOSECOND

_DIGITS = 2e-8  # of a time, relative: i-PI writes nine digits
_SAME = 1e-3  # relative, of time steps


@dataclass(frozen=True)
class WrittenProperties:
    """The properties files of a system.

    Attributes:
        files: those that have rows, by their names.
        missing: those that have none, and what is wrong with them.
    """

    files: dict[str, Properties]
    missing: tuple[tuple[PropertiesFile, str], ...]

    @property
    def warnings(self) -> list[str]:
        """A line on each that is missing, and on rows that do not count."""
        notes = [f"{name}: {note}" for name, file in self.files.items() for note in file.notes]
        return [*(problem for _, problem in self.missing), *notes]

    def why_not(self, *names: str) -> str:
        """Why properties are not there though the input asks for them; '' where it does not."""
        return next((problem for file, problem in self.missing if {*names} <= file.names), "")


def read_written(asked: Sequence[PropertiesFile]) -> WrittenProperties:
    """Read the properties files that are there.

    Raises:
        DataError: one is malformed.
    """
    files: dict[str, Properties] = {}
    missing = []
    for file in asked:
        if not file.path.exists():
            missing.append((file, f"{file.path.name}: no such file, though the input asks for it"))
            continue
        try:
            files[file.path.name] = read_properties(file.path)
        except DataError as error:
            if file.path.stat().st_size and "at least one row" not in str(error):
                raise
            missing.append((file, f"{file.path.name}: no rows yet"))
    return WrittenProperties(files, tuple(missing))


def written_time_step(name: str, given: float, files: dict[str, Properties]) -> tuple[float, list[str]]:
    """The time step that a run had, by step and time of its properties, where both are written.

    Args:
        name: of the input.
        given: its time step in atomic units.
        files: the properties by the names of their files.

    Returns:
        The time step in atomic units, and what is to be said of it, a line each.
    """
    for file, properties in files.items():
        if "step" not in properties or "time" not in properties:
            continue
        steps, times = properties.columns["step"], properties.atomic("time")
        known = np.isfinite(steps) & np.isfinite(times)
        steps, times = steps[known], times[known]
        if len(steps) < 2:
            continue
        rounding = _DIGITS * float(np.abs(times).max())
        whole = float((times[-1] - times[0]) / (steps[-1] - steps[0]))
        each = np.diff(times) / np.diff(steps)
        changed = np.flatnonzero(~_are_same(each, float(each[0]), rounding / np.diff(steps)))
        if len(changed):
            place = changed[0]
            text = (
                f"{file}: the time step changes at step {steps[place]:.0f} from {_shown(each[0])} to "
                f"{_shown(each[place])}: times and spectra are those of {_shown(given)}, as in {name}"
            )
            return given, [text]
        if whole > 0.0 and not _are_same(np.array(whole), given, rounding / (steps[-1] - steps[0])).all():
            text = (
                f"{file}: the time step is {_shown(whole)}, in {name} it is {_shown(given)}: that of {file} "
                f"counts; was the input edited after the run?"
            )
            return whole, [text]
        return given, []
    return given, []


def left_out(what: str, steps: dict[str, IntArray], common: IntArray) -> list[str]:
    """A line where files of one quantity have other steps than those in all of them, which alone count.

    Args:
        what: the quantity.
        steps: of each file, by its name.
        common: those in all files.
    """
    longest = max(steps, key=lambda name: len(steps[name]))
    shortest = min(reversed(steps), key=lambda name: len(steps[name]))
    if len(steps[longest]) == len(common):
        return []
    return [
        f"{what}: {len(common)} snapshots count, those that all files have: {longest} has "
        f"{len(steps[longest])}, {shortest} {len(steps[shortest])}"
    ]


def early_ends(ends: dict[str, tuple[int, int]]) -> list[str]:
    """A line on each output that ends before another, by more than its stride and what is just being written.

    Args:
        ends: last step and stride of each, by name.
    """
    if not ends:
        return []
    latest = max(ends, key=lambda name: ends[name][0])
    last = ends[latest][0]
    return [
        f"{name} ends at step {end}, {latest} at step {last}"
        for name, (end, stride) in ends.items()
        if end + 2 * stride < last
    ]


def _are_same(values: FloatArray, other: float, error: FloatArray | float) -> np.ndarray:
    return np.abs(values - other) <= _SAME * abs(other) + error


def _shown(time: float) -> str:
    return f"{time * ATOMIC_TIME_IN_FEMTOSECOND:.4g} fs"
