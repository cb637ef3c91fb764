"""The built-in classical evaluator."""

from __future__ import annotations

import numpy as np

from pidelta.core.cell import heights
from pidelta.core.neighbours import Exclusions, VerletLists
from pidelta.errors import GeometryError, SetupError
from pidelta.mm.bonded import add_bonded
from pidelta.mm.lennard_jones import LJModifier, tail_coefficient
from pidelta.mm.nonbonded import Truncation, add_pairs
from pidelta.mm.topology import Topology
from pidelta.state import FloatArray, IntArray, Term

COMPONENTS = (
    "bond", "quartic_bond", "morse_bond", "angle", "urey_bradley", "torsion", "improper", "cmap", "lj14",
    "coulomb14", "lj", "coulomb", "lj_tail",
)  # fmt: skip


class MMEvaluator:
    """Energy and gradient of a topology; atom-based cutoffs in periodic cells of any shape.

    Without cells there is no truncation: all pairs interact, by bare Coulomb, whatever the cutoff.

    Args:
        topology: what to evaluate.
        cutoff: of Lennard-Jones and Coulomb in bohr; None for systems that are never periodic.
        cell: (3, 3) lattice vectors as rows in bohr, to check the cutoff before anything runs.
        electrostatics: ``reaction-field``, or ``cutoff`` for a potential that is only shifted to zero at the
            cutoff (a reaction field of dielectric constant 1).
        reaction_field_dielectric: infinite (the force vanishes at the cutoff) or at least 1.
        switch_distance: in bohr, where the switch of Lennard-Jones starts; 0.9 cutoff if None.
        lj_modifier: how Lennard-Jones ends: ``switch``, ``potential-shift`` (to zero at the cutoff, the force
            jumps) or ``none`` (both jump).
        dispersion_correction: add the Lennard-Jones energy beyond the cutoff of a homogeneous system.
        skin: in bohr; pair lists are rebuilt when an atom has moved by half of it.

    Raises:
        SetupError: an option is out of range, or the cutoff exceeds half of the smallest height of the cell.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        cutoff: float | None,
        cell: FloatArray | None = None,
        electrostatics: str = "reaction-field",
        reaction_field_dielectric: float = np.inf,
        switch_distance: float | None = None,
        lj_modifier: LJModifier = "switch",
        dispersion_correction: bool = False,
        skin: float = 2.0,
    ) -> None:
        if electrostatics not in ("reaction-field", "cutoff"):
            raise SetupError(
                f"mm.electrostatics: expected reaction-field or cutoff for the built-in engine, "
                f"found {electrostatics!r}"
            )
        self.topology = topology
        self._cutoff = cutoff
        if cutoff is None:
            self._truncation = Truncation()
        else:
            dielectric = 1.0 if electrostatics == "cutoff" else reaction_field_dielectric
            self._truncation = _truncation(cutoff, switch_distance, dielectric).end_lj(lj_modifier)
        self._tail = 0.0
        if dispersion_correction and cutoff is not None:
            end = self._truncation
            self._tail = tail_coefficient(
                topology.lj_types, topology.lj_c6, topology.lj_c12, end.cutoff, end.switch, end.shift6
            )
        if cell is not None:
            problem = self._cell_problem(cell)
            if problem:
                raise SetupError(f"mm.cutoff: {problem}")
        exclusions = Exclusions(topology.exclusions, topology.n_particles)
        self._lists = VerletLists(self._truncation.cutoff, skin, exclusions)

    @property
    def numbers(self) -> IntArray:
        """(N,) atomic numbers."""
        return self.topology.numbers

    def evaluate(self, positions: FloatArray, cells: FloatArray | None) -> Term:
        """Evaluate a batch.

        Args:
            positions: (B, N, 3) in bohr, unwrapped or not; any atom may be shifted by lattice vectors.
            cells: (B, 3, 3) lattice vectors as rows in bohr, or None without periodicity.

        Returns:
            The term, with the components COMPONENTS.

        Raises:
            GeometryError: positions are not finite or not of these atoms, atoms coincide, or a cell is too
                small for the cutoff.
        """
        positions = np.ascontiguousarray(positions, dtype=np.float64)
        batch = len(positions)
        if positions.shape != (batch, len(self.topology), 3):
            raise GeometryError(
                f"positions: expected shape (B, {len(self.topology)}, 3), found {positions.shape}"
            )
        self._lists.reserve(batch)
        energies = np.empty((batch, len(COMPONENTS)))
        gradient = np.empty((batch, self.topology.n_particles, 3))
        virial = np.empty((batch, 3, 3))
        for b in range(batch):
            cell = None if cells is None else np.ascontiguousarray(cells[b], dtype=np.float64)
            self._check_geometry(b, positions[b], cell)
            energies[b] = self._evaluate_one(positions[b], cell, gradient[b], virial[b])
            if not np.isfinite(energies[b]).all():
                raise GeometryError(self._coincidence(b, gradient[b]))
        virial *= -1.0
        components = {name: energies[:, c].copy() for c, name in enumerate(COMPONENTS)}
        return Term(energies.sum(axis=1), gradient[:, : len(self.topology)], virial, components)

    def _evaluate_one(
        self, x: FloatArray, cell: FloatArray | None, gradient: FloatArray, strain: FloatArray
    ) -> tuple[float, ...]:
        """Set the gradient and dE/d(strain) of one structure; return its energies in order of COMPONENTS."""
        gradient[:] = 0.0
        strain[:] = 0.0
        end = self._truncation if cell is not None else Truncation()
        sites = self.topology.sites
        x = sites.place(x, cell)
        lj, coulomb = add_pairs(x, self._lists.find(x, cell), self.topology, end, gradient, strain)
        bonded = add_bonded(x, cell, self.topology, gradient, strain)
        sites.spread(x, cell, gradient, strain)
        tail = 0.0 if cell is None else self._tail / abs(float(np.linalg.det(cell)))
        strain -= tail * np.eye(3)
        return *bonded, lj, coulomb, tail

    def _check_geometry(self, b: int, x: FloatArray, cell: FloatArray | None) -> None:
        finite = np.isfinite(x).all(axis=1)
        if not finite.all():
            atom = int(np.argmin(finite))
            raise GeometryError(
                f"structure {b}: expected finite coordinates, found {x[atom]} for {self.topology.label(atom)}"
            )
        problem = None if cell is None else self._cell_problem(cell)
        if problem:
            raise GeometryError(f"structure {b}: {problem}")

    def _cell_problem(self, cell: FloatArray) -> str | None:
        if not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-9:
            return f"expected three independent lattice vectors, found {np.asarray(cell).tolist()}"
        if self._cutoff is None:
            return "a periodic system needs a cutoff, found none"
        half = 0.5 * float(heights(cell).min())
        if self._cutoff > half:
            return (
                f"the cutoff of {self._cutoff:.3f} bohr exceeds half of the smallest height of the cell, "
                f"{half:.3f} bohr"
            )
        return None

    def _coincidence(self, b: int, gradient: FloatArray) -> str:
        atoms = np.flatnonzero(~np.isfinite(gradient).all(axis=1))
        label = self.topology.label(int(atoms[0])) if len(atoms) else "an unknown atom"
        return f"structure {b}: the classical energy is not finite, {label} coincides with another atom"


def _truncation(cutoff: float, switch_distance: float | None, dielectric: float) -> Truncation:
    switch = 0.9 * cutoff if switch_distance is None else switch_distance
    if not 0.0 < switch < cutoff:
        raise SetupError(
            f"mm.switch_distance: expected a distance between 0 and the cutoff of {cutoff:.3f} bohr, "
            f"found {switch:.3f} bohr"
        )
    if not dielectric >= 1.0:
        raise SetupError(f"mm.reaction_field_dielectric: expected at least 1, found {dielectric}")
    return Truncation.reaction_field(cutoff, switch, dielectric)
