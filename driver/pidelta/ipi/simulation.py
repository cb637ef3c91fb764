"""What an i-PI input (or RESTART) file says, as far as pidelta needs it, checked before i-PI starts."""

from __future__ import annotations

import math
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pidelta.errors import SetupError
from pidelta.ipi.forcefields import read_forces
from pidelta.ipi.forces import ForceSum
from pidelta.ipi.frames import SUFFIXES
from pidelta.ipi.starts import check_start_files
from pidelta.ipi.xml_input import (
    integer_of,
    items_of,
    output_of,
    prefix_of,
    read_xml,
    sockets_prefix_of,
    systems_of,
    to_integer,
)

_CONSTANT_PRESSURE = ("npt", "nst", "scnpt")
_SHOWN = frozenset({"step", "time", "temperature", "conserved", "potential"})
_ENDLESS = ("dynamics", "driven_dynamics", "constrained_dynamics", "t_ramp", "p_ramp", "alchemy", "atomswap")
"""Motions that go on until all steps are done."""
_OF_EACH_BEAD = frozenset(
    (
        *("positions", "velocities", "momenta", "forces", "forces_spring", "Eforces", "forces_sc"),
        *("becx", "becy", "becz", "extras", "extras_bias"),
    )
)
"""Trajectories of which i-PI writes a file a bead."""


@dataclass(frozen=True)
class PropertiesFile:
    """One ``<properties>`` output file of a system."""

    path: Path
    stride: int
    columns: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """The names of the columns without their units."""
        return frozenset(re.split(r"[{(]", column)[0] for column in self.columns)


@dataclass(frozen=True)
class TrajectoryFiles:
    """One ``<trajectory>`` of a system: files that begin with `stem`, one for each bead or one in all.

    `extras` are the names of the extras that are its `quantity`, if they are to be picked out; `bead` is the
    only bead that is written, or minus the stride of beads.
    """

    stem: Path
    quantity: str
    format: str
    stride: int
    extras: tuple[str, ...] = ()
    bead: int = -1

    def files(self) -> list[Path]:
        """The files of any number of beads that are there, or the one of all beads."""
        pattern = re.compile(rf"{re.escape(self.stem.name)}(_\d+)?{re.escape(self._suffix)}")
        return sorted(path for path in self.stem.parent.iterdir() if pattern.fullmatch(path.name))

    def names(self, n_beads: int) -> list[str]:
        """The files that i-PI writes of ring polymers of `n_beads`, in the order of beads."""
        if self.quantity not in _OF_EACH_BEAD:
            return [f"{self.stem.name}{self._suffix}"]
        digits = int(1 + math.floor(math.log(n_beads) / math.log(10)))  # as i-PI: 3, not 4, for 1000 beads
        beads = [self.bead] if self.bead >= 0 else range(0, n_beads, -self.bead)
        return [f"{self.stem.name}_{bead:0{digits}d}{self._suffix}" for bead in beads]

    @property
    def _suffix(self) -> str:
        return "" if self.quantity.startswith("extras") else SUFFIXES.get(self.format, f".{self.format}")


@dataclass(frozen=True)
class Simulation:
    """The description of a simulation.

    Attributes:
        path: the i-PI input or RESTART file; i-PI runs in its folder.
        prefix: what the names of all output files begin with.
        step, total_steps: where it starts and ends.
        systems: the prefixes of their outputs, before `prefix`; one system often has none.
        n_beads: number of beads of the (first) system.
        may_end_early: whether something may be done before all steps are, as an optimisation is.
        sockets_prefix: what i-PI puts before the address of a unix socket, as seen from the present folder.
        checkpoints: what the names of checkpoint files begin with, besides RESTART.
        barostat: the element that lets the cell change, as in a message; '' where the cell stays.
    """

    path: Path
    prefix: str
    step: int
    total_steps: int
    systems: tuple[str, ...]
    n_beads: int
    may_end_early: bool
    sockets_prefix: str
    forces: ForceSum
    properties: tuple[PropertiesFile, ...]
    trajectories: tuple[TrajectoryFiles, ...]
    checkpoints: tuple[Path, ...]
    barostat: str

    @property
    def pressures(self) -> tuple[str, ...]:
        """Names of properties that are asked for and need the virial."""
        names = {name for file in self.properties for name in file.names}
        return tuple(sorted(name for name in names if name.startswith(("pressure_", "stress_", "virial_"))))

    @property
    def main_properties(self) -> PropertiesFile | None:
        """The properties file with the most of what progress and summary show."""
        return max(self.properties, key=lambda file: len(_SHOWN & file.names), default=None)

    @property
    def system_names(self) -> tuple[str, ...]:
        """What the systems are called where they are shown: by their prefixes, or else by their places."""
        return tuple(prefix or f"{place}" for place, prefix in enumerate(self.systems))

    def of_systems(self, path: Path) -> tuple[Path, ...]:
        """The files of all systems that are what `path` is of the first."""
        folder, first = self.path.parent, self.systems[0]
        name = os.path.relpath(path, folder).removeprefix(f"{first}_" if first else "")
        return tuple(folder / (f"{system}_{name}" if system else name) for system in self.systems)

    def output_path(self, name: str) -> Path:
        """Return the path of the output file `name`, with the prefix before it as i-PI does it."""
        return output_path(self.path, self.prefix, name)


