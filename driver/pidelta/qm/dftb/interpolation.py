"""Slater-Koster integrals of a pair type as piecewise polynomials of the distance.

DFTB+'s scheme: between two grid points the polynomial of degree 7 through the eight nearest ones (four on
each side; fewer on one side near the ends), then over 1 bohr a polynomial of degree 5 to zero that continues
the value and two derivatives. Here all coefficients are computed once.
"""

from __future__ import annotations

import numpy as np

from pidelta.qm.dftb.skf import INTEGRALS, SlaterKosterFile
from pidelta.state import FloatArray

ORDER = 8
TAIL = 1.0


def segment_coefficients(table: FloatArray) -> FloatArray:
    """Compute the polynomials of a table (rows, columns) whose row k belongs to the distance k + 1 spacings.

    Returns:
        (rows + 2, 8, columns) coefficients c_p of sum_p c_p t^p. Segment k < rows covers k to k + 1 spacings
        with t the distance from its start in spacings; then the tail, whose derivatives at its start must be
        set with `set_tail`, and zero.
    """
    rows, columns = table.shape
    coefficients = np.zeros((rows + 2, ORDER, columns))
    segments = np.arange(rows)
    last = np.clip(segments + ORDER // 2, ORDER, rows)
    nodes_from = last - ORDER + 1 - segments
    for start in np.unique(nodes_from):
        chosen = segments[nodes_from == start]
        vandermonde = np.vander(start + np.arange(ORDER, dtype=float), ORDER, increasing=True)
        values = table[(chosen[:, None] + start + np.arange(ORDER)) - 1]
        coefficients[chosen] = np.linalg.solve(vandermonde, values)
    return coefficients


def set_tail(coefficients: FloatArray, spacing: float) -> None:
    """Fill in the tail, in t = (distance - end of the table) / 1 bohr, from the segment before it."""
    powers = np.arange(ORDER)
    last = coefficients[-3]
    value = last.sum(axis=0)
    slope = (powers[:, None] * last).sum(axis=0) * (TAIL / spacing)
    curvature = ((powers * (powers - 1))[:, None] * last).sum(axis=0) * (TAIL / spacing) ** 2
    tail = coefficients[-2]
    tail[0] = value
    tail[1] = slope
    tail[2] = curvature / 2.0
    tail[3] = -10.0 * value - 6.0 * slope - 1.5 * curvature
    tail[4] = 15.0 * value + 8.0 * slope + 1.5 * curvature
    tail[5] = -6.0 * value - 3.0 * slope - 0.5 * curvature


class BlockColumns:
    """The columns of a pair table, as `block_columns` writes and `integrals` reads them.

    A block is H_ab = p Y_a Y_b + g (grad Y_a . grad Y_b) + u delta_ab, with the columns p for every (l1, l2),
    g for every pair of p and d shells, and u for d with d.
    """

    def __init__(self, l_max: int) -> None:
        shells = l_max + 1
        self.l_max = l_max
        self.product = np.arange(shells**2).reshape(shells, shells)
        self.gradient = np.full((shells, shells), -1)
        self.gradient[1:, 1:] = shells**2 + np.arange(l_max**2).reshape(l_max, l_max)
        self.unit = shells**2 + l_max**2
        self.count = self.unit + (1 if l_max == 2 else 0)


def block_columns(
    forward: FloatArray, backward: FloatArray, columns: BlockColumns, l_first: int, l_second: int
) -> FloatArray:
    """Combine the sigma, pi and delta integrals of A-B (rows, 10) and B-A (rows, 10) to block columns.

    With T_a.T_b = grad Y_a . grad Y_b - l1 l2 Y_a Y_b (see `harmonics`) and the delta part of d with d as
    delta_ab minus sigma and pi, every block is of the form that `BlockColumns` states.

    Returns:
        (rows, columns.count)
    """
    position = {integral: column for column, integral in enumerate(INTEGRALS)}

    def integral(l1: int, l2: int, m: int) -> FloatArray:
        if m > min(l1, l2):
            return np.zeros(len(forward))
        if l1 <= l2:
            return forward[:, position[l1, l2, m]]
        return (-1.0) ** (l1 + l2) * backward[:, position[l2, l1, m]]

    result = np.zeros((len(forward), columns.count))
    for l1 in range(l_first + 1):
        for l2 in range(l_second + 1):
            sigma, pi, delta = (integral(l1, l2, m) for m in range(3))
            product = sigma - delta
            if min(l1, l2) > 0:
                gradient = (pi - delta) / np.sqrt(l1 * (l1 + 1) * l2 * (l2 + 1) / 4.0)
                result[:, columns.gradient[l1, l2]] = gradient
                product = product - l1 * l2 * gradient
            result[:, columns.product[l1, l2]] = product
            if min(l1, l2) == 2:
                result[:, columns.unit] = delta
    return result


def pair_segments(
    forward: SlaterKosterFile, backward: SlaterKosterFile, columns: BlockColumns, l_first: int, l_second: int
) -> FloatArray:
    """Build the polynomials of a pair type; returns (rows + 2, 8, 2 * columns.count), Hamiltonian first."""
    blocks = [
        block_columns(forward.hamiltonian, backward.hamiltonian, columns, l_first, l_second),
        block_columns(forward.overlap, backward.overlap, columns, l_first, l_second),
    ]
    coefficients = segment_coefficients(np.concatenate(blocks, axis=1))
    set_tail(coefficients, forward.spacing)
    return coefficients
