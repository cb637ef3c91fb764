"""Two-centre matrices H0 and S of a batch from Slater-Koster tables, and their contracted derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pidelta.qm.dftb.basis import Basis
from pidelta.qm.dftb.harmonics import ANGULAR_MOMENTUM, count, gradient_products, harmonics, pullback
from pidelta.qm.dftb.parameters import ParameterSet
from pidelta.qm.dftb.tables import ORDER, TAIL, BlockColumns, pair_segments
from pidelta.state import FloatArray, IntArray


@dataclass(frozen=True)
class PairGeometry:
    """Distances (B, P) in bohr and unit vectors (B, P, 3) from the first to the second atom of each pair."""

    distances: torch.Tensor
    directions: torch.Tensor


@dataclass(frozen=True)
class TwoCentreMatrices:
    """H0 and S of a batch with what their derivatives need.

    Attributes:
        hamiltonian, overlap: (B, N, N) in hartree and 1.
        columns: (2, B, P * C) table columns of Hamiltonian and overlap.
        slopes: (2, B, P * C) their derivatives with respect to the distance.
        angular: (B, P * K) spherical harmonics of the pair directions.
    """

    hamiltonian: torch.Tensor
    overlap: torch.Tensor
    columns: torch.Tensor
    slopes: torch.Tensor
    angular: torch.Tensor


class SlaterKosterIntegrals:
    """Evaluates H0 and S for all orbital pairs of all structures of a batch in a few vectorised steps.

    The Slater-Koster rotation (Slater, Koster, Phys. Rev. 94, 1498 (1954)) of every element of a block is
    p Y_a Y_b + sum_c k_c v_c Y_c, with p and v_c columns of the pair table (see `tables.BlockColumns`).
    """

    def __init__(self, basis: Basis, parameters: ParameterSet, device: torch.device) -> None:
        self._device = device
        self._l_max = basis.l_max
        self._columns = BlockColumns(basis.l_max)
        self._pairs = len(basis.first)
        self._orbitals = len(basis.onsite)
        self._build_tables(basis, parameters)
        self._build_terms(basis)
        # Behind the elements of the off-diagonal blocks: the diagonals of H0 and S, and the zero of the rest.
        one_centre = np.stack((np.append(basis.onsite, 0.0), np.append(np.ones(self._orbitals), 0.0)))
        self._one_centre = self._tensor(one_centre).unsqueeze(1)

    def _tensor(self, values: FloatArray | IntArray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), device=self._device)

    def _build_tables(self, basis: Basis, parameters: ParameterSet) -> None:
        segments, spacings = [np.zeros((0, ORDER, 2 * self._columns.count))], []
        for first, second in basis.type_symbols:
            elements = parameters.elements
            forward, backward = parameters.pairs[first, second], parameters.pairs[second, first]
            shells = (elements[first].l_max, elements[second].l_max)
            segments.append(pair_segments(forward, backward, self._columns, *shells))
            spacings.append(forward.spacing)
        lengths = np.array([len(part) for part in segments[1:]], dtype=np.int64)
        offsets = np.cumsum(lengths) - lengths
        self._segments = self._tensor(np.concatenate(segments))
        self._offset = self._tensor(offsets[basis.pair_types])
        self._rows = self._tensor(lengths[basis.pair_types] - 2)
        self._spacing = self._tensor(np.array(spacings)[basis.pair_types])
        # From the powers of t to their derivatives.
        self._derivative = self._tensor(np.diag(np.arange(1.0, ORDER), 1))

    def _build_terms(self, basis: Basis) -> None:
        """List the elements of the upper off-diagonal blocks, then the terms that are linear in one Y_c."""
        atom, harmonic = basis.orbital_atom, basis.orbital_harmonic
        row, column = np.nonzero(atom[:, None] < atom[None, :])
        pair_index = np.zeros((len(basis.symbols),) * 2, dtype=np.int64)
        pair_index[basis.first, basis.second] = np.arange(self._pairs)
        pair = pair_index[atom[row], atom[column]]
        a, b = harmonic[row], harmonic[column]
        shells = np.array(ANGULAR_MOMENTUM)
        width, angular = self._columns.count, count(self._l_max)

        terms: list[tuple[IntArray, int, int, float]] = []
        for (first, second), expansion in gradient_products(self._l_max).items():
            elements = np.flatnonzero((a == first) & (b == second))
            table_column = int(self._columns.gradient[shells[first], shells[second]])
            terms.extend((elements, table_column, c, factor) for c, factor in expansion.items())
        d_orbitals = [np.flatnonzero((a == d) & (b == d)) for d in range(4, angular)]
        terms.extend((elements, self._columns.unit, 0, 1.0) for elements in d_orbitals)
        element = np.concatenate([np.zeros(0, dtype=np.int64), *(term[0] for term in terms)])
        repeats = [len(term[0]) for term in terms]

        def spread(position: int, dtype: type) -> FloatArray | IntArray:
            return np.repeat(np.array([term[position] for term in terms], dtype=dtype), repeats)

        places = np.full((self._orbitals,) * 2, len(row) + self._orbitals)
        np.fill_diagonal(places, len(row) + np.arange(self._orbitals))
        places[row, column] = places[column, row] = np.arange(len(row))
        self._places = self._tensor(places.ravel())
        self._upper = self._tensor(row * self._orbitals + column)
        self._product_column = self._tensor(pair * width + self._columns.product[shells[a], shells[b]])
        self._first = self._tensor(pair * angular + a)
        self._second = self._tensor(pair * angular + b)
        self._linear_element = self._tensor(element)
        self._linear_column = self._tensor(pair[element] * width + spread(1, np.int64))
        self._linear_angular = self._tensor(pair[element] * angular + spread(2, np.int64))
        self._linear_factor = self._tensor(spread(3, np.float64))

    def _interpolate(self, distances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the table columns and their slopes, each (2, B, P * C)."""
        batch = len(distances)
        scaled = distances / self._spacing
        segment = torch.minimum(scaled.floor().to(torch.int64), self._rows)
        beyond = distances - self._rows * self._spacing
        in_tail = segment == self._rows
        segment = segment + (beyond >= TAIL)
        t = torch.where(in_tail, beyond / TAIL, scaled - segment)
        scale = torch.where(in_tail, 1.0 / TAIL, 1.0 / self._spacing)
        square = t * t
        low = torch.stack((torch.ones_like(t), t, square, square * t), dim=-1)
        powers = torch.cat((low, (square * square).unsqueeze(-1) * low), dim=-1)
        slopes = (powers * scale.unsqueeze(-1)) @ self._derivative
        weights = torch.stack((powers, slopes), dim=-2).reshape(-1, 2, ORDER)
        coefficients = self._segments.index_select(0, (self._offset + segment).reshape(-1))
        result = torch.bmm(weights, coefficients).reshape(batch, self._pairs, 2, 2, self._columns.count)
        values, derivatives = result.permute(2, 3, 0, 1, 4).flatten(3).unbind(0)
        return values, derivatives

    def evaluate(self, geometry: PairGeometry) -> TwoCentreMatrices:
        """Evaluate H0 and S of a batch."""
        batch = len(geometry.distances)
        columns, slopes = self._interpolate(geometry.distances)
        angular = harmonics(geometry.directions, self._l_max).flatten(1)
        elements = _take(columns, self._product_column) * (
            _take(angular, self._first) * _take(angular, self._second)
        )
        linear = _take(columns, self._linear_column) * (
            self._linear_factor * _take(angular, self._linear_angular)
        )
        elements.index_add_(-1, self._linear_element, linear)
        elements = torch.cat((elements, self._one_centre.expand(-1, batch, -1)), dim=-1)
        matrices = _take(elements, self._places).reshape(2, batch, self._orbitals, self._orbitals)
        hamiltonian, overlap = matrices.unbind(0)
        return TwoCentreMatrices(hamiltonian, overlap, columns, slopes, angular)

    def gradient(
        self,
        geometry: PairGeometry,
        matrices: TwoCentreMatrices,
        d_hamiltonian: torch.Tensor,
        d_overlap: torch.Tensor,
    ) -> torch.Tensor:
        """Contract dE/dH0 and dE/dS with the derivatives of H0 and S.

        Args:
            geometry, matrices: what `evaluate` was given and what it returned.
            d_hamiltonian, d_overlap: (B, N, N), symmetric.

        Returns:
            (B, P, 3) derivative of E with respect to the vector from the first to the second atom of a pair.
        """
        batch = len(geometry.distances)
        adjoint = torch.stack((d_hamiltonian, d_overlap)).reshape(2, batch, -1)
        adjoint = 2.0 * _take(adjoint, self._upper)
        linear_adjoint = _take(adjoint, self._linear_element) * self._linear_factor
        first, second = _take(matrices.angular, self._first), _take(matrices.angular, self._second)
        linear_angular = _take(matrices.angular, self._linear_angular)

        d_columns = torch.zeros_like(matrices.columns)
        d_columns.index_add_(-1, self._product_column, adjoint * (first * second))
        d_columns.index_add_(-1, self._linear_column, linear_adjoint * linear_angular)
        d_angular = torch.zeros_like(matrices.angular)
        product = (adjoint * _take(matrices.columns, self._product_column)).sum(0)
        d_angular.index_add_(-1, self._first, product * second)
        d_angular.index_add_(-1, self._second, product * first)
        linear = (linear_adjoint * _take(matrices.columns, self._linear_column)).sum(0)
        d_angular.index_add_(-1, self._linear_angular, linear)

        radial = (d_columns * matrices.slopes).sum(0).reshape(batch, self._pairs, self._columns.count)
        radial = radial.sum(-1, keepdim=True)
        along = geometry.directions
        turning = pullback(along, d_angular.reshape(batch, self._pairs, count(self._l_max)))
        turning = turning - (turning * along).sum(-1, keepdim=True) * along
        return radial * along + turning / geometry.distances.unsqueeze(-1)


def _take(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Select along the last axis; `gather` is several times faster here than indexing."""
    return values.gather(-1, index.expand(*values.shape[:-1], -1))
