"""What an i-PI input, of a run that goes on or has ended, asks i-PI to write, for each of its systems."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pidelta.errors import SetupError
from pidelta.ipi.simulation import (
    PropertiesFile,
    TrajectoryFiles,
    number_of_beads,
    output_path,
    properties_of,
    trajectories_of,
)
from pidelta.ipi.starts import names_give_masses, read_start
from pidelta.ipi.xml_input import (
    items_of,
    output_of,
    prefix_of,
    read_xml,
    systems_of,
    text_of,
    to_atomic,
    to_integer,
    to_number,
)


@dataclass(frozen=True)
class Held:
    """What of a system does not move.

    Attributes:
        momentum: whether the total momentum is kept at zero; i-PI does not where something is fixed.
        centroids: whether the centroids of ring polymers stay where they are.
        degrees: degrees of freedom of atoms: 3 times the atom, and 0, 1 or 2 for x, y or z.
    """

    momentum: bool = True
    centroids: bool = False
    degrees: tuple[int, ...] = ()


@dataclass(frozen=True)
class SystemOutputs:
    """One system of a simulation and the files that it writes.

    Attributes:
        name: its prefix in the names of files; '' for the only one.
        n_beads: of its ring polymer.
        temperature: k_B T of the ensemble in hartree, and of the springs of ring polymers; None without one,
            or where it is ramped.
        is_ramped: whether a ``t_ramp`` changes the temperature.
        keeps_temperature: whether this is an ensemble of constant temperature.
        ensemble: i-PI's mode of dynamics, such as ``nvt``; '' for other motions.
        has_bias: whether forces of a ``<bias>`` act, which i-PI leaves out of what it calls forces.
        thermostats: modes of its thermostats, such as ``pile_g``.
        has_own_covariance: whether one of these, a generalised Langevin equation, has a covariance ``<C>`` of
            its own, as quantum thermostats and PIGLET have: momenta have other temperatures then.
        drives_centroids: whether centroids have, too; PIGLET's are at the temperature.
        splitting: where thermostats act in a time step, as i-PI names it; '' for other motions than dynamics.
        held: what does not move.
        counted: what i-PI takes for held where it computes a temperature.
        frequencies: style of the frequencies of normal modes, such as ``pa-cmd``; ``rpmd`` by default.
        exchanges: whether some of its atoms are bosons.
        opens_paths: whether the paths of some atoms are open, and so no rings.
        time_step: in atomic units; None for motions without one.
        masses: those that are not of the names, in order: an atom, or -1 for all, and values in electron
            masses.
        masses_note: why these may be wrong; '' where they are not.
        properties, trajectories: the outputs.
    """

    name: str
    n_beads: int
    temperature: float | None
    is_ramped: bool
    keeps_temperature: bool
    ensemble: str
    has_bias: bool
    thermostats: tuple[str, ...]
    has_own_covariance: bool
    drives_centroids: bool
    splitting: str
    held: Held
    counted: Held
    frequencies: str
    exchanges: bool
    opens_paths: bool
    time_step: float | None
    masses: tuple[tuple[int, tuple[float, ...]], ...]
    masses_note: str
    properties: tuple[PropertiesFile, ...]
    trajectories: tuple[TrajectoryFiles, ...]

    @property
    def is_canonical(self) -> bool:
        """Whether its thermostats sample velocities at the temperature."""
        return bool(self.thermostats) and not self.has_own_covariance

    @property
    def fixed(self) -> tuple[int, ...]:
        """Degrees of freedom of atoms that do not move."""
        return self.held.degrees

    def trajectory(self, quantity: str) -> TrajectoryFiles | None:
        """The output of a quantity with the most beads, of these the smallest stride; None without one."""
        found = [trajectory for trajectory in self.trajectories if trajectory.quantity == quantity]
        return min(found, key=lambda t: (-len(t.files()), t.stride), default=None)


@dataclass(frozen=True)
class RunOutputs:
    """The outputs of a simulation.

    Attributes:
        path: the i-PI input.
        prefix: what the names of all files begin with.
        systems: at least one.
        swaps: where replica exchange writes which ensembles were exchanged; None without it.
        swap_stride: steps between attempts of a pair, on average.
        replicas: of a RESTART, whose ensembles its systems have; none where these are their own.
    """

    path: Path
    prefix: str
    systems: tuple[SystemOutputs, ...]
    swaps: Path | None
    swap_stride: float
    replicas: tuple[int, ...]


def read_outputs(path: Path) -> RunOutputs:
    """Read an i-PI input (or RESTART) for what it writes; nothing need be left to run.

    Raises:
        SetupError: the file is missing or malformed, or has no system.
    """
    root = read_xml(path)
    systems = list(systems_of(path, root))
    if not systems:
        raise SetupError(f"{path}: expected a <system>, found none")
    output = output_of(root)
    prefix = prefix_of(output, "i-pi")
    exchange = next((s for s in root.iter("smotion") if s.get("mode") == "remd"), None)
    swaps, stride, replicas = None, 0.0, list[str]()
    if exchange is not None:
        swaps = output_path(path, prefix, text_of(exchange, "remd/swapfile", "remd_idx"))
        stride = to_number(path, "<stride> of <remd>", text_of(exchange, "remd/stride", "1.0"))
        replicas = items_of(exchange.findtext("remd/repindex"))
    return RunOutputs(
        path=path,
        prefix=prefix,
        systems=tuple(_system(path, prefix, output, systems, place) for place in range(len(systems))),
        swaps=swaps,
        swap_stride=stride,
        replicas=tuple(to_integer(path, "<repindex>", text, 0) for text in replicas),
    )


def find_input(path: Path) -> Path:
    """The i-PI input that a RUN of the command line means: a file, or the only one of a folder with outputs.

    Raises:
        SetupError: there is none, or there are several.
    """
    if not path.is_dir():
        return path
    found = []
    for candidate in sorted(path.glob("*.xml")):
        try:
            outputs = read_outputs(candidate)
        except SetupError:
            continue  # some other XML
        if any(file.path.exists() for system in outputs.systems for file in system.properties):
            found.append(candidate)
    if len(found) != 1:
        names = ", ".join(candidate.name for candidate in found) or "none"
        raise SetupError(f"{path}: expected a folder with one i-PI input that has run, found {names}")
    return found[0]


def _system(
    path: Path, prefix: str, output: ET.Element, systems: Sequence[ET.Element], place: int
) -> SystemOutputs:
    system = systems[place]
    name = prefix_of(system)
    dynamics = next(system.iter("dynamics"), None)
    ensemble = "" if dynamics is None else dynamics.get("mode", "nve")
    thermostats = [] if dynamics is None else list(_thermostats(dynamics))
    modes = [element.get("mode", "") for element in thermostats]
    is_ramped = system.find(".//motion[@mode='t_ramp']") is not None
    n_beads = number_of_beads(path, system)
    temperature = None if is_ramped else _quantity(path, system, "temperature")
    held, counted = _held(path, system)
    frequencies = system.find("normal_modes/frequencies")
    masses, masses_note = _masses(path, prefix, systems, place)
    return SystemOutputs(
        name=name,
        n_beads=n_beads,
        temperature=temperature,
        is_ramped=is_ramped,
        keeps_temperature=temperature is not None and ensemble not in ("", "nve"),
        ensemble=ensemble,
        has_bias=system.find("ensemble/bias/force") is not None,
        thermostats=tuple(mode for mode in modes if mode and mode != "multi"),
        has_own_covariance=any(element.find("C") is not None for element in thermostats),
        drives_centroids=any(_drives_centroids(path, each, n_beads, temperature) for each in thermostats),
        splitting="" if dynamics is None else dynamics.get("splitting", "obabo"),
        held=held,
        counted=counted,
        frequencies="rpmd" if frequencies is None else frequencies.get("style", "rpmd"),
        exchanges=bool(items_of(system.findtext("normal_modes/bosons"))),
        opens_paths=bool(items_of(system.findtext("normal_modes/open_paths"))),
        time_step=None if dynamics is None else _quantity(path, dynamics, "timestep") or 1.0,
        masses=masses,
        masses_note=masses_note,
        properties=tuple(properties_of(path, prefix, output, name)),
        trajectories=tuple(trajectories_of(path, prefix, output, name)),
    )


def _held(path: Path, system: ET.Element) -> tuple[Held, Held]:
    """What does not move, and what i-PI takes for it in its temperatures.

    Atoms may be fixed in an input; in a RESTART i-PI has turned them into degrees of freedom. Of motions that
    are combined the dynamics counts; i-PI takes for held only what all of them hold, and never centroids.
    """
    motions = [motion for motion in system.iter("motion") if motion.get("mode") != "multi"]
    by_each = [_held_by(path, motion) for motion in motions]
    moving = zip(motions, by_each, strict=True)
    held = next((each for motion, each in moving if motion.find("dynamics") is not None), Held())
    if system.find("motion[@mode='multi']") is None:
        return held, held
    common = set.intersection(*(set(each.degrees) for each in by_each)) if by_each else set()
    return held, Held(all(each.momentum for each in by_each), False, tuple(sorted(common)))


def _held_by(path: Path, motion: ET.Element) -> Held:
    if motion.get("mode") in ("t_ramp", "p_ramp"):  # whatever the element says, i-PI takes nothing for held
        return Held(momentum=False)
    centroids = motion.find("dynamics[@mode='nvt-cc']") is not None
    momentum, degrees = fixed_by(path, motion)
    return Held(momentum, centroids, degrees)


def fixed_by(path: Path, motion: ET.Element) -> tuple[bool, tuple[int, ...]]:
    """Whether a ``<motion>`` keeps the total momentum at zero, and the degrees of freedom that it fixes.

    Raises:
        SetupError: these are no indices.
    """
    atoms = _indices(path, motion, "fixatoms")
    fixed = {3 * atom + axis for atom in atoms for axis in range(3)} | _indices(path, motion, "fixatoms_dof")
    return not fixed and text_of(motion, "fixcom", "True").lower() == "true", tuple(sorted(fixed))


def _indices(path: Path, motion: ET.Element, tag: str) -> set[int]:
    """A list in an element, or in the file that it names."""
    element, text = motion.find(tag), text_of(motion, tag, "")
    if element is None or element.get("mode", "manual") != "file":
        return {to_integer(path, f"<{tag}>", item, 0) for item in items_of(text)}
    file = path.parent / text
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path}: <{tag}>: expected a file of numbers, found {file}: {error}") from error
    items = [item for line in lines for item in line.partition("#")[0].split()]
    return {to_integer(file, f"<{tag}>", item, 0) for item in items}


def _thermostats(dynamics: ET.Element) -> list[ET.Element]:
    """The thermostats of the atoms, not of a barostat."""
    return [found for element in dynamics.iterfind("thermostat") for found in element.iter("thermostat")]


def _drives_centroids(path: Path, thermostat: ET.Element, n_beads: int, temperature: float | None) -> bool:
    """Whether noise gives centroids another temperature: not where their block of ``<C>`` is P k_B T."""
    covariance, mode = thermostat.find("C"), thermostat.get("mode")
    if covariance is None or mode == "nm_gle_g":  # which has a global thermostat for them
        return False
    *_, last = covariance.get("shape", "0").strip("() ").split(",")
    size = to_integer(path, "shape of <C>", last.strip() or "0", 0)
    items = items_of(covariance.text)[: size**2]
    if mode != "nm_gle" or temperature is None or not items or len(items) < size**2:
        return True
    block = np.array([to_number(path, "<C>", item) for item in items]).reshape(size, size)
    heat = n_beads * temperature
    return not np.allclose(
        block * to_atomic(path, covariance, "temperature"), heat * np.eye(size), atol=0.01 * heat
    )


def _masses(
    path: Path, prefix: str, systems: Sequence[ET.Element], place: int
) -> tuple[tuple[tuple[int, tuple[float, ...]], ...], str]:
    """Masses that are not those of the names, and a line where they are not known.

    A state of i-PI brings its masses along, whatever the names; labels are names without masses. Then i-PI
    itself reads the start, or, where this is gone, the RESTART of the run.
    """
    given = tuple(masses_of(path, systems[place]))
    if names_give_masses(systems[place]):
        return given, ""
    try:
        return _all_masses(path, systems[place]), ""
    except SetupError as error:
        problem = str(error)
    try:
        state = path.with_name("RESTART")
        root = read_xml(state)
        output, saved = root.find("output"), list(systems_of(state, root))
        if output is not None and prefix_of(output, "i-pi") == prefix and len(saved) == len(systems):
            return _all_masses(state, saved[place]), ""
    except SetupError:
        pass  # the start tells more of what is wrong
    return given, f"{problem}: masses are those of the elements, and so may be wrong"


def _all_masses(path: Path, system: ET.Element) -> tuple[tuple[int, tuple[float, ...]], ...]:
    return ((-1, tuple(read_start(path, system).masses.tolist())),)


def masses_of(path: Path, system: ET.Element) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Masses in the input itself, of an initialisation or in a RESTART."""
    for element in (*system.iterfind("initialize/masses"), *system.iterfind("beads/m")):
        if element.get("mode", "manual") != "manual":
            continue  # of a file
        unit = to_atomic(path, element, "mass")
        values = [unit * to_number(path, f"<{element.tag}>", text) for text in items_of(element.text)]
        yield to_integer(path, "index of <masses>", element.get("index", "-1"), -1), tuple(values)


def _quantity(path: Path, parent: ET.Element, tag: str) -> float | None:
    """A time or temperature in atomic units; None where it is not given."""
    element = next(parent.iter(tag), None)
    if element is None or not (element.text or "").strip():
        return None
    value = to_number(path, f"<{tag}>", (element.text or "").strip())
    return value * to_atomic(path, element, "time" if tag == "timestep" else tag)
