"""What the errors of delta models consist of: by element, by distance and by frame, for `model_page.py`.

Energies in kcal/mol, gradients in kcal/mol/angstrom; errors are method less reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from pidelta.analysis.frames import nearest
from pidelta.delta.assessment import (
    CORRECTED,
    GRADIENT_UNIT,
    LOW,
    ErrorSummary,
    Prediction,
    TrajectoryErrors,
    by_trajectory,
    mean_errors,
)
from pidelta.delta.calibration import Reliability
from pidelta.state import FloatArray, IntArray
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL

# Narrow where hydrogen bonds and the first shell are.
_EDGES = (0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 14.0, np.inf)

METHOD_TITLES = {LOW: "low level alone", CORRECTED: "with the models"}

Pair = tuple[float, float]
"""Of the low level alone, and with the models."""


@dataclass(frozen=True)
class Share:
    """Errors of the gradient on some of the atoms, all components alike.

    Attributes:
        name: which atoms: an element, or distances in angstrom.
        atoms: how many, over all frames.
        mae, rmse: their mean absolute and root mean square errors.
    """

    name: str
    atoms: int
    mae: Pair
    rmse: Pair


@dataclass(frozen=True)
class FrameErrors:
    """Errors of one frame.

    Attributes:
        file, number: where it is.
        source: where it comes from.
        energy: less the mean error over all frames.
        qm_gradient, mm_gradient: root mean square over the components.
        extrapolation: of each QM atom, see `Coverage.by_atom`; None where no model knows its ranges.
    """

    file: str
    number: int
    source: str
    energy: Pair
    qm_gradient: Pair
    mm_gradient: Pair
    extrapolation: tuple[float, ...] | None

    @property
    def outside(self) -> tuple[int, ...]:
        """QM atoms beyond the descriptor ranges of the training."""
        return tuple(atom for atom, distance in enumerate(self.extrapolation or ()) if distance > 1.0)


@dataclass(frozen=True, eq=False)
class Parity:
    """Values (N,) of the reference, the low level alone, and with the models; energies less their mean."""

    reference: FloatArray
    low: FloatArray
    corrected: FloatArray


@dataclass(frozen=True)
class ModelErrors:
    """Errors of delta models on frames with labels.

    Attributes:
        summary: over all frames, of the low level alone and with the models.
        parity: of ``energy``, ``qm_gradient`` and ``mm_gradient``.
        qm_elements: QM gradient by element.
        mm_distances: MM gradient by the distance of the site from the nearest QM atom.
        mm_elements: MM gradient by element.
        trajectories: errors on each, where there are several.
        frames: in their order.
        reliability: of a committee's spread; None of a single model.
    """

    summary: Mapping[str, ErrorSummary]
    parity: Mapping[str, Parity]
    qm_elements: tuple[Share, ...]
    mm_distances: tuple[Share, ...]
    mm_elements: tuple[Share, ...]
    trajectories: tuple[TrajectoryErrors, ...]
    frames: tuple[FrameErrors, ...]
    reliability: Reliability | None

    def worst(self, count: int) -> list[FrameErrors]:
        """The worst frames with the models, by the largest of three errors, each relative to its RMS."""
        sizes = np.array([[abs(f.energy[1]), f.qm_gradient[1], f.mm_gradient[1]] for f in self.frames])
        unit = np.sqrt((sizes**2).mean(axis=0))
        relative = np.divide(sizes, unit, out=np.zeros_like(sizes), where=unit > 0.0)
        order = np.argsort(-relative.max(axis=1), kind="stable")
        return [self.frames[place] for place in order[:count]]


def model_errors(
    predictions: Sequence[Prediction],
    places: Sequence[tuple[Path, int]],
    summary: Mapping[str, ErrorSummary],
    reliability: Reliability | None,
) -> ModelErrors:
    """Take the errors of models on frames apart.

    Args:
        predictions: of the models, at least one.
        places: the file of each frame, and its number there.
        summary, reliability: of these predictions.
    """
    frames = [each.item.frame for each in predictions]
    references = [each.item.reference for each in predictions]
    errors = {method: [each.errors(method) for each in predictions] for method in (LOW, CORRECTED)}
    qm, mm = (
        _Gradients(
            np.concatenate([getattr(frame, numbers) for frame in frames]),
            np.concatenate([getattr(label, gradient) for label in references]),
            *(np.concatenate([getattr(own, gradient) for own in errors[method]]) for method in errors),
        )
        for numbers, gradient in (("numbers", "gradient"), ("site_numbers", "site_gradient"))
    )
    distances = np.concatenate([nearest(frame.positions, frame.site_positions) for frame in frames])
    bins = np.digitize(distances * BOHR_IN_ANGSTROM, _EDGES[1:-1])
    energies = (
        np.array([label.energy for label in references]),
        *(np.array([own.energy for own in errors[method]]) for method in errors),
    )
    reference, low, corrected = ((values - values.mean()) * HARTREE_IN_KCAL_PER_MOL for values in energies)
    return ModelErrors(
        summary=summary,
        parity={
            "energy": Parity(reference, reference + low, reference + corrected),
            "qm_gradient": qm.parity(),
            "mm_gradient": mm.parity(),
        },
        qm_elements=qm.shares(qm.numbers, _element),
        mm_distances=mm.shares(bins, _interval),
        mm_elements=mm.shares(mm.numbers, _element),
        trajectories=tuple(by_trajectory(predictions)),
        frames=tuple(_frames(predictions, places, low, corrected)),
        reliability=reliability,
    )


@dataclass(frozen=True, eq=False)
class _Gradients:
    """Gradients on A atoms of all frames: atomic numbers (A,), the reference (A, 3), and errors (A, 3)."""

    numbers: IntArray
    reference: FloatArray
    low: FloatArray
    corrected: FloatArray

    def shares(self, keys: IntArray, name: Callable[[int], str]) -> tuple[Share, ...]:
        """Errors of the atoms with the same key of `keys` (A,), in its ascending order."""
        found = []
        for key in np.unique(keys).tolist():
            own = keys == key
            low, corrected = (
                mean_errors(errors[own], GRADIENT_UNIT) for errors in (self.low, self.corrected)
            )
            found.append(Share(name(key), int(own.sum()), (low[0], corrected[0]), (low[1], corrected[1])))
        return tuple(found)

    def parity(self) -> Parity:
        """All components."""
        methods = (self.reference, self.reference + self.low, self.reference + self.corrected)
        return Parity(*(values.ravel() * GRADIENT_UNIT for values in methods))


def _element(number: int) -> str:
    return chemical_symbols[number] if number else "no nucleus"


def _interval(place: int) -> str:
    low, high = _EDGES[place : place + 2]
    return f"{low:g} to {high:g}" if np.isfinite(high) else f"beyond {low:g}"


def _frames(
    predictions: Sequence[Prediction],
    places: Sequence[tuple[Path, int]],
    low: FloatArray,
    corrected: FloatArray,
) -> Iterator[FrameErrors]:
    """Errors of each frame; `low` and `corrected` (F,) are those of the energies."""
    for place, (prediction, (path, number)) in enumerate(zip(predictions, places, strict=True)):
        frame = prediction.item.frame
        distances = prediction.result.atom_extrapolation
        before, after = prediction.errors(LOW), prediction.errors(CORRECTED)
        yield FrameErrors(
            file=str(path),
            number=number,
            source=frame.source,
            energy=(float(low[place]), float(corrected[place])),
            qm_gradient=(_rms(before.gradient), _rms(after.gradient)),
            mm_gradient=(_rms(before.site_gradient), _rms(after.site_gradient)),
            extrapolation=None if distances is None else tuple(distances[0].tolist()),
        )


def _rms(errors: FloatArray) -> float:
    return mean_errors(errors, GRADIENT_UNIT)[1]
