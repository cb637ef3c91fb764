"""A small periodic force field, i-PI inputs, and a client to start as a process, for the tests of i-PI."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from pidelta.errors import PideltaError
from pidelta.ipi.client import serve
from pidelta.ipi.client_status import StatusFile
from pidelta.ipi.transports import SocketTransport, connect
from pidelta.state import Evaluation, Term

NUMBERS = np.array([8, 1, 1, 6])
SYMBOLS = ("O", "H", "H", "C")
POSITIONS = np.array([[0.1, 0.2, 0.3], [1.9, 0.1, -0.2], [-0.5, 1.7, 0.4], [4.0, 3.1, 4.4]])
# Rows; lower triangular with a along x, as i-PI wants it.
CELL = np.array([[9.0, 0.0, 0.0], [1.5, 8.0, 0.0], [-1.0, 2.0, 10.0]])
SHIFTS = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
SPRING, WIDTH, HEIGHT = 0.3, 3.0, 0.02

WATERS = np.array(
    [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [2.9, 0.1, 0.1], [3.2, 0.9, 0.5], [3.3, -0.7, 0.6]]
)


class Images:
    """Springs O-H, and Gaussians between all pairs and their images: they see the cell and its transpose."""

    def __init__(self, numbers=NUMBERS):
        self.numbers = numbers
        self.calls = []
        self.seconds = 0.0
        self.last_call, self.last_signal = None, signal.SIGKILL

    def energy(self, positions, cell):
        """The energy alone, written apart from the derivatives."""
        total = 0.0
        for i, j in ((0, 1), (0, 2)):
            total += 0.5 * SPRING * (np.linalg.norm(positions[i] - positions[j]) - 1.8) ** 2
        for i, j in itertools.combinations(range(len(positions)), 2):
            r = positions[i] - positions[j] + SHIFTS @ cell
            total += HEIGHT * np.exp(-(r**2).sum(axis=1) / WIDTH**2).sum()
        return total

    def evaluate(self, positions, cells):
        time.sleep(self.seconds)
        if len(self.calls) == self.last_call:
            os.kill(os.getpid(), self.last_signal)
        self.calls.append((positions.copy(), None if cells is None else cells.copy()))
        parts = [self._one(r, cell) for r, cell in zip(positions, cells, strict=True)]
        energy, gradient, virial = (np.array(part) for part in zip(*parts, strict=True))
        extra = {"committee_pot": np.stack([energy, energy], axis=1)}
        half = Term(0.5 * energy, 0.5 * gradient, 0.5 * virial)
        dipole = positions.sum(axis=1)
        return Evaluation(
            {"mm": half, "low": half},
            charges=positions[:, :, 0],
            dipole=dipole,
            timings={"all": 0.5},
            properties=extra,
        )

    def _one(self, positions, cell):
        energy, gradient, virial = self.energy(positions, cell), np.zeros_like(positions), np.zeros((3, 3))

        def add(i, j, r, slope_over_r):
            pull = (slope_over_r[:, None] * r).sum(axis=0)
            gradient[i] += pull
            gradient[j] -= pull
            virial[...] -= np.einsum("s,si,sj->ij", slope_over_r, r, r)

        for i, j in ((0, 1), (0, 2)):
            r = positions[i] - positions[j]
            length = np.linalg.norm(r)
            add(i, j, r[None], np.array([SPRING * (length - 1.8) / length]))
        for i, j in itertools.combinations(range(len(positions)), 2):
            r = positions[i] - positions[j] + SHIFTS @ cell
            add(i, j, r, -2.0 / WIDTH**2 * HEIGHT * np.exp(-(r**2).sum(axis=1) / WIDTH**2))
        return energy, gradient, virial


class Swirl(Images):
    """A force that is the gradient of nothing, besides: it turns the last atom around an axis along z."""

    strength = 0.003

    def _one(self, positions, cell):
        energy, gradient, virial = super()._one(positions, cell)
        x, y, _ = positions[3] - POSITIONS[3]
        gradient[3] += self.strength * np.array([-y, x, 0.0])
        return energy, gradient, virial


def unique_address():
    return f"pidelta-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def write_input(
    folder,
    *,
    address,
    mode="unix",
    port=31415,
    batch_size=1,
    n_beads=1,
    steps=20,
    dynamics="nve",
    ff_name="all",
    symbols=SYMBOLS,
    extra_xml="",
):
    """Write init.xyz and input.xml, and return the path of the latter."""
    rows = "\n".join(
        f"{s} {x:.12f} {y:.12f} {z:.12f}" for s, (x, y, z) in zip(symbols, POSITIONS, strict=True)
    )
    (folder / "init.xyz").write_text(
        f"{len(symbols)}\n# positions{{atomic_unit}} cell{{atomic_unit}}\n{rows}\n"
    )
    h = ", ".join(f"{x:.12f}" for x in CELL.T.ravel())
    thermostat = (
        "<thermostat mode='pile_l'><tau units='femtosecond'>50</tau></thermostat>"
        if dynamics == "nvt"
        else ""
    )
    path = folder / "input.xml"
    path.write_text(f"""<simulation verbosity='low' floatformat='%22.14e'>
  <output prefix='sim'>
    <properties filename='out' stride='1'>
      [ step, time{{picosecond}}, conserved, temperature{{kelvin}}, kinetic_cv{{electronvolt}},
        potential, stress_md, kstress_md, volume ]
    </properties>
    <trajectory filename='pos' stride='1'> positions{{angstrom}} </trajectory>
    <trajectory filename='force' stride='1'> forces </trajectory>
    <trajectory filename='extra' stride='1' extra_type='dipole'> extras </trajectory>
  </output>
  <total_steps> {steps} </total_steps>
  <prng><seed>4321</seed></prng>
  <ffsocket name='{ff_name}' mode='{mode}' pbc='false'>
    <address> {address} </address> <port>{port}</port> <batch_size>{batch_size}</batch_size>
  </ffsocket>
  {extra_xml}
  <system>
    <initialize nbeads='{n_beads}'>
      <file mode='xyz' units='atomic_unit'> init.xyz </file>
      <cell mode='manual' units='atomic_unit'> [ {h} ] </cell>
      <velocities mode='thermal' units='kelvin'> 300 </velocities>
    </initialize>
    <forces> <force forcefield='{ff_name}'/> </forces>
    <ensemble> <temperature units='kelvin'> 300 </temperature> </ensemble>
    <motion mode='dynamics'>
      <fixcom>False</fixcom>
      <dynamics mode='{dynamics}'> <timestep units='femtosecond'> 0.25 </timestep> {thermostat} </dynamics>
    </motion>
  </system>
