"""The built-in classical evaluator."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict

import numpy as np

from pidelta.core.neighbours import Apply, Exclusions, PairList, VerletLists
from pidelta.errors import SettingError
from pidelta.mm.bonded import add_bonded
from pidelta.mm.checks import cell_problem, check_geometry, check_result
from pidelta.mm.electrostatics import LongRange
from pidelta.mm.lennard_jones import LJModifier, tail_coefficient
from pidelta.mm.nonbonded import Truncation, add_pairs
from pidelta.mm.topology import Topology
from pidelta.state import FloatArray, Term

COMPONENTS = (
    "bond", "quartic_bond", "morse_bond", "angle", "urey_bradley", "torsion", "improper", "cmap", "lj14",
    "coulomb14", "lj", "coulomb", "lj_tail",
)  # fmt: skip


class PairSettings(TypedDict):
    """What `MMEvaluator` and `OpenMMEvaluator` both take, as the former describes it."""

    cutoff: float | None
    cell: FloatArray | None
    electrostatics: str
    ewald_tolerance: float
    reaction_field_dielectric: float
    lj_modifier: LJModifier
    dispersion_correction: bool
    threads: int


class MMEvaluator:
    """Energy and gradient of a topology; atom-based cutoffs in periodic cells of any shape.

    Without cells there is no truncation: all pairs interact, by bare Coulomb, whatever the cutoff.

    Args:
        topology: what to evaluate.
        cutoff: of Lennard-Jones and Coulomb in bohr; None for systems that are never periodic.
        cell: (3, 3) lattice vectors as rows in bohr, to check the cutoff before anything runs.
        electrostatics: ``pme``, ``ewald``, ``reaction-field``, or ``cutoff`` for a potential that is only
            shifted to zero at the cutoff (a reaction field of dielectric constant 1).
        ewald_tolerance: of ``pme`` and ``ewald``, as `LongRange` has it.
        reaction_field_dielectric: infinite (the force vanishes at the cutoff) or at least 1.
        switch_distance: in bohr, where the switch of Lennard-Jones starts; 0.9 cutoff if None.
        lj_modifier: how Lennard-Jones ends: ``switch``, ``potential-shift`` (to zero at the cutoff, the force
            jumps) or ``none`` (both jump).
        dispersion_correction: add the Lennard-Jones energy beyond the cutoff of a homogeneous system.
        skin: in bohr; pair lists are rebuilt when an atom has moved by half of it.
        threads: over the structures of a batch, or over the parts of one; results do not depend on it.

    Raises:
        SettingError: an option is out of range, or the cutoff exceeds half of the smallest height of the
            cell.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        cutoff: float | None,
        cell: FloatArray | None = None,
        electrostatics: str = "reaction-field",
        ewald_tolerance: float = 1e-4,
        reaction_field_dielectric: float = np.inf,
        switch_distance: float | None = None,
        lj_modifier: LJModifier = "switch",
        dispersion_correction: bool = False,
        skin: float = 2.0,
        threads: int = 1,
    ) -> None:
        self.topology = topology
        self._cutoff = cutoff
        if cutoff is None:
            self._truncation = Truncation()
        else:
            switch, dielectric = truncation_options(
                cutoff, switch_distance, electrostatics, reaction_field_dielectric
            )
            self._truncation = Truncation.reaction_field(cutoff, switch, dielectric).end_lj(lj_modifier)
        self._tail = 0.0
        if dispersion_correction and cutoff is not None:
            end = self._truncation
            self._tail = tail_coefficient(
                topology.lj_types, topology.lj_c6, topology.lj_c12, end.cutoff, end.switch, end.shift6
            )
        if cell is not None:
            problem = cell_problem(cell, cutoff)
            if problem:
                raise SettingError("cutoff", problem)
        self._long_range: LongRange | None = None
        if cutoff is not None and electrostatics in ("pme", "ewald"):
            self._long_range = LongRange(electrostatics, cutoff, ewald_tolerance, topology.exclusions, cell)
            self._truncation = self._long_range.truncate(self._truncation)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        exclusions = Exclusions(topology.exclusions, topology.n_particles)
        self._lists = VerletLists(self._truncation.cutoff, skin, exclusions)

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
                particles[b], lattices[b], lists[b], gradient[b], strain[b], within
            )

        list((across if batch > 1 else map)(evaluate_one, range(batch)))
        for b in range(batch):
            check_result(self.topology, b, float(energies[b].sum()), gradient[b])
        components = {name: energies[:, c].copy() for c, name in enumerate(COMPONENTS)}
        return Term(energies.sum(axis=1), gradient, -strain, components)

    def _evaluate_one(
        self,
        x: FloatArray,
        cell: FloatArray | None,
        pairs: PairList,
        gradient: FloatArray,
        strain: FloatArray,
        apply: Apply,
    ) -> tuple[float, ...]:
        """Add to the gradient and dE/d(strain) of one structure; return its energies."""
        end = self._truncation if cell is not None else Truncation()
        # on another thread, where there is one, while this one waits for the parts of the pairs
        others = apply(lambda _: self._evaluate_others(x, cell), [0])
        lj, coulomb = add_pairs(x, pairs, self.topology, end, gradient, strain, apply)
        ((bonded, long_range, other_gradient, other_strain),) = others
        coulomb += long_range
        gradient += other_gradient
        strain += other_strain
        tail = 0.0 if cell is None else self._tail / abs(float(np.linalg.det(cell)))
        strain -= tail * np.eye(3)
        return *bonded, lj, coulomb, tail

    def _evaluate_others(
        self, x: FloatArray, cell: FloatArray | None
    ) -> tuple[tuple[float, ...], float, FloatArray, FloatArray]:
        """Energies of the bonded terms and of what an Ewald sum adds, their gradient and dE/d(strain)."""
        gradient, strain = np.zeros(x.shape), np.zeros((3, 3))
        bonded = add_bonded(x, cell, self.topology, gradient, strain)
        long_range = 0.0
        if self._long_range is not None and cell is not None:
            long_range = self._long_range.evaluate(x, self.topology.charges, cell, gradient, strain)
        return bonded, long_range, gradient, strain


def truncation_options(
    cutoff: float, switch_distance: float | None, electrostatics: str, reaction_field_dielectric: float
) -> tuple[float, float]:
    """The distance in bohr where the Lennard-Jones switch starts, and the dielectric constant.

    Raises:
        SettingError: an option is out of range.
    """
    if electrostatics not in ("pme", "ewald", "reaction-field", "cutoff"):
        raise SettingError(
            "electrostatics", f"expected pme, ewald, reaction-field or cutoff, found {electrostatics!r}"
        )
    dielectric = 1.0 if electrostatics == "cutoff" else reaction_field_dielectric
    switch = 0.9 * cutoff if switch_distance is None else switch_distance
    if not 0.0 < switch < cutoff:
        raise SettingError(
            "switch_distance",
            f"expected a distance between 0 and the cutoff of {cutoff:.3f} bohr, found {switch:.3f} bohr",
        )
    if not dielectric >= 1.0:
        raise SettingError("reaction_field_dielectric", f"expected at least 1, found {dielectric}")
    return switch, dielectric
