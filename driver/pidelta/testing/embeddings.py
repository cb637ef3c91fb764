"""Conformance: what every coupling and every rule for surroundings has to pass.

Each check raises AssertionError with the deviation found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pidelta.delta.base import CorrectionResult, Provenance
from pidelta.qm.base import EmbeddingKind, QMResult
from pidelta.qmmm.coupling import Coupling
from pidelta.qmmm.energy import QMMMEvaluator
from pidelta.qmmm.surroundings import CutRegion
from pidelta.state import Evaluation, FloatArray, IntArray, Region, RegionGradient
from pidelta.testing.evaluators import (
    check_batch,
    check_gradient,
    check_lattice_invariance,
    check_net_force,
    check_virial,
)


@dataclass(frozen=True)
class Sample:
    """Structures to check with.

    Attributes:
        positions: (B, N, 3) of at least two structures in bohr.
        cells: (B, 3, 3) lattice vectors as rows in bohr, or None.
        molecules: (N,) molecule of each atom, for lattice shifts.
        atoms: whose derivatives are compared with differences: QM atoms, MM atoms next to them, some with and
            some without virtual sites, and MM atoms that are being switched off.
        alike: two lists of atoms of like molecules, which may change places.
    """

    positions: FloatArray
    cells: FloatArray | None
    molecules: IntArray
    atoms: IntArray
    alike: tuple[Sequence[int], Sequence[int]]


def check_coupling(evaluator: QMMMEvaluator, coupling: Coupling, sample: Sample, charges: FloatArray) -> None:
    """All checks of the energy of fixed QM charges (n,) in e in the field of a coupling.

    Args:
        evaluator: with the particles, the partition and the surroundings; its terms are not used.
        coupling: what is checked.
        sample: structures.
        charges: of the QM atoms, not all alike.
    """
    assert evaluator.partition is not None
    engine = FixedCharges(evaluator.partition.qm_numbers, charges)
    _check(replace(evaluator, coupling=coupling, engine=engine, delta=None, classical=None), sample)


def check_surroundings(evaluator: QMMMEvaluator, sample: Sample) -> None:
    """All checks of an energy that depends on every array of the region of the surroundings.

    Args:
        evaluator: with the particles, the partition and the surroundings; its terms are not used.
        sample: structures.
    """
    _check(replace(evaluator, engine=None, delta=_Bells(), classical=None), sample)


def _check(evaluator: QMMMEvaluator, sample: Sample) -> None:
    for b, positions in enumerate(sample.positions):
        cell = None if sample.cells is None else sample.cells[b]
        # differences see the third derivative of the switch jump where one begins or ends
        check_gradient(evaluator, positions, cell, atoms=sample.atoms, tolerance=2e-8)
        check_virial(evaluator, positions, cell, tolerance=1e-7)
        if not len(evaluator.particles.fixed):
            check_net_force(evaluator, positions, cell, tolerance=1e-11)
        if cell is not None:
            check_lattice_invariance(evaluator, positions, cell, sample.molecules, tolerance=1e-10)
    check_batch(evaluator, sample.positions, sample.cells, tolerance=1e-11)
    _check_like_molecules(evaluator, sample)
    _check_translation(evaluator, sample)
    _check_memory_and_strides(evaluator, sample)


def _check_like_molecules(evaluator: QMMMEvaluator, sample: Sample) -> None:
    """Like molecules that change places change the energy no more than their numbers do."""
    order = np.arange(len(evaluator.numbers))
    first, second = (np.array(atoms) for atoms in sample.alike)
    order[first], order[second] = second, first
    before = evaluator.evaluate(sample.positions, sample.cells)
    after = evaluator.evaluate(sample.positions[:, order], sample.cells)
    _assert_same("like molecules changing places", after, before, order)


def _check_translation(evaluator: QMMMEvaluator, sample: Sample) -> None:
    if len(evaluator.particles.fixed):
        return
    before = evaluator.evaluate(sample.positions, sample.cells)
    after = evaluator.evaluate(sample.positions + np.array([1.0, -20.0, 7.5]), sample.cells)
    _assert_same("a translation of everything", after, before)


def _check_memory_and_strides(evaluator: QMMMEvaluator, sample: Sample) -> None:
    """The same again after other structures, from arrays that are not contiguous, which stay as they were."""
    positions = np.asfortranarray(np.repeat(sample.positions, 2, axis=1)[:, ::2])
    cells = None if sample.cells is None else np.asfortranarray(sample.cells)
    copy = positions.copy()
    before = evaluator.evaluate(sample.positions, sample.cells)
    evaluator.evaluate(sample.positions[::-1] + 0.1, None if cells is None else cells[::-1])
    _assert_same("another call in between", evaluator.evaluate(positions, cells), before)
    assert np.array_equal(positions, copy), "the positions handed in were changed"


def _assert_same(
    what: str, after: Evaluation, before: Evaluation, order: IntArray | slice = slice(None)
) -> None:
    for name, found, expected in (
        ("energy", after.energy, before.energy),
        ("gradient", after.gradient, before.gradient[:, order]),
        ("virial", after.virial, before.virial),
    ):
        deviation = float(np.abs(found - expected).max())
        assert deviation < 1e-10, f"{name} changes by {deviation:.2e} by {what}"


@dataclass(frozen=True)
class FixedCharges:
    """An engine whose charges nothing changes."""

    numbers: IntArray
    charges: FloatArray
    identity: str = "fixed charges"
    program: str = "fixed charges"
    embedding: EmbeddingKind = "electrostatic"
    properties: tuple[str, ...] = ()

    def evaluate(
        self, positions: FloatArray, potential: FloatArray, coulomb_correction: FloatArray | None = None
    ) -> QMResult:
        """The interaction of the charges with the potential and, by K, with their images."""
        energy = potential @ self.charges
        if coulomb_correction is not None:
            energy = energy + 0.5 * (coulomb_correction @ self.charges) @ self.charges
        charges = np.tile(self.charges, (len(positions), 1))
        return QMResult(energy, np.zeros(positions.shape), charges)


class _Bells:
    """sum_Ak (q_k + q_k^2) exp(-|R_A - r_k|^2 / 2 w^2), each QM atom A with a factor of its own."""

    provenance = Provenance("", "", {}, (), ())
    properties = ()
    uncertainty_threshold = np.inf

    def evaluate(self, region: Region) -> CorrectionResult:
        assert isinstance(region, CutRegion)
        q, factors = region.site_charges, 1.0 + 0.1 * np.arange(len(region.numbers))
        d = region.positions[:, :, None] - region.site_positions[:, None]
        bells = factors[:, None] * np.exp(-0.5 * (d**2).sum(axis=3) / _WIDTH**2)
        slopes = ((q + q * q)[:, None] * bells)[..., None] * d / -(_WIDTH**2)
        sums = bells.sum(axis=1)
        gradient = RegionGradient(slopes.sum(axis=2), -slopes.sum(axis=1), (1.0 + 2.0 * q) * sums)
        return CorrectionResult(((q + q * q) * sums).sum(axis=1), gradient)


_WIDTH = 8.0  # bohr: wide enough to be felt where charges are switched off
