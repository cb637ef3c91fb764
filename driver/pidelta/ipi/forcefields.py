"""Which terms of the energy the forcefields of an i-PI input serve, and whether they add up to the whole.

What an ``<ffsocket>`` serves is said by its ``<parameters> {terms: low+delta} </parameters>``, which i-PI
hands over to clients in INIT, or by a name made of terms alone, or of parts of terms such as
``mm.bonded``. Any other name stands for the whole energy, but for a name that looks like terms: one with a +,
or whose letters are those of terms or one typing error away from them.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pidelta.errors import SetupError
from pidelta.ipi.protocol import read_parameters
from pidelta.ipi.xml_input import integer_of, items_of, text_of, to_integer, to_number
from pidelta.state import TERM_NAMES, common_terms, parse_terms, smallest_parts, terms_beyond

_ROUNDING = 1e-6
_COMMITTEES = ("ffcommittee", "ffrotations")


@dataclass(frozen=True)
class ForceSocket:
    """One ``<ffsocket>``: where i-PI listens, and for which terms (None: all of them)."""

    name: str
    mode: str
    address: str
    port: int
    batch_size: int
    terms: frozenset[str] | None


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
class ForceSum:
    """The forces of a simulation.

    Attributes:
        sockets: the ffsockets that a force of a system uses, on its own or in a committee.
        shares: by name of a forcefield, the sockets it stands for with their factors: itself for an ffsocket,
            its members for a committee.
        systems: the forces of each system.
    """

    sockets: tuple[ForceSocket, ...]
    shares: Mapping[str, Mapping[str, float]]
    systems: tuple[tuple[Force, ...], ...]

    def structures(self, socket: ForceSocket) -> int:
        """Structures that one evaluation of all forces asks of a socket: the beads of all its systems."""
        return sum(
            force.n_beads
            for forces in self.systems
            for force in forces
            if socket.name in self.shares.get(force.forcefield, {})
        )

    def served(self, socket: ForceSocket, terms: Sequence[str]) -> list[str]:
        """What a socket serves of the terms of a configuration, or parts of these, in their order."""
        return list(terms) if socket.terms is None else common_terms(terms, socket.terms)

    def check(self, source: object, terms: Sequence[str]) -> list[str]:
        """Check that the forces of each system add up to each term once.

        Args:
            source: the input, for messages.
            terms: those that the energy is meant to have.

        Returns:
            What the weights of the input make of terms that do not count once.

        Raises:
            SetupError: a term is served never, or twice without weights that say so, or a socket serves one
                that the energy does not have.
        """
        for socket in self.sockets:
            if unknown := terms_beyond(socket.terms or (), terms):
                raise SetupError(
                    f"{source}: <ffsocket name={socket.name!r}>: expected terms among {', '.join(terms)}, "
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
        """The forces and sockets that serve a term or a part of one, with their factor in the energy."""
        by_name = {socket.name: socket for socket in self.sockets}
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
        SetupError: no force uses an ffsocket of mode unix or inet, a name is missing, taken or unknown, or a
            number is none; an ffsocket does not say what it serves.
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
        name: list(element.iter("ffsocket"))
        for name, element in zip(known, elements, strict=True)
        if name in used
    }
    sockets = tuple(_read_socket(path, element) for found in members.values() for element in found)
    if not sockets:
        raise SetupError(f"{path}: expected an <ffsocket> for pidelta to connect to, found none in <forces>")
    places = [(s.mode, s.address, s.port if s.mode == "inet" else 0) for s in sockets]
    for socket, place in zip(sockets, places, strict=True):
        if places.count(place) > 1:
            raise SetupError(
                f"{path}: expected an address of its own for each ffsocket, found {socket.address} twice"
            )
    shares = {
        name: _shares(path, element)
        for name, element in zip(known, elements, strict=True)
        if members.get(name)
    }
    return ForceSum(sockets, shares, forces)


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
    if mode not in ("unix", "inet"):
        raise SetupError(f"{path}: mode of {what}: expected unix or inet, found {mode!r}")
    try:
        terms = terms_of_socket(name, text_of(element, "parameters", ""))
    except ValueError as error:
        raise SetupError(f"{path}: {what}: {error}") from None
    return ForceSocket(
        name=name,
        mode=mode,
        address=text_of(element, "address", "localhost"),
        port=integer_of(path, element, "port", 65535, 1),
        batch_size=integer_of(path, element, "batch_size", 1, 1),
        terms=terms,
    )


def _shares(path: Path, element: ET.Element) -> dict[str, float]:
    """The ffsockets behind a forcefield: itself, or the members of a committee with their part of the mean.

    A baseline of a committee counts in full, as the others then correct it.
    """
    if element.tag not in _COMMITTEES:
        return {element.get("name", "").strip(): 1.0}
    baseline = text_of(element, "baseline_name", "")
    members = [child.get("name", "").strip() for child in element if child.tag.startswith("ff")]
    others = [name for name in members if name != baseline]
    weights = [to_number(path, "<weights>", item) for item in items_of(element.findtext("weights"))]
    weights = weights if len(weights) == len(others) else [1.0] * len(others)
    shares = {name: weight / len(others) for name, weight in zip(others, weights, strict=True)}
    sockets = {child.get("name", "").strip() for child in element.iter("ffsocket")}
    return {name: share for name, share in {baseline: 1.0, **shares}.items() if name in sockets}


def terms_of_socket(name: str, parameters: str) -> frozenset[str] | None:
    """What an ffsocket serves by its parameters or its name; None: everything.

    Args:
        name: of the ffsocket.
        parameters: the text of its ``<parameters>``, or nothing.

    Raises:
        ValueError: a parameter is unknown, no terms follow where they should, or the name only looks like
            terms.
    """
    given = terms_in_parameters(parameters)
    return terms_in_name(name) if given is None else given


def terms_in_parameters(text: str) -> frozenset[str] | None:
    """The terms that ``<parameters>`` or INIT ask for, None if they say nothing.

    Raises:
        ValueError: something is there that is not ``terms`` (or the batch size that i-PI adds).
    """
    parameters = read_parameters(text)
    unknown = sorted(set(parameters) - {"terms", "batch_size"})
    if unknown:
        raise ValueError(f"<parameters>: expected terms: A+B, found {unknown[0]!r}")
    if "terms" not in parameters:
        return None
    try:
        return parse_terms(parameters["terms"])
    except ValueError as error:
        raise ValueError(f"<parameters>: terms: {error}") from None


def terms_in_name(name: str) -> frozenset[str] | None:
    """The terms that the name of an ffsocket is made of, None for a name that has nothing of them.

    Raises:
        ValueError: it looks like terms and is not.
    """
    try:
        return parse_terms(name)
    except ValueError as error:
        if _looks_like_terms(name):
            raise ValueError(
                f"a name that looks like terms: {error}; for the whole energy choose another name"
            ) from None
        return None


def _looks_like_terms(name: str) -> bool:
    letters = _letters(name)
    words = {_letters(known) for term in TERM_NAMES for known in (term, term.partition(".")[2]) if known}
    chain = re.fullmatch(f"({'|'.join(words)})+", letters)
    near = any(len(word) > 2 and _one_error_apart(letters, word) for word in words)
    return "+" in name or chain is not None or near


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _one_error_apart(one: str, other: str) -> bool:
    """Whether inserting, leaving out, changing or swapping letters once makes one word of the other."""
    same = (a == b for a, b in zip(one, other, strict=False))
    start = next((k for k, equal in enumerate(same) if not equal), min(len(one), len(other)))
    one, other = one[start:], other[start:]
    swapped = one[:2] == other[:2][::-1] and one[2:] == other[2:]
    return swapped or one[1:] == other[1:] or one[1:] == other or one == other[1:]
