"""A checksum of files, to tell whether what is there is what was there."""

from __future__ import annotations

import hashlib
from pathlib import Path


def checksum(*paths: Path) -> str:
    """SHA-256, in hexadecimal, of the content of files one after another, whatever their names.

    Raises:
        OSError: a file cannot be read.
    """
    found = hashlib.sha256()
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()
