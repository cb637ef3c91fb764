"""Ctrl-C while processes are being started."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Let signals that stop a run wait until the block is done, and then interrupt it.

    Between the start of a process and the line that takes note of it, an interrupt would leave an orphan.
    Signals reach the main thread alone; elsewhere there is nothing to do.

    Raises:
        KeyboardInterrupt: a signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def take_note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True

    previous = {number: signal.signal(number, take_note) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt
