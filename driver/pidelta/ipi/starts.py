"""Where the systems of an i-PI input start: atoms, positions and cell, as i-PI will read them."""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from pidelta.errors import SetupError, StructureError
from pidelta.ipi.frames import READER_ERRORS
from pidelta.ipi.xml_input import read_xml, systems_of
from pidelta.state import FloatArray, System

_TAKEN = ("file", "positions", "masses", "labels", "cell")
"""What is looked at of <initialize>; velocities may be anything."""
_FILES = ("xyz", "pdb", "chk", "ase")
"""Modes of these that name a file."""


@dataclass(frozen=True)
class Start:
    """Where a system starts.

    Attributes:
        path: the file with the positions, for messages: the input itself where they are in it or in several.
        names: of the atoms.
        masses: (N,) in electron masses.
        positions: (B, N, 3) of the beads in bohr.
        cell: (3, 3) lattice vectors as rows in bohr.
        goes_on: whether it is a state that i-PI wrote, so that nobody chose it now.
    """

    path: Path
    names: tuple[str, ...]
    masses: FloatArray
    positions: FloatArray
    cell: FloatArray
    goes_on: bool


def read_starts(path: Path) -> tuple[Start, ...]:
    """Read, by i-PI's own code, what the systems of an i-PI input start from; equal ones are one.

    Args:
        path: the input, or a RESTART.

    Raises:
        SetupError: a file is missing, i-PI cannot start from it, or knows no mass for a name in it.
    """
    starts: dict[str, Start] = {}
    for system in systems_of(path, read_xml(path)):
        taken = _taken(system)
        text = ET.tostring(taken, encoding="unicode")
        if text not in starts:
            starts[text] = _read_start(path, taken)
    return tuple(starts.values())


def read_start(path: Path, system: ET.Element) -> Start:
    """Read where one system of an i-PI input starts; as `read_starts`."""
    return _read_start(path, _taken(system))


def names_give_masses(system: ET.Element) -> bool:
    """Whether i-PI takes masses from the names of atoms, where the input itself does not give them."""
    return all(
        element.get("mode", "chk").strip() not in ("chk", "ase")
        and element.tag != "labels"
        and (element.tag != "masses" or element.get("mode") == "manual")
        for element in _initial(system)
        if element.tag != "cell"
    )


def check_atom_order(starts: Sequence[Start], system: System) -> None:
    """Compare the atoms i-PI starts from with those of the structure.

    Names that are no element symbol, such as the ``CA`` of a PDB file, are compared as far as they can be.

    Raises:
        StructureError: the number of atoms, or the element of an atom, differs.
    """
    from ase.data import chemical_symbols

    for start in starts:
        if len(start.names) != len(system):
            raise StructureError(
                f"{start.path}: expected {len(system)} atoms as in the structure, found {len(start.names)}"
            )
        for index, (name, number) in enumerate(zip(start.names, system.numbers, strict=True)):
            expected = chemical_symbols[int(number)]
            if expected not in _possible_elements(name):
                raise StructureError(
                    f"{start.path}: the order of atoms differs from the structure: "
                    f"atom {index} (from 0): expected {expected}, found {name}"
                )


def check_start_files(path: Path, system: ET.Element) -> None:
    """See that the files in the <initialize> of a system exist.

    Raises:
        SetupError: one does not.
    """
    for element in _initial(system):
        source = _file_of(path, element)
        if source is not None and not source.is_file():
            raise SetupError(
                f"{path}: <{element.tag}> in <initialize>: expected an existing file, found {source}"
            )


def _taken(system: ET.Element) -> ET.Element:
    """The part of a system that says where it starts."""
    taken = ET.Element("system")
    for element in system:
        if element.tag in ("beads", "cell"):
            taken.append(element)
        elif element.tag == "initialize":
            part = ET.SubElement(taken, "initialize", element.attrib)
            part.extend(child for child in element if child.tag in _TAKEN)
    return taken


def _initial(system: ET.Element) -> list[ET.Element]:
    return [element for element in system.iterfind("initialize/*") if element.tag in _TAKEN]


