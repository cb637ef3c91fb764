"""From the outputs of a run to the sections of its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pidelta.analysis.composition import Composition
from pidelta.analysis.correlations import Cost, Series, correlation_section
from pidelta.analysis.diffusion import diffusion, diffusion_section
from pidelta.analysis.distances import distance_section, pairs_of, radial_distributions, structures_to_read
from pidelta.analysis.energies import energy_section
from pidelta.analysis.estimators import (
    KineticEnergies,
    estimator_section,
    kinetic_energies,
    written_centroid_virial,
)
from pidelta.analysis.exchange import Exchange, exchange_section
from pidelta.analysis.facts import run_facts
from pidelta.analysis.ipi_output import Properties
from pidelta.analysis.positions_pass import Positions, read_positions
from pidelta.analysis.run_files import BeadFrames, RunFiles
from pidelta.analysis.sections import Mark, Report, Section
from pidelta.analysis.spectra import (
    FEWEST_ROWS,
    WATER_MODES,
    Spectrum,
    absorption,
    spectrum_section,
    vibrational_density,
)
from pidelta.analysis.temperatures import KineticTemperatures, kinetic_temperatures, temperature_section
from pidelta.analysis.validity import BONDS, DISTANCES, RADII, left_out, wrong_numbers
from pidelta.analysis.written import WrittenProperties, early_ends, read_written, written_time_step
from pidelta.errors import DataError
from pidelta.ipi.outputs import RunOutputs, SystemOutputs
from pidelta.state import FloatArray, IntArray
from pidelta.units import ATOMIC_TIME_IN_FEMTOSECOND

Progress = Callable[[str], None]
"""Told what is being done, before it is done."""

_POSITIONS = "<trajectory filename='pos' stride='10'> positions{angstrom} </trajectory>"
_VELOCITIES = "<trajectory filename='vel' stride='4'> velocities </trajectory>"
_DIPOLE = "<trajectory filename='dipole' stride='4' extra_type='dipole'> extras </trajectory>"


@dataclass(frozen=True)
class ReportOptions:
    """What a user may choose.

    Attributes:
        bonds: pairs of atoms whose lengths are followed, besides those of the QM region with hydrogen.
        modes: known vibrations, which are marked in spectra.
    """

    bonds: tuple[tuple[int, int], ...] = ()
    modes: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Run:
    """What is known of a whole run.

    Attributes:
        outputs: of all its systems.
        cost: None where nobody measured it.
        exchange: of replicas; None without.
    """

    outputs: RunOutputs
    cost: Cost | None
    exchange: Exchange | None


def _too_short(what: str, expected: int, found: int) -> str:
    return f"too short: expected {what}, {expected} or more, found {found}"


class SystemReport:
    """The report of one system; each section looks for what it needs, and says what is missing.

    Args:
        run: the simulation.
        index: which of its systems.
        composition: its atoms.
        options: of the user.
        progress: told what is being done.
    """

    def __init__(
        self, run: Run, index: int, composition: Composition, options: ReportOptions, progress: Progress
    ) -> None:
        self._run, self._index = run, index
        self._outputs: SystemOutputs = run.outputs.systems[index]
        self._composition, self._options, self._progress = composition, options, progress
        self._files = RunFiles(self._outputs, len(composition))
        self._wrong = wrong_numbers(self._outputs)

    def make(self) -> Report:
        """Read everything and return the report.

        Raises:
            DataError: nothing has been written yet, or a file is malformed or of another input.
        """
        path, prefix = self._run.outputs.path, self._run.outputs.prefix
        trajectories = (file for each in self._outputs.trajectories for file in each.files())
        if not self._properties and not any(file.stat().st_size for file in trajectories):
            raise DataError(f"{path}: expected outputs of this input, found none yet: run it first")
        if not self._outputs.ensemble:
            raise DataError(
                f"{path}: expected <motion mode='dynamics'>, whose means have errors, found another"
            )
        notes = [note for note in (self._outputs.masses_note,) if note]
        warnings = [*self._written.warnings, *notes, *self._take_time_step()]
        sections = [
            energy_section(self._written, len(self._composition), self._wrong),
            self._exchange(),
            self._temperatures(),
            self._kinetic_energies(),
            self._structure("gyration"),
            self._structure("bonds"),
            self._correlations(),
            self._distances(),
            self._diffusion(),
            self._vibrations(),
            self._infrared(),
        ]
        return Report(
            name=f"{prefix or path.stem} {self._outputs.name}".strip(),
            folder=path.resolve().parent,
            system=self._outputs.name,
            facts=tuple(
                run_facts(path, self._outputs, self._composition, self._run.cost, self._best("step"))
            ),
            sections=tuple(section for section in sections if section is not None),
            warnings=tuple(dict.fromkeys([*warnings, *self._files.warnings, *early_ends(self._ends())])),
        )

    @cached_property
    def _written(self) -> WrittenProperties:
        return read_written(self._outputs.properties)

    @property
    def _properties(self) -> list[Properties]:
        return list(self._written.files.values())

    def _take_time_step(self) -> list[str]:
        """Go on with the time step that the outputs have, and say where the input has another."""
        if self._outputs.time_step is None:
            return []
        step, warnings = written_time_step(
            self._run.outputs.path.name, self._outputs.time_step, self._written.files
        )
        self._outputs = replace(self._outputs, time_step=step)
        return warnings

    def _ends(self) -> dict[str, tuple[int, int]]:
        """Last step and stride of each output that was read."""
        ends, strides = dict(self._files.ends), {f.path.name: f.stride for f in self._outputs.properties}
        for name, properties in self._written.files.items():
            if "step" in properties:
                ends[name] = int(properties.columns["step"][-1]), strides[name]
        return ends

    @cached_property
    def _positions(self) -> Positions | None:
        frames = self._files.frames("positions")
        if frames is None:
            return None
        self._progress(f"positions: {len(frames)} snapshots of {frames.n_beads} beads")
        return read_positions(self._composition, frames, self._options.bonds, self._outputs.temperature)

    def _best(self, *starts: str) -> Properties | None:
        """The properties file with most of the columns that begin with one of some texts."""

        def count(properties: Properties) -> int:
            return sum(name.startswith(starts) for name in properties.columns)

        best = max(self._properties, key=count, default=None)
        return best if best is not None and count(best) else None

    def _targets(self, steps: IntArray) -> FloatArray | None:
        """(n,) k_B T of the ensemble at some steps, which replica exchange changes."""
        if self._outputs.temperature is None or not self._outputs.keeps_temperature:
            return None
        if self._run.exchange is not None:
            return self._run.exchange.temperature_of(self._index, steps)
        return np.full(len(steps), self._outputs.temperature)

    def _exchange(self) -> Section | None:
        main = self._best("step")
        if self._run.exchange is None or main is None or self._index:
            return None
        n_steps = int(main.columns["step"][-1])
        return exchange_section(self._run.exchange, n_steps) if n_steps else None

    def _temperatures(self) -> Section:
        found: list[KineticTemperatures] = []
        for quantity in ("velocities", "v_centroid"):
            frames = self._files.frames(quantity)
            if frames is None or (quantity == "v_centroid" and any(f.label == "centroid" for f in found)):
                continue
            self._progress(f"temperatures: {len(frames)} snapshots of {frames.n_beads} beads")
            found += kinetic_temperatures(
                self._composition,
                frames,
                self._outputs.n_beads,
                held=self._outputs.held,
                are_centroids=quantity == "v_centroid",
            )
        section = temperature_section(
            self._outputs, self._composition, self._best("temperature"), found, self._targets, self._wrong
        )
        return self._with_notes(section, "velocities", "v_centroid")

    def _kinetic_energies(self) -> Section | None:
        outputs, found = self._outputs, list[KineticEnergies]()
        temperature = outputs.temperature
        written = self._files.frames("kinetic_cv")
        if written is not None:
            self._progress(f"kinetic energies: {len(written)} snapshots")
            found.append(written_centroid_virial(self._composition, written))
        if outputs.n_beads > 1 and temperature is not None and self._run.exchange is None:
            found += self._estimated(temperature, with_centroid_virial=written is None)
        properties = self._best("kinetic_")
        if not found and properties is None and outputs.n_beads == 1:
            return None
        section = estimator_section(
            self._composition, properties, found, outputs.n_beads, temperature, self._wrong
        )
        return self._with_notes(section, "kinetic_cv", "forces")

    def _estimated(self, temperature: float, *, with_centroid_virial: bool) -> list[KineticEnergies]:
        """Kinetic energies from positions, and from forces where there are any, of all beads."""
        frames, forces = self._files.frames("positions"), self._files.frames("forces")
        if frames is None or not frames.is_complete or self._positions is None:
            return []
        if forces is None or not forces.is_complete:
            return [self._positions.primitive] if self._positions.primitive is not None else []
        self._progress(f"kinetic energies: {len(forces)} snapshots of {forces.n_beads} beads")
        is_bound = not self._composition.is_periodic
        found = kinetic_energies(self._composition, frames, forces, temperature, is_bound=is_bound)
        return [each for each in found if with_centroid_virial or each.kind != "centroid virial"]

    def _structure(self, what: str) -> Section | None:
        if self._positions is None:
            if what == "bonds":
                missing = f"not in the output, nor what else needs positions: ask for {_POSITIONS}"
                return Section("Bonds", remarks=(missing,))
            return None
        title, quantity = ("Radius of gyration", RADII) if what == "gyration" else ("Bonds", BONDS)
        if quantity in self._wrong:
            return Section(title, remarks=tuple(left_out(self._wrong, quantity)))
        if what == "gyration":
            gyration = self._positions.gyration
            if gyration is None and self._outputs.n_beads > 1:
                return Section("Radius of gyration", remarks=("not in the output: ask for all beads",))
            return None if gyration is None else gyration.section()
        bonds = self._positions.bonds
        return None if bonds is None else self._with_notes(bonds.section(), "positions")

    def _correlations(self) -> Section | None:
        if self._outputs.time_step is None:
            return None
        self._progress("correlation times")
        series, missing = [], []
        properties = self._best("potential", "step")
        if properties is not None and "potential" in properties and "step" in properties:
            steps = properties.columns["step"].astype(np.int64)
            series.append(Series("potential energy", steps, properties.atomic("potential")))
        else:
            why = self._written.why_not("potential", "step")
            why = why or "not in the output: ask for step and potential in <properties>"
            missing.append(f"potential energy: {why}")
        dipole = self._files.extras("dipole")
        if dipole is not None:
            series.append(Series("QM dipole", dipole[0], dipole[1].mean(axis=1)))
        elif self._composition.has_quantum:
            missing.append(f"QM dipole: not in the output: ask for {_DIPOLE}")
        if self._positions is not None and self._positions.bonds is not None:
            series += self._positions.bonds.series()
        step_ps = self._outputs.time_step * ATOMIC_TIME_IN_FEMTOSECOND / 1000.0
        return correlation_section(series, step_ps, self._run.cost, missing)

    def _distances(self) -> Section | None:
        pairs, frames = pairs_of(self._composition), self._files.frames("positions")
        molecules = self._composition.molecules
        if not pairs or frames is None or molecules is None or not self._composition.is_periodic:
            return None
        if DISTANCES in self._wrong:
            return Section("Radial distribution functions", remarks=tuple(left_out(self._wrong, DISTANCES)))
        count = structures_to_read(len(self._composition), len(frames) * frames.n_beads)
        self._progress(f"radial distribution functions of {count} structures")
        return distance_section(radial_distributions(pairs, frames, molecules, count), count)

    def _diffusion(self) -> Section | None:
        positions, frames = self._positions, self._files.frames("positions")
        if positions is None or frames is None or not positions.oxygens.shape[1]:
            return None
        if not self._composition.is_periodic or not frames.is_complete:
            return None
        row = self._row_time(positions.steps)
        if row is None:
            return None
        self._progress("diffusion")
        found = diffusion(positions.oxygens, row * ATOMIC_TIME_IN_FEMTOSECOND / 1000.0)
        return diffusion_section(found, self._outputs.temperature, positions.volume)

    def _vibrations(self) -> Section | None:
        frames, of_what = self._velocities()
        title = "Vibrational density of states"
        if self._outputs.time_step is None:
            return None
        if self._outputs.held.centroids:
            return Section(title, remarks=("centroids do not move",))
        if frames is None:
            return Section(title, remarks=(f"not in the output: ask for {_VELOCITIES}",))
        row = self._row_time(frames.steps)
        if row is None and len(frames) > 1:
            return Section(title, remarks=("velocities are not evenly spaced in time",))
        if row is None:
            return Section(title, remarks=(_too_short("snapshots of velocities", FEWEST_ROWS, len(frames)),))
        self._progress(f"vibrations: {len(frames)} snapshots of {frames.n_beads} beads")
        spectra, rows = vibrational_density(self._composition, frames, row)
        if not spectra:
            return Section(title, remarks=(_too_short("snapshots of velocities", rows, len(frames)),))
        remarks = [f"of {of_what}, mass-weighted, each of area one", *self._about_dynamics()]
        return spectrum_section(
            title, spectra, rows, row, y_label="density / cm", marks=self._marks(), remarks=remarks
        )

    def _infrared(self) -> Section | None:
        temperature = self._outputs.temperature
        if self._outputs.time_step is None:
            return None
        title, spectra, missing, width = "Infrared spectrum", list[Spectrum](), list[str](), (0, 1.0)
        volume = (
            None if self._positions is None or not self._composition.is_periodic else self._positions.volume
        )
        for name, steps, dipoles in self._dipoles(missing):
            row = self._row_time(steps)
            if len(steps) < 2:
                missing.append(f"{name}: {_too_short('snapshots', FEWEST_ROWS + 1, len(steps))}")
                continue
            if row is None or temperature is None:
                missing.append(f"{name}: not evenly spaced in time, or no temperature")
                continue
            spectrum, rows = absorption(name, dipoles, row, temperature, volume)
            if spectrum is None:
                missing.append(f"{name}: {_too_short('snapshots', rows + 1, len(steps))}")
            else:
                spectra.append(spectrum)
                width = rows, row
        if not spectra:
            return Section(title, remarks=tuple(missing)) if missing else None
        if volume is not None and not self._composition.is_configured:
            missing.append(
                "over the volume of the cell: no configuration tells whether this is a molecule in vacuum, "
                "whose cell means nothing; name one by --config"
            )
        remarks = [
            "n(w) alpha(w) from the classical (for beads: average) dipole with the harmonic quantum "
            "correction factor",
            *self._about_dynamics(),
            *missing,
        ]
        unit = "n alpha / cm⁻¹" if volume is not None else "intensity / (km/mol cm)"
        return spectrum_section(title, spectra, *width, y_label=unit, marks=self._marks(), remarks=remarks)

    def _dipoles(self, missing: list[str]) -> list[tuple[str, IntArray, FloatArray]]:
        """Dipoles, averages over beads, with their steps: of the QM region, of MM charges, of both."""
        found: list[tuple[str, IntArray, FloatArray]] = []
        quantum, positions = self._files.extras("dipole"), self._positions
        if quantum is not None:
            found.append(("QM dipole", quantum[0], quantum[1].mean(axis=1)))
        elif self._composition.has_quantum:
            missing.append(f"QM dipole: not in the output: ask for {_DIPOLE}")
        if positions is None or positions.dipoles is None:
            return found
        if self._composition.has_quantum and quantum is not None:
            steps, first, second = np.intersect1d(quantum[0], positions.steps, return_indices=True)
            if len(steps):
                found.append(("QM and MM", steps, found[0][2][first] + positions.dipoles[second]))
        found.append(("MM charges", positions.steps, positions.dipoles))
        return found

    def _velocities(self) -> tuple[BeadFrames | None, str]:
        """Velocities for spectra: centroids of all beads, or the only bead."""
        centroids, beads = self._files.frames("v_centroid"), self._files.frames("velocities")
        if beads is not None and not beads.is_complete:
            beads = None
        if centroids is not None and (beads is None or len(centroids) > len(beads)):
            return centroids, "centroid velocities"
        return beads, "velocities" if self._outputs.n_beads == 1 else "centroid velocities"

    def _about_dynamics(self) -> list[str]:
        thermostats = ", ".join(self._outputs.thermostats)
        if not thermostats:
            return []
        remarks = [f"thermostat {thermostats}: one that acts on each particle broadens and shifts lines"]
        if self._outputs.drives_centroids:
            remarks.append(
                "intensities are those of noise with a <C> of its own, not of the classical ensemble that "
                "formulas here take"
            )
        return remarks

    def _marks(self) -> tuple[Mark, ...]:
        if self._options.modes:
            return self._options.modes
        return WATER_MODES if len(self._composition.waters) else ()

    def _row_time(self, steps: IntArray) -> float | None:
        """Atomic units between rows; None where they are not evenly spaced, or too few."""
        gaps = np.diff(steps)
        if self._outputs.time_step is None or not len(gaps) or (gaps != gaps[0]).any():
            return None
        return float(gaps[0] * self._outputs.time_step)

    def _with_notes(self, section: Section, *quantities: str) -> Section:
        frames = [self._files.frames(quantity) for quantity in quantities]
        notes: Sequence[str] = [note for found in frames if found is not None for note in found.notes]
        return replace(section, remarks=(*section.remarks, *notes))
