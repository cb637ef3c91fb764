"""Two-centre matrices H0 and S of a batch from Slater-Koster tables, and their contracted derivatives."""

# mypy: allow-untyped-defs

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pidelta.core.compilation import compiled
from pidelta.qm.dftb.basis import Basis
from pidelta.qm.dftb.harmonics import ANGULAR_MOMENTUM, count, gradient_products, harmonics, pullback
from pidelta.qm.dftb.interpolation import ORDER, TAIL, BlockColumns, pair_segments
from pidelta.qm.dftb.parameters import ParameterSet
from pidelta.state import FloatArray, IntArray

_compiled = compiled(nogil=True, error_model="numpy")

# An element of the upper off-diagonal blocks, table column p times Y_a Y_b, and a term k v Y_c of one.
_ELEMENT: list[tuple[str, type]] = [("row", np.int64), ("column", np.int64), ("pair", np.int64)]
_PRODUCT = [*_ELEMENT, ("p", np.int64), ("a", np.int64), ("b", np.int64)]
_LINEAR = [*_ELEMENT, ("v", np.int64), ("c", np.int64), ("k", np.float64)]


@dataclass(frozen=True)
class PairGeometry:
    """Distances (B, P) in bohr and unit vectors (B, P, 3) from the first to the second atom of each pair."""

    distances: FloatArray
    directions: FloatArray


@dataclass(frozen=True)
class TwoCentreMatrices:
    """H0 and S of a batch with what their derivatives need.

    Attributes:
        hamiltonian, overlap: (B, N, N) in hartree and 1.
        columns: (B, P, 2, C) table columns of Hamiltonian and overlap.
        slopes: (B, P, 2, C) their derivatives with respect to the distance.
        angular: (B, P, K) spherical harmonics of the pair directions.
    """

    hamiltonian: torch.Tensor
    overlap: torch.Tensor
    columns: FloatArray
    slopes: FloatArray
    angular: FloatArray


class SlaterKosterIntegrals:
    """Evaluates H0 and S for all orbital pairs of all structures of a batch, on the CPU.

    The Slater-Koster rotation (Slater, Koster, Phys. Rev. 94, 1498 (1954)) of every element of a block is
    p Y_a Y_b + sum_c k_c v_c Y_c, with p and v_c columns of the pair table (see `tables.BlockColumns`).
    """

    def __init__(self, basis: Basis, parameters: ParameterSet, device: torch.device) -> None:
        self._device = device
        self._l_max = basis.l_max
        self._columns = BlockColumns(basis.l_max)
        self._pairs = len(basis.first)
        self._onsite = basis.onsite
        self._build_tables(basis, parameters)
        self._build_terms(basis)

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
        spacing = np.array(spacings)[basis.pair_types]
        table = np.concatenate(segments).reshape(-1, ORDER, 2, self._columns.count)
        self._tables = (table, offsets[basis.pair_types], lengths[basis.pair_types] - 2, spacing)

    def _build_terms(self, basis: Basis) -> None:
        """List the elements of the upper off-diagonal blocks, then the terms that are linear in one Y_c."""
        atom, harmonic = basis.orbital_atom, basis.orbital_harmonic
        row, column = np.nonzero(atom[:, None] < atom[None, :])
        pair_index = np.zeros((len(basis.symbols),) * 2, dtype=np.int64)
        pair_index[basis.first, basis.second] = np.arange(self._pairs)
        pair = pair_index[atom[row], atom[column]]
        a, b = harmonic[row], harmonic[column]
        shells = np.array(ANGULAR_MOMENTUM)
        angular = count(self._l_max)

        terms: list[tuple[IntArray, int, int, float]] = []
        for (first, second), expansion in gradient_products(self._l_max).items():
            elements = np.flatnonzero((a == first) & (b == second))
            table_column = int(self._columns.gradient[shells[first], shells[second]])
            terms.extend((elements, table_column, c, factor) for c, factor in expansion.items())
        d_orbitals = [np.flatnonzero((a == d) & (b == d)) for d in range(4, angular)]
        terms.extend((elements, self._columns.unit, 0, 1.0) for elements in d_orbitals)
        element = np.concatenate([np.zeros(0, dtype=np.int64), *(term[0] for term in terms)])
        repeats = [len(term[0]) for term in terms]

        def spread(position: int) -> FloatArray:
            return np.repeat(np.array([term[position] for term in terms], dtype=np.float64), repeats)

        product = self._columns.product[shells[a], shells[b]]
        self._products = _records(_PRODUCT, row, column, pair, product, a, b)
        place = (row[element], column[element], pair[element])
        self._linear = _records(_LINEAR, *place, *(spread(position) for position in (1, 2, 3)))

    def evaluate(self, geometry: PairGeometry) -> TwoCentreMatrices:
        """Evaluate H0 and S of a batch."""
        columns, slopes = _interpolate(geometry.distances, *self._tables)
        directions = geometry.directions.reshape(-1, 3)
        angular = harmonics(directions, self._l_max).reshape(*geometry.distances.shape, count(self._l_max))
        matrices = _assemble(columns, angular, self._onsite, self._products, self._linear)
        hamiltonian, overlap = torch.from_numpy(matrices).to(self._device)
        return TwoCentreMatrices(hamiltonian, overlap, columns, slopes, angular)

    def gradient(
        self,
        geometry: PairGeometry,
        matrices: TwoCentreMatrices,
        d_hamiltonian: torch.Tensor,
        d_overlap: torch.Tensor,
    ) -> FloatArray:
        """Contract dE/dH0 and dE/dS with the derivatives of H0 and S.

        Args:
            geometry, matrices: what `evaluate` was given and what it returned.
            d_hamiltonian, d_overlap: (B, N, N), symmetric.

        Returns:
            (B, P, 3) derivative of E with respect to the vector from the first to the second atom of a pair.
        """
        adjoints = (d_hamiltonian.cpu().numpy(), d_overlap.cpu().numpy())
        tables = (matrices.columns, matrices.slopes, matrices.angular)
        radial, d_angular = _contract(*adjoints, *tables, self._products, self._linear)
        along = geometry.directions
        flat = (along.reshape(-1, 3), d_angular.reshape(-1, d_angular.shape[-1]))
        turning = pullback(*flat).reshape(along.shape)
        gradient: FloatArray = _to_vectors(geometry.distances, along, radial, turning)
        return gradient


