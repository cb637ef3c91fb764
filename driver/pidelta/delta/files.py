"""The file of a correction: one line with its schema and checksum, then tensors and plain values.

The checksum covers the schema and everything after the line, so that a file which was cut, or damaged in a
single bit, is refused. It is no signature: whoever can write the file can write the checksum.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pidelta.checksums import checksum
from pidelta.delta.base import UNITS
from pidelta.errors import ModelError
from pidelta.output_files import replacing

Content = dict[str, Any]

_OLD = b"PK"
_LONGEST_LINE = 200


def write_file(path: Path, schema: str, content: Mapping[str, Any]) -> None:
    """Write a correction; a file of this name is replaced when the new one is complete.

    Args:
        path: the file.
        schema: name and version of the kind, in ASCII.
        content: tensors and plain values, nested in mappings and sequences; `UNITS` is added.
    """
    import torch

    buffer = io.BytesIO()
    torch.save({**content, "units": UNITS}, buffer)
    payload = buffer.getvalue()
    with replacing(path, "wb") as stream:
        stream.write(f"{schema} sha256 {_digest(schema, payload)}\n".encode("ascii") + payload)


def read_file(path: Path) -> tuple[str, Content]:
    """Read and check a correction; nothing but tensors and plain values is unpickled.

    Returns:
        The schema and the content.

    Raises:
        ModelError: there is no such file, it is damaged or not a model, its units are others than `UNITS`, or
            it holds numbers that are not finite.
    """
    import torch

    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    try:
        line, found, payload = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise ModelError(f"{path}: expected a delta model ({error.strerror})") from None
    if line.startswith(_OLD):
        raise ModelError(
            f"{path}: expected a delta model with a checksum, found the old format without one: train the "
            "model again, with pidelta train"
        )
    schema, _, digest = line[:_LONGEST_LINE].decode("ascii", errors="replace").partition(" sha256 ")
    if not found or not digest:
        raise ModelError(f"{path}: expected a delta model, found a file that is not one")
    if digest != _digest(schema, payload):
        raise ModelError(f"{path}: expected content that fits its checksum, found other: the file is damaged")
    try:
        content: Any = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError):
        raise ModelError(f"{path}: expected a delta model, found a file that is not one") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a delta model, found a file that is not one")
    units = content.pop("units", None)
    if units != UNITS:
        raise ModelError(f"{path}: expected a delta model in {UNITS}, found one in {units!r}")
    for name, finite in _numbers("", content):
        if not finite:
            raise ModelError(f"{path}: expected finite numbers, found others in {name}")
    return schema, content


def models_digest(paths: Iterable[Path]) -> str:
    """Short digest of the files of a committee, whatever their order and names."""
    own = sorted(checksum(path) for path in paths)
    return hashlib.sha256("".join(own).encode()).hexdigest()[:12]


def _digest(schema: str, payload: bytes) -> str:
    return hashlib.sha256(schema.encode() + b"\n" + payload).hexdigest()


def _numbers(name: str, value: object) -> Iterator[tuple[str, bool]]:
    """Names of all tensors and floats, and whether they are finite."""
    import torch

    if isinstance(value, torch.Tensor):
        yield name, bool(torch.isfinite(value).all())
    elif isinstance(value, float):
        yield name, math.isfinite(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(f"{name}.{key}".removeprefix("."), item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(name, item)
