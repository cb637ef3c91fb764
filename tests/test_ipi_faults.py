"""Faults for real: what a client or a run meets that is killed, stopped, cut off or sent nonsense."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT
from ipi_support import Images, unique_address, write_input, write_water
from pidelta.config import load_config
from pidelta.errors import GeometryError, ProtocolError, RunError, SCCConvergenceError, TransportError
from pidelta.ipi import transports
from pidelta.ipi.client import serve
from pidelta.ipi.simulation import read_simulation
from pidelta.ipi.supervisor import Supervisor
from pidelta.ipi.transports import SocketTransport, connect
from pidelta.ipi.watchdog import is_running
from pidelta.setup import Setup

SUPPORT = Path(__file__).with_name("ipi_support.py")
SHARED = Path("/dev/shm")


def init(batch_size=1):
    text = f"batch_size:{batch_size}".encode()
    return b"INIT        " + struct.pack("=ii", 0, len(text)) + text


def posdata(positions, cells):
    """A batch, for more than one structure, and the request for forces."""
    count = struct.pack("=i", positions.shape[1])
    matrices = b"".join(cell.T.tobytes() + np.zeros((3, 3)).tobytes() for cell in cells)
    body = matrices + count if len(positions) == 1 else count + matrices
    return b"POSDATA     " + body + positions.tobytes() + b"GETFORCE    "


def talk(evaluator, message):
    """Serve a peer that says one thing and goes, over a real socket."""
    server, client = socket.socketpair()
    with server, client:
        server.sendall(message)
        server.shutdown(socket.SHUT_WR)
        return serve(evaluator, SocketTransport(client))


@pytest.mark.parametrize(
    ("message", "error", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ProtocolError, r"unknown header: .* found b'HTTP/1\.1 400'"),
        (b"STAT", TransportError, "broke inside a header: expected 8 more bytes, found none"),
        (init() + b"POSDATA     " + bytes(50), TransportError, "broke inside POSDATA"),
        (init() + b"POSDATA     " + bytes(144) + b"\xff\xff\xff\x7f", ProtocolError, "i-PI sent 2147483647"),
        (init(10**9), ProtocolError, "wrong batch_size"),
    ],
)
def test_nonsense_from_the_peer(message, error, text):
    with pytest.raises(error, match=text) as caught:
        talk(Images(), message)
    assert str(caught.value).isprintable()


def test_a_server_that_stops_reading(monkeypatch):
    """It takes what fits into the buffers of the system, and no more."""
    monkeypatch.setattr(transports, "_DEAF_SECONDS", 1)
    server, client = socket.socketpair()
    with (
        server,
        client,
        pytest.raises(TransportError, match="i-PI does not read: expected it to take 8000000"),
    ):
        SocketTransport(client).send(bytes(8_000_000))


def test_a_host_that_is_lost_is_noticed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = connect("inet", "127.0.0.1", server.getsockname()[1])
        connected = transport._socket
        assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        names = [name for name in transports._LOST_HOST if hasattr(socket, name)]
        values = {name: connected.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names}
        assert values == {name: transports._LOST_HOST[name] for name in names}
        transport.close()


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """Two flexible waters in a cell."""
    folder = tmp_path_factory.mktemp("box")
    rows = ["O 0 0 0", "H 0.96 0 0", "H -0.24 0.93 0", "O 2.9 0.1 0.1", "H 3.2 0.9 0.5", "H 3.3 -0.7 0.6"]
    (folder / "water.xyz").write_text("\n".join(["6", 'Lattice="30 0 0 0 30 0 0 0 30"', *rows, ""]))
    (folder / "pidelta.yaml").write_text("structure: water.xyz\nmm: {water: q-spc-fw}\n")
    return Setup(load_config(folder / "pidelta.yaml"))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1e300])
@pytest.mark.parametrize("batch", [1, 3])
def test_positions_that_are_none(box, wrong, batch):
    positions = np.repeat(box.system.positions[None], batch, axis=0) + 0.01 * np.arange(batch)[:, None, None]
    positions[-1, 4, 2] = wrong
    message = init(batch) + posdata(positions, [box.system.cell] * batch)
    with pytest.raises(GeometryError, match=rf"structure {batch - 1}: expected finite .* at atom 4"):
        talk(box.evaluator(), message)


@pytest.mark.parametrize("wrong", [0.0, np.nan, 1e300])
def test_cells_that_are_none(box, wrong):
    positions = np.stack([box.system.positions, box.system.positions + 0.01])
    cells = np.stack([box.system.cell, box.system.cell])
    cells[1, 2] = wrong
    with pytest.raises(GeometryError, match=r"structure 1: .*three independent lattice vectors"):
        talk(box.evaluator(), init(2) + posdata(positions, cells))


def test_one_bead_that_does_not_converge(tmp_path):
    """Its atoms are pulled apart; which one it was is said."""
    (tmp_path / "uracil.xyz").write_bytes((ROOT / "examples" / "uracil.xyz").read_bytes())
    config = tmp_path / "pidelta.yaml"
    config.write_text(
        "structure: uracil.xyz\nqm: {atoms: all, dftb: {parameters: builtin, scc: {max_iterations: 6}}}\n"
    )
    setup = Setup(load_config(config))
    positions = np.repeat(setup.system.positions[None], 3, axis=0)
    positions[1] *= 2.5
    evaluator = setup.evaluator()
    message = init(3) + posdata(positions + 0.001 * np.arange(3)[:, None, None], np.zeros((3, 3, 3)))
    with pytest.raises(SCCConvergenceError, match="structure 1: SCC did not converge in"):
        talk(evaluator, message)


def supervise(path, behaviour):
    simulation = read_simulation(path)
    return Supervisor(simulation, [sys.executable, str(SUPPORT), behaviour], {})


def wait_for(question, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("mode", ["unix", "shm"])
def test_killed_ipi(tmp_path, mode):
    """Its socket and shared memory go, and so do the clients."""
    address = unique_address()
    path = write_input(tmp_path, address=address, mode=mode, steps=100_000)
    out = tmp_path / "sim.out"
    with supervise(path, "slow") as supervisor:
        wait_for(lambda: supervisor.is_running() and out.exists() and out.read_text().count("\n") > 12)
        ipi = supervisor._ipi.process
        segments = list(SHARED.glob(f"ipi_shm_{ipi.pid}_*"))
        assert len(segments) == (6 if mode == "shm" else 0)
        ipi.kill()
        with pytest.raises(RunError, match=r"^i-PI was killed by signal SIGKILL; see .*sim\.i-pi\.log$"):
            wait_for(lambda: not supervisor.is_running())
    assert not any(is_running(child.process.pid) for child in supervisor._children())
    assert not Path(f"/tmp/ipi_{address}").exists()
    wait_for(lambda: not any(segment.exists() for segment in segments))  # by the tracker of i-PI's Python


def processes_of(folder):
    """Numbers of processes that work in a folder or name it in their command."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_text(errors="replace")
            if str(folder) in command or os.readlink(entry / "cwd") == str(folder):
                found.append(int(entry.name))
        except OSError:  # it has ended
            continue
    return [number for number in found if is_running(number)]


