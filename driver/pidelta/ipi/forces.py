"""The forces of an i-PI input: what pidelta serves of them, and whether they add up to each term once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pidelta.errors import SetupError
from pidelta.state import common_terms, smallest_parts, terms_beyond

ROUNDING = 1e-6
"""A weight that differs by less from another is the same."""


@dataclass(frozen=True)
class ForceSource:
    """A forcefield by which pidelta serves some terms (None: all), of one delta model or (None) of all.

    `wraps` says whether i-PI puts each atom into the cell before it sends them (``pbc``).
    """

    name: str
    batch_size: int
    terms: frozenset[str] | None
    member: int | None
    wraps: bool


@dataclass(frozen=True)
class ForceSocket(ForceSource):
    """One ``<ffsocket>``: where i-PI listens.

    `tells_terms` says whether i-PI tells each client the terms, as it does those of ``<parameters>``.
    """

    mode: str
    address: str
    port: int
    tells_terms: bool


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
        factor: the weight that the input gives it as a whole.
        levels: what part of it acts at each level of time steps, from the longest (``<mts_weights>``).
        n_beads: the number of beads it is evaluated on.
        is_bias: whether it stands in the ``<bias>`` of the ensemble.
        kept_extras: names of its extras that reach the outputs, None for all: on fewer beads than the system
            has i-PI keeps those that it interpolates.
    """

    forcefield: str
    factor: float
    levels: tuple[float, ...]
    n_beads: int
    is_bias: bool = False
    kept_extras: frozenset[str] | None = None

    @property
    def weight(self) -> float:
        """Its factor in the total energy: i-PI adds up those of all levels."""
        return self.factor * sum(self.levels)

    def __str__(self) -> str:
        return f"<force forcefield={self.forcefield!r}>" + (" in <bias>" if self.is_bias else "")


@dataclass(frozen=True)
class Resolution:
    """How finely a system is resolved.

    Attributes:
        n_beads: of its ring polymer.
        time_step: the longest, in femtoseconds; None where there is only one, or none.
        divisions: into how many steps each level divides one of the level above (``<nmts>``).
    """

    n_beads: int
    time_step: float | None = None
    divisions: tuple[int, ...] = (1,)

    def steps(self, level: int) -> int:
        """How often the forces of a level act within the longest time step."""
        return math.prod(self.divisions[: level + 1])


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
        biases: those in the ``<bias>`` of each system.
        resolutions: the beads and time steps of each system.
        committees: those that the systems use.
    """

    sources: tuple[ForceSource, ...]
    shares: Mapping[str, Mapping[str, float]]
    systems: tuple[tuple[Force, ...], ...]
    biases: tuple[tuple[Force, ...], ...]
    resolutions: tuple[Resolution, ...]
    committees: tuple[CommitteeForce, ...] = ()

    @property
    def sockets(self) -> tuple[ForceSocket, ...]:
        """The sources that clients connect to."""
        return tuple(source for source in self.sources if isinstance(source, ForceSocket))

    @property
    def directs(self) -> tuple[DirectForce, ...]:
        """The sources that work in the process of i-PI."""
        return tuple(source for source in self.sources if isinstance(source, DirectForce))

    @property
    def with_biases(self) -> tuple[tuple[Force, ...], ...]:
        """The forces and biases of each system."""
        return tuple((*forces, *biases) for forces, biases in zip(self.systems, self.biases, strict=True))

    def structures(self, source: ForceSource) -> int:
        """Structures that one evaluation of all forces asks of a source: the beads of all its systems."""
        return sum(
            force.n_beads
            for forces in self.with_biases
            for force in forces
            if source.name in self.shares.get(force.forcefield, {})
        )

    def served(self, source: ForceSource, terms: Sequence[str]) -> list[str]:
        """What a source serves of the terms of a configuration, or parts of these, in their order."""
        return list(terms) if source.terms is None else common_terms(terms, source.terms)

    def check(self, source: object, terms: Sequence[str]) -> list[str]:
        """Check that the forces and biases of each system add up to each term once.

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
        for forces in self.with_biases:
            notes |= dict.fromkeys(self._check_system(source, forces, terms))
        return list(notes)

    def _check_system(self, source: object, forces: Sequence[Force], terms: Sequence[str]) -> Iterable[str]:
        for term in terms:
            serving = {part: self.serving(forces, part, terms) for part in smallest_parts([term])}
            first = next(iter(serving.values()))
            if all(each == first for each in serving.values()):
                serving = {term: first}
            for name, counted in serving.items():
                yield from _check_count(source, terms, name, counted)

    def serving(
        self, forces: Sequence[Force], part: str, terms: Sequence[str]
    ) -> list[tuple[Force, str, float]]:
        """The forces and sources that serve a part of a term, with what a source counts in its force."""
        by_name = {each.name: each for each in self.sources}
        return [
            (force, name, share)
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
    total = sum(force.weight * share for force, _, share in serving)
    if abs(total - 1.0) < ROUNDING:
        return
    if all(force.factor == 1.0 for force, _, _ in serving):
        places = (f"{name} in <bias>" if force.is_bias else name for force, name, _ in serving)
        message = (
            f"{source}: <forces>: expected each of {', '.join(terms)} once, found {term} "
            f"{total:g} times, by {', '.join(dict.fromkeys(places))}"
        )
        if any(abs(sum(force.levels) - 1.0) > ROUNDING for force, _, _ in serving):
            message += "; i-PI adds up <mts_weights>, and a factor is asked for by weight"
        raise SetupError(message)
    yield f"the weights of the forces count {term} {total:g} times"
