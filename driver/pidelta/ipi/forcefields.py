"""Which terms of the energy the forcefields of an i-PI input serve, and whether they add up to the whole.

What an ``<ffsocket>`` or an ``<ffdirect>`` of pidelta serves is said by its ``<parameters>``, as in
``{terms: low+delta}``, or by a name made of terms alone, or of parts of terms such as ``mm.bonded``. Any
other name stands for the whole energy, but for a name that looks like terms: one with a +, or whose letters
are those of terms or one typing error away from them. i-PI hands parameters over to clients, in INIT, and to
the class of an ffdirect; the latter does not learn the name, so that it needs parameters in any case.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pidelta.errors import SetupError
from pidelta.ipi.protocol import read_parameters
from pidelta.ipi.served import member_of, served_by_socket, terms_in_name
from pidelta.ipi.transports import MODES
from pidelta.ipi.xml_input import integer_of, items_of, read_xml, text_of, to_integer, to_number
from pidelta.state import common_terms, parse_terms, smallest_parts, terms_beyond

DEFAULT_CONFIG = "pidelta.yaml"
_ROUNDING = 1e-6
_NAME_OF_PES = re.compile(r"""^__DRIVER_NAME__ *= *["']pidelta["']""", re.MULTILINE)
_COMMITTEES = ("ffcommittee", "ffrotations")


@dataclass(frozen=True)
class ForceSource:
    """A forcefield by which pidelta serves some terms (None: all), of one delta model or (None) of all."""

    name: str
    batch_size: int
    terms: frozenset[str] | None
    member: int | None


@dataclass(frozen=True)
class ForceSocket(ForceSource):
    """One ``<ffsocket>``: where i-PI listens."""

    mode: str
    address: str
    port: int


@dataclass(frozen=True)
class DirectForce(ForceSource):
    """One ``<ffdirect>`` of pidelta, which i-PI calls in its own process.

    Attributes:
        config: the configuration that it reads.
        threaded: whether i-PI calls it in a thread; if not, a batch waits until it is full.
    """

    config: Path
    threaded: bool


@dataclass(frozen=True)
class Force:
    """One ``<force>`` of a system.

    Attributes:
        forcefield: the name of what it evaluates.
        weight: its factor in the total energy, those of all time steps added up.
        weighted: whether the input gives it a weight other than 1.
        n_beads: the number of beads it is evaluated on.
        kept_extras: names of its extras that reach the outputs, None for all: on fewer beads than the system
            has i-PI keeps those that it interpolates.
    """

    forcefield: str
    weight: float
    weighted: bool
    n_beads: int
    kept_extras: frozenset[str] | None = None


@dataclass(frozen=True)
class CommitteeForce:
    """One ``<ffcommittee>``, whose energy is the mean of its members, besides that of a baseline.

    Attributes:
        name: its own.
        baseline: the name of the forcefield that the others correct; '' for none.
        members: the names of the others, those of other programs among them.
        reads_members: whether several members may be in the extras of one forcefield (``<parse_json>``).
        weighted: whether there are ``<weights>``.
    """

    name: str
    baseline: str
    members: tuple[str, ...]
    reads_members: bool
    weighted: bool

    def __str__(self) -> str:
        return f"<ffcommittee name={self.name!r}>"


@dataclass(frozen=True)
class ForceSum:
    """The forces of a simulation.

    Attributes:
        sources: what pidelta serves of the forcefields that the systems use, on their own or in a committee.
        shares: by name of a forcefield, the sources it stands for with their factors: itself, or its members
            for a committee.
        systems: the forces of each system.
        committees: those that the systems use.
    """

    sources: tuple[ForceSource, ...]
    shares: Mapping[str, Mapping[str, float]]
    systems: tuple[tuple[Force, ...], ...]
    committees: tuple[CommitteeForce, ...] = ()

    @property
    def sockets(self) -> tuple[ForceSocket, ...]:
        """The sources that clients connect to."""
        return tuple(source for source in self.sources if isinstance(source, ForceSocket))

    @property
    def directs(self) -> tuple[DirectForce, ...]:
        """The sources that work in the process of i-PI."""
        return tuple(source for source in self.sources if isinstance(source, DirectForce))

    def structures(self, source: ForceSource) -> int:
        """Structures that one evaluation of all forces asks of a source: the beads of all its systems."""
        return sum(
            force.n_beads
            for forces in self.systems
            for force in forces
            if source.name in self.shares.get(force.forcefield, {})
        )

    def served(self, source: ForceSource, terms: Sequence[str]) -> list[str]:
        """What a source serves of the terms of a configuration, or parts of these, in their order."""
        return list(terms) if source.terms is None else common_terms(terms, source.terms)

    def check(self, source: object, terms: Sequence[str]) -> list[str]:
        """Check that the forces of each system add up to each term once.

        Args:
            source: the input, for messages.
            terms: those that the energy is meant to have.

        Returns:
            What the weights of the input make of terms that do not count once.

        Raises:
            SetupError: a term is served never, or twice without weights that say so, or a source serves one
                that the energy does not have.
        """
        for each in self.sources:
            if unknown := terms_beyond(each.terms or (), terms):
                raise SetupError(
                    f"{source}: forcefield {each.name!r}: expected terms among {', '.join(terms)}, "
                    f"found {', '.join(unknown)}"
                )
        notes: dict[str, None] = {}
        for forces in self.systems:
            notes |= dict.fromkeys(self._check_system(source, forces, terms))
        return list(notes)

    def _check_system(self, source: object, forces: Sequence[Force], terms: Sequence[str]) -> Iterable[str]:
        for term in terms:
            serving = {part: self._serving(forces, part, terms) for part in smallest_parts([term])}
            first = next(iter(serving.values()))
            if all(each == first for each in serving.values()):
                serving = {term: first}
            for name, counted in serving.items():
                yield from _check_count(source, terms, name, counted)

    def _serving(
        self, forces: Sequence[Force], part: str, terms: Sequence[str]
    ) -> list[tuple[Force, str, float]]:
        """The forces and sources that serve a term or a part of one, with their factor in the energy."""
        by_name = {each.name: each for each in self.sources}
        return [
            (force, name, force.weight * share)
            for force in forces
            for name, share in self.shares.get(force.forcefield, {}).items()
            if part in smallest_parts(self.served(by_name[name], terms))
        ]


def _check_count(
    source: object, terms: Sequence[str], term: str, serving: Sequence[tuple[Force, str, float]]
) -> Iterable[str]:
    if not serving:
        raise SetupError(
            f"{source}: <forces>: expected each of {', '.join(terms)} once, found none that serves "
            f"{term}; a run without it is asked for by --terms"
        )
    total = sum(factor for _, _, factor in serving)
    if abs(total - 1.0) < _ROUNDING:
        return
    if not any(force.weighted for force, _, _ in serving):
        names = ", ".join(dict.fromkeys(name for _, name, _ in serving))
        raise SetupError(
            f"{source}: <forces>: expected each of {', '.join(terms)} once, found {term} "
            f"{total:g} times, by {names}"
        )
    yield f"the weights of the forces count {term} {total:g} times"


def read_forces(
    path: Path, root: ET.Element, systems: Sequence[ET.Element], beads: Sequence[int]
) -> ForceSum:
    """Read the forcefields of an i-PI input and the forces of its systems.

    Args:
        path: of the input, for messages.
        root: the whole input.
        systems: its systems, templates written out.
        beads: the number of beads of each.

    Raises:
        SetupError: no force uses pidelta, a name is missing, taken or unknown, or a number is none; a
            forcefield does not say what it serves, or waits for a batch that never fills.
    """
    elements = [element for element in root if element.tag.startswith("ff")]
    known = [element.get("name", "").strip() for element in elements]
    for name in known:
        if known.count(name) > 1:  # i-PI takes the last one
            raise SetupError(f"{path}: expected a name of its own for each forcefield, found {name!r} twice")
    forces = tuple(
        tuple(_read_systems_forces(path, system, n_beads, known))
        for system, n_beads in zip(systems, beads, strict=True)
    )
    used = {force.forcefield for system in forces for force in system}
    members = {
        name: list(_read_sources(path, element))
        for name, element in zip(known, elements, strict=True)
        if name in used
    }
    sources = tuple(source for found in members.values() for source in found)
    if not sources:
        over_mpi = any(element.tag == "ffmpi" for element in elements)
        raise SetupError(
            f"{path}: expected an <ffsocket> for pidelta to connect to, or an <ffdirect> of it, found "
            + (f"an <ffmpi>, which mpirun starts: {_over_mpi(path)}" if over_mpi else "none in <forces>")
        )
    names = frozenset(source.name for source in sources)
    shares = {
        name: _shares(element, names)
        for name, element in zip(known, elements, strict=True)
        if members.get(name)
    }
    committees = tuple(
        _read_committee(element)
        for name, element in zip(known, elements, strict=True)
        if name in used and element.tag == "ffcommittee"
    )
    found = ForceSum(sources, shares, forces, committees)
    _check_addresses(path, found.sockets)
    _check_batches(path, found)
    return found


def _over_mpi(path: Path) -> str:
    return (
        f"mpirun -n 1 i-pi {path.name} : -n 2 i-pi-driver-py --mpi -m custom "
        f"-P $(pidelta ffdirect-path) -o config={DEFAULT_CONFIG}"
    )


def _check_addresses(path: Path, sockets: Sequence[ForceSocket]) -> None:
    places = [(s.mode == "inet", s.address, s.port if s.mode == "inet" else 0) for s in sockets]
    for socket, place in zip(sockets, places, strict=True):
        if places.count(place) > 1:
            raise SetupError(
                f"{path}: expected an address of its own for each ffsocket, found {socket.address} twice"
            )


def _check_batches(path: Path, forces: ForceSum) -> None:
    """Without a thread, i-PI waits for ever for the structures that a batch lacks."""
    for direct in forces.directs:
        structures = forces.structures(direct)
        if not direct.threaded and structures % direct.batch_size:
            raise SetupError(
                f"{path}: <batch_size> of <ffdirect name={direct.name!r}>: expected a divisor of the "
                f"{structures} structures of a step, or threaded='true', found {direct.batch_size}"
            )


def _read_sources(path: Path, element: ET.Element) -> Iterator[ForceSource]:
    """The sources of pidelta in a forcefield, itself or its members."""
    for child in element.iter():
        if child.tag == "ffsocket":
            yield _read_socket(path, child)
        elif child.tag == "ffdirect" and _is_of_pidelta(path, child):
            yield _read_direct(path, child)


def _read_systems_forces(
    path: Path, system: ET.Element, n_beads: int, known: Sequence[str]
) -> Iterator[Force]:
    elements = list(system.iterfind("forces/force"))
    if not elements:
        raise SetupError(f"{path}: <system>: expected <forces> with a <force>, found none")
    factors = items_of(system.findtext("ensemble/hamiltonian_weights"))  # of replica exchange
    for index, element in enumerate(elements):
        name = element.get("forcefield", "").strip()
        if name not in known:
            raise SetupError(
                f"{path}: <force>: expected a forcefield among {', '.join(known) or 'none'}, found {name!r}"
            )
        what = f"<force forcefield={name!r}>"
        contracted = to_integer(path, f"nbeads of {what}", element.get("nbeads", "0"), 0)
        weight = to_number(path, f"weight of {what}", element.get("weight", "1"))
        if index < len(factors):
            weight *= to_number(path, "<hamiltonian_weights>", factors[index])
        steps = [
            to_number(path, f"<mts_weights> of {what}", item)
            for item in items_of(element.findtext("mts_weights", "1"))
        ]
        yield Force(
            forcefield=name,
            weight=weight * sum(steps),
            weighted=(weight, sum(steps)) != (1.0, 1.0),
            n_beads=contracted or n_beads,
            kept_extras=(
                frozenset(items_of(element.findtext("interpolate_extras")))
                if contracted not in (0, n_beads)
                else None
            ),
        )


def _read_socket(path: Path, element: ET.Element) -> ForceSocket:
    name, mode = element.get("name", "").strip(), element.get("mode", "inet").strip()
    what = f"<ffsocket name={name!r}>"
    if mode not in MODES:
        raise SetupError(f"{path}: mode of {what}: expected {', '.join(MODES)}, found {mode!r}")
    try:
        served = served_by_socket(name, text_of(element, "parameters", ""))
    except ValueError as error:
        raise SetupError(f"{path}: {what}: {error}") from None
    return ForceSocket(
        name=name,
        mode=mode,
        address=text_of(element, "address", "localhost"),
        port=integer_of(path, element, "port", 65535, 1),
        batch_size=integer_of(path, element, "batch_size", 1, 1),
        terms=served.terms,
        member=served.member,
    )


def _is_of_pidelta(path: Path, element: ET.Element) -> bool:
    """Whether an ffdirect calls pidelta, as far as its file says so without being run.

    Raises:
        SetupError: the file cannot be read.
    """
    if text_of(element, "pes", "dummy") != "custom":
        return False
    file = path.parent / text_of(element, "pes_path", "")
    try:
        return _NAME_OF_PES.search(file.read_text(encoding="utf-8")) is not None
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(
            f"{path}: <pes_path> of <ffdirect name={element.get('name', '')!r}>: expected a Python file, as "
            f"that of `pidelta ffdirect-path`, found {file}: {getattr(error, 'strerror', None) or error}"
        ) from error


def _read_direct(path: Path, element: ET.Element) -> DirectForce:
    """What i-PI hands over to `pidelta.ipi_pes`, which does not learn the name of its forcefield."""
    name = element.get("name", "").strip()
    what = f"<ffdirect name={name!r}>"
    parameters = read_parameters(text_of(element, "parameters", ""))
    try:
        terms = parse_terms(parameters["terms"]) if "terms" in parameters else None
        member = member_of(parameters)
        by_name = terms_in_name(name)
    except ValueError as error:
        raise SetupError(f"{path}: {what}: {error}") from None
    if by_name not in (None, terms):
        raise SetupError(
            f"{path}: {what}: a name made of terms: expected the same in <parameters> {{terms: {name}}}, "
            f"found {parameters.get('terms', 'none')}"
        )
    return DirectForce(
        name=name,
        batch_size=integer_of(path, element, "batch_size", 1, 1),
        terms=terms,
        member=member,
        config=path.parent / parameters.get("config", DEFAULT_CONFIG),
        threaded=element.get("threaded", "false").strip().lower() == "true",
    )


def configuration_of(path: Path) -> Path:
    """The configuration that an input means: what an ffdirect names, or `DEFAULT_CONFIG` beside it.

    Raises:
        SetupError: the input is missing or malformed.
    """
    directs = read_xml(path).iter("ffdirect")
    customs = (each for each in directs if text_of(each, "pes", "dummy") == "custom")
    named = (read_parameters(text_of(each, "parameters", "")).get("config") for each in customs)
    return path.parent / next(filter(None, named), DEFAULT_CONFIG)


def _read_committee(element: ET.Element) -> CommitteeForce:
    baseline = text_of(element, "baseline_name", "")
    names = [child.get("name", "").strip() for child in element if child.tag.startswith("ff")]
    return CommitteeForce(
        name=element.get("name", "").strip(),
        baseline=baseline,
        members=tuple(name for name in names if name != baseline),
        reads_members=text_of(element, "parse_json", "false").lower() == "true",
        weighted=bool(items_of(element.findtext("weights"))),
    )


def _shares(element: ET.Element, ours: frozenset[str]) -> dict[str, float]:
    """The sources behind a forcefield: itself, or the members of a committee with their part of the mean.

    A baseline of a committee counts in full, as the others then correct it. i-PI 3.3.1 reads the weights of a
    committee and then takes the plain mean.
    """
    if element.tag not in _COMMITTEES:
        return {element.get("name", "").strip(): 1.0}
    committee = _read_committee(element)
    baseline, others = committee.baseline, committee.members
    shares = dict.fromkeys(others, 1.0 / max(len(others), 1))
    return {name: share for name, share in {baseline: 1.0, **shares}.items() if name in ours}
