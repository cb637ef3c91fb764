"""What has changed in an i-PI input since it saved a state, from which i-PI would go on without a word.

A state holds the whole input in atomic units. Both are read by the input classes of i-PI, which know all
elements, their units and their defaults.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pidelta.errors import SetupError
from pidelta.ipi.outputs import fixed_by, masses_of
from pidelta.ipi.simulation import number_of_beads
from pidelta.ipi.xml_input import items_of, read_xml, systems_of, to_integer

_ROUNDING = 1e-6
_DYNAMIC = frozenset(
    (
        *("step", "total_steps", "beads", "cell", "initialize", "state", "eens", "time", "ethermo", "s"),
        *("ebaro", "p", "h0", "current_step", "plumed_step", "repindex", "seed", "@threaded"),
    )
)
"""What changes while i-PI runs, is read at the very start alone, or may change; attributes begin with @."""
_TECHNICAL = frozenset(
    (
        *("@safe_stride", "@verbosity", "@floatformat", "@sockets_prefix", "@threading", "@stride", "@flush"),
        *("@overwrite", "@matching", "total_time", "latency", "timeout", "address", "port", "slots"),
        *("exit_on_disconnect", "max_workers", "consolidate_messages", "batch_size"),
    )
)
"""What changes neither the physics nor what is written, but for how often."""
_DYNAMICS = ("dynamics", "driven_dynamics", "t_ramp", "p_ramp")
_EXCHANGED = ("temperature", "pressure", "stress", "bias_weights", "hamiltonian_weights")
_RAMPS = {"t_ramp": "temperature", "p_ramp": "pressure"}
_FILLED = frozenset(["weights", "bias_weights", "hamiltonian_weights", "nmts"])
"""Lists that i-PI fills with ones where the input has none."""
_NONE = "none"


@dataclass(frozen=True)
class _Value:
    """The value of an element or attribute, in atomic units.

    Attributes:
        value: a number, a text, a truth value, an array of these or a dictionary.
        is_given: whether the file says it.
        unit, factor: the unit of the file, and what turns it into the atomic one.
    """

    value: Any
    is_given: bool
    unit: str = ""
    factor: float = 1.0

    def shown(self, like: _Value) -> str:
        """In the unit of another value; what is not in the file is none, or its default."""
        if not self.is_given:
            has_default = self.value is not None and not isinstance(self.value, np.ndarray | Mapping)
            return f"the default {self.value}" if has_default and self.value != _NONE else _NONE
        if isinstance(self.value, np.ndarray | float):
            numbers = np.ravel(self.value)
            is_real = numbers.dtype.kind == "f"
            text = ", ".join(f"{each / like.factor:.7g}" if is_real else str(each) for each in numbers)
            text = text if isinstance(self.value, float) else f"[ {text} ]"
            return f"{text} {like.unit}".strip()
        return " ".join(str(self.value).split())


def check_unchanged(path: Path, state: Path) -> list[str]:
    """Compare an input with a state that it saved.

    Returns:
        Notes, a line each: changes that matter little, and that i-PI will not see.

    Raises:
        SetupError: an element differs that i-PI would ignore and that changes what is simulated or written;
            or one of the files is no input of i-PI.
    """
    new, old = read_xml(path), read_xml(state)
    advice = "undo the edit, or start a new run from the saved state by <file mode='chk'>"

    def refuse(what: str, expected: object, found: object) -> SetupError:
        return SetupError(
            f"{path}: --restart: {what}: expected {expected} as in {state.name}, found {found}; {advice}"
        )

    systems, saved = systems_of(path, new), systems_of(state, old)
    if len(systems) != len(saved):
        raise refuse("<system>", f"{len(saved)} systems", len(systems))
    for system, before in zip(systems, saved, strict=True):
        beads, was = number_of_beads(path, system), number_of_beads(state, before)
        if beads != was:
            raise refuse("nbeads of <initialize>", was, beads)
        if (masses := _changed_mass(path, system, state, before)) is not None:
            raise refuse("<masses>", *masses)
    _undo_exchanges(state, old, systems)
    modes = {motion.get("mode") for motion in old.iter("motion")}
    ramped = {quantity for mode, quantity in _RAMPS.items() if mode in modes}
    floats = old.get("floatformat", "%16.8e")
    expected, found = _values(state, old, saved), _values(path, new, systems)
    notes = []
    for place in dict.fromkeys([*found, *expected]):
        one, other = expected.get(place, _Value(_NONE, False)), found.get(place, _Value(_NONE, False))
        outer, name = ("", *place)[-2:]
        if (outer == "ensemble" and name in ramped) or _are_equal(name, one, other, floats):
            continue
        what, like = _named(place), other if other.is_given else one
        if name not in _TECHNICAL and not (name == "@mode" and outer.startswith("ffsocket")):
            raise refuse(what, one.shown(like), other.shown(like))
        notes.append(
            f"{path}: {what}: i-PI goes on with {one.shown(like)} as in {state.name}, not {other.shown(like)}"
        )
    return notes


def _named(place: tuple[str, ...]) -> str:
    """``<timestep> of <dynamics>``, or the attribute of an element."""
    *_, outer, name = ("simulation", *place)
    if name.startswith("@"):
        return f"{name[1:]} of <{outer}>"
    return f"<{name}> of <{outer}>"


def _changed_mass(path: Path, system: ET.Element, state: Path, before: ET.Element) -> tuple[str, str] | None:
    """The first mass that an input gives and that the state does not have, both in electron masses."""
    saved = np.array([mass for _, masses in masses_of(state, before) for mass in masses])
    if any(element.get("mode", "manual") != "manual" for element in system.iterfind("initialize/masses")):
        return None
    for index, masses in masses_of(path, system):
        there = saved if index < 0 else saved[index : index + 1]
        for expected, found in zip(there, masses, strict=False):
            if abs(expected - found) > _ROUNDING * abs(expected):
                return f"{expected:.7g} electron masses", f"{found:.7g}"
    return None


def _undo_exchanges(state: Path, root: ET.Element, systems: list[ET.Element]) -> None:
    """Give each system of an input the ensemble that replica exchange has brought it in the state."""
    items = items_of(root.findtext("smotion/remd/repindex"))
    replicas = [to_integer(state, "<repindex>", item, 0) for item in items]
    if sorted(replicas) != list(range(len(systems))):
        return
    ensembles = [element for system in systems for element in system.iterfind("ensemble")]
    if len(ensembles) != len(systems):
        return
    own = [[child for child in ensemble if child.tag in _EXCHANGED] for ensemble in ensembles]
    for ensemble, children, replica in zip(ensembles, own, replicas, strict=True):
        for child in children:
            ensemble.remove(child)
        ensemble.extend(own[replica])


def _values(path: Path, root: ET.Element, systems: Iterable[ET.Element]) -> dict[tuple[str, ...], _Value]:
    """All that an input or a state says of what does not change, by the elements that hold it.

    Raises:
        SetupError: i-PI would not read it.
    """
    from ipi.inputs.simulation import InputSimulation
    from ipi.utils.io.inputs.io_xml import xml_parse_string

    whole = ET.Element("simulation", root.attrib)
    whole.extend(child for child in root if child.tag not in ("system", "system_template"))
    whole.extend(systems)
    for parent in list(whole.iter()):
        for child in list(parent):
            if child.tag in ("beads", "cell", "initialize", "state"):
                parent.remove(child)
            elif child.get("mode") == "file":  # its name counts from the folder that i-PI runs in
                child.text = str(path.parent.resolve() / (child.text or "").strip())
    for motion in whole.iter("motion"):
        _say_what_is_fixed(path, motion)
    parsed = InputSimulation()
    try:
        with redirect_stdout(io.StringIO()):
            parsed.parse(xml_parse_string(ET.tostring(whole, encoding="unicode")).fields[0][1])
            return dict(_walk(parsed, ()))
    except (ValueError, NameError, TypeError, KeyError, OSError) as error:
        message = " ".join(str(error).split())
        raise SetupError(f"{path}: expected an input that i-PI reads, found: {message}") from None


def _say_what_is_fixed(path: Path, motion: ET.Element) -> None:
    """Write what is fixed as i-PI does in a state: degrees of freedom, and then no fixed momentum."""
    if motion.get("mode") == "multi":
        return
    fixes_momentum, fixed = fixed_by(path, motion)
    for tag in ("fixcom", "fixatoms", "fixatoms_dof"):
        for child in motion.findall(tag):
            motion.remove(child)
    if motion.get("mode") in _RAMPS:  # which fix nothing, whatever an input says
        return
    ET.SubElement(motion, "fixcom").text = str(fixes_momentum)
    if fixed:
        ET.SubElement(motion, "fixatoms_dof").text = f"[ {', '.join(map(str, fixed))} ]"


def _walk(node: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], _Value]]:
    """All values below an object of i-PI's input classes."""
    from ipi.utils.inputvalue import InputArray, InputAttribute

    own = place[-1] if place else ""
    if isinstance(node, InputAttribute) and not own.startswith("checkpoint"):
        yield place, _value_of(node)
    # units are in the values, and an array may come from a file or not
    skipped = {"units", "shape", "mode"} if isinstance(node, InputArray) else {"units"}
    for name in node.attribs:
        if name not in skipped and f"@{name}" not in _DYNAMIC:
            yield (*place, f"@{name}"), _value_of(getattr(node, name))
    for name in node.instancefields:
        if name not in _DYNAMIC and (_is_compared(name) or not own.startswith("motion")):
            yield from _walk(getattr(node, name), (*place, name))
    seen: dict[str, int] = {}
    for tag, child in node.extra:
        key = _key(tag, child)
        seen[key] = seen.get(key, 0) + 1
        yield from _walk(child, (*place, key if seen[key] == 1 else f"{key} {seen[key]}"))


