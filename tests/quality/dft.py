"""DFT beyond the labels: a surface to minimise on, charges and dipole of a minimum, the Hessian."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from pyscf import dft, gto, lo

from pidelta.data.frames import Frame
from pidelta.qm.reference_settings import ReferenceSettings

DISPLACEMENT = 0.01  # bohr
SETTINGS = ReferenceSettings(xc="B3LYP", basis="def2-TZVP", grid_level=2, convergence=1e-8)


class Surface:
    """Energies and gradients at the level of the labels, each SCF from the density of the one before.

    Gradients lack the response of the grid, 5e-5 hartree/bohr at most, which minima do not notice.

    Args:
        frame: the molecule.
        settings: the level of theory.
    """

    def __init__(self, frame: Frame, settings: ReferenceSettings = SETTINGS) -> None:
        self._frame, self._settings = frame, settings
        self._density: np.ndarray | None = None

    def scf(self, positions: np.ndarray) -> Any:
        """The converged SCF at positions (n, 3)."""
        frame = replace(self._frame, positions=positions)
        if self._density is None:
            self._density = converge(
                frame, replace(self._settings, grid_level=0, convergence=1e-5)
            ).make_rdm1()
        scf = converge(frame, self._settings, self._density)
        self._density = scf.make_rdm1()
        return scf

    def __call__(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        scf = self.scf(positions)
        return float(scf.e_tot), scf.nuc_grad_method().kernel()


def converge(frame: Frame, settings: ReferenceSettings, density: np.ndarray | None = None) -> Any:
    """The SCF of a frame without environment."""
    atoms = [(int(number), tuple(x)) for number, x in zip(frame.numbers, frame.positions, strict=True)]
    molecule = gto.M(atom=atoms, unit="Bohr", basis=settings.basis, charge=frame.charge, verbose=0)
    # PySCF's B3LYPG has the VWN(RPA) correlation of the labels.
    scf = dft.RKS(molecule, xc="B3LYPG").density_fit(auxbasis=settings.fitting_basis)
    scf.grids.level, scf.conv_tol = settings.grid_level, settings.convergence
    scf.conv_check, scf.chkfile = False, None
    scf.kernel(dm0=density)
    if not scf.converged:
        raise RuntimeError(f"{frame.source}: the SCF did not converge")
    return scf


def charges_and_dipole(scf: Any) -> tuple[np.ndarray, np.ndarray]:
    """Charges (n,) in intrinsic atomic orbitals (Knizia, JCTC 9, 4834 (2013)); dipole (3,) in e bohr."""
    molecule = scf.mol
    occupied = scf.mo_coeff[:, scf.mo_occ > 0]
    overlap = scf.get_ovlp()
    orbitals = lo.vec_lowdin(lo.iao.iao(molecule, occupied), overlap)
    populations = 2.0 * ((orbitals.T @ overlap @ occupied) ** 2).sum(axis=1)
    charges = molecule.atom_charges().astype(np.float64)
    atoms = [label[0] for label in lo.iao.reference_mol(molecule).ao_labels(fmt=None)]
    np.subtract.at(charges, atoms, populations)
    return charges, scf.dip_moment(molecule, unit="AU", verbose=0)


def hessian_of(frame: Frame) -> np.ndarray:
    """The Hessian (3n, 3n) by central differences of gradients that have the response of the grid.

    PySCF's analytical one has none, and is off by 100/cm for soft modes on such grids.
    """
    settings = replace(SETTINGS, grid_level=1)
    density = converge(frame, settings).make_rdm1()

    def gradient(positions: np.ndarray) -> np.ndarray:
        derivative = converge(replace(frame, positions=positions), settings, density).nuc_grad_method()
        derivative.grid_response = True
        return np.asarray(derivative.kernel()).ravel()

    moves = DISPLACEMENT * np.eye(frame.positions.size).reshape(-1, *frame.positions.shape)
    rows = [gradient(frame.positions + move) - gradient(frame.positions - move) for move in moves]
    hessian = np.array(rows) / (2.0 * DISPLACEMENT)
    return 0.5 * (hessian + hessian.T)
