"""Which saved state a run goes on from, and what must be as it was for that."""

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from ipi_support import unique_address, write_input, write_water
from pidelta import ipi_pes
from pidelta.config import load_config
from pidelta.errors import SetupError
from pidelta.ipi.edits import check_unchanged
from pidelta.ipi.saved_states import newest_state
from pidelta.ipi.simulation import read_simulation
from pidelta.run_record import RECORD_VARIABLE, check_configuration, keep_configuration, record_path


def write_state(folder, name, prefix, step, time):
    path = folder / name
    path.write_text(f"<simulation><output prefix='{prefix}'/><step> {step} </step></simulation>")
    os.utime(path, (time, time))


def test_states_that_ipi_moved_aside(tmp_path):
    """The newest one of the input, where RESTART is of another; beside a RESTART of its own they are old."""
    path = write_water(tmp_path / "water")
    folder, simulation = path.parent, read_simulation(path)
    write_state(folder, "RESTART", "other", 3, 3000)
    assert newest_state(simulation) is None
    write_state(folder, "#RESTART#0#", "water", 1, 1000)
    write_state(folder, "#RESTART#10#", "water", 2, 2000)
    write_state(folder, "#RESTART#2#", "other", 4, 4000)
    found = newest_state(simulation)
    assert (found.path.name, found.step) == ("#RESTART#10#", 2)
    write_state(folder, "RESTART", "water", 5, 500)  # a folder that was copied has other times
    assert newest_state(simulation).path.name == "RESTART"


INPUTS = Path(__file__).parent.parent / "inputs"
SHIPPED = [
    "zundel/pimd.xml",
    "pimd/piglet.xml",
    "pimd/direct.xml",
    "uracil-water/npt.xml",
    "mts/contracted.xml",
    "replica-exchange/remd.xml",
    "committee/baseline.xml",
    "committee/members.xml",
]


# In a process of its own: i-PI leaves files open.
SAVE = """
import os, sys
from pathlib import Path
from ipi.engine.simulation import Simulation
from ipi.inputs.simulation import InputSimulation

inputs, states, *names = sys.argv[1:]
for name in names:
    os.chdir((Path(inputs) / name).parent)
    simulation = Simulation.load_from_xml((Path(inputs) / name).read_text(), read_only=True)
    state = InputSimulation()
    state.store(simulation)
    folder = Path(states) / name
    folder.mkdir(parents=True)
    (folder / "RESTART").write_text(state.write("simulation"))
os._exit(0)
"""


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """A folder with the state that i-PI has of each input before its first step, as it writes it."""
    folder = tmp_path_factory.mktemp("states")
    command = [sys.executable, "-c", SAVE, str(INPUTS), str(folder), *SHIPPED]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.mark.parametrize("name", SHIPPED)
def test_inputs_that_ship_are_as_ipi_saves_them(name, states):
    assert check_unchanged(INPUTS / name, states / name / "RESTART") == []


@pytest.fixture(scope="module")
def npt():
    return (INPUTS / "uracil-water" / "npt.xml").read_text()


