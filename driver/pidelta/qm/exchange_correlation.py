"""Exchange and correlation on a grid whose basis functions stay in memory.

PySCF evaluates the basis functions anew in each iteration and contracts with the density matrix. For
molecules of some tens of atoms it is three to four times as fast to keep them, without those that vanish
in a block of points, and to contract with the occupied orbitals.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pidelta.qm.shell_pairs import functions_of, with_shells
from pidelta.state import FloatArray, IntArray

Orbitals = Sequence[FloatArray]
"""Occupied orbitals (nao, occupied) by spin, or once where both spins share them, each with two electrons."""

_BLOCK = 768  # points, neighbours in space as PySCF sorts them
_NEGLIGIBLE = 1e-8  # values of basis functions; the energy changes by 1e-11 hartree
_ROWS = {"LDA": 1, "GGA": 4, "MGGA": 5}  # density, its gradient, kinetic energy density
_SECOND = ((4, 5, 6), (5, 7, 8), (6, 8, 9))  # where PySCF keeps d2/dxdy among the derivatives


@dataclass(frozen=True)
class _Block:
    """Points, and the basis functions that matter there.

    Attributes:
        weights: (g,).
        coordinates: (g, 3) in bohr.
        shells: of the molecule, those with functions that matter.
        functions: (k,) indices of their basis functions.
        values: (4, k, g), the functions and their first derivatives.
    """

    weights: FloatArray
    coordinates: FloatArray
    shells: IntArray
    functions: IntArray
    values: FloatArray


class ExchangeCorrelation:
    """Energy, potential and gradient of a functional on a grid.

    Args:
        scf: PySCF's Kohn-Sham object.
        level: PySCF's level of the grid, 0 to 9.
    """

    def __init__(self, scf: Any, level: int) -> None:
        self._molecule = scf.mol
        self._integrator = scf._numint
        self._xc: str = scf.xc
        self._kind: str = scf._numint._xc_type(scf.xc)
        self._make_mask = importlib.import_module("pyscf.dft.gen_grid").make_mask
        grids = type(scf.grids)(scf.mol)
        grids.level = level
        grids.build(with_non0tab=False)
        self._space = np.empty(0)
        blocks = [
            self._block(grids.coords[start : start + _BLOCK], grids.weights[start : start + _BLOCK])
            for start in range(0, len(grids.weights), _BLOCK)
        ]
        self._blocks = [block for block in blocks if block is not None]

    def _values(self, derivatives: int, coordinates: FloatArray, shells: IntArray) -> FloatArray:
        """(rows, k, g) functions of some shells and their derivatives, 0 where they are negligible.

        The next call writes over them: to ask for new memory each time costs more than the functions.
        """
        some = with_shells(self._molecule, shells)
        mask = self._make_mask(some, coordinates, cutoff=0.01 * _NEGLIGIBLE)
        size = {1: 4, 2: 10}[derivatives] * some.nao * len(coordinates)
        if size > len(self._space):
            self._space = np.empty(size)
        name = f"GTOval_sph_deriv{derivatives}"
        values = some.eval_gto(name, coordinates, non0tab=mask, out=self._space)
        return np.asarray(values.transpose(0, 2, 1))

    def _block(self, coordinates: FloatArray, weights: FloatArray) -> _Block | None:
        """Some points; None where no function matters."""
        mask = self._make_mask(self._molecule, coordinates, cutoff=0.01 * _NEGLIGIBLE)
        shells = np.flatnonzero(mask.any(axis=0))
        if not len(shells):
            return None
        values = self._values(1, coordinates, shells)
        sizes = np.diff(self._molecule.ao_loc_nr())[shells]
        largest = np.maximum(values.max(axis=(0, 2)), -values.min(axis=(0, 2)))
        kept = np.maximum.reduceat(largest, np.cumsum(sizes) - sizes) > _NEGLIGIBLE
        values = np.ascontiguousarray(values[:, np.repeat(kept, sizes)])
        shells = shells[kept]
        return _Block(weights, coordinates, shells, functions_of(self._molecule, shells), values)

    def potential(self, orbitals: Orbitals) -> tuple[float, FloatArray]:
        """Energy in hartree and potential matrices (spins, nao, nao)."""
        energy = 0.0
        matrices = np.zeros((len(orbitals), *(len(orbitals[0]),) * 2))
        for block, _, energies, weighted in self._functional(orbitals):
            energy += energies
            place = np.ix_(block.functions, block.functions)
            for matrix, own in zip(matrices, weighted, strict=True):
                matrix[place] += _half_of_potential(block.values, own)
        return energy, matrices + matrices.transpose(0, 2, 1)

    def _functional(
        self, orbitals: Orbitals
    ) -> Iterator[tuple[_Block, list[FloatArray], float, list[FloatArray]]]:
        """Blocks, their functions by `_project`, energy, and weighted potentials (rows, g) by spin.

        Potentials are halved where both functions of a pair get them.
        """
        electrons = 2.0 if len(orbitals) == 1 else 1.0
        for block in self._blocks:
            densities = np.empty((len(orbitals), _ROWS[self._kind], len(block.weights)))
            projected = []
            for density, whole in zip(densities, orbitals, strict=True):
                own = whole[block.functions]
                projected.append(_project(own, block.values[0]))
                for axis in range(min(4, len(density))):
                    density[axis] = np.einsum("kg,kg->g", block.values[axis], projected[-1])
                density[0] *= electrons
                density[1:4] *= 2.0 * electrons
                if self._kind == "MGGA":
                    slopes = [own.T @ values for values in block.values[1:]]
                    density[4] = 0.5 * electrons * sum(np.einsum("og,og->g", s, s) for s in slopes)
            argument = densities[0] if len(orbitals) == 1 else densities
            argument = argument[..., 0, :] if self._kind == "LDA" else argument
            per_electron, derivatives = self._integrator.eval_xc_eff(
                self._xc, argument, 1, xctype=self._kind, spin=len(orbitals) - 1
            )[:2]
            energy = float(per_electron @ (block.weights * densities[:, 0].sum(axis=0)))
            weighted = block.weights * np.asarray(derivatives).reshape(densities.shape)
            weighted[:, 0] *= 0.5
            weighted[:, 4:] *= 0.5
            yield block, projected, energy, list(weighted)

    def gradient(self, orbitals: Orbitals) -> FloatArray:
        """(n, 3) what basis functions that move with their atoms change of the energy, the grid at rest."""
        moves = np.zeros((len(orbitals[0]), 3))
        for block, projected, _, weighted in self._functional(orbitals):
            derivatives = self._values(2, block.coordinates, block.shells)
            for whole, plain, factors in zip(orbitals, projected, weighted, strict=True):
                moves[block.functions] += _moves(derivatives, whole[block.functions], plain, factors)
        starts = self._molecule.aoslice_by_atom()[:, 2]
        return (-4.0 if len(orbitals) == 1 else -2.0) * np.add.reduceat(moves, starts, axis=0)


def _project(orbitals: FloatArray, values: FloatArray) -> FloatArray:
    """(k, g) sum over q of D_pq / electrons times the value of function q at each point."""
    return np.asarray(orbitals @ (orbitals.T @ values))


def _half_of_potential(values: FloatArray, weighted: FloatArray) -> FloatArray:
    """(k, k), whose sum with its transpose is the potential matrix of a block."""
    half = values[0] @ _mixed(values, weighted).T
    if len(weighted) == 5:
        for gradient in values[1:]:
            half += gradient @ (0.5 * weighted[4] * gradient).T
    return np.asarray(half)


def _mixed(values: FloatArray, weighted: FloatArray) -> FloatArray:
    """(k, g) sum over the density and its gradient of potential times function or derivative."""
    mixed: FloatArray = weighted[0] * values[0]
    for factor, value in zip(weighted[1:4], values[1:], strict=False):
        mixed += factor * value
    return mixed


def _moves(
    derivatives: FloatArray, orbitals: FloatArray, plain: FloatArray, weighted: FloatArray
) -> FloatArray:
    """(k, 3) sum over points and functions q of D_pq / electrons times the potential of p moved along x."""
    first = _project(orbitals, _mixed(derivatives, weighted)) + weighted[0] * plain
    factors = [factor * plain for factor in weighted[1:4]]
    if len(weighted) == 5:
        kinetic = [weighted[4] * _project(orbitals, value) for value in derivatives[1:4]]
        factors = [own + term for own, term in zip(factors, kinetic, strict=True)]
    moves = np.empty((len(orbitals), 3))
    for axis in range(3):
        moves[:, axis] = np.einsum("kg,kg->k", derivatives[1 + axis], first)
        for index, factor in zip(_SECOND[axis], factors, strict=False):
            moves[:, axis] += np.einsum("kg,kg->k", derivatives[index], factor)
    return moves