def _file_of(path: Path, element: ET.Element) -> Path | None:
    """The file that an element of <initialize> names, if any; i-PI runs in the folder of its input."""
    mode = element.get("mode", "manual" if element.tag == "cell" else "chk").strip()
    return path.parent / (element.text or "").strip() if mode in _FILES else None


def _read_start(path: Path, system: ET.Element) -> Start:
    from pidelta.ipi.trajectories import read_names

    check_start_files(path, system)
    initial = _initial(system)
    for element in initial:
        source, mode = _file_of(path, element), element.get("mode", "").strip()
        if source is not None and element.tag != "cell" and mode in ("xyz", "pdb"):
            read_names(source, mode)  # it says better than i-PI what is wrong with a file
    sources = {_file_of(path, element) for element in initial if element.tag in ("file", "positions")}
    source = sources.pop() if len(sources) == 1 else None
    source = source or path
    beads, cell = _read_by_ipi(path, source, system)
    return Start(
        path=source,
        names=tuple(f"{name}" for name in beads.names),
        masses=np.array(beads.m, dtype=np.float64),
        positions=np.array(beads.q, dtype=np.float64).reshape(beads.nbeads, -1, 3),
        cell=np.array(cell.h, dtype=np.float64).T,
        goes_on=system.find("initialize") is None,
    )


def _read_by_ipi(path: Path, source: Path, system: ET.Element) -> tuple[Any, Any]:
    """Beads and cell as i-PI has them before the first step."""
    from ipi.engine.beads import Beads
    from ipi.engine.cell import Cell
    from ipi.inputs.beads import InputBeads
    from ipi.inputs.cell import InputCell
    from ipi.inputs.initializer import InputInitializer

    started = SimpleNamespace(beads=Beads(0, 0), cell=Cell())
    said = io.StringIO()  # which files are read, which mass is unknown
    with warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said):
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves files to the garbage collector
        try:
            for name, reader in (("beads", InputBeads()), ("cell", InputCell())):
                if (element := system.find(name)) is not None:
                    setattr(started, name, _parsed(reader, element))
            if (element := system.find("initialize")) is not None:
                initializer = _parsed(InputInitializer(), element)
                for _, item in initializer.queue:
                    if item.mode in _FILES:
                        item.value = str(path.parent / item.value)
                initializer.queue = [(what, item) for what, item in initializer.queue if what in _TAKEN]
                initializer.init_stage1(started)
            problem = ""
        except (*READER_ERRORS, OSError, AttributeError) as error:
            problem = " ".join(str(error).split()) or "it ends too early"
    if problem:
        _check_masses(path, source, started.beads)
        raise SetupError(f"{source}: i-PI cannot start from it: {problem}")
    return started.beads, started.cell


def _parsed(reader: Any, element: ET.Element) -> Any:
    from ipi.utils.io.inputs.io_xml import xml_parse_string

    reader.parse(xml_parse_string(ET.tostring(element, encoding="unicode")).fields[0][1])
    return reader.fetch()


def _check_masses(path: Path, source: Path, beads: Any) -> None:
    """i-PI takes masses from the names of atoms, which in files of other programs may be any."""
    unknown = np.flatnonzero(np.array(beads.m) <= 0.0)
    if len(unknown):
        raise SetupError(
            f"{source}: atom {unknown[0]} (from 0): expected the symbol of an element, or <masses> in "
            f"{path}, found {beads.names[unknown[0]]}, a name that i-PI knows no mass for"
        )


def _possible_elements(name: str) -> frozenset[str]:
    """Return the symbols of the elements that the atom name `name` may stand for."""
    from ase.data import chemical_symbols

    from pidelta.ipi.trajectories import number_of

    number = number_of(name)
    if number is not None:
        return frozenset({chemical_symbols[number]})
    letters = re.sub(r"[^A-Za-z].*", "", name.lstrip("0123456789"))
    return frozenset({letters[:2].capitalize(), letters[:1].upper()})
