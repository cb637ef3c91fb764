"""A bias that pushes dynamics to distances that were seen seldom, as metadynamics does."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

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
        pulls = (slopes / distances)[..., None] * vectors
        gradient = np.zeros_like(positions)
        for own, pull in zip(gradient, pulls, strict=True):
            np.add.at(own, self.pairs[:, 0], pull)
            np.subtract.at(own, self.pairs[:, 1], pull)
        return strength * np.log(ratio), gradient

    @cached_property
    def _mean_density(self) -> float:
        offsets = (self.centres[:, None] - self.centres) / self.width
        return float(np.exp(-0.5 * np.einsum("ghd,ghd->gh", offsets, offsets)).mean())

    def save(self, path: Path) -> None:
        """Write it as JSON, in atomic units."""
        content = {
            "pairs": self.pairs.tolist(),
            "centres": self.centres.tolist(),
            "width": self.width,
            "temperature": self.temperature,
            "barrier": self.barrier,
        }
        with replacing(path) as stream:
            stream.write(json.dumps(content) + "\n")

    @classmethod
    def read(cls, path: Path) -> DistanceBias:
        """Read what `save` wrote.

        Raises:
            DataError: it is something else.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            pairs = np.array(content.pop("pairs"), dtype=np.int64).reshape(-1, 2)
            centres = np.array(content.pop("centres"), dtype=np.float64).reshape(-1, len(pairs))
            return cls(pairs, centres, **{name: float(value) for name, value in content.items()})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            raise DataError(f"{path}: expected a bias as pidelta learn writes it, found none") from None


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

    def __init__(self, evaluator: Evaluator, bias: DistanceBias, periodic: bool) -> None:
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
