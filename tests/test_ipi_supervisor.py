"""The supervisor with real i-PI processes: a full run, interruption and continuation, and failures."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ipi_support import unique_address, write_input
from pidelta.analysis.ipi_output import PropertiesFollower, read_properties
from pidelta.errors import RunError, SetupError
from pidelta.ipi import supervisor as supervisor_module
from pidelta.ipi.simulation import read_simulation
from pidelta.ipi.supervisor import Supervisor
from pidelta.ipi.watchdog import is_running

SUPPORT = Path(__file__).with_name("ipi_support.py")
SECOND_SOCKET = "<ffsocket name='dftb' mode='unix' pbc='false'> <address> {} </address> </ffsocket>"


def supervise(path, behaviour="serve", n_clients=1, restarts=0):
    simulation = read_simulation(path)
    counts = {ffsocket.name: n_clients for ffsocket in simulation.forces.sockets}
    command = [sys.executable, str(SUPPORT), behaviour]
    return Supervisor(simulation, command, counts, restarts=restarts)


def wait_for_end(supervisor, seconds=60.0):
    deadline = time.monotonic() + seconds
    while supervisor.is_running():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_run_with_two_forcefields_and_two_clients(tmp_path):
    second = unique_address()
    path = write_input(
        tmp_path,
        address=unique_address(),
        ff_name="mm",
        n_beads=2,
        dynamics="nvt",
        extra_xml=SECOND_SOCKET.format(second),
    )
    path.write_text(path.read_text().replace("</forces>", "<force forcefield='dftb'/> </forces>"))
    # A socket that a killed i-PI left behind.
    stale = Path(f"/tmp/ipi_{second}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(stale))
    with supervise(path, n_clients=2) as supervisor:
        wait_for_end(supervisor)
        assert supervisor.finished()
    assert supervisor.last_step() == 20
    assert len(supervisor.client_summaries()) == 4
    # 21 evaluations of 2 beads by each of the two forcefields.
    assert sum(summary.structures for summary in supervisor.client_summaries()) == 84
    assert [log.name for log in supervisor.logs] == [
        "sim.i-pi.log",
        *(f"sim.client-{k}.log" for k in range(1, 5)),
    ]
    assert [log.read_text().splitlines()[0] for log in supervisor.logs[1:]] == ["mm", "mm", "low", "low"]
    assert not stale.exists()


def test_interrupted_run_continues_where_it_stopped(tmp_path):
    steps = 30
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
        write_input(folder, address=unique_address(), steps=steps)
    with supervise(whole / "input.xml") as supervisor:
        wait_for_end(supervisor)

    with supervise(parts / "input.xml", "slow") as supervisor:
        wait_for_step(parts, supervisor, 5)
        supervisor.stop()
        assert not supervisor.finished()
    stopped_at = supervisor.last_step()
    assert 5 <= stopped_at < steps

    with supervise(parts / "RESTART") as supervisor:
        wait_for_end(supervisor)
        assert supervisor.finished()
    one, two = (read_properties(folder / "sim.out").columns for folder in (whole, parts))
    np.testing.assert_array_equal(two["step"], np.arange(steps + 1))
    np.testing.assert_allclose(two["potential"], one["potential"], rtol=1e-9)
    np.testing.assert_allclose(two["conserved"], one["conserved"], rtol=1e-9)
    with pytest.raises(SetupError, match="nothing left to run"):
        read_simulation(parts / "RESTART")


def wait_for_step(folder, supervisor, step=2, seconds=60.0):
    follower, row = PropertiesFollower(folder / "sim.out"), None
    deadline = time.monotonic() + seconds
    while row is None or row["step"] < step:
        assert time.monotonic() < deadline
        assert supervisor.is_running()
        row = follower.latest() or row
        time.sleep(0.02)


def test_killed_client_is_reported_and_the_run_can_go_on(tmp_path):
    path = write_input(tmp_path, address=unique_address(), steps=1000)
    message = r"^client 1 was killed by signal SIGKILL; see .*sim\.client-1\.log$"
    with supervise(path, "slow") as supervisor:
        wait_for_step(tmp_path, supervisor)
        supervisor._clients[0].child.process.kill()
        with pytest.raises(RunError, match=message):
            wait_for_end(supervisor)
    assert not any(is_running(child.process.pid) for child in supervisor._children())
    state = supervisor.saved_state()
    assert (state.path.name, state.step >= 2) == ("RESTART", True)


def test_clients_that_die_are_started_again(tmp_path):
    """Each after 7 requests, of two beads in a batch or one by one, and the trajectory is the same."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, behaviour, restarts in ((whole, "serve", 0), (parts, "mortal", 9)):
        folder.mkdir()
        path = write_input(folder, address=unique_address(), n_beads=4, batch_size=2, dynamics="nvt")
        with supervise(path, behaviour, n_clients=2, restarts=restarts) as supervisor:
            wait_for_end(supervisor)
            assert supervisor.finished()
    # 21 evaluations of 4 beads are 42 batches, and a client does 7
    assert len(supervisor.restarted) in (4, 5, 6)
    assert supervisor.client_summaries() == []
    for line in supervisor.restarted:
        assert re.match(r"client [12] was killed by signal SIGKILL; see .*\.client-[12]\.log$", line)
    one, two = (read_properties(folder / "sim.out").columns for folder in (whole, parts))
    for name in ("step", "potential", "conserved"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-12)
    assert not list(parts.glob("*.status*"))