def _records(
    fields: list[tuple[str, type]], *columns: FloatArray | IntArray
) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Put columns of equal length side by side."""
    records = np.zeros(len(columns[0]), dtype=fields)
    for (name, _), column in zip(fields, columns, strict=True):
        records[name] = column
    return records


@_compiled
def _interpolate(distances, table, offset, rows, spacing):
    """Return the table columns and their derivatives by the distance, each (B, P, 2, C)."""
    batch, pairs = distances.shape
    values = np.zeros((batch, pairs, *table.shape[2:]))
    slopes = np.zeros_like(values)
    for structure in range(batch):
        for pair in range(pairs):
            distance = distances[structure, pair]
            beyond = distance - rows[pair] * spacing[pair]
            unit = spacing[pair]
            segment = int(min(distance / unit, rows[pair]))
            t = distance / unit - segment
            if segment == rows[pair]:
                t, unit = beyond / TAIL, TAIL
                segment += beyond >= TAIL
            value, slope = values[structure, pair], slopes[structure, pair]
            coefficients = table[offset[pair] + segment]
            for power in range(ORDER - 1, -1, -1):
                for matrix in range(2):
                    for c in range(table.shape[3]):
                        slope[matrix, c] = t * slope[matrix, c] + value[matrix, c] / unit
                        value[matrix, c] = t * value[matrix, c] + coefficients[power, matrix, c]
    return values, slopes


@_compiled
def _assemble(columns, angular, onsite, products, linear):
    """Return H0 and S, (2, B, N, N)."""
    batch, orbitals = len(columns), len(onsite)
    result = np.zeros((2, batch, orbitals, orbitals))
    for structure in range(batch):
        column, y = columns[structure], angular[structure]
        for i in range(orbitals):
            result[0, structure, i, i], result[1, structure, i, i] = onsite[i], 1.0
        for matrix in range(2):
            block = result[matrix, structure]
            for term in products:
                factor = y[term.pair, term.a] * y[term.pair, term.b]
                block[term.row, term.column] = factor * column[term.pair, matrix, term.p]
            for term in linear:
                factor = term.k * y[term.pair, term.c]
                block[term.row, term.column] += factor * column[term.pair, matrix, term.v]
            for term in products:
                block[term.column, term.row] = block[term.row, term.column]
    return result


@_compiled
def _contract(d_hamiltonian, d_overlap, columns, slopes, angular, products, linear):
    """Return dE/dR (B, P) at fixed directions and dE/dY (B, P, K) at fixed distances."""
    radial = np.zeros(columns.shape[:2])
    d_angular = np.zeros_like(angular)
    for structure in range(len(columns)):
        for matrix, adjoint in enumerate((d_hamiltonian[structure], d_overlap[structure])):
            column, slope = columns[structure, :, matrix], slopes[structure, :, matrix]
            y, d_y, d_r = angular[structure], d_angular[structure], radial[structure]
            for term in products:
                twice = 2.0 * adjoint[term.row, term.column]
                y_a, y_b = y[term.pair, term.a], y[term.pair, term.b]
                d_r[term.pair] += twice * y_a * y_b * slope[term.pair, term.p]
                d_y[term.pair, term.a] += twice * y_b * column[term.pair, term.p]
                d_y[term.pair, term.b] += twice * y_a * column[term.pair, term.p]
            for term in linear:
                twice = 2.0 * term.k * adjoint[term.row, term.column]
                d_r[term.pair] += twice * y[term.pair, term.c] * slope[term.pair, term.v]
                d_y[term.pair, term.c] += twice * column[term.pair, term.v]
    return radial, d_angular


@_compiled
def _to_vectors(distances, directions, radial, turning):
    """Return the derivative by the vectors of the pairs (B, P, 3) from those by distance and direction."""
    result = np.empty_like(directions)
    for structure, pair in np.ndindex(distances.shape):
        n, turn = directions[structure, pair], turning[structure, pair]
        along = radial[structure, pair]
        for axis in range(3):
            along -= turn[axis] * n[axis] / distances[structure, pair]
        for axis in range(3):
            result[structure, pair, axis] = along * n[axis] + turn[axis] / distances[structure, pair]
    return result
