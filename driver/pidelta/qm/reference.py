"""DFT labels with PySCF's integrals: Kohn-Sham energies and gradients in the point charges of a frame."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pidelta.data.frames import Frame, Label
from pidelta.errors import GeometryError, RunError, SetupError
from pidelta.qm.functionals import check_basis, checked_functional
from pidelta.qm.kohn_sham import KohnShamResult, solve
from pidelta.qm.reference_settings import ReferenceSettings, check_electrons
from pidelta.qm.shell_pairs import shell_groups
from pidelta.state import FloatArray

_BLOCK = 200  # point charges at once, so that their integrals stay near the cache
_CONTAMINATION = 0.1  # of <S^2> beyond S(S + 1)
_STEP = 1e-3  # bohr, of differences
_ATTEMPTS: tuple[Mapping[str, object], ...] = (
    {},
    {"level_shift": 0.3, "damp": 0.3, "diis_start_cycle": 3, "diis_space": 12},
    {"level_shift": 1.0, "damp": 0.6, "diis_start_cycle": 8, "diis_space": 16},
)
"""What is changed of PySCF's SCF the first time and where it did not converge; none changes the result."""


def label_frame(frame: Frame, settings: ReferenceSettings) -> Label:
    """Energy, gradients, Mulliken charges and dipole of a frame by DFT, with the MM charges as point charges.

    The one-electron Hamiltonian holds -sum_k q_k / |r - r_k| exactly, and the energy the interaction of the
    charges with nuclei and electrons, but not that among the charges. Gradients on the charges come from the
    derivatives of the same integrals through translational invariance.

    An SCF that does not converge is tried again with a level shift.

    Args:
        frame: a frame, closed-shell unless the settings are unrestricted.
        settings: the level of theory.

    Returns:
        The label, in atomic units. Its properties are ``dipole`` (3,), without the charges, about the origin,
        and for unrestricted orbitals ``spin_square``, <S^2>.

    Raises:
        MissingExtraError: PySCF, or the package of the dispersion, is not installed.
        SettingError: PySCF does not know the functional or a basis, or there is no such dispersion for it.
        SetupError: the frame is not closed-shell, or has elements beyond Kr.
        GeometryError: a point charge sits on a nucleus, or atoms coincide.
        RunError: the SCF did not converge, or its spin is contaminated.
    """
    method, program = settings.method, settings.program
    molecule = _molecule(frame, settings)
    correction, correction_gradient = _corrections(frame, settings)
    result = _solve(frame, molecule, settings)
    qm_part, site_gradient = _electron_gradients(frame, molecule, result.density)
    energy, nuclei_qm, nuclei_sites = _nuclei(frame)
    properties = {"dipole": _dipole(frame, molecule, result.density)}
    if settings.unrestricted:
        properties["spin_square"] = np.array(result.spin_square)
    return Label(
        method=method,
        energy=result.energy + energy + correction,
        gradient=result.gradient() + qm_part + nuclei_qm + correction_gradient,
        site_gradient=site_gradient + nuclei_sites,
        charges=_mulliken(frame, molecule, result.density),
        program=program,
        properties=properties,
    )


def error_of_gradient(frame: Frame, label: Label, settings: ReferenceSettings, seed: int = 0) -> float:
    """How far a label's gradient is from a central difference of energies, in hartree/bohr.

    The difference is along one direction in which all atoms and charges move.

    Args:
        frame: the frame.
        label: its label.
        settings: the level of theory of the label.
        seed: of the direction.
    """
    rng = np.random.default_rng(seed)
    qm = rng.normal(size=frame.positions.shape)
    sites = rng.normal(size=frame.site_positions.shape)
    qm /= np.linalg.norm(qm)
    sites /= max(float(np.linalg.norm(sites)), 1.0)
    energies = []
    for step in (_STEP, -_STEP):
        moved = replace(
            frame, positions=frame.positions + step * qm, site_positions=frame.site_positions + step * sites
        )
        molecule = _molecule(moved, settings)
        result = _solve(moved, molecule, settings)
        energies.append(result.energy + _nuclei(moved)[0] + _corrections(moved, settings)[0])
    slope = (energies[0] - energies[1]) / (2.0 * _STEP)
    return abs(slope - float((label.gradient * qm).sum() + (label.site_gradient * sites).sum()))


def _solve(frame: Frame, molecule: Any, settings: ReferenceSettings) -> KohnShamResult:
    field = np.zeros((molecule.nao, molecule.nao))
    for group in shell_groups(molecule, once=True):
        for block in _blocks(frame):
            integrals = group.molecule.intor(
                "int1e_grids", grids=frame.site_positions[block], shls_slice=group.slices
            )
            field[group.place] -= integrals.transpose(2, 1, 0) @ frame.site_charges[block]
        field.T[group.place] = field[group.place]
    for changes in _ATTEMPTS:
        scf = _kohn_sham(molecule, field, settings)
        for name, value in changes.items():
            setattr(scf, name, value)
        result = solve(scf, settings.fitting_basis, settings.grid, settings.convergence)
        if result is not None:
            break
    else:
        raise RunError(
            f"frame {frame.source}: the SCF of {settings.xc}/{settings.orbital_basis} did not converge in "
            f"{settings.max_iterations} iterations, nor with level shifts"
        )
    spin = 0.5 * (frame.multiplicity - 1)
    if settings.unrestricted and result.spin_square - spin * (spin + 1) > _CONTAMINATION:
        raise RunError(
            f"frame {frame.source}: expected <S^2> of {spin * (spin + 1):g}, found {result.spin_square:.3f}: "
            "other spins mix in"
        )
    return result


