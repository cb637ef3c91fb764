"""What talking to i-PI costs: a pidelta client with a free evaluator beside i-PI's own dummy driver.

Run: python tests/benchmarks/ipi_overhead.py [--rounds 3] [--steps 60] [--only shm]

i-PI propagates a ring polymer of 8 beads of 3,222 atoms whose forces are zero, over each transport. Both
clients take turns. Milliseconds of a step, medians over the rounds: CPU time of the client, of client and
i-PI together, and wall time. The first steps are left out; CPU time is that of /proc.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

ATOMS, BEADS = 3222, 8
FIRST_STEP = 10
FREE = Path(__file__).with_name("free_evaluator.py")


@dataclass(frozen=True)
class Transport:
    """How i-PI gets its forces: the mode of an ffsocket, or direct."""

    mode: str
    batch: int
    consolidated: bool = True

    @property
    def name(self):
        batch = f", batches of {self.batch}" if self.batch > 1 else ""
        return self.mode + batch + ("" if self.consolidated else ", not consolidated")


TRANSPORTS = [
    *(Transport(mode, batch) for mode in ("unix", "inet", "shm") for batch in (1, 4)),
    *(Transport(mode, 1, consolidated=False) for mode in ("unix", "shm")),
    *(Transport("direct", batch) for batch in (1, 4)),
]


def forcefield(transport, who, address, port):
    """The element of an input; `who` is dummy or pidelta."""
    batch = f"<batch_size> {transport.batch} </batch_size>"
    if transport.mode == "direct":
        ours = f"<pes> custom </pes> <pes_path> {FREE} </pes_path>"
        return f"<ffdirect name='f'> {ours if who == 'pidelta' else '<pes> dummy </pes>'} {batch} </ffdirect>"
    place = (
        f"<address> {'localhost' if transport.mode == 'inet' else address} </address> <port> {port} </port>"
    )
    consolidated = f"<consolidate_messages> {transport.consolidated} </consolidate_messages>"
    return f"<ffsocket name='f' mode='{transport.mode}'> {place} {batch} {consolidated} </ffsocket>"


def write_input(folder, element, steps):
    side = 32
    points = ((i % side, i // side % side, i // side**2) for i in range(ATOMS))
    atoms = "\n".join(f"H {x} {y} {z}" for x, y, z in points)
    (folder / "init.xyz").write_text(f"{ATOMS}\n# CELL(abcABC): 40 40 40 90 90 90\n{atoms}\n")
    (folder / "input.xml").write_text(f"""<simulation verbosity='quiet'>
  <output prefix='b'> <properties filename='out' stride='1'> [ step ] </properties> </output>
  <total_steps> {steps + FIRST_STEP + 30} </total_steps> <prng> <seed> 1 </seed> </prng>
  {element}
  <system>
    <initialize nbeads='{BEADS}'> <file mode='xyz'> init.xyz </file>
      <velocities mode='thermal' units='kelvin'> 300 </velocities> </initialize>
    <forces> <force forcefield='f'/> </forces>
    <ensemble> <temperature units='kelvin'> 300 </temperature> </ensemble>
    <motion mode='dynamics'> <dynamics mode='nvt'> <timestep units='femtosecond'> 0.5 </timestep>
      <thermostat mode='pile_g'> <tau units='femtosecond'> 100 </tau> </thermostat> </dynamics> </motion>
  </system>
</simulation>
""")


def client_command(transport, who, address, port):
    if transport.mode == "direct":
        return None
    if who == "pidelta":
        return [sys.executable, str(FREE), transport.mode, address, str(port)]
    option = {"unix": ["-u", "-a", address], "shm": ["--shm", "-a", address], "inet": ["-a", "localhost"]}
    driver = str(Path(sys.executable).with_name("i-pi-driver-py"))
    return [sys.executable, driver, "-m", "dummy", "-p", str(port), *option[transport.mode]]


@contextlib.contextmanager
def running(command, folder):
    with (folder / f"{Path(command[1]).name}.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(process):
    """CPU time of the threads of a process."""
    files = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
    return 1e-9 * sum(int(file.read_text().split()[0]) for file in files)


def wait_for(what, question, seconds=120.0):
    """Ask until the answer is yes, and return it."""
    ends = time.monotonic() + seconds
    while not (answer := question()):
        if time.monotonic() > ends:
            raise TimeoutError(what)
        time.sleep(0.005)
    return answer


def step_of(path, least):
    """The last step in the output of i-PI, 0 if it is not yet the least that is wanted."""
    rows = (
        [line for line in path.read_text().split("\n")[:-1] if not line.startswith("#")]
        if path.exists()
        else []
    )
    found = int(float(rows[-1])) if rows else 0
    return found if found >= least else 0


def measure(transport, who, steps, port):
    """Milliseconds of a step: CPU of the client, CPU of both, wall time."""
    address = f"overhead-{os.getpid()}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_input(folder, forcefield(transport, who, address, port), steps)
        ipi = [sys.executable, str(Path(sys.executable).with_name("i-pi")), "input.xml"]
        with running(ipi, folder) as server:
            if transport.mode == "direct":
                return follow(folder, [server], steps)
            wait_for("i-PI to listen", lambda: listens(transport, address, port))
            with running(client_command(transport, who, address, port), folder) as client:
                return follow(folder, [server, client], steps)


def listens(transport, address, port):
    """Whether a socket is open, by the tables of the kernel: to connect would be to be a client."""
    if transport.mode == "inet":
        return f"0100007F:{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()
    rows = Path("/proc/net/unix").read_text().splitlines()
    return any(row.endswith(f"/tmp/ipi_{address}") and row.split()[3] == "00010000" for row in rows)


def follow(folder, processes, steps):
    """What a step took between the first one that counts and the last; i-PI comes first of the processes."""
    marks = []
    for step in (FIRST_STEP, FIRST_STEP + steps):
        found = wait_for(f"step {step}", partial(step_of, folder / "b.out", step))
        marks.append((found, *(cpu_seconds(process) for process in processes), time.monotonic()))
    first, last = marks
    server, *client, wall = (
        1e3 * (after - before) / (last[0] - first[0])
        for before, after in zip(first[1:], last[1:], strict=True)
    )
    return sum(client), server + sum(client), wall


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--port", type=int, default=31777)
    parser.add_argument("--only", default="", help="transports whose names begin so")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    headings = (
        "client, i-PI's",
        "client, pidelta",
        "both, i-PI's",
        "both, pidelta",
        "wall, i-PI's",
        "wall, pidelta",
    )
    table = Table(
        "transport", *headings, "both, to i-PI's", title=f"{ATOMS} atoms, {BEADS} beads: a step / ms"
    )
    for transport in TRANSPORTS:
        if not transport.name.startswith(arguments.only):
            continue
        rounds = [
            [measure(transport, who, arguments.steps, arguments.port) for who in ("dummy", "pidelta")]
            for _ in range(arguments.rounds)
        ]
        dummy, ours = (
            [statistics.median(values) for values in zip(*(r[k] for r in rounds), strict=True)]
            for k in (0, 1)
        )
        cells = [f"{value:.1f}" for pair in zip(dummy, ours, strict=True) for value in pair]
        ratio = statistics.median(r[1][1] / r[0][1] for r in rounds)
        table.add_row(transport.name, *cells, f"{ratio:.2f}")
        print(transport.name, *cells, f"{ratio:.2f}", flush=True)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
