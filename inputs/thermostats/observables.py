"""What a run of the study shows: temperatures of both regions, correlation times, diffusion, spectra."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from family import TIME_STEP, Run
from numpy.typing import NDArray
from running import STRIDE
from scipy.signal import welch

from pidelta.analysis.composition import Composition, Group
from pidelta.analysis.cost import read_cost
from pidelta.analysis.ipi_output import Properties, read_properties
from pidelta.analysis.statistics import Mean, correlation_time, mean_with_error
from pidelta.analysis.summary import fit_drift
from pidelta.analysis.temperatures import Freedom
from pidelta.ipi.frames import FrameFile, read_extras
from pidelta.mm.water import WATER_MODELS
from pidelta.units import ATOMIC_TIME_IN_FEMTOSECOND, BOHR_IN_ANGSTROM, HARTREE_IN_EV, HARTREE_IN_KELVIN

Array = NDArray[np.float64]
SETTLING = {1: 0.5, 8: 0.2}  # ps that are left out, by beads
QM_ATOMS = {"uracil": 12, "water": 0, "molecule": 12}
WATER = WATER_MODELS["q-tip4p-f"]
WAVENUMBER = 33356.41  # cm-1 of 1 / fs
ROW = STRIDE * TIME_STEP / 1000.0  # ps between rows of properties and velocities
SEGMENT = round(1.0 / ROW)  # rows: spectra have a resolution of 33 cm-1
HIGHEST = 4500.0  # cm-1
LONG = 20.0  # ps: many times what the QM region takes to exchange energy with water
LAG = (0.5, 2.0)  # ps between which the mean square displacement is fitted by a line


@dataclass
class Result:
    """The numbers of a run; means as [value, standard error].

    Attributes:
        picoseconds: of the run.
        seconds_per_ps: of processor time, i-PI and client.
        temperatures: K, by group of atoms; of the centroids in ring polymers.
        bead_temperatures: K, of all momenta of the ring polymers.
        times: integrated autocorrelation times in ps, by quantity; NaN where the run is too short to tell.
        samples_per_hour: independent samples for each hour of processor time, by quantity.
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
    samples_per_hour: dict[str, float]
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
    return result.picoseconds < LONG and run.system == "uracil" and not _acts_on_atoms(run)


def _acts_on_atoms(run: Run) -> bool:
    return any(f"'{mode}'" in run.thermostat for mode in ("langevin", "ffl", "gle", "nm_gle", "pile_l"))


@dataclass(frozen=True)
class Atoms:
    """The atoms of a run, those of the QM region first."""

    composition: Composition
    n_qm: int

    @property
    def masses(self) -> Array:
        return self.composition.masses

    def groups(self) -> dict[str, NDArray[np.int64]]:
        """By region and kind."""
        index = np.arange(len(self.composition))
        hydrogen, qm = self.composition.numbers == 1, index < self.n_qm
        found = {"QM": qm, "QM H": qm & hydrogen, "QM heavy": qm & ~hydrogen}
        found |= {"MM": ~qm, "MM H": ~qm & hydrogen, "MM O": ~qm & ~hydrogen}
        return {name: index[mask] for name, mask in found.items() if mask.any()}


def observe(run: Run, folder: Path) -> Result | None:
    """The numbers of a run as far as it is done, or None if that is not longer than what is left out."""
    if not (folder / "run.out").exists():
        return None
    properties = read_properties(folder / "run.out")
    time = properties.columns["time"]
    settling = SETTLING[run.beads]
    if time[-1] < 2.0 * settling:
        return None
    settled = time > settling
    quantity = "v_centroid" if run.beads > 1 else "velocities"
    velocities, atoms = read_values(
        next(folder.glob("run.vel*.bin")), quantity, QM_ATOMS[run.system], settling
    )
    cost = read_cost(folder)  # None while the first part of a run is under way
    seconds_per_ps = math.nan if cost is None else cost.cpu_seconds / cost.steps * 1000.0 / TIME_STEP
    hours = (time[-1] - settling) * seconds_per_ps / 3600.0
    kinetic = {name: kinetic_temperature(velocities, atoms, group) for name, group in atoms.groups().items()}
    series = dict(_series(folder, properties, kinetic, settled))
    correlations = {name: correlation_time(values) for name, (values, _) in series.items()}
    drift = fit_drift(time[settled], properties.atomic("conserved")[settled], len(atoms.composition))
    return Result(
        picoseconds=float(time[-1]),
        seconds_per_ps=seconds_per_ps,
        temperatures={name: _pair(mean_with_error(values)) for name, values in kinetic.items()},
        bead_temperatures=_bead_temperatures(run, folder, atoms, settling) if run.beads > 1 else {},
        times={name: [c.samples * series[name][1], c.n_effective] for name, c in correlations.items()},
        samples_per_hour={name: c.n_effective / hours for name, c in correlations.items()},
        drift=_pair(drift.slope),
        fluctuation=drift.rms,
        diffusion=diffusion(velocities, atoms) if run.system != "molecule" else [],
        quantum_kinetic=_quantum_kinetic(folder, atoms, settling) if run.beads > 1 else {},
        potential=_pair(mean_with_error(properties.atomic("potential")[settled] * HARTREE_IN_EV)),
        spectra=spectra(velocities, atoms) if run.system != "molecule" and len(velocities) >= SEGMENT else {},
    )


