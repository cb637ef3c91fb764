"""What `pidelta learn` adds to the energy: a push to distances that were seen seldom, or a spring on them."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from pidelta.core.cell import minimum_image
from pidelta.errors import DataError
from pidelta.output_files import replacing
from pidelta.state import Evaluation, Evaluator, FloatArray, IntArray, Term


@dataclass(frozen=True)
class DistanceBias:
    """V(s) = f kT ln(rho(s)/<rho> + epsilon), with rho the density of distances s that were seen.

    It takes away f = 1 - kT/barrier of the free energy -kT ln rho and, by epsilon = exp(-barrier/(f kT)),
    fills no more than `barrier` (OPES: Invernizzi, Parrinello, J. Phys. Chem. Lett. 11, 2731 (2020)). The
    density is a sum of Gaussians at what was seen before the run, so that the bias does not change in a run.

    Attributes:
        pairs: (d, 2) atoms whose distances count, in a molecule that is whole.
        centres: (H, d) distances that were seen, in bohr.
        width: of the Gaussians in bohr.
        temperature: as k_B T.
        barrier: in hartree.
    """

    pairs: IntArray
    centres: FloatArray
    width: float
    temperature: float
    barrier: float

    def evaluate(self, positions: FloatArray, cells: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """Energies (B,) and gradients (B, N, 3) of positions (B, N, 3) with cells (B, 3, 3) or None."""
        vectors = _vectors(positions, cells, self.pairs)
        distances = np.linalg.norm(vectors, axis=2)
        offsets = (distances[:, None] - self.centres) / self.width
        kernels = np.exp(-0.5 * np.einsum("bhd,bhd->bh", offsets, offsets))
        strength = (1.0 - self.temperature / self.barrier) * self.temperature
        ratio = kernels.mean(axis=1) / self._mean_density + np.exp(-self.barrier / strength)
        slopes = -np.einsum("bh,bhd->bd", kernels, offsets) / (len(self.centres) * self.width)
        slopes *= (strength / (ratio * self._mean_density))[:, None]
        return strength * np.log(ratio), _gradient(positions, self.pairs, vectors, slopes)

    @cached_property
    def _mean_density(self) -> float:
        offsets = (self.centres[:, None] - self.centres) / self.width
        return float(np.exp(-0.5 * np.einsum("ghd,ghd->gh", offsets, offsets)).mean())


@dataclass(frozen=True)
class Restraint:
    """A spring V = 1/2 k (sum_i w_i d_i - centre)^2 on distances d_i.

    Attributes:
        pairs: (d, 2) atoms whose distances count.
        weights: (d,).
        centre: in bohr.
        stiffness: k in hartree/bohr^2.
    """

    pairs: IntArray
    weights: FloatArray
    centre: float
    stiffness: float

    def evaluate(self, positions: FloatArray, cells: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """Energies (B,) and gradients (B, N, 3) of positions (B, N, 3) with cells (B, 3, 3) or None."""
        vectors = _vectors(positions, cells, self.pairs)
        away = np.linalg.norm(vectors, axis=2) @ self.weights - self.centre
        slopes = self.stiffness * away[:, None] * self.weights
        return 0.5 * self.stiffness * away**2, _gradient(positions, self.pairs, vectors, slopes)


Bias: TypeAlias = DistanceBias | Restraint
"""A function of distances that is added to the energy."""


def write_bias(path: Path, bias: Bias) -> None:
    """Write a bias as JSON, in atomic units."""
    with replacing(path) as stream:
        stream.write(json.dumps(_content(bias), default=np.ndarray.tolist) + "\n")


def read_bias(path: Path) -> Bias:
    """Read what `write_bias` wrote.

    Raises:
        DataError: it is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pairs = np.array(content["pairs"], dtype=np.int64).reshape(-1, 2)
        if set(content) == _names(DistanceBias):
            centres = np.array(content["centres"], dtype=np.float64).reshape(-1, len(pairs))
            others = [float(content[name]) for name in ("width", "temperature", "barrier")]
            return DistanceBias(pairs, centres, *others)
        if set(content) == _names(Restraint):
            weights = np.array(content["weights"], dtype=np.float64).reshape(len(pairs))
            return Restraint(pairs, weights, float(content["centre"]), float(content["stiffness"]))
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise DataError(f"{path}: expected a bias as pidelta learn writes it, found none")


def _content(bias: Bias) -> dict[str, Any]:
    return {each.name: getattr(bias, each.name) for each in fields(bias)}


def _names(kind: type[Bias]) -> set[str]:
    return {each.name for each in fields(kind)}


def _gradient(positions: FloatArray, pairs: IntArray, vectors: FloatArray, slopes: FloatArray) -> FloatArray:
    """(B, N, 3) from dV/d of the distances (B, d), whose vectors are (B, d, 3)."""
    pulls = (slopes / np.linalg.norm(vectors, axis=2))[..., None] * vectors
    gradient = np.zeros_like(positions)
    for own, pull in zip(gradient, pulls, strict=True):
        np.add.at(own, pairs[:, 0], pull)
        np.subtract.at(own, pairs[:, 1], pull)
    return gradient


def distances_of(positions: FloatArray, cells: FloatArray | None, pairs: IntArray) -> FloatArray:
    """Distances (B, d) of pairs (d, 2) in structures (B, N, 3) with lattice rows (B, 3, 3), or None."""
    return np.asarray(np.linalg.norm(_vectors(positions, cells, pairs), axis=2))


def _vectors(positions: FloatArray, cells: FloatArray | None, pairs: IntArray) -> FloatArray:
    return minimum_image(positions[:, pairs[:, 0]] - positions[:, pairs[:, 1]], cells)


class BiasedEvaluator:
    """An evaluator whose energy has the bias as one more term, ``bias``.

    Args:
        evaluator: of the terms without it.
        bias: on atoms of its systems.
        periodic: whether cells mean anything.
    """

    def __init__(self, evaluator: Evaluator, bias: Bias, periodic: bool) -> None:
        self._evaluator, self._bias, self._periodic = evaluator, bias, periodic

    @property
    def numbers(self) -> IntArray:
        """(N,) atomic numbers."""
        return self._evaluator.numbers

    def evaluate(self, positions: FloatArray, cells: FloatArray | None) -> Evaluation:
        """The evaluation of positions (B, N, 3) with the bias."""
        evaluation = self._evaluator.evaluate(positions, cells)
        energy, gradient = self._bias.evaluate(positions, cells if self._periodic else None)
        virial = np.full((len(positions), 3, 3), np.nan)  # sampling asks for none
        return replace(evaluation, terms={**evaluation.terms, "bias": Term(energy, gradient, virial)})
