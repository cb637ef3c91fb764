"""Coulomb and exchange by density fitting, all integrals in memory, and their gradient.

With M_PQ = (P|Q) of the fitting functions and D the density matrix, the energy of Coulomb is 1/2 b M^-1 b,
where b_P = (P|pq) D_pq; that of exchange has (P|ij) of the occupied orbitals in place of b (Weigend, Phys.
Chem. Chem. Phys. 2002, 4, 4285).
"""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from typing import Any

import numpy as np

from pidelta.qm.exchange_correlation import Orbitals
from pidelta.qm.shell_pairs import ShellGroup, shell_groups
from pidelta.state import FloatArray

_BLOCK = 100  # fitting functions at once, about
_DEPENDENT = 1e-12  # of the largest eigenvalue: what is below is linearly dependent


class DensityFitting:
    """The integrals of a molecule for one kernel, 1/r or erf(omega r)/r.

    Args:
        molecule: PySCF's.
        auxiliary_basis: the fitting basis by name.
        omega: of the kernel in 1/bohr, 0 for 1/r.
        with_exchange: whether exchange is asked for; without it only integrals of functions that overlap are
            kept, as they are, which saves the longest steps of large molecules.
    """

    def __init__(
        self, molecule: Any, auxiliary_basis: str, omega: float = 0.0, with_exchange: bool = True
    ) -> None:
        self._df = importlib.import_module("pyscf.df")
        self._lib = importlib.import_module("pyscf.lib")
        self._molecule = molecule
        self._auxiliary = self._df.addons.make_auxmol(molecule, auxiliary_basis)
        self._omega = omega
        with self._kernel(molecule):
            self._root = _inverse_root(self._auxiliary.intor("int2c2e", hermi=1))
            if with_exchange:
                packed = self._df.incore.aux_e2(molecule, self._auxiliary, "int3c2e", aosym="s2ij")
                self._integrals = self._root @ packed.T  # (kept, pairs), their products the fitted (pq|rs)
        self._is_fitted = with_exchange
        groups = [] if with_exchange else shell_groups(molecule, once=True)
        # (P, q and p)
        self._groups = [(group, self._of_group(group, "int3c2e").reshape(self._n, -1)) for group in groups]

    @property
    def _n(self) -> int:
        """The number of fitting functions."""
        return int(self._auxiliary.nao)

    def _of_group(self, group: ShellGroup, name: str, components: int = 1, out: Any = None) -> FloatArray:
        """Integrals (components, P, q, p), p of the group and q its partners, as they lie in memory."""
        slices = (*group.slices, 0, self._auxiliary.nbas)
        with self._kernel(group.molecule):
            integrals = self._df.incore.aux_e2(
                group.molecule, self._auxiliary, name, "s1", comp=components, shls_slice=slices, out=out
            )
        return np.asarray(integrals.reshape(-1, *integrals.shape[-3:]).transpose(0, 3, 2, 1))

    def _kernel(self, molecule: Any) -> ExitStack:
        stack = ExitStack()
        stack.enter_context(molecule.with_range_coulomb(self._omega))
        stack.enter_context(self._auxiliary.with_range_coulomb(self._omega))
        return stack

    def coulomb(self, density: FloatArray) -> FloatArray:
        """(nao, nao) the potential of a density matrix."""
        if self._is_fitted:
            packed = (self._integrals @ self._packed(density)) @ self._integrals
            return np.asarray(self._lib.unpack_tril(packed))
        coefficients = self._root.T @ self._fitted(density)
        potential = np.zeros_like(density)
        for group, integrals in self._groups:
            potential[group.place] = (coefficients @ integrals).reshape(len(group.partners), -1)
            potential.T[group.place] = potential[group.place]
        return potential

    def _fitted(self, density: FloatArray) -> FloatArray:
        """(kept,) M^-1/2 b."""
        if self._is_fitted:
            return np.asarray(self._integrals @ self._packed(density))
        potentials = np.zeros(self._n)
        for group, integrals in self._groups:
            potentials += integrals @ (group.multiplicities * density[group.place]).ravel()
        return np.asarray(self._root @ potentials)

    def _packed(self, density: FloatArray) -> FloatArray:
        """(pairs,) a symmetric matrix, each pair of two functions twice."""
        return np.asarray(self._lib.pack_tril(2.0 * density - np.diag(np.diag(density))))

    def exchange(self, orbitals: FloatArray) -> FloatArray:
        """(nao, nao) the exchange of orbitals (nao, o) with one electron each."""
        assert self._is_fitted
        exchange = np.zeros((len(orbitals),) * 2)
        for start in range(0, len(self._integrals), _BLOCK):
            half = self._lib.unpack_tril(self._integrals[start : start + _BLOCK]) @ orbitals
            rows = half.transpose(1, 0, 2).reshape(len(orbitals), -1)
            exchange += rows @ rows.T
        return exchange

    def gradient(self, orbitals: Orbitals, coulomb: float, exchange: float) -> FloatArray:
        """(n, 3) the gradient of so much of Coulomb's energy, less so much of that of exchange.

        Args:
            orbitals: occupied ones, see `Orbitals`.
            coulomb, exchange: the shares, such as 1 and 0.2 for B3LYP.
        """
        electrons = 2.0 if len(orbitals) == 1 else 1.0
        density = electrons * sum(own @ own.T for own in orbitals)
        charges = self._fitted(density) @ self._root
        pairs = [self._pairs(own) for own in orbitals] if exchange else []
        weights = 0.5 * coulomb * np.outer(charges, charges)
        for own in pairs:
            flat = own.reshape(len(own), -1)
            weights -= 0.5 * exchange * electrons * flat @ flat.T
        with self._kernel(self._molecule):
            derivative = self._auxiliary.intor("int2c2e_ip1", comp=3)
        on_auxiliary = 2.0 * np.einsum("xpq,pq->px", derivative, weights)
        on_functions = np.zeros((3, len(density)))
        groups = list(shell_groups(self._molecule))
        # One piece of memory for all: to ask for it again and again takes longer than some integrals.
        space = np.empty(3 * len(charges) * max(len(g.own) * len(g.partners) for g in groups))
        for group in groups:
            integrals = self._of_group(group, "int3c2e_ip1", 3, space)
            if coulomb:
                rows = integrals.reshape(3, len(charges), -1)
                potentials = (charges @ rows).reshape(3, len(group.partners), -1)
                on_functions[:, group.own] -= 2.0 * coulomb * (potentials * density[group.place]).sum(axis=1)
                # moving all at once changes nothing
                on_auxiliary += 2.0 * coulomb * charges[:, None] * (rows @ density[group.place].ravel()).T
            for own, pair in zip(orbitals, pairs, strict=False):
                factors = exchange * electrons * (own[group.partners] @ pair @ own[group.own].T)
                moves = np.einsum("xkqp,kqp->xkp", integrals, factors)
                on_functions[:, group.own] += 2.0 * moves.sum(axis=1)
                on_auxiliary -= 2.0 * moves.sum(axis=2).T
        return _by_atom(self._molecule, on_functions.T) + _by_atom(self._auxiliary, on_auxiliary)

    def _pairs(self, orbitals: FloatArray) -> FloatArray:
        """(naux, o, o) M^-1 (P|ij)."""
        assert self._is_fitted
        occupied = orbitals.shape[1]
        products = np.empty((len(self._integrals), occupied, occupied))
        for start in range(0, len(self._integrals), _BLOCK):
            full = self._lib.unpack_tril(self._integrals[start : start + _BLOCK])
            products[start : start + _BLOCK] = orbitals.T @ full @ orbitals
        pairs: FloatArray = self._root.T @ products.reshape(len(products), -1)
        return pairs.reshape(-1, occupied, occupied)


def _inverse_root(matrix: FloatArray) -> FloatArray:
    """(kept, n) whose product with itself is the inverse of a positive matrix, its null space left out."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > _DEPENDENT * values[-1]
    return np.ascontiguousarray((vectors[:, kept] / np.sqrt(values[kept])).T)


def _by_atom(molecule: Any, values: FloatArray) -> FloatArray:
    """(n, 3) sums over the functions of each atom."""
    sums = np.zeros((molecule.natm, 3))
    for atom, (*_, start, end) in enumerate(molecule.aoslice_by_atom()):
        sums[atom] = values[start:end].sum(axis=0)
    return sums
