"""Time of one force call, split by term, as i-PI sees it.

Run: python tests/benchmarks/force_call.py [CONFIG] [--batches 1 4 8] [--repeats 20]

A client in a thread answers real i-PI messages over a socket pair; what a call takes beyond the evaluator is
the socket's share. Positions move by 0.01 bohr between calls, about what 0.5 fs of dynamics does.
"""

import argparse
import socket
import struct
import threading
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from pidelta.config import load_config
from pidelta.ipi.client import serve
from pidelta.ipi.transports import SocketTransport
from pidelta.setup import Setup

DEFAULT = Path(__file__).parents[2] / "inputs" / "uracil-water" / "pidelta.yaml"
PARTS = ("low", "delta", "mm", "embedding")
WARM_UP = 3


class Recorder:
    """An evaluator that keeps the timings of each call."""

    def __init__(self, evaluator):
        self._evaluator = evaluator
        self.numbers = evaluator.numbers
        self.timings = []

    def evaluate(self, positions, cells):
        evaluation = self._evaluator.evaluate(positions, cells)
        self.timings.append(evaluation.timings)
        return evaluation


def header(name):
    return name.ljust(12).encode()


def receive(connection, count):
    data = bytearray()
    while len(data) < count:
        data += connection.recv(count - len(data))
    return bytes(data)


def ask(connection, positions, cell):
    """One force request, as i-PI sends it, for positions (B, N, 3)."""
    batch, atoms, _ = positions.shape
    matrices = (cell.T.tobytes() + np.linalg.inv(cell.T).tobytes()) * batch
    count = struct.pack("=i", atoms)
    body = matrices + count if batch == 1 else count + matrices
    connection.sendall(header("POSDATA") + body + positions.tobytes() + header("GETFORCE"))
    receive(connection, 12 + 8 * batch + 4 + 24 * batch * atoms + 72 * batch)
    for _ in range(batch):
        receive(connection, struct.unpack("=i", receive(connection, 4))[0])


def measure(evaluator, system, batch, repeats, rng):
    """Median seconds of one call in all, and of its parts."""
    server, client = socket.socketpair()
    recorder = Recorder(evaluator)
    thread = threading.Thread(target=serve, args=(recorder, SocketTransport(client)), daemon=True)
    thread.start()
    text = f"batch_size:{batch}".encode()
    server.sendall(header("INIT") + struct.pack("=ii", 0, len(text)) + text)
    cell = system.cell if system.cell is not None else 100.0 * np.eye(3)
    beads = system.positions + rng.normal(scale=0.02, size=(batch, *system.positions.shape))
    walls = []
    for _ in range(WARM_UP + repeats):
        beads += rng.normal(scale=0.01, size=beads.shape)
        started = time.perf_counter()
        ask(server, beads, cell)
        walls.append(time.perf_counter() - started)
    server.sendall(header("EXIT"))
    thread.join()
    walls, timings = np.array(walls[WARM_UP:]), recorder.timings[WARM_UP:]
    parts = {part: np.median([t.get(part, 0.0) for t in timings]) for part in PARTS}
    parts["socket and rest"] = np.median(walls - [sum(t.values()) for t in timings])
    return float(np.median(walls)), parts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", type=Path, default=DEFAULT)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 8])
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as the clients of `pidelta run`
    config = load_config(arguments.config)
    setup = Setup(config)
    system, evaluator = setup.system, setup.evaluator()
    rng = np.random.default_rng(0)
    table = Table(
        "batch", *PARTS, "socket and rest", "whole call", "per structure", title="median of a call / ms"
    )
    for batch in arguments.batches:
        whole, parts = measure(evaluator, system, batch, arguments.repeats, rng)
        cells = [f"{1e3 * value:.2f}" for value in (*parts.values(), whole, whole / batch)]
        table.add_row(str(batch), *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
