"""`pidelta run` and `pidelta client` as a user meets them: uracil by DFTB3 in vacuum, under i-PI."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from conftest import ROOT
from ipi_support import unique_address
from pidelta.analysis.ipi_output import PropertiesFollower, read_properties
from pidelta.cli.main import main


@pytest.fixture
def folder(tmp_path):
    """A folder with a structure, a configuration and an i-PI input."""
    structure = (ROOT / "examples" / "uracil.xyz").read_text().splitlines()
    (tmp_path / "uracil.xyz").write_text("\n".join(structure) + "\n")
    structure[1] = "# positions{angstrom} cell{angstrom} CELL(abcABC): 20 20 20 90 90 90"
    (tmp_path / "init.xyz").write_text("\n".join(structure) + "\n")
    (tmp_path / "pidelta.yaml").write_text(
        "structure: uracil.xyz\nqm:\n  atoms: all\n  dftb: {parameters: builtin}\n"
    )
    (tmp_path / "input.xml").write_text(f"""<simulation verbosity='low'>
  <output prefix='ura'>
    <properties filename='out' stride='1'>
      [ step, time{{picosecond}}, conserved{{electronvolt}}, temperature{{kelvin}}, potential ]
    </properties>
    <trajectory filename='pos' stride='2'> positions{{angstrom}} </trajectory>
  </output>
  <total_steps> 300 </total_steps>
  <ffsocket name='dftb' mode='unix' pbc='false'>
    <address> {unique_address()} </address> <batch_size> 2 </batch_size>
  </ffsocket>
  <system>
    <initialize nbeads='2'>
      <file mode='xyz'> init.xyz </file> <velocities mode='thermal' units='kelvin'> 300 </velocities>
    </initialize>
    <forces> <force forcefield='dftb'/> </forces>
    <ensemble> <temperature units='kelvin'> 300 </temperature> </ensemble>
    <motion mode='dynamics'>
      <dynamics mode='nve'> <timestep units='femtosecond'> 0.25 </timestep> </dynamics>
    </motion>
  </system>
</simulation>
""")
    return tmp_path


def fail(monkeypatch, capsys, *arguments):
    """Run the command line in this process and return its one line on standard error."""
    monkeypatch.setattr(sys, "argv", ["pidelta", *(str(argument) for argument in arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_problems_of_run_are_one_line(folder, monkeypatch, capsys):
    path = folder / "input.xml"
    text = path.read_text()
    assert "none.xml: cannot read the i-PI input" in fail(monkeypatch, capsys, "run", folder / "none.xml")
    path.write_text(text.replace("</system>", "", 1))
    assert "expected well-formed XML" in fail(monkeypatch, capsys, "run", path)
    path.write_text(text.replace("ffsocket", "fflj"))
    assert "expected an <ffsocket>" in fail(monkeypatch, capsys, "run", path)
    path.write_text(text)
    lines = (folder / "init.xyz").read_text().splitlines()
    lines[2], lines[3] = lines[3], lines[2]
    (folder / "init.xyz").write_text("\n".join(lines) + "\n")
    assert "init.xyz: the order of atoms differs" in fail(monkeypatch, capsys, "run", path)
    shutil.move(folder / "pidelta.yaml", folder / "other.yaml")
    assert "pidelta.yaml: no such file" in fail(monkeypatch, capsys, "run", path)
    assert "order of atoms" in fail(monkeypatch, capsys, "run", path, "--config", folder / "other.yaml")


def test_client_without_ipi(folder, monkeypatch, capsys):
    arguments = ["client", folder / "pidelta.yaml", "--address", unique_address(), "--patience", "0.1"]
    assert "no i-PI is listening at unix:/tmp/ipi_pidelta-test" in fail(monkeypatch, capsys, *arguments)


@pytest.mark.slow
def test_interrupted_and_continued(folder):
    command = [sys.executable, "-m", "pidelta", "run"]
    options = {"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    options["env"] = {**os.environ, "COLUMNS": "100"}
    follower, deadline = PropertiesFollower(folder / "ura.out"), time.monotonic() + 120.0
    with subprocess.Popen([*command, "input.xml"], **options) as process:
        try:
            row = None
            while row is None or row["step"] < 5:
                assert process.poll() is None
                assert time.monotonic() < deadline
                row = follower.latest() or row
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60.0)
        finally:
            process.kill()
    assert process.returncode == 130, output
    assert "continue with: pidelta run RESTART" in output
    stopped_at = read_properties(folder / "ura.out").columns["step"][-1]
    assert 5 <= stopped_at < 300

    completed = subprocess.run([*command, "RESTART"], timeout=180.0, check=False, **options)
    assert completed.returncode == 0, completed.stdout
    for text in ("simulated time", "0.075 ps", "drift of the conserved quantity", "force time per step"):
        assert text in completed.stdout
    properties = read_properties(folder / "ura.out").columns
    assert properties["step"].tolist() == list(range(301))
    assert abs(properties["conserved"] - properties["conserved"][0]).max() < 0.02
    for picture in ("ura-thermo.png", "ura-distributions.png"):
        assert (folder / picture).stat().st_size > 10_000


@pytest.mark.slow
def test_failing_client_ends_the_run(folder):
    config = folder / "pidelta.yaml"
    config.write_text(config.read_text().replace("builtin", str(folder)))
    command = [sys.executable, "-m", "pidelta", "run", "input.xml"]
    completed = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120.0, check=False
    )
    assert completed.returncode == 2
    assert completed.stderr.startswith("pidelta: client 1: pidelta: ")
    assert len(completed.stderr.strip().splitlines()) == 1
