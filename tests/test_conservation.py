"""Runs at constant energy through i-PI, what they show, and `pidelta check --nve` that a user meets."""

from __future__ import annotations

import json
import re
import sys
import time
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from conftest import ROOT
from ipi_support import CELL, NUMBERS, POSITIONS, SYMBOLS, Images, interrupt, write_water
from pidelta.analysis.conservation import read_conservation
from pidelta.analysis.ipi_output import PropertiesFollower, read_properties
from pidelta.cli import conservation as conservation_command
from pidelta.cli.conservation import report_conservation, run_all
from pidelta.cli.conservation_options import NVEOptions, plan_report
from pidelta.config import load_config
from pidelta.errors import RunError
from pidelta.ipi.dynamics_input import write_structure
from pidelta.ipi.simulation import read_simulation
from pidelta.ipi.starts import read_starts
from pidelta.ipi.supervisor import Supervisor
from pidelta.ipi.trajectories import read_trajectory
from pidelta.setup import Setup
from pidelta.state import System
from pidelta.units import FEMTOSECOND, KELVIN
from pidelta.workflow.conservation import Conditions, claim_folder, plan_runs

SUPPORT = Path(__file__).with_name("ipi_support.py")


def system(positions=POSITIONS, cell=CELL):
    n = len(NUMBERS)
    no_names, zeros = ("",) * n, np.zeros(n, dtype=np.int64)
    return System(NUMBERS, positions, cell, SYMBOLS, no_names, zeros, zeros, no_names)


def runs_in(folder, duration=30.0, equilibration=5.0, time_steps=(0.5,)):
    conditions = Conditions(duration * FEMTOSECOND, equilibration * FEMTOSECOND, 300.0 * KELVIN, 3)
    claim_folder(folder, {}, system())
    return plan_runs(folder, conditions, [("mm", "low")], [step * FEMTOSECOND for step in time_steps])


def run_them(runs, behaviour="serve"):
    command = [sys.executable, str(SUPPORT), behaviour]
    run_all(Console(quiet=True), runs, command, runs[0].folder / "no.json")


def conservation(run):
    return read_conservation(run.properties, len(NUMBERS), "mm+low", "0.5 fs")


@pytest.mark.slow
def test_a_force_that_is_no_gradient_shows_as_drift(tmp_path):
    """Beside the same system with the gradient of its energy."""
    found = {}
    for behaviour in ("serve", "swirl"):
        runs = runs_in(tmp_path / behaviour, duration=200.0)
        run_them(runs, behaviour)
        assert [run.is_finished for run in runs] == [True, True]
        found[behaviour] = conservation(runs[1])
    good, bad = found["serve"].drift, found["swirl"].drift
    assert abs(good.slope.value) < 3.0 * good.slope.error + 1e-3
    assert abs(bad.slope.value) > 10.0
    assert abs(bad.slope.value) > 5.0 * bad.slope.error


def test_runs_start_where_the_equilibration_ended_and_keep_their_momentum(tmp_path):
    equilibration, run = runs_in(tmp_path)
    run_them([equilibration, run])
    before, after = (read_properties(each.properties) for each in (equilibration, run))
    assert after.columns["step"][0] == 0.0
    assert before.columns["temperature"][-1] == pytest.approx(after.columns["temperature"][0], rel=0.35)
    names = json.dumps(re.findall(r"<(?:mode|fixcom)>.*?<", (run.folder / "RESTART").read_text()))
    assert "False" in names


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(tmp_path):
    """From the checkpoint, as after a crash, and then from RESTART."""
    whole, parts = (
        runs_in(tmp_path / "whole", equilibration=0.0),
        runs_in(tmp_path / "parts", equilibration=0.0),
    )
    run_them(whole)
    command = [sys.executable, str(SUPPORT), "slow"]
    run = parts[0]
    follower = PropertiesFollower(run.properties)
    with Supervisor(read_simulation(run.next_input()), command, {}) as supervisor:
        while (follower.latest() or {"step": 0})["step"] < 8 and supervisor.is_running():
            time.sleep(0.02)
        supervisor.stop()
    stopped_at = run.steps_done
    assert 8 <= stopped_at < run.dynamics.steps
    (run.folder / "RESTART").write_text("<simulation> <step> 2")  # half of a file, as a full disk leaves
    assert run.next_input().name == "md.checkpoint"
    assert 0 < run.steps_done <= stopped_at
    run_them(parts)
    one, two = (read_properties(each[0].properties).columns for each in (whole, parts))
    np.testing.assert_array_equal(two["step"], np.arange(61))
    for name in ("conserved", "temperature"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-12)


