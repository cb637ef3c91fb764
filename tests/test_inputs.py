"""The folders of inputs/: a README that names the command of each input, and each input runs by it."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from conftest import ROOT
from ipi_support import unique_address
from pidelta.analysis.ipi_output import read_properties
from pidelta.cli.start import check_starts
from pidelta.config import load_config
from pidelta.ipi.conditions import read_conditions
from pidelta.ipi.dynamics_input import Dynamics, write_input
from pidelta.ipi.forcefields import configuration_of
from pidelta.ipi.simulation import read_simulation
from pidelta.setup import Setup
from pidelta.workflow.preparing.ipi_inputs import write_inputs

INPUTS = ROOT / "inputs"
FILES = sorted([*INPUTS.rglob("*.xml"), *INPUTS.rglob("*.xml.template")])
STEPS = 2
COMMAND = re.compile(r"pidelta run (inputs/[^\s`]+\.xml(?: --\w+ [^\s`]+)*)")
# A box, an optimisation, beads with a bias, replicas. The others take as long, and are slow ones.
QUICK = (
    "classical/nve",
    "molecule/optimise",
    "proton-transfer/quantum",
    "replica-exchange/remd",
)


def folders():
    """The folders with inputs, or with a README."""
    return sorted(path for path in INPUTS.iterdir() if inputs_of(path) or (path / "README.md").exists())


def inputs_of(folder):
    """The inputs of a folder, without templates that a script fills in."""
    return [path for path in sorted(folder.glob("*.xml")) if "$" not in path.read_text()]


def commands():
    """For each command in a README the input, relative to inputs/ and without suffix, and its arguments."""
    for folder in folders():
        text = (folder / "README.md").read_text() if (folder / "README.md").exists() else ""
        for found in dict.fromkeys(COMMAND.findall(text)):
            yield found.split(".xml")[0].removeprefix("inputs/"), shlex.split(found)


def marks(name):
    """What an input needs to run here, and what takes long."""
    found = [] if name in QUICK else [pytest.mark.slow]
    if "<ffplumed" in (INPUTS / f"{name}.xml").read_text():
        lacks = importlib.util.find_spec("plumed") is None
        found = [pytest.mark.plumed, pytest.mark.skipif(lacks, reason="needs the module plumed")]
    return found


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of what is in inputs/ under version control, without what runs wrote there."""
    folder = tmp_path_factory.mktemp("copy")
    written = shutil.ignore_patterns("*.out", "*.log", "*.png", "#*", "RESTART", "*checkpoint*", "*.h5")
    shutil.copytree(INPUTS, folder / "inputs", ignore=written)
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=written)
    return folder


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.name)
def test_the_readme_says_how_to_run_each_input(folder):
    assert (folder / "README.md").exists()
    named = {name for name, _ in commands()}
    assert {f"{folder.name}/{path.stem}" for path in inputs_of(folder)} <= named


def test_the_table_of_folders_is_whole():
    table = (INPUTS / "README.md").read_text()
    named = re.findall(r"^\| \[([\w/-]+)\]\(\1/README.md\) \|", table, re.MULTILINE)
    expected = {path.parent.relative_to(INPUTS) for path in INPUTS.rglob("README.md")} - {Path()}
    # folders within a study are told of by its own page
    assert set(named) == {
        f"{path}" for path in expected if not any(path.is_relative_to(p) and p != path for p in expected)
    }


def test_no_readme_names_an_input_that_is_not_there():
    assert [name for name, _ in commands() if not (INPUTS / f"{name}.xml").exists()] == []


