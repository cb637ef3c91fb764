"""Checksums of a configuration and of what it names, to see whether what goes on was begun with the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pidelta.checksums import content_checksum
from pidelta.config import Config


def configuration_digest(config: Config) -> str:
    """A checksum of what a configuration says and of the files that it names, wherever they are.

    Comments and the order of keys do not count, nor does the file that uncertain structures are written to.
    """
    if config.delta is not None:
        delta = config.delta.model_copy(update={"save_uncertain": None})
        config = config.model_copy(update={"delta": delta})
    text = json.dumps(config.model_dump(), default=_content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _content(value: object) -> str:
    """What stands for a value that JSON does not have."""
    if not isinstance(value, Path):
        raise TypeError(f"expected what JSON has, or a path, found {value!r}")
    return content_checksum(value) if value.exists() else value.name
