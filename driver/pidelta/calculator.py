"""pidelta as an ASE calculator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator as ASECalculator
from ase.calculators.calculator import all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from pidelta.config import Config, load_config
from pidelta.errors import StructureError
from pidelta.setup import Setup
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV


@contextmanager
def _one_thread() -> Iterator[None]:
    """The small matrices of a force call are slowest with many threads; whoever calls keeps their setting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Calculator(ASECalculator):
    """Energies (eV), forces (eV/angstrom), stress (eV/angstrom^3), charges (e) and dipole (e angstrom).

    ``charges`` are net Mulliken charges of the QM atoms and zero elsewhere, ``dipole`` is theirs. ``results``
    also holds ``terms``, the energy of each term in eV. There is no stress with ``mm.virial: false``.

    Args:
        config: a configuration or the path of one.

    Raises:
        SetupError: the configuration is wrong.
    """

    implemented_properties: list[str] = [  # noqa: RUF012 - as ASE declares it
        "energy",
        "forces",
        "stress",
        "charges",
        "dipole",
    ]

    def __init__(self, config: Config | str | Path) -> None:
        super().__init__()
        self.config = config if isinstance(config, Config) else load_config(Path(config))
        self._evaluator = Setup(self.config).evaluator()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Evaluate `atoms`, whose elements must be those of the structure, in its order.

        Raises:
            StructureError: the atoms differ from the structure's.
            RunError: the evaluation failed.
        """
        super().calculate(atoms, properties or ["energy"], system_changes)
        atoms = self.atoms
        if atoms is None:
            raise StructureError(f"{self.config.structure}: expected ASE atoms to evaluate, found none")
        self._check_atoms(atoms)
        positions = atoms.positions[None] / BOHR_IN_ANGSTROM
        periodic = bool(atoms.pbc.all())
        cells = atoms.cell.array[None] / BOHR_IN_ANGSTROM if periodic else None
        with _one_thread():
            evaluation = self._evaluator.evaluate(positions, cells)
        self.results = {
            "energy": float(evaluation.energy[0]) * HARTREE_IN_EV,
            "forces": -evaluation.gradient[0] * (HARTREE_IN_EV / BOHR_IN_ANGSTROM),
            "terms": {name: float(term.energy[0]) * HARTREE_IN_EV for name, term in evaluation.terms.items()},
        }
        if periodic and np.isfinite(evaluation.virial).all():
            stress = -evaluation.virial[0] * HARTREE_IN_EV / atoms.get_volume()
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)
        if evaluation.charges is not None and evaluation.dipole is not None:
            assert self._evaluator.partition is not None
            charges = np.zeros(len(atoms))
            charges[self._evaluator.partition.qm_indices] = evaluation.charges[0]
            self.results["charges"] = charges
            self.results["dipole"] = evaluation.dipole[0] * BOHR_IN_ANGSTROM

    def _check_atoms(self, atoms: Atoms) -> None:
        expected = self._evaluator.numbers
        if len(atoms) != len(expected):
            raise StructureError(
                f"{self.config.structure}: expected {len(expected)} atoms, found {len(atoms)} in ASE's"
            )
        wrong = np.flatnonzero(atoms.numbers != expected)
        if len(wrong):
            raise StructureError(
                f"{self.config.structure}: expected atomic number {expected[wrong[0]]} at atom {wrong[0]}, "
                f"found {atoms.numbers[wrong[0]]} in the ASE atoms"
            )
