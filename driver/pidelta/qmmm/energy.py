"""The sum E = E_DFTB + dE + E_MM, for a batch of structures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol, TypeVar

import numpy as np

from pidelta.delta.committee import Committee
from pidelta.errors import GeometryError
from pidelta.qm.base import QMEngine
from pidelta.qmmm.embedding import Embedding, Environment, EnvironmentGradient
from pidelta.qmmm.partition import Partition
from pidelta.qmmm.potential import point_charge_gradients, point_charge_potential
from pidelta.state import Evaluation, FloatArray, IntArray, Term

Result = TypeVar("Result")

TERMS = ("mm", "dftb", "delta")


class ClassicalEvaluator(Protocol):
    """A force field: bundled or OpenMM."""

    def evaluate(self, positions: FloatArray, cells: FloatArray | None) -> Term:
        """Energy, gradient and virial of positions (B, N, 3) with lattice rows (B, 3, 3)."""


class _Stopwatch:
    def __init__(self) -> None:
        self.timings: dict[str, float] = {}

    def time(self, part: str, function: Callable[[], Result]) -> Result:
        start = perf_counter()
        result = function()
        self.timings[part] = self.timings.get(part, 0.0) + perf_counter() - start
        return result


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
    """

    numbers: IntArray
    periodic: bool
    partition: Partition | None = None
    embedding: Embedding | None = None
    engine: QMEngine | None = None
    delta: Committee | None = None
    classical: ClassicalEvaluator | None = None

    def evaluate(self, positions: FloatArray, cells: FloatArray | None) -> Evaluation:
        """Evaluate a batch.

        Args:
            positions: (B, N, 3) in bohr.
            cells: (B, 3, 3) lattice rows in bohr; ignored where the system is not periodic.

        Raises:
            GeometryError: positions are not finite or do not fit the number of atoms.
        """
        self._check(positions)
        if not self.periodic:
            cells = None
        watch = _Stopwatch()
        terms: dict[str, Term] = {}
        extras: dict[str, FloatArray] = {}
        charges = dipole = None
        if self.classical is not None:
            classical = self.classical
            terms["mm"] = watch.time("mm", lambda: classical.evaluate(positions, cells))
        if self.embedding is not None and (self.engine is not None or self.delta is not None):
            embedding = self.embedding
            environment = watch.time("embedding", lambda: embedding.environment(positions, cells))
            if self.engine is not None:
                terms["dftb"], charges, extras = self._low_level(self.engine, environment, watch)
                dipole = np.einsum("ba,bai->bi", charges, environment.qm_positions)
            if self.delta is not None:
                terms["delta"], extras["delta_standard_deviation"] = self._correction(
                    self.delta, environment, watch
                )
        return Evaluation(terms, charges=charges, dipole=dipole, timings=watch.timings, extras=extras)

    def _check(self, positions: FloatArray) -> None:
        if positions.shape[1:] != (len(self.numbers), 3):
            raise GeometryError(
                f"expected {len(self.numbers)} atoms, found positions of {positions.shape[1:]}"
            )
        bad = np.argwhere(~np.isfinite(positions).all(axis=2))
        if len(bad):
            b, atom = bad[0]
            raise GeometryError(f"expected finite positions, found {positions[b, atom]} at atom {atom}")

    def _low_level(
        self, engine: QMEngine, environment: Environment, watch: _Stopwatch
    ) -> tuple[Term, FloatArray, dict[str, FloatArray]]:
        env = (environment.qm_positions, environment.positions, environment.charges)
        phi = watch.time("embedding", lambda: point_charge_potential(*env))
        result = watch.time("dftb", lambda: engine.evaluate(environment.qm_positions, phi))
        qm, positions, charges = watch.time(
            "embedding", lambda: point_charge_gradients(*env, qm_charges=result.charges)
        )
        gradient = EnvironmentGradient(result.gradient + qm, positions, charges)
        extras = {"scc_iterations": result.iterations.astype(np.float64)}
        if (environment.atoms < 0).all() and environment.charges.shape[1]:
            extras["point_charge_gradient"] = positions
        return self._term(result.energy, environment, gradient, watch), result.charges, extras

    def _correction(
        self, delta: Committee, environment: Environment, watch: _Stopwatch
    ) -> tuple[Term, FloatArray]:
        assert self.partition is not None
        numbers = self.partition.qm_numbers
        result = watch.time(
            "delta",
            lambda: delta.evaluate(
                numbers,
                environment.qm_positions,
                environment.positions,
                environment.charges,
                environment.numbers,
            ),
        )
        gradient = EnvironmentGradient(result.gradient, result.env_gradient, result.charge_gradient)
        return self._term(result.energy, environment, gradient, watch), result.standard_deviation

    def _term(
        self,
        energy: FloatArray,
        environment: Environment,
        gradient: EnvironmentGradient,
        watch: _Stopwatch,
    ) -> Term:
        assert self.embedding is not None
        embedding = self.embedding
        total, virial = watch.time("embedding", lambda: embedding.backpropagate(environment, gradient))
        return Term(energy, total, virial)
