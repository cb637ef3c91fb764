"""HDF5 files that several processes read and change in turn, and that a kill leaves as they were.

HDF5 changes a file in place, and one whose writer is killed may be lost. So a copy is changed, which then
takes the place of the file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py

from pidelta.errors import DataError
from pidelta.output_files import replacement

_PATIENCE, _PAUSE = 600.0, 0.05  # s, with a file that another process changes
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF)  # of some file systems


class ChangingFile:
    """An HDF5 file, open to read or to write when it is needed.

    Who reads sees the file as the last writer left it. One process writes at a time, others wait.

    Args:
        path: the file; it may be missing until it is first written.
        compact: whether to write as the latest version of HDF5 does, which old ones cannot read.
    """

    def __init__(self, path: Path, compact: bool) -> None:
        self._path = path
        self._version = "latest" if compact else "earliest"
        self._opened: h5py.File | None = None
        self._changes: ExitStack | None = None
        self._since = 0.0

    @property
    def content(self) -> h5py.File:
        """To read, what was written a moment ago included."""
        if self._opened is None:
            # Nobody writes into the file itself: there is nothing to wait for.
            self._opened = h5py.File(self._path, "r", locking=False)
        return self._opened

    @property
    def changed(self) -> h5py.File:
        """To write; seen by others, and safe, after `release`.

        Raises:
            DataError: another process has it for longer than ten minutes.
        """
        if self._opened is None or self._changes is None:
            self.release()
            with ExitStack() as stack:
                exists = _lock_file_or_folder(self._path, stack)
                partial = stack.enter_context(replacement(self._path))
                if exists:
                    shutil.copyfile(self._path, partial)
                mode = "r+" if exists else "w"
                self._opened = stack.enter_context(h5py.File(partial, mode, libver=self._version))
                self._changes = stack.pop_all()
            self._since = time.monotonic()
        return self._opened

    def check_writable(self) -> None:
        """See at once that changes can be written, not after hours of work.

        Raises:
            PermissionError: they cannot.
        """
        folder = self._path.resolve().parent
        for place in (folder, self._path):
            if place.exists() and not os.access(place, os.W_OK):
                raise PermissionError(13, "may not be written to", str(place))

    @property
    def age(self) -> float:
        """For how long there have been changes that nobody else sees, in seconds."""
        return 0.0 if self._changes is None else time.monotonic() - self._since

    def release(self) -> None:
        """Close the file until it is needed again, with its changes."""
        opened, changes = self._opened, self._changes
        self._opened = self._changes = None
        if changes is not None:
            changes.close()
        elif opened is not None:
            opened.close()

    def discard(self) -> None:
        """Close the file as it was at the last `release`; to be called while an error is handled."""
        changes, self._changes = self._changes, None
        if changes is None:
            self.release()
            return
        self._opened = None
        changes.__exit__(*sys.exc_info())


def _lock_file_or_folder(path: Path, stack: ExitStack) -> bool:
    """Have a file for oneself, or a folder in which it will be made; return whether there is a file."""
    while True:
        exists = path.exists()
        stack.enter_context(_alone(path if exists else path.resolve().parent))
        if path.exists() == exists:  # nobody else made it meanwhile
            return exists
        stack.close()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait for a file that others ask for in the same way, also where one of them replaces it."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            if _lock(descriptor) and os.path.samestat(os.fstat(descriptor), path.stat()):
                yield
                return
        finally:
            os.close(descriptor)
        time.sleep(_PAUSE)
    raise DataError(f"{path}: expected a file that nobody else writes, found it in use for {_PATIENCE:.0f} s")


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True
