"""Production: uracil in water, classical and as a ring polymer, by the delta models and by DFTB alone.

``python production.py FOLDER`` runs what is missing, in order; ``--run NAME`` one of them. Stopped, a run
goes on with the same command from its last state. ``--labels`` cuts the frames that are labelled afterwards.
"""

from __future__ import annotations

import argparse
import subprocess
from functools import partial
from pathlib import Path

from dynamics import PIDELTA, Dynamics, run

MODELS = Path(__file__).resolve().parents[2] / "uracil-water"
CONFIG = MODELS / "pidelta.yaml"
FRAMES = 20  # to label, evenly spaced in time
_run = partial(Dynamics, box=str(MODELS / "init.pdb"), spacing=0.05)
_classical = partial(_run, thermostat="svr")
_quantum = partial(_run, beads=16, few=8)
RUNS = {
    dynamics.name: dynamics
    for dynamics in (
        _classical(name="classical", delta=True, length=100.0, seed=20501),
        _quantum(name="quantum", delta=True, length=20.0, seed=20502),
        _classical(name="classical-dftb", length=40.0, seed=20503),
        _quantum(name="quantum-dftb", length=5.0, seed=20504),
    )
}


def cut(dynamics: Dynamics, folder: Path) -> None:
    """Frames to label, of a ring polymer each of another bead."""
    files = sorted(folder.glob("*.pos_*.xyz"))
    snapshots = round(dynamics.length / dynamics.spacing)
    for place in range(FRAMES):
        path = files[place % len(files)]
        skip = str(round((place + 1) * snapshots / FRAMES))
        command = [*PIDELTA, "sample", str(CONFIG), str(path), "--skip", skip, "--limit", "1"]
        subprocess.run([*command, "--output", str(folder / "frames.h5")], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", choices=RUNS)
    parser.add_argument("--labels", action="store_true")
    arguments = parser.parse_args()
    for name in RUNS if arguments.run is None else [arguments.run]:
        folder = arguments.folder / name
        if not arguments.labels:
            run(RUNS[name], folder, CONFIG)
        elif RUNS[name].delta:
            cut(RUNS[name], folder)


if __name__ == "__main__":
    main()
