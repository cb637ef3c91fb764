"""The sum E = E_DFTB + dE + E_MM, for a batch of structures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np

from pidelta.core.cell import FARTHEST, usable
from pidelta.delta.base import Correction
from pidelta.errors import GeometryError
from pidelta.qm.base import QMEngine, QMResult
from pidelta.qmmm.embedding import CutRegion, Embedding
from pidelta.qmmm.partition import Partition
from pidelta.qmmm.point_charges import point_charge_gradients, point_charge_potential
from pidelta.state import Evaluation, FloatArray, IntArray, RegionGradient, Term


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
        properties: names of the properties of `engine` to report.
    """

    numbers: IntArray
    periodic: bool
    partition: Partition | None = None
    embedding: Embedding | None = None
    engine: QMEngine | None = None
    delta: Correction | None = None
    classical: ClassicalEvaluator | None = None
    properties: tuple[str, ...] = ()

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
        properties: dict[str, FloatArray] = {}
        charges = dipole = kind = None
        if self.classical is not None:
            with watch("mm"):
                terms["mm"] = self.classical.evaluate(positions, cells)
        if self.embedding is not None and (self.engine is not None or self.delta is not None):
            with watch("embedding"):
                region = self.embedding.region(positions, cells)
            if self.engine is not None:
                low, gradient = _low_level(self.engine, region, watch)
                with watch("embedding"):
                    terms["low"] = _term(self.embedding, low.energy, region, gradient)
                kind = self.engine.embedding
                if kind == "electrostatic" or low.charges.any():  # else the method says nothing of charges
                    charges = low.charges
                    dipole = np.einsum("ba,bai->bi", charges, region.positions)
                properties.update({name: low.properties[name] for name in self.properties})
            if self.delta is not None:
                with watch("delta"):
                    delta = self.delta.evaluate(region)
                with watch("embedding"):
                    terms["delta"] = _term(self.embedding, delta.energy, region, delta.gradient)
                properties.update(delta.properties)
        return Evaluation(
            terms,
            charges=charges,
            dipole=dipole,
            timings=watch.timings,
            properties=properties,
            embedding=kind,
        )

    def _check(self, positions: FloatArray, cells: FloatArray | None) -> None:
        if positions.shape[1:] != (len(self.numbers), 3):
            raise GeometryError(f"expected {len(self.numbers)} atoms, found {positions.shape[1:]}")
        if self.periodic and cells is None:
            raise GeometryError("the system is periodic: expected a cell with the positions, found none")
        bad = np.argwhere(~usable(positions))
        if len(bad):
            b, atom = bad[0]
            raise GeometryError(
                f"structure {b}: expected finite positions below {FARTHEST:g} bohr, "
                f"found {positions[b, atom]} at atom {atom}"
            )


class _Stopwatch:
    """Wall time by part."""

    def __init__(self) -> None:
        self.timings: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.timings[part] += perf_counter() - start


def _low_level(engine: QMEngine, region: CutRegion, watch: _Stopwatch) -> tuple[QMResult, RegionGradient]:
    """The engine in the potential of the charges, and derivatives of its energy."""
    env = (region.positions, region.site_positions, region.site_charges)
    with watch("embedding"):
        phi = point_charge_potential(*env)
    with watch("low"):
        result = engine.evaluate(region.positions, phi)
    with watch("embedding"):
        qm, positions, charges = point_charge_gradients(*env, qm_charges=result.charges)
    return result, RegionGradient(result.gradient + qm, positions, charges)


def _term(embedding: Embedding, energy: FloatArray, region: CutRegion, gradient: RegionGradient) -> Term:
    total, virial = embedding.pull_back(region, gradient)
    fixed = gradient.site_positions if embedding.has_fixed_charges else None
    return Term(energy, total, virial, point_charge_gradient=fixed)
