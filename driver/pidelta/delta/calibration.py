"""How large the errors of a committee are beside its spread, on frames that no training saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pidelta.data.frames import LabelledFrame
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
        force_errors, force_spread: (F, n) root mean square over the components of each QM atom.
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


def calibrate(members: Sequence[Correction], frames: Iterable[LabelledFrame]) -> Reliability:
    """Compare the errors of the mean of K members, K > 1, with their spread on frames held out.

    A factor a is the root of sum(error^2) / sum(spread^2) over the frames: the likeliest one where errors are
    normal and the spread is alike everywhere, and well defined for two members on. (The mean of the ratios
    of both, as in Imbalzano et al., J. Chem. Phys. 154, 074102 (2021), has no finite mean below four.)
    """
    committee = Committee(members, force_deviation=True)
    energies, spreads, forces, force_spreads, differences = [], [], [], [], []
    for item in frames:
        result = committee.evaluate(item.frame.region)
        difference = item.reference.energy - item.low.energy
        differences.append(difference)
        energies.append(float(result.energy[0]) - difference)
        spreads.append(float(result.properties["delta_standard_deviation"][0]))
        wrong = item.low.gradient + result.gradient.positions[0] - item.reference.gradient
        forces.append(np.sqrt((wrong**2).mean(axis=1)))
        force_spreads.append(result.properties["delta_force_deviation"][0])
    errors = np.array(energies)
    errors -= errors.mean()
    spread, force, force_spread = np.array(spreads), np.array(forces), np.array(force_spreads)
    calibration = Calibration(_factor(errors, spread), _factor(force, force_spread))
    return Reliability(calibration, float(np.mean(differences)), errors, spread, force, force_spread)


def _factor(errors: FloatArray, spread: FloatArray) -> float:
    """1 where there is nothing to compare, as with a single frame."""
    squares = float((errors**2).sum()), float((spread**2).sum())
    return float(np.sqrt(squares[0] / squares[1])) if min(squares) > 0.0 else 1.0