</simulation>
""")
    return path


def write_water(folder, steps=100_000):
    folder.mkdir()
    rows = [f"{s} {x} {y} {z}" for s, (x, y, z) in zip("OHHOHH", WATERS, strict=True)]
    (folder / "water.xyz").write_text("\n".join(["6", "", *rows, ""]))
    (folder / "init.xyz").write_text("\n".join(["6", "# positions{angstrom} cell{angstrom}", *rows, ""]))
    (folder / "pidelta.yaml").write_text("structure: water.xyz\nmm: {water: q-spc-fw}\n")
    path = folder / "input.xml"
    path.write_text(f"""<simulation verbosity='low' floatformat='%22.14e'>
  <output prefix='water'>
    <properties filename='out'> [ step, time{{picosecond}}, conserved, temperature{{kelvin}}, potential ]
    </properties>
    <trajectory filename='pos' stride='20'> positions{{angstrom}} </trajectory>
  </output>
  <total_steps> {steps} </total_steps>
  <prng><seed>7</seed></prng>
  <ffsocket name='pidelta' mode='unix' pbc='false'> <address> {unique_address()} </address> </ffsocket>
  <system>
    <initialize nbeads='1'>
      <file mode='xyz'> init.xyz </file>
      <cell mode='abc' units='angstrom'> [ 30, 30, 30 ] </cell>
      <velocities mode='thermal' units='kelvin'> 300 </velocities>
    </initialize>
    <forces> <force forcefield='pidelta'/> </forces>
    <ensemble> <temperature units='kelvin'> 300 </temperature> </ensemble>
    <motion mode='dynamics'>
      <dynamics mode='nve'> <timestep units='femtosecond'> 0.25 </timestep> </dynamics>
    </motion>
  </system>
</simulation>
""")
    return path


@contextmanager
def running_ipi(path, seconds=90.0):
    """i-PI as a process that a timer kills, so that a test waiting for it ends."""
    script = Path(sys.executable).with_name("i-pi")
    with (path.parent / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(script), path.name], cwd=path.parent, stdout=log, stderr=subprocess.STDOUT
        )
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        process.kill()
        process.wait()


def interrupt(folder, arguments, follower, step=5):
    """Start `pidelta`, press Ctrl-C once i-PI has done some steps, and return what was printed."""
    deadline = time.monotonic() + 120.0
    with subprocess.Popen(
        [sys.executable, "-m", "pidelta", *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            while (follower.latest() or {"step": 0})["step"] < step:
                assert process.poll() is None, process.stdout.read()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60.0)
        finally:
            process.kill()
    assert process.returncode == 130, output
    assert "Traceback" not in output
    return output


def die_before_reading(options):
    """The first client of a run dies in its 12th request, of which it has read nothing."""
    if Path(options["--status"]).with_name("dead").exists():
        return
    receive, positions = SocketTransport.receive_into, []

    def count(transport, buffer):
        if len(buffer) > 100:
            positions.append(1)
        if len(positions) == 12:
            time.sleep(0.3)
            Path(options["--status"]).with_name("dead").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return receive(transport, buffer)

    SocketTransport.receive_into = count


def main(argv):
    """Be a client: the options of `pidelta client` after the name of a behaviour."""
    behaviour, options = argv[0], dict(zip(argv[1::2], argv[2::2], strict=True))
    evaluator = Swirl() if behaviour == "swirl" else Images()
    if behaviour == "fail":
        raise PideltaError("model.pt: expected a model, found nothing")
    if behaviour == "leave":
        return
    if behaviour == "slow":
        evaluator.seconds = 0.1
    if behaviour == "die":
        evaluator.last_call = 0
    if behaviour == "mortal":
        evaluator.last_call = 7
    if behaviour == "hang":
        evaluator.last_call, evaluator.last_signal = 7, signal.SIGSTOP
    if behaviour == "deaf":
        die_before_reading(options)
    transport = connect(
        options["--mode"],
        options["--address"],
        int(options["--port"]),
        sockets_prefix=options["--sockets-prefix"],
        patience=30.0,
    )
    with closing(transport):
        print(options.get("--terms", "all terms"))
        observers = [StatusFile(Path(options["--status"]), {})] if "--status" in options else []
        print(serve(evaluator, transport, observers, on_terms=lambda terms: evaluator).to_json())


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except PideltaError as error:
        print(f"pidelta: {error}", file=sys.stderr)
        sys.exit(2)
