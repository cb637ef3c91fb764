"""Clients that reach i-PI by several addresses, as from several hosts: two of the loopback range here."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT
from ipi_support import Images, running_ipi, write_input, write_water
from pidelta.analysis.ipi_output import read_properties
from pidelta.ipi.client import ServeSummary, serve
from pidelta.ipi.simulation import read_simulation
from pidelta.ipi.supervisor import _client_options
from pidelta.ipi.transports import connect

SUPPORT = Path(__file__).with_name("ipi_support.py")

linux_alone = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere 127.0.0.1 alone is the host itself"
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return probe.getsockname()[1]


@linux_alone
@pytest.mark.parametrize("batch_size", [1, 2])
def test_clients_on_two_addresses(tmp_path, batch_size):
    port, summaries = free_port(), []
    path = write_input(
        tmp_path,
        address="0.0.0.0",
        mode="inet",
        port=port,
        n_beads=4,
        steps=10,
        dynamics="nvt",
        batch_size=batch_size,
    )

    def client(address):
        with closing(connect("inet", address, port, patience=30.0)) as transport:
            summaries.append(serve(Images(), transport))

    with running_ipi(path) as ipi:
        threads = [threading.Thread(target=client, args=(f"127.0.0.{k}",)) for k in (2, 3)]
        for thread in threads:
            thread.start()
        assert ipi.wait(60.0) == 0
        for thread in threads:
            thread.join()
    assert [summary.end for summary in summaries] == ["exit", "exit"]
    assert all(summary.requests > 0 for summary in summaries)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_client_that_hangs_is_given_up_by_the_timeout(tmp_path, batch_size):
    """As one whose host is lost: the connection stays, and nothing comes. The others do its work."""
    port, steps, n_beads = free_port(), 20, 4
    path = write_input(
        tmp_path,
        address="localhost",
        mode="inet",
        port=port,
        n_beads=n_beads,
        steps=steps,
        dynamics="nvt",
        batch_size=batch_size,
    )
    path.write_text(path.read_text().replace("<batch_size>", "<timeout> 1.0 </timeout> <batch_size>"))
    options = ["--mode", "inet", "--address", "localhost", "--port", f"{port}", "--sockets-prefix", ""]
    with running_ipi(path) as ipi:
        hanging = subprocess.Popen([sys.executable, SUPPORT, "hang", *options])
        try:
            with closing(connect("inet", "localhost", port, patience=30.0)) as transport:
                summary = serve(Images(), transport)
            assert ipi.wait(30.0) == 0
            assert hanging.poll() is None
        finally:
            hanging.kill()
            hanging.wait()
    assert "died or got unresponsive" in (tmp_path / "log").read_text()
    assert summary.end == "exit"
    assert 0 < summary.structures < n_beads * (steps + 1)  # the other had answered some
    properties = read_properties(tmp_path / "sim.out").columns
    assert len(properties["step"]) == steps + 1
    assert np.ptp(properties["conserved"]) < 2e-4


def test_clients_of_this_host_when_ipi_listens_at_each_address(tmp_path):
    """Not everywhere can one connect to 0.0.0.0."""
    path = write_input(tmp_path, address="0.0.0.0", mode="inet", port=4711)
    options = _client_options(read_simulation(path).forces.sockets[0], "/tmp/ipi_")
    assert options[:6] == ["--mode", "inet", "--address", "localhost", "--port", "4711"]


@linux_alone
@pytest.mark.slow
def test_the_example_for_a_cluster(tmp_path):
    """With a `srun` that starts one task here, and a `hostname` of the loopback range; a client dies."""
    ports = {"mm.bonded": free_port(), "mm.nonbonded": free_port()}
    path = write_water(tmp_path / "run", 1000)
    sockets, forces = (
        "\n".join(text.format(name=name, port=port) for name, port in ports.items())
        for text in (
            "<ffsocket name='{name}' mode='inet' pbc='false'> <address> 0.0.0.0 </address> "
            "<port> {port} </port> </ffsocket>",
            "<force forcefield='{name}'/>",
        )
    )
    text = re.sub("<ffsocket .*?</ffsocket>", sockets, path.read_text())
    text = text.replace("<force forcefield='pidelta'/>", forces)
    path.write_text(text.replace("nbeads='1'", "nbeads='4'"))
    (path.parent / "pidelta.yaml").rename(path.parent / "water.yaml")
    programs = tmp_path / "bin"
    programs.mkdir()
    here = {
        "hostname": "echo 127.0.0.2",
        # as SLURM's, it ends what it started
        "srun": """while [[ $1 == --* ]]; do shift; done
            trap 'kill -- "-$!"' TERM
            ELSEWHERE=1 setsid "$@" > ../srun.log 2>&1 &
            wait""",
        "pidelta": f"""if [[ -v ELSEWHERE ]]; then
                if [[ ! -e ../died ]]; then touch ../died; kill -9 $$; fi
                [[ $* == *"--input input.xml"* ]] && touch ../compared
            fi
            exec {sys.executable} -m pidelta "$@\"""",
    }
    for name, lines in here.items():
        (programs / name).write_text(f"#!/bin/bash\n{lines}\n")
        (programs / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NTASKS_PER_NODE": "1",
    }
    script = ROOT / "examples" / "cluster.sbatch"
    done = subprocess.run(
        ["bash", str(script), path.name, "water.yaml", *(f"{port}:{name}" for name, port in ports.items())],
        cwd=path.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300.0,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "died").exists()
    log = (tmp_path / "srun.log").read_text()
    elsewhere = [ServeSummary.from_json(line) for line in log.splitlines() if line.startswith("{")]
    here = [
        ServeSummary.from_json((path.parent / f"water.client-{number}.log").read_text().splitlines()[-1])
        for number in (1, 2)
    ]
    assert [each.end for each in (*elsewhere, *here)] == ["exit"] * 4
    assert all(each.structures > 0 for each in elsewhere)
    assert sum(each.structures for each in (*elsewhere, *here)) == 2 * 4 * 1001
    assert (tmp_path / "compared").exists()
    for name in ports:
        assert f"serves {name}" in log
