"""The configuration that a run began with, written beside it: the run goes on with it, the report reads it.

Each process that serves forces reads the configuration for itself, some in the middle of a run. It compares
what it has read with the record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import BaseModel

from pidelta.checksums import content_checksum
from pidelta.errors import SetupError
from pidelta.ipi.simulation import output_path
from pidelta.ipi.xml_input import output_of, prefix_of, read_xml
from pidelta.output_files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pidelta.config import Config
    from pidelta.ipi.simulation import Simulation

RECORD_VARIABLE = "PIDELTA_RECORD"
"""Of the environment of i-PI and its clients: where the record is of the run that started them."""
RECORD = "configuration.json"
"""The usual name of a record."""
_DEFAULT = "the default"
_NO_FILES: Mapping[str, Path] = MappingProxyType({})
_PLACE = "path of the configuration"
"""Said for those that look for it later: the same configuration may lie elsewhere."""
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
    place = os.path.relpath(config.path.resolve(), path.parent.resolve())
    found = {_PLACE: place, "terms": "+".join(terms), **recorded_values(config)}
    if simulation.step > 0 and path.exists():
        if difference := _difference(path, _read(path), found, config):
            advice = "undo the edit, or start a new run from the saved state by <file mode='chk'>"
            raise SetupError(f"{difference}; {advice}")
        return ""
    write_record(path, found)
    if simulation.step == 0:
        return ""
    return f"{path.name} is new: whether the first steps had the same configuration is not known"


def record_path(simulation: Simulation) -> Path:
    """Where the record of a run is."""
    return simulation.output_path(RECORD)


def record_beside(input_file: Path) -> Path:
    """Where the record is of the run of an i-PI input.

    Raises:
        SetupError: the input is missing or malformed.
    """
    return output_path(input_file, prefix_of(output_of(read_xml(input_file)), "i-pi"), RECORD)


def recorded_values(section: BaseModel, key: str = "") -> dict[str, object]:
    """What a record has of a configuration, or of a section of it.

    Args:
        section: as it was read, in atomic units; the files that it names are read now.
        key: of the section, as ``delta``; '' for a whole configuration.

    Returns:
        Values by key, such as ``mm.cutoff``, but for those that are as by default; of a file its name and the
        checksum of its content.
    """
    return dict(_values(key, section))


def write_record(path: Path, values: Mapping[str, object]) -> None:
    """Write a record. Processes that are started with its path as `RECORD_VARIABLE` compare with it.

    Args:
        path: of the record.
        values: as `recorded_values` gives them.
    """
    with replacing(path) as stream:
        json.dump(values, stream, indent=1)
        stream.write("\n")


def check_configuration(
    config: Config, record: Path | None = None, files: Mapping[str, Path] = _NO_FILES
) -> None:
    """Compare what a process has read with the record of its run.

    To be called once all files are read: what changes before is noticed.

    Args:
        config: what was read.
        record: of the run; by default that of the run that started this process, if one did.
        files: the files of sections that are not in that of the configuration, such as ``delta``.

    Raises:
        SetupError: it differs, or the record cannot be read.
    """
    if record is None:
        if (name := os.environ.get(RECORD_VARIABLE)) is None:
            return
        record = Path(name)
    expected = _read(record)
    expected.pop("terms", None)  # a process serves some of them
    if difference := _difference(record, expected, recorded_values(config), config, files):
        raise SetupError(f"{difference}; undo the edit")


def recorded_path(input_file: Path, prefix: str) -> Path | None:
    """The configuration that a run began with; None where nothing tells, or where it is no longer.

    Args:
        input_file: of the run.
        prefix: of its outputs.
    """
    record = output_path(input_file, prefix, RECORD)
    place = _read(record).get(_PLACE) if record.exists() else None
    found = record.parent.resolve() / place if isinstance(place, str) else None
    return found if found is not None and found.is_file() else None


def other_configuration(input_file: Path, prefix: str, config: Config) -> str:
    """How a configuration differs from the one that a run began with; '' where it does not, or nobody knows.

    Args:
        input_file, prefix: as in `recorded_path`.
        config: to compare; the terms of the run do not count.
    """
    record = output_path(input_file, prefix, RECORD)
    if not record.exists():
        return ""
    expected = {key: value for key, value in _read(record).items() if key != "terms"}
    difference = _difference(record, expected, recorded_values(config), config)
    return f"{difference}: is that of the run another file, to be given with --config?" if difference else ""


def _difference(
    path: Path,
    expected: Mapping[str, object],
    found: Mapping[str, object],
    config: Config,
    files: Mapping[str, Path] = _NO_FILES,
) -> str:
    """A line on the first key whose values differ; '' where none does."""
    for key in dict.fromkeys([*found, *expected]):
        one, other = expected.get(key, _DEFAULT), found.get(key, _DEFAULT)
        if one == other or key == _PLACE:
            continue
        then, now = _shown(one), _shown(other)
        if isinstance(one, dict) and isinstance(other, dict):
            now = f"{now} with other content"
        file = files.get(key.partition(".")[0], config.path)
        return f"{file}: {key}: expected {then} as when the run began ({path.name}), found {now}"
    return ""


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
