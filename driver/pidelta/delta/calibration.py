"""How large the errors of a committee are beside its spread, on frames that no training saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pidelta.data.frames import LabelledFrame
from pidelta.data.splits import folds_by_source
from pidelta.delta.base import Correction
from pidelta.delta.committee import Committee
from pidelta.delta.spread import Calibration
from pidelta.errors import DataError
from pidelta.state import FloatArray

_PARTS, _FEWEST_PARTS = 5, 3


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
        calibration: factors that make the mean square of the spread that of the errors.
        offset: mean of the reference - low level over the frames, to be taken off the members' energies.
        energy_errors, energy_spread: (F,) with the mean error taken off, as energies are known but for a
            constant, and not calibrated.
        force_errors, force_spread: (F, n) root mean square over the components of each QM atom.
        judgement: of the factors on frames held back from their fit; None where there are too few frames.
    """

    calibration: Calibration
    offset: float
    energy_errors: FloatArray
    energy_spread: FloatArray
    force_errors: FloatArray
    force_spread: FloatArray
    judgement: Judgement | None

    def inside(self) -> float:
        """Share of the energies whose error is below the calibrated spread, on the frames of the fit."""
        return _inside(self.energy_errors, self.calibration.energy * self.energy_spread)


def calibrate(members: Sequence[Correction], frames: Iterable[LabelledFrame]) -> Reliability:
    """Compare the errors of the mean of K members, K > 1, with their spread on frames held out.

    A factor a is the root of sum(error^2) / sum(spread^2) over the frames: the likeliest one where errors are
    normal and the spread is alike everywhere, and well defined for two members on. (The mean of the ratios
    of both, as in Imbalzano et al., J. Chem. Phys. 154, 074102 (2021), has no finite mean below four.)
    """
    committee = Committee(members, force_deviation=True)
    energies, spreads, forces, force_spreads, differences, sources = [], [], [], [], [], []
    for item in frames:
        result = committee.evaluate(item.frame.region)
        difference = item.reference.energy - item.low.energy
        differences.append(difference)
        energies.append(float(result.energy[0]) - difference)
        spreads.append(float(result.properties["delta_standard_deviation"][0]))
        wrong = item.low.gradient + result.gradient.positions[0] - item.reference.gradient
        forces.append(np.sqrt((wrong**2).mean(axis=1)))
        force_spreads.append(result.properties["delta_force_deviation"][0])
        sources.append(item.frame.source)
    errors = np.array(energies)
    spread, force, force_spread = np.array(spreads), np.array(forces), np.array(force_spreads)
    judgement = _judge(sources, len(members), errors, spread, force, force_spread)
    errors -= errors.mean()
    calibration = Calibration(_factor(errors, spread), _factor(force, force_spread))
    offset = float(np.mean(differences))
    return Reliability(calibration, offset, errors, spread, force, force_spread, judgement)


def _judge(
    sources: Sequence[str],
    members: int,
    errors: FloatArray,
    spread: FloatArray,
    force: FloatArray,
    force_spread: FloatArray,
) -> Judgement | None:
    """Judge factors on frames that they were not fitted to; arrays as in `Reliability`, not calibrated."""
    from scipy.special import fdtr

    try:
        parts = folds_by_source(sources, _PARTS, blocks=_PARTS)
    except DataError:
        return None
    if len(parts) < _FEWEST_PARTS:
        return None
    errors, spread, force_spread = errors.copy(), spread.copy(), force_spread.copy()
    fits: list[tuple[float, float, float]] = []
    for fitted, _ in parts:
        mean = errors[fitted].mean()
        fits.append(
            (
                mean,
                _factor(errors[fitted] - mean, spread[fitted]),
                _factor(force[fitted], force_spread[fitted]),
            )
        )
    for (_, part), (mean, factor, force_factor) in zip(parts, fits, strict=True):
        errors[part] -= mean
        spread[part] *= factor
        force_spread[part] *= force_factor
    energy_ratios = [_factor(errors[part], spread[part]) for _, part in parts]
    force_ratios = [_factor(force[part], force_spread[part]) for _, part in parts]
    return Judgement(
        parts=len(parts),
        inside=(_inside(errors, spread), _inside(force, force_spread)),
        expected=(float(fdtr(1, members - 1, 1.0)), float(fdtr(3, 3 * (members - 1), 1.0))),
        energy_ratios=(min(energy_ratios), max(energy_ratios)),
        force_ratios=(min(force_ratios), max(force_ratios)),
    )


def _inside(errors: FloatArray, spread: FloatArray) -> float:
    return float((np.abs(errors) <= spread).mean())


def _factor(errors: FloatArray, spread: FloatArray) -> float:
    """1 where there is nothing to compare, as with a single frame."""
    squares = float((errors**2).sum()), float((spread**2).sum())
    return float(np.sqrt(squares[0] / squares[1])) if min(squares) > 0.0 else 1.0
