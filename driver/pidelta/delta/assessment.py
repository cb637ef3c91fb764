"""Errors of the low-level method, alone and corrected, against the reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pidelta.data.frames import LabelledFrame
from pidelta.data.splits import trajectory_name
from pidelta.delta.base import Correction, CorrectionResult
from pidelta.errors import ModelError
from pidelta.state import FloatArray
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL

NEAR = 5.0 * ANGSTROM
GRADIENT_UNIT = HARTREE_IN_KCAL_PER_MOL / BOHR_IN_ANGSTROM
LOW, CORRECTED = "low", "low + delta"


@dataclass(frozen=True)
class ErrorSummary:
    """Errors of a method: mean absolute and root mean square.

    Attributes:
        energy: of energies whose mean error over the frames is removed, in kcal/mol.
        qm_gradient: of components on QM atoms, in kcal/mol/angstrom.
        mm_gradient: of components on all sites of the environment.
        near_gradient: of those on sites within 5 angstrom of a QM atom.
    """

    energy: tuple[float, float]
    qm_gradient: tuple[float, float]
    mm_gradient: tuple[float, float]
    near_gradient: tuple[float, float]


@dataclass(frozen=True)
class MethodErrors:
    """Method less reference for a frame of n QM atoms and m sites, in atomic units.

    Attributes:
        energy: with the constant by which the energies of methods differ.
        gradient, site_gradient: (n, 3) and (m, 3).
    """

    energy: float
    gradient: FloatArray
    site_gradient: FloatArray


@dataclass(frozen=True)
class Prediction:
    """A frame with its labels, and what a correction makes of it."""

    item: LabelledFrame
    result: CorrectionResult

    def errors(self, method: str) -> MethodErrors:
        """Errors of the low level alone (`LOW`) or with the correction (`CORRECTED`)."""
        low, reference = self.item.low, self.item.reference
        energy = low.energy - reference.energy
        gradient = low.gradient - reference.gradient
        site_gradient = low.site_gradient - reference.site_gradient
        if method == CORRECTED:
            slopes = self.result.gradient
            energy = energy + float(self.result.energy[0])
            gradient = gradient + slopes.positions[0]
            site_gradient = site_gradient + slopes.site_positions[0]
        return MethodErrors(energy, gradient, site_gradient)


def predict(model: Correction, frames: Iterable[LabelledFrame]) -> list[Prediction]:
    """Evaluate a correction on labelled frames.

    Raises:
        ModelError: the frames are of another QM region, or were labelled with other methods, than those the
            model was trained on.
    """
    known = model.provenance
    predictions: list[Prediction] = []
    for item in frames:
        frame = item.frame
        for name, expected, found in (
            ("a low-level label by", known.low_level, item.low.method),
            ("a reference label by", known.reference, item.reference.method),
            ("charge", known.charge, frame.charge),
            ("multiplicity", known.multiplicity, frame.multiplicity),
        ):
            if expected != found:
                raise ModelError(f"frame {frame.source}: expected {name} {expected!r}, found {found!r}")
        predictions.append(Prediction(item, model.evaluate(frame.region)))
    return predictions


def assess(model: Correction, frames: Iterable[LabelledFrame]) -> dict[str, ErrorSummary]:
    """Errors of the low level alone (``low``) and with the correction (``low + delta``).

    Errors raised are those of `predict`.
    """
    return summarise(predict(model, frames))


def summarise(predictions: Sequence[Prediction]) -> dict[str, ErrorSummary]:
    """Errors of the low level alone and with the correction, over all frames."""
    return {method: _summary(predictions, method) for method in (LOW, CORRECTED)}


@dataclass(frozen=True)
class TrajectoryErrors:
    """Errors on the frames of one trajectory, by method.

    Attributes:
        name: of the trajectory, without bead.
        frames: how many of them.
        shift: mean error of its energies less that of all frames, in kcal/mol.
        summary: energies less the mean error of this trajectory.
    """

    name: str
    frames: int
    shift: Mapping[str, float]
    summary: Mapping[str, ErrorSummary]


def by_trajectory(predictions: Sequence[Prediction]) -> list[TrajectoryErrors]:
    """Errors on each trajectory, in the order of the frames.

    Returns:
        An empty list where there is one alone, or where each frame has a name of its own.
    """
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        groups[trajectory_name(prediction.item.frame.source)].append(prediction)
    if not 1 < len(groups) < len(predictions):
        return []
    whole = _mean_energy_errors(predictions)
    found = []
    for name, own in groups.items():
        shift = {method: value - whole[method] for method, value in _mean_energy_errors(own).items()}
        found.append(TrajectoryErrors(name, len(own), shift, summarise(own)))
    return found


def _mean_energy_errors(predictions: Sequence[Prediction]) -> dict[str, float]:
    return {
        method: float(np.mean([each.errors(method).energy for each in predictions])) * HARTREE_IN_KCAL_PER_MOL
        for method in (LOW, CORRECTED)
    }


def _summary(predictions: Sequence[Prediction], method: str) -> ErrorSummary:
    energies, qm, mm, near = [], [], [], []
    for prediction in predictions:
        errors, frame = prediction.errors(method), prediction.item.frame
        energies.append(errors.energy)
        qm.append(errors.gradient.ravel())
        mm.append(errors.site_gradient.ravel())
        vectors = frame.site_positions[:, None] - frame.positions
        is_near = (np.sum(vectors**2, axis=2) < NEAR**2).any(axis=1)
        near.append(errors.site_gradient[is_near].ravel())
    energy_errors = np.array(energies)
    return ErrorSummary(
        energy=mean_errors(energy_errors - energy_errors.mean(), HARTREE_IN_KCAL_PER_MOL),
        qm_gradient=mean_errors(np.concatenate(qm), GRADIENT_UNIT),
        mm_gradient=mean_errors(np.concatenate(mm), GRADIENT_UNIT),
        near_gradient=mean_errors(np.concatenate(near), GRADIENT_UNIT),
    )


def mean_errors(errors: FloatArray, unit: float = 1.0) -> tuple[float, float]:
    """Mean absolute and root mean square of errors times a unit; zero of none."""
    if not errors.size:
        return 0.0, 0.0
    return float(np.abs(errors).mean()) * unit, float(np.sqrt((errors**2).mean())) * unit
