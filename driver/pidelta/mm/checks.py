"""What a QM region, positions and cells have to be before anything is evaluated, whichever engine does it."""

from __future__ import annotations

import numpy as np

from pidelta.core.cell import FARTHEST, all_usable, heights, is_cell, usable
from pidelta.core.elements import united_hydrogens
from pidelta.errors import GeometryError, TopologyError
from pidelta.mm.topology import Topology
from pidelta.state import FloatArray, IntArray
from pidelta.units import BOHR_IN_ANGSTROM, DALTON_IN_ELECTRON_MASS


def check_geometry(
    topology: Topology, positions: FloatArray, cells: FloatArray | None, cutoff: float | None
) -> None:
    """Check a batch.

    Args:
        topology: the particles.
        positions: (B, P, 3) in bohr.
        cells: (B, 3, 3) lattice vectors as rows in bohr, or None.
        cutoff: in bohr, or None.

    Raises:
        GeometryError: positions are not finite, far away or not of these particles, or a cell is no cell or
            too small for the cutoff.
    """
    if positions.shape != (len(positions), topology.n_particles, 3):
        raise GeometryError(
            f"positions: expected shape (B, {topology.n_particles}, 3), found {positions.shape}"
        )
    if not all_usable(positions):
        b, atom = np.argwhere(~usable(positions))[0]
        raise GeometryError(
            f"structure {b}: expected finite coordinates below {FARTHEST:g} bohr, found {positions[b, atom]} "
            f"for {topology.label(int(atom))}"
        )
    lattices = [] if cells is None else list(cells)
    for b, cell in enumerate(lattices):
        if b and np.array_equal(cell, lattices[b - 1]):  # as those of the beads of a ring polymer are
            continue
        problem = cell_problem(cell, cutoff)
        if problem:
            raise GeometryError(f"structure {b}: {problem}")


def cell_problem(cell: FloatArray, cutoff: float | None) -> str | None:
    """What is wrong with a cell (3, 3) in bohr and a cutoff in bohr, or None."""
    if not is_cell(cell):
        return f"expected three independent lattice vectors, found {np.asarray(cell).tolist()}"
    if cutoff is None:
        return "a periodic system needs a cutoff, found none"
    half = 0.5 * float(heights(cell).min())
    if cutoff > half:
        return (
            f"the cutoff of {cutoff * BOHR_IN_ANGSTROM:.2f} angstrom exceeds half of the smallest height of "
            f"the cell, {half * BOHR_IN_ANGSTROM:.2f} angstrom"
        )
    return None


def refuse_united_atoms(topology: Topology, indices: IntArray) -> None:
    """A QM method would see the carbon of a united atom and not its hydrogens.

    Raises:
        TopologyError: an atom of the region `indices` (n,) has the mass of carbon and some hydrogens.
    """
    for atom in indices.tolist():
        mass = float(topology.masses[atom]) / DALTON_IN_ELECTRON_MASS
        hydrogens = united_hydrogens(mass, int(topology.numbers[atom]))
        if hydrogens:
            raise TopologyError(
                f"{topology.source}: expected all atoms of the QM region, found {topology.label(atom)} of "
                f"mass {mass:g}, a carbon united with {hydrogens} hydrogens"
            )


def check_result(topology: Topology, b: int, energy: float, gradient: FloatArray) -> None:
    """Name an atom of structure `b` whose gradient (P, 3) is not finite, if any.

    Raises:
        GeometryError: the energy or the gradient is not finite.
    """
    if np.isfinite(energy) and np.isfinite(gradient).all():
        return
    finite = np.isfinite(gradient).all(axis=1)
    label = "an unknown atom" if finite.all() else topology.label(int(np.argmin(finite)))
    raise GeometryError(
        f"structure {b}: the classical energy is not finite, {label} coincides with another atom"
    )
