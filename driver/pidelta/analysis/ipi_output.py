"""Read the tables of properties that i-PI writes, also while they grow."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ipi.utils.units import unit_to_internal

from pidelta.errors import DataError
from pidelta.ipi.superseded import goes_on, not_superseded, superseded_note
from pidelta.state import FloatArray

_COLUMN = re.compile(r"#\s*(?:column|cols\.)\s+(\d+)(?:-(\d+))?\s*-->\s*(\S+)")
_UNIT = re.compile(r"\{([^}]*)\}")

_DIMENSIONS = {
    "time": "time",
    "temperature": "temperature",
    "ensemble_temperature": "temperature",
    "conserved": "energy",
    "potential": "energy",
    "pot_component": "energy",
    "pot_component_raw": "energy",
    "bead_potentials": "energy",
    "spring": "energy",
    "kinetic_md": "energy",
    "kinetic_cv": "energy",
    "kinetic_td": "energy",
    "virial_fq": "energy",
    "pressure_md": "pressure",
    "pressure_cv": "pressure",
    "volume": "volume",
    "density": "density",
    "r_gyration": "length",
}


@dataclass(frozen=True)
class Column:
    """A column of a properties file: name without unit, unit (empty: atomic), and where it is."""

    name: str
    unit: str
    first: int
    last: int

    @property
    def label(self) -> str:
        """As in a message."""
        return f"column {self.first + 1} ({self.name} in {self.unit or 'atomic units'})"


@dataclass(frozen=True)
class Properties:
    """A properties file.

    Attributes:
        columns: by name, (n,) or (n, k), as written.
        units: i-PI's name of the unit of each column, empty for atomic units and pure numbers.
        notes: on rows that do not count, or that may count twice, a line each.
    """

    columns: dict[str, FloatArray]
    units: dict[str, str]
    notes: tuple[str, ...] = ()

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def not_numbers(self, name: str) -> str:
        """Where a column is not a number, as in a message; '' where it is one in all rows."""
        values = self.columns[name].reshape(len(self.columns[name]), -1)
        rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if not len(rows):
            return ""
        where = f"row {rows[0]}" if "step" not in self else f"step {self.columns['step'][rows[0]]:.0f}"
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        return f"{name}: not a number at {where}{more}, so neither is what follows from it"

    def atomic(self, name: str) -> FloatArray:
        """Return a column, arguments in its name such as ``kinetic_cv(H)``, in atomic units.

        Temperatures are k_B T in hartree.

        Raises:
            KeyError: there is no such column, or its dimension is not known here.
        """
        return np.asarray(self.columns[name] * _factor(_DIMENSIONS[_kind(name)], self.units[name]))


class PropertiesFollower:
    """Reads the new rows of a properties file each time it is asked.

    Args:
        path: the file, which need not exist yet.
        continued: whether the file of an earlier run goes on; else that file is waited to be replaced.

    Attributes:
        first: the first row of the file, once there is one.
    """

    def __init__(self, path: Path, continued: bool = False) -> None:
        self._path = path
        self._offset = 0
        self._columns: list[Column] = []
        self.first: dict[str, float] | None = None
        self._old = None if continued or not path.exists() else path.stat().st_ino

    @property
    def has_started(self) -> bool:
        """Whether the run has a file of its own."""
        return self._path.exists() and self._path.stat().st_ino != self._old

    def latest(self) -> dict[str, float] | None:
        """Return the newest complete row, by column name without unit, or None if nothing is new.

        Columns of several numbers are represented by their first.
        """
        if not self.has_started:
            return None
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            text = stream.read()
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)
        lines = complete.decode(errors="replace").splitlines()
        self._columns += _read_header(lines)
        rows = [line for line in lines if line.strip() and not line.startswith("#")]
        if not rows or not self._columns:
            return None
        if self.first is None:
            self.first = self._numbers(rows[0])
        return self._numbers(rows[-1])

    def _numbers(self, row: str) -> dict[str, float]:
        values = row.split()[-(self._columns[-1].last + 1) :]  # after what a killed run left in the line
        return {column.name: float(values[column.first]) for column in self._columns}


def has_rows(path: Path) -> bool:
    """Whether a properties file is there and has a whole row: i-PI writes the header first."""
    if not path.exists():
        return False
    with path.open(encoding="utf-8", errors="replace") as stream:
        return any(line.endswith("\n") and line.strip() and not line.startswith("#") for line in stream)


def read_properties(path: Path) -> Properties:
    """Read a properties file.

    Where the steps (without these, the times) go back, because a killed run was continued from an older
    checkpoint, the rows that were computed again replace the old ones. An incomplete row is left out, the
    last or where a killed run was continued.

    Raises:
        DataError: the file is missing, has no header or no rows, or headers that differ, a unit is unknown,
            or a row does not fit the header.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except OSError as error:
        raise DataError(f"{path}: cannot read the properties: {error.strerror}") from error
    columns = _only_header(path, lines)
    for column in columns:
        _check_unit(path, column)
    rows, notes = _read_rows(path, lines, columns)
    if not rows:
        raise DataError(f"{path}: expected at least one row of properties, found none")
    table = np.array(rows)
    data = {
        c.name: table[:, c.first] if c.first == c.last else table[:, c.first : c.last + 1] for c in columns
    }
    units = {column.name: column.unit for column in columns}
    order = next((data[name] for name in ("step", "time") if name in data), None)
    if order is None:
        notes.append("no step and no time: rows that a continued run computed again would count twice")
    else:
        keep = not_superseded(order)
        notes += filter(None, [superseded_note(order, keep, "rows")])
        data = {name: values[keep] for name, values in data.items()}
    return Properties(data, units, tuple(notes))


