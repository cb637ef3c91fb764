"""How commands start and stop: what they import, Ctrl-C, files that are written whole."""

from __future__ import annotations

import inspect
import json
import math
import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ipi_support import write_water
from pidelta.cli.label import label
from pidelta.cli.processors import allowed_processors, cgroup_quota, share_processors
from pidelta.cli.progress import StepsProgress
from pidelta.cli.run import _share_processors
from pidelta.config import load_config
from pidelta.errors import GeometryError
from pidelta.ipi.simulation import read_simulation
from pidelta.output_files import back_up, replacing
from pidelta.qm.reference_settings import ReferenceSettings
from pidelta.setup import Setup

HEAVY = ("torch", "numba", "scipy", "ase", "parmed", "matplotlib", "h5py", "ipi", "lightning", "pyscf")
REPORT = """
import sys
from pathlib import Path
from pidelta.cli.main import main
sys.argv = ["pidelta", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    print(ended.code or 0, *(name for name in {names} if name in sys.modules), file=sys.stderr)
"""


def imports(*arguments):
    """The exit code of a command, and the heavy modules that it imported."""
    command = [sys.executable, "-c", REPORT.format(names=HEAVY), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    code, *names = ended.stderr.splitlines()[-1].split()
    return int(code), names


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["check", "--help"], ["run", "--help"], ["slater-koster", "make", "--help"], ["no-command"]],
    ids=" ".join,
)
def test_help_imports_little(arguments):
    code, names = imports(*arguments)
    assert code == (2 if arguments == ["no-command"] else 0)
    assert names == []


@pytest.mark.parametrize("command", ["check", "evaluate", "client", "run", "sample", "label"])
def test_errors_of_a_configuration_import_little(tmp_path, command):
    config = tmp_path / "pidelta.yaml"
    config.write_text("structure: a.xyz\nqm: {atom: all}\n")
    arguments = {
        "run": [tmp_path / "input.xml"],
        "sample": [config, "a.xyz", "--output", "b.h5"],
        "label": ["frames.h5", "--low", config],
    }.get(command, [config])
    (tmp_path / "input.xml").write_text(
        """<simulation> <output/> <ffsocket name='ff' mode='unix'/> <system>
        <initialize nbeads='1'/> <forces> <force forcefield='ff'/> </forces> </system> </simulation>"""
    )
    assert imports(command, *arguments) == (2, [])


def test_the_command_line_has_the_defaults_of_the_reference():
    parameters = inspect.signature(label).parameters
    defaults = ReferenceSettings()
    for name in ("xc", "basis", "grid_level", "dispersion"):
        assert parameters[name].default == getattr(defaults, name)


