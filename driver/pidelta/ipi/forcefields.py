"""Reading the forcefields of an i-PI input: which terms of the energy they serve, in which forces.

What an ``<ffsocket>`` or an ``<ffdirect>`` of pidelta serves is said by its ``<parameters>``, as in
``{terms: low+delta}``, or by a name made of terms alone, or of parts of terms such as ``mm.bonded``. Any
other name stands for the whole energy, but for a name that looks like terms: one with a +, or whose letters
are those of terms or one typing error away from them. i-PI hands parameters over to clients, in INIT, and to
the class of an ffdirect; the latter does not learn the name, so that it needs parameters in any case.
"""

from __future__ import annotations

import math
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pidelta.errors import SetupError
from pidelta.ipi.forces import (
    CommitteeForce,
    DirectForce,
    Force,
    ForceSocket,
    ForceSource,
    ForceSum,
    Resolution,
)
from pidelta.ipi.protocol import read_parameters
from pidelta.ipi.served import member_of, served_by_socket, served_in_parameters, terms_in_name
from pidelta.ipi.transports import LONGEST_SOCKET_PATH, MODES, UNIX_MODES, socket_path
from pidelta.ipi.xml_input import (
    integer_of,
    items_of,
    read_xml,
    sockets_prefix_of,
    text_of,
    to_atomic,
    to_integer,
    to_number,
)
from pidelta.state import parse_terms
from pidelta.units import ATOMIC_TIME_IN_FEMTOSECOND

DEFAULT_CONFIG = "pidelta.yaml"
_NAME_OF_PES = re.compile(r"""^__DRIVER_NAME__ *= *["']pidelta["']""", re.MULTILINE)
_COMMITTEES = ("ffcommittee", "ffrotations")
_DYNAMICS = ("dynamics", "driven_dynamics", "constrained_dynamics")
"""Motions with levels of time steps."""
_ALL_ATOMS = ["-1"]
_KEYS_OF_A_DIRECT = ("config", "terms", "member")
_KEYS_OF_IPI = ("verbosity", "verbose")


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
            forcefield does not say what it serves, lacks atoms, or waits for a batch that never fills.
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
    biases = tuple(
        tuple(_read_biases(path, system, n_beads, known))
        for system, n_beads in zip(systems, beads, strict=True)
    )
    resolutions = tuple(
        _read_resolution(path, system, n_beads, own)
        for system, n_beads, own in zip(systems, beads, forces, strict=True)
    )
    used = {force.forcefield for system in (*forces, *biases) for force in system}
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
    found = ForceSum(sources, shares, forces, biases, resolutions, committees)
    _check_addresses(path, found.sockets, sockets_prefix_of(path, root))
    _check_batches(path, found)
    return found


def _over_mpi(path: Path) -> str:
    return (
        f"mpirun -n 1 i-pi {path.name} : -n 2 i-pi-driver-py --mpi -m custom "
        f"-P $(pidelta ffdirect-path) -o config={DEFAULT_CONFIG}"
    )


