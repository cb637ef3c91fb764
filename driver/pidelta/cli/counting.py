"""Progress of work that is counted: a bar in a terminal, and lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")

_PAUSE = 60.0  # s between the lines of a log


def shown(items: Iterable[Item], title: str, count: int) -> Iterator[Item]:
    """Hand on items and show how many of them are done, how fast, and the time left, on standard error."""
    if sys.stderr.isatty():
        yield from track(items, title, count, console=Console(stderr=True))
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > _PAUSE or done == count:
            each = (now - start) / done
            left = each * (count - done)
            print(
                f"{title}: {done} of {count}, {each:.1f} s each, {left / 60:.0f} minutes left",
                file=sys.stderr,
                flush=True,
            )
            last = now
