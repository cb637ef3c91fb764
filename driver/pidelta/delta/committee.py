"""Several corrections: their mean is the prediction, their spread its uncertainty."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from pidelta.delta.base import (
    Correction,
    CorrectionResult,
    JointCorrection,
    Provenance,
    check_alike,
)
from pidelta.delta.spread import Calibration, force_deviation, weigh_down
from pidelta.errors import ModelError
from pidelta.state import FloatArray, Region, RegionGradient

_EXTRAPOLATION = "delta_extrapolation"

Group = list[tuple[int, Correction]]
"""Places and members that are evaluated together."""


class Committee:
    """The mean of one or more corrections, of whatever kind.

    Members that share work, such as the descriptors of networks, do it once; but not where the gradient of
    each is needed, for `baseline_error` or `force_deviation`.

    Args:
        members: the corrections.
        offset: is taken off each energy, in hartree.
        calibration: factors of the spread.
        baseline_error: what the low level is trusted to err by, in hartree: the members count the less, the
            more they differ beyond it (`weigh_down`). None for their plain mean.
        force_deviation: whether to give the spread of forces on each QM atom, too.

    Raises:
        ModelError: there is no member, or they were trained on methods, embeddings or QM regions that differ;
            or a baseline needs two members and there is one.
    """

    def __init__(
        self,
        members: Sequence[Correction],
        offset: float = 0.0,
        *,
        calibration: Calibration = Calibration(),  # noqa: B008
        baseline_error: float | None = None,
        force_deviation: bool = False,
    ) -> None:
        if not members:
            raise ModelError("committee: expected at least one model, found none")
        if baseline_error is not None and len(members) < 2:
            raise ModelError("committee: expected two models or more for a weighted baseline, found one")
        self.members = tuple(members)
        self.offset = offset
        self.provenance = _common([member.provenance for member in members])
        self._calibration = calibration
        self._baseline_error = baseline_error
        self._force_deviation = force_deviation
        self._groups = _groups(members)

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of all properties of its results."""
        measured = [name for member in self.members for name in member.properties if name == _EXTRAPOLATION]
        forces = ["delta_force_deviation"] if self._force_deviation else []
        weight = ["delta_weight"] if self._baseline_error is not None else []
        return ("delta_energies", "delta_standard_deviation", *measured[:1], *forces, *weight)

    @property
    def uncertainty_threshold(self) -> float:
        """Standard deviation in hartree that deserves a warning: the mean of the members' thresholds."""
        return float(np.mean([member.uncertainty_threshold for member in self.members]))

    def evaluate(self, region: Region) -> CorrectionResult:
        """The mean of the members, with their energies and spread as properties.

        Distances from the training are the largest of the members that have them. Errors are those of the
        members.
        """
        one_by_one = self._force_deviation or self._baseline_error is not None
        groups = [[each] for each in enumerate(self.members)] if one_by_one else self._groups
        results = [_evaluate_group(group, region) for group in groups]
        energies = np.empty((len(self.members), len(region)))
        for group, (own, _) in zip(groups, results, strict=True):
            energies[[place for place, _ in group]] = own
        energies -= self.offset
        mean = _weighted([len(group) for group in groups], [result for _, result in results])
        mean = replace(mean, energy=mean.energy - self.offset)
        spread = np.zeros_like(mean.energy)
        if len(energies) > 1:
            spread = self._calibration.energy * energies.std(axis=0, ddof=1)
        properties = {"delta_energies": energies.T.copy(), "delta_standard_deviation": spread}
        members = [result for _, result in results]
        distances = [each.properties[_EXTRAPOLATION] for each in members if _EXTRAPOLATION in each.properties]
        if distances:
            properties[_EXTRAPOLATION] = np.max(distances, axis=0)
        known = [each.atom_extrapolation for each in members if each.atom_extrapolation is not None]
        by_atom = np.asarray(np.max(known, axis=0)) if known else None
        if self._force_deviation:
            properties["delta_force_deviation"] = self._calibration.force * force_deviation(members)
        if self._baseline_error is not None:
            mean, properties["delta_weight"] = weigh_down(mean, members, spread**2, self._baseline_error)
        return replace(mean, properties=properties, atom_extrapolation=by_atom)


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