def _check_addresses(path: Path, sockets: Sequence[ForceSocket], sockets_prefix: str) -> None:
    places = [(s.mode == "inet", s.address, s.port if s.mode == "inet" else 0) for s in sockets]
    for socket, place in zip(sockets, places, strict=True):
        if places.count(place) > 1:
            raise SetupError(
                f"{path}: expected an address of its own for each ffsocket, found {socket.address} twice"
            )
        file = socket_path(socket.address, sockets_prefix)
        if socket.mode in UNIX_MODES and (length := len(os.fsencode(file))) > LONGEST_SOCKET_PATH:
            raise SetupError(
                f"{path}: <address> of <ffsocket name={socket.name!r}>: expected {LONGEST_SOCKET_PATH} bytes "
                f"at most for the file of a unix socket, found {length}: {file}"
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
    """The sources of pidelta in a forcefield, itself or its members.

    Raises:
        SetupError: one is not given all atoms, or does not say what it serves.
    """
    for child in element.iter():
        if child.tag == "ffsocket":
            source: ForceSource = _read_socket(path, child)
        elif child.tag == "ffdirect" and _is_of_pidelta(path, child):
            source = _read_direct(path, child)
        else:
            continue
        for each in dict.fromkeys((element, child)):  # a committee, and its member
            if (atoms := items_of(each.findtext("activelist"))) not in ([], _ALL_ATOMS):
                raise SetupError(
                    f"{path}: <activelist> of <{each.tag} name={each.get('name', '')!r}>: expected none, as "
                    f"pidelta takes all atoms, found {len(atoms)} of them"
                )
        yield source


def _wraps(element: ET.Element) -> bool:
    return element.get("pbc", "false").strip().lower() == "true"


def _read_systems_forces(
    path: Path, system: ET.Element, n_beads: int, known: Sequence[str]
) -> Iterator[Force]:
    elements = list(system.iterfind("forces/force"))
    if not elements:
        raise SetupError(f"{path}: <system>: expected <forces> with a <force>, found none")
    factors = _factors(path, system, "hamiltonian_weights", len(elements))  # of replica exchange
    for element, factor in zip(elements, factors, strict=True):
        force = _read_force(path, element, n_beads, known)
        yield replace(force, factor=force.factor * factor)


def _read_biases(path: Path, system: ET.Element, n_beads: int, known: Sequence[str]) -> Iterator[Force]:
    elements = list(system.iterfind("ensemble/bias/force"))
    factors = _factors(path, system, "bias_weights", len(elements))
    for element, factor in zip(elements, factors, strict=True):
        force = replace(_read_force(path, element, n_beads, known), is_bias=True)
        if force.factor != 1.0:
            raise SetupError(
                f"{path}: weight of {force}: expected none, as i-PI takes <bias_weights> in its place, found "
                f"{force.factor:g}"
            )
        yield replace(force, factor=factor)


def _factors(path: Path, system: ET.Element, tag: str, count: int) -> list[float]:
    """So many numbers of an ensemble, 1 for those that it does not give."""
    items = items_of(system.findtext(f"ensemble/{tag}"))[:count]
    return [to_number(path, f"<{tag}>", item) for item in items] + [1.0] * (count - len(items))


def _read_force(path: Path, element: ET.Element, n_beads: int, known: Sequence[str]) -> Force:
    name = element.get("forcefield", "").strip()
    if name not in known:
        raise SetupError(
            f"{path}: <force>: expected a forcefield among {', '.join(known) or 'none'}, found {name!r}"
        )
    what = f"<force forcefield={name!r}>"
    contracted = to_integer(path, f"nbeads of {what}", element.get("nbeads", "0"), 0)
    return Force(
        forcefield=name,
        factor=to_number(path, f"weight of {what}", element.get("weight", "1")),
        levels=tuple(
            to_number(path, f"<mts_weights> of {what}", item)
            for item in items_of(element.findtext("mts_weights", "1"))
        ),
        n_beads=contracted or n_beads,
        kept_extras=(
            frozenset(items_of(element.findtext("interpolate_extras")))
            if contracted not in (0, n_beads)
            else None
        ),
    )


def _read_resolution(path: Path, system: ET.Element, n_beads: int, forces: Sequence[Force]) -> Resolution:
    """The beads and time steps of a system, for whose levels each of its forces has a part.

    Raises:
        SetupError: i-PI would end, as a force has not as many parts as there are levels; a number is none.
    """
    found = (motion.find(motion.get("mode", "dynamics")) for motion in system.iter("motion"))
    dynamics = next((element for element in found if element is not None and element.tag in _DYNAMICS), None)
    if dynamics is None:
        return Resolution(n_beads)
    counts = items_of(dynamics.findtext("nmts")) or ["1"]
    divisions = tuple(to_integer(path, "<nmts>", count, 1) for count in counts)
    for force in forces:
        if len(force.levels) != len(divisions):
            raise SetupError(
                f"{path}: <mts_weights> of {force}: expected {len(divisions)}, one for each level of "
                f"<nmts>, found {len(force.levels)}"
            )
    if math.prod(divisions) == 1:
        return Resolution(n_beads, None, divisions)
    time_step = 1.0
    if (element := dynamics.find("timestep")) is not None:
        time_step = to_number(path, "<timestep>", (element.text or "").strip())
        time_step *= to_atomic(path, element, "time")
    return Resolution(n_beads, time_step * ATOMIC_TIME_IN_FEMTOSECOND, divisions)


def _read_socket(path: Path, element: ET.Element) -> ForceSocket:
    name, mode = element.get("name", "").strip(), element.get("mode", "inet").strip()
    what = f"<ffsocket name={name!r}>"
    if mode not in MODES:
        raise SetupError(f"{path}: mode of {what}: expected {', '.join(MODES)}, found {mode!r}")
    parameters = text_of(element, "parameters", "")
    try:
        served = served_by_socket(name, parameters)
        tells_terms = served_in_parameters(parameters).terms is not None
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
        wraps=_wraps(element),
        tells_terms=tells_terms,
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
    for key in parameters:
        if key not in (*_KEYS_OF_A_DIRECT, *_KEYS_OF_IPI):
            expected = ", ".join(_KEYS_OF_A_DIRECT)
            raise SetupError(f"{path}: <parameters> of {what}: expected {expected}, found {key!r}")
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
        wraps=_wraps(element),
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