def _is_compared(name: str) -> bool:
    """Of motions that search, i-PI keeps how far they are among the options."""
    return name in _DYNAMICS or name in ("fixcom", "fixatoms_dof")


def _key(tag: str, node: Any) -> str:
    """An element that may stand several times, by what tells it from others."""
    for name in ("name", "filename", "forcefield"):
        if name in node.attribs and (value := str(getattr(node, name).value or "").strip()):
            return f"{tag} {name}='{value}'"
    return tag


def _value_of(node: Any) -> _Value:
    from ipi.utils.units import unit_to_internal

    value, dimension = node.value, getattr(node, "_dimension", "undefined")
    unit = "" if dimension == "undefined" else str(node.units.value)
    if isinstance(value, float | np.ndarray) and unit:
        factor = float(unit_to_internal(dimension, unit, 1.0))
        return _Value(value * factor, node._explicit, unit if unit != "automatic" else "", factor)
    return _Value(value, node._explicit)


def _are_equal(name: str, one: _Value, other: _Value, floats: str) -> bool:
    """Whether the value of a state is that of an input, as the state writes numbers."""
    a, b = one.value, other.value
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        keys = (a.keys() | b.keys()) - ({"verbosity"} - b.keys())  # i-PI tells an ffdirect how much to say
        return all(str(a.get(key)).strip() == str(b.get(key)).strip() for key in keys)
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        a, b = np.ravel(a), np.ravel(b)
        if name in _FILLED and not b.size:
            return bool((a == 1).all())
        if a.shape != b.shape:
            return False
        if a.dtype.kind not in "fiu" or b.dtype.kind not in "fiu":
            return [str(item).strip() for item in a] == [str(item).strip() for item in b]
    elif not (isinstance(a, float) and isinstance(b, float)):
        return " ".join(str(a).split()) == " ".join(str(b).split())
    written = np.array([float(floats % number) for number in np.ravel(b)])
    return any(
        np.allclose(np.ravel(a), numbers, rtol=_ROUNDING, atol=0.0, equal_nan=True)
        for numbers in (np.ravel(b), written)
    )
