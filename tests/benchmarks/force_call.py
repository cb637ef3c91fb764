"""Time of one force call, split by term, as i-PI sees it, with both schemes of the embedding.

Run: python tests/benchmarks/force_call.py [CONFIG] [--batches 1 4 8] [--repeats 20]

Without CONFIG: uracil in 900 waters as it ships, with delta models, and retinoate in 3,205 waters. A client
in a thread answers real i-PI messages over a socket pair; what a call takes beyond the evaluator is the share
of the socket. Positions move by 0.01 bohr between calls, about what 0.5 fs of dynamics does. The schemes take
turns; medians of the CPU time of one thread, which other processes disturb little.
"""

import argparse
import socket
import struct
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from rich.console import Console
from rich.table import Table

from pidelta.config import load_config
from pidelta.ipi.client import serve
from pidelta.ipi.transports import SocketTransport
from pidelta.qmmm import energy
from pidelta.setup import Setup
from pidelta.units import ANGSTROM

URACIL = Path(__file__).parents[2] / "inputs" / "uracil-water"
RETINOIC_ACID = Path(__file__).with_name("molecules") / "retinoic-acid.xyz"
SCHEMES = ("cutoff", "pme")
PARTS = ("low", "delta", "mm", "embedding")
WARM_UP = 3
BOX = 47.6  # of retinoate, angstrom
TYPES = {"H": "1 1.008 0.0 A 0.25 0.06", "C": "6 12.011 0.0 A 0.34 0.36", "O": "8 15.999 0.0 A 0.3 0.7"}


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


class Client:
    """A client with an evaluator, and this end of its socket."""

    def __init__(self, evaluator, batch):
        self._server, client = socket.socketpair()
        self._recorder = Recorder(evaluator)
        transport = SocketTransport(client)
        self._thread = threading.Thread(target=serve, args=(self._recorder, transport), daemon=True)
        self._thread.start()
        text = f"batch_size:{batch}".encode()
        self._server.sendall(header("INIT") + struct.pack("=ii", 0, len(text)) + text)
        self._calls = []

    def call(self, positions, cell):
        started = time.process_time()
        ask(self._server, positions, cell)
        self._calls.append(time.process_time() - started)

    def finish(self):
        """Seconds of a call in all, and of its parts."""
        self._server.sendall(header("EXIT"))
        self._thread.join()
        calls, timings = np.array(self._calls[WARM_UP:]), self._recorder.timings[WARM_UP:]
        parts = {part: np.median([t.get(part, 0.0) for t in timings]) for part in PARTS}
        rest = np.median(calls - [sum(t.values()) for t in timings])
        return float(np.median(calls)), {**parts, "socket and rest": rest}


def measure(evaluators, system, batch, repeats, rng):
    """Seconds of a call and its parts, of evaluators that take turns."""
    clients = [Client(evaluator, batch) for evaluator in evaluators]
    cell = system.cell if system.cell is not None else 100.0 * np.eye(3)
    beads = system.positions + rng.normal(scale=0.02, size=(batch, *system.positions.shape))
    for _ in range(WARM_UP + repeats):
        beads += rng.normal(scale=0.01, size=beads.shape)
        for client in clients:
            client.call(beads, cell)
    return [client.finish() for client in clients]


