"""What a run of the study shows: temperatures of both regions, correlation times, diffusion, spectra."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from family import TIME_STEP, Run
from ipi.utils.units import Elements
from numpy.typing import NDArray
from scipy.signal import welch

from pidelta.analysis.ipi_output import Properties, read_properties
from pidelta.analysis.statistics import Mean, correlation_time, mean_with_error
from pidelta.analysis.summary import fit_drift
from pidelta.units import ATOMIC_TIME_IN_FEMTOSECOND, BOHR_IN_ANGSTROM, HARTREE_IN_EV, HARTREE_IN_KELVIN

Array = NDArray[np.float64]
SETTLING = {1: 0.5, 8: 0.2}  # ps that are left out, by beads
QM_ATOMS = {"uracil": 12, "water": 0, "molecule": 12}
SITE, CHARGE = 0.73612, 0.5564  # of q-TIP4P/F: weight of O in the charged site, charge of H
WAVENUMBER = 33356.41  # cm-1 of 1 / fs
SEGMENT = 1.0  # ps: spectra have a resolution of 33 cm-1
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
    """Groups of the atoms of a run, by region and kind."""

    names: NDArray[np.str_]
    masses: Array
    n_qm: int

    def groups(self) -> dict[str, NDArray[np.int64]]:
        index = np.arange(len(self.names))
        hydrogen, qm = self.names == "H", index < self.n_qm
        found = {"QM": qm, "QM H": qm & hydrogen, "QM heavy": qm & ~hydrogen}
        found |= {"MM": ~qm, "MM H": ~qm & hydrogen, "MM O": ~qm & ~hydrogen}
        return {name: index[mask] for name, mask in found.items() if mask.any()}

    def degrees(self, atoms: NDArray[np.int64], beads: int = 1) -> float:
        """Degrees of freedom; the centre of mass of all atoms is at rest, each has its share of that."""
        return 3.0 * beads * len(atoms) - 3.0 * self.masses[atoms].sum() / self.masses.sum()


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
    velocities, atoms = read_binary(next(folder.glob("run.vel*.bin")), QM_ATOMS[run.system], settling)
    seconds_per_ps = _seconds_per_step(folder) * 1000.0 / TIME_STEP
    hours = (time[-1] - settling) * seconds_per_ps / 3600.0
    kinetic = {name: kinetic_temperature(velocities, atoms, group) for name, group in atoms.groups().items()}
    series = dict(_series(folder, properties, kinetic, settled))
    correlations = {name: correlation_time(values) for name, (values, _) in series.items()}
    drift = fit_drift(time[settled], properties.atomic("conserved")[settled], len(atoms.names))
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
        spectra=spectra(velocities, atoms) if run.system != "molecule" else {},
    )


def read_binary(path: Path, n_qm: int, settling: float) -> tuple[Array, Atoms]:
    """Read a trajectory that i-PI wrote in its format ``bin``: (n, N, 3) in atomic units.

    What is before `settling` ps is left out. Each snapshot has the same length: cell, number of atoms,
    values, names and a title, in which the number of the step has ten places. A snapshot that was written
    again after a restart replaces the older one.
    """
    with path.open("rb") as file:
        head = file.read(80)
        n_atoms = int(np.frombuffer(head, np.int64, 1, 72)[0])
        file.seek(24 * n_atoms, 1)
        n_letters = int(np.frombuffer(file.read(8), np.int64)[0])
        names = np.array(file.read(4 * n_letters).decode("utf-32-le").split("|"))
        start = file.tell()
        rest = file.read(400).decode("utf-32-le", errors="ignore")
    title = rest.index("cell{atomic_unit}") + len("cell{atomic_unit}")
    record = np.dtype(
        [
            ("head", "V80"),
            ("values", "f8", (n_atoms, 3)),
            ("names", f"V{8 + 4 * n_letters}"),
            ("title", f"U{title}"),
        ]
    )
    assert record.itemsize == start + 4 * title
    table = np.memmap(path, record, "r", shape=(path.stat().st_size // record.itemsize,))
    steps = np.array([int(text.split()[1]) for text in table["title"]])
    kept = _last_written(steps)
    kept = kept[steps[kept] * TIME_STEP > 1000.0 * settling]
    masses = np.array([Elements.mass(name) for name in names])
    return table["values"][kept], Atoms(names, masses, n_qm)


def _read_dipole(path: Path) -> Array:
    """(n, 3) the dipole of the QM region in e bohr: a line that names the step, and a line of values."""
    lines = path.read_text().rpartition("\n")[0].splitlines()
    lines = lines[: len(lines) // 2 * 2]
    steps = np.array([int(line.split()[-1]) for line in lines[0::2]])
    return np.array([line.split() for line in lines[1::2]], dtype=np.float64)[_last_written(steps)]


def _last_written(steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows that were not written again after a restart: the steps after them only grow."""
    least_later = np.minimum.accumulate(np.append(steps[1:], steps[-1] + 1)[::-1])[::-1]
    return np.flatnonzero(steps < least_later)


