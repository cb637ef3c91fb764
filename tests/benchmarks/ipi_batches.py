"""How full the batches of i-PI are, by <latency>: 8 beads, batches of 4, two clients.

Run: python tests/benchmarks/ipi_batches.py [--steps 100] [--seconds 0.02] [--latencies 1e-4 1e-2]

i-PI hands over what is queued when it looks, every <latency> seconds, and looks again when all clients have
answered. A client needs some time for each structure, asleep, so that i-PI has a processor for itself.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from ipi_overhead import BEADS, FREE, Transport, forcefield, listens, running, wait_for, write_input
from rich.console import Console
from rich.table import Table

from pidelta.ipi.client import ServeSummary

BATCHES = Transport("unix", 4)


def measure(latency, steps, seconds):
    """The summaries of the two clients."""
    address = f"batches-{os.getpid()}"
    element = forcefield(BATCHES, "pidelta", address, 0)
    element = element.replace("</ffsocket>", f"<latency> {latency} </latency> </ffsocket>")
    command = [sys.executable, str(FREE), "unix", address, "0", str(seconds)]
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name), Path(name) / "second"]
        folders[1].mkdir()
        write_input(folders[0], element, steps)
        ipi = [sys.executable, str(Path(sys.executable).with_name("i-pi")), "input.xml"]
        with running(ipi, folders[0]) as server:
            wait_for("i-PI to listen", lambda: listens(BATCHES, address, 0))
            with running(command, folders[0]) as one, running(command, folders[1]) as two:
                for process in (server, one, two):
                    process.wait()
        logs = [folder / f"{FREE.name}.log" for folder in folders]
        return [ServeSummary.from_json(log.read_text().splitlines()[-1]) for log in logs]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.02)
    parser.add_argument("--latencies", type=float, nargs="+", default=[1e-4, 1e-3, 3e-3, 1e-2, 3e-2])
    arguments = parser.parse_args()
    table = Table("latency / s", "requests", "structures", "a request", "waiting", "time / s")
    for latency in arguments.latencies:
        clients = measure(latency, arguments.steps, arguments.seconds)
        requests, structures = (sum(getattr(c, name) for c in clients) for name in ("requests", "structures"))
        waiting, busy = (sum(getattr(c, f"seconds_{n}") for c in clients) for n in ("waiting", "evaluating"))
        row = (requests, structures, f"{structures / requests:.2f}", f"{waiting / (waiting + busy):.0%}")
        table.add_row(f"{latency:g}", *map(str, row), f"{(waiting + busy) / len(clients):.1f}")
        print(latency, *row, f"{(waiting + busy) / len(clients):.1f}", flush=True)
    Console(width=100).print(table, f"{BEADS} beads, {arguments.seconds} s for a structure")


if __name__ == "__main__":
    main()
