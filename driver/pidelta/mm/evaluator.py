"""The built-in classical evaluator, and its bonded part alone."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pidelta.core.charge_fields import ChargeFields
from pidelta.core.neighbours import Apply, VerletLists
from pidelta.core.pair_list import Exclusions, PairList
from pidelta.mm.bonded import COMPONENTS as BONDED_COMPONENTS
from pidelta.mm.bonded import add_bonded
from pidelta.mm.checks import check_geometry, check_result
from pidelta.mm.electrostatics import LongRange
from pidelta.mm.nonbonded import Truncation, add_pairs
from pidelta.mm.settings import ForceFieldSettings, Part
from pidelta.mm.topology import Topology
from pidelta.state import FloatArray, Term

NONBONDED_COMPONENTS = ("lj", "coulomb", "lj_tail")
COMPONENTS = (*BONDED_COMPONENTS, *NONBONDED_COMPONENTS)
_OF_PARTS = {"bonded": BONDED_COMPONENTS, "nonbonded": NONBONDED_COMPONENTS}


def components_of(part: Part | None) -> tuple[str, ...]:
    """Names of the components of a part of the terms, of all if None."""
    return COMPONENTS if part is None else _OF_PARTS[part]


_SKIN = 2.0  # bohr; pair lists are rebuilt when an atom has moved by half of it


class MMEvaluator:
    """Energy and gradient of a topology; atom-based cutoffs in periodic cells of any shape.

    Without cells there is no truncation: all pairs interact, by bare Coulomb, whatever the cutoff.

    Args:
        topology: what to evaluate.
        settings: how; the threads share the structures of a batch, or the parts of one.
        cell: (3, 3) lattice vectors as rows in bohr, to check the cutoff before anything runs, and for the
            mesh of ``pme``.
        fields: of the charges of the topology by the Ewald sum of the settings, where another term of a
            request takes them up.
        bonded: whether the bonded terms are part of it, those of a `BondedEvaluator`.

    Raises:
        SettingError: the cutoff exceeds half of the smallest height of the cell, or the tolerance is too
            small for the memory of PME's mesh.
    """

    def __init__(
        self,
        topology: Topology,
        settings: ForceFieldSettings,
        cell: FloatArray | None = None,
        fields: ChargeFields | None = None,
        *,
        bonded: bool = True,
    ) -> None:
        self.topology = topology
        self._cutoff = settings.cutoff
        self._truncation = settings.truncation
        self._tail = settings.tail(topology)
        if cell is not None:
            settings.check_cell(cell)
        self._long_range: LongRange | None = None
        if settings.cutoff is not None and settings.electrostatics in ("pme", "ewald"):
            self._long_range = LongRange(
                settings.electrostatics,
                settings.cutoff,
                settings.ewald_tolerance,
                topology.exclusions,
                topology.charges,
                cell,
                fields,
            )
            self._truncation = self._long_range.truncate(self._truncation)
        self._bonded = bonded
        self._components = COMPONENTS if bonded else NONBONDED_COMPONENTS
        self._pool = ThreadPoolExecutor(settings.threads) if settings.threads > 1 else None
        exclusions = Exclusions(topology.exclusions, topology.n_particles)
        self._lists = VerletLists(self._truncation.cutoff, _SKIN, exclusions)

    def evaluate(self, particles: FloatArray, cells: FloatArray | None) -> Term:
        """Evaluate a batch.

        Args:
            particles: (B, P, 3) in bohr, unwrapped or not; any of them may be shifted by lattice vectors.
            cells: (B, 3, 3) lattice vectors as rows in bohr, or None without periodicity.

        Returns:
            The term with the gradient of the particles (B, P, 3) and the components COMPONENTS, or those that
            are not bonded.

        Raises:
            GeometryError: positions are not finite or not of these particles, two coincide, or a cell is too
                small for the cutoff.
        """
        particles = np.ascontiguousarray(particles, dtype=np.float64)
        batch = len(particles)
        check_geometry(self.topology, particles, cells, self._cutoff)
        lattices: list[FloatArray | None] = [None] * batch
        if cells is not None:
            lattices = list(np.ascontiguousarray(cells, dtype=np.float64))
        if self._long_range is not None and cells is not None:
            self._long_range.prepare(cells[0])
        across: Apply = map if self._pool is None else self._pool.map
        within: Apply = map if batch > 1 else across
        lists = self._lists.find_all(particles, lattices, across)
        energies = np.empty((batch, len(self._components)))
        gradient = np.zeros(particles.shape)
        strain = np.zeros((batch, 3, 3))

        def evaluate_one(b: int) -> None:
            energies[b] = self._evaluate_one(
                b, particles[b], lattices[b], lists[b], gradient[b], strain[b], within
            )

        list((across if batch > 1 else map)(evaluate_one, range(batch)))
        return _checked_term(self.topology, self._components, energies, gradient, strain)

    def _evaluate_one(
        self,
        b: int,
        x: FloatArray,
        cell: FloatArray | None,
        pairs: PairList,
        gradient: FloatArray,
        strain: FloatArray,
        apply: Apply,
    ) -> tuple[float, ...]:
        """Add to the gradient and dE/d(strain) of structure b; return its energies."""
        end = self._truncation if cell is not None else Truncation()
        # on another thread, where there is one, while this one waits for the parts of the pairs
        others = apply(lambda _: self._evaluate_others(b, x, cell), [0])
        lj, coulomb = add_pairs(x, pairs, self.topology, end, gradient, strain, apply)
        ((bonded, long_range, other_gradient, other_strain),) = others
        coulomb += long_range
        gradient += other_gradient
        strain += other_strain
        tail = 0.0 if cell is None else self._tail / abs(float(np.linalg.det(cell)))
        strain -= tail * np.eye(3)
        return *bonded, lj, coulomb, tail

    def _evaluate_others(
        self, b: int, x: FloatArray, cell: FloatArray | None
    ) -> tuple[tuple[float, ...], float, FloatArray, FloatArray]:
        """Energies of the bonded terms and of what an Ewald sum adds, their gradient and dE/d(strain)."""
        gradient, strain = np.zeros(x.shape), np.zeros((3, 3))
        bonded = add_bonded(x, cell, self.topology, gradient, strain) if self._bonded else ()
        long_range = 0.0
        if self._long_range is not None and cell is not None:
            long_range = self._long_range.evaluate(b, x, cell, gradient, strain)
        return bonded, long_range, gradient, strain


class BondedEvaluator:
    """The bonded terms of a topology and its 1-4 pairs, without pair lists or a mesh.

    Args:
        topology: what to evaluate.
        settings: the cutoff, for the same check of cells as in the whole.
    """

    def __init__(self, topology: Topology, settings: ForceFieldSettings) -> None:
        self.topology = topology
        self._cutoff = settings.cutoff

    def evaluate(self, particles: FloatArray, cells: FloatArray | None) -> Term:
        """As `MMEvaluator.evaluate`, with the components of `pidelta.mm.bonded`."""
        particles = np.ascontiguousarray(particles, dtype=np.float64)
        batch = len(particles)
        check_geometry(self.topology, particles, cells, self._cutoff)
        energies = np.empty((batch, len(BONDED_COMPONENTS)))
        gradient = np.zeros(particles.shape)
        strain = np.zeros((batch, 3, 3))
        for b, x in enumerate(particles):
            cell = None if cells is None else np.ascontiguousarray(cells[b], dtype=np.float64)
            energies[b] = add_bonded(x, cell, self.topology, gradient[b], strain[b])
        return _checked_term(self.topology, BONDED_COMPONENTS, energies, gradient, strain)


def _checked_term(
    topology: Topology,
    names: Sequence[str],
    energies: FloatArray,
    gradient: FloatArray,
    strain: FloatArray,
) -> Term:
    """A term of energies (B, C) of named components, its gradient (B, P, 3) and dE/d(strain) (B, 3, 3)."""
    for b, energy in enumerate(energies.sum(axis=1)):
        check_result(topology, b, float(energy), gradient[b])
    components = {name: energies[:, c].copy() for c, name in enumerate(names)}
    return Term(energies.sum(axis=1), gradient, -strain, components)