def test_a_folder_whose_name_has_characters_of_xml(tmp_path):
    (run,) = runs_in(tmp_path / "a & <b>", equilibration=0.0)
    (start,) = read_starts(run.next_input())
    assert start.path == run.start.resolve()
    assert start.names == SYMBOLS


def test_a_cell_is_turned_with_its_atoms(tmp_path):
    """i-PI wants a triangular matrix; energies and distances stay."""
    rng = np.random.default_rng(4)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    for cell in (CELL, CELL @ turn):
        given = system(POSITIONS if cell is CELL else POSITIONS @ turn, cell)
        write_structure(tmp_path / "start.xyz", given)
        (read,) = read_trajectory(tmp_path / "start.xyz")
        assert np.all(np.triu(read.cell, 1) == 0.0)
        energy = Images().energy(read.positions, read.cell)
        assert energy == pytest.approx(Images().energy(given.positions, given.cell), rel=1e-12)


@pytest.mark.slow
def test_check_of_a_cluster(tmp_path, run, capsys):
    """Stopped and continued. The fluctuation of velocity Verlet is that of a method of second order."""
    folder = write_water(tmp_path / "water").parent
    output = folder / "pidelta-nve"
    arguments = ["check", str(folder / "pidelta.yaml"), "--nve", "60fs", "--equilibrate", "0ps"]
    follower = PropertiesFollower(output / "mm" / "0.25fs" / "md.out")
    assert "stopped; the same command goes on" in interrupt(folder, arguments, follower, 20)
    assert run(*arguments) == 0
    printed = capsys.readouterr().out
    assert "all checks passed" in printed
    columns = r"mm\s+│ ([\d.]+) fs\s+│ ([\d.]+)\s+│ [\d.]+\s+│ (\S+) ± (\S+)\s+│ (\S+)"
    rows = {step: [float(x) for x in found] for step, *found in re.findall(columns, printed)}
    assert list(rows) == ["0.25", "0.5"]
    for time_ps, slope, error, _ in rows.values():
        assert time_ps == 0.06
        assert abs(slope) < 4.0 * error
    assert rows["0.5"][3] / rows["0.25"][3] == pytest.approx(4.0, rel=0.25)
    steps = read_properties(output / "mm" / "0.25fs" / "md.out").columns["step"]
    np.testing.assert_array_equal(steps, np.arange(241))
    assert not list(output.rglob("#md.out*"))
    assert (output / "conservation.png").stat().st_size > 10_000

    made = {path: path.stat().st_mtime_ns for path in output.rglob("md.out")}
    assert len(made) == 2
    assert run(*arguments) == 0  # nothing is left to run
    assert made == {path: path.stat().st_mtime_ns for path in output.rglob("md.out")}
    assert capsys.readouterr().out == printed


def test_all_runs_have_the_configuration_that_the_first_began_with(tmp_path, monkeypatch):
    """The client of each run reads it anew; what is known of the others is shown."""
    path = write_water(tmp_path / "water").parent / "pidelta.yaml"
    config, run_one = load_config(path), conservation_command._run_one

    def edit_after_it(run, *arguments):
        run_one(run, *arguments)
        path.write_text(path.read_text().replace("q-spc-fw", "q-tip4p-f"))

    monkeypatch.setattr(conservation_command, "_run_one", edit_after_it)
    report = plan_report(NVEOptions("10fs", ["0.5fs", "0.25fs"], None, None, "0ps", None, 1), config)
    console = Console(file=StringIO(), width=120)
    changed = (
        r"mm\.water: expected q-spc-fw as when the run began .*; undo the edit .*; the same command goes"
    )
    with pytest.raises(RunError, match=changed):
        report_conservation(console, report, config, Setup(config).system)
    assert [run.is_finished for run in report.runs] == [True, False]
    assert "0.5 fs" in console.file.getvalue()


