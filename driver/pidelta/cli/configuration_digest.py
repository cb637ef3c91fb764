"""A checksum of a configuration, to see whether what goes on was begun with the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pidelta.config import Config


def configuration_digest(config: Config) -> str:
    """A checksum of what a configuration says and of the files that it names, wherever they are.

    Comments and the order of keys do not count.
    """
    text = json.dumps(config.model_dump(), default=_content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _content(value: object) -> object:
    """What stands for a value that JSON does not have."""
    if not isinstance(value, Path):
        raise TypeError(f"expected what JSON has, or a path, found {value!r}")
    if value.is_file():
        return hashlib.sha256(value.read_bytes()).hexdigest()
    if value.is_dir():
        return {each.name: _content(each) for each in sorted(value.iterdir()) if each.is_file()}
    return value.name
