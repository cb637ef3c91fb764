"""Labels of a wrong sign or unit, or far from all others: the reference beside the low level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pidelta.data.frames import Frame, LabelledFrame
from pidelta.state import FloatArray
from pidelta.units import ANGSTROM, EV, HARTREE_IN_KCAL_PER_MOL, KCAL_PER_MOL, KJ_PER_MOL, NANOMETER

_ALIKE = 0.8  # cosine of two gradients from which on their ratio means something; minima may have less
_LEAST = 20  # degrees of freedom in all frames: the gradient of one bond may well have another sign
_QM_RATIOS = (0.55, 1.8)  # 0.53 and 1.89 are bohr for angstrom
_WIDE_RATIOS = (0.2, 5.0)  # of charges and energies, in which methods differ more than in bonds
_LARGEST = 0.3  # hartree/bohr, RMS of a gradient of atoms that are bonded
_FEWEST = 6  # frames, from which on their energies are compared
_DEVIATIONS = 20.0
_FLOOR = 1.0 / HARTREE_IN_KCAL_PER_MOL  # of a deviation
_NAMED = 5  # frames in a message
_READ = {"eV/angstrom": EV / ANGSTROM, "hartree/bohr": 1.0}
_WRITTEN = _READ | {
    "eV/bohr": EV,
    "hartree/angstrom": 1.0 / ANGSTROM,
    "kcal/mol/angstrom": KCAL_PER_MOL / ANGSTROM,
    "kJ/mol/angstrom": KJ_PER_MOL / ANGSTROM,
    "kJ/mol/nm": KJ_PER_MOL / NANOMETER,
}

Places = Sequence[tuple[Path, int]]


def suspicions(frames: Sequence[LabelledFrame], places: Places) -> tuple[list[str], list[str]]:
    """What shows that reference labels are not what they are taken for.

    Gradients of both methods on the QM atoms are alike but at minima of one of them; there those on the point
    charges are compared. Without a low level, whose labels are zero, only gradients too large for bonds show.

    Args:
        frames: with both labels.
        places: the store of each frame, and its number there.

    Returns:
        Errors, after which labels are of no use, and notes. Each is one line.
    """
    names = ", ".join(str(path) for path in dict.fromkeys(path for path, _ in places))
    freedom = sum(max(1, 3 * len(item.frame.numbers) - 6) for item in frames)
    sites = sum(len(item.frame.site_numbers) for item in frames)
    qm = _ratio([(item.reference.gradient, item.low.gradient) for item in frames], freedom)
    mm = _ratio([(item.reference.site_gradient, item.low.site_gradient) for item in frames], sites)
    errors: list[str] = []
    notes: list[str] = []
    if qm is not None and not _QM_RATIOS[0] <= qm <= _QM_RATIOS[1]:
        errors.append(f"{names}: {_message('QM atoms', qm)}")
    if mm is not None and not _WIDE_RATIOS[0] <= mm <= _WIDE_RATIOS[1]:
        (errors if qm is None else notes).append(f"{names}: {_message('point charges', mm)}")
    energies = np.array([(item.reference.energy, item.low.energy) for item in frames]).reshape(-1, 2)
    regions = [item.frame for item in frames]
    notes += _too_large(frames, names) + _energy_ratio(energies, regions, names)
    notes += outliers(energies[:, 0] - energies[:, 1], regions, places)
    return errors, notes


def _ratio(pairs: Sequence[tuple[FloatArray, FloatArray]], freedom: int) -> float | None:
    """How many times as large the first of two gradients is in most frames; None where they are not alike."""
    cosines, ratios = [], []
    for one, other in pairs:
        product, lengths = np.vdot(one, other), (np.linalg.norm(one), np.linalg.norm(other))
        if min(lengths) > 0.0:
            cosines.append(product / (lengths[0] * lengths[1]))
            ratios.append(product / lengths[1] ** 2)
    if freedom < _LEAST or not cosines or abs(np.median(cosines)) < _ALIKE:
        return None
    return float(np.median(ratios))


def _message(where: str, ratio: float) -> str:
    causes = [] if ratio > 0.0 else ["forces for gradients, or the other way round"]
    possible = [(_READ[read] / _WRITTEN[unit], unit, read) for read in _READ for unit in _WRITTEN]
    distances = [abs(np.log(abs(ratio) / factor)) for factor, _, _ in possible]
    nearest = int(np.argmin(distances))
    factor, unit, read = possible[nearest]
    if factor != 1.0 and distances[nearest] < np.log(1.4):
        causes.append(f"{unit} read as {read}")
    cause = f": {' and '.join(causes)}?" if causes else ""
    return (
        f"expected reference gradients on the {where} like those of the low level, found them "
        f"{ratio:.3g} times as large{cause}"
    )


def _too_large(frames: Sequence[LabelledFrame], names: str) -> list[str]:
    sizes = [
        float(np.sqrt((item.reference.gradient**2).mean())) for item in frames if len(item.frame.numbers)
    ]
    if not sizes or any(item.low.gradient.any() for item in frames) or np.median(sizes) < _LARGEST:
        return []
    return [
        f"{names}: reference gradients on the QM atoms are {np.median(sizes):.2g} hartree/bohr, more than "
        "bonds have: is their unit another?"
    ]


def _energy_ratio(energies: FloatArray, frames: Sequence[Frame], names: str) -> list[str]:
    """A note where energies (F, 2) of both methods rise and fall together, but not by as much."""
    if len(energies) < _FEWEST or len({tuple(sorted(frame.numbers)) for frame in frames}) > 1:
        return []
    reference, low = (energies - np.median(energies, axis=0)).T
    square = np.sqrt(np.vdot(reference, reference) * np.vdot(low, low))
    if not square or abs(np.vdot(reference, low)) < _ALIKE * square:
        return []
    ratio = np.vdot(reference, low) / np.vdot(low, low)
    if _WIDE_RATIOS[0] <= ratio <= _WIDE_RATIOS[1]:
        return []
    return [
        f"{names}: reference energies vary {ratio:.3g} times as much as those of the low level: is their "
        "sign or unit another?"
    ]


def outliers(energies: FloatArray, frames: Sequence[Frame], places: Places) -> list[str]:
    """A note on energies that are far from those of all other frames of the same atoms.

    Args:
        energies: (F,) in hartree, of the reference less the low level where there is one.
        frames: of them.
        places: the store of each frame, and its number there.
    """
    compositions: dict[tuple[int, ...], list[int]] = {}
    for index, frame in enumerate(frames):
        compositions.setdefault(tuple(sorted(frame.numbers.tolist())), []).append(index)
    far: dict[int, float] = {}
    for indices in compositions.values():
        own = energies[indices]
        distances = own - np.median(own)
        spread = max(1.4826 * float(np.median(np.abs(distances))), _FLOOR)
        far |= {
            index: float(distance)
            for index, distance in zip(indices, distances, strict=True)
            if abs(distance) > _DEVIATIONS * spread
        }
    if not far:
        return []
    worst = sorted(far, key=lambda index: -abs(far[index]))
    listed = ", ".join(
        f"{far[index] * HARTREE_IN_KCAL_PER_MOL:.4g} kcal/mol in frame {frame} of {path}"
        for index, (path, frame) in ((index, places[index]) for index in worst[:_NAMED])
    )
    more = ", ..." if len(worst) > _NAMED else ""
    return [
        f"{len(far)} of {len(frames)} frames have energies {_DEVIATIONS:.0f} times as far from the median as "
        f"others, or more: {listed}{more}"
    ]