def test_a_run_without_a_row_has_no_drift(tmp_path):
    path = tmp_path / "md.out"
    assert read_conservation(path, 6, "mm", "0.5 fs") is None
    path.write_text("# column   1     --> step : The current simulation time step.\n   0.0000e+00  ")
    assert read_conservation(path, 6, "mm", "0.5 fs") is None


ZUNDEL = ROOT / "inputs" / "zundel" / "pidelta.yaml"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nve", "10"], "--nve: expected a time with its unit (fs, ps, ns), found '10'"),
        (["--nve", "0ps"], "--nve: expected a time above 0, found '0ps'"),
        (["--nve", "-1ps"], "--nve: expected a time above 0, found '-1ps'"),
        (["--nve", "2fs"], "--nve: expected at least 10 time steps of 0.5 fs, found 2 fs"),
        (["--nve", "1ps", "--time-step", "0fs"], "--time-step: expected a time above 0, found '0fs'"),
        (
            ["--nve", "1ps", "--time-step", "2ps"],
            "--nve: expected at least 10 time steps of 2 ps, found 1 ps",
        ),
        (["--nve", "1ps", "--terms", "mm"], "--terms: expected terms among low, found mm"),
        (
            ["--nve", "1ps", "--terms", "lwo"],
            "delta.vacuum, delta.embedding joined by +, found 'lwo'",
        ),
        (
            ["--nve", "1ps", "--temperature", "0K"],
            "--temperature: expected a temperature above 0, found '0K'",
        ),
        (["--nve", "1ps", "--equilibrate", "long"], "--equilibrate: expected a time with its unit"),
        (["--time-step", "1fs"], "--time-step: expected --nve beside it, found none"),
    ],
)
def test_bad_options(fail, options, message):
    assert message in fail("check", ZUNDEL, *options)


def test_a_folder_of_other_options_is_refused(tmp_path, fail):
    """So is one of another configuration, or of the same with other files."""
    config = tmp_path / "pidelta.yaml"
    config.write_text("structure: a.xyz\nqm: {atoms: all}\n")
    structure = tmp_path / "a.xyz"
    structure.write_text("1\n\nO 0 0 0\n")
    # This is what a run leaves; to run is not needed.
    options = NVEOptions("1ps", None, None, None, None, tmp_path / "nve", 0)
    report = plan_report(options, load_config(config))
    claim_folder(report.folder, report.options, system())
    arguments = ["check", config, "--output", tmp_path / "nve"]
    expected = "expected runs with --nve 2 ps, found those with 1 ps; choose another --output"
    assert expected in fail(*arguments, "--nve", "2ps")
    assert "--seed 4, found those with 0" in fail(*arguments, "--nve", "1000fs", "--seed", "4")
    assert "--temperature 310 K, found those with 300 K" in fail(
        *arguments, "--nve", "1ps", "--temperature", "310K"
    )
    structure.write_text("1\n\nO 0 0 1\n")
    assert "expected runs with configuration" in fail(*arguments, "--nve", "1ps")
    (tmp_path / "nve" / "options.json").write_text("[]")
    assert "expected the options of earlier runs" in fail(*arguments, "--nve", "1ps")


def test_terms_that_leave_atoms_unbound_are_said(tmp_path):
    config = load_config(ROOT / "inputs" / "uracil-water" / "pidelta.yaml")
    options = NVEOptions("1ps", ["0.5fs", "0.50 fs"], ["dftb + mm", "mm", "mm+low"], None, None, tmp_path, 0)
    report = plan_report(options, config)
    assert report.notes == ["in runs of mm nothing binds the QM atoms"]
    folders = [str(run.folder.relative_to(tmp_path)) for run in report.runs]
    assert folders == ["mm+low/equilibration", "mm+low/0.5fs", "mm/equilibration", "mm/0.5fs"]
