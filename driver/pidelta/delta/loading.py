"""From a file to a correction, by the schema that the file names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pidelta.delta.base import Correction
from pidelta.delta.files import Content, read_file
from pidelta.errors import ModelError


def load_correction(path: Path) -> Correction:
    """Read a model file of any kind.

    Raises:
        ModelError: the file is missing, damaged, of an unknown schema, or incomplete.
    """
    schema, content = read_file(path)
    kinds = _kinds()
    if schema not in kinds:
        raise ModelError(f"{path}: expected the schema {' or '.join(map(repr, kinds))}, found {schema!r}")
    try:
        return kinds[schema](content)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ModelError(f"{path}: expected a complete model {schema!r} ({reason})") from None


def _kinds() -> Mapping[str, Callable[[Content], Correction]]:
    """What makes a correction of each schema; here, as PyTorch takes a second to import."""
    from pidelta.delta.hdnnp.model import HDNNP

    return {HDNNP.schema: HDNNP.from_content}
