"""Any calculator of ASE as the low-level method, with mechanical embedding."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from importlib.metadata import packages_distributions, version
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from ase.units import Bohr, Hartree

from pidelta.errors import RunError, SettingError
from pidelta.qm.base import EmbeddingKind, QMResult
from pidelta.state import FloatArray, IntArray


class ASEEngine:
    """A calculator of ASE in vacuum plus fixed charges (a `pidelta.qm.base.QMEngine`).

    E = E_calculator(R) + sum_A q_A phi_A + 1/2 sum_AB q_A K_AB q_B with the force-field charges q_A of the QM
    atoms, which is mechanical embedding as in ONIOM (Vreven et al., JCTC 2, 815 (2006)): MM charges exert
    forces but do not polarise. Structures of a batch are evaluated one after the other.

    Charge and multiplicity reach the calculator in the two ways that ASE knows: as sums of initial charges
    and magnetic moments, in equal shares, as tblite reads them, and as ``atoms.info["charge"]`` and
    ``atoms.info["spin"]`` (2 S + 1), as machine-learned potentials do. A calculator that reads neither takes
    them as options. Energies and lengths are converted with ASE's own constants, so that what a calculator
    computed in atomic units comes back as it was.

    Args:
        numbers: (n,) atomic numbers.
        calculator: the class or factory with its module, such as ``tblite.ase.TBLite``.
        options: what it is called with.
        charges: (n,) fixed charges of the QM atoms in e.
        charge: total charge in e.
        multiplicity: 2 S + 1.

    Raises:
        SettingError: there is no such calculator, it refuses the options or has no forces, or the electrons
            that the charge leaves cannot have the multiplicity.
    """

    def __init__(
        self,
        numbers: IntArray,
        calculator: str,
        options: Mapping[str, Any],
        *,
        charges: FloatArray,
        charge: int = 0,
        multiplicity: int = 1,
    ) -> None:
        self._numbers = np.asarray(numbers, dtype=np.int64)
        self._charges = np.asarray(charges, dtype=np.float64)
        self._name = calculator
        self._identity = _identity(calculator, options, self._charges)
        atoms = len(self._numbers)
        self._atoms = Atoms(
            numbers=self._numbers,
            charges=np.full(atoms, charge / atoms),
            magmoms=np.full(atoms, (multiplicity - 1) / atoms),
            info={"charge": charge, "spin": multiplicity},
        )
        _check_electrons(int(self._numbers.sum()) - charge, charge, multiplicity)
        _check_options(options, charge, multiplicity)
        self._atoms.calc = _make_calculator(calculator, options)

    @property
    def numbers(self) -> IntArray:
        """(n,) atomic numbers."""
        return self._numbers

    @property
    def identity(self) -> str:
        """The calculator with its version, and hashes of its options and of the fixed charges."""
        return self._identity

    @property
    def program(self) -> str:
        """The calculator and the version of its package, for reports."""
        return f"{self._name} {_release(self._name)}, ASE {version('ase')}"

    @property
    def embedding(self) -> EmbeddingKind:
        """The potential acts on the fixed charges."""
        return "mechanical"

    @property
    def properties(self) -> tuple[str, ...]:
        """None: of a calculator, energy and forces are used."""
        return ()

    def evaluate(
        self, positions: FloatArray, potential: FloatArray, coulomb_correction: FloatArray | None = None
    ) -> QMResult:
        """Evaluate a batch; see `pidelta.qm.base.QMEngine.evaluate` for shapes and units.

        Raises:
            RunError: the calculator failed, or its energy or a force is not finite.
        """
        energies = potential @ self._charges
        if coulomb_correction is not None:
            energies = energies + 0.5 * (coulomb_correction @ self._charges) @ self._charges
        gradients = np.zeros(positions.shape)
        for row, geometry in enumerate(positions):
            energy, gradients[row] = self._calculate(row, geometry)
            energies[row] += energy
        return QMResult(
            energy=energies,
            gradient=gradients,
            charges=np.tile(self._charges, (len(positions), 1)),
        )

    def _calculate(self, row: int, positions: FloatArray) -> tuple[float, FloatArray]:
        """Energy in hartree and gradient (n, 3) in hartree/bohr of one structure in vacuum."""
        self._atoms.positions = positions * Bohr
        try:
            energy = self._energy()
            forces = np.asarray(self._atoms.get_forces(), dtype=np.float64)
        except Exception as error:  # a calculator raises whatever its program or library does
            raise RunError(f"structure {row}: {self._name} failed ({_one_line(error)})") from error
        if not np.isfinite(energy) or not np.isfinite(forces).all():
            raise RunError(f"structure {row}: expected a finite energy and forces of {self._name}, found nan")
        return energy / Hartree, -forces * (Bohr / Hartree)

    def _energy(self) -> float:
        """The energy that the forces belong to: with a smeared filling, the free energy."""
        try:
            return float(self._atoms.get_potential_energy(force_consistent=True))
        except PropertyNotImplementedError:
            return float(self._atoms.get_potential_energy())


def _make_calculator(path: str, options: Mapping[str, Any]) -> BaseCalculator:
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise SettingError("calculator", f"expected a class with its module, found {path!r}")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise SettingError("calculator", f"cannot import {module_name} ({_one_line(error)})") from None
    if not callable(getattr(module, name, None)):
        raise SettingError("calculator", f"expected a class of {module_name}, found {name!r}")
    try:
        calculator = getattr(module, name)(**options)
    except Exception as error:  # whatever a calculator finds wrong with its options
        raise SettingError("options", f"{path} refuses them ({_one_line(error)})") from error
    if not isinstance(calculator, BaseCalculator):
        raise SettingError(
            "calculator", f"expected a calculator of ASE from {path}, found {type(calculator).__name__}"
        )
    if "forces" not in calculator.implemented_properties:
        raise SettingError("calculator", f"expected one with forces, found none in {path}")
    return calculator


def _check_electrons(electrons: int, charge: int, multiplicity: int) -> None:
    """Calculators may take numbers of electrons and unpaired electrons that contradict each other."""
    if electrons < 0:
        raise SettingError("charge", f"expected at most the charge of the nuclei, found {charge}")
    if not (multiplicity - 1 <= electrons and (multiplicity - 1 - electrons) % 2 == 0):
        kind = "an even" if electrons % 2 else "an odd"
        raise SettingError(
            "multiplicity",
            f"expected {kind} number of {electrons + 1} at most with the {electrons} electrons that a charge "
            f"of {charge} leaves, found {multiplicity}",
        )


def _check_options(options: Mapping[str, Any], charge: int, multiplicity: int) -> None:
    """An option of the calculator that contradicts the QM region would win."""
    for key, value in (("charge", charge), ("multiplicity", multiplicity)):
        if options.get(key, value) != value:
            raise SettingError(
                f"options.{key}", f"expected {value}, the {key} of the QM region, found {options[key]!r}"
            )


def _identity(calculator: str, options: Mapping[str, Any], charges: FloatArray) -> str:
    parts = [
        f"ASE {calculator} {_release(calculator)}",
        f"options={_hash(json.dumps(options, sort_keys=True, default=str))}",
        "mechanical embedding",
    ]
    if charges.any():
        parts.append(f"charges={_hash(repr(charges.tolist()))}")
    return " ".join(parts)


def _release(calculator: str) -> str:
    """Version of the package that the calculator is from."""
    distributions = packages_distributions().get(calculator.partition(".")[0])
    return version(distributions[0]) if distributions else "of unknown version"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
