"""`pidelta run` and `pidelta client` as a user meets them: uracil by DFTB3 in vacuum, under i-PI."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from conftest import ROOT
from ipi_support import interrupt, unique_address, write_water
from pidelta.analysis.ipi_output import PropertiesFollower, read_properties
from pidelta.cli.run import check_wrapping, clients_elsewhere
from pidelta.cli.run_report import report
from pidelta.config import load_config
from pidelta.ipi.simulation import read_simulation
from pidelta.ipi.supervisor import Supervisor
from pidelta.setup import Setup


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_clients_that_are_killed(water, run, capsys, monkeypatch):
    """One is started again, as often as is allowed; the next ends the run."""
    follower, goes_on = PropertiesFollower(water.parent / "water.out"), Supervisor.is_running
    kills = [0]  # steps

    def kill_a_client(supervisor):
        step = (follower.latest() or {"step": 0})["step"]
        if (
            len(kills) == len(supervisor.restarted) + 1 and step > kills[-1] + 5
        ):  # the last one has been noticed
            kills.append(step)
            supervisor._clients[0].child.process.kill()
        return goes_on(supervisor)

    monkeypatch.setattr(Supervisor, "is_running", kill_a_client)
    assert run("run", water, "--clients", "1", "--client-restarts", "1") == 2
    out, err = capsys.readouterr()
    # what i-PI makes of it depends on whether the client had read what it was sent
    killed = r"(?:client 1 was killed by signal SIGKILL; see .*|i-PI lost a client \(.*\))"
    assert len(re.findall(rf"^{killed}: started again \(1\)$", out, re.MULTILINE)) == 1
    (line,) = err.splitlines()
    assert re.match(f"pidelta: {killed}; clients were started again once before; ", line)
    command = r"; continue from step \d+ with: pidelta run .*/RESTART --clients 1 --client-restarts 1$"
    assert re.search(command, line)


@pytest.mark.slow
def test_a_configuration_that_changes_while_the_run_goes_on(water, fail, monkeypatch):
    """A client that is started again would read another force field."""
    follower, goes_on = PropertiesFollower(water.parent / "water.out"), Supervisor.is_running
    config, killed = water.parent / "pidelta.yaml", []

    def edit_and_kill(supervisor):
        if not killed and (follower.latest() or {"step": 0})["step"] > 5:
            config.write_text(config.read_text().replace("q-spc-fw", "q-tip4p-f"))
            killed.append(supervisor._clients[0].child.process.kill())
        return goes_on(supervisor)

    monkeypatch.setattr(Supervisor, "is_running", edit_and_kill)
    line = fail("run", water)
    assert "pidelta.yaml: mm.water: expected q-spc-fw as when the run began" in line
    assert re.search(r"; continue from step \d+ with: pidelta run .*/RESTART$", line)


def test_restart(water, run, fail, capsys):
    """Goes on from the newest state of the input, to as many steps as it has now; not from another's."""
    folder = water.parent
    assert fail("run", water, "--restart").endswith(
        "input.xml: --restart: expected RESTART or a checkpoint of an earlier run beside it, found none"
    )
    text = water.read_text()
    (folder / "RESTART").write_text("<simulation><output prefix='other'/><step> 7 </step></simulation>")
    assert "found none" in fail("run", water, "--restart")

    def steps(number):
        water.write_text(text.replace("<total_steps> 100000", f"<total_steps> {number}"))

    steps(10)
    assert run("run", water) == 0
    assert fail("run", water, "--restart").endswith(
        "RESTART: nothing left to run: expected <total_steps> above <step> 10, found 10"
    )
    steps(15)
    steps_only, config = water.read_text(), folder / "pidelta.yaml"
    water.write_text(steps_only.replace("> 0.25 </", "> 0.5 </"))
    assert "<timestep> of <dynamics>: expected 0.25 femtosecond" in fail("run", water, "--restart")
    water.write_text(steps_only)
    config.write_text("structure: water.xyz\nmm: {water: q-tip4p-f}\n")
    assert "mm.water: expected q-spc-fw as when the run began" in fail("run", water, "--restart")
    config.write_text("structure: water.xyz\nmm: {water: q-spc-fw}\n")
    capsys.readouterr()
    assert run("run", water, "--restart") == 0
    assert "goes on from step 10, as saved in" in " ".join(capsys.readouterr().out.split())
    np.testing.assert_array_equal(read_properties(folder / "water.out").columns["step"], np.arange(16))


