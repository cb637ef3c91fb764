"""Cost of a step of 32 beads with ring polymer contraction, beside a classical step and the whole on 32.

Run: python tests/benchmarks/contraction.py [--repeats 12] [--steps 30]

Forces: calls of clients as i-PI sends them, in alternation, medians of the CPU time of one thread; the
system is that of inputs/contraction, uracil in 900 waters with three delta models. A classical step is one
bead, all terms. i-PI: its own CPU time of a step of the same ring polymer with its dummy driver, in process,
over sockets or by shared memory, and what some of its settings change.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from force_call import WARM_UP, Client
from rich.console import Console
from rich.table import Table

from pidelta.config import load_config
from pidelta.setup import Setup
from pidelta.state import parse_terms

FOLDER = Path(__file__).parents[2] / "inputs" / "contraction"
INITIAL = FOLDER.parent / "uracil-water" / "init.pdb"
BEADS = 32
ALL, STIFF = "mm+low+delta", "mm.bonded+low.vacuum+delta.vacuum"
SMOOTH = "mm.nonbonded+low.embedding+delta.embedding"
# calls of a step: terms, structures in a call, calls
WAYS = {
    "one bead, all terms": [(ALL, 1, 1)],
    "all terms on 32": [(ALL, 8, 4)],
    "smooth on 8": [(STIFF, 32, 1), (SMOOTH, 8, 1)],
    "smooth on 4": [(STIFF, 32, 1), (SMOOTH, 4, 1)],
    "smooth on 8, every second step": [(STIFF, 32, 1), (SMOOTH, 8, 0.5)],
    "smooth on 8, every fourth step, as in inputs/mts": [(STIFF, 32, 1), (SMOOTH, 8, 0.25)],
    "smooth on 4, every second step": [(STIFF, 32, 1), (SMOOTH, 4, 0.5)],
    "smooth on 4, every fourth step": [(STIFF, 32, 1), (SMOOTH, 4, 0.25)],
    "smooth on 4, the whole of delta on 32": [
        ("mm.bonded+low.vacuum", 32, 1), ("delta", 8, 4), ("mm.nonbonded+low.embedding", 4, 1)
    ],
    "delta-on-4.xml": [("mm+low", 8, 4), ("delta", 4, 1)],
    "nonbonded-on-centroid.xml": [
        (STIFF, 32, 1), ("mm.nonbonded", 1, 1), ("low.embedding+delta.embedding", 4, 1)
    ],
    "qm-on-8.xml": [("mm.bonded", 32, 1), ("mm.nonbonded", 4, 1), ("low+delta", 8, 1)],
    "8 beads, delta every fourth step, as mts/delta-outside.xml": [("mm+low", 4, 2), ("delta", 8, 0.25)],
}  # fmt: skip
PLAIN = {"simulation": "", "dynamics": "", "modes": "", "output": ""}
_BAOAB, _MATRIX = {"dynamics": "splitting='baoab'"}, {"modes": "<normal_modes transform='matrix'/>"}
SETTINGS = {
    "as it is": {},
    "splitting 'baoab'": _BAOAB,
    "that, and transform 'matrix', as in inputs/contraction": _BAOAB | _MATRIX,
    "these, and safe_stride 100": _BAOAB | _MATRIX | {"simulation": "safe_stride='100'"},
    "these, and positions of all beads every 10 steps": _BAOAB | _MATRIX | {
        "output": "<trajectory filename='pos' stride='10'> positions </trajectory>"
    },
}  # fmt: skip
NAMES = "stiff", "smooth"
MODES = {"in process": "", "over unix sockets": "unix", "by shared memory": "shm"}


def force_calls(repeats):
    """Seconds of CPU time of each call, by terms and structures."""
    setup = Setup(load_config(FOLDER / "pidelta.yaml"))
    system, rng = setup.system, np.random.default_rng(0)
    kinds = dict.fromkeys((terms, batch) for calls in WAYS.values() for terms, batch, _ in calls)
    clients = {kind: Client(setup.evaluator(parse_terms(kind[0])), kind[1]) for kind in kinds}
    beads = system.positions + rng.normal(scale=0.02, size=(BEADS, *system.positions.shape))
    for _ in range(WARM_UP + repeats):
        beads += rng.normal(scale=0.01, size=beads.shape)
        for (_, batch), client in clients.items():
            client.call(beads[:batch], system.cell)
    return {kind: client.finish()[0] for kind, client in clients.items()}


def ipi_input(steps, mode, addresses, settings):
    """The ring polymer of smooth-on-4.xml with dummy forces, in process without a mode of sockets."""
    given = PLAIN | settings
    fields = "".join(
        f"<ffsocket name='{name}' mode='{mode}' pbc='false'><address>{address}</address></ffsocket>"
        if mode
        else f"<ffdirect name='{name}' pbc='false'><pes>dummy</pes></ffdirect>"
        for name, address in zip(NAMES, addresses or NAMES, strict=True)
    )
    return f"""<simulation verbosity='quiet' {given["simulation"]}>
  <output prefix='run'> {given["output"]} <properties stride='4'> [ step, potential ] </properties> </output>
  <total_steps>{steps}</total_steps> <prng> <seed>1</seed> </prng> {fields}
  <system>
    <initialize nbeads='{BEADS}'> <file mode='pdb'> {INITIAL} </file>
      <velocities mode='thermal' units='kelvin'> 300 </velocities> </initialize>
    <forces> <force forcefield='stiff'/> <force forcefield='smooth' nbeads='4'/> </forces> {given["modes"]}
    <motion mode='dynamics'> <dynamics mode='nvt' {given["dynamics"]}>
      <timestep units='femtosecond'> 0.5 </timestep>
      <thermostat mode='pile_g'> <tau units='femtosecond'> 100 </tau> </thermostat> </dynamics> </motion>
    <ensemble> <temperature units='kelvin'> 300 </temperature> </ensemble>
  </system>
