"""DFT labels with PySCF: Kohn-Sham energies and gradients in the point charges of a frame."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np
from ase.data import chemical_symbols

from pidelta.data.frames import Frame, Label
from pidelta.errors import GeometryError, MissingExtraError, RunError, SettingError, SetupError
from pidelta.qm import kohn_sham
from pidelta.qm.dispersion import PUBLISHED_DAMPING, Damping, Dispersion, load_package
from pidelta.state import FloatArray, IntArray

_HEAVIEST = 36
_BLOCK = 100  # point charges at once, so that their integrals stay near the cache


@dataclass(frozen=True)
class ReferenceSettings:
    """The level of theory of the labels: Kohn-Sham DFT with density fitting.

    Gradients leave out that the grid moves with the atoms. With B3LYP/def2-SVP for a distorted uracil in point
    charges that is 5e-5 hartree/bohr at most, for level 2 as for level 3.

    Attributes:
        xc: a GGA or hybrid functional as PySCF names it. ``B3LYP`` is the one of Stephens et al., J. Phys.
            Chem. 1994, 98, 11623 as most programs have it, with VWN(RPA) correlation; ``B3LYP5`` has VWN5.
        basis: orbital basis as PySCF names it.
        auxiliary_basis: fitting basis of Coulomb and exchange (Weigend, J. Comput. Chem. 2008, 29, 167); for
            functionals without exact exchange the smaller one of Coulomb alone (PCCP 2006, 8, 1057) will do.
        grid_level: PySCF's level of the integration grid, 0 to 9.
        convergence: SCF threshold of the energy in hartree; that of the orbital gradient is its square root.
        max_iterations: SCF iterations before giving up.
        dispersion: ``d3bj`` adds D3(BJ) with the published parameters of the functional, two-body terms only.
    """

    xc: str = "B3LYP"
    basis: str = "def2-SVP"
    auxiliary_basis: str = "def2-universal-jkfit"
    grid_level: int = 2
    convergence: float = 1e-8
    max_iterations: int = 100
    dispersion: Literal["none", "d3bj"] = "none"

    @property
    def damping(self) -> Damping | None:
        """Parameters of the dispersion, if there is any.

        Raises:
            SettingError: there is no D3(BJ) for the functional.
        """
        if self.dispersion == "none":
            return None
        published = PUBLISHED_DAMPING[self.dispersion]
        if self.xc.lower() not in published:
            raise SettingError("dispersion", f"found no published D3(BJ) parameters for {self.xc}")
        return published[self.xc.lower()]

    @property
    def method(self) -> str:
        """The level of theory, as labels store it; which version of PySCF computes it is no part of it.

        Raises:
            MissingExtraError: dftd3 is needed for the dispersion and not installed.
            SettingError: there is no D3(BJ) for the functional.
        """
        xc = f"{self.xc} (VWN-RPA)" if self.xc.upper() == "B3LYP" else self.xc
        if self.damping is not None:
            load_package("d3bj")
            xc += "-D3(BJ)"
        return (
            f"RKS {xc}/{self.basis}, density fitting {self.auxiliary_basis}, "
            f"grid level {self.grid_level} at rest, SCF {self.convergence:g} hartree"
        )

    @property
    def program(self) -> str:
        """The program and its version, as labels store it.

        Raises:
            MissingExtraError: PySCF is not installed.
        """
        try:
            return f"PySCF {version('pyscf')}"
        except PackageNotFoundError:
            raise MissingExtraError("pyscf", "label", "a DFT label") from None


def label_frame(frame: Frame, settings: ReferenceSettings) -> Label:
    """Energy, gradients and Mulliken charges of a frame by DFT, with the MM charges as point charges.

    The one-electron Hamiltonian holds -sum_k q_k / |r - r_k| exactly, and the energy the interaction of the
    charges with nuclei and electrons, but not that among the charges. Gradients on the charges come from the
    derivatives of the same integrals through translational invariance.

    Args:
        frame: a closed-shell frame.
        settings: the level of theory.

    Returns:
        The label, in atomic units.

    Raises:
        MissingExtraError: PySCF, or for the dispersion dftd3, is not installed.
        SettingError: PySCF does not know the functional or a basis, or there is no D3(BJ) for the functional.
        SetupError: the frame is not closed-shell, or has elements beyond Kr.
        GeometryError: a point charge sits on a nucleus, or atoms coincide.
        RunError: the SCF did not converge.
    """
    method, program = settings.method, settings.program
    molecule = _molecule(frame, settings)
    dispersion, dispersion_gradient = _dispersion(frame, settings)
    field = np.zeros((molecule.nao, molecule.nao))
    for block in _blocks(frame):
        integrals = molecule.intor("int1e_grids", hermi=1, grids=frame.site_positions[block])
        field -= np.einsum("kpq,k->pq", integrals, frame.site_charges[block])

    scf = _kohn_sham(molecule, field, settings)
    result = kohn_sham.solve(scf, settings.auxiliary_basis, settings.grid_level, settings.convergence)
    if result is None:
        raise RunError(
            f"frame {frame.source}: the SCF of {settings.xc}/{settings.basis} did not converge in "
            f"{settings.max_iterations} iterations"
        )
    qm_part, site_gradient = _electron_gradients(frame, molecule, result.density)
    energy, nuclei_qm, nuclei_sites = _nuclei(frame)
    _, charges = scf.mulliken_pop(molecule, result.density, verbose=0)
    return Label(
        method=method,
        energy=result.energy + energy + dispersion,
        gradient=result.gradient + qm_part + nuclei_qm + dispersion_gradient,
        site_gradient=site_gradient + nuclei_sites,
        charges=np.asarray(charges, dtype=np.float64),
        program=program,
    )


def _molecule(frame: Frame, settings: ReferenceSettings) -> Any:
    """The QM atoms as PySCF's molecule."""
    electrons = int(frame.numbers.sum()) - frame.charge
    if frame.multiplicity != 1 or electrons % 2:
        raise SetupError(
            f"frame {frame.source}: a DFT label expects a closed shell, found {electrons} electrons and "
            f"multiplicity {frame.multiplicity}"
        )
    if frame.numbers.max() > _HEAVIEST:
        raise SetupError(
            f"frame {frame.source}: a DFT label expects elements up to Kr, which need no effective core "
            f"potential, found {chemical_symbols[frame.numbers.max()]}"
        )
    for positions, what in ((frame.positions, "an atom"), (frame.site_positions, "a point charge")):
        distances = np.linalg.norm(positions[:, None] - frame.positions, axis=2)
        if what == "an atom":
            np.fill_diagonal(distances, np.inf)
        if not (distances > 0.1).all():
            raise GeometryError(f"frame {frame.source}: {what} sits on a QM atom, or is not finite")
    gto = importlib.import_module("pyscf.gto")
    for key, basis in (("basis", settings.basis), ("auxiliary_basis", settings.auxiliary_basis)):
        _check_basis(gto, key, basis, frame.numbers)
    atoms = [
        (int(number), tuple(point)) for number, point in zip(frame.numbers, frame.positions, strict=True)
    ]
    return gto.M(atom=atoms, unit="Bohr", basis=settings.basis, charge=frame.charge, verbose=0)