def test_interrupt_during_imports(tmp_path):
    """Ctrl-C while a module is imported, here one that takes the place of ASE and never ends."""
    package = tmp_path / "ase"
    package.mkdir()
    (package / "__init__.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    config = tmp_path / "pidelta.yaml"
    config.write_text("structure: a.xyz\nqm: {atoms: all}\n")
    with subprocess.Popen(
        [sys.executable, "-m", "pidelta", "check", str(config)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120.0)
    assert (process.returncode, errors) == (130, "pidelta: stopped\n")


def test_steps_and_time_are_shown_in_80_columns():
    console = Console(file=StringIO(), width=80, force_terminal=True, color_system=None)
    state = (
        "T 301.4 K  conserved -10825.475 eV  spread 0.183 (max 1.13) kcal/mol  2.21 % outside the training"
    )
    with StepsProgress(console) as progress:
        progress.add_task("steps", total=1000, completed=1000, state=state)
    shown = " ".join(console.file.getvalue().split())
    assert "1000/1000 -:--:--" in shown
    assert " ".join(state.split()) in shown


def test_the_speed_and_the_time_left_are_those_of_the_steps():
    console = Console(file=StringIO(), width=80, force_terminal=True, color_system=None)
    progress, seconds = StepsProgress(console), 0.0
    progress.get_time = lambda: seconds
    task = progress.add_task("steps", total=1000, state="")
    for steps in (0, 100, 200):  # a hundred in 8 s
        progress.update(task, completed=steps)
        seconds += 8.0
    console.print(progress)
    assert "200/1000 12.5 steps/s 0:01:04" in " ".join(console.file.getvalue().split())


def test_characters_that_a_terminal_does_not_have(tmp_path):
    config = tmp_path / "größe.yaml"
    config.write_text("structure: a.xyz\nqm: {atom: all}\n")
    ended = subprocess.run(
        [sys.executable, "-m", "pidelta", "check", str(config)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.endswith("gr??e.yaml: unknown key qm.atom with engine: dftb\n")


def write_half(path):
    with replacing(path) as stream:
        stream.write("half")
        stream.flush()
        assert path.read_text() == "earlier"
        raise ZeroDivisionError


def test_a_file_is_replaced_once_it_is_whole(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("earlier")
    path.chmod(0o640)
    with pytest.raises(ZeroDivisionError):
        write_half(path)
    assert path.read_text() == "earlier"
    with replacing(path) as stream:
        stream.write("größe")
    assert path.read_text(encoding="utf-8") == "größe"
    assert path.stat().st_mode & 0o777 == 0o640
    link = tmp_path / "link"
    link.symlink_to(path)
    with replacing(link, "wb") as stream:
        stream.write(b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    with replacing(tmp_path / "device") as stream:
        stream.write("x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["device", "link", "out.json"]
    with pytest.raises(OSError, match="No such file"), replacing(tmp_path / "none" / "x"):
        pass


def test_a_device_is_written_to_as_it_is():
    with open(os.devnull, encoding="utf-8") as device:
        before = os.fstat(device.fileno())
    with replacing(Path(os.devnull)) as stream:
        stream.write("x")
    assert os.stat(os.devnull).st_ino == before.st_ino


def test_evaluate_keeps_a_file_when_it_fails(tmp_path, run, fail):
    (tmp_path / "h2.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.75\n")
    (tmp_path / "frames.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.75\n2\n\nH 0 0 0\nH 0 0 0\n")
    config, output = tmp_path / "pidelta.yaml", tmp_path / "out.json"
    config.write_text("structure: h2.xyz\nqm: {atoms: all}\n")
    output.write_text("earlier")
    line = fail("evaluate", config, "--frames", tmp_path / "frames.xyz", "--output", output)
    assert "frames.xyz, frame 1: " in line
    assert "found a distance of 0.0000 bohr" in line
    assert output.read_text() == "earlier"
    assert run("evaluate", config, "--output", output) == 0
    assert len(json.loads(output.read_text())["frames"]) == 1
    for name in ("pidelta.yaml", "h2.xyz", "frames.xyz"):
        line = fail("evaluate", config, "--frames", tmp_path / "frames.xyz", "--output", tmp_path / name)
        assert f"{name}: expected an output that is not read" in line


@pytest.fixture
def box(tmp_path):
    """Two flexible waters in a cell of 30 angstrom."""
    rows = ["O 0 0 0", "H 0.96 0 0", "H -0.24 0.93 0", "O 2.9 0.1 0.1", "H 3.2 0.9 0.5", "H 3.3 -0.7 0.6"]
    (tmp_path / "water.xyz").write_text("\n".join(["6", 'Lattice="30 0 0 0 30 0 0 0 30"', *rows, ""]))
    config = tmp_path / "pidelta.yaml"
    config.write_text("structure: water.xyz\nmm: {water: q-spc-fw}\n")
    return config


def test_evaluate_sees_atoms_in_another_order(box, tmp_path, fail, run, capsys):
    """Hydrogens of neighbouring waters exchanged: the elements are the same."""
    lines = (tmp_path / "water.xyz").read_text().splitlines()
    frames = tmp_path / "frames.xyz"
    frames.write_text("\n".join([*lines[:3], lines[6], *lines[4:6], lines[3], lines[7], ""]))
    line = fail("evaluate", box, "--frames", frames)
    assert "atoms 0 and 1 are bonded, 0.96 angstrom, but 3.3" in line
    assert f"in frame 0 of {frames}, which must list the atoms in the same order" in line
    assert run("evaluate", box, "--frames", tmp_path / "water.xyz") == 0
    frames.write_text("\n".join([*lines, *frames.read_text().splitlines(), ""]))
    capsys.readouterr()
    assert run("evaluate", box, "--frames", frames) == 0, "molecules that have come apart can be looked at"
    assert f"angstrom apart in frame 1 of {frames}" in capsys.readouterr().err


def test_positions_and_cells_that_no_system_has(box):
    setup = Setup(load_config(box))
    evaluator, positions, cell = setup.evaluator(), setup.system.positions, setup.system.cell
    far = positions.copy()
    far[4, 2] = 1e300
    with pytest.raises(GeometryError, match=r"finite positions below 1e\+08 bohr, found .* at atom 4"):
        evaluator.evaluate(far[None], cell[None])
    with pytest.raises(GeometryError, match="three independent lattice vectors"):
        evaluator.evaluate(positions[None], np.zeros((1, 3, 3)))
    with pytest.raises(GeometryError, match="three independent lattice vectors"):
        evaluator.evaluate(positions[None], np.full((1, 3, 3), 1e300))


def test_structures_that_no_system_has(box, fail):
    structure = box.parent / "water.xyz"
    text = structure.read_text()
    structure.write_text(text.replace("H 3.3 ", "H 1e300 "))
    assert "water.xyz: expected finite coordinates below 1e+08 bohr, found others at atom 5" in fail(
        "check", box
    )
    structure.write_text(text.replace("0 30 0 0 0 30", "0 30 0 0 30 0"))
    assert "water.xyz: expected a cell of three independent vectors" in fail("check", box)


def test_back_up(tmp_path):
    path = tmp_path / "log"
    assert back_up(path) is None
    for text in ("a", "b"):
        path.write_text(text)
        back_up(path)
    assert [(tmp_path / name).read_text() for name in ("#log#0#", "#log#1#")] == ["a", "b"]
    assert not path.exists()


@pytest.mark.parametrize(
    ("batches", "processors", "clients"),
    [
        ([8], 4, [4]),
        ([2], 16, [2]),
        ([8, 8], 4, [2, 2]),
        ([8, 1, 8], 2, [1, 1, 1]),
        ([9, 3], 4, [3, 1]),
        ([4], 0, [1]),
    ],
)
def test_sockets_share_processors(batches, processors, clients):
    assert share_processors(batches, processors) == clients


def test_processors_that_may_be_used(tmp_path, monkeypatch):
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 7})
        monkeypatch.setattr("pidelta.cli.processors.cgroup_quota", lambda: 1.5)
        assert allowed_processors() == 2
        monkeypatch.setattr("pidelta.cli.processors.cgroup_quota", lambda: math.inf)
        assert allowed_processors() == 3
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
        assert allowed_processors() == 2
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", "64")  # more than a container has
        assert allowed_processors() == 3


@pytest.mark.parametrize(
    ("processors", "beads", "batch", "more", "clients", "threads"),
    [
        (8, 1, 1, "", 1, 8),  # one structure: all threads are for it
        (8, 4, 2, "", 2, 4),  # two batches of two
        (3, 4, 2, "", 2, 1),
        (2, 8, 1, "", 2, 1),
        (8, 4, 2, "threads: 2, ", 2, 2),  # as the configuration says
        (8, 4, 2, "threads: 8, ", 1, 8),
    ],
)
def test_processors_left_over_become_threads(
    tmp_path, monkeypatch, processors, beads, batch, more, clients, threads
):
    path = write_water(tmp_path / "run", 4)
    text = path.read_text().replace("nbeads='1'", f"nbeads='{beads}'")
    batch_size = f"<batch_size> {batch} </batch_size> </ffsocket>"
    path.write_text(text.replace("</ffsocket>", batch_size))
    config = path.parent / "pidelta.yaml"
    config.write_text(config.read_text().replace("{water", f"{{{more}water"))
    monkeypatch.setattr("pidelta.cli.run.allowed_processors", lambda: processors)
    found = _share_processors(Console(file=StringIO()), read_simulation(path), load_config(config), None)
    assert found == ({"pidelta": clients}, threads)


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000\n", "job/cpu.max": "250000 100000\n"}, 2.5),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/elsewhere\n", {"cpu.max": "max 100000\n"}, math.inf),
        (
            "9:memory:/m\n4:cpu,cpuacct:/job\n0::/\n",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "400000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"},
            4.0,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_quota_of_a_control_group(tmp_path, own, files, quota):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text(own)
    assert cgroup_quota(tmp_path, tmp_path / "own") == quota
