"""The long runs in small, `kept/NAME`: what the study needs of them, and the state that they go on from.

A run that is not in the folder of runs goes on from there, on any machine.
"""

from __future__ import annotations

import lzma
import re
import shutil
from pathlib import Path

from family import FOLDER, Run
from stretches import condense, join, save, stretches_of

from pidelta.analysis.cost import FILE as COST
from pidelta.ipi.saved_states import step_in_restart

KEPT = FOLDER / "kept"
_STATE, _STRETCH = "RESTART.xz", "stretch-000000000.npz"


def take_up(run: Run, folder: Path, kept: Path = KEPT) -> None:
    """Put what is kept of a run into its folder, if that has no state to go on from."""
    source = kept / run.name
    if (folder / "RESTART").exists() or not (source / _STATE).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in (COST, "run.out", _STRETCH):
        shutil.copyfile(source / name, folder / name)
    (folder / "RESTART").write_bytes(lzma.decompress((source / _STATE).read_bytes()))


def keep(run: Run, folder: Path, kept: Path = KEPT) -> None:
    """Keep a long run that has come to the end of a part, without the paths of this machine."""
    if not run.is_long:
        return
    condense(run, folder, step_in_restart(folder / "RESTART") or 0)
    target = kept / run.name
    target.mkdir(parents=True, exist_ok=True)
    save(join(stretches_of(run, folder)), target / _STRETCH)
    for name in (COST, "run.out"):  # of that no more than the head, which i-PI writes but once
        shutil.copyfile(folder / name, target / name)
    without_machine = re.sub(r"<!--.*?-->", "", (folder / "RESTART").read_text(), flags=re.DOTALL)
    state = re.sub(r"(<pes_path>).*?(</pes_path>)", r"\1\2", without_machine)
    (target / _STATE).write_bytes(lzma.compress(state.encode()))