def read_simulation(path: Path) -> Simulation:
    """Read an i-PI input file.

    Raises:
        SetupError: the file is missing or malformed, has nothing left to run, names a missing file or folder,
            has no forces by an ffsocket, or an ffsocket that does not say what it serves.
    """
    root = read_xml(path)
    step, total_steps = integer_of(path, root, "step", 0, 0), integer_of(path, root, "total_steps", 1000)
    if step >= total_steps:
        raise SetupError(
            f"{path}: nothing left to run: expected <total_steps> above <step> {step}, found {total_steps}"
        )
    systems = systems_of(path, root)
    if not systems:
        raise SetupError(f"{path}: expected a <system>, found none")
    beads = [number_of_beads(path, system) for system in systems]
    prefixes = tuple(prefix_of(system) for system in systems)
    output = output_of(root)
    prefix = prefix_of(output, "i-pi")
    for system in systems:
        check_start_files(path, system)
    _check_folders(path, prefix, output, prefixes)
    return Simulation(
        path=path,
        prefix=prefix,
        step=step,
        total_steps=total_steps,
        systems=prefixes,
        n_beads=beads[0],
        may_end_early=any(mode not in _ENDLESS for system in systems for mode in _motions(system)),
        sockets_prefix=sockets_prefix_of(path, root),
        forces=read_forces(path, root, systems, beads),
        properties=tuple(properties_of(path, prefix, output, prefixes[0])),
        trajectories=tuple(trajectories_of(path, prefix, output, prefixes[0])),
        checkpoints=tuple(_checkpoints(path, prefix, output)),
        barostat=next((text for system in systems for text in _barostats(system)), ""),
    )


def output_path(path: Path, prefix: str, name: str, system: str = "") -> Path:
    """Where i-PI writes `name`; files of one of several systems begin with its prefix."""
    name = f"{prefix}.{name}" if prefix else name
    return path.parent / (f"{system}_{name}" if system else name)


def _stride(path: Path, element: ET.Element) -> int:
    return to_integer(path, f"stride of <{element.tag}>", element.get("stride", "1"), 1)


def properties_of(path: Path, prefix: str, output: ET.Element, system: str = "") -> Iterator[PropertiesFile]:
    """The properties files of the system with a prefix of its own, or of the only one."""
    for element in output.iter("properties"):
        yield PropertiesFile(
            path=output_path(path, prefix, element.get("filename", "out"), system),
            stride=_stride(path, element),
            columns=tuple(items_of(element.text)),
        )


def trajectories_of(
    path: Path, prefix: str, output: ET.Element, system: str = ""
) -> Iterator[TrajectoryFiles]:
    """The trajectories of the system with a prefix of its own, or of the only one."""
    for element in output.iter("trajectory"):
        yield TrajectoryFiles(
            stem=output_path(path, prefix, element.get("filename", "traj"), system),
            quantity=re.split(r"[{(]", (element.text or "").strip())[0],
            format=element.get("format", "xyz"),
            extras=tuple(name for name in items_of(element.get("extra_type")) if name != "raw"),
            stride=_stride(path, element),
            bead=to_integer(path, "bead of <trajectory>", element.get("bead", "-1")),
        )


def _check_folders(path: Path, prefix: str, output: ET.Element, systems: Sequence[str]) -> None:
    """See that the folders of all outputs exist: i-PI makes none."""
    files = [output_path(path, prefix, "i-pi.log"), *_checkpoints(path, prefix, output)]
    for system in systems:
        files += (file.path for file in properties_of(path, prefix, output, system))
        files += (trajectory.stem for trajectory in trajectories_of(path, prefix, output, system))
    for file in files:
        if not file.parent.is_dir():
            what = f"the folder {file.parent} for {file.name}"
            raise SetupError(
                f"{path}: <output prefix={prefix!r}>: expected {what}, found none: i-PI makes no folders"
            )


def _checkpoints(path: Path, prefix: str, output: ET.Element) -> Iterator[Path]:
    for element in output.iter("checkpoint"):
        yield output_path(path, prefix, element.get("filename", "restart"))


def _barostats(system: ET.Element) -> Iterator[str]:
    for element in system.iter("dynamics"):
        if (mode := element.get("mode", "nve")) in _CONSTANT_PRESSURE:
            yield f"<dynamics mode='{mode}'>"


def _motions(system: ET.Element) -> Iterator[str]:
    """The modes of motion, those of several that are combined one by one."""
    modes = [element.get("mode", "dynamics") for element in system.iter("motion")]
    yield from (mode for mode in modes if mode != "multi")


def number_of_beads(path: Path, system: ET.Element) -> int:
    """The beads of a system.

    Raises:
        SetupError: it does not say.
    """
    for element in (*system.iterfind("initialize"), *system.iterfind("beads")):
        if "nbeads" in element.attrib:
            return to_integer(path, f"nbeads of <{element.tag}>", element.attrib["nbeads"], 1)
    raise SetupError(f"{path}: <system>: expected <initialize nbeads='...'>, found none")
