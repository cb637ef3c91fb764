"""What a report consists of: sections of numbers and pictures, the same for page, JSON and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pidelta.analysis.statistics import Mean
from pidelta.state import FloatArray


@dataclass(frozen=True)
class Number:
    """One result.

    Attributes:
        name: unique in its section, the same in every run.
        mean: value and error.
        unit: '' for pure numbers.
        expected: what theory or the ensemble says, in this unit; None where nothing says it.
        details: further columns of its row, by title.
    """

    name: str
    mean: Mean
    unit: str = ""
    expected: float | None = None
    details: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def z(self) -> float | None:
        """The deviation from what is expected in units of the error; None without either."""
        if self.expected is None or not self.mean.error > 0.0:
            return None
        return (self.mean.value - self.expected) / self.mean.error


@dataclass(frozen=True)
class Curve:
    """A line of a picture, with one standard error where it is known."""

    name: str
    x: FloatArray
    y: FloatArray
    error: FloatArray | None = None
    is_reference: bool = False


@dataclass(frozen=True)
class Mark:
    """A vertical line with a label, such as a vibration."""

    x: float
    label: str


@dataclass(frozen=True)
class Panel:
    """Curves over one axis."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Picture:
    """Panels in one file; `name` is unique in a report."""

    name: str
    caption: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Section:
    """One topic.

    Attributes:
        title: of the page.
        numbers, pictures: the results.
        remarks: how they were found, and what is missing, a line each.
    """

    title: str
    numbers: tuple[Number, ...] = ()
    pictures: tuple[Picture, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """One system of one run.

    Attributes:
        name: of the run, and of the system where there are several.
        folder: of the run, its whole path.
        system: the name of the system, '' for the only one.
        facts: about the run, names and values.
        sections: the topics.
        warnings: what does not fit together in the outputs, a line each.
    """

    name: str
    folder: Path
    system: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()
