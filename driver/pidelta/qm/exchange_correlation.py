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

from pidelta.state import FloatArray, IntArray

Orbitals = Sequence[FloatArray]
"""Occupied orbitals (nao, occupied) by spin, or once where both spins share them, each with two electrons."""

_BLOCK = 1024  # points, neighbours in space as PySCF sorts them
_NEGLIGIBLE = 1e-8  # values of basis functions; the energy changes by 1e-11 hartree
_ROWS = {"LDA": 1, "GGA": 4, "MGGA": 5}  # density, its gradient, kinetic energy density
_SECOND = ((4, 5, 6), (5, 7, 8), (6, 8, 9))  # where PySCF keeps d2/dxdy among the derivatives


@dataclass(frozen=True)
class _Block:
    """Points, and the basis functions that matter there.

    Attributes:
        weights: (g,).
        coordinates: (g, 3) in bohr.
        functions: (k,) indices of basis functions.
        values: (4, g, k), the functions and their first derivatives.
    """

    weights: FloatArray
    coordinates: FloatArray
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
        self._blocks = [
            self._block(grids.coords[start : start + _BLOCK], grids.weights[start : start + _BLOCK])
            for start in range(0, len(grids.weights), _BLOCK)
        ]

    def _values(self, derivatives: int, coordinates: FloatArray) -> FloatArray:
        """(rows, g, nao) basis functions and their derivatives to an order, 0 where they are negligible."""
        mask = self._make_mask(self._molecule, coordinates, cutoff=0.01 * _NEGLIGIBLE)
        name = f"GTOval_sph_deriv{derivatives}"
        return np.asarray(self._molecule.eval_gto(name, coordinates, non0tab=mask))

    def _block(self, coordinates: FloatArray, weights: FloatArray) -> _Block:
        values = self._values(1, coordinates)
        functions = np.flatnonzero(np.abs(values).max(axis=(0, 1)) > _NEGLIGIBLE)
        return _Block(weights, coordinates, functions, np.ascontiguousarray(values[:, :, functions]))

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
        """Blocks, orbitals at their points (4, g, o), energy, and weighted potentials (rows, g) by spin.

        Potentials are halved where both functions of a pair get them.
        """
        electrons = 2.0 if len(orbitals) == 1 else 1.0
        for block in self._blocks:
            points = [block.values @ own[block.functions] for own in orbitals]
            densities = np.empty((len(orbitals), _ROWS[self._kind], len(block.weights)))
            for density, value in zip(densities, points, strict=True):
                density[0] = electrons * np.einsum("go,go->g", value[0], value[0])
                for axis in range(1, min(4, len(density))):
                    density[axis] = 2.0 * electrons * np.einsum("go,go->g", value[0], value[axis])
                if self._kind == "MGGA":
                    density[4] = 0.5 * electrons * np.einsum("xgo,xgo->g", value[1:], value[1:])
            argument = densities[0] if len(orbitals) == 1 else densities
            argument = argument[..., 0, :] if self._kind == "LDA" else argument
            per_electron, derivatives = self._integrator.eval_xc_eff(
                self._xc, argument, 1, xctype=self._kind, spin=len(orbitals) - 1
            )[:2]
            energy = float(per_electron @ (block.weights * densities[:, 0].sum(axis=0)))
            weighted = block.weights * np.asarray(derivatives).reshape(densities.shape)
            weighted[:, 0] *= 0.5
            weighted[:, 4:] *= 0.5
            yield block, points, energy, list(weighted)

    def gradient(self, orbitals: Orbitals) -> FloatArray:
        """(n, 3) what basis functions that move with their atoms change of the energy, the grid at rest."""
        moves = np.zeros((len(orbitals[0]), 3))
        for block, points, _, weighted in self._functional(orbitals):
            derivatives = self._values(2, block.coordinates)[:, :, block.functions]
            for own, value, factors in zip(orbitals, points, weighted, strict=True):
                moves[block.functions] += _moves(derivatives, own[block.functions].T, value, factors)
        starts = self._molecule.aoslice_by_atom()[:, 2]
        return (-4.0 if len(orbitals) == 1 else -2.0) * np.add.reduceat(moves, starts, axis=0)


def _half_of_potential(values: FloatArray, weighted: FloatArray) -> FloatArray:
    """(k, k), whose sum with its transpose is the potential matrix of a block."""
    half: FloatArray = values[0].T @ np.einsum("xgk,xg->gk", values[: len(weighted[:4])], weighted[:4])
    if len(weighted) == 5:
        gradients = values[1:].reshape(-1, values.shape[2])
        half += gradients.T @ (np.tile(0.5 * weighted[4], 3)[:, None] * gradients)
    return half


def _moves(
    derivatives: FloatArray, orbitals: FloatArray, points: FloatArray, weighted: FloatArray
) -> FloatArray:
    """(k, 3) sum over points and functions q of D_pq / electrons times the potential of p moved along x."""
    rows = len(weighted[:4])
    plain = points[0] @ orbitals
    first = np.einsum("xg,xgo->go", weighted[:rows], points[:rows]) @ orbitals
    first += weighted[0][:, None] * plain
    factors = [factor[:, None] * plain for factor in weighted[1:rows]]
    if len(weighted) == 5:
        kinetic = points[1:] @ orbitals
        factors = [own + weighted[4][:, None] * term for own, term in zip(factors, kinetic, strict=True)]
    moves = np.empty((orbitals.shape[1], 3))
    for axis in range(3):
        moves[:, axis] = np.einsum("gp,gp->p", derivatives[1 + axis], first)
        for index, factor in zip(_SECOND[axis], factors, strict=False):
            moves[:, axis] += np.einsum("gp,gp->p", derivatives[index], factor)
    return moves
