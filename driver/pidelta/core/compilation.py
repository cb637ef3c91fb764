"""Compiled functions, kept in the cache of numba where there is a folder for it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import numba


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """The decorator `numba.njit`, which keeps compiled code on disk if it can.

    numba looks for a folder to write to beside the source file and in the home folder, and raises an error
    where there is none: in a container, or on a cluster whose compute nodes see no home.

    Args:
        options: those of `numba.njit`, ``cache`` excepted.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
        _say_that_there_is_no_cache()
        return numba.njit(**options)(function)

    return decorate


@functools.cache
def _say_that_there_is_no_cache() -> None:
    print(
        "pidelta: compiled code cannot be kept, so each start compiles anew: set NUMBA_CACHE_DIR to a folder "
        "that can be written to",
        file=sys.stderr,
    )
