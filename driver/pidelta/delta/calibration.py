"""How large the errors of a committee are beside its spread, on frames that no training saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pidelta.data.splits import folds_by_source
from pidelta.delta.assessment import CORRECTED, Prediction
from pidelta.delta.spread import Calibration
from pidelta.errors import DataError
from pidelta.state import FloatArray, IntArray

_PARTS, _FEWEST_PARTS = 5, 3
_ROUNDING = 1e-6  # a spread is none that is so much smaller than the errors


@dataclass(frozen=True)
class Judgement:
    """How true the calibrated spread is on frames that its factor was not fitted to, by cross-validation.

    Each part of the frames, whole trajectories or blocks of consecutive steps, is judged by the factors and
    the mean error of the energy of all others. Pairs are of energies and of forces on QM atoms.

    Attributes:
        parts: their number.
        inside: shares of the errors that are below the calibrated spread.
        expected: those shares where errors are normal and the factor is true everywhere. Few members know
            their own spread badly, so it is less than 0.68: the error squared over the spread squared has
            the F distribution of c and c (K - 1) degrees of freedom, for K members and c components.
        energy_ratios, force_ratios: smallest and largest of the parts' root mean square errors over that of
            the calibrated spread: 1 where it is true.
    """

    parts: int
    inside: tuple[float, float]
    expected: tuple[float, float]
    energy_ratios: tuple[float, float]
    force_ratios: tuple[float, float]

    def __str__(self) -> str:
        energy, force = (100.0 * share for share in self.inside)
        expected = [100.0 * share for share in self.expected]
        ratios = [f"{low:.2f} to {high:.2f}" for low, high in (self.energy_ratios, self.force_ratios)]
        return (
            f"In {self.parts} parts by trajectory or time, each with the factors that the others give: "
            f"{energy:.0f} % of the energies and {force:.0f} % of the forces on QM atoms are within the "
            f"spread ({expected[0]:.0f} and {expected[1]:.0f} % if errors were normal), and the errors of a "
            f"part are {ratios[0]} times its spread for energies, {ratios[1]} times for forces."
        )


@dataclass(frozen=True)
class Reliability:
    """Errors and spread of a committee, frame by frame, and what follows from them; in atomic units.

    Attributes:
        calibration: factors that make the mean square of the spread that of the errors; 1 where nothing is
            compared.
        offset: mean of the reference - low level over the frames, to be taken off the members' energies.
        energy_errors, energy_spread: (F,) with the mean error taken off, as energies are known but for a
            constant, and not calibrated.
        force_errors, force_spread: (sum of n,) root mean square over the components of each QM atom.
        judgement: of the factors on frames held back from their fit; None where there are too few frames.
        compared: whether there are errors and spreads to compare. There are none of energies where there is a
            single frame, and none of models that give the same.
    """

    calibration: Calibration
    offset: float
    energy_errors: FloatArray
    energy_spread: FloatArray
    force_errors: FloatArray
    force_spread: FloatArray
    judgement: Judgement | None
    compared: bool = True

    def inside(self) -> float:
        """Share of the energies whose error is below the calibrated spread, on the frames of the fit."""
        return float((np.abs(self.energy_errors) <= self.calibration.energy * self.energy_spread).mean())

    def forces_inside(self) -> float:
        """Share of the QM atoms whose error of the force is below its calibrated spread, likewise."""
        return float((self.force_errors <= self.calibration.force * self.force_spread).mean())


NOTHING_COMPARED = (
    "There is no factor that makes the spread of the models as large as errors are: the models give the same "
    "on these frames, or there is a single frame."
)


def verdict(judgement: Judgement | None, inside: float) -> str:
    """A sentence on how true the calibrated spread is.

    Args:
        judgement: on frames held back from the fit of the factors, where there is one.
        inside: share of the energies whose error is below the spread, on the frames of the fit.
    """
    if judgement is not None:
        return str(judgement)
    return (
        "These factors are not judged on frames held back from their fit, which takes three parts by "
        f"trajectory or time; of the energies of the fit {100.0 * inside:.0f} % are within the spread."
    )


def reliability(predictions: Sequence[Prediction], members: int) -> Reliability:
    """Compare errors and spread of a committee of two members or more that gives `delta_force_deviation`.

    A factor a is the root of sum(error^2) / sum(spread^2) over the frames: the likeliest one where errors are
    normal and the spread is alike everywhere, and well defined for two members on. (The mean of the ratios
    of both, as in Imbalzano et al., J. Chem. Phys. 154, 074102 (2021), has no finite mean below four.)
    """
    energies, spreads, forces, force_spreads, differences, sources = [], [], [], [], [], []
    for prediction in predictions:
        item, properties = prediction.item, prediction.result.properties
        wrong = prediction.errors(CORRECTED)
        differences.append(item.reference.energy - item.low.energy)
        energies.append(wrong.energy)
        spreads.append(float(properties["delta_standard_deviation"][0]))
        forces.append(np.sqrt((wrong.gradient**2).mean(axis=1)))
        force_spreads.append(properties["delta_force_deviation"][0])
        sources.append(item.frame.source)
    errors, spread = np.array(energies), np.array(spreads)
    centred = errors - errors.mean()
    force, force_spread = np.concatenate(forces), np.concatenate(force_spreads)
    compared = _comparable(centred, spread) and _comparable(force, force_spread)
    judgement = _judge(sources, members, errors, spread, forces, force_spreads) if compared else None
    calibration = Calibration(_factor(centred, spread), _factor(force, force_spread))
    offset = float(np.mean(differences))
    return Reliability(calibration, offset, centred, spread, force, force_spread, judgement, compared)


def _judge(
    sources: Sequence[str],
    members: int,
    errors: FloatArray,
    spread: FloatArray,
    forces: Sequence[FloatArray],
    force_spreads: Sequence[FloatArray],
) -> Judgement | None:
    """Judge factors on frames that they were not fitted to.

    Args:
        sources: of the frames.
        members: of the committee.
        errors, spread: of the energies, as in `Reliability`, without the mean error taken off.
        forces, force_spreads: (n,) of each frame, whose regions may differ in size.
    """
    from scipy.special import fdtr

    try:
        parts = folds_by_source(sources, _PARTS, blocks=_PARTS)
    except DataError:
        return None
    if len(parts) < _FEWEST_PARTS:
        return None
    energy_ratios, force_ratios = [], []
    energies_inside, forces_inside = [], []
    for fitted, part in parts:
        mean = errors[fitted].mean()
        wrong, calibrated = errors[part] - mean, _factor(errors[fitted] - mean, spread[fitted]) * spread[part]
        energy_ratios.append(_factor(wrong, calibrated))
        energies_inside.append(np.abs(wrong) <= calibrated)
        factor = _factor(_joined(forces, fitted), _joined(force_spreads, fitted))
        wrong, calibrated = _joined(forces, part), factor * _joined(force_spreads, part)
        force_ratios.append(_factor(wrong, calibrated))
        forces_inside.append(wrong <= calibrated)
    inside = tuple(float(np.concatenate(own).mean()) for own in (energies_inside, forces_inside))
    return Judgement(
        parts=len(parts),
        inside=(inside[0], inside[1]),
        expected=(float(fdtr(1, members - 1, 1.0)), float(fdtr(3, 3 * (members - 1), 1.0))),
        energy_ratios=(min(energy_ratios), max(energy_ratios)),
        force_ratios=(min(force_ratios), max(force_ratios)),
    )


def _joined(values: Sequence[FloatArray], frames: IntArray) -> FloatArray:
    return np.concatenate([values[index] for index in frames])


def _factor(errors: FloatArray, spread: FloatArray) -> float:
    """1 where there is nothing to compare."""
    return float(np.sqrt((errors**2).sum() / (spread**2).sum())) if _comparable(errors, spread) else 1.0


def _comparable(errors: FloatArray, spread: FloatArray) -> bool:
    """Whether neither is zero, but for the rounding of a mean of models that give the same."""
    squares = float((errors**2).sum()), float((spread**2).sum())
    return squares[0] > 0.0 and squares[1] > _ROUNDING**2 * squares[0]
