"""Conformance: what every evaluator has to pass, from a force field alone to the whole of QM/MM.

Each check raises AssertionError with the deviation found. They use no pytest, so that anyone who writes an
evaluator can call them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from pidelta.core.particles import Particles
from pidelta.qmmm.energy import ClassicalEvaluator
from pidelta.state import FloatArray, IntArray, Term
from pidelta.testing.derivatives import central_differences
from pidelta.testing.samples import Sample, Tolerances


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
    sample: Sample,
    tolerances: Tolerances,
    atoms: Mapping[str, IntArray] | None = None,
    *,
    anchored: bool = False,
) -> None:
    """Run all checks.

    Args:
        evaluator: what is checked.
        sample: the structures.
        tolerances: how exact it is.
        atoms: whose gradient in the first structure is compared with differences one by one, by kind; a
            dozen spread over the system if None. In the others all atoms move at once.
        anchored: whether something outside the atoms holds them, so that a rigid motion changes the energy.
    """
    if atoms is None:
        everyone = sample.positions.shape[1]
        atoms = {"atom": np.unique(np.linspace(0, everyone - 1, 12).astype(np.int64))}
    check_inputs_and_memory(evaluator, sample, tolerances)  # first, since it would spoil differences
    check_batch(evaluator, sample, tolerances)
    for kind, chosen in atoms.items():
        check_gradient(evaluator, sample.positions[0], sample.cell(0), chosen, tolerances, kind)
    for b, positions in enumerate(sample.positions):
        cell = sample.cell(b)
        check_gradient_of_all(evaluator, positions, cell, tolerances)
        check_virial(evaluator, positions, cell, tolerances)
        if not anchored:
            check_net_force(evaluator, positions, cell, tolerances)
            check_translation(evaluator, positions, cell, tolerances)
            check_rotation(evaluator, positions, cell, tolerances)
        if cell is not None:
            check_lattice_invariance(evaluator, positions, cell, sample.molecules, tolerances)
        if sample.alike is not None:
            check_permutation(evaluator, positions, cell, sample.alike, tolerances)


def check_gradient(
    evaluator: Checked,
    positions: FloatArray,
    cell: FloatArray | None,
    atoms: IntArray,
    tolerances: Tolerances,
    kind: str = "atom",
) -> None:
    """Compare the gradient of some atoms with central differences of fourth order.

    Args:
        evaluator: what is checked.
        positions: (N, 3) in bohr. cell: (3, 3) rows in bohr, or None.
        atoms: (k,) which.
        tolerances: how exact it is.
        kind: what these atoms are, for the message.
    """

    def energies(displaced: FloatArray) -> FloatArray:
        return evaluator.evaluate(displaced, _repeated(cell, len(displaced))).energy

    numerical = central_differences(energies, positions, atoms, tolerances.step)
    analytical = _one(evaluator, positions, cell).gradient[0][atoms]
    deviation = np.abs(numerical - analytical)
    worst = np.unravel_index(deviation.argmax(), deviation.shape)
    assert deviation[worst] < tolerances.gradient, (
        f"gradient of atom {atoms[worst[0]]} ({kind}), axis {worst[1]}: "
        f"expected {numerical[worst]:.10f} (differences), found {analytical[worst]:.10f}"
    )


def check_gradient_of_all(
    evaluator: Checked, positions: FloatArray, cell: FloatArray | None, tolerances: Tolerances, seed: int = 0
) -> None:
    """Compare the slope of the energy, as all atoms move at once in random directions, with differences."""
    direction = np.random.default_rng(seed).normal(size=positions.shape)
    steps = tolerances.step * _STENCIL[:, None, None]
    energies = evaluator.evaluate(positions + steps * direction, _repeated(cell, len(steps))).energy
    numerical = float(energies @ _WEIGHTS) / tolerances.step
    found = float((_one(evaluator, positions, cell).gradient[0] * direction).sum())
    assert abs(numerical - found) < tolerances.gradient * np.sqrt(direction.size), (
        f"gradient of all atoms along one direction: expected {numerical:.10f} (differences), "
        f"found {found:.10f}"
    )


def check_virial(
    evaluator: Checked,
    positions: FloatArray,
    cell: FloatArray | None,
    tolerances: Tolerances,
) -> None:
    """Compare the virial, -dE/d(strain), with differences of strained positions and cells, all 9 components.

    Strain e takes a vector v to (1 + e) v. Without a virial, NaN is expected.
    """
    found = _one(evaluator, positions, cell).virial[0]
    if not tolerances.virial:
        assert np.isnan(found).all(), f"virial: expected NaN, as there is none, found {found.tolist()}"
        return
    step = 0.01 * tolerances.step
    numerical = np.empty((3, 3))
    for a, b in np.ndindex(3, 3):
        deformations = np.repeat(np.eye(3)[None], len(_STENCIL), axis=0)
        deformations[:, b, a] += step * _STENCIL
        strained = None if cell is None else cell @ deformations
        energies = evaluator.evaluate(positions @ deformations, strained).energy
        numerical[a, b] = -energies @ _WEIGHTS / step
    deviation = np.abs(numerical - found).max()
    assert deviation < tolerances.strain, (
        f"virial: expected {numerical.tolist()} (differences), found {found.tolist()}"
    )


def check_net_force(
    evaluator: Checked, positions: FloatArray, cell: FloatArray | None, tolerances: Tolerances
) -> None:
    """The forces on all atoms add up to zero, and without a cell their torques do as well."""
    gradient = _one(evaluator, positions, cell).gradient[0]
    net = float(np.abs(gradient.sum(axis=0)).max())
    assert net < tolerances.translated("gradient"), f"net force: expected zero, found {net:.2e} hartree/bohr"
    if cell is None:
        torque = float(np.abs(np.cross(positions - positions.mean(axis=0), gradient).sum(axis=0)).max())
        assert torque < tolerances.same("virial"), f"net torque: expected zero, found {torque:.2e} hartree"


def check_translation(
    evaluator: Checked, positions: FloatArray, cell: FloatArray | None, tolerances: Tolerances
) -> None:
    """Everything at another place is the same."""
    before = _one(evaluator, positions, cell)
    after = _one(evaluator, positions + np.array([1.0, -20.0, 7.5]), cell)
    _assert_same("by a translation of everything", after, before, tolerances.translated)


def check_rotation(
    evaluator: Checked, positions: FloatArray, cell: FloatArray | None, tolerances: Tolerances, seed: int = 0
) -> None:
    """Positions and cell turned together: the same energy, gradient and virial turned along."""
    matrix, triangle = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    rotation = matrix * np.sign(np.diag(triangle))
    rotation[:, 0] *= np.linalg.det(rotation)
    before = _one(evaluator, positions, cell)
    after = _one(evaluator, positions @ rotation, None if cell is None else cell @ rotation)
    turned = Term(before.energy, before.gradient @ rotation, rotation.T @ before.virial @ rotation)
    _assert_same("by a rotation of everything", after, turned, tolerances.same)


def check_lattice_invariance(
    evaluator: Checked,
    positions: FloatArray,
    cell: FloatArray,
    molecules: IntArray,
    tolerances: Tolerances,
    seed: int = 0,
) -> None:
    """Add random lattice vectors, first to whole molecules (N,), then to single atoms: nothing may change."""
    rng = np.random.default_rng(seed)
    before = _one(evaluator, positions, cell)
    by_molecule = rng.integers(-3, 4, (int(molecules.max()) + 1, 3))[molecules]
    by_atom = rng.integers(-3, 4, positions.shape)
    for kind, images in (("molecules", by_molecule), ("atoms", by_atom)):
        after = _one(evaluator, positions + images @ cell, cell)
        _assert_same(f"when {kind} move by lattice vectors", after, before, tolerances.same)


def check_permutation(
    evaluator: Checked,
    positions: FloatArray,
    cell: FloatArray | None,
    alike: tuple[IntArray, IntArray],
    tolerances: Tolerances,
) -> None:
    """Like molecules that change places change the energy no more than their numbers do."""
    order = np.arange(len(positions))
    first, second = (np.asarray(atoms) for atoms in alike)
    order[first], order[second] = second, first
    before = _one(evaluator, positions, cell)
    after = _one(evaluator, positions[order], cell)
    permuted = Term(before.energy, before.gradient[:, order], before.virial)
    _assert_same("when like molecules change places", after, permuted, tolerances.same)


def check_batch(evaluator: Checked, sample: Sample, tolerances: Tolerances) -> None:
    """A batch, in either order, gives what its structures give one by one."""
    n = len(sample.positions)
    for order in (np.arange(n), np.arange(n)[::-1]):
        cells = None if sample.cells is None else sample.cells[order]
        together = evaluator.evaluate(sample.positions[order], cells)
        for slot, b in enumerate(order):
            alone = _one(evaluator, sample.positions[b], sample.cell(b))
            found = Term(*(getattr(together, name)[slot : slot + 1] for name in _NAMES))
            _assert_same(f"for structure {b} in a batch", found, alone, tolerances.same)


def check_inputs_and_memory(evaluator: Checked, sample: Sample, tolerances: Tolerances) -> None:
    """The same again after other structures, from arrays of any layout, which stay as they were."""
    positions, cells = sample.positions, sample.cells
    before = evaluator.evaluate(positions, cells)
    evaluator.evaluate(positions[::-1] + 0.1, None if cells is None else cells[::-1])
    after = evaluator.evaluate(_strided(positions), None if cells is None else _strided(cells))
    _assert_same("after another call, from strided arrays", after, before, tolerances.same)
    _assert_same("at once again", evaluator.evaluate(positions, cells), before, tolerances.same)


_NAMES = ("energy", "gradient", "virial")
_STENCIL = np.array([-2.0, -1.0, 1.0, 2.0])
_WEIGHTS = np.array([1.0, -8.0, 8.0, -1.0]) / 12.0


def _one(evaluator: Checked, positions: FloatArray, cell: FloatArray | None) -> Result:
    return evaluator.evaluate(positions[None], _repeated(cell, 1))


def _repeated(cell: FloatArray | None, count: int) -> FloatArray | None:
    return None if cell is None else np.repeat(cell[None], count, axis=0)


def _strided(array: FloatArray) -> FloatArray:
    """The same values, read-only and every other one of a larger array."""
    wide = np.repeat(array, 2, axis=-1)[..., ::2]
    wide.flags.writeable = False
    return wide


def _assert_same(how: str, after: Result, before: Result, tolerance: Callable[[str], float]) -> None:
    for name in _NAMES:
        found, expected = getattr(after, name), getattr(before, name)
        if name == "virial" and np.isnan(expected).all():
            continue  # as `check_virial` has asked for
        deviation = float(np.abs(found - expected).max(initial=0.0))
        assert deviation < tolerance(name), f"{name} changes by {deviation:.2e} {how}"
