"""The trajectories of one system: all beads of one step together, as far as they were written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np

from pidelta.analysis.written import left_out
from pidelta.errors import DataError
from pidelta.ipi.frames import FrameFile, read_extras
from pidelta.ipi.outputs import SystemOutputs
from pidelta.ipi.simulation import TrajectoryFiles
from pidelta.state import FloatArray, IntArray

_OF_RING_POLYMERS = ("x_centroid", "v_centroid", "kinetic_cv", "r_gyration")


@dataclass(frozen=True)
class BeadsSnapshot:
    """All beads at one step.

    Attributes:
        step: of the simulation.
        values: (B, M, 3) in atomic units.
        cell: (3, 3) rows in bohr.
    """

    step: int
    values: FloatArray
    cell: FloatArray


class BeadFrames:
    """A quantity of all beads that were written, at the steps that are in all files.

    Attributes:
        files: one for each bead.
        steps: (n,) of the simulation.
        is_complete: whether all beads of the ring polymers are there.
        notes: what is unusual, a line each.
    """

    def __init__(self, files: list[FrameFile], is_complete: bool) -> None:
        self.files = files
        self.is_complete = is_complete
        self.steps: IntArray = reduce(np.intersect1d, [file.steps for file in files])
        self._rows = [np.searchsorted(file.steps, self.steps) for file in files]
        self.notes = [
            f"{file.path.name}: the last snapshot is cut off and left out"
            for file in files
            if file.is_cut_off
        ]
        for note in dict.fromkeys(note for file in files for note in file.notes):
            first, *others = [file.path.name for file in files if note in file.notes]
            self.notes.append(f"{first}{f' and {len(others)} more' if others else ''}: {note}")

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def n_beads(self) -> int:
        """How many beads were written."""
        return len(self.files)

    def read(self, index: int, bead: int, atoms: IntArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Values (M, 3) of one bead at ``steps[index]``, and the cell, in atomic units."""
        return self.files[bead].read(int(self._rows[bead][index]), atoms)

    def snapshot(self, index: int, atoms: IntArray | None = None) -> BeadsSnapshot:
        """All beads at ``steps[index]``."""
        found = [self.read(index, bead, atoms) for bead in range(self.n_beads)]
        return BeadsSnapshot(int(self.steps[index]), np.array([values for values, _ in found]), found[0][1])

    def stream(self, atoms: IntArray | None = None) -> Iterator[BeadsSnapshot]:
        """All snapshots, one after the other."""
        return (self.snapshot(index, atoms) for index in range(len(self)))


class RunFiles:
    """The trajectories of a system, each opened when it is first asked for.

    Args:
        outputs: what the input asks for.
        n_atoms: expected in each trajectory; None before it is known.

    Attributes:
        warnings: on snapshots that some beads lack, a line each.
        ends: last step and stride of each trajectory that was read, by the beginning of its name.
    """

    def __init__(self, outputs: SystemOutputs, n_atoms: int | None = None) -> None:
        self.outputs = outputs
        self._n_atoms = n_atoms
        self._found: dict[str, BeadFrames | None] = {}
        self.warnings: list[str] = []
        self.ends: dict[str, tuple[int, int]] = {}

    def frames(self, quantity: str) -> BeadFrames | None:
        """The frames of a quantity; None where the input does not ask for it or nothing is written yet.

        Raises:
            DataError: a file is malformed or of other atoms, the number of files is another than that of the
                beads, or they have no step in common.
        """
        if quantity not in self._found:
            self._found[quantity] = self._open(quantity)
        return self._found[quantity]

    def names(self) -> tuple[str, ...]:
        """The names of the atoms, from any trajectory; empty without one."""
        for trajectory in self.outputs.trajectories:
            if trajectory.quantity != "extras" and (found := self.frames(trajectory.quantity)) is not None:
                return found.files[0].names
        return ()

    def extras(self, name: str) -> tuple[IntArray, FloatArray] | None:
        """One of the extras: steps (n,) and values (n, B, k) in atomic units; None where it is not written.

        Only outputs of this one alone are read: of several in one file, i-PI does not say which is how long.
        """
        found = [t for t in self.outputs.trajectories if t.quantity == "extras" and t.extras == (name,)]
        files = self._files(found[0]) if found else []
        if not files:
            return None
        if len(files) != self.outputs.n_beads:
            there = f"{len(files)} of {self.outputs.n_beads} beads"
            self.warnings.append(f"{name}: {there} are there: what follows from it is not of the mean of all")
        beads = [read_extras(path) for path in files]
        steps: IntArray = reduce(np.intersect1d, [steps for steps, _ in beads])
        written = {path.name: each for path, (each, _) in zip(files, beads, strict=True)}
        self._note(found[0], name, written, steps)
        return steps, np.stack([values[np.searchsorted(s, steps)] for s, values in beads], axis=1)

    def _open(self, quantity: str) -> BeadFrames | None:
        trajectory = self.outputs.trajectory(quantity)
        paths = [path for path in self._files(trajectory) if path.stat().st_size] if trajectory else []
        if trajectory is None or not paths:
            return None
        n_beads = 1 if quantity in _OF_RING_POLYMERS else self.outputs.n_beads
        try:
            frames = BeadFrames([FrameFile(path, quantity) for path in paths], len(paths) == n_beads)
        except DataError as error:
            if "at least one whole snapshot" in str(error):
                return None
            raise
        counts = {len(file.names) for file in frames.files}
        expected = self._n_atoms or len(frames.files[0].names)
        if counts != {expected}:
            raise DataError(f"{trajectory.stem}: expected {expected} atoms, found {sorted(counts)}")
        if not len(frames):
            raise DataError(f"{trajectory.stem}: expected steps that all beads have, found none")
        written = {file.path.name: file.steps for file in frames.files}
        self._note(trajectory, quantity, written, frames.steps)
        return frames

    def _files(self, trajectory: TrajectoryFiles) -> list[Path]:
        """The files of a trajectory that are there, in the order of beads.

        Raises:
            DataError: there are those of other beads, as an earlier run in the folder leaves them.
        """
        n_beads = self.outputs.n_beads
        files = {path.name: path for path in trajectory.files()}
        own = {name for each in self.outputs.trajectories for name in each.names(n_beads)}
        if others := [name for name, path in files.items() if name not in own and path.stat().st_size]:
            wanted = f"{n_beads} beads" if n_beads > 1 else "one bead"
            beads = wanted if trajectory.bead < 0 else f"bead {trajectory.bead}"
            raise DataError(
                f"{trajectory.stem}: expected {trajectory.quantity} of {beads} as in the input, found "
                f"{len(files)} files: are there some of another input, such as {others[0]}? Move them away"
            )
        return [files[name] for name in trajectory.names(n_beads) if name in files]

    def _note(
        self, trajectory: TrajectoryFiles, what: str, written: dict[str, IntArray], common: IntArray
    ) -> None:
        self.warnings += left_out(what, written, common)
        self.ends[trajectory.stem.name] = max(int(s[-1]) for s in written.values()), trajectory.stride
