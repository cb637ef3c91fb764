"""Runs at constant energy, each from a warm start: what is to be run in which folder, and how far it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pidelta.errors import SetupError
from pidelta.ipi.dynamics_input import CHECKPOINT, PROPERTIES, Dynamics, write_input, write_structure
from pidelta.ipi.saved_states import step_in_restart
from pidelta.output_files import replacing
from pidelta.state import System
from pidelta.units import ATOMIC_TIME_IN_FEMTOSECOND, FEMTOSECOND

_EQUILIBRATION_STEP = 0.5 * FEMTOSECOND
_THERMOSTAT = 100.0 * FEMTOSECOND
_EQUILIBRATION = "equilibration"
_OPTIONS, _INPUT, _STRUCTURE = "options.json", "input.xml", "start.xyz"


@dataclass(frozen=True)
class Conditions:
    """What the runs of a report share, in atomic units.

    Attributes:
        duration: of each run at constant energy.
        equilibration: of the Langevin dynamics before it, with the same terms; 0 for none.
        temperature: as k_B T, of the equilibration and of initial velocities.
        seed: of random numbers.
    """

    duration: float
    equilibration: float
    temperature: float
    seed: int


@dataclass(frozen=True)
class Run:
    """One run of i-PI in a folder of its own.

    Attributes:
        folder: where it runs.
        dynamics: what it does.
        start: the structure, or the RESTART of the run before it.
    """

    folder: Path
    dynamics: Dynamics
    start: Path

    @property
    def name(self) -> str:
        """Terms, and time step or equilibration, as in the folder's name."""
        return f"{self.folder.parent.name} {self.folder.name}"

    @property
    def is_equilibration(self) -> bool:
        """Whether it only makes the start of others."""
        return self.dynamics.thermostat is not None

    @property
    def properties(self) -> Path:
        """The file of conserved quantity and temperature."""
        return self.folder / PROPERTIES

    @property
    def steps_done(self) -> int:
        """The step of the newest state that was saved."""
        return 0 if (state := self._newest_state()) is None else state[0]

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to run."""
        return self.steps_done >= self.dynamics.steps

    def picoseconds(self, steps: int) -> float:
        """The time of so many steps in ps."""
        return steps * self.dynamics.time_step * ATOMIC_TIME_IN_FEMTOSECOND / 1000.0

    def next_input(self) -> Path:
        """The i-PI input to go on with: the newest saved state, or an input that is written now."""
        state = self._newest_state()
        if state is not None and state[0] > 0:
            return state[1]
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / _INPUT
        write_input(path, self.dynamics, self.start.resolve(), _address(self.folder))
        return path

    def _newest_state(self) -> tuple[int, Path] | None:
        paths = [self.folder / CHECKPOINT, self.folder / "RESTART"]
        found = [(step, path) for path in paths if (step := step_in_restart(path)) is not None]
        return max(found, key=lambda state: state[0], default=None)


def plan_runs(
    folder: Path, conditions: Conditions, combinations: Sequence[Sequence[str]], time_steps: Sequence[float]
) -> list[Run]:
    """The runs in their order: of each combination of terms the equilibration, then one a time step."""
    runs: list[Run] = []
    for terms in combinations:
        parent, start = folder / "+".join(terms), folder / _STRUCTURE
        if conditions.equilibration:
            duration = conditions.equilibration
            dynamics = _dynamics(terms, _EQUILIBRATION_STEP, duration, conditions, _THERMOSTAT)
            runs.append(Run(parent / _EQUILIBRATION, dynamics, start))
            start = runs[-1].folder / "RESTART"
        for time_step in time_steps:
            dynamics = _dynamics(terms, time_step, conditions.duration, conditions)
            name = f"{time_step * ATOMIC_TIME_IN_FEMTOSECOND:.6g}fs"
            runs.append(Run(parent / name, dynamics, start))
    return runs


def _dynamics(
    terms: Sequence[str],
    time_step: float,
    duration: float,
    conditions: Conditions,
    thermostat: float | None = None,
) -> Dynamics:
    steps = max(1, round(duration / time_step))
    return Dynamics(terms, time_step, steps, conditions.temperature, thermostat, conditions.seed)


def claim_folder(folder: Path, options: Mapping[str, str | int], system: System) -> None:
    """Make a new folder the one of a report, with the structure to start from.

    Args:
        folder: as `check_folder` leaves it.
        options: what must be the same for all of its runs, by name.
        system: the structure.
    """
    if (folder / _OPTIONS).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_structure(folder / _STRUCTURE, system)
    remember_options(folder, options)


def remember_options(folder: Path, options: Mapping[str, str | int]) -> None:
    """Write down what must be the same whenever work in a folder goes on; `check_folder` compares."""
    with replacing(folder / _OPTIONS) as stream:
        stream.write(json.dumps(dict(options), indent=1) + "\n")


def check_folder(
    folder: Path, options: Mapping[str, str | int], remedy: str = "choose another --output"
) -> bool:
    """See whether a folder is new or has runs with the same options, which are taken over.

    Args:
        folder: of the runs.
        options: what must be the same for them, by name.
        remedy: what to do where it is not.

    Returns:
        Whether there were options to compare with.

    Raises:
        SetupError: runs with other options are there.
    """
    path = folder / _OPTIONS
    if not path.exists():
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SetupError(f"{path}: expected the options of earlier runs, found something else")
    for name, value in options.items():
        if found.get(name) != value:
            raise SetupError(
                f"{folder}: expected runs with {name} {value}, found those with {found.get(name)}; {remedy}"
            )
    return True


def _address(folder: Path) -> str:
    """A unix socket of its own for each folder."""
    return f"pidelta-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}"
