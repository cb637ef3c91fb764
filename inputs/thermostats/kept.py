"""The long runs in small, `kept/NAME.npz`: all of a run as one stretch, and the state that it goes on from.

A run goes on from there on any machine that has not come further itself.
"""

from __future__ import annotations

import lzma
import re
import shutil
from pathlib import Path

import numpy as np
from family import FOLDER, Run
from stretches import Array, condense, head, join, save, stretches_of, throw_away

from pidelta.analysis.cost import FILE as COST
from pidelta.ipi.saved_states import step_in_restart
from pidelta.output_files import replacing

KEPT = FOLDER / "kept"
STEP, STATE = "step", "state"
TEXTS = ("run.out", COST)  # of the table its head, which i-PI writes but once


def take_up(run: Run, folder: Path, kept: Path = KEPT) -> None:
    """Put what is kept of a run into its folder, if that has not come as far."""
    source = kept / f"{run.name}.npz"
    if _kept_step(source) <= steps_done(folder / "RESTART"):
        return
    folder.mkdir(parents=True, exist_ok=True)
    throw_away(folder, "stretch-*.npz")
    shutil.copyfile(source, folder / "stretch-000000000.npz")
    with np.load(source, allow_pickle=False) as arrays:
        for name in set(TEXTS) & set(arrays.files):
            (folder / name).write_bytes(arrays[name].tobytes())
        with replacing(folder / "RESTART", "wb") as stream:  # the last: what was cut short is taken up again
            stream.write(lzma.decompress(arrays[STATE].tobytes()))


def keep(run: Run, folder: Path, kept: Path = KEPT) -> None:
    """Keep a long run that has come further than what is kept, without the paths of this machine."""
    target, step = kept / f"{run.name}.npz", steps_done(folder / "RESTART")
    if not run.is_long or step <= _kept_step(target):
        return
    condense(run, folder, step)
    state = re.sub(r"<!--.*?-->", "", (folder / "RESTART").read_text(), flags=re.DOTALL)
    state = re.sub(r"(<pes_path>).*?(</pes_path>)", r"\1\2", state)
    table, cost = (folder / name for name in TEXTS)
    texts = {table.name: "".join(line for line in head(table) if line.startswith("# column"))}
    if cost.exists():  # not so where the first part was killed
        texts[cost.name] = cost.read_text()
    target.parent.mkdir(parents=True, exist_ok=True)
    save(
        join(stretches_of(run, folder)),
        target,
        {STEP: np.array(step), STATE: _bytes(lzma.compress(state.encode()))}
        | {name: _bytes(text.encode()) for name, text in texts.items()},
    )


def steps_done(restart: Path) -> int:
    """The step that a run goes on from."""
    return step_in_restart(restart) or 0


def _kept_step(path: Path) -> int:
    if not path.exists():
        return 0
    with np.load(path, allow_pickle=False) as arrays:
        return int(arrays[STEP])


def _bytes(content: bytes) -> Array:
    return np.frombuffer(content, dtype=np.uint8)