def test_a_client_that_dies_while_it_waits(tmp_path):
    """i-PI notices when it has something for it: that goes to the next client."""
    xml = SECOND_SOCKET.format(unique_address())
    path = write_input(tmp_path, address=unique_address(), ff_name="mm", extra_xml=xml, steps=200)
    path.write_text(path.read_text().replace("</forces>", "<force forcefield='dftb'/> </forces>"))
    with supervise(path, restarts=1) as supervisor:
        wait_for_step(tmp_path, supervisor)
        waiting, working = (client.child.process for client in supervisor._clients)
        working.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        waiting.kill()
        time.sleep(0.3)
        working.send_signal(signal.SIGCONT)
        wait_for_end(supervisor)
        assert supervisor.finished()
    assert len(supervisor.restarted) == 1
    np.testing.assert_array_equal(read_properties(tmp_path / "sim.out").columns["step"], np.arange(201))


def test_what_ipi_does_not_bear(tmp_path):
    """A client that dies before it has read what was sent to it; all start again from the last step."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, behaviour in ((whole, "serve"), (parts, "deaf")):
        folder.mkdir()
        path = write_input(folder, address=unique_address(), n_beads=2, dynamics="nvt")
        with supervise(path, behaviour, restarts=1) as supervisor:
            wait_for_end(supervisor)
            assert supervisor.finished()
        pids = [child.process.pid for child in supervisor._children()]
    (line,) = supervisor.restarted
    assert re.match(r"i-PI lost a client \(ConnectionResetError: .*; log: .*sim\.i-pi\.log\)$", line)
    assert not any(map(is_running, pids))
    one, two = (read_properties(folder / "sim.out").columns for folder in (whole, parts))
    for name in ("step", "potential", "conserved"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-9)


def test_the_number_of_restarts_is_limited(tmp_path):
    path = write_input(tmp_path, address=unique_address(), steps=1000)
    message = r"^client 1 was killed by signal SIGKILL; .*; clients were started again 2 times before$"
    with supervise(path, "mortal", restarts=2) as supervisor, pytest.raises(RunError, match=message):
        wait_for_end(supervisor)
    assert supervisor.saved_state().step >= 18  # 7 requests each, but for the first structure and the last
    assert not any(is_running(child.process.pid) for child in supervisor._children())


def test_clients_that_die_at_once_are_not_started_for_ever(tmp_path):
    path = write_input(tmp_path, address=unique_address())
    message = (
        r"^client 1 was killed by signal SIGKILL; .*; so did the one before it, and neither had answered"
    )
    with supervise(path, "die", restarts=100) as supervisor, pytest.raises(RunError, match=message):
        wait_for_end(supervisor)
    assert len(supervisor.restarted) == 1


def test_one_run_a_folder(tmp_path):
    path = write_input(tmp_path, address=unique_address(), steps=1000)
    other = tmp_path / "other.xml"
    other.write_text(path.read_text().replace(path.stem, "other"))
    with supervise(path) as supervisor:
        log = (tmp_path / "sim.i-pi.log").stat().st_ino
        message = (
            rf"expected no other run in this folder, found that of input\.xml \(process {os.getpid()}\)$"
        )
        with pytest.raises(SetupError, match=message), supervise(other):
            pass
        supervisor.is_running()
        assert (tmp_path / "sim.i-pi.log").stat().st_ino == log
        supervisor.stop()
    assert not (tmp_path / ".pidelta-run").exists()
    # What a run leaves that was killed with its watchdog holds nobody up.
    (tmp_path / ".pidelta-run").write_text("1 input.xml")
    with supervise(write_input(tmp_path, address=unique_address(), steps=1)) as supervisor:
        wait_for_end(supervisor)


def test_logs_of_an_earlier_run_are_kept(tmp_path):
    for text in ("first", "second"):
        path = write_input(tmp_path, address=unique_address(), steps=1)
        (tmp_path / "sim.client-1.log").write_text(text)
        with supervise(path) as supervisor:
            wait_for_end(supervisor)
            kept = [log.name for log in supervisor.kept]
    assert kept == ["#sim.i-pi.log#0#", "#sim.client-1.log#1#"]
    assert (tmp_path / "#sim.client-1.log#0#").read_text() == "first"
    assert (tmp_path / "#sim.client-1.log#1#").read_text() == "second"


PARENT = """
import sys, time
from pathlib import Path
from test_ipi_supervisor import supervise
with supervise(Path(sys.argv[1]), "slow") as supervisor:
    print(*(child.process.pid for child in supervisor._children()), flush=True)
    time.sleep(60.0)