def retinoate_in_water(folder):
    """Configuration of the anion, all QM, in water tiled from that around uracil; nothing overlaps."""
    atoms = read(RETINOIC_ACID)
    oxygens = [atom.index for atom in atoms if atom.symbol == "O"]
    acid = min(
        (atom.index for atom in atoms if atom.symbol == "H"),
        key=lambda i: atoms.get_distances(i, oxygens).min(),
    )
    del atoms[acid]
    atoms.cell = np.diag([BOX] * 3)
    atoms.center()
    known = Setup(load_config(URACIL / "pidelta.yaml")).system
    water = Atoms(known.numbers, known.positions / ANGSTROM, cell=known.cell / ANGSTROM)[12:] * (2, 2, 2)
    molecules = water.positions.reshape(-1, 3, 3)
    inside = (molecules[:, 0] < BOX - 1.5).all(axis=1)
    gaps = np.linalg.norm(molecules[:, :, None] - atoms.positions, axis=-1).min(axis=(1, 2))
    chosen = np.flatnonzero(inside & (gaps > 2.0))
    water = water[np.concatenate([3 * chosen + k for k in range(3)]).reshape(3, -1).T.ravel()]
    _write_gro(
        folder / "system.gro", [*[("RET", atom) for atom in atoms], *[("SOL", atom) for atom in water]]
    )
    rows = [
        f"{n} {atom.symbol} 1 RET {atom.symbol}{n} {n} {-1 / len(atoms):.12f}"
        for n, atom in enumerate(atoms, start=1)
    ]
    bonds = [f"{n} {n + 1} 1 0.15 200000.0" for n in range(1, len(atoms))]
    types = [f"{name} {rest}" for name, rest in TYPES.items()]
    names = (("OW", "O", -0.8476), ("HW1", "H", 0.4238), ("HW2", "H", 0.4238))
    solvent = [f"{n} {kind} 1 SOL {name} {n} {q}" for n, (name, kind, q) in enumerate(names, start=1)]
    lines = ["[ defaults ]", "1 2 yes 0.5 0.8333", "[ atomtypes ]", *types]
    lines += ["[ moleculetype ]", "RET 3", "[ atoms ]", *rows, "[ bonds ]", *bonds]
    lines += ["[ moleculetype ]", "SOL 2", "[ atoms ]", *solvent, "[ settles ]", "1 1 0.1 0.1633"]
    lines += ["[ system ]", "retinoate in water", "[ molecules ]", "RET 1", f"SOL {len(chosen)}", ""]
    (folder / "system.top").write_text("\n".join(lines), encoding="utf-8")
    config = folder / "retinoate.yaml"
    config.write_text(
        "structure: system.gro\nqm: {atoms: resname RET, charge: -1}\n"
        "mm: {topology: system.top, water: q-spc-fw, cutoff: 1.0 nm}\n",
        encoding="utf-8",
    )
    return config


def _write_gro(path, rows):
    lines = ["retinoate in water", str(len(rows))]
    for number, (residue, atom) in enumerate(rows, start=1):
        x, y, z = 0.1 * atom.position
        place = 1 if residue == "RET" else 2 + (number - 50) // 3
        lines.append(f"{place:5d}{residue:5s}{atom.symbol:>5s}{number:5d}{x:8.3f}{y:8.3f}{z:8.3f}")
    path.write_text("\n".join([*lines, f"{BOX / 10:10.5f}" * 3, ""]), encoding="utf-8")


def with_schemes(path):
    """The set-up of a configuration and an evaluator for each scheme."""
    config = load_config(path)
    setups = [
        Setup(config.model_copy(update={"embedding": config.embedding.model_copy(update={"scheme": scheme})}))
        for scheme in SCHEMES
    ]
    return setups[0].system, [setup.evaluator() for setup in setups]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="*", type=Path)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 8])
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as the clients of `pidelta run`
    energy.perf_counter = time.process_time  # the clock of its parts, too
    rng = np.random.default_rng(0)
    headings = ("embedding", *PARTS, "socket and rest", "whole call", "per structure", "to cutoff")
    with tempfile.TemporaryDirectory() as folder:
        configs = arguments.config or [URACIL / "pidelta.yaml", retinoate_in_water(Path(folder))]
        for path in configs:
            system, evaluators = with_schemes(path)
            table = Table("beads", *headings, title=f"{path.name}, {len(system)} atoms: a call / ms")
            for batch in arguments.batches:
                results = measure(evaluators, system, batch, arguments.repeats, rng)
                for scheme, (whole, parts) in zip(SCHEMES, results, strict=True):
                    times = [f"{1e3 * value:.1f}" for value in (*parts.values(), whole, whole / batch)]
                    table.add_row(str(batch), scheme, *times, f"{whole / results[0][0]:.2f}")
            Console(width=120).print(table)


if __name__ == "__main__":
    main()
