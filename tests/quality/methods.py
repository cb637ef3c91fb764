"""The DFTB methods that the report compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from minima import Minimum, minimise
from pidelta.data.frames import Frame
from pidelta.qm.base import QMResult
from pidelta.qm.dftb import sets
from pidelta.qm.dftb.engine import DFTBEngine
from pidelta.qm.dftb.parameters import (
    PUBLISHED_DAMPING_EXPONENTS,
    PUBLISHED_HUBBARD_DERIVATIVES,
    ParameterSet,
    load_parameters,
)
from pidelta.qm.dftb.settings import DFTBSettings
from pidelta.units import ANGSTROM, EV

PUBLISHED = Path(__file__).parents[3] / "shared" / "slako"
_DISPLACEMENT = 0.005  # bohr
_TIGHT = 2e-4 * EV / ANGSTROM


@dataclass(frozen=True)
class Method:
    """A parameter set and how DFTB uses it."""

    name: str
    parameters: ParameterSet
    settings: DFTBSettings

    def knows(self, frame: Frame) -> bool:
        """Whether the set has the elements of a frame."""
        return {chemical_symbols[number] for number in frame.numbers} <= set(self.parameters.elements)

    def evaluate(self, frame: Frame, positions: np.ndarray) -> QMResult:
        """Evaluate a batch (B, n, 3) of geometries of the molecule of a frame."""
        engine = DFTBEngine(frame.numbers, self.parameters, replace(self.settings, charge=frame.charge))
        return engine.evaluate(positions, np.zeros(positions.shape[:2]))

    def function(self, frame: Frame) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        engine = DFTBEngine(frame.numbers, self.parameters, replace(self.settings, charge=frame.charge))
        potential = np.zeros((1, len(frame.numbers)))

        def evaluate(positions: np.ndarray) -> tuple[float, np.ndarray]:
            result = engine.evaluate(positions[None], potential)
            return float(result.energy[0]), result.gradient[0]

        return evaluate

    def hessian(self, frame: Frame, positions: np.ndarray) -> np.ndarray:
        """(3n, 3n) by central differences of the gradient."""
        moves = _DISPLACEMENT * np.eye(positions.size).reshape(-1, *positions.shape)
        gradients = self.evaluate(frame, np.concatenate([positions + moves, positions - moves])).gradient
        upper, lower = np.split(gradients.reshape(2 * positions.size, positions.size), 2)
        hessian = (upper - lower) / (2.0 * _DISPLACEMENT)
        return 0.5 * (hessian + hessian.T)

    def minimum(self, frame: Frame, project: Callable[[np.ndarray], np.ndarray] = lambda x: x) -> Minimum:
        """The minimum that a frame leads to, by Newton's method."""
        positions = project(frame.positions)
        hessian = self.hessian(frame, positions)
        return minimise(
            self.function(frame), positions, hessian, _TIGHT, project, lambda x: self.hessian(frame, x)
        )


def method_of(name: str, files: sets.SetFiles) -> Method:
    """A set with a description, as that says it is used."""
    description = files.description
    settings = DFTBSettings(
        order=description.order,
        hubbard_derivatives=description.hubbard_derivatives,
        damping_exponent=description.damping_exponent,
    )
    return Method(name, files.parameters(description.elements), settings)


def own_methods(folders: list[Path]) -> list[Method]:
    """The sets in folders, or else the built-in one, third order first."""
    orders = [sets.read_folder(folder) for folder in folders] or list(sets.builtin_set().values())
    orders.sort(key=lambda files: -files.description.order)
    return [method_of(f"pidelta DFTB{files.description.order}", files) for files in orders]


def published_methods() -> list[Method]:
    """mio (order 2) and 3ob (order 3), where they are."""
    if not PUBLISHED.is_dir():
        return []
    third_order = DFTBSettings(
        order=3,
        hubbard_derivatives=PUBLISHED_HUBBARD_DERIVATIVES["3ob"],
        damping_exponent=PUBLISHED_DAMPING_EXPONENTS["3ob"],
    )
    return [
        Method(
            "mio DFTB2",
            load_parameters(PUBLISHED / "mio-1-1", ("H", "C", "N", "O", "S")),
            DFTBSettings(order=2),
        ),
        Method(
            "3ob DFTB3", load_parameters(PUBLISHED / "3ob-3-1", ("H", "C", "N", "O", "S", "Cl")), third_order
        ),
    ]
