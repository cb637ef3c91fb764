"""What a run of `pidelta learn` is made by, as it is written down beside it."""

from __future__ import annotations

import json

from pidelta.checksums import checksum
from pidelta.units import (
    ATOMIC_TIME_IN_FEMTOSECOND,
    BOHR_IN_ANGSTROM,
    HARTREE_IN_KCAL_PER_MOL,
    HARTREE_IN_KELVIN,
)
from pidelta.workflow.learning.rounds import Round
from pidelta.workflow.learning.settings import DynamicsSource, UmbrellaSource

_FEMTOSECONDS, _ANGSTROM = (ATOMIC_TIME_IN_FEMTOSECOND, "fs"), (BOHR_IN_ANGSTROM, "angstrom")
_SHOWN = {
    "temperature": (HARTREE_IN_KELVIN, "K"),
    "time": _FEMTOSECONDS,
    "time_step": _FEMTOSECONDS,
    "every": _FEMTOSECONDS,
    "width": _ANGSTROM,
    "centre": _ANGSTROM,
    "barrier": (HARTREE_IN_KCAL_PER_MOL, "kcal/mol"),
    "stiffness": (HARTREE_IN_KCAL_PER_MOL / BOHR_IN_ANGSTROM**2, "kcal/mol/angstrom^2"),
}
"""How quantities are shown, by key."""


def source_options(source: DynamicsSource, window: int | None = None) -> dict[str, str | int]:
    """The settings of a source that its run is made by, by key, in the units that users know.

    `skip` is none of them: it says what is taken of a run.

    Args:
        source: what runs.
        window: the place of its centre, for one of an umbrella source.
    """
    content = source.model_dump(exclude={"skip", "centres"})
    if isinstance(source, UmbrellaSource) and window is not None:
        content |= {"weights": source.factors, "centre": source.centres[window]}
    options: dict[str, str | int] = {}
    for name, value in content.items():
        if name in _SHOWN:
            scale, unit = _SHOWN[name]
            options[name] = f"{value * scale:.10g} {unit}"
        else:
            options[name] = value if isinstance(value, str | int) else json.dumps(value)
    return options


def committee_digest(before: Round | None) -> str:
    """A checksum of the models that a round samples with, those of the round before."""
    if before is None:
        return "none"
    return checksum(before.committee, *before.model_files())[:16]
