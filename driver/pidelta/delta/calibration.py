"""How large the errors of a committee are beside its spread, on frames that no training saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pidelta.data.frames import LabelledFrame
from pidelta.delta.assessment import CORRECTED, Prediction
from pidelta.delta.base import Correction
from pidelta.delta.committee import Committee
from pidelta.delta.spread import Calibration
from pidelta.state import FloatArray


@dataclass(frozen=True)
class Reliability:
    """Errors and spread of a committee, frame by frame, and what follows from them; in atomic units.

    Attributes:
        calibration: factors that make the mean square of the spread that of the errors.
        offset: mean of the reference - low level over the frames, to be taken off the members' energies.
        energy_errors, energy_spread: (F,) with the mean error taken off, as energies are known but for a
            constant, and not calibrated.
        force_errors, force_spread: (sum of n,) root mean square over the components of each QM atom.
    """

    calibration: Calibration
    offset: float
    energy_errors: FloatArray
    energy_spread: FloatArray
    force_errors: FloatArray
    force_spread: FloatArray

    def inside(self, factor: float = 1.0) -> float:
        """Share of the energies whose error is below `factor` times the calibrated spread: 0.68 for a normal
        distribution of the errors, less for few members.
        """
        spread = factor * self.calibration.energy * self.energy_spread
        return float((np.abs(self.energy_errors) <= spread).mean())

    def forces_inside(self) -> float:
        """Share of the QM atoms whose error of the force is below its calibrated spread: 0.61 for a normal
        distribution, as the error is that of three components.
        """
        return float((self.force_errors <= self.calibration.force * self.force_spread).mean())


def calibrate(members: Sequence[Correction], frames: Iterable[LabelledFrame]) -> Reliability:
    """Compare the errors of the mean of K members, K > 1, with their spread on frames held out."""
    committee = Committee(members, force_deviation=True)
    return reliability([Prediction(item, committee.evaluate(item.frame.region)) for item in frames])


def reliability(predictions: Sequence[Prediction]) -> Reliability:
    """Compare errors and spread of a committee of two members or more that gives `delta_force_deviation`.

    A factor a is the root of sum(error^2) / sum(spread^2) over the frames: the likeliest one where errors are
    normal and the spread is alike everywhere, and well defined for two members on. (The mean of the ratios
    of both, as in Imbalzano et al., J. Chem. Phys. 154, 074102 (2021), has no finite mean below four.)
    """
    energies, spreads, forces, force_spreads, differences = [], [], [], [], []
    for prediction in predictions:
        item, properties = prediction.item, prediction.result.properties
        wrong = prediction.errors(CORRECTED)
        differences.append(item.reference.energy - item.low.energy)
        energies.append(wrong.energy)
        spreads.append(float(properties["delta_standard_deviation"][0]))
        forces.append(np.sqrt((wrong.gradient**2).mean(axis=1)))
        force_spreads.append(properties["delta_force_deviation"][0])
    errors = np.array(energies)
    errors -= errors.mean()
    # Regions may differ in size.
    spread, force, force_spread = np.array(spreads), np.concatenate(forces), np.concatenate(force_spreads)
    calibration = Calibration(_factor(errors, spread), _factor(force, force_spread))
    return Reliability(calibration, float(np.mean(differences)), errors, spread, force, force_spread)


def _factor(errors: FloatArray, spread: FloatArray) -> float:
    """1 where there is nothing to compare, as with a single frame."""
    squares = float((errors**2).sum()), float((spread**2).sum())
    return float(np.sqrt(squares[0] / squares[1])) if min(squares) > 0.0 else 1.0
