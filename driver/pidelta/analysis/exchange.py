"""Replica exchange: who was at which temperature, and how often neighbours were exchanged."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from pidelta.analysis.sections import Number, Section
from pidelta.analysis.statistics import Mean
from pidelta.errors import DataError
from pidelta.ipi.superseded import not_superseded
from pidelta.state import FloatArray, IntArray
from pidelta.units import HARTREE_IN_KELVIN


@dataclass(frozen=True)
class Exchange:
    """The history of a replica exchange of S systems.

    Attributes:
        temperatures: (S,) k_B T in hartree of the ensembles, as the input has them.
        steps: (n,) after which something was exchanged.
        ensembles: (n, S) which ensemble each system has from then on.
        stride: steps between attempts of a pair, on average.
    """

    temperatures: FloatArray
    steps: IntArray
    ensembles: IntArray
    stride: float

    def temperature_of(self, system: int, steps: IntArray) -> FloatArray:
        """(n,) k_B T of the ensemble that a system has at some steps; an exchange counts from the next on."""
        rows = np.searchsorted(self.steps, steps, side="left")
        history = np.concatenate([[system], self.ensembles[:, system]])
        return np.asarray(self.temperatures[history[rows]])


def read_exchange(path: Path, temperatures: FloatArray, stride: float) -> Exchange:
    """Read the swapfile of i-PI; without one nothing has been exchanged yet.

    Raises:
        DataError: a row has another number of columns.
    """
    rows: list[list[int]] = []
    size = len(temperatures) + 1
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else (), 1):
        try:
            row = [int(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) != size:
            raise DataError(f"{path}: line {number}: expected a step and {size - 1} replicas, found {line!r}")
        rows.append(row)
    table = np.array(rows, dtype=np.int64).reshape(-1, size)
    table = table[not_superseded(table[:, 0])] if len(table) else table
    return Exchange(temperatures, table[:, 0], table[:, 1:], stride)


def exchange_section(exchange: Exchange, n_steps: int) -> Section:
    """Acceptance for each pair of neighbouring temperatures, and the share of time at each temperature.

    Args:
        exchange: the history.
        n_steps: steps of the simulation.
    """
    kelvin = exchange.temperatures * HARTREE_IN_KELVIN
    n_systems = len(kelvin)
    order = np.argsort(kelvin, kind="stable")
    history = np.concatenate([[np.arange(n_systems)], exchange.ensembles])
    swaps = np.zeros((n_systems, n_systems))
    for before, after in pairwise(history):
        for one, other in zip(before, after, strict=True):
            swaps[one, other] += one != other
    attempts = n_steps / exchange.stride if exchange.stride > 0.0 else 0.0
    numbers = []
    for lower, upper in pairwise(order):
        accepted = swaps[[lower, upper], [upper, lower]].mean()
        share = accepted / attempts if attempts else np.nan
        error = np.sqrt(max(accepted, 1.0)) / attempts if attempts else np.nan
        numbers.append(
            Number(
                f"exchanges {kelvin[lower]:.4g} K - {kelvin[upper]:.4g} K",
                Mean(float(share), float(error)),
                "of attempts",
                details={"accepted": float(accepted), "attempts, about": round(attempts, 1)},
            )
        )
    every = np.arange(1, n_steps + 1)
    for system in range(n_systems):
        visited = exchange.temperature_of(system, every) * HARTREE_IN_KELVIN
        shares = ", ".join(f"{np.isclose(visited, kelvin[k]).mean():.2f}" for k in order)
        changes = int((np.diff(visited) != 0.0).sum())
        numbers.append(
            Number(
                f"system {system}: mean temperature of its ensemble",
                Mean(float(visited.mean()), float("nan")),
                "K",
                details={"share of time from cold to hot": shares, "changes": changes},
            )
        )
    nothing = () if len(exchange.steps) else ("nothing was exchanged, by the swapfile of i-PI",)
    remarks = (
        *nothing,
        "i-PI exchanges the ensembles, so that the files of a system hold configurations of several "
        "temperatures; i-pi-remdsort sorts them by temperature",
        "i-PI tries each pair with a probability of 1/stride after each step; several exchanges of one step "
        "count as those between their first and last state",
    )
    return Section("Replica exchange", tuple(numbers), remarks=remarks)