REPLICAS = """<system_template>
  <labels> [ PREFIX, TEMPERATURE ] </labels>
  <instance> [ cold, 300 ] </instance> <instance> [ hot, 330 ] </instance>
  <template> {} </template>
</system_template>
<smotion mode='remd'> <remd> <stride> 5 </stride> </remd> </smotion>
"""


def write_replicas(path):
    """Make two replicas of the system of an input, which exchange their temperatures."""
    text = path.read_text().replace("<total_steps> 100000", "<total_steps> 20")
    begin, end = text.index("<system>"), text.index("</system>") + len("</system>")
    system = text[begin:end].replace("<system>", "<system prefix='PREFIX'>").replace("'nve'", "'nvt'")
    thermostat = "<thermostat mode='svr'> <tau units='femtosecond'> 10 </tau> </thermostat> </dynamics>"
    system = system.replace(" 300 </", " TEMPERATURE </").replace("</dynamics>", thermostat)
    path.write_text(text[:begin] + REPLICAS.format(system) + text[end:])


def test_each_replica_is_summarised(water):
    """One table, the means of each system under its name: of outputs as i-PI writes them."""
    write_replicas(water)
    for name, kelvin in (("cold", 300), ("hot", 330)):
        rows = [f"{step} {0.25e-3 * step} -1.0 {kelvin} -2.0" for step in range(21)]
        header = ["step", "time{picosecond}", "conserved", "temperature{kelvin}", "potential"]
        lines = [f"# column {place} --> {label}" for place, label in enumerate(header, start=1)]
        (water.parent / f"{name}_water.out").write_text("\n".join([*lines, *rows, ""]))
    simulation, setup = read_simulation(water), Setup(load_config(water.parent / "pidelta.yaml"))
    printed = io.StringIO()
    report(Console(file=printed, width=100), simulation, Supervisor(simulation, [], {}), setup, 1.5)
    rows = [line.split("│")[1:3] for line in printed.getvalue().splitlines() if line.startswith("│")]
    cells = [(name.strip(), value.strip()) for name, value in rows]
    expected = ("cold", ""), ("hot", ""), ("wall time of this run", "1.5 s")
    cold, hot, run = (cells.index(cell) for cell in expected)
    for kelvin, block in (("300 ", cells[cold:hot]), ("330 ", cells[hot:run])):
        found = dict(block)
        assert found["steps"] == "20"
        assert found["temperature"].startswith(kelvin)
        assert found["drift of the conserved quantity"].startswith(("+0", "-0"))


