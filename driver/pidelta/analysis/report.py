"""From the outputs of a run to the sections of its report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pidelta.analysis.composition import Composition
from pidelta.analysis.correlations import Cost, Series, correlation_section
from pidelta.analysis.estimators import (
    KineticEnergies,
    estimator_section,
    kinetic_energies,
    written_centroid_virial,
)
from pidelta.analysis.ipi_output import Properties, read_properties
from pidelta.analysis.run_files import RunFiles
from pidelta.analysis.sections import Curve, Number, Panel, Picture, Report, Section
from pidelta.analysis.statistics import Mean, settled
from pidelta.analysis.summary import fit_drift, time_in_ps
from pidelta.analysis.temperatures import kinetic_temperatures, temperature_section
from pidelta.errors import DataError
from pidelta.ipi.outputs import RunOutputs, SystemOutputs
from pidelta.units import ATOMIC_TIME_IN_FEMTOSECOND, HARTREE_IN_EV, HARTREE_IN_KELVIN

Progress = Callable[[str], None]
"""Told what is being done, before it is done."""


@dataclass(frozen=True)
class ReportOptions:
    """What a user may choose.

    Attributes:
        bonds: pairs of atoms whose lengths are followed, besides those of the QM region with hydrogen.
    """

    bonds: tuple[tuple[int, int], ...] = ()


class SystemReport:
    """The report of one system; each section looks for what it needs, and says what is missing.

    Args:
        run: the simulation.
        outputs: of this system.
        composition: its atoms.
        cost: of the whole run; None where nobody measured it.
        options: of the user.
        progress: told what is being done.
    """

    def __init__(
        self,
        run: RunOutputs,
        outputs: SystemOutputs,
        composition: Composition,
        cost: Cost | None,
        options: ReportOptions,
        progress: Progress,
    ) -> None:
        self._run, self._outputs, self._composition = run, outputs, composition
        self._cost, self._options, self._progress = cost, options, progress
        self._files = RunFiles(outputs, len(composition))

    def make(self) -> Report:
        """Read everything and return the report.

        Raises:
            DataError: nothing has been written yet, or a file is malformed or of another input.
        """
        if not self._properties and not self._has_trajectories():
            raise DataError(f"{self._run.path}: expected outputs of this input, found none yet: run it first")
        name = self._run.prefix or self._run.path.stem
        sections = [self._energies(), self._temperatures(), self._kinetic_energies(), self._correlations()]
        return Report(
            name=f"{name} {self._outputs.name}".strip(),
            folder=self._run.path.resolve().parent.name,
            system=self._outputs.name,
            facts=tuple(self._facts()),
            sections=tuple(section for section in sections if section is not None),
        )

    @cached_property
    def _properties(self) -> list[Properties]:
        found = []
        for file in self._outputs.properties:
            if not file.path.exists():
                continue
            try:
                found.append(read_properties(file.path))
            except DataError as error:
                if "at least one row" not in str(error):
                    raise
        return found

    def _has_trajectories(self) -> bool:
        return any(trajectory.files() for trajectory in self._outputs.trajectories)

    def _best(self, *starts: str) -> Properties | None:
        """The properties file with most of the columns that begin with one of some texts."""

        def count(properties: Properties) -> int:
            return sum(name.startswith(starts) for name in properties.columns)

        best = max(self._properties, key=count, default=None)
        return best if best is not None and count(best) else None

    def _facts(self) -> list[tuple[str, str]]:
        outputs = self._outputs
        facts = [("input", self._run.path.name), ("atoms", f"{len(self._composition)}")]
        facts += [
            (f"atoms of region {name}", f"{len(atoms)}") for name, atoms in self._composition.regions.items()
        ]
        facts.append(("beads", f"{outputs.n_beads}"))
        dynamics = ", ".join(filter(None, (outputs.ensemble, *outputs.thermostats)))
        facts.append(("dynamics", dynamics or "none"))
        if outputs.temperature is not None:
            facts.append(("temperature", f"{outputs.temperature * HARTREE_IN_KELVIN:.4g} K"))
        if outputs.time_step is not None:
            facts.append(("time step", f"{outputs.time_step * ATOMIC_TIME_IN_FEMTOSECOND:.4g} fs"))
        main = self._best("step", "time")
        if main is not None and "step" in main:
            steps = main.columns["step"]
            facts.append(("steps", f"{steps[0]:.0f} to {steps[-1]:.0f}"))
        if self._cost is not None:
            cost = self._cost
            facts.append(("CPU time", f"{cost.cpu_seconds:.0f} s for {cost.steps} steps, i-PI and clients"))
        facts.append(("left out", "the first twentieth of each series"))
        facts.append(("errors", "one standard error, by blocks (Flyvbjerg, Petersen 1989)"))
        return facts

    def _energies(self) -> Section:
        """The conserved quantity and the potential energy."""
        self._progress("energies")
        numbers, panels, remarks = [], [], []
        n_atoms = len(self._composition)
        properties = self._best("conserved")
        time = None if properties is None else time_in_ps(properties)
        if properties is None:
            remarks.append("not in the output: ask for conserved in <properties>")
        elif time is None:
            remarks.append(
                "drift: not in the output: ask for time{picosecond} beside conserved in <properties>"
            )
        elif len(time) > 2:
            conserved = properties.atomic("conserved")
            drift = fit_drift(settled(time), settled(conserved), n_atoms)
            numbers.append(Number("drift of the conserved quantity", drift.slope, "meV/atom/ps", 0.0))
            numbers.append(Number("its fluctuation", Mean(drift.rms, math.nan), "meV/atom"))
            energy = (conserved - conserved[0]) * (1000.0 * HARTREE_IN_EV / n_atoms)
            panels.append(Panel("conserved quantity", "time / ps", "meV/atom", (Curve("", time, energy),)))
        for column, title in (
            ("potential", "potential energy"),
            ("volume", "volume"),
            ("density", "density"),
        ):
            found = self._best(column)
            if found is None or column not in found:
                continue
            numbers.append(_mean_of_column(found, column, title))
            when = time_in_ps(found)
            if when is not None:
                values = found.columns[column]
                panels.append(
                    Panel(title, "time / ps", found.units[column] or "a.u.", (Curve("", when, values),))
                )
        pictures = (Picture("energies", "over time", tuple(panels)),) if panels else ()
        return Section("Energies", tuple(numbers), pictures, tuple(remarks))

    def _temperatures(self) -> Section:
        found = []
        for quantity in ("velocities", "v_centroid"):
            frames = self._files.frames(quantity)
            if frames is None:
                continue
            self._progress(f"temperatures: {len(frames)} snapshots of {frames.n_beads} beads")
            found.append(
                kinetic_temperatures(
                    self._composition,
                    frames,
                    self._outputs.n_beads,
                    fixes_momentum=self._outputs.fixes_momentum,
                    are_centroids=quantity == "v_centroid",
                )
            )
        section = temperature_section(
            self._outputs, self._composition, self._best("temperature"), found, self._outputs.temperature
        )
        return _with_remarks(section, self._notes("velocities", "v_centroid"))

    def _kinetic_energies(self) -> Section | None:
        outputs, found = self._outputs, list[KineticEnergies]()
        temperature = outputs.temperature
        written = self._files.frames("kinetic_cv")
        if written is not None:
            self._progress(f"kinetic energies: {len(written)} snapshots")
            found.append(written_centroid_virial(self._composition, written))
        positions, forces = self._files.frames("positions"), self._files.frames("forces")
        complete = positions is not None and positions.is_complete
        if positions is not None and complete and temperature is not None and outputs.n_beads > 1:
            self._progress(f"kinetic energies: {len(positions)} snapshots of {positions.n_beads} beads")
            usable = forces if forces is not None and forces.is_complete else None
            estimated = kinetic_energies(
                self._composition, positions, usable, temperature, is_bound=self._composition.charges is None
            )
            found += [each for each in estimated if written is None or each.kind != "centroid virial"]
        properties = self._best("kinetic_")
        if not found and properties is None and outputs.n_beads == 1:
            return None
        section = estimator_section(self._composition, properties, found, outputs.n_beads, temperature)
        return _with_remarks(section, self._notes("kinetic_cv", "forces"))

    def _correlations(self) -> Section | None:
        if self._outputs.time_step is None:
            return None
        self._progress("correlation times")
        series, missing = [], []
        properties = self._best("potential")
        if properties is not None and "potential" in properties and "step" in properties:
            steps = properties.columns["step"].astype(np.int64)
            series.append(Series("potential energy", steps, properties.atomic("potential")))
        else:
            missing.append("potential energy: not in the output: ask for step and potential in <properties>")
        dipole = self._files.extras("dipole")
        if dipole is not None:
            series.append(Series("QM dipole", dipole[0], dipole[1].mean(axis=1)))
        else:
            missing.append(
                "dipole: not in the output: ask for <trajectory filename='dipole' stride='4' "
                "extra_type='dipole'> extras </trajectory>"
            )
        step_ps = self._outputs.time_step * ATOMIC_TIME_IN_FEMTOSECOND / 1000.0
        return correlation_section(series, step_ps, self._cost, missing)

    def _notes(self, *quantities: str) -> list[str]:
        frames = [self._files.frames(quantity) for quantity in quantities]
        return [note for found in frames if found is not None for note in found.notes]


def _mean_of_column(properties: Properties, column: str, title: str) -> Number:
    from pidelta.analysis.statistics import mean_with_error

    if column == "potential":
        return Number(title, mean_with_error(settled(properties.atomic(column))).scaled(HARTREE_IN_EV), "eV")
    return Number(
        title, mean_with_error(settled(properties.columns[column])), properties.units[column] or "a.u."
    )


def _with_remarks(section: Section, remarks: Sequence[str]) -> Section:
    return Section(section.title, section.numbers, section.pictures, (*section.remarks, *remarks))
