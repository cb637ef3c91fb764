"""The built-in classical evaluator."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pidelta.core.charge_fields import ChargeFields
from pidelta.core.neighbours import Apply, Exclusions, PairList, VerletLists
from pidelta.mm.bonded import add_bonded
from pidelta.mm.checks import check_geometry, check_result
from pidelta.mm.electrostatics import LongRange
from pidelta.mm.nonbonded import Truncation, add_pairs
from pidelta.mm.settings import ForceFieldSettings
from pidelta.mm.topology import Topology
from pidelta.state import FloatArray, Term

COMPONENTS = (
    "bond", "quartic_bond", "morse_bond", "angle", "urey_bradley", "torsion", "improper", "cmap", "lj14",
    "coulomb14", "lj", "coulomb", "lj_tail",
)  # fmt: skip

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
        self._pool = ThreadPoolExecutor(settings.threads) if settings.threads > 1 else None
        exclusions = Exclusions(topology.exclusions, topology.n_particles)
        self._lists = VerletLists(self._truncation.cutoff, _SKIN, exclusions)

    def evaluate(self, particles: FloatArray, cells: FloatArray | None) -> Term:
        """Evaluate a batch.

        Args:
            particles: (B, P, 3) in bohr, unwrapped or not; any of them may be shifted by lattice vectors.
            cells: (B, 3, 3) lattice vectors as rows in bohr, or None without periodicity.

        Returns:
            The term with the gradient of the particles (B, P, 3) and the components COMPONENTS.

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
        energies = np.empty((batch, len(COMPONENTS)))
        gradient = np.zeros(particles.shape)
        strain = np.zeros((batch, 3, 3))

        def evaluate_one(b: int) -> None:
            energies[b] = self._evaluate_one(
                b, particles[b], lattices[b], lists[b], gradient[b], strain[b], within
            )

        list((across if batch > 1 else map)(evaluate_one, range(batch)))
        for b in range(batch):
            check_result(self.topology, b, float(energies[b].sum()), gradient[b])
        components = {name: energies[:, c].copy() for c, name in enumerate(COMPONENTS)}
        return Term(energies.sum(axis=1), gradient, -strain, components)

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
        bonded = add_bonded(x, cell, self.topology, gradient, strain)
        long_range = 0.0
        if self._long_range is not None and cell is not None:
            long_range = self._long_range.evaluate(b, x, cell, gradient, strain)
        return bonded, long_range, gradient, strain
