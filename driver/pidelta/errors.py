"""The exceptions of pidelta: one tree, split into set-up errors and run errors.

Every message is one line that names the file, key or atom, what was expected and what was found, so that
the command line can print it as it is and exit with code 2.
"""

from __future__ import annotations

import copyreg
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class PideltaError(Exception):
    """Base of all errors a user of pidelta can cause or meet."""

    def __reduce__(self) -> tuple[object, ...]:
        # As it is, not made anew from its message: some have other arguments, and come from worker processes.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class SetupError(PideltaError):
    """The input is wrong; found before anything runs."""


class ConfigError(SetupError):
    """A key of the configuration is missing, unknown or has a wrong value."""


class SettingError(SetupError):
    """A setting of a class or function is out of range or does not fit the system.

    It names the quantity, as the class calls it; `setup` knows which key of the configuration that is.

    Attributes:
        quantity: name of the setting, dotted where it is nested, such as ``dispersion.damping``.
        problem: what was expected and what was found.
    """

    def __init__(self, quantity: str, problem: str) -> None:
        super().__init__(f"{quantity}: {problem}")
        self.quantity = quantity
        self.problem = problem


class StructureError(SetupError):
    """A structure file cannot be read, or does not fit the rest of the set-up."""


class TopologyError(SetupError):
    """A topology cannot be read, or contains a term that pidelta does not evaluate."""


class ParameterError(SetupError):
    """A Slater-Koster set lacks a file or an element, or a file is malformed."""


class ModelError(SetupError):
    """A delta model cannot be read, or does not fit the system or the low-level method."""


class DataError(SetupError):
    """A file of frames or labels is malformed or does not fit its use."""


class MissingExtraError(SetupError):
    """An optional dependency is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package}: pip install 'pidelta[{extra}]'")


class RunError(PideltaError):
    """Something failed while energies were evaluated or a simulation ran."""


class ProtocolError(RunError):
    """The peer on the i-PI socket sent something the protocol does not allow."""


class TransportError(RunError):
    """The connection to i-PI could not be made or broke."""


class GeometryError(RunError):
    """Positions that the model cannot evaluate: not finite, coinciding atoms, a cell that is too small."""


class SCCConvergenceError(RunError):
    """Self-consistent charges did not converge.

    Attributes:
        structure: which of a batch failed, from 0.
        iterations: number of SCC iterations done.
        last_change: largest change of a charge in the last iteration, in e.
        numbers: (n,) atomic numbers.
        positions: (n, 3) the geometry that failed, in bohr.
        in_vacuum: whether it failed without its surroundings, which parts of the low level need.
    """

    def __init__(
        self,
        structure: int,
        iterations: int,
        last_change: float,
        numbers: npt.NDArray[np.int64],
        positions: npt.NDArray[np.float64],
        in_vacuum: bool = False,
    ) -> None:
        where, instead = "", "or the electronic temperature"
        if in_vacuum:
            where = " in vacuum, which low.vacuum and low.embedding need,"
            instead = "or the electronic temperature, or ask for low as a whole"
        super().__init__(
            f"structure {structure}: SCC{where} did not converge in {iterations} iterations: the last change "
            f"of a charge was {last_change:.2e} e; raise the number of SCC iterations {instead}"
        )
        self.structure = structure
        self.iterations = iterations
        self.last_change = last_change
        self.numbers = numbers
        self.positions = positions
        self.in_vacuum = in_vacuum
