"""DFTB+ through its library: the method of the built-in engine, by another program."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import weakref
from pathlib import Path

import numpy as np

from pidelta.errors import GeometryError, SCCConvergenceError
from pidelta.qm.base import EmbeddingKind, QMResult
from pidelta.qm.dftb.engine import DFTBEngine
from pidelta.qm.dftb.parameters import ParameterSet
from pidelta.qm.dftb.sets import SetFiles, export
from pidelta.qm.dftb.settings import DFTBSettings
from pidelta.qm.dftbplus import inputs
from pidelta.qm.dftbplus.library import Session, Solution, load_library, rehearse, version, watch
from pidelta.state import FloatArray, IntArray


class DFTBPlusEngine:
    """SCC-DFTB of DFTB+ (a `pidelta.qm.base.QMEngine`); structures of a batch are evaluated one by one.

    Settings and their checks are those of the built-in engine, and so is the identity: delta models trained
    with one run with the other. The library ends its process at a mistake, so another process sets it up
    first, and geometries without a usable overlap never reach it.

    Args:
        numbers: (n,) atomic numbers.
        parameters: a Slater-Koster set with all elements in `numbers`.
        files: where it comes from, a folder or files to be exported.
        settings: of the method.
        user_input: an input of DFTB+ that agrees with all of these, for what else its Hamiltonian says.
        library: the library file; None: the one installed with the Python module.

    Raises:
        SetupError: DFTB+ is not installed, or a setting does not fit the molecule or is not supported.
        ConfigError: `user_input` does not agree.
    """

    def __init__(
        self,
        numbers: IntArray,
        parameters: ParameterSet,
        files: Path | SetFiles,
        settings: DFTBSettings,
        *,
        user_input: Path | None = None,
        library: Path | None = None,
    ) -> None:
        self._settings = settings
        self._builtin = DFTBEngine(numbers, parameters, settings)
        path = load_library(library)
        self._version = version(path)
        folder = Path(tempfile.mkdtemp(prefix="pidelta-dftbplus-"))
        weakref.finalize(self, _end_well, watch(folder), folder)
        if isinstance(files, SetFiles):
            export(files, folder / "set")
            files = folder / "set"
        hamiltonian = inputs.hamiltonian(settings, self.numbers, parameters, files.resolve())
        self._identity = self._builtin.identity
        if user_input is not None:
            keywords = inputs.user_keywords(user_input, self.numbers, hamiltonian, parameters)
            hamiltonian.children = {**keywords, **hamiltonian.children}
            self._identity += inputs.method_of(keywords)
        hsd = folder / "dftb_in.hsd"
        hsd.write_text(inputs.whole_input(self.numbers, hamiltonian), encoding="utf-8")
        rehearse(path, hsd)
        self._session = Session(path, hsd)

    @property
    def numbers(self) -> IntArray:
        """(n,) atomic numbers."""
        return self._builtin.numbers

    @property
    def identity(self) -> str:
        """The method with all settings that change its energies, as of the built-in engine."""
        return self._identity

    @property
    def program(self) -> str:
        """The program and its version, for reports."""
        return f"DFTB+ (library interface {self._version})"

    @property
    def embedding(self) -> EmbeddingKind:
        """The potential polarises the charges."""
        return "electrostatic"

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of all properties of its results."""
        return ("scc_iterations",)

    def evaluate(
        self, positions: FloatArray, potential: FloatArray, coulomb_correction: FloatArray | None = None
    ) -> QMResult:
        """Evaluate a batch; see `pidelta.qm.base.QMEngine.evaluate` for shapes, units and errors."""
        self._builtin.check_geometry(positions)
        if not np.isfinite(potential).all():
            structure, atom = np.argwhere(~np.isfinite(potential))[0]
            raise GeometryError(
                f"structure {structure}, atom {atom}: expected a finite potential, "
                f"found {potential[structure, atom]}"
            )
        corrections = [None] * len(positions) if coulomb_correction is None else coulomb_correction
        structures = zip(positions, potential, corrections, strict=True)
        solutions = [self._solve(index, *each) for index, each in enumerate(structures)]
        return QMResult(
            energy=np.array([solution.energy for solution in solutions]),
            gradient=np.array([solution.gradient for solution in solutions]),
            charges=np.array([solution.charges for solution in solutions]),
            properties={
                "scc_iterations": np.array([solution.iterations for solution in solutions], dtype=np.float64)
            },
        )

    def _solve(
        self, structure: int, positions: FloatArray, potential: FloatArray, correction: FloatArray | None
    ) -> Solution:
        """Solve one structure of a batch from the last one's charges, or else from neutral atoms."""
        for _ in range(2):
            solution = self._session.solve(positions, potential, correction)
            # The residual is that of the atoms. Shells and spins converged if there were iterations left.
            settings = self._settings
            of_atoms = settings.multiplicity == 1 and not settings.shell_resolved
            small = of_atoms and solution.residual <= settings.scc.tolerance
            if small or solution.iterations < settings.scc.max_iterations:
                return solution
            self._session.close()
        raise SCCConvergenceError(
            structure, solution.iterations, solution.residual, self.numbers, positions.copy()
        )


def _end_well(watcher: subprocess.Popen[bytes], folder: Path) -> None:
    watcher.communicate(b"ended well")
    shutil.rmtree(folder, ignore_errors=True)
