"""The sum E = E_low + dE + E_MM, for a batch of structures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Protocol

import numpy as np

from pidelta.core.cell import FARTHEST, all_usable, usable
from pidelta.core.particles import Particles
from pidelta.delta.base import Correction
from pidelta.errors import GeometryError, SCCConvergenceError
from pidelta.qm.base import QMEngine, QMResult
from pidelta.qmmm.coupling import Coupling
from pidelta.qmmm.members import committee_properties
from pidelta.qmmm.partition import Partition
from pidelta.qmmm.surroundings import CutRegion, Surroundings
from pidelta.state import PARTS, Evaluation, FloatArray, IntArray, Region, Term

VACUUM, EMBEDDING = PARTS["low"]
DELTA_VACUUM, DELTA_EMBEDDING = PARTS["delta"]


def is_embedded(terms: Collection[str]) -> bool:
    """Whether these terms have the low level in the field of its surroundings, not in vacuum alone."""
    return "low" in terms or EMBEDDING in terms


def has_whole_delta(terms: Collection[str]) -> bool:
    """Whether these terms ask the delta model for more than the QM region in vacuum."""
    return "delta" in terms or DELTA_EMBEDDING in terms


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
        members: those of `delta`, if what they give one by one is to be reported, too.
        classical: the force field, or parts of it, by the names of their terms.
        low_terms: ``low``, or which of its parts to give; `delta_terms` likewise.
        properties: names of the properties of `engine` to report, those of the QM region in its embedding.
        committee_properties: names of those of `members`.
    """

    numbers: IntArray
    periodic: bool
    particles: Particles
    partition: Partition | None = None
    surroundings: Surroundings | None = None
    coupling: Coupling | None = None
    engine: QMEngine | None = None
    delta: Correction | None = None
    members: tuple[Correction, ...] = ()
    classical: Mapping[str, ClassicalEvaluator] = field(default_factory=dict)
    low_terms: tuple[str, ...] = ("low",)
    delta_terms: tuple[str, ...] = ("delta",)
    properties: tuple[str, ...] = ()
    committee_properties: tuple[str, ...] = ()

    @property
    def knows_spread(self) -> bool:
        """Whether its results have the spread and the reach of the delta model: not those in vacuum alone."""
        return self.delta is not None and has_whole_delta(self.delta_terms)

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
        members: list[Term] = []
        charges = dipole = kind = None
        for name, evaluator in self.classical.items():
            with watch("mm"):
                terms[name] = evaluator.evaluate(particles, cells)
        if self.engine is not None and self.low_terms == (VACUUM,):
            terms[VACUUM] = self._in_vacuum(self.engine, particles, cells, watch)
        if self.delta is not None and DELTA_VACUUM in self.delta_terms:
            terms[DELTA_VACUUM] = self._correction_in_vacuum(self.delta, particles, cells, watch)
        embedded = self.engine is not None and VACUUM not in terms
        delta = self.delta if self.knows_spread else None
        if self.surroundings is not None and (embedded or delta is not None):
            with watch("embedding"):
                region = self.surroundings.cut(particles, cells)
            if self.engine is not None and embedded:
                low_terms, low = self._low_level(self.engine, particles, cells, region, watch)
                terms.update(low_terms)
                kind = self.engine.embedding
                if kind == "electrostatic" or low.charges.any():  # else the method says nothing of charges
                    charges = low.charges
                    dipole = np.einsum("ba,bai->bi", charges, region.positions)
                properties.update({name: low.properties[name] for name in self.properties})
            if delta is not None:
                whole, of_delta = self._correction(delta, region, watch)
                if DELTA_EMBEDDING in self.delta_terms:
                    vacuum = terms.get(DELTA_VACUUM)
                    if vacuum is None:
                        vacuum = self._correction_in_vacuum(delta, particles, cells, watch)
                    terms[DELTA_EMBEDDING] = _difference(whole, vacuum)
                else:
                    terms["delta"] = whole
                properties.update(of_delta)
                members = [self._correction(member, region, watch)[0] for member in self.members]
        for name, term in terms.items():
            _check_size(name, term.energy)
        evaluation = Evaluation(
            {name: self._of_atoms(term, particles, cells) for name, term in terms.items()},
            charges=charges,
            dipole=dipole,
            timings=watch.timings,
            properties=properties,
            embedding=kind,
        )
        if not members:
            return evaluation
        own = [self._of_atoms(member, particles, cells) for member in members]
        more = committee_properties(evaluation, own, self.committee_properties)
        return replace(evaluation, properties={**properties, **more})

    def _correction(
        self, delta: Correction, region: CutRegion, watch: _Stopwatch
    ) -> tuple[Term, Mapping[str, FloatArray]]:
        """A correction with the gradient of the particles, and its properties."""
        assert self.surroundings is not None
        with watch("delta"):
            result = delta.evaluate(region)
        with watch("embedding"):
            gradient, virial = self.surroundings.pull_back(region, result.gradient)
        return Term(result.energy, gradient, virial), result.properties

    def _correction_in_vacuum(
        self, delta: Correction, particles: FloatArray, cells: FloatArray | None, watch: _Stopwatch
    ) -> Term:
        """A correction of the QM region without any site."""
        assert self.surroundings is not None
        assert self.partition is not None
        with watch("embedding"):
            positions = self.surroundings.qm_positions(particles, cells)
        batch = len(positions)
        bare = Region(
            self.partition.qm_numbers,
            positions,
            np.zeros((batch, 0, 3)),
            np.zeros((batch, 0)),
            np.zeros((batch, 0), dtype=np.int64),
        )
        with watch("delta"):
            result = delta.evaluate(bare)
        return self._of_region(result.energy, result.gradient.positions, positions, particles.shape)

    def _low_level(
        self,
        engine: QMEngine,
        particles: FloatArray,
        cells: FloatArray | None,
        region: CutRegion,
        watch: _Stopwatch,
    ) -> tuple[dict[str, Term], QMResult]:
        """The engine in the field of what surrounds the QM region, with the gradient of the particles.

        Parts of it take another evaluation in vacuum, in the same batch.
        """
        assert self.coupling is not None
        batch, positions = len(region), region.positions
        with watch("embedding"):
            field = self.coupling.field(particles, cells, region)
        potential, kernel = field.potential, field.kernel
        if self.low_terms != ("low",):
            positions = np.concatenate([positions, positions])
            potential = np.concatenate([potential, np.zeros_like(potential)])
            kernel = None if kernel is None else np.concatenate([kernel, np.zeros_like(kernel)])
        with watch("low"), _failing_in_vacuum(batch):
            result = engine.evaluate(positions, potential, kernel)
        low = result.first(batch)
        with watch("embedding"):
            gradient, virial = self.coupling.pull_back(field, low.charges)
        energy, at_qm = low.energy, low.gradient
        terms: dict[str, Term] = {}
        if self.low_terms != ("low",):
            energy, at_qm = energy - result.energy[batch:], at_qm - result.gradient[batch:]
            vacuum = self._of_region(
                result.energy[batch:], result.gradient[batch:], region.positions, particles.shape
            )
            terms = {VACUUM: vacuum}
        own = self._of_region(energy, at_qm, region.positions, particles.shape)
        name = EMBEDDING if terms else "low"
        terms[name] = Term(own.energy, own.gradient + gradient, own.virial + virial)
        return {name: terms[name] for name in self.low_terms}, low

    def _in_vacuum(
        self, engine: QMEngine, particles: FloatArray, cells: FloatArray | None, watch: _Stopwatch
    ) -> Term:
        """The engine without a field."""
        assert self.surroundings is not None
        with watch("embedding"):
            positions = self.surroundings.qm_positions(particles, cells)
        with watch("low"), _failing_in_vacuum(0):
            result = engine.evaluate(positions, np.zeros(positions.shape[:2]))
        return self._of_region(result.energy, result.gradient, positions, particles.shape)

    def _of_region(
        self, energy: FloatArray, gradient: FloatArray, positions: FloatArray, shape: tuple[int, ...]
    ) -> Term:
        """A term of the QM atoms at `positions` (B, n, 3) as one of particles (B, P, 3)."""
        assert self.partition is not None
        total = np.zeros(shape)
        total[:, self.partition.qm_indices] = gradient
        return Term(energy, total, -np.einsum("bai,baj->bij", gradient, positions))

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
        if not all_usable(positions):
            b, atom = np.argwhere(~usable(positions))[0]
            raise GeometryError(
                f"structure {b}: expected finite positions below {FARTHEST:g} bohr, "
                f"found {positions[b, atom]} at atom {atom}"
            )


@contextmanager
def _failing_in_vacuum(first: int) -> Iterator[None]:
    """Say of a failure that it is one in vacuum, as the structures of a batch from `first` on are."""
    try:
        yield
    except SCCConvergenceError as error:
        if error.structure < first:
            raise
        raise SCCConvergenceError(
            error.structure - first,
            error.iterations,
            error.last_change,
            error.numbers,
            error.positions,
            in_vacuum=True,
        ) from None


def _difference(one: Term, other: Term) -> Term:
    return Term(one.energy - other.energy, one.gradient - other.gradient, one.virial - other.virial)


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
