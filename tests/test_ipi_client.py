"""The client against i-PI itself, ASE's socket server and a transport in memory."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import closing

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.socketio import SocketIOCalculator

import pidelta.ipi.transports
from ipi_support import (
    CELL,
    NUMBERS,
    POSITIONS,
    SYMBOLS,
    Images,
    running_ipi,
    unique_address,
    write_input,
    write_water,
)
from pidelta.analysis.ipi_output import read_properties
from pidelta.errors import GeometryError, ProtocolError, SetupError, StructureError, TransportError
from pidelta.ipi.client import ServeSummary, serve
from pidelta.ipi.observers import Alarm, Observer
from pidelta.ipi.served import Served
from pidelta.ipi.transports import LONGEST_SOCKET_PATH, SocketTransport, connect, remove_stale_socket
from pidelta.state import Evaluation, Term
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM, HARTREE_IN_EV


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def strain_derivative(positions, cell):
    """-dE/d(strain) by central differences of the energy alone."""
    energy, step, virial = Images().energy, 1e-5, np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            strain = np.zeros((3, 3))
            strain[i, j] = step
            plus, minus = (np.eye(3) + sign * strain for sign in (1.0, -1.0))
            virial[i, j] = energy(positions @ minus.T, cell @ minus.T) - energy(
                positions @ plus.T, cell @ plus.T
            )
    return virial / (2.0 * step)


class Recorder(Observer):
    def __init__(self):
        self.before_calls, self.after_calls = [], []

    def before(self, positions, cells):
        self.before_calls.append((positions, cells))

    def after(self, positions, cells, evaluation):
        self.after_calls.append((positions, cells, evaluation))


# i-PI's stress is in the order xx yy zz xy xz yz.
VOIGT = ([0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2])


@pytest.mark.parametrize(
    ("mode", "n_beads", "batch_size", "consolidate"),
    [
        ("unix", 1, 1, True),
        ("inet", 2, 1, True),
        ("shm", 1, 1, True),
        ("unix", 4, 4, True),
        ("inet", 4, 3, True),
        ("shm", 4, 3, True),
        ("unix", 2, 1, False),
        ("inet", 1, 1, False),
        ("shm", 2, 1, False),
    ],
)
def test_simulation_by_ipi(tmp_path, monkeypatch, mode, n_beads, batch_size, consolidate):
    """Without `consolidate`, i-PI asks for the status between positions and GETFORCE."""
    steps = 12
    address = "localhost" if mode == "inet" else unique_address()
    port = free_port()
    path = write_input(
        tmp_path,
        address=address,
        mode=mode,
        port=port,
        batch_size=batch_size,
        n_beads=n_beads,
        steps=steps,
        dynamics="nve" if n_beads == 1 else "nvt",
    )
    if not consolidate:
        apart = "<consolidate_messages> False </consolidate_messages> <batch_size>"
        path.write_text(path.read_text().replace("<batch_size>", apart))
    evaluator, seen, send, sent = Images(), Recorder(), SocketTransport.send, []

    def record(transport, data):
        sent.append(bytes(data[:12]).strip())
        send(transport, data)

    monkeypatch.setattr(SocketTransport, "send", record)
    with running_ipi(path) as ipi:
        with closing(connect(mode, address, port, patience=30.0)) as transport:
            summary = serve(evaluator, transport, [seen])
        assert ipi.wait(30.0) == 0

    assert summary.end == "exit"
    assert (b"HAVEDATA" in sent) is not consolidate
    # i-PI may send a batch before all beads have been queued, so there may be more.
    assert summary.requests >= (steps + 1) * -(-n_beads // batch_size)
    assert summary.structures == sum(len(positions) for positions, _ in evaluator.calls)
    assert summary.timings["all"] == pytest.approx(0.5 * summary.requests)
    assert len(seen.before_calls) == len(seen.after_calls) == len(evaluator.calls)
    np.testing.assert_allclose(seen.before_calls[0][0][0], POSITIONS, atol=1e-9)
    np.testing.assert_allclose(seen.before_calls[0][1][0], CELL, atol=1e-9)

    properties = read_properties(tmp_path / "sim.out").columns
    assert len(properties["step"]) == steps + 1
    check_trajectory(tmp_path, n_beads, properties)
    # Padding was not evaluated, so the last structures are the beads of the last step.
    last = np.concatenate([positions for positions, _ in evaluator.calls])[-n_beads:]
    energies = [Images().energy(positions, CELL) for positions in last]
    assert properties["potential"][-1] == pytest.approx(np.mean(energies), rel=1e-10)
    # The extended system of n beads has n times the temperature, and the sum of the virials.
    virial = np.sum([strain_derivative(positions, CELL) for positions in last], axis=0)
    stress = (properties["stress_md"] - properties["kstress_md"])[-1] * properties["volume"][-1]
    np.testing.assert_allclose(stress, virial[VOIGT], rtol=1e-5, atol=1e-8)
    drift = properties["conserved"] - properties["conserved"][0]
    assert np.abs(drift).max() < 2e-4


def check_trajectory(folder, n_beads, properties):
    """Forces, potential and extras that i-PI wrote, against the energies of the positions it wrote."""
    for bead in range(n_beads):
        frames = ase.io.read(folder / f"sim.pos_{bead}.xyz", ":", format="xyz")
        forces = ase.io.read(folder / f"sim.force_{bead}.xyz", ":", format="xyz")
        assert len(frames) == len(forces) == len(properties["step"])
        for index in (0, 5, -1):
            positions = frames[index].positions * ANGSTROM
            expected = -numerical_gradient(positions)
            np.testing.assert_allclose(forces[index].positions, expected, atol=2e-5)
        dipoles = np.loadtxt(folder / f"sim.extra_{bead}")
        np.testing.assert_allclose(dipoles[-1], frames[-1].positions.sum(axis=0) * ANGSTROM, atol=1e-3)


def numerical_gradient(positions, step=1e-4):
    gradient, energy = np.zeros_like(positions), Images().energy
    for index in np.ndindex(positions.shape):
        shift = np.zeros_like(positions)
        shift[index] = step
        gradient[index] = (energy(positions + shift, CELL) - energy(positions - shift, CELL)) / (2.0 * step)
    return gradient


def test_ase_as_server():
    address, result = unique_address(), []

    def run_client():
        with closing(connect("unix", address, 0)) as transport:
            result.append(serve(Images(), transport))

    thread = threading.Thread(target=run_client, daemon=True)
    atoms = Atoms(SYMBOLS, positions=POSITIONS * BOHR_IN_ANGSTROM, cell=CELL * BOHR_IN_ANGSTROM, pbc=True)
    with SocketIOCalculator(unixsocket=address, timeout=20.0) as calculator:
        thread.start()
        atoms.calc = calculator
        for shift in (0.0, 0.1):
            atoms.positions[0, 1] += shift
            positions = atoms.positions / BOHR_IN_ANGSTROM
            energy = Images().energy(positions, CELL) * HARTREE_IN_EV
            assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-8)
            forces = -numerical_gradient(positions) * HARTREE_IN_EV / BOHR_IN_ANGSTROM
            np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-6)
            virial = atoms.get_stress(voigt=False) * -atoms.get_volume()
            np.testing.assert_allclose(virial, strain_derivative(positions, CELL) * HARTREE_IN_EV, atol=1e-6)
    thread.join(10.0)
    assert result[0].requests == 2


class Memory:
    """A transport in memory: chunks to receive (an exception is raised), and what was sent."""

    shared_memory = False

    def __init__(self, *chunks):
        self.chunks = list(chunks)
        self.sent = b""
        self.broken = False

    def receive_into(self, buffer):
        chunk = self.chunks.pop(0) if self.chunks else b""
        if isinstance(chunk, Exception):
            raise chunk
        part, rest = chunk[: len(buffer)], chunk[len(buffer) :]
        buffer[: len(part)] = part
        self.chunks = [rest, *self.chunks] if rest else self.chunks
        return len(part)

    def send(self, data):
        if self.broken:
            raise TransportError("the connection to i-PI broke: Broken pipe")
        self.sent += data

    def close(self):
        pass


def integers(*values):
    return np.array(values, np.int32).tobytes()


def posdata(positions=POSITIONS, cell=CELL):
    matrices = cell.T.tobytes() + np.linalg.inv(cell.T).tobytes()
    return b"POSDATA     " + matrices + integers(len(positions)) + positions.tobytes()


INIT = b"INIT        " + integers(0, 0)
GETFORCE = b"GETFORCE    "
EXIT = b"EXIT        "


def split_reply(data, n_atoms=4):
    """Energy, forces, virial and extras of one single reply, and what follows it."""
    assert data[:12] == b"FORCEREADY  "
    numbers = np.frombuffer(data[12:20])
    assert data[20:24] == integers(n_atoms)
    forces = np.frombuffer(data[24 : 24 + 24 * n_atoms]).reshape(n_atoms, 3)
    rest = data[24 + 24 * n_atoms :]
    virial = np.frombuffer(rest[:72]).reshape(3, 3)
    length = int(np.frombuffer(rest[72:76], np.int32)[0])
    return numbers[0], forces, virial, rest[76 : 76 + length], rest[76 + length :]


def test_extras_are_json_with_terms():
    transport = Memory(INIT + posdata() + GETFORCE, EXIT)
    assert serve(Images(), transport).end == "exit"
    energy, _, _, extras, rest = split_reply(transport.sent)
    content = json.loads(extras.decode())
    assert content["terms"]["mm"] + content["terms"]["low"] == pytest.approx(energy)
    np.testing.assert_allclose(content["dipole"], POSITIONS.sum(axis=0))
    np.testing.assert_allclose(content["charges"], POSITIONS[:, 0])
    assert content["committee_pot"] == [energy, energy]
    assert rest == b""


def test_virial_is_sent_in_row_major_order():
    class Skewed:
        numbers = NUMBERS

        def evaluate(self, positions, cells):
            return Evaluation({"mm": Term(np.zeros(1), np.zeros((1, 4, 3)), np.arange(9.0).reshape(1, 3, 3))})

    transport = Memory(INIT + posdata() + GETFORCE)
    serve(Skewed(), transport)
    np.testing.assert_array_equal(split_reply(transport.sent)[2], np.arange(9.0).reshape(3, 3))


def test_end_of_connection_between_messages_is_clean():
    summary = serve(Images(), Memory(b"STATUS      "))
    assert (summary.end, summary.requests) == ("closed", 0)


def test_end_of_connection_inside_a_message():
    with pytest.raises(TransportError, match="broke inside POSDATA"):
        serve(Images(), Memory(INIT, posdata()[:50]))


def test_exit_while_forces_are_evaluated():
    transport = Memory(INIT + posdata() + GETFORCE, EXIT)
    transport.broken = True
    assert serve(Images(), transport).end == "exit"


def test_connection_lost_while_forces_are_evaluated():
    transport = Memory(INIT + posdata() + GETFORCE)
    transport.broken = True
    with pytest.raises(TransportError, match="Broken pipe"):
        serve(Images(), transport)


def test_wrong_number_of_atoms():
    with pytest.raises(ProtocolError, match="expected 4 as in the structure, i-PI sent 3"):
        serve(Images(), Memory(INIT + posdata(POSITIONS[:3])))


def test_observers_see_positions_before_they_are_evaluated():
    class Refusing(Observer):
        def before(self, positions, cells):
            raise StructureError("atom order")

    evaluator = Images()
    with pytest.raises(StructureError, match="atom order"):
        serve(evaluator, Memory(INIT + posdata() + GETFORCE), [Refusing()])
    assert evaluator.calls == []


def test_observers_see_evaluations_before_they_are_sent():
    class Refusing(Observer):
        def after(self, positions, cells, evaluation):
            assert evaluation.energy.shape == (len(positions),)
            raise GeometryError("too far")

    transport = Memory(INIT + posdata() + GETFORCE)
    with pytest.raises(GeometryError, match="too far"):
        serve(Images(), transport, [Refusing()])
    assert b"FORCEREADY" not in transport.sent


@pytest.mark.parametrize("what", ["energy", "gradient of atom 2"])
def test_results_that_are_not_finite(what):
    class Broken(Images):
        def evaluate(self, positions, cells):
            energy, gradient = np.zeros(1), np.zeros((1, 4, 3))
            if what == "energy":
                energy[0] = np.nan
            gradient[0, 2, 1] = np.inf
            return Evaluation({"mm": Term(energy, gradient, np.zeros((1, 3, 3)))})

    with pytest.raises(GeometryError, match=what):
        serve(Broken(), Memory(INIT + posdata() + GETFORCE))


def test_summary_survives_json():
    alarms = {"delta_extrapolation": Alarm(1.0, structures=4, total=2.0, largest=1.5, above=1)}
    summary = ServeSummary(requests=3, timings={"scc": 0.25}, alarms=alarms, end="exit")
    assert ServeSummary.from_json(summary.to_json()) == summary
    with pytest.raises(ValueError, match="summary"):
        ServeSummary.from_json('{"answer": 42}')


@pytest.mark.parametrize("mode", ["unix", "shm", "inet"])
def test_nobody_listens(mode):
    address, port = ("localhost", free_port()) if mode == "inet" else (unique_address(), 0)
    place = f"inet:localhost:{port}" if mode == "inet" else f"{mode}:/tmp/ipi_{address}"
    with pytest.raises(TransportError, match=f"no i-PI is listening at {place}: start i-PI first") as caught:
        connect(mode, address, port, patience=0.2)
    assert "\n" not in str(caught.value)


def test_waits_for_ipi_to_listen(tmp_path):
    path = tmp_path / "ipi_late"

    def listen():
        time.sleep(0.4)
        server.bind(str(path))
        server.listen()

    with socket.socket(socket.AF_UNIX) as server:
        thread = threading.Thread(target=listen)
        thread.start()
        connect("unix", "late", 0, sockets_prefix=str(tmp_path / "ipi_"), patience=10.0).close()
        thread.join()


def test_unknown_mode_and_host():
    with pytest.raises(SetupError, match="expected unix, shm, inet, found 'mpi'"):
        connect("mpi", "x", 0)
    with pytest.raises(TransportError, match=r"cannot connect to inet:no\.such\.host\.invalid:1"):
        connect("inet", "no.such.host.invalid", 1)


def test_stale_socket_is_removed_and_a_live_one_refused(tmp_path):
    path = tmp_path / "ipi_x"
    remove_stale_socket(str(path))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(SetupError, match="another i-PI is listening there"):
            remove_stale_socket(str(path))
    remove_stale_socket(str(path))
    assert not path.exists()
    path.write_text("a file")
    with pytest.raises(SetupError, match="expected a socket or nothing, found another file"):
        remove_stale_socket(str(path))
    assert path.exists()


def test_socket_transport_reports_a_reset():
    left, right = socket.socketpair()
    transport = SocketTransport(left)
    right.close()
    assert transport.receive_into(memoryview(bytearray(12))) == 0
    with pytest.raises(TransportError, match="the connection to i-PI broke"):
        transport.send(b"x")
    transport.close()


class Part(Images):
    """Half of the energy."""

    def evaluate(self, positions, cells):
        whole = super().evaluate(positions, cells)
        return Evaluation({"mm": whole.terms["mm"]}, properties=whole.properties)


@pytest.mark.parametrize("parameters", [b" terms : mm , ", b"terms:MM,,batch_size:1"])
def test_parameters_of_the_forcefield_choose_terms(parameters):
    asked = []

    def evaluator_of(served):
        asked.append(served.terms)
        return Part()

    init = b"INIT        " + integers(0, len(parameters)) + parameters
    transport = Memory(init + posdata() + GETFORCE, EXIT)
    serve(Images(), transport, on_terms=evaluator_of)
    assert asked == [{"mm"}]
    assert split_reply(transport.sent)[0] == pytest.approx(0.5 * Images().energy(POSITIONS, CELL))


def test_a_forcefield_without_parameters_is_heard_of():
    asked = []
    serve(Images(), Memory(INIT, EXIT), on_terms=lambda served: asked.append(served) or Images())
    assert asked == [Served()]


@pytest.mark.parametrize(
    ("options", "parameters", "line"),
    [
        (
            [],
            b"",
            "serves the whole energy, mm: neither --terms nor the <parameters> of the forcefield name terms",
        ),
        ([], b"batch_size:1", "serves the whole energy, mm: "),
        (["--terms", "mm"], b"", "serves mm\n"),
        ([], b"terms:mm.nonbonded", "serves mm.nonbonded\n"),
    ],
)
def test_a_client_says_what_it_serves(tmp_path, run, capsys, monkeypatch, options, parameters, line):
    """i-PI does not send the name of a forcefield, which a user may have made of terms."""
    folder = write_water(tmp_path / "run").parent
    init = b"INIT        " + integers(0, len(parameters)) + parameters
    monkeypatch.setattr(pidelta.ipi.transports, "connect", lambda *_, **__: Memory(init, EXIT))
    assert run("client", folder / "pidelta.yaml", *options) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith(line)
    assert printed.err.count("\n") == 1
    assert ServeSummary.from_json(printed.out).end == "exit"


def test_the_longest_path_of_a_socket(tmp_path, monkeypatch):
    """What the system itself takes."""
    monkeypatch.chdir(tmp_path)
    path = "x" * LONGEST_SOCKET_PATH
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(path)
    with closing(socket.socket(socket.AF_UNIX)) as listening, pytest.raises(OSError, match="too long"):
        listening.bind(path + "x")


def test_parameters_of_the_forcefield_that_say_nothing():
    init = b"INIT        " + integers(0, 10) + b"term : low"
    with pytest.raises(SetupError, match="forcefield of the i-PI input: <parameters>: expected terms: A"):
        serve(Images(), Memory(init), on_terms=lambda terms: Part())
