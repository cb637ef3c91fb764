"""Numbers that tell at a glance whether a simulation went well."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pidelta.analysis.ipi_output import Properties
from pidelta.analysis.statistics import FEWEST_BLOCKS, Mean, mean_with_error, pair_means, settled
from pidelta.analysis.validity import without
from pidelta.state import FloatArray
from pidelta.units import ATOMIC_TIME_IN_FEMTOSECOND, HARTREE_IN_EV, HARTREE_IN_KELVIN


@dataclass(frozen=True)
class Drift:
    """A linear fit to the conserved quantity.

    Attributes:
        slope: in meV/atom/ps.
        rms: of what remains beside the line, in meV/atom.
    """

    slope: Mean
    rms: float


@dataclass(frozen=True)
class Summary:
    """A simulation in numbers; None where i-PI did not write the column.

    Attributes:
        steps: the last step.
        time_ps: simulated time in ps.
        temperature: in K.
        drift: of the conserved quantity.
        potential, kinetic_cv: in eV.
        wrong: columns that are left out, and why.
    """

    steps: int
    time_ps: float | None
    temperature: Mean | None
    drift: Drift | None
    potential: Mean | None
    kinetic_cv: Mean | None
    wrong: Mapping[str, str]

    def rows(self) -> list[tuple[str, str]]:
        """Return what is known as names and formatted values, for a table."""
        rows = [("steps", f"{self.steps}")]
        if self.time_ps is not None:
            rows.append(("simulated time", f"{self.time_ps:.4g} ps"))
        if self.temperature is not None:
            rows.append(("temperature", f"{self.temperature} K"))
        if self.drift is not None:
            rows.append(("drift of the conserved quantity", f"{self.drift.slope.shown('+.3g')} meV/atom/ps"))
            rows.append(("its fluctuation", f"{self.drift.rms:.3g} meV/atom"))
        if self.potential is not None:
            rows.append(("potential energy", f"{self.potential.shown('.4f')} eV"))
        if self.kinetic_cv is not None:
            rows.append(("quantum kinetic energy", f"{self.kinetic_cv} eV"))
        rows += [(name, f"left out: {reason}") for name, reason in self.wrong.items()]
        return rows


def summarise(properties: Properties, n_atoms: int, wrong: Mapping[str, str] | None = None) -> Summary:
    """Summarise a properties file; means and the drift leave out the first twentieth.

    Args:
        properties: as read from the file.
        n_atoms: number of atoms, for the drift per atom (i-PI's conserved quantity is per bead already).
        wrong: columns to be left out, and why.
    """
    wrong = {name: why for name, why in (wrong or {}).items() if name in properties}
    properties = without(properties, wrong)
    time_ps = time_in_ps(properties)
    drift = None
    if time_ps is not None and "conserved" in properties and len(time_ps) > 2:
        drift = fit_drift(settled(time_ps), settled(properties.atomic("conserved")), n_atoms)
    steps = properties.columns.get("step")
    return Summary(
        steps=len(next(iter(properties.columns.values()))) - 1 if steps is None else int(steps[-1]),
        time_ps=None if time_ps is None else float(time_ps[-1]),
        temperature=_mean_of(properties, "temperature", HARTREE_IN_KELVIN),
        drift=drift,
        potential=_mean_of(properties, "potential", HARTREE_IN_EV),
        kinetic_cv=_mean_of(properties, "kinetic_cv", HARTREE_IN_EV),
        wrong=wrong,
    )


def time_in_ps(properties: Properties) -> FloatArray | None:
    """Return the time of each row in ps, if it was written."""
    if "time" not in properties:
        return None
    return properties.atomic("time") * (ATOMIC_TIME_IN_FEMTOSECOND / 1000.0)


def fit_drift(time_ps: FloatArray, conserved: FloatArray, n_atoms: int) -> Drift:
    """Fit a line to the conserved quantity (n,) in hartree over the time (n,) in ps; nan where one is nan."""
    if not (np.isfinite(time_ps).all() and np.isfinite(conserved).all()):
        return Drift(Mean(math.nan, math.nan), math.nan)
    energy = (conserved - conserved.mean()) * (1000.0 * HARTREE_IN_EV / n_atoms)
    slope, offset = np.polyfit(time_ps, energy, 1)
    rest = energy - slope * time_ps - offset
    error = _slope_error(time_ps, rest)
    return Drift(Mean(float(slope), error), float(np.sqrt(np.mean(rest**2))))


def _slope_error(x: FloatArray, rest: FloatArray) -> float:
    """Standard error of the slope of a line, from what remains beside it, by blocks.

    Neighbours in time are correlated, so the means of blocks take the place of the values, twice as long ones
    each time; the largest error counts, as in `mean_with_error`.
    """
    errors = []
    while len(x) >= FEWEST_BLOCKS:
        spread = np.sum((rest - rest.mean()) ** 2) / (len(x) - 2)
        errors.append(float(np.sqrt(spread / np.sum((x - x.mean()) ** 2))))
        x, rest = pair_means(x), pair_means(rest)
    return max(errors, default=math.nan)


def _mean_of(properties: Properties, name: str, factor: float) -> Mean | None:
    if name not in properties:
        return None
    return mean_with_error(settled(properties.atomic(name)) * factor)
