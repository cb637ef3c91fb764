"""Time steps, temperatures and pressures of an i-PI input, which are in atomic units where it names none."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pidelta.errors import SetupError
from pidelta.ipi.xml_input import read_xml, systems_of, to_number
from pidelta.units import ATOMIC_TIME_IN_FEMTOSECOND

_KINDS = {
    "timestep": "time",
    "tau": "time",
    "temperature": "temperature",
    "t_start": "energy",
    "t_end": "energy",
    "pressure": "pressure",
    "p_start": "pressure",
    "p_end": "pressure",
}
"""The dimension that i-PI gives the number in each element; ramps have their temperatures as energies."""
_ARRAYS = ("cell", "masses", "stress", "h0")
"""Elements with several numbers, of which only the unit is looked at here."""
_INTEGRATORS = ("dynamics", "driven_dynamics", "constrained_dynamics")
_UNITS = {"time": "femtosecond", "temperature": "kelvin", "energy": "kelvin", "pressure": "bar"}
_SYMBOLS = {"time": "fs", "temperature": "K", "energy": "K", "pressure": "bar"}

_HIGHEST = {"temperature": 1.0e5, "energy": 1.0e5, "pressure": 1.0e7}
"""In K and bar: no force field knows matter beyond, and a number without its unit is far beyond."""
_USUAL_STEP = (0.05, 5.0)
"""In fs: from stiff ring polymers to the longest of multiple time steps."""
_LEAST_KELVIN = 1.0


@dataclass(frozen=True)
class _Quantity:
    """A number of the input, or several, of which only the unit is known here.

    Attributes:
        name: of its element and those around it, as in a message.
        group: what it is called where it is shown; '' where it is not.
        kind: its dimension.
        value: in the unit of `_UNITS`; nan for several numbers.
        unit: as the input names it; '' where it should and does not; None where it need not.
    """

    name: str
    group: str
    kind: str
    value: float
    unit: str | None

    def __str__(self) -> str:
        return "" if math.isnan(self.value) else f"{self.value:.3g} {_SYMBOLS[self.kind]}"


@dataclass(frozen=True)
class Conditions:
    """What the dynamics of an input are like.

    Attributes:
        text: time steps, time constants, temperatures and pressures in one line; '' without dynamics.
        warnings: what is unusual, or has no unit.
    """

    text: str
    warnings: tuple[str, ...]


def read_conditions(path: Path) -> Conditions:
    """Read time steps, temperatures and pressures of all systems.

    Args:
        path: the i-PI input, or a RESTART, which is in atomic units and names none.

    Raises:
        SetupError: one is no number, has a unit that i-PI does not know, or is beyond all reason.
    """
    found: dict[_Quantity, None] = {}
    for system in systems_of(path, read_xml(path)):
        fresh = system.find("initialize") is not None
        found.update(dict.fromkeys(_quantities(path, system, (), fresh)))
    for quantity in found:
        highest = _HIGHEST.get(quantity.kind, math.inf)
        if abs(quantity.value) > highest:
            unit = _UNITS[quantity.kind]
            hint = "" if quantity.unit else f": units='{unit}' is missing"
            raise SetupError(
                f"{path}: {quantity.name}: expected at most {highest:g} {_SYMBOLS[quantity.kind]}, "
                f"found {quantity}{hint}"
            )
    return Conditions(_text(found), tuple(f"{path}: {warning}" for warning in _warnings(found)))


def _quantities(path: Path, element: ET.Element, around: tuple[str, ...], fresh: bool) -> Iterator[_Quantity]:
    """All of an element and those in it, from the outermost on."""
    for child in element:
        tag, kind = child.tag, _KINDS.get(child.tag, "")
        mode = child.get("mode", "").strip()
        if tag in ("velocities", "momenta") and mode == "thermal":
            kind = "temperature"
        if kind:
            yield _quantity(path, child, around, kind, fresh)
        elif tag in _ARRAYS and fresh and mode in ("", "manual", "abc", "abcABC"):
            yield _Quantity(_name(tag, around), "", "", math.nan, _unit(child))
        elif tag in _INTEGRATORS and fresh and child.find("timestep") is None:
            name = f"i-PI's default of {_name('timestep', (tag,))}"
            yield _Quantity(name, "time step", "time", ATOMIC_TIME_IN_FEMTOSECOND, None)
        yield from _quantities(path, child, (tag, *around), fresh)


def _quantity(path: Path, element: ET.Element, around: tuple[str, ...], kind: str, fresh: bool) -> _Quantity:
    from ipi.utils.units import unit_to_internal

    name, unit = _name(element.tag, around), _unit(element)
    value = to_number(path, name, (element.text or "").strip())
    try:
        value *= unit_to_internal(kind, unit, 1.0) / unit_to_internal(kind, _UNITS[kind], 1.0)
    except (ValueError, TypeError, KeyError, IndexError):
        raise SetupError(
            f"{path}: {name}: expected a unit of {kind} that i-PI knows, such as {_UNITS[kind]}, "
            f"found units={unit!r}"
        ) from None
    return _Quantity(name, _group(element.tag, around), kind, value, unit if fresh and value else None)


def _name(tag: str, around: tuple[str, ...]) -> str:
    """Such as ``<tau> of <thermostat> of <barostat>``."""
    outer = [name for name in around[:2] if name in ("thermostat", "barostat")] or list(around[:1])
    return " of ".join(f"<{name}>" for name in (tag, *outer))


def _group(tag: str, around: tuple[str, ...]) -> str:
    if tag == "timestep":
        return "time step"
    if tag == "tau":
        return "tau of barostat" if around[:1] == ("barostat",) else "tau of thermostat"
    if tag in ("velocities", "momenta"):
        return "velocities"
    return "pressure" if _KINDS[tag] == "pressure" else "temperature"


def _unit(element: ET.Element) -> str:
    unit = element.get("units", "").strip()
    return "" if unit == "automatic" else unit


def _text(found: dict[_Quantity, None]) -> str:
    groups: dict[str, dict[str, None]] = {}
    for quantity in found:
        if quantity.group == "pressure" or (quantity.group and quantity.value > 0.0):
            groups.setdefault(quantity.group, {})[f"{quantity.value:.4g}"] = None
    if groups.get("velocities") == groups.get("temperature"):
        groups.pop("velocities", None)
    if "time step" not in groups:
        return ""
    symbols = {quantity.group: _SYMBOLS[quantity.kind] for quantity in found if quantity.group}
    order = ("time step", "tau of thermostat", "tau of barostat", "temperature", "velocities", "pressure")
    return "; ".join(f"{name} {', '.join(groups[name])} {symbols[name]}" for name in order if name in groups)


def _warnings(found: dict[_Quantity, None]) -> Iterator[str]:
    without = dict.fromkeys(
        f"{quantity.name} ({quantity})" if f"{quantity}" else quantity.name
        for quantity in found
        if quantity.unit == ""
    )
    if without:
        yield f"no units in {', '.join(without)}: i-PI takes atomic units"
    low, high = _USUAL_STEP
    for quantity in found:
        if quantity.group == "time step" and not low <= quantity.value <= high:
            yield f"{quantity.name}: expected {low:g} to {high:g} fs, found {quantity}"
        if quantity.kind in ("temperature", "energy") and 0.0 < quantity.value < _LEAST_KELVIN:
            yield f"{quantity.name}: expected {_LEAST_KELVIN:g} K or more, found {quantity}"
