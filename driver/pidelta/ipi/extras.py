"""The extras that an i-PI input writes: i-PI would end in the middle of a run where no client sends them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from pidelta.errors import SetupError
from pidelta.ipi.forces import Force
from pidelta.ipi.simulation import Simulation

Given = Callable[[frozenset[str]], Collection[str]]
"""Names of the extras of clients that serve some terms."""


def check_extras(simulation: Simulation, terms: Sequence[str], given: Given) -> None:
    """Check that the forces of each system give the extras that outputs pick out by ``extra_type``.

    Committees and forcefields of other programs have extras of their own: systems with such are not judged.

    Args:
        simulation: the input.
        terms: those that the energy has.
        given: tells which extras come with some of them; not called where no output asks for any.

    Raises:
        SetupError: one is given by no force, or cannot be had on the beads of the system.
    """
    wanted = dict.fromkeys(
        name for file in simulation.trajectories if file.quantity == "extras" for name in file.extras
    )
    if not wanted:
        return
    sources = {source.name: source for source in simulation.forces.sources}
    for forces in simulation.forces.systems:
        if any(force.forcefield not in sources for force in forces):
            continue
        found = {
            force: frozenset(given(frozenset(simulation.forces.served(sources[force.forcefield], terms))))
            for force in forces
        }
        kept = {name for force in forces for name in _kept(force, found[force])}
        for name in wanted:
            if name not in kept:
                lost = any(name in names for names in found.values())
                reason = "found it on fewer beads than the system has" if lost else "found none that gives it"
                raise SetupError(
                    f"{simulation.path}: <trajectory extra_type={name!r}>: expected a force that gives it, "
                    f"{reason}; there are {', '.join(sorted(kept))}"
                )


def _kept(force: Force, names: frozenset[str]) -> Iterator[str]:
    yield from names if force.kept_extras is None else names & force.kept_extras
