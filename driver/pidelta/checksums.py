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


def content_checksum(path: Path) -> str:
    """Of a file, or of a folder of Slater-Koster files with their names; of nothing where neither is."""
    if path.is_file():
        return checksum(path)
    files = [each for each in sorted(path.glob("*.skf")) if each.is_file()]
    return hashlib.sha256(b"".join(each.name.encode() + each.read_bytes() for each in files)).hexdigest()
