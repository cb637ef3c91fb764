"""Checks that every classical evaluator passes: derivatives, invariances, batches.

Each check raises AssertionError with the deviation found. They use no pytest, so that anyone who writes an
evaluator can call them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from pidelta.core.particles import Particles
from pidelta.qmmm.energy import ClassicalEvaluator
from pidelta.state import FloatArray, IntArray, Term
from pidelta.testing.derivatives import central_differences


class Result(Protocol):
    """What the checks read: a `Term` or an `Evaluation`."""

    @property
    def energy(self) -> FloatArray:
        """(B,) in hartree."""

    @property
    def gradient(self) -> FloatArray:
        """(B, N, 3) in hartree/bohr."""

    @property
    def virial(self) -> FloatArray:
        """(B, 3, 3) in hartree."""


class Checked(Protocol):
    """What is checked."""

    def evaluate(self, positions: FloatArray, cells: FloatArray | None) -> Result:
        """Evaluate (B, N, 3) in cells (B, 3, 3)."""


@dataclass(frozen=True)
class OfAtoms:
    """An evaluator of particles as one of atoms.

    Attributes:
        evaluator: of particles, such as those of `pidelta.mm`.
        particles: what they follow from.
    """

    evaluator: ClassicalEvaluator
    particles: Particles

    def evaluate(self, positions: FloatArray, cells: FloatArray | None) -> Term:
        """Evaluate atoms (B, N, 3) in cells (B, 3, 3)."""
        placed = self.particles.place(positions, cells)
        term = self.evaluator.evaluate(placed, cells)
        gradient, virial = self.particles.pull_back(placed, cells, term.gradient, term.virial)
        return replace(term, gradient=gradient, virial=virial)


def check_evaluator(
    evaluator: Checked,
    positions: FloatArray,
    cells: FloatArray | None,
    groups: IntArray,
    *,
    tolerance: float = 1e-7,
    net_force: float = 1e-9,
) -> None:
    """Run all checks.

    Args:
        evaluator: what is checked.
        positions: (B, N, 3) in bohr, away from discontinuities of the energy.
        cells: (B, 3, 3) lattice vectors as rows in bohr, or None.
        groups: (N,) molecule of each atom.
        tolerance: of derivatives, in atomic units.
        net_force: largest sum of all forces in hartree/bohr; forces on a mesh do not quite cancel.
    """
    for b in range(len(positions)):
        cell = None if cells is None else cells[b]
        check_gradient(evaluator, positions[b], cell, tolerance=tolerance)
        check_virial(evaluator, positions[b], cell, tolerance=10.0 * tolerance)
        check_net_force(evaluator, positions[b], cell, tolerance=net_force)
        if cell is not None:
            check_lattice_invariance(evaluator, positions[b], cell, groups)
    check_batch(evaluator, positions, cells)


def check_gradient(
    evaluator: Checked,
    positions: FloatArray,
    cell: FloatArray | None,
    *,
    atoms: IntArray | None = None,
    step: float = 1e-3,
    tolerance: float = 1e-7,
) -> None:
    """Compare the gradient with central differences of fourth order.

    Args:
        evaluator: what is checked.
        positions: (N, 3) in bohr. cell: (3, 3) rows in bohr, or None.
        atoms: whose gradient is compared; a dozen spread over the system if None.
        step: in bohr.
        tolerance: largest deviation in hartree/bohr.
    """
    if atoms is None:
        atoms = np.unique(np.linspace(0, len(positions) - 1, 12).astype(np.int64))

    def energies(displaced: FloatArray) -> FloatArray:
        cells = None if cell is None else np.repeat(cell[None], len(displaced), axis=0)
        return evaluator.evaluate(displaced, cells).energy

    numerical = central_differences(energies, positions, atoms, step)
    analytical = _one(evaluator, positions, cell).gradient[0][atoms]
    deviation = np.abs(numerical - analytical)
    worst = np.unravel_index(deviation.argmax(), deviation.shape)
    assert deviation[worst] < tolerance, (
        f"gradient of atom {atoms[worst[0]]}, axis {worst[1]}: "
        f"expected {numerical[worst]:.10f} (differences), found {analytical[worst]:.10f}"
    )


def check_virial(
    evaluator: Checked,
    positions: FloatArray,
    cell: FloatArray | None,
    *,
    step: float = 1e-5,
    tolerance: float = 1e-6,
) -> None:
    """Compare the virial, -dE/d(strain), with differences of strained positions and cells, all 9 components.

    Strain e takes a vector v to (1 + e) v.
    """
    numerical = np.empty((3, 3))
    for a in range(3):
        for b in range(3):
            energies = np.empty(4)
            for point, size in enumerate(step * _STENCIL):
                deformation = np.eye(3)
                deformation[b, a] += size
                strained = None if cell is None else cell @ deformation
                energies[point] = _one(evaluator, positions @ deformation, strained).energy[0]
            numerical[a, b] = -energies @ _WEIGHTS / step
    found = _one(evaluator, positions, cell).virial[0]
    deviation = np.abs(numerical - found).max()
    assert deviation < tolerance, (
        f"virial: expected {numerical.tolist()} (differences), found {found.tolist()}"
    )


def check_lattice_invariance(
    evaluator: Checked,
    positions: FloatArray,
    cell: FloatArray,
    groups: IntArray,
    *,
    seed: int = 0,
    tolerance: float = 1e-9,
) -> None:
    """Add random lattice vectors, first to whole molecules, then to single atoms: nothing may change."""
    rng = np.random.default_rng(seed)
    before = _one(evaluator, positions, cell)
    by_molecule = rng.integers(-3, 4, (int(groups.max()) + 1, 3))[groups]
    by_atom = rng.integers(-3, 4, positions.shape)
    for kind, images in (("molecules", by_molecule), ("atoms", by_atom)):
        after = _one(evaluator, positions + images @ cell, cell)
        for name in ("energy", "gradient", "virial"):
            deviation = np.abs(getattr(after, name) - getattr(before, name)).max()
            assert deviation < tolerance, (
                f"{name} changes by {deviation:.2e} when {kind} move by lattice vectors"
            )


def check_net_force(
    evaluator: Checked,
    positions: FloatArray,
    cell: FloatArray | None,
    *,
    tolerance: float = 1e-9,
) -> None:
    """The forces on all atoms add up to zero."""
    net = np.abs(_one(evaluator, positions, cell).gradient[0].sum(axis=0)).max()
    assert net < tolerance, f"net force: expected zero, found {net:.2e} hartree/bohr"


def check_batch(
    evaluator: Checked,
    positions: FloatArray,
    cells: FloatArray | None,
    *,
    tolerance: float = 1e-10,
) -> None:
    """A batch, in either order, gives what its structures give one by one."""
    n = len(positions)
    for order in (np.arange(n), np.arange(n)[::-1]):
        together = evaluator.evaluate(positions[order], None if cells is None else cells[order])
        for slot, b in enumerate(order):
            alone = _one(evaluator, positions[b], None if cells is None else cells[b])
            for name in ("energy", "gradient", "virial"):
                deviation = np.abs(getattr(together, name)[slot] - getattr(alone, name)[0]).max()
                assert deviation < tolerance, f"{name} of structure {b} differs by {deviation:.2e} in a batch"


_STENCIL = np.array([-2.0, -1.0, 1.0, 2.0])
_WEIGHTS = np.array([1.0, -8.0, 8.0, -1.0]) / 12.0


def _one(evaluator: Checked, positions: FloatArray, cell: FloatArray | None) -> Result:
    return evaluator.evaluate(positions[None], None if cell is None else cell[None])