def _dispersion(frame: Frame, settings: ReferenceSettings) -> tuple[float, FloatArray]:
    """Energy and gradient (n, 3) of the dispersion of the QM atoms."""
    if settings.damping is None:
        return 0.0, np.zeros_like(frame.positions)
    energies, gradients = Dispersion(frame.numbers, "d3bj", settings.damping).evaluate(frame.positions[None])
    return float(energies[0]), gradients[0]


def _check_basis(gto: Any, key: str, basis: str, numbers: IntArray) -> None:
    for symbol in {chemical_symbols[number] for number in numbers}:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PySCF advises to install further packages
            try:
                gto.basis.load(basis, symbol)
            except (KeyError, RuntimeError):
                raise SettingError(
                    key, f"expected one that PySCF has for {symbol}, found {basis!r}"
                ) from None


def _kohn_sham(molecule: Any, field: FloatArray, settings: ReferenceSettings) -> Any:
    """PySCF's Kohn-Sham object in the field of the charges; its energy lacks what nuclei and charges share."""
    dft = importlib.import_module("pyscf.dft")
    xc = "B3LYPG" if settings.xc.upper() == "B3LYP" else settings.xc
    try:
        dft.libxc.parse_xc(xc)
    except (KeyError, ValueError):
        raise SettingError("xc", f"expected a functional that PySCF has, found {settings.xc!r}") from None
    scf = dft.RKS(molecule, xc=xc)
    core = scf.get_hcore() + field
    scf.get_hcore = lambda *_: core
    scf.chkfile = None
    scf.max_cycle = settings.max_iterations
    return scf


def _electron_gradients(frame: Frame, molecule: Any, density: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gradients of the electrons' interaction with the charges, on QM atoms (n, 3) and charges (m, 3).

    With b_kp = sum_q D_pq <grad p| 1/|r - r_k| |q>, the gradient on atom A is 2 sum_k q_k sum_(p on A) b_kp,
    and that on charge k is -2 q_k sum_p b_kp, for moving a charge one way moves all functions the other way.
    """
    orbital_starts = molecule.aoslice_by_atom()[:, 2]
    qm = np.zeros_like(frame.positions)
    sites = np.zeros_like(frame.site_positions)
    for block in _blocks(frame):
        integrals = molecule.intor("int1e_grids_ip", grids=frame.site_positions[block])
        moves = 2.0 * np.einsum("ckpq,pq->kpc", integrals, density)
        moves *= frame.site_charges[block, None, None]
        qm += np.add.reduceat(moves.sum(axis=0), orbital_starts, axis=0)
        sites[block] = -moves.sum(axis=1)
    return qm, sites


def _nuclei(frame: Frame) -> tuple[float, FloatArray, FloatArray]:
    """Energy of the nuclei in the field of the charges and its gradients (n, 3) and (m, 3)."""
    vectors = frame.positions[:, None] - frame.site_positions
    distances = np.linalg.norm(vectors, axis=2)
    energies = frame.numbers[:, None] * frame.site_charges / distances
    gradients = -(energies / distances**2)[:, :, None] * vectors
    return float(energies.sum()), gradients.sum(axis=1), -gradients.sum(axis=0)


def _blocks(frame: Frame) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, len(frame.site_charges), _BLOCK)]