def kinetic_temperature(velocities: Array, atoms: Atoms, group: NDArray[np.int64], beads: int = 1) -> Array:
    """(n,) kinetic temperature of a group in K."""
    twice = np.einsum("tai,a->t", velocities[:, group] ** 2, atoms.masses[group])
    return twice * HARTREE_IN_KELVIN / atoms.degrees(group, beads)


def diffusion(velocities: Array, atoms: Atoms, groups: int = 8) -> list[float]:
    """Diffusion constant of the molecules of water in A^2/ps, with the error from groups of molecules."""
    step = _row_ps(velocities)
    molecules = velocities[:, atoms.n_qm :].reshape(len(velocities), -1, 3, 3)
    weights = atoms.masses[atoms.n_qm : atoms.n_qm + 3]
    velocity = np.einsum("tmai,a->tmi", molecules, weights) / weights.sum()
    to_angstrom = BOHR_IN_ANGSTROM * 1000.0 * step / ATOMIC_TIME_IN_FEMTOSECOND
    path = np.cumsum(velocity, axis=0) * to_angstrom
    lags = np.unique(np.linspace(LAG[0] / step, min(LAG[1] / step, 0.5 * len(path)), 12).astype(int))
    squares = np.array([np.sum((path[lag:] - path[:-lag]) ** 2, axis=2).mean(axis=0) for lag in lags])
    slopes = [
        np.polyfit(lags * step, part.mean(axis=1), 1)[0] / 6.0
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
    current = CHARGE * (both - 2.0 * (SITE * oxygen + 0.5 * (1.0 - SITE) * both)).sum(axis=1)
    density["infrared"] = _power(current[:, None], np.ones(1))
    wavenumber = np.fft.rfftfreq(_segment(velocities), 1000.0 * _row_ps(velocities)) * WAVENUMBER
    shown = wavenumber <= HIGHEST
    found = {name: values[shown] / values[shown].sum() for name, values in density.items()}
    return {"wavenumber": wavenumber[shown], **found}


def _power(values: Array, weights: Array) -> Array:
    _, power = welch(values, nperseg=_segment(values), axis=0, detrend=False)
    return np.einsum("fai,a->f", power, weights)


def _segment(values: Array) -> int:
    return min(round(SEGMENT / _row_ps(values)), len(values))


def _row_ps(values: Array) -> float:
    from running import STRIDE

    return STRIDE * TIME_STEP / 1000.0


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
        dipole = _read_dipole(path)[: len(time)]  # a running i-PI may have written more of it
        yield "QM dipole", (np.linalg.norm(dipole, axis=1)[settled[: len(dipole)]], row)


def _bead_temperatures(run: Run, folder: Path, atoms: Atoms, settling: float) -> dict[str, list[float]]:
    """Of all momenta: i-PI runs a ring polymer at P times the temperature."""
    total = dict.fromkeys(atoms.groups(), 0.0)
    for path in sorted(folder.glob("run.beads-vel_*.bin")):
        velocities, _ = read_binary(path, atoms.n_qm, settling)
        for name, group in atoms.groups().items():
            total[name] = total[name] + kinetic_temperature(velocities, atoms, group, run.beads) / run.beads
    return {name: _pair(mean_with_error(np.asarray(values))) for name, values in total.items()}


def _quantum_kinetic(folder: Path, atoms: Atoms, settling: float) -> dict[str, list[float]]:
    energies, _ = read_binary(next(folder.glob("run.kinetic*.bin")), atoms.n_qm, settling)
    return {
        name: _pair(
            mean_with_error(energies[:, group].sum(axis=(1, 2)) / len(group) * 1000.0 * HARTREE_IN_EV)
        )
        for name, group in atoms.groups().items()
        if name not in ("QM", "MM")
    }


def _seconds_per_step(folder: Path) -> float:
    """Of processor time; NaN while the first part of a run is under way."""
    path = folder / "processor-time.json"
    if not path.exists():
        return math.nan
    cost = json.loads(path.read_text())
    return float(cost["seconds"] / cost["steps"])


def _pair(mean: Mean) -> list[float]:
    return [mean.value, mean.error]
