"""What each member of a committee of delta models gives, by the names that i-PI's ``ffcommittee`` reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pidelta.state import Evaluation, FloatArray, Term

COMMITTEE_PROPERTIES = ("committee_pot", "committee_force", "committee_virial")


def committee_properties(
    evaluation: Evaluation, members: Sequence[Term], names: Sequence[str]
) -> dict[str, FloatArray]:
    """What each of K members makes of the energy of B structures of N atoms: their mean is the energy.

    Args:
        evaluation: of all terms, ``delta`` with the mean of the members.
        members: the term of each member.
        names: those of `COMMITTEE_PROPERTIES` to give.

    Returns:
        ``committee_pot`` (B, K) energies in hartree, ``committee_force`` (B, K, 3N) forces in hartree/bohr
        and ``committee_virial`` (B, K, 9), -dE/d(strain) in hartree.
    """
    mean = evaluation.terms["delta"]
    shape = len(evaluation.energy), len(members), -1

    def of_members(total: FloatArray, part: FloatArray, own: Sequence[FloatArray]) -> FloatArray:
        return np.stack([total - part + each for each in own], axis=1)

    energy = of_members(evaluation.energy, mean.energy, [each.energy for each in members])
    gradient = of_members(evaluation.gradient, mean.gradient, [each.gradient for each in members])
    virial = of_members(evaluation.virial, mean.virial, [each.virial for each in members])
    values = (energy, -gradient.reshape(shape), virial.reshape(shape))
    return {name: array for name, array in zip(COMMITTEE_PROPERTIES, values, strict=True) if name in names}