"""


def test_killed_supervisor_leaves_nothing_behind(tmp_path):
    address = unique_address()
    path = write_input(tmp_path, address=address, steps=1000)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        children = [int(word) for word in parent.stdout.readline().split()]
        assert len(children) == 2
        follower, deadline = PropertiesFollower(tmp_path / "sim.out"), time.monotonic() + 60.0
        while (follower.latest() or {"step": 0})["step"] < 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert all(map(is_running, children))
        parent.send_signal(signal.SIGKILL)
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, children))
    # i-PI was given the time to save its state, and to remove its socket.
    assert read_simulation(tmp_path / "RESTART").step >= 1
    assert not Path(f"/tmp/ipi_{address}").exists()
    with supervise(write_input(tmp_path, address=unique_address(), steps=1)) as supervisor:
        wait_for_end(supervisor)


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))


def test_full_disk(tmp_path, monkeypatch):
    """A limit to the size of files, which i-PI meets in its trajectories as it would meet a full disk."""
    address = unique_address()
    path = write_input(tmp_path, address=address, steps=100_000)
    checkpoint = "<checkpoint filename='chk' stride='10'/> </output>"
    path.write_text(path.read_text().replace("</output>", checkpoint))
    started = subprocess.Popen

    def limited(command, **options):
        limits = {} if str(SUPPORT) in command else {"preexec_fn": limit_file_size}
        return started(command, **options, **limits)

    monkeypatch.setattr(subprocess, "Popen", limited)
    with (
        supervise(path) as supervisor,
        pytest.raises(RunError, match=r"^i-PI: .*File too large.* \(exit code 1, log: .*\)$"),
    ):
        wait_for_end(supervisor)
    state = supervisor.saved_state()
    assert state.path.name in ("RESTART", "sim.chk")
    assert state.step >= 10
    assert not Path(f"/tmp/ipi_{address}").exists()


def test_failing_client_is_reported_and_ipi_stopped(tmp_path):
    path = write_input(tmp_path, address=unique_address())
    message = r"^client 1: pidelta: model\.pt: expected a model, found nothing \(exit code 2, log: .*\)$"
    with supervise(path, "fail", restarts=3) as supervisor, pytest.raises(RunError, match=message):
        wait_for_end(supervisor)
    assert supervisor.restarted == []
    assert all(child.process.poll() is not None for child in supervisor._children())


def test_failing_ipi_is_reported(tmp_path):
    path = write_input(tmp_path, address=unique_address(), extra_xml="<nonsense/>")
    of_another_run = tmp_path / "RESTART"
    of_another_run.write_text("<simulation> <step> 20 </step> </simulation>")
    os.utime(of_another_run, (1e9, 1e9))
    with (
        supervise(path) as supervisor,
        pytest.raises(RunError, match=r"^i-PI: .*nonsense.*exit code 1") as caught,
    ):
        wait_for_end(supervisor)
    assert "\n" not in str(caught.value)
    assert supervisor.last_step() is None


def test_clients_that_are_sent_away(tmp_path, monkeypatch):
    """One that ends well while i-PI goes on, as after its timeout: i-PI would wait for ever."""
    monkeypatch.setattr(supervisor_module, "_CLIENT_GONE_SECONDS", 0.5)
    path = write_input(tmp_path, address=unique_address())
    message = r"^i-PI sent client 1 away and goes on; see .*i-pi\.log; so did the one before it"
    with supervise(path, "leave", restarts=3) as supervisor, pytest.raises(RunError, match=message):
        wait_for_end(supervisor)
    assert len(supervisor.restarted) == 1


@pytest.mark.parametrize(("mode", "prefix"), [("unix", "{}/ipi_"), ("unix", "ipi_"), ("inet", "{}/ipi_")])
def test_address_in_use(tmp_path, mode, prefix):
    """A relative prefix counts from the folder that i-PI runs in."""
    address = unique_address() if mode == "unix" else "localhost"
    with socket.socket(socket.AF_UNIX if mode == "unix" else socket.AF_INET) as server:
        server.bind(f"{tmp_path}/ipi_{address}" if mode == "unix" else (address, 0))
        server.listen()
        port = 31415 if mode == "unix" else server.getsockname()[1]
        path = write_input(tmp_path, address=address, mode=mode, port=port)
        path.write_text(
            path.read_text().replace("<simulation", f"<simulation sockets_prefix='{prefix.format(tmp_path)}'")
        )
        expected = "another i-PI is listening there" if mode == "unix" else f"localhost:{port}: it is in use"
        with pytest.raises(SetupError, match=expected), supervise(path):
            pass
    assert not (tmp_path / "sim.i-pi.log").exists()
