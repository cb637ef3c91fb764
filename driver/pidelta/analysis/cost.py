"""What a run took, kept beside its report: the CPU time of i-PI and of all clients."""

from __future__ import annotations

import json
from pathlib import Path

from pidelta.analysis.correlations import Cost
from pidelta.errors import DataError
from pidelta.output_files import replacing

FILE = "cost.json"


def read_cost(folder: Path) -> Cost | None:
    """The sum of all parts of a run; None where nobody measured them.

    Raises:
        DataError: the file is malformed.
    """
    parts = _read(folder / FILE)
    if not parts:
        return None
    return Cost(sum(seconds for _, _, seconds in parts), sum(last - first for first, last, _ in parts))


def add_cost(folder: Path, first: int, last: int, cpu_seconds: float) -> None:
    """Note what the steps from `first` to `last` took; a run that starts anew forgets what was before."""
    parts = [part for part in _read(folder / FILE) if part[0] < first]
    with replacing(folder / FILE) as stream:
        json.dump({"first_step, last_step, CPU seconds": [*parts, [first, last, cpu_seconds]]}, stream)


def _read(path: Path) -> list[tuple[int, int, float]]:
    if not path.exists():
        return []
    try:
        (rows,) = json.loads(path.read_text(encoding="utf-8")).values()
        return [(int(first), int(last), float(seconds)) for first, last, seconds in rows]
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: expected steps and CPU seconds: {error}") from error