STAGES = {
    "while the input is read": lambda folder, socket: True,
    "when i-PI has been started": lambda folder, socket: (folder / "water.i-pi.log").exists(),
    "when i-PI listens": lambda folder, socket: socket.exists(),
    "when clients have been started": lambda folder, socket: (folder / "water.client-1.log").exists(),
}


@pytest.mark.parametrize("stage", STAGES)
def test_interrupted_at_every_stage(tmp_path, stage):
    """The first steps and the end of a run are interrupted elsewhere."""
    path = write_water(tmp_path / "run")
    number = signal.SIGTERM if stage == "when i-PI listens" else signal.SIGINT
    folder, address = path.parent, re.search("<address> (.*?) <", path.read_text())[1]
    with subprocess.Popen(
        [sys.executable, "-m", "pidelta", "run", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        wait_for(lambda: STAGES[stage](folder, Path(f"/tmp/ipi_{address}")))
        process.send_signal(number)
        output, _ = process.communicate(timeout=60.0)
    assert "Traceback" not in output
    assert process.returncode in (130, -number), output
    wait_for(lambda: not processes_of(folder), 10.0)
    assert not Path(f"/tmp/ipi_{address}").exists()
    assert not (folder / ".pidelta-run").exists()


def test_a_folder_that_cannot_be_written_to(tmp_path, fail):
    """Root may write everywhere, so something stands where the first file is to be."""
    path = write_water(tmp_path / "run", 3)
    (path.parent / ".pidelta-run").mkdir()
    assert re.search(r"\.pidelta-run: Is a directory$", fail("run", path))
    assert not (path.parent / "water.i-pi.log").exists()