@pytest.mark.slow
def test_replica_exchange_shows_a_row_for_each_system(water, run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    write_replicas(water)
    assert run("run", water) == 0
    output = capsys.readouterr().out
    assert output.index("│ cold ") < output.index("│ hot ") < output.index("wall time of this run")
    for name in ("cold", "hot"):
        rows = read_properties(water.parent / f"{name}_water.out").columns
        (line,) = [line for line in output.splitlines() if line.startswith(name)]
        shown = [float(word) for word in line.split()[1:]]
        last = [rows[column][-1] for column in ("time", "temperature", "conserved")]
        assert shown[:3] == pytest.approx(last, abs=0.05)
        assert shown[3] == pytest.approx(rows["conserved"][-1] - rows["conserved"][0], rel=0.1)


def test_an_optimisation_ends_before_all_steps_are_done(water, run, capsys):
    text = water.read_text()
    begin, end = text.index("<motion"), text.index("</motion>")
    text = text[:begin] + "<motion mode='minimize'> <optimizer mode='bfgs'/>" + text[end:]
    water.write_text(text.replace("<velocities mode='thermal' units='kelvin'> 300 </velocities>", ""))
    assert run("run", water) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "i-PI: Geometry optimization converged. Exiting simulation" in output
    assert "stopped" not in output
    assert "no report: means and errors are those of dynamics" in output
    potential = read_properties(water.parent / "water.out").columns["potential"]
    assert len(potential) < 1000
    assert potential[-1] < potential[0] - 1e-3


def test_failing_client_ends_the_run(water, fail):
    """A cell too small for the cutoff is found by the client, which has the force field."""
    lattice = 'Lattice="12 0 0 0 12 0 0 0 12"'
    structure = water.parent / "water.xyz"
    structure.write_text(structure.read_text().replace("6\n\n", f"6\n{lattice}\n"))
    line = fail("run", water)
    assert line.startswith("pidelta: client 1: pidelta: ")
    assert "exceeds half of the smallest height of the cell" in line
    assert line.endswith(f"; no step was saved: start again with: pidelta run {water}")


def test_atoms_are_not_put_into_a_cell_that_is_none(water, fail):
    water.write_text(water.read_text().replace("pbc='false'", "pbc='True'"))
    line = fail("run", water)
    assert "input.xml: pbc of forcefield 'pidelta': expected false, as" in line
    assert "water.xyz has no cell, found true: i-PI would tear molecules apart" in line
    assert not (water.parent / "water.i-pi.log").exists()
    structure = water.parent / "water.xyz"
    lattice = 'Lattice="30 0 0 0 30 0 0 0 30"'
    structure.write_text(structure.read_text().replace("6\n\n", f"6\n{lattice}\n"))
    check_wrapping(read_simulation(water), Setup(load_config(water.parent / "pidelta.yaml")))


def inet(path, name, address="0.0.0.0", parameters=""):
    """Make the socket of an input one that clients on other hosts may join."""
    text = re.sub("<address>.*?</address>", f"<address>{address}</address>{parameters}", path.read_text())
    path.write_text(text.replace("'pidelta'", f"'{name}'").replace("mode='unix'", "mode='inet'"))


@pytest.mark.parametrize(
    ("name", "parameters", "terms", "told"),
    [
        (
            "low",
            "",
            ("low",),
            "--address HOST --port 65535 --terms low --input input.xml; or add terms: low to its",
        ),
        ("low", "<parameters>{terms: low}</parameters>", ("low",), None),
        ("pidelta", "", ("mm", "low"), None),
        # a run that is about less than the whole energy
        ("pidelta", "", ("mm",), "--terms mm --input input.xml; or add terms: mm"),
    ],
)
def test_what_clients_elsewhere_have_to_be_told(water, monkeypatch, name, parameters, terms, told):
    inet(water, name, parameters=parameters)
    config = SimpleNamespace(terms=("mm", "low"), path=Path("pidelta.yaml"))
    monkeypatch.chdir(water.parent)
    notes = list(clients_elsewhere(read_simulation(Path(water.name)), terms, config))
    assert len(notes) == (told is not None)
    if told is not None:
        assert f"clients of {name} started by hand have to be told its terms: pidelta client" in notes[0]
        assert told in notes[0]


def test_terms_are_checked_before_anything_starts(water, fail):
    text = water.read_text()
    water.write_text(text.replace("'pidelta'", "'dftb'"))
    assert "expected terms among mm, found low" in fail("run", water)
    water.write_text(text.replace("<ffsocket name='pidelta'", "<ffsocket name='mmm'"))
    assert "expected a forcefield among mmm, found 'pidelta'" in fail("run", water)
    water.write_text(text.replace("</forces>", "<force forcefield='pidelta'/> </forces>"))
    assert "expected each of mm once, found mm 2 times, by pidelta" in fail("run", water)
    assert not (water.parent / "water.i-pi.log").exists()
