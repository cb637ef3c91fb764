"""pidelta inside i-PI: the file for the ``<pes_path>`` of an ``<ffdirect>``, also for ``<ffmpi>``'s driver.

i-PI loads this file by its path and takes the class that `__DRIVER_CLASS__` names.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from ipi.utils.softexit import softexit

from pidelta.config import load_config
from pidelta.errors import PideltaError
from pidelta.ipi.client import ObservedEvaluator
from pidelta.ipi.client_status import STATUS_VARIABLE, StatusFile, direct_status_path
from pidelta.ipi.forcefields import DEFAULT_CONFIG
from pidelta.run_record import check_configuration
from pidelta.setup import Setup
from pidelta.state import FloatArray, parse_terms

__DRIVER_NAME__ = "pidelta"
__DRIVER_CLASS__ = "PideltaDriver"

_FAILED = 2
_numbers = itertools.count()

Result = tuple[float, FloatArray, FloatArray, str]
"""Energy, forces (N, 3), virial (3, 3), in atomic units, and extras in JSON, as i-PI wants them."""


class PideltaDriver:
    """Energies and forces of a configuration for i-PI, in its own process.

    What is wrong with a configuration or a structure ends i-PI, after it has saved its state, with one line.

    Args:
        config: the configuration; a path is relative to the folder that i-PI runs in.
        terms: joined by +, such as low+delta; all if empty.
        member: the place, from 0, of the one delta model to use; the mean of all if None.
        verbosity: of i-PI, which hands it over to all such classes.
        verbose: as `verbosity`, of i-PI's socket client.
    """

    def __init__(
        self,
        config: str = DEFAULT_CONFIG,
        terms: str = "",
        member: int | str | None = None,
        verbosity: object = None,
        verbose: bool = False,
    ) -> None:
        torch.set_num_threads(1)  # the small matrices of a force call are slowest with many
        try:
            self._evaluator = _read(Path(config), terms, None if member is None else int(member))
        except (PideltaError, ValueError) as error:
            _end(error)

    def __call__(
        self, cell: FloatArray | list[FloatArray], pos: FloatArray | list[FloatArray]
    ) -> Result | list[Result]:
        """Evaluate positions (N, 3) in a cell of columns (3, 3), both in bohr, or lists of such."""
        batch = isinstance(cell, list)
        cells = np.array(cell if batch else [cell]).transpose(0, 2, 1)
        try:
            answer = self._evaluator.answer(np.array(pos if batch else [pos]), cells)
        except PideltaError as error:
            _end(error)
        texts = [extra.decode() for extra in answer.extras]
        forces = -answer.gradient
        results = [
            (float(energy), *arrays)
            for energy, *arrays in zip(answer.energies, forces, answer.virials, texts, strict=True)
        ]
        return results if batch else results[0]


def _read(config: Path, terms: str, member: int | None) -> ObservedEvaluator:
    setup = Setup(load_config(config))
    evaluator = setup.evaluator(parse_terms(terms) if terms else None, member)
    check_configuration(setup.config)
    observers, alarms = setup.observers(evaluator)
    if STATUS_VARIABLE in os.environ:
        status = StatusFile(direct_status_path(Path(os.environ[STATUS_VARIABLE]), next(_numbers)), alarms)
        observers.append(status)
        softexit.register_function(status.write)
    return ObservedEvaluator(evaluator, observers)


def _end(error: Exception) -> NoReturn:
    """End the process from whichever thread this is; i-PI writes RESTART, if it has begun to run."""
    softexit.cleanup(status="restartable", message=str(error))
    print(f"pidelta: {error}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(_FAILED)