def _molecule(frame: Frame, settings: ReferenceSettings) -> Any:
    """The QM atoms as PySCF's molecule."""
    try:
        check_electrons(settings, frame.numbers, frame.charge, frame.multiplicity)
    except SetupError as error:
        raise SetupError(f"frame {frame.source}: {error}") from None
    for positions, what in ((frame.positions, "an atom"), (frame.site_positions, "a point charge")):
        distances = np.linalg.norm(positions[:, None] - frame.positions, axis=2)
        if what == "an atom":
            np.fill_diagonal(distances, np.inf)
        if not (distances > 0.1).all():
            raise GeometryError(f"frame {frame.source}: {what} sits on a QM atom")
    gto = importlib.import_module("pyscf.gto")
    check_basis("basis", settings.orbital_basis, frame.numbers)
    check_basis("auxiliary_basis", settings.fitting_basis, frame.numbers)
    atoms = [
        (int(number), tuple(point)) for number, point in zip(frame.numbers, frame.positions, strict=True)
    ]
    basis = settings.orbital_basis
    return gto.M(
        atom=atoms, unit="Bohr", basis=basis, charge=frame.charge, spin=frame.multiplicity - 1, verbose=0
    )


def _corrections(frame: Frame, settings: ReferenceSettings) -> tuple[float, FloatArray]:
    """Energy and gradient (n, 3) of what is added for the QM atoms, such as dispersion."""
    energy, gradient = 0.0, np.zeros_like(frame.positions)
    for correction in settings.corrections(frame.numbers, frame.charge):
        energies, gradients = correction.evaluate(frame.positions[None])
        energy += float(energies[0])
        gradient += gradients[0]
    return energy, gradient


def _kohn_sham(molecule: Any, field: FloatArray, settings: ReferenceSettings) -> Any:
    """PySCF's object in the field of the charges; its energy lacks what nuclei and charges share."""
    dft = importlib.import_module("pyscf.dft")
    xc = checked_functional(settings.functional, settings.dispersion_method)
    scf = dft.UKS(molecule, xc=xc) if settings.unrestricted else dft.RKS(molecule, xc=xc)
    scf.nlc = 0
    core = scf.get_hcore() + field
    scf.get_hcore = lambda *_: core
    scf._chkfile.close()  # it would stay open until the object is collected
    scf.chkfile = None
    scf.max_cycle = settings.max_iterations
    return scf


def _electron_gradients(frame: Frame, molecule: Any, density: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Gradients of the electrons' interaction with the charges, on QM atoms (n, 3) and charges (m, 3).

    With b_kp = sum_q D_pq <grad p| 1/|r - r_k| |q>, the gradient on atom A is 2 sum_k q_k sum_(p on A) b_kp,
    and that on charge k is -2 q_k sum_p b_kp, for moving a charge one way moves all functions the other way.
    Pairs of functions that do not overlap are left out, which changes the gradients by 1e-8 at most.
    """
    on_functions = np.zeros((3, molecule.nao))
    sites = np.zeros_like(frame.site_positions)
    for group in shell_groups(molecule):
        pairs = 2.0 * density[group.place]
        for block in _blocks(frame):
            integrals = group.molecule.intor(
                "int1e_grids_ip", grids=frame.site_positions[block], shls_slice=group.slices
            )
            # (3, q and p, k), as they lie in memory
            integrals = integrals.transpose(0, 3, 2, 1).reshape(3, pairs.size, -1)
            fields = integrals @ frame.site_charges[block]
            on_functions[:, group.own] += (fields.reshape(3, *pairs.shape) * pairs).sum(axis=1)
            sites[block] -= frame.site_charges[block, None] * (pairs.ravel() @ integrals).T
    starts = molecule.aoslice_by_atom()[:, 2]
    return np.add.reduceat(on_functions, starts, axis=1).T, sites


def _mulliken(frame: Frame, molecule: Any, density: FloatArray) -> FloatArray:
    """(n,) net charges."""
    populations = np.einsum("pq,qp->p", density, molecule.intor("int1e_ovlp"))
    starts = molecule.aoslice_by_atom()[:, 2]
    return np.asarray(frame.numbers - np.add.reduceat(populations, starts))


def _dipole(frame: Frame, molecule: Any, density: FloatArray) -> FloatArray:
    """(3,) of nuclei and electrons, about the origin."""
    with molecule.with_common_orig((0.0, 0.0, 0.0)):
        electrons = np.einsum("xpq,qp->x", molecule.intor("int1e_r"), density)
    return np.asarray(frame.numbers @ frame.positions - electrons)


def _nuclei(frame: Frame) -> tuple[float, FloatArray, FloatArray]:
    """Energy of the nuclei in the field of the charges and its gradients (n, 3) and (m, 3)."""
    vectors = frame.positions[:, None] - frame.site_positions
    distances = np.linalg.norm(vectors, axis=2)
    energies = frame.numbers[:, None] * frame.site_charges / distances
    gradients = -(energies / distances**2)[:, :, None] * vectors
    return float(energies.sum()), gradients.sum(axis=1), -gradients.sum(axis=0)


def _blocks(frame: Frame) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, len(frame.site_charges), _BLOCK)]
