"""Ends i-PI and its clients when `pidelta run` is killed: a process that waits for the end of a pipe.

The supervisor writes the number of each process, i-PI first, ``gone`` and its number where one has ended, as
others may get that number, and ``done`` once all have ended. If the pipe ends before, the supervisor is gone:
i-PI is asked to write RESTART, as by Ctrl-C, and all are ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

_IPI_SECONDS = 30.0
_CLIENT_SECONDS = 3.0
_POLL_SECONDS = 0.05
DONE, GONE = "done", "gone"


def main() -> None:
    """Watch standard input."""
    processes: list[int] = []
    for line in sys.stdin:
        word, _, number = line.strip().partition(" ")
        if word == DONE:
            return
        if word == GONE:
            processes.remove(int(number))
        else:
            processes.append(int(word))
    _end(processes[:1], signal.SIGINT, _IPI_SECONDS)
    _end(processes, signal.SIGTERM, _CLIENT_SECONDS)
    _end(processes, signal.SIGKILL, _CLIENT_SECONDS)


def _end(processes: list[int], number: signal.Signals, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for process in filter(is_running, processes):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)
    while any(map(is_running, processes)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def is_running(process: int) -> bool:
    """Tell whether a process runs; one that ended but that nobody asked about does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # that of somebody else
        return True
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    return True


if __name__ == "__main__":
    main()
