"""From positions to pairs and to matrices in an orthogonal basis, where a bad geometry shows."""

from __future__ import annotations

import numpy as np
import torch

from pidelta.errors import GeometryError
from pidelta.qm.dftb.basis import Basis
from pidelta.qm.dftb.integrals import PairGeometry, TwoCentreMatrices
from pidelta.state import FloatArray

_COINCIDING = 0.1  # bohr
# Bound of 1 / Tr(S^-1); the smallest eigenvalue of S is between that and N times that. Ordinary molecules
# have 0.01 and more.
_SMALLEST_OVERLAP = 1e-6


class Geometries:
    """Checks the structures of one composition and names what is wrong.

    Args:
        basis: atoms and pairs.
        device: where to orthogonalise.
    """

    def __init__(self, basis: Basis, device: torch.device) -> None:
        self._symbols = basis.symbols
        self._first, self._second = basis.first, basis.second
        pairs = np.arange(len(basis.first))
        self._incidence = np.zeros((len(basis.symbols), len(pairs)))
        self._incidence[basis.first, pairs], self._incidence[basis.second, pairs] = -1.0, 1.0
        self._unit = torch.eye(len(basis.onsite), dtype=torch.float64, device=device)

    def check_finite(self, what: str, values: FloatArray) -> None:
        """Check positions (B, n, 3) or potentials (B, n).

        Raises:
            GeometryError: a value is not finite.
        """
        if not np.isfinite(values).all():
            index = np.argwhere(~np.isfinite(values))[0]
            raise GeometryError(
                f"structure {index[0]}, {self._atom(int(index[1]))}: expected finite {what}, "
                f"found {values[tuple(index)]}"
            )

    def pairs(self, positions: FloatArray) -> PairGeometry:
        """Return distances and directions for positions (B, n, 3).

        Raises:
            GeometryError: atoms coincide.
        """
        positions = np.asarray(positions, dtype=np.float64)
        vectors = positions.take(self._second, axis=1) - positions.take(self._first, axis=1)
        distances = np.sqrt((vectors * vectors).sum(-1))
        if (distances < _COINCIDING).any():
            structure = int(distances.min(-1).argmin())
            self._raise_too_close(distances, structure, f"at least {_COINCIDING} bohr between atoms")
        return PairGeometry(distances, vectors / distances[..., None])

    def by_atom(self, pair_gradient: FloatArray) -> FloatArray:
        """Return the gradient (B, n, 3) from that by the vectors of the pairs (B, P, 3)."""
        return np.asarray(self._incidence @ pair_gradient)

    def orthogonalise(
        self, matrices: TwoCentreMatrices, geometry: PairGeometry
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return L^-1 H0 L^-T, L and L^-1 of S = L L^T, each (B, N, N).

        Raises:
            GeometryError: S is not positive definite, or nearly singular.
        """
        factor, info = torch.linalg.cholesky_ex(matrices.overlap)
        inverse = torch.linalg.solve_triangular(factor, self._unit.expand_as(factor), upper=False)
        # The trace of S^-1 is the squared norm of L^-1.
        norm = torch.linalg.vector_norm(inverse, dim=(-2, -1)).cpu().numpy()
        regular = (norm < _SMALLEST_OVERLAP**-0.5) & (info.cpu().numpy() == 0)
        if not regular.all():
            expected = f"a positive definite overlap with eigenvalues above {_SMALLEST_OVERLAP:g}"
            self._raise_too_close(geometry.distances, int(np.argmin(regular)), expected)
        return inverse @ matrices.hamiltonian @ inverse.mT, factor, inverse

    def _raise_too_close(self, distances: FloatArray, structure: int, expected: str) -> None:
        pair = int(distances[structure].argmin())
        first, second = self._atom(int(self._first[pair])), self._atom(int(self._second[pair]))
        raise GeometryError(
            f"structure {structure}, {first} and {second}: expected {expected}, "
            f"found a distance of {float(distances[structure, pair]):.4f} bohr"
        )

    def _atom(self, index: int) -> str:
        return f"atom {index} ({self._symbols[index]})"