def read_values(path: Path, quantity: str, n_qm: int, settling: float) -> tuple[Array, Atoms]:
    """Read a trajectory, (n, N, 3) in atomic units, without what is before `settling` ps."""
    file = FrameFile(path, quantity)
    rows = np.flatnonzero(file.steps * TIME_STEP > 1000.0 * settling)
    return np.array([file.read(int(row))[0] for row in rows]), Atoms(Composition(file.names), n_qm)


def kinetic_temperature(velocities: Array, atoms: Atoms, group: NDArray[np.int64], beads: int = 1) -> Array:
    """(n,) kinetic temperature of a group in K; the centre of mass of all atoms is at rest."""
    freedom = Freedom.of(atoms.composition, [Group("", group)], beads, fixes_momentum=True)
    twice = np.einsum("tai,a->t", velocities[:, group] ** 2, atoms.masses[group])
    return twice * HARTREE_IN_KELVIN / float(freedom.degrees[0])


def diffusion(velocities: Array, atoms: Atoms, groups: int = 8) -> list[float]:
    """Diffusion constant of the molecules of water in A^2/ps, with the error from groups of molecules."""
    molecules = velocities[:, atoms.n_qm :].reshape(len(velocities), -1, 3, 3)
    weights = atoms.masses[atoms.n_qm : atoms.n_qm + 3]
    velocity = np.einsum("tmai,a->tmi", molecules, weights) / weights.sum()
    to_angstrom = BOHR_IN_ANGSTROM * 1000.0 * ROW / ATOMIC_TIME_IN_FEMTOSECOND
    path = np.cumsum(velocity, axis=0) * to_angstrom
    lags = np.unique(np.linspace(LAG[0] / ROW, min(LAG[1] / ROW, 0.5 * len(path)), 12).astype(int))
    squares = np.array([np.sum((path[lag:] - path[:-lag]) ** 2, axis=2).mean(axis=0) for lag in lags])
    slopes = [
        np.polyfit(lags * ROW, part.mean(axis=1), 1)[0] / 6.0
        for part in np.array_split(squares, groups, axis=1)
    ]
    return [float(np.mean(slopes)), float(np.std(slopes, ddof=1) / np.sqrt(groups))]


def spectra(velocities: Array, atoms: Atoms) -> dict[str, Array]:
    """Densities of states of both regions and the infrared spectrum of water, by wavenumber, with area 1."""
    groups = atoms.groups()
    density = {
        name: _power(velocities[:, group], atoms.masses[group])
        for name, group in groups.items()
        if name in ("QM", "MM")
    }
    oxygen, *hydrogens = (velocities[:, atoms.n_qm + i :: 3] for i in range(3))
    both = hydrogens[0] + hydrogens[1]
    site = WATER.site * oxygen + 0.5 * (1.0 - WATER.site) * both
    current = WATER.charge * (both - 2.0 * site).sum(axis=1)
    density["infrared"] = _power(current[:, None], np.ones(1))
    wavenumber = np.fft.rfftfreq(SEGMENT, 1000.0 * ROW) * WAVENUMBER
    shown = wavenumber <= HIGHEST
    found = {name: values[shown] / values[shown].sum() for name, values in density.items()}
    return {"wavenumber": wavenumber[shown], **found}


def _power(values: Array, weights: Array) -> Array:
    _, power = welch(values, nperseg=SEGMENT, axis=0, detrend=False)
    return np.einsum("fai,a->f", power, weights)


def _series(
    folder: Path, properties: Properties, kinetic: dict[str, Array], settled: NDArray[np.bool_]
) -> Iterator[tuple[str, tuple[Array, float]]]:
    """Quantities whose correlation times count, with the time between rows in ps."""
    time = properties.columns["time"]
    row = float(np.median(np.diff(time)))
    yield "potential", (properties.atomic("potential")[settled], row)
    for name in ("QM", "MM"):
        if name in kinetic:
            yield f"{name} kinetic", (kinetic[name], row)
    path = folder / "run.dipole_0"
    if path.exists():
        dipole = read_extras(path)[1][: len(time)]  # a running i-PI may have written more of it
        yield "QM dipole", (np.linalg.norm(dipole, axis=1)[settled[: len(dipole)]], row)


def _bead_temperatures(run: Run, folder: Path, atoms: Atoms, settling: float) -> dict[str, list[float]]:
    """Of all momenta: i-PI runs a ring polymer at P times the temperature."""
    total = dict.fromkeys(atoms.groups(), 0.0)
    for path in sorted(folder.glob("run.beads-vel_*.bin")):
        velocities, _ = read_values(path, "velocities", atoms.n_qm, settling)
        for name, group in atoms.groups().items():
            total[name] = total[name] + kinetic_temperature(velocities, atoms, group, run.beads) / run.beads
    return {name: _pair(mean_with_error(np.asarray(values))) for name, values in total.items()}


def _quantum_kinetic(folder: Path, atoms: Atoms, settling: float) -> dict[str, list[float]]:
    path = next(folder.glob("run.kinetic*.bin"))
    energies, _ = read_values(path, "kinetic_cv", atoms.n_qm, settling)
    return {
        name: _pair(
            mean_with_error(energies[:, group].sum(axis=(1, 2)) / len(group) * 1000.0 * HARTREE_IN_EV)
        )
        for name, group in atoms.groups().items()
        if name not in ("QM", "MM")
    }


def _pair(mean: Mean) -> list[float]:
    return [mean.value, mean.error]
