"""What i-PI says in its log and not by its exit code: why it ended, and that it cannot go on."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LAST_WORDS = re.compile(
    r"Soft exit has been requested with message: '(.*?)\.? I-PI reports (success|a problem)"
)
_ALL_STEPS = "Exiting cleanly"
"""What it says after its last step, and where a file EXIT or its time limit ends it."""
_DEAD_THREAD = re.compile(
    r"^Exception in thread poll_.*\n(?:Traceback.*\n|[ \t].*\n)*(?P<reason>\w.*)$", re.MULTILINE
)


@dataclass(frozen=True)
class LastWords:
    """How i-PI ended: `message` says why; nothing is known where its verbosity is quiet.

    Attributes:
        message: one line.
        is_problem: whether it calls it one; the exit code is that of success.
        is_early: whether there was nothing left to do, though not all steps were done.
    """

    message: str = ""
    is_problem: bool = False
    is_early: bool = False


def last_words(log: str) -> LastWords:
    """Read how i-PI ended."""
    found = _LAST_WORDS.findall(log)
    if not found:
        return LastWords()
    message, kind = found[-1]
    is_problem = kind == "a problem"
    return LastWords(message.strip(" .#@"), is_problem, not is_problem and _ALL_STEPS not in message)


def lost_forcefield(log: str) -> str | None:
    """Say why i-PI will never hear of one of its forcefields again, or None while it listens to all.

    i-PI 3.3.1 has a thread for each forcefield, and waits for ever where that ends by an exception. One is
    that a client dies before it has read what was sent to it: the system then resets the connection.
    """
    found = _DEAD_THREAD.search(log)
    return None if found is None else found["reason"]
