"""Kohn-Sham DFT with PySCF's integrals and iterations, Coulomb and exchange by density fitting in memory.

The iterations run on a coarse grid. What a fine grid changes, in energy and potential, is a correction that
is computed from the density and its change alone, so that a label takes two or three evaluations on the fine
grid: the result is that of iterations on the fine grid, to the same threshold.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pidelta.qm.density_fitting import DensityFitting
from pidelta.qm.exchange_correlation import ExchangeCorrelation, Orbitals
from pidelta.state import FloatArray

_COARSE_LEVEL = 0
_CORRECTIONS = 6
_START = 1e-5  # hartree, the threshold before the first correction
_SLACK = 0.3  # of the threshold on the coarse grid, so that the fine one can meet it


@dataclass(frozen=True)
class KohnShamResult:
    """A converged calculation, in atomic units.

    Attributes:
        energy: the electrons' and the nuclei's, what nuclei and point charges share left out.
        density: (nao, nao), both spins.
        spin_square: <S^2>.
        gradient: computes the derivative of the energy on the QM atoms (n, 3), but for what point charges do
            to electrons.
    """

    energy: float
    density: FloatArray
    spin_square: float
    gradient: Callable[[], FloatArray]


def solve(scf: Any, auxiliary_basis: str, grid_level: int, tolerance: float) -> KohnShamResult | None:
    """Energy and gradient of a Kohn-Sham object, or None where the SCF does not converge.

    Args:
        scf: PySCF's RKS or UKS object, its core Hamiltonian final. It is changed.
        auxiliary_basis: of density fitting.
        grid_level: of the fine grid.
        tolerance: of the energy in hartree; that of the orbital gradient is its square root.
    """
    potential = _Potential(scf, auxiliary_basis)
    scf.get_veff = potential
    scf.conv_check = False  # its further iteration gains nothing at these thresholds
    scf.conv_tol = max(_START, tolerance)
    scf.kernel()
    scf.conv_tol, scf.conv_tol_grad = tolerance, _SLACK * tolerance**0.5
    fine = ExchangeCorrelation(scf, grid_level)
    core = scf.get_hcore()
    for _ in range(_CORRECTIONS):
        if not scf.converged:
            return None
        density = scf.make_rdm1()
        on_fine_grid = potential.on_fine_grid(fine, density)
        fock = core + on_fine_grid
        if np.linalg.norm(scf.get_grad(scf.mo_coeff, scf.mo_occ, fock)) < tolerance**0.5:
            energy = float(scf.energy_tot(density, core, on_fine_grid))
            scf.mo_energy = np.einsum("...pi,...pq,...qi->...i", scf.mo_coeff, fock, scf.mo_coeff)
            spin_square = float(scf.spin_square()[0]) if np.ndim(density) == 3 else 0.0
            gradient = partial(_gradient, scf, potential, fine, occupied_orbitals(density))
            return KohnShamResult(energy, _as_spins(density).sum(axis=0), spin_square, gradient)
        scf.kernel(dm0=density)
    return None


def occupied_orbitals(density: Any) -> Orbitals:
    """The orbitals behind a density matrix of PySCF, or natural ones where it does not say."""
    matrices = density[None] if np.ndim(density) == 2 else density
    coefficients = getattr(density, "mo_coeff", None)
    if coefficients is None:
        electrons = 2.0 if len(matrices) == 1 else 1.0
        found = []
        for matrix in matrices:
            occupations, vectors = np.linalg.eigh(matrix)
            kept = occupations > 1e-10
            found.append(vectors[:, kept] * np.sqrt(occupations[kept] / electrons))
        return found
    occupations = density.mo_occ
    if len(matrices) == 1:
        return [np.ascontiguousarray(coefficients[:, occupations > 0])]
    pairs = zip(coefficients, occupations, strict=True)
    return [np.ascontiguousarray(own[:, occupation > 0]) for own, occupation in pairs]


class _Potential:
    """The mean field of the electrons, as PySCF asks for it.

    Args:
        scf: the Kohn-Sham object.
        auxiliary_basis: of density fitting.
    """

    def __init__(self, scf: Any, auxiliary_basis: str) -> None:
        omega, long_range, short_range = scf._numint.rsh_and_hybrid_coeff(scf.xc, scf.mol.spin)
        self._atoms = scf.mol.natm
        self._fitting = DensityFitting(scf.mol, auxiliary_basis, with_exchange=bool(short_range))
        self._exchange = [(float(short_range), self._fitting)]
        if omega and long_range != short_range:
            fitting = DensityFitting(scf.mol, auxiliary_basis, omega)
            self._exchange.append((float(long_range - short_range), fitting))
        self._coarse = ExchangeCorrelation(scf, _COARSE_LEVEL)
        self._correction: tuple[float, FloatArray, FloatArray] | None = None

    def __call__(self, molecule: Any = None, density: Any = None, *_: Any, **__: Any) -> Any:
        """The potential matrix, with the parts of the energy as its attributes."""
        orbitals = occupied_orbitals(density)
        energy, matrices = self._coarse.potential(orbitals)
        if self._correction is not None:
            offset, matrix, start = self._correction
            energy += offset + float(np.einsum("spq,spq->", matrix, _as_spins(density) - start))
            matrices = matrices + matrix
        return self._with_coulomb(density, orbitals, energy, matrices)

    def on_fine_grid(self, fine: ExchangeCorrelation, density: Any) -> Any:
        """The same on a fine grid, which corrects what comes afterwards."""
        orbitals = occupied_orbitals(density)
        coarse_energy, coarse = self._coarse.potential(orbitals)
        energy, matrices = fine.potential(orbitals)
        self._correction = (energy - coarse_energy, matrices - coarse, np.array(_as_spins(density)))
        return self._with_coulomb(density, orbitals, energy, matrices)

    def _with_coulomb(self, density: Any, orbitals: Orbitals, energy: float, matrices: FloatArray) -> Any:
        spins = _as_spins(density)
        total = spins.sum(axis=0)
        coulomb = self._fitting.coulomb(total)
        matrices = matrices + coulomb
        for share, fitting in self._exchange:
            if not share:
                continue
            exchange = share * np.stack([fitting.exchange(own) for own in orbitals])
            matrices = matrices - exchange
            energy -= 0.5 * float(np.einsum("spq,spq->", exchange, spins))
        matrices = matrices[0] if np.ndim(density) == 2 else matrices
        repulsion = 0.5 * float(np.einsum("pq,pq->", coulomb, total))
        tag_array = importlib.import_module("pyscf.lib").tag_array
        return tag_array(matrices, ecoul=repulsion, exc=energy, vj=coulomb, vk=None)

    def gradient(self, orbitals: Orbitals) -> FloatArray:
        """(n, 3) of the energy of Coulomb and exchange."""
        gradient = np.zeros((self._atoms, 3))
        for share, fitting in self._exchange:
            coulomb = 1.0 if fitting is self._fitting else 0.0
            gradient += fitting.gradient(orbitals, coulomb, share)
        return gradient


def _as_spins(density: Any) -> FloatArray:
    return np.asarray(density)[None] if np.ndim(density) == 2 else np.asarray(density)


def _gradient(scf: Any, potential: _Potential, fine: ExchangeCorrelation, orbitals: Orbitals) -> FloatArray:
    return _one_electron_gradient(scf) + potential.gradient(orbitals) + fine.gradient(orbitals)


def _one_electron_gradient(scf: Any) -> FloatArray:
    """(n, 3) the gradient of kinetic energy, nuclei and overlap, by PySCF."""
    derivative = scf.nuc_grad_method()
    nothing = np.zeros((3, *(scf.mol.nao,) * 2))
    tag_array = importlib.import_module("pyscf.lib").tag_array
    matrices = nothing if np.ndim(scf.mo_occ) == 1 else np.stack([nothing] * 2)
    derivative.get_veff = lambda *_, **__: tag_array(matrices, exc1_grid=None)
    return np.asarray(derivative.kernel())
