"""The built-in classical evaluator."""

from __future__ import annotations

import numpy as np

from pidelta.core.neighbours import Exclusions, VerletLists
from pidelta.errors import SetupError
from pidelta.mm.bonded import add_bonded
from pidelta.mm.checks import cell_problem, check_geometry, check_result
from pidelta.mm.nonbonded import Truncation, add_pairs
from pidelta.mm.topology import Topology
from pidelta.state import FloatArray, IntArray, Term

COMPONENTS = (
    "bond", "quartic_bond", "morse_bond", "angle", "urey_bradley", "torsion", "improper", "cmap", "lj14",
    "coulomb14", "lj", "coulomb",
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
        skin: float = 2.0,
    ) -> None:
        self.topology = topology
        self._cutoff = cutoff
        if cutoff is None:
            self._truncation = Truncation()
        else:
            switch, dielectric = truncation_options(
                cutoff, switch_distance, electrostatics, reaction_field_dielectric
            )
            self._truncation = Truncation.reaction_field(cutoff, switch, dielectric)
        if cell is not None:
            problem = cell_problem(cell, cutoff)
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
        check_geometry(self.topology, positions, cells, self._cutoff)
        self._lists.reserve(batch)
        energies = np.empty((batch, len(COMPONENTS)))
        gradient = np.empty((batch, self.topology.n_particles, 3))
        virial = np.empty((batch, 3, 3))
        for b in range(batch):
            cell = None if cells is None else np.ascontiguousarray(cells[b], dtype=np.float64)
            energies[b] = self._evaluate_one(positions[b], cell, gradient[b], virial[b])
            check_result(self.topology, b, float(energies[b].sum()), gradient[b])
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
        return *bonded, lj, coulomb


def truncation_options(
    cutoff: float, switch_distance: float | None, electrostatics: str, reaction_field_dielectric: float
) -> tuple[float, float]:
    """The distance in bohr where the Lennard-Jones switch starts, and the dielectric constant.

    Raises:
        SetupError: an option is out of range.
    """
    if electrostatics not in ("reaction-field", "cutoff"):
        raise SetupError(f"mm.electrostatics: expected reaction-field or cutoff, found {electrostatics!r}")
    dielectric = 1.0 if electrostatics == "cutoff" else reaction_field_dielectric
    switch = 0.9 * cutoff if switch_distance is None else switch_distance
    if not 0.0 < switch < cutoff:
        raise SetupError(
            f"mm.switch_distance: expected a distance between 0 and the cutoff of {cutoff:.3f} bohr, "
            f"found {switch:.3f} bohr"
        )
    if not dielectric >= 1.0:
        raise SetupError(f"mm.reaction_field_dielectric: expected at least 1, found {dielectric}")
    return switch, dielectric
