"""The steps of `pidelta prepare`, each of which takes over what an earlier call has left."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from pidelta.cli.messages import show_note, show_warning
from pidelta.errors import RunError, SetupError
from pidelta.output_files import replacing
from pidelta.units import ANGSTROM, FEMTOSECOND, KCAL_PER_MOL, NANOMETER

if TYPE_CHECKING:
    from pidelta.setup import Setup
    from pidelta.state import FloatArray
    from pidelta.workflow.preparing.components import Component, ForceField, Request, Species
    from pidelta.workflow.preparing.layout import Layout

_WORK = "preparation"
"""Folder for what is made on the way."""
_TOPOLOGY, _RESTART, _PDB, _CONFIG, _PICTURE = (
    "system.prmtop", "system.rst7", "init.pdb", "pidelta.yaml", "system.png",
)  # fmt: skip
_TIME_STEP, _THERMOSTAT = 0.5 * FEMTOSECOND, 100.0 * FEMTOSECOND
_RELAXATION_STEPS = 300
_GENTLE = 20.0 * KCAL_PER_MOL / ANGSTROM
_THERMAL = 0.15
"""hartree/bohr, as forces in stiff bonds are at 300 K."""
_FORCE_FIELD_CUTOFF = 1.0 * NANOMETER
_FEW_MISSING = 0.01
_CLOSEST = 1.0 * ANGSTROM
_SWITCH = 0.2 * NANOMETER
_NOT_IN_A_PRMTOP = ("q-tip4p-f",)


@dataclass(frozen=True)
class Settings:
    """What a preparation is to do, in atomic units.

    Attributes:
        water: a key of WATER_MODELS.
        cutoff: of the embedding.
        margin: between molecules and faces of the box.
        temperature: as k_B T.
        equilibration: its length; 0 for none.
        force_field: auto, gaff2 or generic.
        multiplicity: of the QM region, or None for 1.
        ambertools: where AmberTools is, or None.
        seed: of random numbers.
    """

    water: str
    cutoff: float
    margin: float
    temperature: float
    equilibration: float
    force_field: ForceField
    multiplicity: int | None
    ambertools: Path | None
    seed: int


@dataclass(frozen=True)
class Stage:
    """A part of the equilibration.

    Attributes:
        name: of its files.
        quantum: whether there is a QM region.
        share: of the time.
        gentle: forces in hartree/bohr that are not relaxed.
    """

    name: str
    quantum: bool
    share: float
    gentle: float


def _stages(layout: Layout) -> list[Stage]:
    """The force field first, where it holds all molecules: water comes to charges before bonds may break.

    In the vacuum of a box that was just packed a proton may leave a zwitterion for good.
    """
    if not layout.qm_residues:
        return [Stage("force-field", False, 1.0, _GENTLE)]
    if not layout.is_bonded:
        return [Stage("dftb", True, 1.0, _GENTLE)]
    return [Stage("force-field", False, 0.9, _GENTLE), Stage("dftb", True, 0.1, _THERMAL)]


class Preparation:
    """A folder under way.

    Args:
        console: where progress is shown.
        folder: what is made.
        settings: how.
    """

    def __init__(self, console: Console, folder: Path, settings: Settings) -> None:
        self._console = console
        self._folder = folder
        self._work = folder / _WORK
        self._settings = settings

    def run(self, requests: Sequence[Request], options: Mapping[str, str | int]) -> None:
        """Do what is left to do.

        Args:
            requests: the molecules.
            options: what must be the same when the work goes on.

        Raises:
            SetupError: the folder holds something else, or a molecule cannot be prepared.
            RunError: the relaxation or the equilibration failed.
        """
        # Before the folder is claimed: the command with the mistake mended may use the same.
        species, multiplicity = self._read(requests)
        self._claim(options)
        components = self._components(species)
        layout = self._lay_out(components)
        positions = layout.box.positions
        for stage in _stages(layout):
            setup = self._setup(stage, layout, multiplicity)
            positions = self._relaxed(stage, setup, positions)
            if self._settings.equilibration:
                positions = self._equilibrated(stage, setup, positions)
        self._finish(layout, multiplicity, positions)

    def _claim(self, options: Mapping[str, str | int]) -> None:
        from pidelta.workflow.conservation import check_folder, remember_options

        if self._folder.is_dir() and not self._work.is_dir():
            others = sorted(path.name for path in self._folder.iterdir())
            if others:
                raise SetupError(
                    f"{self._folder}: expected a new or an empty folder for --output, found {others[0]} in it"
                )
        self._work.mkdir(parents=True, exist_ok=True)
        if len(list(self._work.iterdir())) > 1:  # more than the options of a call that failed at once
            check_folder(self._work, options)
        remember_options(self._work, options)

    def _read(self, requests: Sequence[Request]) -> tuple[list[Species], int]:
        """The molecules and the multiplicity of the QM region."""
        from pidelta.workflow.preparing.components import check_quantum, read_species

        settings = self._settings
        open_shell = (settings.multiplicity or 1) > 1
        species = [read_species(request, settings.seed, open_shell=open_shell) for request in requests]
        return species, check_quantum(species, settings.multiplicity)

    def _components(self, species: Sequence[Species]) -> list[Component]:
        from pidelta.workflow.preparing.amber import find_amber_tools
        from pidelta.workflow.preparing.components import make_component

        settings = self._settings
        tools = find_amber_tools(settings.ambertools)
        components = []
        for kind in species:
            component = make_component(
                kind, settings.water, settings.force_field, tools, self._work, self._say
            )
            request = kind.request
            role = "quantum mechanical" if request.quantum else "classical"
            self._say(f"{request.count} {request.name}: {component.description}; {role}")
            for note in component.notes:
                show_note(self._console, note)
            components.append(component)
        return components

    def _lay_out(self, components: Sequence[Component]) -> Layout:
        from pidelta.workflow.preparing.layout import lay_out

        settings = self._settings
        layout = lay_out(components, settings.water, settings.margin, settings.cutoff, settings.seed)
        if not (self._work / _RESTART).is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            layout.write(self._folder / _TOPOLOGY, self._work / _RESTART)
        self._say(layout.describe())
        if layout.box.missing > _FEW_MISSING * len(layout.box.waters):
            self._warn(f"the box has {layout.box.missing} waters less than its density asks for")
        return layout

    def _setup(self, stage: Stage, layout: Layout, multiplicity: int) -> Setup:
        """What a stage evaluates; the structure is the box as it was packed."""
        from pidelta.config import load_config
        from pidelta.setup import Setup

        path = self._work / f"{stage.name}.yaml"
        self._write_config(path, layout, multiplicity, f"../{_TOPOLOGY}", quantum=stage.quantum)
        setup = Setup(load_config(path))
        for warning in setup.warnings():
            self._warn(warning)
        return setup

    def _relaxed(self, stage: Stage, setup: Setup, positions: FloatArray) -> FloatArray:
        """Positions (N, 3) in bohr without strain."""
        from pidelta.workflow.preparing.relaxation import relax

        path = self._work / f"{stage.name}.npy"
        if path.is_file():
            return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
        cell = setup.system.cell
        assert cell is not None
        with Progress(console=self._console) as progress:
            task = progress.add_task("relaxing", total=_RELAXATION_STEPS)

            def show(step: int, force: float) -> None:
                largest = f"{stage.name}: relaxing, largest force {force:.3f} hartree/bohr"
                progress.update(task, completed=step, description=largest)

            relaxed = relax(setup.evaluator(), positions, cell, _RELAXATION_STEPS, stage.gentle, show)
            progress.update(task, completed=_RELAXATION_STEPS)
        with replacing(path, "wb") as stream:
            np.save(stream, relaxed, allow_pickle=False)
        return relaxed

    def _equilibrated(self, stage: Stage, setup: Setup, relaxed: FloatArray) -> FloatArray:
        """Positions (N, 3) in bohr after Langevin dynamics by i-PI."""
        from pidelta.cli.conservation import run_all
        from pidelta.cli.supervision import signals_as_interrupts
        from pidelta.ipi.dynamics_input import Dynamics, write_structure
        from pidelta.ipi.saved_states import positions_in_restart
        from pidelta.run_record import RECORD, recorded_values, write_record
        from pidelta.workflow.conservation import Run

        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # as in `pidelta run`
        settings, start = self._settings, self._work / f"{stage.name}.xyz"
        write_structure(start, replace(setup.system, positions=relaxed))
        steps = max(1, round(stage.share * settings.equilibration / _TIME_STEP))
        dynamics = Dynamics(
            setup.config.terms, _TIME_STEP, steps, settings.temperature, _THERMOSTAT, settings.seed
        )
        run = Run(self._work / stage.name, dynamics, start)
        write_record(record := self._work / RECORD, recorded_values(setup.config))
        command = [sys.executable, "-m", "pidelta", "client", str(setup.config.path)]
        with signals_as_interrupts():
            run_all(self._console, [run], command, record)
        return np.asarray(positions_in_restart(run.folder / "RESTART")[0])

    def _finish(self, layout: Layout, multiplicity: int, positions: FloatArray) -> None:
        """Write what runs, and a picture of it."""
        from pidelta.analysis.snapshot import draw_snapshot
        from pidelta.config import load_config
        from pidelta.setup import Setup
        from pidelta.workflow.preparing.ipi_inputs import write_inputs, write_pdb
        from pidelta.workflow.preparing.packing import closest_contact, wrapped
        from pidelta.workflow.preparing.topologies import write_restart

        folder, settings = self._folder, self._settings
        positions = wrapped(layout.box, positions)
        closest = closest_contact(positions, layout.molecule_of_atom, layout.box.edge)
        if closest < _CLOSEST:
            raise RunError(
                f"{self._work}: expected molecules more than {_CLOSEST / ANGSTROM:.1f} angstrom apart, found "
                f"{closest / ANGSTROM:.2f} after the equilibration"
            )
        for change in layout.changed_bonds(positions):
            self._warn(change)
        write_restart(folder / _RESTART, positions, layout.box.edge)
        self._write_config(folder / _CONFIG, layout, multiplicity, _TOPOLOGY, quantum=True)
        setup = Setup(load_config(folder / _CONFIG))
        system, topology = setup.system, setup.topology
        assert topology is not None
        write_pdb(folder / _PDB, system)
        kinds = write_inputs(folder, _PDB, setup.config.terms, settings.temperature, settings.seed)
        molecules = np.arange(len(layout.box.molecules))
        draw_snapshot(folder / _PICTURE, system, molecules, topology.bonded_pairs)
        self._say(f"shortest distance between molecules {closest / ANGSTROM:.2f} angstrom")
        self._say(f"{folder}: ready")
        self._say(f"  pidelta check {folder / _CONFIG}")
        for kind in kinds:
            self._say(f"  pidelta run {folder / kind}.xml")

    def _write_config(
        self, path: Path, layout: Layout, multiplicity: int, topology: str, *, quantum: bool
    ) -> None:
        from pidelta.setup.new_config import NewConfig, write_config

        settings = self._settings
        comment = ["Made by `pidelta prepare`:"]
        for part in layout.components:
            role = "quantum mechanical" if part.request.quantum else "classical"
            comment.append(f"{part.request.count} {part.request.name}: {part.description}; {role}")
        comment.append(f"{layout.describe()}, {settings.water}")
        new = NewConfig(
            comment=comment,
            structure=_RESTART,
            topology=topology,
            residues=layout.qm_residues if quantum else (),
            charge=layout.qm_charge,
            multiplicity=multiplicity,
            water=settings.water if settings.water in _NOT_IN_A_PRMTOP else None,
            force_field_cutoff=min(_FORCE_FIELD_CUTOFF, settings.cutoff),
            embedding_cutoff=settings.cutoff,
            switch=_SWITCH,
        )
        write_config(path, new)

    def _warn(self, text: str) -> None:
        show_warning(self._console, text)

    def _say(self, text: str) -> None:
        self._console.print(escape(text))
