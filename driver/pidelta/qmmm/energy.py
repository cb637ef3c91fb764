"""The sum E = E_DFTB + dE + E_MM, for a batch of structures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np

from pidelta.delta.committee import Committee, CommitteeResult
from pidelta.errors import GeometryError
from pidelta.qm.base import PropertyName, QMEngine, QMResult
from pidelta.qmmm.embedding import Embedding, Environment, EnvironmentGradient
from pidelta.qmmm.partition import Partition
from pidelta.qmmm.potential import point_charge_gradients, point_charge_potential
from pidelta.state import Evaluation, FloatArray, IntArray, Term


class ClassicalEvaluator(Protocol):
    """A force field: bundled or OpenMM."""

    def evaluate(self, positions: FloatArray, cells: FloatArray | None) -> Term:
        """Energy, gradient and virial of positions (B, N, 3) with lattice rows (B, 3, 3)."""


@dataclass(frozen=True)
class QMMMEvaluator:
    """Evaluates the terms it is given; a term that is None is left out.

    Attributes:
        numbers: (N,) atomic numbers of all atoms.
        periodic: whether cells mean anything; i-PI sends one for a molecule in vacuum, too.
        partition: the QM region, or None for a purely classical system.
        embedding: the point charges that `engine` and `delta` feel.
        engine: the low-level QM method.
        delta: the correction to it.
        classical: the force field.
        properties: results of `engine` to add to the extras.
    """

    numbers: IntArray
    periodic: bool
    partition: Partition | None = None
    embedding: Embedding | None = None
    engine: QMEngine | None = None
    delta: Committee | None = None
    classical: ClassicalEvaluator | None = None
    properties: tuple[PropertyName, ...] = ()

    def evaluate(self, positions: FloatArray, cells: FloatArray | None) -> Evaluation:
        """Evaluate a batch.

        Args:
            positions: (B, N, 3) in bohr.
            cells: (B, 3, 3) lattice rows in bohr; ignored where the system is not periodic.

        Raises:
            GeometryError: positions are not finite, do not fit the number of atoms, or come without the cell
                of a periodic system.
        """
        self._check(positions, cells)
        cells = cells if self.periodic else None
        watch = _Stopwatch()
        terms: dict[str, Term] = {}
        extras: dict[str, FloatArray] = {}
        charges = dipole = kind = None
        if self.classical is not None:
            with watch("mm"):
                terms["mm"] = self.classical.evaluate(positions, cells)
        if self.embedding is not None and (self.engine is not None or self.delta is not None):
            with watch("embedding"):
                environment = self.embedding.environment(positions, cells)
            if self.engine is not None:
                low, gradient = _low_level(self.engine, environment, watch)
                with watch("embedding"):
                    terms["dftb"] = _term(self.embedding, low.energy, environment, gradient)
                kind = low.embedding
                if kind == "electrostatic" or low.charges.any():  # else the method says nothing of charges
                    charges = low.charges
                    dipole = np.einsum("ba,bai->bi", charges, environment.qm_positions)
                extras["scc_iterations"] = low.iterations.astype(np.float64)
                if low.fallbacks is not None:
                    extras["scc_fallbacks"] = low.fallbacks.astype(np.float64)
                extras.update({name: low.property(name) for name in self.properties})
            if self.delta is not None and self.partition is not None:
                with watch("delta"):
                    delta = _correction(self.delta, self.partition.qm_numbers, environment)
                gradient = EnvironmentGradient(delta.gradient, delta.env_gradient, delta.charge_gradient)
                with watch("embedding"):
                    terms["delta"] = _term(self.embedding, delta.energy, environment, gradient)
                extras["delta_standard_deviation"] = delta.standard_deviation
        return Evaluation(
            terms, charges=charges, dipole=dipole, timings=watch.timings, extras=extras, embedding=kind
        )

    def _check(self, positions: FloatArray, cells: FloatArray | None) -> None:
        if positions.shape[1:] != (len(self.numbers), 3):
            raise GeometryError(f"expected {len(self.numbers)} atoms, found {positions.shape[1:]}")
        if self.periodic and cells is None:
            raise GeometryError("the system is periodic: expected a cell with the positions, found none")
        bad = np.argwhere(~np.isfinite(positions).all(axis=2))
        if len(bad):
            b, atom = bad[0]
            raise GeometryError(f"expected finite positions, found {positions[b, atom]} at atom {atom}")


class _Stopwatch:
    """Wall time by part."""

    def __init__(self) -> None:
        self.timings: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.timings[part] += perf_counter() - start


def _low_level(
    engine: QMEngine, environment: Environment, watch: _Stopwatch
) -> tuple[QMResult, EnvironmentGradient]:
    """The engine in the potential of the charges, and derivatives of its energy."""
    env = (environment.qm_positions, environment.positions, environment.charges)
    with watch("embedding"):
        phi = point_charge_potential(*env)
    with watch("dftb"):
        result = engine.evaluate(environment.qm_positions, phi)
    with watch("embedding"):
        qm, positions, charges = point_charge_gradients(*env, qm_charges=result.charges)
    return result, EnvironmentGradient(result.gradient + qm, positions, charges)


def _correction(delta: Committee, numbers: IntArray, environment: Environment) -> CommitteeResult:
    return delta.evaluate(
        numbers,
        environment.qm_positions,
        environment.positions,
        environment.charges,
        environment.numbers,
    )


def _term(
    embedding: Embedding, energy: FloatArray, environment: Environment, gradient: EnvironmentGradient
) -> Term:
    total, virial = embedding.backpropagate(environment, gradient)
    fixed = gradient.positions if embedding.has_fixed_charges else None
    return Term(energy, total, virial, point_charge_gradient=fixed)