@pytest.mark.parametrize("name", [f"{f.name}/{path.stem}" for f in folders() for path in inputs_of(f)])
def test_ipi_knows_all_that_an_input_says(name):
    from ipi.inputs.simulation import InputSimulation
    from ipi.utils.io.inputs.io_xml import xml_parse_file

    path = INPUTS / f"{name}.xml"
    with path.open() as file:
        InputSimulation().parse(xml_parse_file(file).fields[0][1])
    assert read_simulation(path).total_steps > STEPS


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.relative_to(INPUTS)}")
def test_no_input_has_unusual_conditions(path, tmp_path):
    """Units for all that needs one, and a usual time step; templates are filled in."""
    text = path.read_text()
    for name in set(re.findall(r"\$\{?(\w+)\}?", text)):
        text = re.sub(rf"\$\{{?{name}\b\}}?", "4" if name != "initial" else "<file/>", text)
    (tmp_path / "input.xml").write_text(text)
    conditions = read_conditions(tmp_path / "input.xml")
    assert conditions.warnings == ()
    assert conditions.text.startswith("time step ") or "mode='dynamics'" not in text


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_no_input_starts_from_something_else(name, capsys):
    """The structure's atoms and cell, without a warning."""
    arguments = dict(commands())[name]
    path = INPUTS / f"{name}.xml"
    options = dict(zip(arguments[1::2], arguments[2::2], strict=False))
    config = ROOT / options["--config"] if "--config" in options else configuration_of(path)
    check_starts(Console(), path, Setup(load_config(config)))
    assert capsys.readouterr().out == ""


def waits(text):
    """Whether each forcefield of an input that has batches lets them fill.

    With i-PI's default of <latency> they go out before. An <ffdirect> without a thread does not look at it.
    """
    batches = [
        forcefield
        for forcefield in ElementTree.fromstring(text).iter()
        if int(forcefield.findtext("batch_size", "1")) > 1
        and (forcefield.tag != "ffdirect" or forcefield.get("threaded", "false").lower() == "true")
    ]
    return [float(forcefield.findtext("latency", "1e-4")) >= 1e-3 for forcefield in batches]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.relative_to(INPUTS)}")
def test_batches_wait_until_all_beads_are_queued(path):
    assert all(waits(path.read_text().replace("$beads", "8")))


def test_batches_of_inputs_that_are_written_wait_too(script, tmp_path):
    """Those of `pidelta prepare`, of `pidelta learn`, and of the scripts that write inputs by themselves."""
    write_inputs(tmp_path, "init.pdb", ("mm", "low"), 1e-3, 1)
    written = [(tmp_path / f"{kind}.xml").read_text() for kind in ("pimd", "sample")]
    write_input(
        tmp_path / "learn.xml", Dynamics(("mm",), 20.0, 10, 1e-3, None, 1, beads=8), Path("a.xyz"), "address"
    )
    written.append((tmp_path / "learn.xml").read_text())
    study = script("contraction", "study")
    written.append(study._input(study.SMALL, study.SAMPLED, study.WAYS[study.SAMPLED], 10))
    dynamics = script("studies/paper", "dynamics")
    ring = dynamics.Dynamics(name="a", box="b", seed=1, length=1.0, spacing=0.1, beads=8, few=4)
    written.append(dynamics.input_of(ring))
    for text in written:
        found = waits(text)
        assert found
        assert all(found)


@pytest.mark.parametrize(
    "arguments", [pytest.param(words, id=name, marks=marks(name)) for name, words in commands()]
)
def test_an_input_runs(arguments, copy, run, monkeypatch):
    """By the command of its README, but for a few steps: it ends well, and what it writes are numbers."""
    path = copy / arguments[0]
    text = re.sub(r"<total_steps>\s*\d+", f"<total_steps>{STEPS}", path.read_text())
    path.write_text(
        re.sub(r"<address>\s*pidelta\S*?</address>", lambda _: f"<address>{unique_address()}</address>", text)
    )
    monkeypatch.chdir(copy)
    assert run("run", *arguments) == 0
    simulation = read_simulation(path)
    tables = sorted(path.parent.glob(f"*{simulation.prefix}.out"))
    assert len(tables) == len(simulation.forces.systems)
    for table in tables:
        columns = read_properties(table).columns
        assert all(np.isfinite(values).all() for values in columns.values())
