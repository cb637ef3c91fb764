"""HDF5 files that several processes read and change in turn, and that a kill leaves as they were.

HDF5 changes a file in place, and one whose writer is killed may be lost; where the disk is full it crashes.
So a copy in memory is changed, which is then written by other means, and takes the place of the file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import h5py

from pidelta.errors import DataError
from pidelta.output_files import replacing

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
                mode = "r+" if _lock_file_or_folder(self._path, stack) else "w"
                self._opened = h5py.File(
                    self._path, mode, libver=self._version, driver="core", backing_store=False, locking=False
                )
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
        """Close the file until it is needed again, with its changes.

        Raises:
            OSError: they cannot be written; the file stays as it was.
        """
        opened, changes = self._opened, self._changes
        self._opened = self._changes = None
        if opened is None:
            return
        with changes or nullcontext():
            image = None
            if changes is not None:
                opened.flush()
                image = opened.id.get_file_image()
            opened.close()
            if image is not None:
                with replacing(self._path, "wb") as stream:
                    stream.write(image)

    def discard(self) -> None:
        """Close the file as it was at the last `release`."""
        opened, changes = self._opened, self._changes
        self._opened = self._changes = None
        with changes or nullcontext():
            if opened is not None:
                opened.close()


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
