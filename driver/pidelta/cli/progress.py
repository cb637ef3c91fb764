"""What is shown while i-PI runs: a bar of steps with their speed, and below it the state of each system."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from pidelta.analysis.ipi_output import PropertiesFollower
    from pidelta.ipi.simulation import PropertiesFile, Simulation

REFRESH_SECONDS = 0.2
_SHOWN = {
    "time": ("time", ".4g"),
    "temperature": ("T", ".1f"),
    "conserved": ("conserved", ".6f"),
    "potential": ("potential", ".6f"),
    "kinetic_cv": ("kinetic (cv)", ".4f"),
    "pressure_cv": ("pressure (cv)", ".4g"),
    "pressure_md": ("pressure", ".4g"),
    "volume": ("volume", ".6g"),
}
"""Columns of i-PI's properties worth a place, the most telling first, with a short name and a format."""
_MOST_COLUMNS = 4
_UNIT_SYMBOLS = {
    "": "a.u.",
    "atomic_unit": "a.u.",
    "kelvin": "K",
    "electronvolt": "eV",
    "picosecond": "ps",
    "femtosecond": "fs",
    "megapascal": "MPa",
    "angstrom3": "Å³",
}


class _StepsPerSecond(ProgressColumn):
    """The speed over the last half minute."""

    def render(self, task: Task) -> Text:
        """Steps per second, once they are known."""
        return Text("" if task.speed is None else f"{task.speed:.3g} steps/s")


class StepsProgress(Progress):
    """A bar of steps with their speed and the time left; below it the field `state`, the state of the run."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            _StepsPerSecond(),
            TimeRemainingColumn(),
        )
        super().__init__(*columns, console=console, expand=True)

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bar and what belongs below it."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            state = task.fields["state"]
            if state:
                yield Text(state) if isinstance(state, str) else state


class SystemsTable:
    """The newest row of properties of each system: what i-PI was asked for, whatever moves the atoms.

    Args:
        simulation: the input.
        file: its properties.
        followers: of the files of the systems.
    """

    def __init__(
        self, simulation: Simulation, file: PropertiesFile, followers: Sequence[PropertiesFollower]
    ) -> None:
        self._names = simulation.system_names
        self._followers = followers
        units = dict(label.rstrip("}").partition("{")[::2] for label in file.columns)
        self._columns = [name for name in _SHOWN if name in units][:_MOST_COLUMNS]
        self._units = {name: _UNIT_SYMBOLS.get(units[name], units[name]) for name in self._columns}
        self._rows: list[dict[str, float]] = [{} for _ in followers]

    @property
    def have_started(self) -> bool:
        """Whether i-PI writes the properties of this run."""
        return any(follower.has_started for follower in self._followers)

    def update(self) -> int | None:
        """Read what is new; return the step that all systems have done, None where nothing is new."""
        news = [follower.latest() for follower in self._followers]
        for place, row in enumerate(news):
            if row is not None:
                self._rows[place] = row
        if not any(news) or not all("step" in row for row in self._rows):
            return None
        return int(min(row["step"] for row in self._rows))

    def table(self) -> Table:
        """A row for each system; the conserved quantity also as its change since the first row."""
        several = len(self._followers) > 1
        table = Table(box=None, padding=(0, 2, 0, 0))
        if several:
            table.add_column("system")
        for name in self._columns:
            table.add_column(f"{_SHOWN[name][0]} / {self._units[name]}", justify="right")
            if name == "conserved":
                table.add_column("change", justify="right")
        for name, row, follower in zip(self._names, self._rows, self._followers, strict=True):
            table.add_row(*([name] if several else []), *self._cells(row, follower.first or row))
        return table

    def _cells(self, row: Mapping[str, float], first: Mapping[str, float]) -> Iterator[str]:
        for name in self._columns:
            yield format(row[name], _SHOWN[name][1]) if name in row else ""
            if name == "conserved":
                yield f"{row[name] - first[name]:+.2g}" if name in row else ""
