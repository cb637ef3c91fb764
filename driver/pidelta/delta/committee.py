"""Several corrections: their mean is the prediction, their spread its uncertainty."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from pidelta.delta.base import Correction, CorrectionResult, JointCorrection, Provenance, check_alike
from pidelta.errors import ModelError
from pidelta.state import FloatArray, Region, RegionGradient

_EXTRAPOLATION = "delta_extrapolation"

Group = list[tuple[int, Correction]]
"""Places and members that are evaluated together."""


class Committee:
    """The mean of one or more corrections, of whatever kind.

    Members that share work, such as the descriptors of networks, do it once.

    Args:
        members: the corrections.
        offset: is taken off each energy, in hartree.

    Raises:
        ModelError: there is no member, or they were trained on methods, embeddings or QM regions that differ.
    """

    def __init__(self, members: Sequence[Correction], offset: float = 0.0) -> None:
        if not members:
            raise ModelError("committee: expected at least one model, found none")
        self.members = tuple(members)
        self.offset = offset
        self.provenance = _common([member.provenance for member in members])
        self._groups = _groups(members)

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of all properties of its results."""
        measured = [name for member in self.members for name in member.properties if name == _EXTRAPOLATION]
        return ("delta_energies", "delta_standard_deviation", *measured[:1])

    @property
    def uncertainty_threshold(self) -> float:
        """Standard deviation in hartree that deserves a warning: the mean of the members' thresholds."""
        return float(np.mean([member.uncertainty_threshold for member in self.members]))

    def evaluate(self, region: Region) -> CorrectionResult:
        """The mean of the members, with their energies and spread as properties.

        ``delta_extrapolation`` is the largest of the members that have it. Errors are those of the members.
        """
        results = [_evaluate_group(group, region) for group in self._groups]
        energies = np.empty((len(self.members), len(region)))
        for group, (own, _) in zip(self._groups, results, strict=True):
            energies[[place for place, _ in group]] = own
        energies -= self.offset
        mean = _weighted([len(group) for group in self._groups], [result for _, result in results])
        spread = energies.std(axis=0, ddof=1) if len(energies) > 1 else np.zeros_like(mean.energy)
        properties = {"delta_energies": energies.T.copy(), "delta_standard_deviation": spread}
        distances = [
            result.properties[_EXTRAPOLATION] for _, result in results if _EXTRAPOLATION in result.properties
        ]
        if distances:
            properties[_EXTRAPOLATION] = np.max(distances, axis=0)
        return replace(mean, energy=mean.energy - self.offset, properties=properties)


def _common(provenances: Sequence[Provenance]) -> Provenance:
    """What all members were trained on."""
    check_alike(provenances)
    first = provenances[0]
    compositions = tuple(
        known for known in first.compositions if all(known in other.compositions for other in provenances)
    )
    elements = tuple(
        known for known in first.site_elements if all(known in other.site_elements for other in provenances)
    )
    if not compositions:
        raise ModelError(
            "committee: expected models that were trained on the same QM region, found none such"
        )
    return replace(first, compositions=compositions, site_elements=elements)


def _groups(members: Sequence[Correction]) -> list[Group]:
    groups: dict[Hashable, Group] = {}
    for place, member in enumerate(members):
        key = (type(member), member.shared_work) if isinstance(member, JointCorrection) else place
        groups.setdefault(key, []).append((place, member))
    return list(groups.values())


def _evaluate_group(group: Group, region: Region) -> tuple[FloatArray, CorrectionResult]:
    """Energies (K, B) of the K members of a group, and their mean."""
    first, *others = [member for _, member in group]
    if isinstance(first, JointCorrection):
        return first.evaluate_with(others, region)
    result = first.evaluate(region)
    return result.energy[None], result


def _weighted(counts: Sequence[int], results: Sequence[CorrectionResult]) -> CorrectionResult:
    """The mean of all members from the means of groups of them."""
    if len(results) == 1:
        return results[0]
    weights = np.array(counts) / sum(counts)

    def mean(arrays: Sequence[FloatArray]) -> FloatArray:
        return np.asarray(np.einsum("k,k...->...", weights, np.stack(arrays)))

    gradients = [result.gradient for result in results]
    return CorrectionResult(
        mean([result.energy for result in results]),
        RegionGradient(
            mean([gradient.positions for gradient in gradients]),
            mean([gradient.site_positions for gradient in gradients]),
            mean([gradient.site_charges for gradient in gradients]),
        ),
    )
