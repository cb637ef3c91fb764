"""Conformance of QM/MM: one suite for any coupling, surroundings, engine, force field and correction.

    setup = Setup(load_config(path))
    sample = Sample.of(setup.system, setup.topology.bonded_pairs, setup.qm_indices)
    check_qmmm(setup.evaluator(), sample, Tolerances(mesh=1e-4))

`check_qmmm` raises AssertionError with what deviates and by how much. A part of an evaluator is checked by
the same suite, with the other parts left out or replaced by simple ones: `check_coupling`,
`check_surroundings`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pidelta.delta.base import CorrectionResult, Provenance
from pidelta.qm.base import EmbeddingKind, QMResult
from pidelta.qmmm.coupling import Coupling
from pidelta.qmmm.energy import QMMMEvaluator
from pidelta.state import FloatArray, IntArray, Region, RegionGradient
from pidelta.testing.evaluators import check_evaluator
from pidelta.testing.samples import Sample, Tolerances, kinds_of_atoms

_EXACT = Tolerances(scc=0.0, rounding=1e-11)


def check_qmmm(
    evaluator: QMMMEvaluator, sample: Sample, tolerances: Tolerances | None = None, *, count: int = 3
) -> None:
    """All checks of an evaluator.

    Central differences over atoms of every kind that there is (`kinds_of_atoms`) and over all at once; the
    virial against strained cells; net force, and torque without a cell; translation and rotation; lattice
    vectors added to molecules and to atoms; like molecules changing places; a batch beside its structures;
    arrays of any layout; no memory of earlier calls.

    Args:
        evaluator: as `Setup(config).evaluator()` makes it, or put together by hand.
        sample: structures of its atoms.
        tolerances: how exact it is, by its parts.
        count: of atoms of each kind whose differences are taken.
    """
    atoms = kinds_of_atoms(evaluator, sample.positions[0], sample.cell(0), count)
    anchored = len(evaluator.particles.fixed) > 0
    check_evaluator(evaluator, sample, tolerances or Tolerances(), atoms, anchored=anchored)


def check_coupling(
    evaluator: QMMMEvaluator,
    coupling: Coupling,
    sample: Sample,
    charges: FloatArray,
    tolerances: Tolerances = _EXACT,
) -> None:
    """All checks of the energy of fixed QM charges (n,) in e in the field of a coupling.

    Args:
        evaluator: with the particles, the partition and the surroundings; its terms are not used.
        coupling: what is checked.
        sample: structures.
        charges: of the QM atoms, not all alike.
        tolerances: how exact it is.
    """
    assert evaluator.partition is not None
    engine = FixedChargeEngine(evaluator.partition.qm_numbers, charges)
    parts = replace(evaluator, coupling=coupling, engine=engine, delta=None, classical={})
    check_qmmm(parts, sample, tolerances, count=6)


def check_surroundings(evaluator: QMMMEvaluator, sample: Sample) -> None:
    """All checks of an energy that depends on every array of the region of the surroundings.

    Args:
        evaluator: with the particles, the partition and the surroundings; its terms are not used.
        sample: structures.
    """
    check_qmmm(replace(evaluator, engine=None, delta=_Bells(), classical={}), sample, _EXACT, count=6)


@dataclass(frozen=True)
class FixedChargeEngine:
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
        q, factors = region.site_charges, 1.0 + 0.1 * np.arange(len(region.numbers))
        d = region.positions[:, :, None] - region.site_positions[:, None]
        bells = factors[:, None] * np.exp(-0.5 * (d**2).sum(axis=3) / _WIDTH**2)
        slopes = ((q + q * q)[:, None] * bells)[..., None] * d / -(_WIDTH**2)
        sums = bells.sum(axis=1)
        gradient = RegionGradient(slopes.sum(axis=2), -slopes.sum(axis=1), (1.0 + 2.0 * q) * sums)
        return CorrectionResult(((q + q * q) * sums).sum(axis=1), gradient)


_WIDTH = 8.0  # bohr: wide enough to be felt where charges are switched off
