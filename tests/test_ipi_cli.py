"""`pidelta run` and `pidelta client` as a user meets them: uracil by DFTB3 in vacuum, under i-PI."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from conftest import ROOT
from ipi_support import interrupt, unique_address, write_water
from pidelta.analysis.ipi_output import PropertiesFollower, read_properties
from pidelta.ipi.supervisor import Supervisor


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


def test_problems_of_run_are_one_line(folder, fail):
    path = folder / "input.xml"
    text = path.read_text()
    assert "none.xml: cannot read the i-PI input" in fail("run", folder / "none.xml")
    path.write_text(text.replace("</system>", "", 1))
    assert "expected well-formed XML" in fail("run", path)
    path.write_text(text.replace("ffsocket", "fflj"))
    assert "expected an <ffsocket>" in fail("run", path)
    path.write_text(text)
    lines = (folder / "init.xyz").read_text().splitlines()
    lines[2], lines[3] = lines[3], lines[2]
    (folder / "init.xyz").write_text("\n".join(lines) + "\n")
    assert "init.xyz: the order of atoms differs" in fail("run", path)
    shutil.move(folder / "pidelta.yaml", folder / "other.yaml")
    assert "pidelta.yaml: no such file" in fail("run", path)
    assert "order of atoms" in fail("run", path, "--config", folder / "other.yaml")


def test_client_without_ipi(folder, fail):
    arguments = ["client", folder / "pidelta.yaml", "--address", unique_address(), "--patience", "0.1"]
    assert "no i-PI is listening at unix:/tmp/ipi_pidelta-test" in fail(*arguments)


@pytest.fixture
def water(tmp_path):
    """A folder with a cluster of flexible water by a force field, which needs no PyTorch: runs in seconds."""
    return write_water(tmp_path / "first")


def test_interrupted_and_continued(water, run, capsys):
    folder = water.parent
    output = interrupt(folder, ["run", "input.xml"], PropertiesFollower(folder / "water.out"))
    stopped_at = int(read_properties(folder / "water.out").columns["step"][-1])
    assert 5 <= stopped_at < 100_000
    restart = folder / "RESTART"
    assert re.search(
        rf"stopped; continue from step ({stopped_at}|{stopped_at + 1}) with: pidelta run RESTART", output
    )
    steps = stopped_at + 20
    text = restart.read_text()
    assert "<total_steps>100000</total_steps>" in text.replace(" ", "")
    restart.write_text(re.sub("<total_steps>.*?</total_steps>", f"<total_steps>{steps}</total_steps>", text))
    assert run("run", restart) == 0
    printed = capsys.readouterr().out
    for words in ("simulated time", "drift of the conserved quantity", "force time per step"):
        assert words in printed

    whole = write_water(folder.parent / "whole", steps)
    (whole.parent / "water-report").mkdir()
    (whole.parent / "water-report" / "report.md").write_text("of an earlier run")
    assert run("run", whole) == 0
    assert "kept water-report of an earlier run: #water-report#0#" in capsys.readouterr().out
    assert (whole.parent / "#water-report#0#" / "report.md").read_text() == "of an earlier run"
    one, two = (read_properties(path.parent / "water.out").columns for path in (whole, water))
    np.testing.assert_array_equal(two["step"], np.arange(steps + 1))
    for name in ("conserved", "potential", "temperature"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-7)
    assert np.ptp(one["conserved"]) < 1e-3
    for picture in ("energies.png", "bonds.png"):
        assert (folder / "water-report" / picture).stat().st_size > 10_000
    assert not list(folder.glob("#water*"))


def test_killed_client_ends_the_run(water, fail, monkeypatch):
    follower = PropertiesFollower(water.parent / "water.out")
    goes_on = Supervisor.is_running

    def kill_a_client(supervisor):
        if (follower.latest() or {"step": 0})["step"] > 5:
            supervisor._clients[0].process.kill()
        return goes_on(supervisor)

    monkeypatch.setattr(Supervisor, "is_running", kill_a_client)
    line = fail("run", water)
    assert re.match(r"pidelta: client 1 was killed by signal SIGKILL; see .*/water\.client-1\.log; ", line)
    assert re.search(r"; continue from step \d+ with: pidelta run .*/RESTART$", line)


def test_failing_client_ends_the_run(water, fail):
    """A cell too small for the cutoff is found by the client, which has the force field."""
    lattice = 'Lattice="12 0 0 0 12 0 0 0 12"'
    structure = water.parent / "water.xyz"
    structure.write_text(structure.read_text().replace("6\n\n", f"6\n{lattice}\n"))
    line = fail("run", water)
    assert line.startswith("pidelta: client 1: pidelta: ")
    assert "exceeds half of the smallest height of the cell" in line
    assert line.endswith(f"; no step was saved: start again with: pidelta run {water}")


def test_terms_are_checked_before_anything_starts(water, fail):
    text = water.read_text()
    water.write_text(text.replace("'pidelta'", "'dftb'"))
    assert "expected terms among mm, found low" in fail("run", water)
    water.write_text(text.replace("<ffsocket name='pidelta'", "<ffsocket name='mmm'"))
    assert "expected a forcefield among mmm, found 'pidelta'" in fail("run", water)
    water.write_text(text.replace("</forces>", "<force forcefield='pidelta'/> </forces>"))
    assert "expected each of mm once, found mm 2 times, by pidelta" in fail("run", water)
    assert not (water.parent / "water.i-pi.log").exists()
