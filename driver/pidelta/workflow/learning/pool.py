"""The frames that a round can pick from: what its sources give."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from ase.data import atomic_masses

from pidelta.data.frames import Frame
from pidelta.errors import RunError
from pidelta.ipi.dynamics_input import PREFIX, Dynamics, write_structure
from pidelta.ipi.trajectories import Snapshot, read_trajectory
from pidelta.output_files import replacing
from pidelta.qmmm.region import QMRegion
from pidelta.state import Evaluator, FloatArray, System
from pidelta.units import DALTON_IN_ELECTRON_MASS, FEMTOSECOND
from pidelta.workflow.conservation import Run, check_folder, remember_options
from pidelta.workflow.learning.bias import Bias, DistanceBias, Restraint, distances_of, write_bias
from pidelta.workflow.learning.draws import PrincipalComponents, Surface, normal_modes, superpose
from pidelta.workflow.learning.records import committee_digest, source_options
from pidelta.workflow.learning.rounds import Round
from pidelta.workflow.learning.settings import (
    BiasedSource,
    ComponentsSource,
    DynamicsSource,
    LearningFile,
    UmbrellaSource,
    WignerSource,
)
from pidelta.workflow.sampling import cut_frame

_THERMOSTAT = 50.0 * FEMTOSECOND
_MOST_CENTRES = 500
_START = "start.xyz"
_FAILED = "failed.txt"


@dataclass(frozen=True)
class Subject:
    """What the models are made for.

    Attributes:
        system: atoms, first positions and cell.
        region: the QM region and the rule for its surroundings.
        terms: of the energy, but for the correction.
        origin: of the set-up, see `FrameStore.provenance`.
        configuration: a checksum of the set-up, for what a run is made by.
        reference, low: methods of the labels.
    """

    system: System
    region: QMRegion
    terms: tuple[str, ...]
    origin: Mapping[str, str]
    configuration: str
    reference: str
    low: str

    def frame(self, snapshot: Snapshot, source: str) -> Frame:
        """The QM region of a snapshot in the charges around it."""
        return cut_frame(snapshot, self.region, self.system.cell is not None, source)

    def cells(self, snapshot: Snapshot) -> FloatArray | None:
        """(1, 3, 3), or None where cells mean nothing."""
        return None if self.system.cell is None else snapshot.cell[None]


class Tasks(Protocol):
    """The work that a round hands out; each can be done again, and goes on where it was stopped."""

    def dynamics(self, run: Run, committee: Path | None, bias: Path | None) -> None:
        """Run i-PI to its end; a `RunError` says why it failed."""

    def evaluator(self, committee: Path | None) -> Evaluator:
        """The energy that the dynamics have."""

    def label(self, frames: Path) -> None:
        """Give each frame of a file both labels, as far as that succeeds."""

    def train(self, frames: Sequence[Path], folder: Path, reference: str, low: str) -> list[Path]:
        """Train a committee on labels by two methods, if that is not done; its files in the folder."""

    def note(self, text: str) -> None:
        """Tell the user."""


@dataclass
class Sampler:
    """Runs and reads the sources of one round.

    Attributes:
        subject: what is sampled.
        settings: of the loop.
        round: the round.
        tasks: who does the work.
        notes: what went wrong.
    """

    subject: Subject
    settings: LearningFile
    round: Round
    tasks: Tasks
    notes: list[str]

    @property
    def _committee(self) -> Path | None:
        """The section delta that the sampling uses: that of the round before."""
        return None if self.round.before is None else self.round.before.committee

    def candidates(self) -> dict[str, list[Frame]]:
        """Frames by source, dynamics first; the same whenever they are asked for."""
        snapshots: list[tuple[str, Snapshot]] = []
        frames: dict[str, list[Frame]] = {}
        sources = sorted(enumerate(self.settings.sample, start=1), key=lambda each: _order(each[1]))
        for place, source in sources:
            name = f"{place}-{source.method}"
            if isinstance(source, DynamicsSource):
                own = self._dynamics(name, source, place, snapshots)
                snapshots += own
                frames[name] = [self.subject.frame(snapshot, origin) for origin, snapshot in own]
            else:
                rng = np.random.default_rng([self.settings.seed, self.round.number, place])
                geometries = [self._own_atoms(frame) for own in frames.values() for frame in own]
                frames[name] = self._draws(name, source, snapshots, np.stack(geometries), rng)
        return {name: frames[name] for name in sorted(frames)}

    def test_candidates(self) -> list[Frame]:
        """Frames of dynamics of their own."""
        self.run("test", self.settings.test.dynamics, (0,))
        found = self.snapshots("test", self.settings.test.dynamics)
        return [self.subject.frame(snapshot, origin) for origin, snapshot in found]

    def _dynamics(
        self, name: str, source: DynamicsSource, place: int, seen: Sequence[tuple[str, Snapshot]]
    ) -> list[tuple[str, Snapshot]]:
        """The snapshots of a source, which is run unless that is done."""
        if isinstance(source, UmbrellaSource):
            windows = [f"{name}/{number:02d}" for number in range(len(source.centres))]
            for number, window in enumerate(windows):
                spring = partial(_spring, source, number)
                self.run(window, source, (place, number), spring, windows[:number], number)
            return [snapshot for window in windows for snapshot in self.snapshots(window, source)]
        if isinstance(source, BiasedSource):
            self.run(name, source, (place,), partial(self._push, name, source, seen))
        else:
            self.run(name, source, (place,))
        return self.snapshots(name, source)

    def run(
        self,
        name: str,
        source: DynamicsSource,
        places: tuple[int, ...],
        make_bias: Callable[[], Bias] | None = None,
        others: Sequence[str] = (),
        window: int | None = None,
    ) -> None:
        """Run i-PI unless that is done.

        Args:
            name: of the run, its folder in that of the round.
            source: what runs.
            places: what its seed is made of, beside the round.
            make_bias: makes the bias of the run.
            others: runs of this round; where the last of them that went well ended this one begins, if it
                did not run in the round before.
            window: the place of its centre, for one of an umbrella source.

        Raises:
            SetupError: it began with other settings.
            RunError: it failed before it had sampled anything.
        """
        folder = self.round.folder / name
        failed = folder / _FAILED
        terms = (*self.subject.terms, *(("delta",) if self._committee else ()))
        dynamics = Dynamics(
            terms,
            source.time_step,
            source.steps,
            source.temperature,
            _THERMOSTAT,
            seed=_seed(self.settings.seed, self.round.number, *places),
            beads=source.beads,
            snapshots=source.stride,
        )
        run = Run(folder, dynamics, self._start(name, others))
        has_begun = failed.exists() or run.steps_done > 0
        self._compare(run, has_begun, source_options(source, window))
        if failed.exists():
            self.notes.append(failed.read_text(encoding="utf-8").strip())
            return
        if run.is_finished:
            return
        bias = None if make_bias is None else _bias(folder, has_begun, make_bias)
        try:
            self.tasks.dynamics(run, self._committee, bias)
        except RunError as error:
            if not self.snapshots(name, source):
                raise
            text = f"{run.name} ended early, what it sampled before counts: {error}"
            with replacing(failed) as stream:
                stream.write(text + "\n")
            self.notes.append(text)
            self.tasks.note(text)

    def _compare(self, run: Run, has_begun: bool, options: Mapping[str, str | int]) -> None:
        """Write down what a new run is made by; one that has begun goes on by the same alone."""
        options = {
            **options,
            "seed": self.settings.seed,
            "configuration": self.subject.configuration,
            "models": committee_digest(self.round.before),
        }
        if not has_begun:
            run.folder.mkdir(parents=True, exist_ok=True)
            remember_options(run.folder, options)
        elif not check_folder(run.folder, options, "remove this folder to run it anew"):
            text = f"{run.name} does not say by which settings it was made, and is taken as it is"
            self.notes.append(text)
            self.tasks.note(f"note: {text}")

    def _start(self, name: str, others: Sequence[str]) -> Path:
        """The end of this run in the round before, or of another in this one, or the structure."""
        folders = [] if self.round.before is None else [self.round.before.folder / name]
        folders += [self.round.folder / other for other in reversed(others)]
        for folder in folders:
            if (folder / "RESTART").exists() and not (folder / _FAILED).exists():
                return folder / "RESTART"
        path = self.round.root / _START
        write_structure(path, self.subject.system)
        return path

    def _push(self, name: str, source: BiasedSource, seen: Sequence[tuple[str, Snapshot]]) -> DistanceBias:
        """What pushes away from distances that this round has seen, and this source in earlier rounds."""
        earlier = [] if self.round.before is None else self.round.before.and_before()
        snapshots = [snapshot for _, snapshot in seen]
        for other in earlier:
            files = sorted((other.folder / name).glob(f"{PREFIX}.pos_*.xyz"))
            snapshots += [snapshot for file in files for snapshot in read_trajectory(file)]
        pairs = np.array(source.distances, dtype=np.int64)
        centres = np.concatenate(
            [distances_of(each.positions[None], self.subject.cells(each), pairs) for each in snapshots]
        )
        centres = centres[evenly(len(centres), _MOST_CENTRES)]
        return DistanceBias(pairs, centres, source.width, source.temperature, source.barrier)

    def snapshots(self, name: str, source: DynamicsSource) -> list[tuple[str, Snapshot]]:
        """What a run has written beyond `skip`, all beads, with where it comes from."""
        folder = self.round.folder / name
        first = max(1, round(source.skip / source.time_step))
        return [
            (f"{self.round.folder.name}/{name}/{file.name} step {snapshot.step}", snapshot)
            for file in sorted(folder.glob(f"{PREFIX}.pos_*.xyz"))
            for snapshot in (read_trajectory(file) if file.stat().st_size else ())
            if snapshot.step >= first
        ]

    def _own_atoms(self, frame: Frame) -> FloatArray:
        """(n, 3) of the QM atoms, without link hydrogens."""
        return frame.positions[: len(self.subject.region.partition.qm_atoms)]

    def _draws(
        self,
        name: str,
        source: WignerSource | ComponentsSource,
        snapshots: Sequence[tuple[str, Snapshot]],
        geometries: FloatArray,
        rng: np.random.Generator,
    ) -> list[Frame]:
        """QM atoms moved in the solvent of some snapshots, as many in each."""
        atoms = self.subject.region.partition.qm_atoms
        chosen = [snapshots[place][1] for place in evenly(len(snapshots), source.solvents)]
        frames: list[Frame] = []
        for place, snapshot in enumerate(chosen):
            count = source.draws * (place + 1) // len(chosen) - source.draws * place // len(chosen)
            origin = self._own_atoms(self.subject.frame(snapshot, name))
            if isinstance(source, WignerSource):
                masses = atomic_masses[self.subject.system.numbers[atoms]] * DALTON_IN_ELECTRON_MASS
                modes = normal_modes(self._surface(snapshot), origin, masses)
                drawn = modes.wigner(source.temperature, count, rng)
            else:
                components = PrincipalComponents.of(geometries)
                drawn = components.draw(count, source.scale, rng)
                drawn = np.array([superpose(geometry, origin) for geometry in drawn])
            for geometry in drawn:
                positions = snapshot.positions.copy()
                positions[atoms] = geometry
                moved = Snapshot(snapshot.step, snapshot.numbers, positions, snapshot.cell)
                where = f"{self.round.folder.name}/{name} step {len(frames)}"
                frames.append(self.subject.frame(moved, where))
        return frames

    def _surface(self, snapshot: Snapshot) -> Surface:
        """The energy as a function of the QM atoms, in the solvent of a snapshot."""
        atoms = self.subject.region.partition.qm_atoms
        evaluator, cells = self.tasks.evaluator(self._committee), self.subject.cells(snapshot)

        def evaluate(geometries: FloatArray) -> tuple[FloatArray, FloatArray]:
            energies, gradients = np.empty(len(geometries)), np.empty(geometries.shape)
            for place, geometry in enumerate(geometries):
                positions = snapshot.positions[None].copy()
                positions[0, atoms] = geometry
                evaluation = evaluator.evaluate(positions, cells)
                energies[place] = evaluation.energy[0]
                gradients[place] = evaluation.gradient[0, atoms]
            return energies, gradients

        return evaluate


def _order(source: object) -> int:
    """Dynamics first, then those that are pushed away from all of them, then draws in their solvents."""
    return 2 if not isinstance(source, DynamicsSource) else 1 if isinstance(source, BiasedSource) else 0


def _bias(folder: Path, has_begun: bool, make_bias: Callable[[], Bias]) -> Path:
    """The file of a run's bias, which stays as it is once the run has begun."""
    path = folder / "bias.json"
    if not (has_begun and path.exists()):
        write_bias(path, make_bias())
    return path


def _spring(source: UmbrellaSource, window: int) -> Restraint:
    """The bias of a window."""
    pairs = np.array(source.distances, dtype=np.int64)
    return Restraint(pairs, np.array(source.factors), source.centres[window], source.stiffness)


def evenly(count: int, wanted: int) -> list[int]:
    """So many of `count` places, at most all, evenly spaced."""
    places = np.linspace(0, count - 1, min(count, wanted)).round()
    return [int(place) for place in np.unique(places)]


def _seed(*parts: int) -> int:
    """A seed for i-PI of its own for each run."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") % 2**31
