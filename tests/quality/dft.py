"""What the report needs from DFT beyond labels: charges and dipole of a minimum, the Hessian."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf import dft, gto, lo

from pidelta.data.frames import Frame
from pidelta.qm.reference import ReferenceSettings

SETTINGS = ReferenceSettings(xc="B3LYP", basis="def2-TZVP", grid_level=2, convergence=1e-8)


def scf_of(frame: Frame, grid_level: int, convergence: float) -> Any:
    """The converged SCF of a frame without environment, at the level of the labels."""
    atoms = [(int(number), tuple(x)) for number, x in zip(frame.numbers, frame.positions, strict=True)]
    molecule = gto.M(atom=atoms, unit="Bohr", basis=SETTINGS.basis, charge=frame.charge, verbose=0)
    # PySCF's B3LYPG has the VWN(RPA) correlation of the labels.
    scf = dft.RKS(molecule, xc="B3LYPG").density_fit(auxbasis=SETTINGS.auxiliary_basis)
    scf.grids.level, scf.conv_tol, scf.chkfile = grid_level, convergence, None
    scf.kernel()
    if not scf.converged:
        raise RuntimeError(f"{frame.source}: the SCF did not converge")
    return scf


def charges_and_dipole(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Charges (n,) in intrinsic atomic orbitals (Knizia, JCTC 9, 4834 (2013)) and the dipole (3,) in e bohr.

    A coarser grid and threshold than those of the labels change charges by less than 1e-3 e.
    """
    scf = scf_of(frame, grid_level=1, convergence=1e-6)
    molecule = scf.mol
    occupied = scf.mo_coeff[:, scf.mo_occ > 0]
    overlap = scf.get_ovlp()
    orbitals = lo.vec_lowdin(lo.iao.iao(molecule, occupied), overlap)
    populations = 2.0 * ((orbitals.T @ overlap @ occupied) ** 2).sum(axis=1)
    charges = frame.numbers.astype(np.float64)
    atoms = [label[0] for label in lo.iao.reference_mol(molecule).ao_labels(fmt=None)]
    np.subtract.at(charges, atoms, populations)
    return charges, scf.dip_moment(molecule, unit="AU", verbose=0)


def hessian_of(frame: Frame) -> np.ndarray:
    """The analytical Hessian (3n, 3n); the coarser grid moves frequencies by a few 1/cm."""
    scf = scf_of(frame, grid_level=1, convergence=SETTINGS.convergence)
    hessian = scf.Hessian().kernel()
    return hessian.transpose(0, 2, 1, 3).reshape(frame.positions.size, -1)
