"""Files that are written whole or not at all, and files of an earlier run that are kept."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pidelta.errors import DataError


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO]:  # type: ignore[type-arg]
    """Open a file to write, which takes the place of an existing one once it is written whole.

    After an error the existing file is as it was. A device or a pipe is written to as it is.

    Args:
        path: the file; a symbolic link is followed.
        mode: ``w`` for text in UTF-8, ``wb`` for bytes.

    Raises:
        OSError: the file or its folder cannot be written to; at once, before anything is computed.
    """
    encoding = None if "b" in mode else "utf-8"
    if path.exists() and not path.is_file():
        with _named(path), path.open(mode, encoding=encoding) as stream:
            yield stream
        return
    target = path.resolve()
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(13, "may not be written to", str(path))
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with _named(path, partial):
            with partial.open(mode, encoding=encoding) as stream:
                yield stream
            if target.exists():
                partial.chmod(target.stat().st_mode)
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def check_distinct(output: Path, inputs: Iterable[Path]) -> None:
    """See that a command would not write over what it reads.

    Raises:
        DataError: the output is one of the inputs, by whatever name.
    """
    for path in inputs:
        if path.exists() and output.exists() and path.samefile(output):
            raise DataError(f"{output}: expected an output that is not read, found it among the inputs")


@contextmanager
def _named(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Let errors name the file: of a full disk Python does not know it."""
    try:
        yield
    except OSError as error:
        if error.filename in (None, str(partial)):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def back_up(path: Path) -> Path | None:
    """Rename a file as i-PI does, to ``#name#0#`` or the next free number, and return its new path.

    Without such a file nothing happens and None comes back.
    """
    if not path.exists():
        return None
    number = 0
    while (kept := path.with_name(f"#{path.name}#{number}#")).exists():
        number += 1
    return path.rename(kept)
