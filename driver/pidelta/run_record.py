"""The configuration that a run began with, written beside it, so that it goes on with the same.

Each process that serves forces reads the configuration for itself, some in the middle of a run. It compares
what it has read with the record.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from pidelta.checksums import content_checksum
from pidelta.errors import SetupError
from pidelta.output_files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pidelta.config import Config
    from pidelta.ipi.simulation import Simulation

RECORD_VARIABLE = "PIDELTA_RECORD"
"""Of the environment of i-PI and its clients: where the record is of the run that started them."""
_NAME, _DEFAULT = "configuration.json", "the default"
_FREE = frozenset(
    (
        *("threads", "platform", "device", "max_iterations", "start", "properties"),
        *("warn_above", "stop_above", "save_uncertain"),
    )
)
"""Keys that change how long a run takes, what it reports, and when it warns or ends, but no force."""


def keep_configuration(simulation: Simulation, config: Config, terms: Sequence[str]) -> str:
    """Write down the configuration of a run that starts, or compare it with that of a run that goes on.

    Values are those of the file, in atomic units; of files that it names, checksums of their content, so that
    a folder may be moved.

    Args:
        simulation: what is about to run.
        config: of the run.
        terms: of the energy, that the run is about.

    Returns:
        A note; '' if there is nothing to say.

    Raises:
        SetupError: the run began with another configuration, or the record of it cannot be read.
    """
    path = record_path(simulation)
    found = {"terms": "+".join(terms), **dict(_values("", config))}
    if simulation.step > 0 and path.exists():
        _compare(path, _read(path), found, config)
        return ""
    with replacing(path) as stream:
        json.dump(found, stream, indent=1)
        stream.write("\n")
    if simulation.step == 0:
        return ""
    return f"{path.name} is new: whether the first steps had the same configuration is not known"


def record_path(simulation: Simulation) -> Path:
    """Where the record of a run is."""
    return simulation.output_path(_NAME)


def check_configuration(config: Config) -> None:
    """Compare what a process has read with the record of the run that started it, if one did.

    To be called once all files are read: what changes before is noticed.

    Raises:
        SetupError: it differs, or the record cannot be read.
    """
    if (name := os.environ.get(RECORD_VARIABLE)) is None:
        return
    expected = _read(path := Path(name))
    expected.pop("terms", None)  # a process serves some of them
    _compare(path, expected, dict(_values("", config)), config)


def _compare(path: Path, expected: Mapping[str, object], found: Mapping[str, object], config: Config) -> None:
    for key in dict.fromkeys([*found, *expected]):
        one, other = expected.get(key, _DEFAULT), found.get(key, _DEFAULT)
        if one == other:
            continue
        then, now = _shown(one), _shown(other)
        if isinstance(one, dict) and isinstance(other, dict):
            now = f"{now} with other content"
        raise SetupError(
            f"{config.path}: {key}: expected {then} as when the run began ({path.name}), found {now}; "
            "undo the edit, or start a new run from the saved state by <file mode='chk'>"
        )


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return str(value.get("file"))
    return f"{value:.10g} (atomic units)" if isinstance(value, float) else f"{value}"


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SetupError(f"{path}: expected the configuration of a run, found: {error}") from None
    if not isinstance(found, dict):
        raise SetupError(f"{path}: expected the configuration of a run, found something else")
    return found


def _values(key: str, value: object) -> Iterator[tuple[str, object]]:
    """All keys that are not as by default, with their values as JSON has them."""
    if isinstance(value, BaseModel):
        free = _FREE if getattr(value, "baseline_error", None) is not None else _FREE | {"calibration"}
        for name, field in type(value).model_fields.items():
            own = getattr(value, name)
            if name not in free and own != field.get_default(call_default_factory=True):
                yield from _values(f"{key}.{name}".lstrip("."), own)
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _values(f"{key}.{name}", each)
    elif isinstance(value, list):
        yield f"number of {key}", len(value)
        for place, each in enumerate(value):
            yield from _values(f"{key}.{place}", each)
    elif isinstance(value, Path):
        yield key, {"file": value.name, "sha256": content_checksum(value)}
    else:
        yield key, value if isinstance(value, str | int | float | None) else str(value)
