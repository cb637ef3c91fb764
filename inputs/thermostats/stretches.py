"""The raw outputs of a run made small: what the study needs of each stretch of it, in one file.

The velocities of all atoms every 2 fs are 10 MB a picosecond. Between two parts of a run they are read once,
and thrown away. Stretches of a run add up, wherever each was run. Those of long runs have means of 20 fs
and are small enough to keep.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
from family import TIME_STEP, Run
from numpy.typing import NDArray
from scipy.signal import welch

from pidelta.analysis.composition import Composition, Group
from pidelta.analysis.ipi_output import has_rows, read_properties
from pidelta.analysis.temperatures import Freedom
from pidelta.ipi.frames import FrameFile, read_extras
from pidelta.mm.water import WATER_MODELS
from pidelta.output_files import replacing
from pidelta.units import ATOMIC_TIME_IN_FEMTOSECOND, BOHR_IN_ANGSTROM, HARTREE_IN_EV, HARTREE_IN_KELVIN

Array = NDArray[np.float64]
Index = NDArray[np.int64]
STRIDE = 4  # short steps between rows of properties and velocities: 2 fs
BEADS_STRIDE = 20  # short steps between what every bead has
ROW = STRIDE * TIME_STEP / 1000.0  # ps between rows of properties and velocities
MEANS = 10  # rows that are one in long runs
QM_ATOMS = {"uracil": 12, "water": 0, "molecule": 12}
WATER = WATER_MODELS["q-tip4p-f"]
WAVENUMBER = 33356.41  # cm-1 of 1 / fs
SEGMENT = round(1.0 / ROW)  # rows: spectra have a resolution of 33 cm-1
HIGHEST = 4500.0  # cm-1
LAG = (0.5, 2.0)  # ps between which the mean square displacement is fitted by a line
SETTLING, SETTLING_BEADS = 0.5, 0.2  # ps that are left out, of classical runs and of ring polymers
PARTS = 8  # of the molecules of water, for the error of their diffusion


@dataclass(frozen=True)
class Atoms:
    """The atoms of a run, those of the QM region first."""

    composition: Composition
    n_qm: int

    @property
    def masses(self) -> Array:
        return self.composition.masses

    def groups(self) -> dict[str, Index]:
        """By region and kind."""
        index = np.arange(len(self.composition))
        hydrogen, qm = self.composition.numbers == 1, index < self.n_qm
        found = {"QM": qm, "QM H": qm & hydrogen, "QM heavy": qm & ~hydrogen}
        found |= {"MM": ~qm, "MM H": ~qm & hydrogen, "MM O": ~qm & ~hydrogen}
        return {name: index[mask] for name, mask in found.items() if mask.any()}


@dataclass(frozen=True)
class Stretch:
    """A part of a run, or all of it.

    Attributes:
        n_atoms: of the whole system.
        rows: by quantity, (n,) every 2 fs, means of 20 fs in long runs: `time` in ps, `potential` and
            `conserved` in hartree, `dipole` of the QM region in atomic units, and the kinetic temperature of
            each group of atoms in K; of the centroids in ring polymers.
        beads: by quantity, (k,) every 10 fs, means of 100 fs in long runs: `time`, `momenta GROUP`, the
            temperature of all momenta in K, and `energy GROUP`, centroid-virial, in meV an atom.
        within: by quantity, the variance of rows within the blocks of which means are kept; empty if all are.
        power: by kind, (w,) sums of periodograms of segments of 1 ps, at the wavenumbers of `wavenumbers()`.
        segments: the number of those.
        slopes: (k, PARTS) diffusion constants of groups of molecules, A^2/ps, in each of the k stretches that
            are not too short.
        lengths: (k,) of these stretches in rows of 2 fs.
    """

    n_atoms: int
    rows: dict[str, Array]
    beads: dict[str, Array]
    within: dict[str, float]
    power: dict[str, Array]
    segments: int
    slopes: Array
    lengths: Array


def stride(run: Run, short_steps: int = STRIDE) -> int:
    """Steps of the run between rows: of properties and velocities, or of what every bead has."""
    return round(short_steps * TIME_STEP / run.time_step)


def spacing(run: Run) -> float:
    """ps between the rows of a stretch."""
    return ROW * (MEANS if run.is_long else 1)


def settling(run: Run) -> float:
    """ps that are left out at the beginning."""
    return SETTLING if run.beads == 1 else SETTLING_BEADS


def wavenumbers() -> Array:
    """(w,) of the spectra, in cm-1."""
    every = np.fft.rfftfreq(SEGMENT, 1000.0 * ROW) * WAVENUMBER
    return every[every <= HIGHEST]


def stretches_of(run: Run, folder: Path) -> list[Stretch]:
    """All that is known of a run: condensed stretches, and the raw outputs as far as they are."""
    found = [load(path) for path in sorted(folder.glob("stretch-*.npz"))]
    if _has_rows(folder):
        found.append(_read(run, folder, np.inf))
    return [stretch for stretch in found if len(stretch.rows["time"])]


def condense(run: Run, folder: Path, steps: int) -> None:
    """Keep what the raw outputs say of steps up to `steps`, where the run goes on, and delete them.

    Raises:
        SystemExit: the run begins, and there are stretches of it.
    """
    if not steps and any(folder.glob("stretch-*.npz")):
        raise SystemExit(
            f"{folder}: expected a RESTART that can be read beside stretches of the run, found none: "
            "copy run.checkpoint there, or remove the folder"
        )
    if steps and _has_rows(folder):
        stretch = _read(run, folder, steps * run.time_step / 1000.0)
        if len(stretch.rows["time"]):
            save(stretch, folder / f"stretch-{round(1000.0 * stretch.rows['time'][0] / TIME_STEP):09d}.npz")
    throw_away(folder)


def throw_away(folder: Path, *more: str) -> None:
    """Delete the raw outputs of a run, but for the head of its table, and files of `more` patterns."""
    if (folder / "run.out").exists():
        lines = head(folder / "run.out")
        with replacing(folder / "run.out") as stream:
            stream.writelines(lines)
    for pattern in ("run.vel*", "run.pos*", "run.dipole*", "run.beads-vel*", "run.kinetic*", *more):
        for path in folder.glob(pattern):
            path.unlink()


def head(path: Path) -> list[str]:
    """The lines before the first row of a table; i-PI writes them but once, at the beginning of a run."""
    with path.open() as lines:
        return list(takewhile(lambda line: line.startswith("#"), lines))


def _has_rows(folder: Path) -> bool:
    """Whether there is anything to read: i-PI makes its files long before it writes into them."""
    velocities = next(folder.glob("run.vel*.bin"), None)
    return velocities is not None and velocities.stat().st_size > 0 and has_rows(folder / "run.out")


def join(stretches: list[Stretch]) -> Stretch:
    """One stretch of several, in the order of time; spectra are sums."""
    ordered = sorted(stretches, key=lambda stretch: float(stretch.rows["time"][0]))
    weights = [len(stretch.rows["time"]) for stretch in ordered]
    return Stretch(
        n_atoms=ordered[0].n_atoms,
        rows=_joined([stretch.rows for stretch in ordered]),
        beads=_joined([stretch.beads for stretch in ordered]),
        within={
            name: float(np.average([stretch.within[name] for stretch in ordered], weights=weights))
            for name in ordered[0].within
        },
        power={
            kind: np.sum([stretch.power[kind] for stretch in ordered], axis=0) for kind in ordered[0].power
        },
        segments=sum(stretch.segments for stretch in ordered),
        slopes=np.concatenate([stretch.slopes for stretch in ordered]),
        lengths=np.concatenate([stretch.lengths for stretch in ordered]),
    )


def _joined(tables: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _read(run: Run, folder: Path, end: float) -> Stretch:
    """What raw outputs say of times up to `end`, in ps."""
    properties = read_properties(folder / "run.out")
    quantity = "v_centroid" if run.beads > 1 else "velocities"
    velocities, atoms, times = read_values(
        next(folder.glob("run.vel*.bin")), quantity, QM_ATOMS[run.system], end, run.time_step
    )
    count = min(len(velocities), len(properties.columns["time"]))  # a running i-PI may have written one more
    velocities = velocities[:count]
    rows = {"time": times[:count]}
    rows |= {name: properties.atomic(name)[:count] for name in ("potential", "conserved")}
    dipole = folder / "run.dipole_0"
    if dipole.exists():
        rows["dipole"] = np.linalg.norm(read_extras(dipole)[1][:count], axis=1)
    rows |= {name: kinetic_temperature(velocities, atoms, group) for name, group in atoms.groups().items()}
    settled = velocities[rows["time"] > settling(run)] if run.system != "molecule" else velocities[:0]
    power, segments = _spectra(settled, atoms)
    beads = dict(_beads(run, folder, atoms, end)) if run.beads > 1 else {}
    slopes = diffusion(settled, atoms).reshape(-1, PARTS)
    return Stretch(
        n_atoms=len(atoms.composition),
        rows=_means(rows) if run.is_long else rows,
        beads=_means(beads) if run.is_long else beads,
        within=_within(rows) if run.is_long else {},
        power=power,
        segments=segments,
        slopes=slopes,
        lengths=np.full(len(slopes), len(settled)),
    )


def _blocks(values: Array) -> Array:
    """(n, MEANS) rows; an incomplete last block is dropped."""
    return values[: len(values) // MEANS * MEANS].reshape(-1, MEANS)


def _means(table: dict[str, Array]) -> dict[str, Array]:
    """Of blocks of rows; of what is conserved one row a block, as its noise is a result."""
    return {
        name: _blocks(values)[:, MEANS // 2] if name == "conserved" else _blocks(values).mean(axis=1)
        for name, values in table.items()
    }


def _within(rows: dict[str, Array]) -> dict[str, float]:
    """The variance that means of blocks do not have."""
    return {
        name: float(_blocks(values).var(axis=1).mean()) if len(values) >= MEANS else 0.0
        for name, values in rows.items()
        if name not in ("time", "conserved")
    }


def _beads(run: Run, folder: Path, atoms: Atoms, end: float) -> Iterator[tuple[str, Array]]:
    """i-PI runs a ring polymer at P times the temperature."""
    step = run.time_step
    energies, _, times = read_values(
        next(folder.glob("run.kinetic*.bin")), "kinetic_cv", atoms.n_qm, end, step
    )
    momenta = dict.fromkeys(atoms.groups(), np.zeros(len(times)))
    for path in sorted(folder.glob("run.beads-vel_*.bin")):
        velocities, _, _ = read_values(path, "velocities", atoms.n_qm, end, step)
        for name, group in atoms.groups().items():
            found = kinetic_temperature(velocities[: len(times)], atoms, group, run.beads) / run.beads
            momenta[name] = momenta[name] + found
    yield "time", times
    for name, group in atoms.groups().items():
        yield f"momenta {name}", momenta[name]
        mean = energies[:, group].sum(axis=(1, 2)) / len(group)
        yield f"energy {name}", mean * 1000.0 * HARTREE_IN_EV


def read_values(
    path: Path, quantity: str, n_qm: int, end: float, time_step: float = TIME_STEP
) -> tuple[Array, Atoms, Array]:
    """Read a trajectory, (n, N, 3) in atomic units, up to `end` ps, its atoms and its times in ps."""
    file = FrameFile(path, quantity)
    times = file.steps * time_step / 1000.0
    rows = np.flatnonzero(times <= end)
    values = np.array([file.read(int(row))[0] for row in rows])
    return values.reshape(len(rows), -1, 3), Atoms(Composition(file.names), n_qm), times[rows]


def kinetic_temperature(velocities: Array, atoms: Atoms, group: Index, beads: int = 1) -> Array:
    """(n,) kinetic temperature of a group in K; the centre of mass of all atoms is at rest."""
    freedom = Freedom.of(atoms.composition, [Group("", group)], beads, fixes_momentum=True)
    twice = np.einsum("tai,a->t", velocities[:, group] ** 2, atoms.masses[group])
    return twice * HARTREE_IN_KELVIN / float(freedom.degrees[0])


def diffusion(velocities: Array, atoms: Atoms) -> Array:
    """(PARTS,) diffusion constants of groups of molecules of water in A^2/ps."""
    if len(velocities) < 2.0 * LAG[0] / ROW + 2:
        return np.zeros(0)
    molecules = velocities[:, atoms.n_qm :].reshape(len(velocities), -1, 3, 3)
    weights = atoms.masses[atoms.n_qm : atoms.n_qm + 3]
    velocity = np.einsum("tmai,a->tmi", molecules, weights) / weights.sum()
    to_angstrom = BOHR_IN_ANGSTROM * 1000.0 * ROW / ATOMIC_TIME_IN_FEMTOSECOND
    path = np.cumsum(velocity, axis=0) * to_angstrom
    lags = np.unique(np.linspace(LAG[0] / ROW, min(LAG[1] / ROW, 0.5 * len(path)), 12).astype(int))
    squares = np.array([np.sum((path[lag:] - path[:-lag]) ** 2, axis=2).mean(axis=0) for lag in lags])
    return np.array(
        [
            np.polyfit(lags * ROW, part.mean(axis=1), 1)[0] / 6.0
            for part in np.array_split(squares, PARTS, axis=1)
        ]
    )


def _spectra(velocities: Array, atoms: Atoms) -> tuple[dict[str, Array], int]:
    """Periodograms of the velocities of both regions and of the infrared current of water, summed."""
    segments = max(0, 2 * len(velocities) // SEGMENT - 1)  # they overlap by a half
    groups = {name: group for name, group in atoms.groups().items() if name in ("QM", "MM")}
    if not segments:
        return dict.fromkeys((*groups, "infrared"), np.zeros(len(wavenumbers()))), 0
    density = {name: _power(velocities[:, group], atoms.masses[group]) for name, group in groups.items()}
    oxygen, *hydrogens = (velocities[:, atoms.n_qm + i :: 3] for i in range(3))
    both = hydrogens[0] + hydrogens[1]
    site = WATER.site * oxygen + 0.5 * (1.0 - WATER.site) * both
    current = WATER.charge * (both - 2.0 * site).sum(axis=1)
    density["infrared"] = _power(current[:, None], np.ones(1))
    return {name: segments * values[: len(wavenumbers())] for name, values in density.items()}, segments


def _power(values: Array, weights: Array) -> Array:
    _, power = welch(values, nperseg=SEGMENT, axis=0, detrend=False)
    return np.einsum("fai,a->f", power, weights)


def save(stretch: Stretch, path: Path, more: dict[str, Array] | None = None) -> None:
    """Keep a stretch in single precision, but for its times, and `more` beside it."""
    tables = {"rows": stretch.rows, "beads": stretch.beads, "power": stretch.power, "within": stretch.within}
    arrays = {
        f"{table}/{name}": np.asarray(values, dtype=np.float64 if name == "time" else np.float32)
        for table, columns in tables.items()
        for name, values in columns.items()
    }
    counts = np.array([stretch.n_atoms, stretch.segments])
    with replacing(path, "wb") as stream:
        diffusion = {"slopes": stretch.slopes, "lengths": stretch.lengths}
        np.savez_compressed(stream, counts=counts, **diffusion, **arrays, **(more or {}))


def load(path: Path) -> Stretch:
    """A stretch that was kept."""
    tables: dict[str, dict[str, Array]] = {"rows": {}, "beads": {}, "power": {}, "within": {}}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            table, _, name = key.partition("/")
            if name:
                tables[table][name] = arrays[key].astype(np.float64)
        n_atoms, segments = (int(count) for count in arrays["counts"])
        within = {name: float(value) for name, value in tables.pop("within").items()}
        diffusion = {name: arrays[name] for name in ("slopes", "lengths")}
        return Stretch(n_atoms, **tables, within=within, segments=segments, **diffusion)
