"""Reader of Slater-Koster files in the .skf format, simple and extended (``@``).

The format is described in "Format of the Slater-Koster files", Koehler, Hourahine, Aradi et al. (dftb.org).
Where it leaves a choice this reader follows DFTB+: the row k (from 1) of the table belongs to the distance
k * spacing, and one row less than the header announces is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from pidelta.errors import ParameterError
from pidelta.qm.dftb.repulsive import Repulsive, polynomial_repulsive, spline_repulsive
from pidelta.state import FloatArray

# Columns of the simple format, as (l1, l2, m) with l1 <= l2; the overlap follows the Hamiltonian.
INTEGRALS = (
    (2, 2, 0),
    (2, 2, 1),
    (2, 2, 2),
    (1, 2, 0),
    (1, 2, 1),
    (1, 1, 0),
    (1, 1, 1),
    (0, 2, 0),
    (0, 1, 0),
    (0, 0, 0),
)
# Where these stand among the 20 of the extended format, which has f orbitals too.
EXTENDED_COLUMNS = (7, 8, 9, 12, 13, 14, 15, 17, 18, 19)
_MINIMUM_ROWS = 9


@dataclass(frozen=True)
class SlaterKosterFile:
    """The content of one .skf file for the ordered pair of elements A-B, in atomic units.

    Attributes:
        spacing: distance between rows in bohr; row k (from 0) belongs to (k + 1) * spacing.
        hamiltonian, overlap: (rows, 10) integrals <A l1 m| |B l2 m> in the order of `INTEGRALS`.
        repulsive: the repulsive pair potential.
        onsite, hubbard_u, occupations: (3,) values of the s, p and d shell; None for a heteronuclear file.
    """

    spacing: float
    hamiltonian: FloatArray
    overlap: FloatArray
    repulsive: Repulsive
    onsite: FloatArray | None = None
    hubbard_u: FloatArray | None = None
    occupations: FloatArray | None = None


class _Lines:
    """The lines of a file that carry data, with their numbers for messages."""

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        lines = enumerate(text.splitlines(), start=1)
        self._lines = [(number, line) for number, line in lines if line.strip() and line.lstrip()[0] != "#"]
        self._next = 0

    def error(self, expected: str, found: str, number: int | None = None) -> ParameterError:
        where = f"{self.where}, line {number}" if number else self.where
        return ParameterError(f"{where}: expected {expected}, found {found}")

    def peek(self) -> str:
        return self._lines[self._next][1] if self._next < len(self._lines) else ""

    def skip(self) -> None:
        self._next += 1

    def numbers(self, count: int, what: str) -> list[float]:
        """Take a line and return its numbers, at least `count` of them."""
        if self._next >= len(self._lines):
            raise self.error(what, "the end of the file")
        number, line = self._lines[self._next]
        self._next += 1
        try:
            values = parse_numbers(line)
        except ValueError:
            raise self.error(what, repr(line.strip()[:40]), number) from None
        if len(values) < count:
            raise self.error(f"{what} ({count} numbers)", f"{len(values)} numbers", number)
        return values

    def find(self, keyword: str) -> bool:
        """Go to the line after the next one that is `keyword` alone; False if there is none."""
        for position in range(self._next, len(self._lines)):
            if self._lines[position][1].strip().lower() == keyword:
                self._next = position + 1
                return True
        return False


def parse_numbers(line: str) -> list[float]:
    """Split a line as Fortran's list-directed input does: commas, blanks and repetitions such as ``10*0.0``.

    Raises:
        ValueError: something on the line is not a finite number.
    """
    values: list[float] = []
    for token in line.replace(",", " ").split():
        repeat, star, value = token.rpartition("*")
        number = float(value.replace("D", "E").replace("d", "e"))
        if not math.isfinite(number):
            raise ValueError(token)
        values.extend([number] * (int(repeat) if star else 1))
    return values


def read_content(path: Path) -> bytes:
    """Return the bytes of a file of parameters.

    Raises:
        ParameterError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ParameterError(f"{path}: cannot be read: {error.strerror}") from None


def parse_skf(content: bytes, where: str, homonuclear: bool) -> SlaterKosterFile:
    """Read the content of one .skf file.

    Args:
        content: the bytes of the file.
        where: the file, for messages.
        homonuclear: whether it describes one element and so has a line of atomic parameters.

    Raises:
        ParameterError: the content is malformed; the message names the file and the line.
    """
    lines = _Lines(content.decode("utf-8", errors="replace"), where)
    extended = lines.peek().startswith("@")
    if extended:
        lines.skip()
    spacing, announced = lines.numbers(2, "the grid spacing and the number of grid points")[:2]
    rows = int(announced) - 1
    if spacing <= 0.0 or rows < _MINIMUM_ROWS:
        expected = f"a positive grid spacing and more than {_MINIMUM_ROWS} grid points"
        raise lines.error(expected, f"{spacing:g}, {announced:g}")

    atom: dict[str, FloatArray] = {}
    if homonuclear:
        shells = 4 if extended else 3
        values = lines.numbers(3 * shells + 1, "onsite energies, SPE, Hubbard U and occupations")
        starts = {"onsite": 0, "hubbard_u": shells + 1, "occupations": 2 * shells + 1}
        # The file has the highest shell first.
        atom = {name: np.array(values[start : start + shells][::-1][:3]) for name, start in starts.items()}
    polynomial = lines.numbers(10, "the mass and the polynomial repulsive")[1:10]

    width = 20 if extended else 10
    columns = list(EXTENDED_COLUMNS) if extended else list(range(10))
    table = np.array([lines.numbers(2 * width, f"row {k + 1} of {rows}")[: 2 * width] for k in range(rows)])
    hamiltonian, overlap = table[:, :width][:, columns], table[:, width:][:, columns]

    if lines.find("spline"):
        repulsive = _read_spline(lines)
    elif polynomial[8] > 0.0 and any(polynomial[:8]):
        repulsive = polynomial_repulsive(polynomial[:8], polynomial[8])
    else:
        raise lines.error("a Spline block or a polynomial repulsive", "neither")
    return SlaterKosterFile(spacing, hamiltonian, overlap, repulsive, **atom)


def _read_spline(lines: _Lines) -> Repulsive:
    intervals = int(lines.numbers(2, "the number of spline intervals and the cutoff")[0])
    if intervals < 1:
        raise lines.error("at least one spline interval", str(intervals))
    head = lines.numbers(3, "the exponential head of the repulsive")[:3]
    rows = [lines.numbers(6, "start, end and coefficients of a spline") for _ in range(intervals - 1)]
    rows.append(lines.numbers(8, "start, end and coefficients of the last spline"))
    for before, after in pairwise(rows):
        if abs(before[1] - after[0]) > 1e-8:
            raise lines.error(f"a spline interval that starts at {before[1]} bohr", f"one at {after[0]}")
    coefficients = [row[2:6] for row in rows[:-1]] + [rows[-1][2:8]]
    return spline_repulsive([row[0] for row in rows], coefficients, head, cutoff=rows[-1][1])