def _read_rows(path: Path, lines: list[str], columns: list[Column]) -> tuple[list[list[float]], list[str]]:
    """The numbers of all rows, and notes.

    A killed run leaves part of a row, and i-PI goes on in the same line.
    """
    width = columns[-1].last + 1
    order = next((c.first for name in ("step", "time") for c in columns if c.name == name), None)
    rows: list[list[float]] = []
    notes = []
    for number, line in enumerate(lines, start=1):
        if line.startswith("#") or not line.strip() or not line.endswith("\n"):
            continue
        words = line.split()
        is_cut = width < len(words) <= 2 * width and order is not None
        try:
            row = [float(word) for word in (words[-width:] if is_cut else words)]
        except ValueError as error:
            raise DataError(f"{path}: line {number}: expected numbers: {error}") from error
        if is_cut and order is not None and goes_on([row[order] for row in rows], row[order]):
            notes.append(f"line {number}: part of a row that a killed run did not finish is left out")
        elif len(row) != width or is_cut:
            raise DataError(f"{path}: line {number}: expected {width} columns, found {len(words)}")
        rows.append(row)
    return rows, notes


def _kind(name: str) -> str:
    """The name of a property without its arguments."""
    return name.partition("(")[0]


def _factor(dimension: str, unit: str) -> float:
    return float(unit_to_internal(dimension, unit or "atomic_unit", 1.0))


def _check_unit(path: Path, column: Column) -> None:
    dimension = _DIMENSIONS.get(_kind(column.name))
    if dimension is None:
        return
    try:
        with redirect_stdout(io.StringIO()):
            _factor(dimension, column.unit)
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{path}: column {column.name}: expected a unit of {dimension} that i-PI knows, "
            f"found {column.unit!r}"
        ) from None


def _only_header(path: Path, lines: list[str]) -> list[Column]:
    """The columns, which outputs that were joined must share."""
    columns = _read_header(lines)
    if not columns:
        raise DataError(f"{path}: expected the header of an i-PI properties file, found none")
    starts = [place for place, column in enumerate(columns) if column.first == 0] + [len(columns)]
    first = columns[: starts[1]] if len(starts) > 1 else columns
    for place, column in enumerate(columns):
        expected = first[place % len(first)]
        if column != expected or len(columns) % len(first):
            raise DataError(
                f"{path}: expected one header, or the same again, found {column.label} in place of "
                f"{expected.label}: outputs of several runs, of other columns or units, cannot be joined"
            )
    return first


def _read_header(lines: list[str]) -> list[Column]:
    columns = []
    for line in lines:
        if match := _COLUMN.match(line):
            first = int(match.group(1))
            last = int(match.group(2) or first)
            label = match.group(3)
            unit = _UNIT.search(label)
            columns.append(Column(_UNIT.sub("", label), unit.group(1) if unit else "", first - 1, last - 1))
    return columns
