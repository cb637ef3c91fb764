"""Reading the XML of i-PI: numbers and texts of elements, and what is wrong with them in one line."""

from __future__ import annotations

import io
import math
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

from pidelta.errors import SetupError
from pidelta.ipi.transports import SOCKETS_PREFIX


def read_xml(path: Path) -> ET.Element:
    """Read an i-PI input.

    Raises:
        SetupError: the file is missing, is no well-formed XML, or holds something else.
    """
    try:
        root = ET.parse(path).getroot()
    except OSError as error:
        raise SetupError(f"{path}: cannot read the i-PI input: {error.strerror}") from error
    except ET.ParseError as error:
        line = error.position[0]
        raise SetupError(f"{path}: line {line}: expected well-formed XML, found {error}") from error
    except (ValueError, LookupError) as error:  # an encoding that nobody knows
        raise SetupError(f"{path}: expected well-formed XML, found {error}") from error
    if root.tag != "simulation":
        raise SetupError(f"{path}: expected <simulation> as the outermost element, found <{root.tag}>")
    return root


def text_of(element: ET.Element, tag: str, default: str) -> str:
    """The text of a child, or a default where there is none."""
    return (element.findtext(tag) or default).strip()


def items_of(text: str | None) -> list[str]:
    """The items of a list such as ``[ a, b ]``."""
    return [item.strip() for item in (text or "").strip().strip("[]").split(",") if item.strip()]


def to_integer(path: Path, what: str, text: str, smallest: int | None = None) -> int:
    """Turn text into an integer.

    Raises:
        SetupError: it is none, or below `smallest`.
    """
    try:
        value = int(text)
    except ValueError:
        raise SetupError(f"{path}: {what}: expected an integer, found {text!r}") from None
    if smallest is not None and value < smallest:
        raise SetupError(f"{path}: {what}: expected {smallest} or more, found {value}")
    return value


def to_number(path: Path, what: str, text: str) -> float:
    """Turn text into a number.

    Raises:
        SetupError: it is none, or not finite.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SetupError(f"{path}: {what}: expected a number, found {text!r}")
    return value


def integer_of(path: Path, element: ET.Element, tag: str, default: int, smallest: int | None = None) -> int:
    """The integer in a child, or a default where there is none; raises as `to_integer`."""
    return to_integer(path, f"<{tag}>", text_of(element, tag, str(default)), smallest)


def to_atomic(path: Path, element: ET.Element, dimension: str) -> float:
    """What turns the unit of an element into the atomic one.

    Raises:
        SetupError: i-PI does not know the unit.
    """
    from ipi.utils.units import unit_to_internal

    unit = element.get("units", "atomic_unit")
    try:
        with redirect_stdout(io.StringIO()):
            return float(unit_to_internal(dimension, unit, 1.0))
    except (TypeError, ValueError):
        raise SetupError(
            f"{path}: <{element.tag}>: expected a unit that i-PI knows, found {unit!r}"
        ) from None


def output_of(root: ET.Element) -> ET.Element:
    """What an input says of its outputs, or i-PI's default where it says nothing."""
    if (found := root.find("output")) is not None:
        return found
    from ipi.inputs.outputs import InputOutputs

    default = InputOutputs()
    default.store(InputOutputs.make_default())
    return ET.fromstring(default.write("output"))


def sockets_prefix_of(path: Path, root: ET.Element) -> str:
    """What i-PI puts before the address of a unix socket, for processes in the present folder.

    i-PI runs in the folder of its input, from which a relative one counts. Of its two names the shorter one:
    names of unix sockets are limited.
    """
    prefix = root.get("sockets_prefix", SOCKETS_PREFIX).strip()
    if os.path.isabs(prefix):
        return prefix
    folder = path.parent.resolve()
    return min((os.path.join(place, prefix) for place in (folder, os.path.relpath(folder))), key=len)


def prefix_of(element: ET.Element, default: str = "") -> str:
    """Of the outputs, or of a system; i-PI takes no spaces about it."""
    return element.get("prefix", default).strip()


def systems_of(path: Path, root: ET.Element) -> list[ET.Element]:
    """The systems of a simulation in i-PI's order, those of templates with their labels replaced.

    Raises:
        SetupError: an instance has not a value for each label, or is no well-formed XML; systems share a
            prefix, so that one would write over the files of the other.
    """
    systems = list[ET.Element]()
    for child in root:  # templates may stand before systems
        if child.tag == "system":
            systems.append(child)
        elif child.tag == "system_template":
            systems += _systems_of_template(path, child)
    prefixes = [prefix_of(system) for system in systems]
    for prefix in prefixes:
        if (count := prefixes.count(prefix)) > 1:
            found = repr(prefix) if prefix else "none"
            raise SetupError(
                f"{path}: prefix of <system>: expected one of its own for each of {len(systems)} systems, as "
                f"two would write the same files, found {found} for {count}"
            )
    return systems


def _systems_of_template(path: Path, template: ET.Element) -> Iterator[ET.Element]:
    labels = items_of(template.findtext("labels"))
    for instance in template.iterfind("instance"):
        values = items_of(instance.text)
        if len(values) != len(labels):
            raise SetupError(
                f"{path}: <instance> of <system_template>: expected {len(labels)} values, one for each "
                f"label, found {len(values)}"
            )
        for element in template.iterfind("template/system"):
            text = ET.tostring(element, encoding="unicode")
            for label, value in sorted(zip(labels, values, strict=True), reverse=True):
                text = text.replace(label, value)
            try:
                yield ET.fromstring(text)
            except ET.ParseError as error:
                raise SetupError(f"{path}: <system_template>: not well-formed: {error}") from None
