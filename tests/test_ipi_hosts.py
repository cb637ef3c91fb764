"""Clients that reach i-PI by several addresses, as from several hosts: two of the loopback range here."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from conftest import ROOT
from ipi_support import Images, running_ipi, write_input, write_water
from pidelta.ipi.client import ServeSummary, serve
from pidelta.ipi.simulation import read_simulation
from pidelta.ipi.supervisor import _client_options
from pidelta.ipi.transports import connect

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


def test_clients_of_this_host_when_ipi_listens_at_each_address(tmp_path):
    """Not everywhere can one connect to 0.0.0.0."""
    path = write_input(tmp_path, address="0.0.0.0", mode="inet", port=4711)
    options = _client_options(read_simulation(path).forces.sockets[0], "/tmp/ipi_")
    assert options[:6] == ["--mode", "inet", "--address", "localhost", "--port", "4711"]


@linux_alone
@pytest.mark.slow
def test_the_example_for_a_cluster(tmp_path):
    """With a `srun` that starts one task here, and a `hostname` of the loopback range."""
    port = free_port()
    path = write_water(tmp_path / "run", 200)
    inet = f"mode='inet' pbc='false'> <address> 0.0.0.0 </address> <port> {port} </port> </ffsocket>"
    text = re.sub("mode='unix' .*?</ffsocket>", inet, path.read_text())
    path.write_text(text.replace("nbeads='1'", "nbeads='4'"))
    programs = tmp_path / "bin"
    programs.mkdir()
    here = {
        "hostname": "echo 127.0.0.2",
        "srun": 'while [[ $1 == --* ]]; do shift; done; "$@" > ../srun.log 2>&1',
        "pidelta": f'exec {sys.executable} -m pidelta "$@"',
    }
    for name, line in here.items():
        (programs / name).write_text(f"#!/bin/bash\n{line}\n")
        (programs / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NTASKS_PER_NODE": "1",
    }
    script = ROOT / "examples" / "cluster.sbatch"
    done = subprocess.run(
        ["bash", str(script), path.name, str(port)],
        cwd=path.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300.0,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    elsewhere = ServeSummary.from_json((tmp_path / "srun.log").read_text().splitlines()[-1])
    here = ServeSummary.from_json((path.parent / "water.client-1.log").read_text().splitlines()[-1])
    assert elsewhere.end == here.end == "exit"
    assert elsewhere.structures > 0
    assert elsewhere.structures + here.structures == 4 * 201