@pytest.mark.parametrize(
    ("pattern", "new", "message"),
    [
        (r"> 0.5 </timestep>", "> 1.0 </timestep>", "<timestep> of <dynamics>: expected 0.5 femtosecond"),
        (
            r"> 300 </temp",
            "> 310 </temp",
            "<temperature> of <ensemble>: expected 300 kelvin",
        ),
        (r"> 0.1 </pres", "> 0.2 </pres", "<pressure> of <ensemble>: expected 0.1 megapascal"),
        (r"mode='isotropic'", "mode='flexible'", "mode of <barostat>: expected isotropic"),
        (r"mode='svr'", "mode='langevin'", "mode of <thermostat>: expected svr"),
        (
            r"> 200 </tau>",
            "> 250 </tau>",
            "<tau> of <barostat>: expected 200 femtosecond as in",
        ),
        (
            r"<force forcefield='(.*?)'",
            r"<force forcefield='\1' weight='0.5'",
            "weight of <force forcefield=",
        ),
        ("(<force forcefield='.*?')", r"\1 nbeads='1'", "nbeads of <force forcefield="),
        (r"<timestep", "<nmts> [ 2 ] </nmts> <timestep", "<nmts> of <dynamics>: expected [ 1 ]"),
        (r"<dynamics", "<fixatoms> [ 4 ] </fixatoms> <dynamics", "expected True as in RESTART, found False"),
        (r"nbeads='1'", "nbeads='2'", "nbeads of <initialize>: expected 1 as in RESTART, found 2"),
        (
            r"</initialize>",
            "<masses index='0'> [ 9 ] </masses></initialize>",
            "<masses>: expected 25532.73 electron masses as in RESTART, found 9",
        ),
        (r"<output (.*?)>", r"<output \1><trajectory filename='new'> forces </trajectory>", "found forces"),
        (r"(<ffsocket.*?>)", r"\1<parameters> {terms: mm} </parameters>", "<parameters> of <ffsocket"),
        (r"> 0.5 </timestep>", "> half </timestep>", "expected an input that i-PI reads, found: "),
    ],
)
def test_edits_that_ipi_would_ignore_are_refused(npt, states, tmp_path, pattern, new, message):
    state = states / "uracil-water/npt.xml/RESTART"
    edited, count = re.subn(pattern, new, npt, count=1)
    assert count == 1
    path = tmp_path / "edited.xml"
    path.write_text(edited)
    with pytest.raises(SetupError) as error:
        check_unchanged(path, state)
    line = str(error.value)
    assert line.startswith(f"{path}: ")
    assert message in line
    assert "\n" not in line


def test_edits_that_change_nothing_but_the_work_are_noted(npt, states, tmp_path):
    state = states / "uracil-water/npt.xml/RESTART"
    edited = re.sub("(<ffsocket.*?>)", r"\1 <timeout> 600 </timeout>", npt, count=1)
    edited = re.sub("<total_steps>.*?<", "<total_steps> 99999 <", edited)
    edited = re.sub(
        "<timestep.*?</timestep>", "<timestep> 20.6706865 </timestep>", edited
    )  # the same, in a.u.
    path = tmp_path / "edited.xml"
    path.write_text(edited)
    (note,) = check_unchanged(path, state)
    assert re.search(
        "<timeout> of <ffsocket .*>: i-PI goes on with the default 0.0 as in RESTART, not 600", note
    )


