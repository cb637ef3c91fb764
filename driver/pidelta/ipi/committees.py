"""Whether the committees of an i-PI input get what they need: i-PI would go on with what is no number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pidelta.errors import SetupError
from pidelta.ipi.forces import CommitteeForce, ForceSum
from pidelta.state import common_terms, smallest_parts

_READ_BY_IPI = ("committee_pot", "committee_force", "committee_virial")


def check_committees(
    source: object, forces: ForceSum, models: int, reported: Sequence[str], *, centred: bool
) -> list[str]:
    """Check the committees of delta models.

    Args:
        source: the input, for messages.
        forces: its forces.
        models: how many delta models there are.
        reported: what clients report of each of them (``delta.properties``).
        centred: whether somebody has said what to take off their energies (``delta.offset``).

    Returns:
        What a user should know, a line each.

    Raises:
        SetupError: a member is none, or stands twice; i-PI would miss what clients do not report, have the
            spread of a single member, or weigh energies that are not near zero.
    """
    notes: list[str] = []
    for each in forces.committees:
        notes += _check(f"{source}: {each}", each, forces, models, reported)
        if each.baseline and models and not centred:
            raise SetupError(
                f"{source}: {each}: <baseline_name>: expected delta.offset, the mean energy of the delta "
                "models, as i-PI multiplies what they give by its weight, found none"
            )
    return notes


def _check(
    what: str, committee: CommitteeForce, forces: ForceSum, models: int, reported: Sequence[str]
) -> Iterator[str]:
    corrections = [
        each
        for each in forces.sources
        if each.name in committee.members
        and (each.terms is None or common_terms(["delta"], smallest_parts(each.terms)))
    ]
    for each in corrections:
        if each.terms is not None and "delta" not in each.terms:
            raise SetupError(
                f"{what}: expected delta models as a whole, found {' + '.join(sorted(each.terms))} of "
                f"{each.name}: the spread of a committee is that of the whole energy"
            )
    places = [each.member for each in corrections if each.member is not None]
    for place in places:
        if place >= models:
            raise SetupError(f"{what}: expected a member below {models}, the number of models, found {place}")
        if places.count(place) > 1:
            raise SetupError(f"{what}: expected each member once, found member {place} twice")
    if committee.reads_members:
        needed = _READ_BY_IPI if committee.baseline else _READ_BY_IPI[:1]
        whole = [each for each in corrections if each.member is None]
        if whole and not set(needed) <= set(reported):
            raise SetupError(
                f"{what}: <parse_json>: expected clients that report {', '.join(needed)}, which "
                f"delta.properties asks for, found {', '.join(reported) or 'none'}"
            )
    elif len(committee.members) < 2:
        raise SetupError(
            f"{what}: expected two members or more, or one that reports all and <parse_json>, found "
            f"{len(committee.members)}: their spread would be no number"
        )
    if committee.weighted:
        yield f"<weights> of {committee}: i-PI takes the plain mean of the members, whatever they are"
    if places and len(places) < models and not committee.reads_members:
        left = ", ".join(str(place) for place in range(models) if place not in places)
        yield f"{committee} leaves out the models {left} (from 0): its mean is not that of all models"
