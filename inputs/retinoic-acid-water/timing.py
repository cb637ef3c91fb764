"""What a DFT label, a force call and a step of sander cost for retinoic acid in water, in one run.

``python timing.py [--label]``: seconds of CPU time of one thread. The force call has DFTB, three delta models
and the force field; sander has DFTB3 with PME for the QM region and no delta models, and its time is a step
of dynamics (AmberTools in ``$AMBERHOME``). ``--label`` computes a DFT label, minutes.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from pidelta.config import load_config
from pidelta.data.store import FrameStore
from pidelta.qm.reference import label_frame
from pidelta.qm.reference_settings import ReferenceSettings
from pidelta.setup import Setup

FOLDER = Path(__file__).parent
REPEATS, WARM_UP = 20, 3
CORES = 4  # of the paper's labels
LABEL = ReferenceSettings(xc="PBE", basis="def2-SVP", dispersion="d3bj")
STEPS = (20, 120)
SANDER = """ PME QM/MM with DFTB3
 &cntrl
  imin=0, irest=0, ntx=1, ntb=1, cut=10.0, ntc=1, ntf=1, jfastw=4, dt=0.0005, nstlim={steps},
  ntt=0, tempi=300.0, ig=1, ntpr=1000, ntwx=0, ntwr=100000, ifqnt=1,
 /
 &qmmm
  qmmask=':RET', qmcharge=0, qm_theory='DFTB3', dftb_slko_path='{parameters}', qmcut=14.0, qm_ewald=1,
  qmshake=0,
 /
"""


def force_call(delta: bool) -> float:
    """Median seconds of a call, atoms moving by 0.01 bohr in between."""
    config = load_config(FOLDER / "pidelta.yaml")
    if not delta:
        config = config.model_copy(update={"delta": None})
    setup = Setup(config)
    evaluator, system = setup.evaluator(), setup.system
    assert system.cell is not None
    positions, cells = system.positions[None].copy(), system.cell[None]
    rng = np.random.default_rng(0)
    seconds = []
    for _ in range(WARM_UP + REPEATS):
        positions += rng.normal(scale=0.01, size=positions.shape)
        started = time.process_time()
        evaluator.evaluate(positions, cells)
        seconds.append(time.process_time() - started)
    return statistics.median(seconds[WARM_UP:])


def label() -> float:
    """Seconds of a label of the first frame."""
    with FrameStore(FOLDER / "labels" / "heldout.h5") as store:
        frame = store.frame(0)
    started = time.process_time()
    label_frame(frame, LABEL)
    return time.process_time() - started


def sander(home: Path) -> float:
    """Seconds of a step: a long run less a short one."""
    parameters = home / "dat" / "slko" / "3ob-3-1"
    seconds = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for steps in STEPS:
            (folder / "in").write_text(SANDER.format(steps=steps, parameters=f"{parameters}/"))
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            topology, start = FOLDER / "system.prmtop", FOLDER / "system.rst7"
            subprocess.run(
                [home / "bin" / "sander", "-O", "-i", "in", "-o", "out", "-p", topology, "-c", start],
                check=True,
                cwd=folder,
                env={**os.environ, "AMBERHOME": str(home)},
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return (seconds[1] - seconds[0]) / (STEPS[1] - STEPS[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--label", action="store_true")
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_NUM_THREADS": "1"})
    torch.set_num_threads(1)
    whole, low = force_call(delta=True), force_call(delta=False)
    print(f"force call, DFTB + 3 delta models + force field: {whole:.3f} s")
    print(f"force call without delta models: {low:.3f} s")
    if home := os.environ.get("AMBERHOME"):
        found = sander(Path(home))
        print(f"step of sander, DFTB3 with PME: {found:.3f} s, {found / low:.2f} times the latter")
    if arguments.label:
        seconds = label()
        print(f"DFT label: {seconds:.0f} s, {seconds / CORES:.0f} s on {CORES} cores at best, ", end="")
        print(f"{seconds / CORES / whole:.0f} times a force call on one")


if __name__ == "__main__":
    main()
