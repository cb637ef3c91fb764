"""pidelta as an ASE calculator."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator as ASECalculator
from ase.calculators.calculator import all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from pidelta.config import Config, load_config
from pidelta.errors import ConfigError, StructureError
from pidelta.qmmm.links import Links
from pidelta.setup import Setup
from pidelta.state import Evaluation, FloatArray
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV
from pidelta.workflow.yardstick import is_near

_CHARGE_TOLERANCE = 0.05  # of a sum of initial charges, which are often rounded
_MOMENT_TOLERANCE = 0.05

_one_at_a_time = threading.Lock()


@contextmanager
def _one_thread() -> Iterator[None]:
    """The small matrices of a force call are slowest with many threads; whoever calls keeps their setting.

    The setting is one for the whole process, so calculators in several threads (``NEB(parallel=True)``) wait
    for each other.
    """
    with _one_at_a_time:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


class Calculator(ASECalculator):
    """Energies (eV), forces (eV/angstrom), stress (eV/angstrom^3), charges (e) and dipole (e angstrom).

    ``free_energy`` is the energy, which the forces are the gradient of. ``charges`` are net charges of the QM
    atoms and zero elsewhere, ``dipole`` is theirs. There is a stress for periodic systems only, and none with
    ``mm.virial: false``. Everything is set by the configuration: atoms that ask for something else, by their
    periodicity, initial charges, initial magnetic moments, or ``charge`` and ``multiplicity`` in ``info``,
    are refused. Copies and pickles read the files of the configuration again.

    Attributes:
        evaluation: all that was found for the last atoms, its terms among it, in atomic units.

    Args:
        config: a configuration or the path of one.

    Raises:
        SetupError: the configuration is wrong.
    """

    implemented_properties: list[str] = [  # noqa: RUF012 - as ASE declares it
        "energy",
        "free_energy",
        "forces",
        "stress",
        "charges",
        "dipole",
    ]

    def __init__(self, config: Config | str | Path) -> None:
        super().__init__()
        if not isinstance(config, Config | str | Path):
            raise ConfigError(
                f"Calculator: expected a configuration or the path of one, found {type(config).__name__}"
            )
        self.config = config if isinstance(config, Config) else load_config(Path(config))
        self.parameters["config"] = str(self.config.path)
        self.evaluation: Evaluation | None = None
        self._read_files()

    def _read_files(self) -> None:
        setup = Setup(self.config)
        self._evaluator = setup.evaluator()
        self._yardstick = replace(setup.yardstick, advice="ASE has positions and cells in angstrom")
        self._measured: tuple[weakref.ref[Atoms], FloatArray] | None = None
        self._force_field_charges = None if setup.topology is None else setup.topology.charges
        self._link_partners = (setup.qm_region.links if self.config.qm is not None else Links()).partners
        absent = set()
        mm = self.config.mm
        if not self._evaluator.periodic or (mm is not None and mm.engine == "openmm" and not mm.virial):
            absent.add("stress")
        if self._evaluator.partition is None:
            absent |= {"charges", "dipole"}
        self.implemented_properties = [
            name for name in type(self).implemented_properties if name not in absent
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the compiled evaluator, which copies and other processes make anew."""
        return {name: value for name, value in vars(self).items() if name not in ("_evaluator", "_measured")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._read_files()

    def _get_name(self) -> str:
        return "pidelta"

    def set(self, **settings: object) -> dict[str, object]:
        """Refuse every setting: the configuration has them all.

        Raises:
            ConfigError: there is a setting.
        """
        if settings:
            raise ConfigError(
                f"{self.config.path}: expected settings in the configuration alone, found "
                f"{', '.join(settings)} in the call of set()"
            )
        return {}

    def reset(self) -> None:
        """Forget the last atoms and what was found for them."""
        super().reset()
        self.evaluation = None

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Evaluate `atoms`, whose elements must be those of the structure, in its order.

        The bonds of MM atoms show the order and unit of positions; they are looked at once for each ASE
        object, so that one that has passed may be stretched at will.

        Raises:
            StructureError: the atoms differ from the structure's, or do not fit the configuration.
            RunError: the evaluation failed.
        """
        self.results = {}  # those of other atoms must not outlive a failure
        self.evaluation = None
        given = atoms
        super().calculate(atoms, properties or ["energy"], system_changes)
        atoms = self.atoms
        if atoms is None:
            raise self._unfit("expected ASE atoms to evaluate, found none")
        self._check_atoms(atoms)
        self._check_lattice(atoms)
        self._check_initial_charges(atoms)
        self._check_initial_moments(atoms)
        self._check_info(atoms)
        positions = atoms.positions[None] / BOHR_IN_ANGSTROM
        cells = atoms.cell.array[None] / BOHR_IN_ANGSTROM if self._evaluator.periodic else None
        self._check_positions(given if given is not None else atoms, positions, cells)
        with _one_thread():
            self.evaluation = self._evaluator.evaluate(positions, cells)
        self.results = self._results(self.evaluation, atoms)

    def _results(self, evaluation: Evaluation, atoms: Atoms) -> dict[str, float | FloatArray]:
        """By the names and in the units of ASE."""
        energy = float(evaluation.energy[0]) * HARTREE_IN_EV
        results: dict[str, float | FloatArray] = {
            "energy": energy,
            "free_energy": energy,
            "forces": -evaluation.gradient[0] * (HARTREE_IN_EV / BOHR_IN_ANGSTROM),
        }
        if "stress" in self.implemented_properties:
            stress = -evaluation.virial[0] * HARTREE_IN_EV / atoms.get_volume()
            results["stress"] = full_3x3_to_voigt_6_stress(stress)
        if evaluation.charges is not None and evaluation.dipole is not None:
            assert self._evaluator.partition is not None
            charges, qm = np.zeros(len(atoms)), self._evaluator.partition.qm_atoms
            charges[qm] = evaluation.charges[0, : len(qm)]
            # ASE knows no link hydrogens: their charges are put on the atoms they are bonded to
            np.add.at(charges, self._link_partners, evaluation.charges[0, len(qm) :])
            results["charges"] = charges
            results["dipole"] = evaluation.dipole[0] * BOHR_IN_ANGSTROM
        return results

    def _unfit(self, problem: str) -> StructureError:
        return StructureError(f"{self.config.structure}: {problem}")

    def _check_atoms(self, atoms: Atoms) -> None:
        expected = self._evaluator.numbers
        if len(atoms) != len(expected):
            raise self._unfit(f"expected {len(expected)} atoms, found {len(atoms)} in ASE's")
        wrong = np.flatnonzero(atoms.numbers != expected)
        if len(wrong):
            raise self._unfit(
                f"expected atomic number {expected[wrong[0]]} at atom {wrong[0]}, "
                f"found {atoms.numbers[wrong[0]]} in the ASE atoms"
            )

    def _check_lattice(self, atoms: Atoms) -> None:
        """A lattice that the energy does not know must not look as if it were there, nor the reverse."""
        found = f"found pbc {atoms.pbc.tolist()} in the ASE atoms"
        if not self._evaluator.periodic and atoms.pbc.any():
            raise self._unfit(f"expected atoms that are not periodic, as the configuration is, {found}")
        if self._evaluator.periodic and not atoms.pbc.all():
            raise self._unfit(
                f"expected atoms periodic in three directions, as the configuration is, {found}"
            )
        if self._evaluator.periodic and atoms.cell.rank < 3:
            raise self._unfit(f"expected a cell of three vectors, found {atoms.cell.array.tolist()}")

    def _check_positions(self, atoms: Atoms, positions: FloatArray, cells: FloatArray | None) -> None:
        """Measure another ASE object, but for one that goes on from the last, as the points of a curve do."""
        if self._measured is not None:
            last, earlier = self._measured
            if last() is not atoms and not is_near(positions[0], earlier):
                self._measured = None
        if self._measured is None:
            self._yardstick.check_atoms(positions[0], None if cells is None else cells[0], "the ASE atoms")
        self._measured = weakref.ref(atoms), positions[0]

    def _check_initial_charges(self, atoms: Atoms) -> None:
        """Initial charges may repeat what the configuration says; zeros say nothing."""
        charges = atoms.get_initial_charges()
        partition, qm = self._evaluator.partition, self.config.qm
        if partition is not None and qm is not None:
            of_qm, charges[partition.qm_atoms] = charges[partition.qm_atoms], 0.0
            if of_qm.any() and abs(of_qm.sum() - qm.charge) > _CHARGE_TOLERANCE:
                raise self._unfit(
                    f"expected initial charges of the QM atoms that add up to {qm.charge:+d}, the charge in "
                    f"the configuration, found {of_qm.sum():+.3f} in the ASE atoms"
                )
        expected = self._force_field_charges
        if expected is None:
            return
        wrong = np.flatnonzero((charges != 0.0) & (np.abs(charges - expected) > _CHARGE_TOLERANCE))
        if len(wrong):
            raise self._unfit(
                f"expected the force field's charge {expected[wrong[0]]:+.3f} of MM atom {wrong[0]} as its "
                f"initial charge or zero, found {charges[wrong[0]]:+.3f} in the ASE atoms"
            )

    def _check_initial_moments(self, atoms: Atoms) -> None:
        """Initial magnetic moments may repeat the multiplicity; a spin-restricted method has none."""
        moments = atoms.get_initial_magnetic_moments()
        unpaired = 0 if self.config.qm is None else self.config.qm.multiplicity - 1
        fits = moments.ndim == 1 and abs(abs(moments.sum()) - unpaired) < _MOMENT_TOLERANCE and unpaired > 0
        if moments.any() and not fits:
            raise self._unfit(
                f"expected initial magnetic moments of zero or of {unpaired} in all, as the multiplicity "
                f"{unpaired + 1} of the configuration has it, found {np.abs(moments).sum():.3f} in all and "
                f"{moments.sum():+.3f} net in the ASE atoms"
            )

    def _check_info(self, atoms: Atoms) -> None:
        """``charge`` and ``multiplicity`` in ``atoms.info`` may repeat what the configuration says.

        With MM atoms it is not clear whose charge it is, and ``spin`` is 2 S + 1 for some programs, 2 S for
        others: those are not looked at.
        """
        partition, qm = self._evaluator.partition, self.config.qm
        if partition is None or qm is None:
            return
        expected = {"multiplicity": qm.multiplicity}
        if len(partition.qm_atoms) == len(atoms):
            expected["charge"] = qm.charge
        for name, value in expected.items():
            found = atoms.info.get(name)
            if isinstance(found, int | float | np.number) and found != value:
                raise self._unfit(
                    f"expected the {name} {value} of the configuration in atoms.info, found {found} in the "
                    f"ASE atoms"
                )
