"""Conformance: what every correction to the low-level method has to pass, whatever kind of model it is.

Each check raises AssertionError with what it found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pidelta.data.frames import Frame
from pidelta.delta.base import Correction, CorrectionResult
from pidelta.errors import ModelError
from pidelta.state import FloatArray, Region

AnyArray = npt.NDArray[Any]
_ARRAYS = ("numbers", "positions", "site_positions", "site_charges", "site_numbers")


def check_correction(model: Correction, frame: Frame, cutoffs: Sequence[float]) -> None:
    """All checks.

    Args:
        model: the model.
        frame: a structure of a composition the model knows, with at least two QM atoms of the same element
            and two sites of the environment.
        cutoffs: distances in bohr at which a function of the model ends.
    """
    check_properties(model, frame)
    check_derivatives(model, frame)
    check_invariance(model, frame)
    check_permutation(model, frame)
    check_batch_and_padding(model, frame)
    check_inputs_and_memory(model, frame)
    check_composition(model, frame)
    for cutoff in cutoffs:
        check_smooth_environment(model, frame, cutoff)
        check_smooth_structure(model, frame, cutoff)


def check_single_precision(model: Correction, frame: Frame) -> None:
    """The checks of a correction whose networks are evaluated in float32, to what e = 1.2e-7 of it allows.

    Central differences of an energy that is rounded by e are best with a step of e^(1/3); the step and the
    rounding then cost e^(2/3) each. Everything else is a sum of many rounded numbers, whose errors add up as
    the root of their count: 32 e for a thousand. Smoothness is that of descriptors, which are float64, and
    drowns in the rounding.

    Args:
        model, frame: as in `check_correction`.
    """
    epsilon = float(np.finfo(np.float32).eps)
    rounding = 32.0 * epsilon * float(np.abs(_evaluate(model, [frame]).gradient.positions).max(initial=1.0))
    check_properties(model, frame)
    check_derivatives(model, frame, epsilon ** (1.0 / 3.0), 2.0 * epsilon ** (2.0 / 3.0))
    check_invariance(model, frame, rounding)
    check_permutation(model, frame, rounding)
    check_batch_and_padding(model, frame, rounding)
    check_inputs_and_memory(model, frame)
    check_composition(model, frame)


def check_properties(model: Correction, frame: Frame) -> None:
    """The properties that the model says it gives, one value or row for each structure."""
    found = _evaluate(model, [frame, frame]).properties
    assert set(found) == set(model.properties), f"expected {model.properties}, found {sorted(found)}"
    for name, values in found.items():
        assert len(values) == 2, f"{name}: expected 2 structures, found {len(values)}"


def check_derivatives(model: Correction, frame: Frame, step: float = 1e-4, tolerance: float = 1e-7) -> None:
    """All derivatives against central differences of the energy.

    Args:
        model: the model.
        frame: the structure.
        step: of the differences, in bohr or e.
        tolerance: largest deviation, relative to the largest component but at least absolute.
    """
    result = _evaluate(model, [frame])
    for name in ("positions", "site_positions", "site_charges"):
        base = getattr(frame, name)
        found = getattr(result.gradient, name)[0]
        expected = np.empty_like(base)
        for index in np.ndindex(base.shape):
            change = np.zeros_like(base)
            change[index] = step
            moved = [replace(frame, **{name: base + sign * change}) for sign in (1.0, -1.0)]
            upper, lower = _evaluate(model, moved).energy
            expected[index] = (upper - lower) / (2.0 * step)
        _assert_close(name, found, expected, tolerance * float(np.abs(expected).max(initial=1.0)))


def check_invariance(model: Correction, frame: Frame, tolerance: float = 1e-10) -> None:
    """Energy unchanged, gradients turned with the structure, by translation and rotation."""
    rotation = _rotation(np.random.default_rng(0))
    shift = np.array([3.0, -7.0, 11.0])
    moved = replace(
        frame,
        positions=frame.positions @ rotation.T + shift,
        site_positions=frame.site_positions @ rotation.T + shift,
    )
    before, after = _evaluate(model, [frame]), _evaluate(model, [moved])
    _assert_close("rotated energy", after.energy, before.energy, tolerance)
    old, new = before.gradient, after.gradient
    _assert_close("rotated gradient", new.positions, old.positions @ rotation.T, tolerance)
    _assert_close("rotated site gradient", new.site_positions, old.site_positions @ rotation.T, tolerance)
    _assert_close("rotated charge gradient", new.site_charges, old.site_charges, tolerance)
    net = old.positions.sum(axis=1) + old.site_positions.sum(axis=1)
    _assert_close("sum of all gradients", net, np.zeros_like(net), tolerance)


def check_permutation(model: Correction, frame: Frame, tolerance: float = 1e-10) -> None:
    """Energy unchanged, gradients permuted, when like QM atoms and when sites change places."""
    rng = np.random.default_rng(1)
    atoms = np.arange(len(frame.numbers))
    for number in np.unique(frame.numbers):
        alike = np.flatnonzero(frame.numbers == number)
        atoms[alike] = np.roll(alike, 1)
    sites = rng.permutation(len(frame.site_charges))
    permuted = replace(
        frame,
        positions=frame.positions[atoms],
        site_positions=frame.site_positions[sites],
        site_charges=frame.site_charges[sites],
        site_numbers=frame.site_numbers[sites],
    )
    before, after = _evaluate(model, [frame]), _evaluate(model, [permuted])
    _assert_close("permuted energy", after.energy, before.energy, tolerance)
    old, new = before.gradient, after.gradient
    _assert_close("permuted gradient", new.positions, old.positions[:, atoms], tolerance)
    _assert_close("permuted site gradient", new.site_positions, old.site_positions[:, sites], tolerance)
    _assert_close("permuted charge gradient", new.site_charges, old.site_charges[:, sites], tolerance)


def check_batch_and_padding(model: Correction, frame: Frame, tolerance: float = 1e-10) -> None:
    """Each structure of a batch as if alone, and sites of padding, wherever they are, without effect."""
    rng = np.random.default_rng(2)
    m = len(frame.site_charges)
    other = replace(frame, positions=frame.positions + rng.normal(0.0, 0.05, frame.positions.shape))
    padding = np.concatenate([frame.positions[:1], rng.normal(0.0, 30.0, (3, 3))])
    padded = [
        replace(
            item,
            site_positions=np.concatenate([item.site_positions, padding]),
            site_charges=np.concatenate([item.site_charges, np.zeros(len(padding))]),
            site_numbers=np.concatenate([item.site_numbers, np.zeros(len(padding), dtype=np.int64)]),
        )
        for item in (frame, other)
    ]
    together = _evaluate(model, padded)
    for place, item in enumerate((frame, other)):
        alone = _evaluate(model, [item])
        _assert_close("batched energy", together.energy[place], alone.energy[0], tolerance)
        found = together.gradient.positions[place]
        _assert_close("batched gradient", found, alone.gradient.positions[0], tolerance)
        for name in ("site_positions", "site_charges"):
            found = getattr(together.gradient, name)[place]
            _assert_close(f"batched {name}", found[:m], getattr(alone.gradient, name)[0], tolerance)
            _assert_close(f"{name} of padding", found[m:], np.zeros_like(found[m:]), 0.0)


def check_inputs_and_memory(model: Correction, frame: Frame) -> None:
    """The same bits from arrays of any layout, which stay as they are, and whatever was evaluated before."""
    rng = np.random.default_rng(5)
    region = frame.region
    moved = replace(region, positions=region.positions + rng.normal(0.0, 0.1, region.positions.shape))
    first = model.evaluate(region)
    model.evaluate(moved)
    strided = replace(region, **{name: _strided(getattr(region, name)) for name in _ARRAYS})
    for what, again in (("again", model.evaluate(region)), ("from strided arrays", model.evaluate(strided))):
        _assert_close(f"energy {what}", again.energy, first.energy, 0.0)
        for name in ("positions", "site_positions", "site_charges"):
            _assert_close(f"{name} {what}", getattr(again.gradient, name), getattr(first.gradient, name), 0.0)
    for name, values in first.properties.items():
        assert values.shape[:1] == (1,), (
            f"property {name}: expected one row a structure, found {values.shape}"
        )


def check_composition(model: Correction, frame: Frame) -> None:
    """A QM region with an atom more is refused, as it was not trained on."""
    more = replace(
        frame,
        numbers=np.append(frame.numbers, 1),
        positions=np.vstack([frame.positions, frame.positions[-1] + 2.0]),
    )
    try:
        model.evaluate(more.region)
    except ModelError:
        return
    raise AssertionError("a QM region with a further hydrogen: expected a ModelError, found an energy")


def check_smooth_environment(model: Correction, frame: Frame, cutoff: float) -> None:
    """Two continuous derivatives as a site of the environment crosses a cutoff of QM atom 0."""
    direction = _rotation(np.random.default_rng(3))[0]

    def slope(distance: float) -> float:
        positions = frame.site_positions.copy()
        positions[0] = frame.positions[0] + distance * direction
        result = _evaluate(model, [replace(frame, site_positions=positions)])
        return float(result.gradient.site_positions[0, 0] @ direction)

    _assert_smooth(f"a site crossing {cutoff:.3f} bohr", slope, cutoff)


def check_smooth_structure(model: Correction, frame: Frame, cutoff: float) -> None:
    """Two continuous derivatives as the last QM atom crosses a cutoff of QM atom 0."""
    direction = _rotation(np.random.default_rng(4))[0]

    def slope(distance: float) -> float:
        positions = frame.positions.copy()
        positions[-1] = positions[0] + distance * direction
        result = _evaluate(model, [replace(frame, positions=positions)])
        return float(result.gradient.positions[0, -1] @ direction)

    _assert_smooth(f"a QM atom crossing {cutoff:.3f} bohr", slope, cutoff)


def _assert_smooth(what: str, slope: Callable[[float], float], cutoff: float) -> None:
    """The jump of the second derivative, by one-sided differences, has to vanish with their step."""

    def jump(step: float) -> float:
        middle = slope(cutoff)
        return abs(slope(cutoff + step) - 2.0 * middle + slope(cutoff - step)) / step

    coarse, fine = jump(1e-3), jump(2.5e-4)
    assert fine <= 0.5 * coarse + 1e-9, f"{what}: second derivative jumps by {fine:.2e} hartree/bohr^2"


def _evaluate(model: Correction, frames: Sequence[Frame]) -> CorrectionResult:
    return model.evaluate(
        Region(
            frames[0].numbers,
            np.stack([frame.positions for frame in frames]),
            np.stack([frame.site_positions for frame in frames]),
            np.stack([frame.site_charges for frame in frames]),
            np.stack([frame.site_numbers for frame in frames]),
        )
    )


def _strided(array: AnyArray) -> AnyArray:
    """The same values, read-only and every other one of a larger array."""
    wide = np.repeat(array, 2, axis=-1)[..., ::2]
    wide.flags.writeable = False
    return wide


def _rotation(rng: np.random.Generator) -> FloatArray:
    matrix, triangle = np.linalg.qr(rng.normal(size=(3, 3)))
    return np.asarray(matrix * np.sign(np.diag(triangle)))


def _assert_close(what: str, found: FloatArray, expected: FloatArray, tolerance: float) -> None:
    deviation = float(np.abs(found - expected).max(initial=0.0))
    assert deviation <= tolerance, f"{what}: deviates by {deviation:.2e}, expected at most {tolerance:.1e}"
