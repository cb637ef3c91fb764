"""One run a folder: i-PI always writes RESTART, so two runs would take it from each other."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from pidelta.errors import SetupError
from pidelta.ipi.watchdog import is_running

_NAME = ".pidelta-run"
_PATIENCE_SECONDS = 60.0
_RETRY_SECONDS = 0.1


class FolderLock:
    """The right to run in a folder, which ends with the processes that hold it, however they end.

    Of a run that was killed, the watchdog holds it until i-PI has ended; that is waited for.

    Args:
        folder: where i-PI runs.
        owner: what to tell others that want to run there, such as the name of the input.

    Raises:
        SetupError: another run holds it.
    """

    def __init__(self, folder: Path, owner: str) -> None:
        self._path = folder / _NAME
        self.descriptor = self._open()
        try:
            os.ftruncate(self.descriptor, 0)
            os.write(self.descriptor, f"{os.getpid()} {owner}".encode())
        except OSError as error:  # a full disk
            self.release()
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def release(self) -> None:
        """Let others run here."""
        self._path.unlink(missing_ok=True)
        os.close(self.descriptor)

    def _open(self) -> int:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid, _, owner = os.read(descriptor, 4096).decode(errors="replace").partition(" ")
                os.close(descriptor)
                if pid.isdecimal() and not is_running(int(pid)) and time.monotonic() < deadline:
                    time.sleep(_RETRY_SECONDS)
                    continue
                raise SetupError(
                    f"{self._path.parent}: expected no other run in this folder, found that of {owner} "
                    f"(process {pid})"
                ) from None
            except OSError:  # a file system without locks
                return descriptor
            if self._is_current(descriptor):
                return descriptor
            os.close(descriptor)  # its owner has just removed it

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False