</simulation>
"""


_RUN = """
import os, time
from ipi.engine.simulation import Simulation
with open("input.xml") as file:
    simulation = Simulation.load_from_xml(file, request_banner=False)
started = time.process_time()
simulation.run()
with open("seconds", "w") as file:
    file.write(str(time.process_time() - started))
os._exit(0)
"""


def ipi_seconds(steps, mode, settings):
    """CPU time of i-PI for a step; its start and drivers on sockets are not counted."""
    scripts = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder:
        addresses = [f"{Path(folder).name}-{name}" for name in NAMES] if mode else []
        (Path(folder) / "input.xml").write_text(ipi_input(steps, mode, addresses, settings), encoding="utf-8")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        ipi = subprocess.Popen([sys.executable, "-c", _RUN], cwd=folder, **quiet)
        paths = [Path(f"/tmp/ipi_{address}") for address in addresses]
        while not all(path.exists() for path in paths):
            time.sleep(0.1)
        driver = [scripts / "i-pi-driver-py", "-m", "dummy", "--shm" if mode == "shm" else "-u", "-a"]
        drivers = [subprocess.Popen([*driver, address], **quiet) for address in addresses]
        ipi.wait()
        for one, path in zip(drivers, paths, strict=True):
            one.terminate()
            one.wait()
            path.unlink(missing_ok=True)
        return float((Path(folder) / "seconds").read_text()) / steps


def ipi_share(steps):
    """Seconds of CPU time of i-PI for a step, by settings and by where the driver is."""
    found = {}
    for name, settings in SETTINGS.items():
        for where, mode in MODES.items():
            found[name, where] = ipi_seconds(steps, mode, settings)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--steps", type=int, default=30, help="of i-PI; 0 leaves it out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as the clients of `pidelta run`
    console, calls = Console(width=120), force_calls(arguments.repeats)
    totals = {
        way: sum(count * calls[terms, batch] for terms, batch, count in parts) for way, parts in WAYS.items()
    }
    table = Table("forces", "ms a step", "to a classical step", title="CPU time of the forces of a step")
    for way, seconds in totals.items():
        table.add_row(way, f"{1e3 * seconds:.0f}", f"{seconds / totals['one bead, all terms']:.1f}")
    console.print(table)
    if not arguments.steps:
        return
    shares = ipi_share(arguments.steps)
    table = Table("settings of i-PI", *MODES, title="CPU time of i-PI itself, ms a step")
    for name in SETTINGS:
        table.add_row(name, *(f"{1e3 * shares[name, where]:.0f}" for where in MODES))
    console.print(table)


if __name__ == "__main__":
    main()
