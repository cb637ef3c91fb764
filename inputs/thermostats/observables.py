"""What a run of the study shows: temperatures of both regions, correlation times, diffusion, spectra."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from family import Run
from numpy.typing import NDArray
from stretches import Array, Stretch, join, settling, spacing, stretches_of, wavenumbers

from pidelta.analysis.cost import read_cost
from pidelta.analysis.statistics import correlation_time, mean_with_error
from pidelta.analysis.summary import fit_drift
from pidelta.units import HARTREE_IN_EV

STRETCHES = 4  # whose means tell an error
LONG = 100.0  # ps: many times what the QM region takes to exchange energy with water


@dataclass
class Result:
    """The numbers of a run; means as [value, standard error].

    Attributes:
        picoseconds: of the run.
        seconds_per_ps: of processor time, i-PI and client.
        temperatures: K, by group of atoms; of the centroids in ring polymers.
        bead_temperatures: K, of all momenta of the ring polymers.
        times: integrated autocorrelation times in ps and independent samples, by quantity.
        drift: of the conserved quantity, meV/atom/ps; `fluctuation` around the line, meV/atom.
        diffusion: of the molecules of water, A^2/ps.
        quantum_kinetic: meV an atom, by group, centroid-virial estimator.
        potential: eV.
    """

    picoseconds: float
    seconds_per_ps: float
    temperatures: dict[str, list[float]]
    bead_temperatures: dict[str, list[float]]
    times: dict[str, list[float]]
    drift: list[float]
    fluctuation: float
    diffusion: list[float]
    quantum_kinetic: dict[str, list[float]]
    potential: list[float]
    spectra: dict[str, Array] = field(default_factory=dict, repr=False)

    def numbers(self) -> dict:
        """All but the spectra."""
        return {name: value for name, value in asdict(self).items() if name != "spectra"}


def hides_slow_exchange(run: Run, result: Result) -> bool:
    """Whether the QM region is thermalised by its water alone, and the run too short to see how slowly.

    Half of the variance of a kinetic energy is that of the total energy of the modes. Where nothing but water
    changes it, a short run sees none of this: it says too short a correlation time, and too small an error.
    """
    return result.picoseconds < LONG and run.through_water


def observe(run: Run, folder: Path) -> Result | None:
    """The numbers of a run as far as it is done, or None if that is not longer than what is left out."""
    stretches = stretches_of(run, folder)
    if not stretches:
        return None
    whole = join(stretches)
    end, start = float(whole.rows["time"][-1]), settling(run)
    if end < 2.0 * start:
        return None
    rows, beads = (_from(start, table) for table in (whole.rows, whole.beads))
    cost = read_cost(folder)  # None while the first part of a run is under way
    seconds_per_ps = math.nan if cost is None else cost.cpu_seconds / cost.steps * 1000.0 / run.time_step
    groups = [name for name in rows if name.startswith(("QM", "MM"))]
    correlated = {"potential": "potential", "QM kinetic": "QM", "MM kinetic": "MM", "QM dipole": "dipole"}
    correlations = {
        name: _correlation(rows[key], whole.within.get(key, 0.0))
        for name, key in correlated.items()
        if key in rows
    }
    drift = fit_drift(rows["time"], rows["conserved"], whole.n_atoms)
    kinds = [name.removeprefix("energy ") for name in beads if name.startswith("energy ")]
    return Result(
        picoseconds=end,
        seconds_per_ps=seconds_per_ps,
        temperatures={name: _mean(rows[name]) for name in groups},
        bead_temperatures={name: _mean(beads[f"momenta {name}"]) for name in kinds},
        times={name: [length * spacing(run), samples] for name, (length, samples) in correlations.items()},
        drift=[drift.slope.value, drift.slope.error],
        fluctuation=drift.rms,
        diffusion=_diffusion(whole),
        quantum_kinetic={name: _mean(beads[f"energy {name}"]) for name in kinds if name not in ("QM", "MM")},
        potential=_mean(rows["potential"] * HARTREE_IN_EV),
        spectra=_spectra(whole),
    )


def _correlation(values: Array, within: float) -> tuple[float, float]:
    """Correlation time in rows and independent samples, of all that varies: `within` the rows, too."""
    found, between = correlation_time(values), float(np.var(values))
    share = between / (between + within) if between else 1.0
    return found.samples * share, found.n_effective / share


def _from(start: float, table: dict[str, Array]) -> dict[str, Array]:
    return {name: values[table["time"] > start] for name, values in table.items()}


def _mean(values: Array) -> list[float]:
    mean = mean_with_error(values)
    return [mean.value, mean.error]


def _diffusion(whole: Stretch) -> list[float]:
    """The mean of all stretches, with the error that they tell; of few, with that of groups of molecules.

    The latter is too small: molecules move together.
    """
    slopes, weights = whole.slopes, whole.lengths
    if not len(slopes):
        return []
    means = slopes.mean(axis=1)
    value = float(np.average(means, weights=weights))
    if len(means) < STRETCHES:
        groups = np.average(slopes, axis=0, weights=weights)
        return [value, float(np.std(groups, ddof=1) / np.sqrt(len(groups)))]
    count = weights.sum() ** 2 / (weights**2).sum()
    return [value, float(np.sqrt(np.average((means - value) ** 2, weights=weights) / (count - 1.0)))]


def _spectra(whole: Stretch) -> dict[str, NDArray[np.float64]]:
    """Densities of states of both regions and the infrared spectrum of water, by wavenumber, with area 1."""
    if not whole.segments:
        return {}
    return {
        "wavenumber": wavenumbers(),
        **{kind: values / values.sum() for kind, values in whole.power.items()},
    }
