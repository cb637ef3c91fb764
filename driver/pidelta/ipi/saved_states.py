"""The states that i-PI saves in the folder of an input, RESTART and checkpoints, and the newest of them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pidelta.errors import SetupError
from pidelta.ipi.edits import check_unchanged
from pidelta.ipi.simulation import Simulation, read_simulation
from pidelta.ipi.xml_input import items_of, prefix_of, read_xml, to_integer, to_number
from pidelta.output_files import replacing
from pidelta.state import FloatArray

_FOREVER = -1e300


@dataclass(frozen=True)
class SavedState:
    """A file that i-PI can go on from, and the next step."""

    path: Path
    step: int


def newest_state(simulation: Simulation, since: float = _FOREVER) -> SavedState | None:
    """Return the newest whole state that runs of an input saved in its folder, or None.

    Other inputs of the same folder write RESTART, too; theirs are known by the prefix of their outputs. i-PI
    renames what it finds there to ``#RESTART#0#`` and so on: the last state of an input once another has run.

    Args:
        simulation: what was run.
        since: the time, in seconds since the epoch, before which files are those of other runs.
    """
    folder, names = simulation.path.parent, tuple(path.name for path in simulation.checkpoints)
    # Beside a RESTART of its own, those of an input that were moved aside are of earlier runs.
    is_own = step_in_restart(folder / "RESTART", simulation.prefix) is not None
    restarts = re.compile("RESTART" if is_own else r"#RESTART#\d+#")
    times = {
        path: path.stat().st_mtime
        for path in folder.iterdir()
        if path.is_file() and (restarts.fullmatch(path.name) or path.name.startswith(names))
    }
    # A file system may round times down; of files of the same time RESTART is the last one.
    for path in sorted(times, key=lambda path: (times[path], path.name == "RESTART"), reverse=True):
        if times[path] > since - 1.0 and (step := step_in_restart(path, simulation.prefix)) is not None:
            return SavedState(path, step)
    return None


def state_to_go_on_from(path: Path) -> tuple[SavedState, list[str]]:
    """The newest state that an input has saved, made to run to the total of steps that the input has now.

    Returns:
        The state, and notes of other changes of the input, of which i-PI will see nothing.

    Raises:
        SetupError: the input is wrong, has saved nothing, or has changed since in what matters.
    """
    simulation = read_simulation(path)
    state = newest_state(simulation)
    if state is None:
        raise SetupError(
            f"{path}: --restart: expected RESTART or a checkpoint of an earlier run beside it, found none"
        )
    notes = check_unchanged(path, state.path)
    _set_total_steps(state.path, simulation.total_steps)
    return state, notes


def _set_total_steps(path: Path, total: int) -> None:
    """Change the total of a saved state, which i-PI leaves out where it is its default."""
    text = path.read_text(encoding="utf-8")
    element = f"<total_steps>{total}</total_steps>"
    changed, count = re.subn(r"<total_steps\b.*?</total_steps>", element, text, count=1, flags=re.DOTALL)
    if not count:
        changed = re.sub(r"<simulation\b[^>]*>", lambda tag: f"{tag[0]}\n   {element}", text, count=1)
    if changed != text:
        with replacing(path) as stream:
            stream.write(changed)


def positions_in_restart(path: Path) -> FloatArray:
    """Return the positions (B, N, 3) in bohr that the only system of a RESTART file has, for B beads.

    Raises:
        SetupError: there is no such file, or it has none.
    """
    beads = read_xml(path).find("system/beads")
    values = None if beads is None else items_of(beads.findtext("q"))
    if beads is None or not values:
        raise SetupError(f"{path}: expected a state that i-PI saved, with positions, found none")
    count = to_integer(path, "nbeads", beads.get("nbeads", "1"), 1)
    return np.array([to_number(path, "q", value) for value in values]).reshape(count, -1, 3)


def step_in_restart(path: Path, prefix: str | None = None) -> int | None:
    """Return the step that a RESTART file continues from, or None if there is no such file, or half of one.

    Args:
        path: the file.
        prefix: of the outputs of the simulation that is meant; None for any.
    """
    try:
        root = ET.parse(path).getroot()
        step = int(root.findtext("step", "0"))
    except (OSError, ET.ParseError, ValueError):
        return None
    output = root.find("output")
    found = prefix if output is None else prefix_of(output, "i-pi")
    return step if root.tag == "simulation" and prefix in (None, found) else None