def test_files_that_an_input_names_are_in_the_folder_that_ipi_runs_in(tmp_path):
    """Also where the input is a link to a file elsewhere."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "run"
    for each in (elsewhere, folder):
        each.mkdir()
    springs = (
        "<ffdebye name='d'> <hessian mode='file' shape='(12, 12)'> hessian </hessian> "
        "<x_reference mode='file'> reference </x_reference> </ffdebye>"
    )
    write_input(elsewhere, address="x", extra_xml=springs)
    np.savetxt(folder / "hessian", np.eye(12))
    np.savetxt(folder / "reference", np.zeros(12))
    path = folder / "input.xml"
    path.symlink_to(elsewhere / "input.xml")
    assert check_unchanged(path, path) == []


def test_replicas_that_were_exchanged_are_those_of_the_input(states):
    path = INPUTS / "replica-exchange" / "remd.xml"
    text = (states / "replica-exchange/remd.xml/RESTART").read_text()
    state = states / "exchanged"
    first, second, *_ = re.findall("<temperature>.*?</temperature>", text)
    assert first != second
    exchanged = text.replace(first, "first").replace(second, first).replace("first", second)
    state.write_text(exchanged)
    with pytest.raises(SetupError, match="<temperature> of <ensemble>: expected 430 kelvin as in exchanged"):
        check_unchanged(path, state)
    exchanged, count = re.subn("(<remd>)", r"\1 <repindex> [ 1, 0, 2, 3 ] </repindex>", exchanged)
    assert count == 1
    state.write_text(exchanged)
    assert check_unchanged(path, state) == []


def test_a_run_goes_on_with_the_configuration_it_began_with(tmp_path):
    """Also in another folder; a change is one line with its key; a run of before has a note."""
    path = write_water(tmp_path / "one")

    def keep(folder, step, terms=("mm",)):
        text = path.read_text().replace("<total_steps>", f"<step> {step} </step><total_steps>")
        (folder / "state.xml").write_text(text)
        return keep_configuration(
            read_simulation(folder / "state.xml"), load_config(folder / "pidelta.yaml"), terms
        )

    assert "is new" in keep(path.parent, 5)
    assert keep(path.parent, 0) == ""
    folder = path.parent.rename(tmp_path / "two")
    path = folder / "input.xml"
    assert keep(folder, 5) == ""
    config = folder / "pidelta.yaml"
    config.write_text(config.read_text().replace("q-spc-fw", "q-spc-fw, threads: 2"))
    assert keep(folder, 5) == ""

    def refused(*arguments):
        with pytest.raises(SetupError) as error:
            keep(folder, 5, *arguments)
        return str(error.value)

    assert "terms: expected mm as when the run began (water.configuration.json), found mm+low" in refused(
        ["mm", "low"]
    )
    config.write_text(config.read_text().replace("threads: 2", "cutoff: 0.9 nm"))
    assert f"{config}: mm.cutoff: expected the default as when the run began" in refused()
    config.write_text(config.read_text().replace(", cutoff: 0.9 nm", ""))
    structure = folder / "water.xyz"
    structure.write_text(structure.read_text().replace("0.96", "0.97"))
    assert "structure: expected water.xyz as when" in refused()
    assert refused().partition("found ")[2].startswith("water.xyz with other content; undo the edit")
    (folder / "water.configuration.json").write_text(json.dumps([]))
    assert "expected the configuration of a run, found something else" in refused()


@contextmanager
def listening():
    """An address where somebody listens, as i-PI would."""
    address = unique_address()
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(f"/tmp/ipi_{address}")
        server.listen()
        yield address
    Path(f"/tmp/ipi_{address}").unlink()


def test_what_serves_forces_reads_what_the_run_began_with(tmp_path, monkeypatch, fail):
    """Whoever is started in the middle of a run reads the configuration as it is then."""
    path = write_water(tmp_path / "run")
    config, structure = path.parent / "pidelta.yaml", path.parent / "water.xyz"
    simulation = read_simulation(path)
    keep_configuration(simulation, load_config(config), ["mm", "low"])
    monkeypatch.setenv(RECORD_VARIABLE, str(record_path(simulation)))
    check_configuration(load_config(config))
    config.write_text(config.read_text().replace("q-spc-fw", "q-spc-fw, threads: 2"))
    check_configuration(load_config(config))
    text = structure.read_text()
    structure.write_text(text.replace("0.96", "0.97"))
    client = ["client", config, "--address", "nobody", "--patience", "0"]
    assert "pidelta.yaml: structure: expected water.xyz as when the run began" in fail(*client)
    structure.write_text(text)
    config.write_text(config.read_text().replace("q-spc-fw", "q-tip4p-f"))
    changed = "pidelta.yaml: mm.water: expected q-spc-fw as when the run began"
    assert changed in fail(*client)
    monkeypatch.delenv(RECORD_VARIABLE)  # as started by hand, on another host
    with listening() as address:
        assert changed in fail("client", config, "--address", address, "--input", path)
    monkeypatch.setenv(RECORD_VARIABLE, str(record_path(simulation)))
    found = []
    monkeypatch.setattr(ipi_pes, "_end", found.append)
    ipi_pes.PideltaDriver(config=str(config))
    assert changed in str(*found)
