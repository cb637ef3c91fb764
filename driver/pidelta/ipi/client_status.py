"""What a client says of its work in a file while a run goes on, for the supervisor to read."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pidelta.ipi.observers import Alarm, Observer
from pidelta.state import Evaluation, FloatArray

STATUS_VARIABLE = "PIDELTA_STATUS"
"""Of the environment of i-PI: where the forcefields in its own process keep their status."""
_SECONDS = 1.0


@dataclass(frozen=True)
class ClientStatus:
    """How many structures a client has evaluated, and what it has seen of the uncertainty, by property."""

    structures: int = 0
    alarms: Mapping[str, Alarm] = field(default_factory=dict)


class StatusFile(Observer):
    """Keeps the status of a client in a file, not older than about a second.

    Args:
        path: the file.
        alarms: those of an `UncertaintyMonitor`, which goes before this observer.
    """

    def __init__(self, path: Path, alarms: Mapping[str, Alarm]) -> None:
        self._path = path
        self._alarms = alarms
        self._structures = 0
        self._written = -math.inf

    def after(self, positions: FloatArray, cells: FloatArray | None, evaluation: Evaluation) -> None:
        """Count the structures."""
        self._structures += len(positions)
        if time.monotonic() - self._written > _SECONDS:
            self.write()

    def write(self) -> None:
        """Replace the file at once, so that nobody reads half of it; a full disk does not end a run."""
        self._written = time.monotonic()
        draft = self._path.with_suffix(".draft")
        with contextlib.suppress(OSError):
            draft.write_text(
                json.dumps(asdict(ClientStatus(self._structures, self._alarms))), encoding="utf-8"
            )
            draft.replace(self._path)


def read_status(path: Path) -> ClientStatus:
    """Read what a `StatusFile` holds; of a client that has not written yet, nothing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        alarms = {name: Alarm(**values) for name, values in content["alarms"].items()}
        return ClientStatus(int(content["structures"]), alarms)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return ClientStatus()


def direct_status_path(common: Path, number: int) -> Path:
    """The file of one of several forcefields in one process.

    Args:
        common: what `STATUS_VARIABLE` holds.
        number: from 0, in the order in which i-PI makes them.
    """
    return common.with_suffix(f".{number}{common.suffix}")
