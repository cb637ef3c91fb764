"""Checks that every QM engine must pass; called from tests, they raise AssertionError.

All take one structure: positions (n, 3) in bohr and a potential (n,) in hartree/e.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pidelta.qm.base import QMEngine, QMResult
from pidelta.state import FloatArray, IntArray
from pidelta.testing.derivatives import central_differences

EngineFactory = Callable[[IntArray], QMEngine]

# For derivatives by potentials, in hartree/e, and by the scale of a Coulomb correction.
_STEP = 2e-4


def check_engine(
    make: EngineFactory,
    numbers: IntArray,
    positions: FloatArray,
    *,
    charge: int = 0,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> None:
    """Run all checks of this module on one molecule, with a potential and a Coulomb correction.

    Args:
        make: builds the engine for atomic numbers (n,).
        numbers, positions: the molecule; it should have no symmetry and a clear gap.
        charge: its total charge in e.
        tolerance: largest error accepted, in atomic units.
        seed: of the random numbers.
    """
    rng = np.random.default_rng(seed)
    atoms = len(numbers)
    potential = rng.normal(0.0, 0.02, atoms)
    # As from the images in a cell of 3 nm: nearly the same for all pairs. Random values of that size could
    # make the charges unstable, which no engine can help.
    correction = rng.normal(0.0, 0.004, (atoms, atoms))
    correction = correction + correction.T - 0.05
    engine = make(numbers)
    assert np.array_equal(engine.numbers, numbers), "numbers: not those the engine was made with"
    check_shapes(engine, positions, potential, charge)
    for kernel in (None, correction):
        check_gradient(engine, positions, potential, kernel, tolerance)
        check_charges(engine, positions, potential, kernel, tolerance)
    check_coulomb_correction(engine, positions, potential, correction, tolerance)
    check_rigid_motion(engine, positions, potential, tolerance, rng)
    check_batch(engine, positions, potential, correction, tolerance, rng)
    check_permutation(make, numbers, positions, potential, tolerance, rng)


def check_shapes(engine: QMEngine, positions: FloatArray, potential: FloatArray, charge: int) -> None:
    """Shapes and types of a result, and the sum of the charges."""
    result = engine.evaluate(positions[None], potential[None])
    expected = {
        "energy": (1,),
        "gradient": (1, *positions.shape),
        "charges": (1, len(positions)),
    }
    for name, shape in expected.items():
        assert getattr(result, name).shape == shape, f"{name}: expected {shape}"
    assert set(result.properties) == set(engine.properties), "properties: not those that the engine announces"
    arrays = {name: getattr(result, name) for name in expected} | dict(result.properties)
    for name, array in arrays.items():
        assert isinstance(array, np.ndarray), f"{name}: not a numpy array"
        assert array.dtype == np.float64, f"{name}: not float64"
        assert array.shape[:1] == (1,), f"{name}: shape {array.shape}, expected one row for each structure"
    _close(result.charges.sum(), float(charge), 1e-8, "the sum of the charges is the total charge")


def check_gradient(
    engine: QMEngine,
    positions: FloatArray,
    potential: FloatArray,
    correction: FloatArray | None = None,
    tolerance: float = 1e-6,
) -> None:
    """The gradient is the derivative of the energy at a fixed potential and Coulomb correction."""
    gradient = _evaluate(engine, positions, potential, correction).gradient[0]

    def energy(batch: FloatArray) -> FloatArray:
        return _evaluate(engine, batch, potential, correction).energy

    numerical = central_differences(energy, positions, np.arange(len(positions)))
    _close(gradient, numerical, tolerance, "the gradient is dE/dR")


def check_charges(
    engine: QMEngine,
    positions: FloatArray,
    potential: FloatArray,
    correction: FloatArray | None = None,
    tolerance: float = 1e-6,
) -> None:
    """The charges are the derivative of the energy by the potential."""
    charges = _evaluate(engine, positions, potential, correction).charges[0]
    units = _STEP * np.eye(len(potential))
    above, below = (
        _evaluate(engine, positions, potential + sign * units, correction).energy for sign in (1, -1)
    )
    numerical = (above - below) / (2.0 * _STEP)
    _close(charges, numerical, tolerance, "the charges are dE/d(potential)")


def check_coulomb_correction(
    engine: QMEngine,
    positions: FloatArray,
    potential: FloatArray,
    correction: FloatArray,
    tolerance: float = 1e-6,
) -> None:
    """A correction of zero changes nothing; dE/ds of a correction s K is 1/2 q K q; charges respond to it."""
    without = _evaluate(engine, positions, potential, None)
    zero = _evaluate(engine, positions, potential, np.zeros_like(correction))
    _close(zero.energy, without.energy, tolerance, "a Coulomb correction of zero changes no energy")
    scaled = [_evaluate(engine, positions, potential, (1.0 + sign * _STEP) * correction) for sign in (1, -1)]
    slope = float(scaled[0].energy[0] - scaled[1].energy[0]) / (2.0 * _STEP)
    charges = _evaluate(engine, positions, potential, correction).charges[0]
    _close(slope, 0.5 * charges @ correction @ charges, tolerance, "the Coulomb correction adds 1/2 q K q")
    # K enters the Hamiltonian: its effect on the charges is that of the potential K q.
    same = _evaluate(engine, positions, potential + correction @ charges, None).charges[0]
    _close(charges, same, tolerance, "the Coulomb correction acts on the charges as the potential K q")


def check_rigid_motion(
    engine: QMEngine,
    positions: FloatArray,
    potential: FloatArray,
    tolerance: float = 1e-6,
    rng: np.random.Generator | None = None,
) -> None:
    """Translation and rotation change neither energy nor charges and turn the gradient along."""
    rng = rng or np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    before = _evaluate(engine, positions, potential, None)
    after = _evaluate(engine, positions @ rotation.T + rng.normal(0.0, 50.0, 3), potential, None)
    _close(after.energy, before.energy, tolerance, "rigid motion keeps the energy")
    _close(after.charges, before.charges, tolerance, "rigid motion keeps the charges")
    _close(after.gradient, before.gradient @ rotation.T, tolerance, "rigid motion turns the gradient")


def check_batch(
    engine: QMEngine,
    positions: FloatArray,
    potential: FloatArray,
    correction: FloatArray,
    tolerance: float = 1e-6,
    rng: np.random.Generator | None = None,
) -> None:
    """A batch gives what its structures give one by one, in any order."""
    rng = rng or np.random.default_rng(0)
    geometries = positions + rng.normal(0.0, 0.05, (3, *positions.shape))
    potentials = potential + rng.normal(0.0, 0.01, (3, len(potential)))
    corrections = correction * rng.uniform(0.5, 1.5, (3, 1, 1))
    batch = engine.evaluate(geometries, potentials, corrections)
    reverse = engine.evaluate(geometries[::-1], potentials[::-1], corrections[::-1])
    for row in range(3):
        single = engine.evaluate(
            geometries[row : row + 1], potentials[row : row + 1], corrections[row : row + 1]
        )
        for name in ("energy", "gradient", "charges"):
            value = getattr(single, name)[0]
            _close(getattr(batch, name)[row], value, tolerance, f"{name}: a batch is the same as one by one")
            _close(getattr(reverse, name)[2 - row], value, tolerance, f"{name}: slots of a batch are equal")


def check_permutation(
    make: EngineFactory,
    numbers: IntArray,
    positions: FloatArray,
    potential: FloatArray,
    tolerance: float = 1e-6,
    rng: np.random.Generator | None = None,
) -> None:
    """The order of the atoms does not matter."""
    rng = rng or np.random.default_rng(0)
    order = rng.permutation(len(numbers))
    before = _evaluate(make(numbers), positions, potential, None)
    after = _evaluate(make(numbers[order]), positions[order], potential[order], None)
    _close(after.energy, before.energy, tolerance, "a permutation keeps the energy")
    _close(after.charges[0], before.charges[0][order], tolerance, "a permutation permutes the charges")
    _close(after.gradient[0], before.gradient[0][order], tolerance, "a permutation permutes the gradient")


def _evaluate(
    engine: QMEngine, positions: FloatArray, potential: FloatArray, correction: FloatArray | None
) -> QMResult:
    """Evaluate a batch of positions or of potentials, with what is not a batch repeated."""
    atoms = positions.shape[-2]
    size = max(positions.size // (3 * atoms), potential.size // atoms)
    positions = np.broadcast_to(positions, (size, atoms, 3))
    potential = np.broadcast_to(potential, (size, atoms))
    if correction is not None:
        correction = np.broadcast_to(correction, (size, atoms, atoms))
    return engine.evaluate(positions, potential, correction)


def _close(found: FloatArray | float, expected: FloatArray | float, tolerance: float, what: str) -> None:
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=tolerance, err_msg=what)
