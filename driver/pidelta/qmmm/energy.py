"""The sum E = E_low + dE + E_MM, for a batch of structures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Protocol

import numpy as np

from pidelta.core.cell import FARTHEST, usable
from pidelta.core.particles import Particles
from pidelta.delta.base import Correction
from pidelta.errors import GeometryError
from pidelta.qm.base import QMEngine, QMResult
from pidelta.qmmm.coupling import Coupling
from pidelta.qmmm.partition import Partition
from pidelta.qmmm.surroundings import CutRegion, Surroundings
from pidelta.state import Evaluation, FloatArray, IntArray, Term

# Beyond it a double has no digits left below 1e-4 hartree.
_LARGEST_ENERGY = 1e12


class ClassicalEvaluator(Protocol):
    """A force field: bundled or OpenMM."""

    def evaluate(self, particles: FloatArray, cells: FloatArray | None) -> Term:
        """Energy, gradient (B, P, 3) and virial of particles (B, P, 3) with lattice rows (B, 3, 3)."""


@dataclass(frozen=True)
class QMMMEvaluator:
    """Evaluates the terms it is given; a term that is None is left out.

    Attributes:
        numbers: (N,) atomic numbers of all atoms.
        periodic: whether cells mean anything; i-PI sends one for a molecule in vacuum, too.
        particles: what the terms evaluate in place of atoms.
        partition: the QM region, or None for a purely classical system.
        surroundings: the point charges around it that `delta` sees, and `coupling` if it is made of them.
        coupling: the potential that `engine` feels.
        engine: the low-level QM method.
        delta: the correction to it.
        classical: the force field.
        properties: names of the properties of `engine` to report.
    """

    numbers: IntArray
    periodic: bool
    particles: Particles
    partition: Partition | None = None
    surroundings: Surroundings | None = None
    coupling: Coupling | None = None
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
        particles = self.particles.place(positions, cells)
        terms: dict[str, Term] = {}
        properties: dict[str, FloatArray] = {}
        charges = dipole = kind = None
        if self.classical is not None:
            with watch("mm"):
                terms["mm"] = self.classical.evaluate(particles, cells)
        if self.surroundings is not None and (self.engine is not None or self.delta is not None):
            with watch("embedding"):
                region = self.surroundings.cut(particles, cells)
            if self.engine is not None:
                terms["low"], low = self._low_level(self.engine, particles, cells, region, watch)
                kind = self.engine.embedding
                if kind == "electrostatic" or low.charges.any():  # else the method says nothing of charges
                    charges = low.charges
                    dipole = np.einsum("ba,bai->bi", charges, region.positions)
                properties.update({name: low.properties[name] for name in self.properties})
            if self.delta is not None:
                with watch("delta"):
                    delta = self.delta.evaluate(region)
                with watch("embedding"):
                    terms["delta"] = Term(delta.energy, *self.surroundings.pull_back(region, delta.gradient))
                properties.update(delta.properties)
        for name, term in terms.items():
            _check_size(name, term.energy)
        return Evaluation(
            {name: self._of_atoms(term, particles, cells) for name, term in terms.items()},
            charges=charges,
            dipole=dipole,
            timings=watch.timings,
            properties=properties,
            embedding=kind,
        )

    def _low_level(
        self,
        engine: QMEngine,
        particles: FloatArray,
        cells: FloatArray | None,
        region: CutRegion,
        watch: _Stopwatch,
    ) -> tuple[Term, QMResult]:
        """The engine in the field of what surrounds the QM region, with the gradient of the particles."""
        assert self.coupling is not None
        assert self.partition is not None
        with watch("embedding"):
            field = self.coupling.field(particles, cells, region)
        with watch("low"):
            result = engine.evaluate(region.positions, field.potential, field.kernel)
        with watch("embedding"):
            gradient, virial = self.coupling.pull_back(field, result.charges)
            gradient[:, self.partition.qm_indices] += result.gradient
            virial -= np.einsum("bai,baj->bij", result.gradient, region.positions)
        return Term(result.energy, gradient, virial), result

    def _of_atoms(self, term: Term, particles: FloatArray, cells: FloatArray | None) -> Term:
        """A term of particles as one of atoms and fixed point charges."""
        gradient, virial = self.particles.pull_back(particles, cells, term.gradient, term.virial)
        fixed = len(self.particles.fixed)
        charges = term.gradient[:, len(self.particles) - fixed :] if fixed else None
        return replace(term, gradient=gradient, virial=virial, point_charge_gradient=charges)

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


def _check_size(name: str, energy: FloatArray) -> None:
    """Nonsense in a file may give numbers that are finite and yet no energies."""
    bad = np.flatnonzero(~(np.abs(energy) < _LARGEST_ENERGY))
    if len(bad):
        raise GeometryError(
            f"structure {bad[0]}: expected an energy below {_LARGEST_ENERGY:g} hartree in size from {name}, "
            f"found {energy[bad[0]]:g}"
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
