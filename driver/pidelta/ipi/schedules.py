"""The beads and time steps of the terms of an i-PI input, and whether stiff ones have the finer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pidelta.ipi.forces import ROUNDING, Force, ForceSource, ForceSum, Resolution
from pidelta.state import PARTS


def schedule_of(forces: ForceSum, source: ForceSource) -> str:
    """The beads and the time step of a source, as in ``32 beads, every 0.5 fs``.

    Returns:
        One text for each of several such in the input, joined by ``;``; '' where all that pidelta serves is
        evaluated on all beads at each longest time step.
    """
    evaluations = [
        (whole, force, level)
        for system, whole in zip(forces.with_biases, forces.resolutions, strict=True)
        for force in system
        for level in _levels(force)
        if force.forcefield in forces.shares
    ]
    if all(each.n_beads == whole.n_beads and whole.steps(k) == 1 for whole, each, k in evaluations):
        return ""
    texts = (
        _schedule(whole, force, level)
        for whole, force, level in evaluations
        if source.name in forces.shares[force.forcefield]
    )
    return "; ".join(dict.fromkeys(filter(None, texts)))


def stiff_terms_behind(forces: ForceSum, terms: Sequence[str]) -> list[str]:
    """What is wrong with stiff parts of terms that act on fewer beads, or less often, than the smooth ones.

    Where forces cancel each other, as in a contraction by a difference, what is left of them counts.
    """
    found: dict[str, None] = {}
    for system, whole in zip(forces.with_biases, forces.resolutions, strict=True):
        for stiff, smooth in PARTS.values():
            of_stiff, of_smooth = (_finest(forces, system, whole, part, terms) for part in (stiff, smooth))
            if of_stiff is not None and of_smooth is not None:
                found |= dict.fromkeys(_compare(whole, stiff, smooth, of_stiff, of_smooth))
    return list(found)


def _levels(force: Force) -> Iterator[int]:
    """The levels of time steps that a force acts at; a bias acts at the longest."""
    if force.is_bias:
        yield 0
    else:
        yield from (level for level, part in enumerate(force.levels) if abs(part) > ROUNDING)


def _schedule(whole: Resolution, force: Force, level: int) -> str:
    beads = f"{force.n_beads} bead{'s' if force.n_beads > 1 else ''}" if whole.n_beads > 1 else ""
    step = _time_step(whole, whole.steps(level))
    step = f"every {step}" if step else ""
    return ", ".join(filter(None, (beads, step)))


def _time_step(whole: Resolution, steps: int) -> str:
    """What a time step is if so many make the longest, as in ``0.5 fs``; '' where all are the same."""
    return "" if whole.time_step is None else f"{whole.time_step / steps:.4g} fs"


def _finest(
    forces: ForceSum, system: Sequence[Force], whole: Resolution, part: str, terms: Sequence[str]
) -> tuple[int, int] | None:
    """How often a part acts within the longest time step, and on how many beads; None where it never does."""
    factors: dict[tuple[int, int], float] = {}
    for force, _, share in forces.serving(system, part, terms):
        for level in _levels(force):
            place = whole.steps(level), force.n_beads
            amount = force.weight if force.is_bias else force.factor * force.levels[level]
            factors[place] = factors.get(place, 0.0) + amount * share
    left = [place for place, factor in factors.items() if abs(factor) > ROUNDING]
    return (max(steps for steps, _ in left), max(beads for _, beads in left)) if left else None


def _compare(
    whole: Resolution, stiff: str, smooth: str, of_stiff: tuple[int, int], of_smooth: tuple[int, int]
) -> Iterator[str]:
    (steps, beads), (other_steps, other_beads) = of_stiff, of_smooth
    if steps < other_steps:
        times = f"{_time_step(whole, steps)} and {_time_step(whole, other_steps)}"
        yield f"the stiff {stiff} has a longer time step than the smooth {smooth}: {times}"
    if beads < other_beads:
        yield f"the stiff {stiff} is on fewer beads than the smooth {smooth}: {beads} and {other_beads}"
