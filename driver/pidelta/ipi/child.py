"""A child process with a log: how it is started, and what it died of."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_LONGEST_END = 32_768  # bytes


@dataclass
class Child:
    """A process, its name for messages, and the log of what it prints, from `log_start` in bytes."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]
    log_start: int

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        log: Path,
        folder: Path,
        *,
        append: bool,
        variables: Mapping[str, str],
    ) -> Child:
        """Start a command in a folder, in a session of its own, so that Ctrl-C does not reach it.

        Libraries get one thread each, unless the environment says otherwise: several clients share a machine.

        Args:
            name: for messages.
            command: the command.
            log: the file for all that it prints.
            folder: where it runs.
            append: whether the log goes on, or begins anew.
            variables: of its environment, besides ours.
        """
        threads = dict.fromkeys(_THREAD_VARIABLES, "1")
        environment = {**threads, "PYTHONUNBUFFERED": "1", **os.environ, **variables}
        with log.open("ab" if append else "wb") as stream:
            log_start = stream.tell()
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(name, log, process, log_start)

    def is_running(self) -> bool:
        """Tell whether it runs."""
        return self.process.poll() is None

    def wait(self, seconds: float) -> bool:
        """Wait for its end; False if it still runs after `seconds`."""
        try:
            self.process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if self.is_running():
            self.process.kill()
            self.process.wait()

    def end_of_log(self) -> str:
        """Return what it has printed, or the end of it where that is long."""
        with self.log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(self.log_start, size - _LONGEST_END))
            return stream.read().decode(errors="replace")

    def last_line(self) -> str:
        """Return the last line it has printed that is not blank, or nothing."""
        return next((line for line in reversed(self.end_of_log().splitlines()) if line.strip()), "")

    def failure(self) -> str | None:
        """Say why it failed, in one line, or None while it runs or if it ended well."""
        code = self.process.poll()
        if not code:
            return None
        if code < 0:
            return f"{self.name} was killed by signal {signal.Signals(-code).name}; see {self.log}"
        return f"{self.name}: {self.last_line() or 'no message'} (exit code {code}, log: {self.log})"
