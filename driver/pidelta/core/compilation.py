"""Compiled functions, kept on disk where there is a folder for it, as long as no source file changes."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba

_CONFIG: Any = numba.config
_PACKAGE = Path(__file__).parents[1]
_PREFIX = "compiled-"


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """The decorator `numba.njit`, which keeps compiled code on disk if it can.

    numba alone would see changes of the file of a function, but not of the files of those that it calls and
    has compiled into it: it would go on with what they were. So each state of all source files has a folder
    of its own: in ``__pycache__``, the user's cache, or NUMBA_CACHE_DIR.

    Args:
        options: those of `numba.njit`, ``cache`` excepted.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        folder, before = _folder(), _CONFIG.CACHE_DIR
        if folder is not None:
            _CONFIG.CACHE_DIR = str(folder)
            try:
                return numba.njit(cache=True, **options)(function)
            except RuntimeError as error:
                if "no locator available" not in str(error):
                    raise
            finally:
                _CONFIG.CACHE_DIR = before
        _say_that_there_is_no_cache()
        return numba.njit(**options)(function)

    return decorate


@functools.cache
def _folder() -> Path | None:
    """Where code of this state of the sources is kept; None where no folder can be written to."""
    name = _PREFIX + _state_of_sources()
    for base in _bases():
        try:
            is_new = not (base / name).is_dir()
            (base / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=base / name):
                pass
        except OSError:
            continue
        if is_new and sys.stderr.isatty():
            print("pidelta: first evaluations compile what they need, a minute or so, once", file=sys.stderr)
        if base.parent == _PACKAGE:  # elsewhere other installations may keep theirs
            for old in base.glob(f"{_PREFIX}*"):
                if old.name != name:
                    shutil.rmtree(old, ignore_errors=True)
        return base / name
    return None


def _bases() -> Iterator[Path]:
    if _CONFIG.CACHE_DIR:
        yield Path(_CONFIG.CACHE_DIR)
        return
    yield _PACKAGE / "__pycache__"
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    yield Path(cache) / "pidelta"


def _state_of_sources() -> str:
    """A digest of the names, sizes and times of all source files."""
    known = []
    for path in sorted(_PACKAGE.rglob("*.py")):
        state = path.stat()
        known.append((str(path), state.st_size, state.st_mtime_ns))
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


@functools.cache
def _say_that_there_is_no_cache() -> None:
    print(
        "pidelta: compiled code cannot be kept, so each start compiles anew: set NUMBA_CACHE_DIR to a folder "
        "that can be written to",
        file=sys.stderr,
    )
