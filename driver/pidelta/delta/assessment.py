"""Errors of the low-level method, alone and corrected, against the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from pidelta.data.frames import LabelledFrame
from pidelta.delta.base import Correction, CorrectionResult
from pidelta.errors import ModelError
from pidelta.state import FloatArray
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL

NEAR = 5.0 * ANGSTROM
GRADIENT_UNIT = HARTREE_IN_KCAL_PER_MOL / BOHR_IN_ANGSTROM


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


def assess(model: Correction, frames: Iterable[LabelledFrame]) -> dict[str, ErrorSummary]:
    """Errors of the low level alone (``low``) and with the correction (``low + delta``).

    Raises:
        ModelError: the frames are of another QM region, or were labelled with other methods, than those the
            model was trained on.
    """
    known = model.provenance
    items: list[tuple[LabelledFrame, CorrectionResult]] = []
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
        result = model.evaluate(frame.region)
        items.append((item, result))
    return {
        "low": _summary(items, lambda result: (0.0, 0.0, 0.0)),
        "low + delta": _summary(
            items,
            lambda result: (
                result.energy[0],
                result.gradient.positions[0],
                result.gradient.site_positions[0],
            ),
        ),
    }


def _summary(
    items: list[tuple[LabelledFrame, CorrectionResult]],
    correction: Callable[[CorrectionResult], tuple[float | FloatArray, ...]],
) -> ErrorSummary:
    energies, qm, mm, near = [], [], [], []
    for item, result in items:
        energy, gradient, site_gradient = correction(result)
        energies.append(item.low.energy + energy - item.reference.energy)
        qm.append((item.low.gradient + gradient - item.reference.gradient).ravel())
        errors = item.low.site_gradient + site_gradient - item.reference.site_gradient
        mm.append(errors.ravel())
        vectors = item.frame.site_positions[:, None] - item.frame.positions
        near.append(errors[(np.sum(vectors**2, axis=2) < NEAR**2).any(axis=1)].ravel())
    energy_errors = np.array(energies)
    return ErrorSummary(
        energy=_errors(energy_errors - energy_errors.mean(), HARTREE_IN_KCAL_PER_MOL),
        qm_gradient=_errors(np.concatenate(qm), GRADIENT_UNIT),
        mm_gradient=_errors(np.concatenate(mm), GRADIENT_UNIT),
        near_gradient=_errors(np.concatenate(near), GRADIENT_UNIT),
    )


def _errors(errors: FloatArray, unit: float) -> tuple[float, float]:
    if not errors.size:
        return 0.0, 0.0
    return float(np.abs(errors).mean()) * unit, float(np.sqrt((errors**2).mean())) * unit
