"""pidelta in the process of i-PI: ``<ffdirect>`` with the file of `pidelta ffdirect-path`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import ase.io
import numpy as np
import pytest

import pidelta
from conftest import ROOT
from ipi_support import running_ipi, write_water
from pidelta.analysis.ipi_output import read_properties
from pidelta.config import load_config
from pidelta.errors import RunError, SetupError
from pidelta.ipi.simulation import read_simulation
from pidelta.ipi.supervisor import Supervisor
from pidelta.ipi_pes import PideltaDriver
from pidelta.setup import Setup

PES = Path(pidelta.__file__).with_name("ipi_pes.py")
MPIRUN = shutil.which("mpirun", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
DIRECT = """<ffdirect name='{name}'{attributes}>
    <pes> custom </pes> <pes_path> {pes} </pes_path> <parameters> {{{parameters}}} </parameters>
    {extra}
  </ffdirect>"""


def direct_in_place(
    path, *, name="pidelta", attributes="", pes=PES, parameters="config: pidelta.yaml", extra=""
):
    """Put an ffdirect in the place of the ffsocket of an input."""
    element = DIRECT.format(name=name, attributes=attributes, pes=pes, parameters=parameters, extra=extra)
    path.write_text(re.sub("<ffsocket.*</ffsocket>", element, path.read_text(), flags=re.DOTALL))
    return path


@pytest.fixture
def folder(tmp_path):
    """A molecule by DFTB."""
    for name in ("uracil.xyz", "uracil.yaml"):
        shutil.copy(ROOT / "examples" / name, tmp_path)
    (tmp_path / "uracil.yaml").rename(tmp_path / "pidelta.yaml")
    return tmp_path


def test_the_path_is_printed(run, capsys):
    assert run("ffdirect-path") == 0
    assert Path(capsys.readouterr().out.strip()) == PES


@pytest.mark.parametrize(
    ("n_beads", "attributes", "extra"),
    [
        pytest.param(4, "", "<batch_size> 2 </batch_size>", marks=pytest.mark.slow),
        (4, " threaded='True'", "<batch_size> 3 </batch_size>"),
    ],
)
def test_energies_of_the_positions_that_ipi_writes(tmp_path, n_beads, attributes, extra):
    path = direct_in_place(write_water(tmp_path / "run", 6), attributes=attributes, extra=extra)
    text = path.read_text().replace("nbeads='1'", f"nbeads='{n_beads}'").replace("stride='20'", "stride='1'")
    path.write_text(text.replace("positions{angstrom}", "positions"))
    with running_ipi(path) as ipi:
        assert ipi.wait(60.0) == 0
    folder = path.parent
    beads = [ase.io.read(folder / f"water.pos_{k}.xyz", ":", format="xyz") for k in range(n_beads)]
    positions = np.array([[atoms.positions for atoms in frames] for frames in zip(*beads, strict=True)])
    evaluator = Setup(load_config(folder / "pidelta.yaml")).evaluator()
    energies = [evaluator.evaluate(ring, None).energy.mean() for ring in positions]
    potential = read_properties(folder / "water.out").columns["potential"]
    assert len(potential) == 7
    np.testing.assert_allclose(potential, energies, atol=1e-6)  # positions have five decimals
    assert np.ptp(energies) > 1e-4


@pytest.mark.skipif(not (find_spec("mpi4py") and MPIRUN), reason="needs MPI and mpi4py")
def test_over_mpi(tmp_path, monkeypatch):
    """The printed file, called by i-PI's own driver; two ranks share the beads."""
    path = write_water(tmp_path / "run", 4)
    text = path.read_text().replace("nbeads='1'", "nbeads='4'")
    socket = re.compile("<ffsocket.*</ffsocket>", re.DOTALL)
    ffmpi = "<ffmpi name='pidelta' pbc='false'> <batch_size> 2 </batch_size> </ffmpi>"
    path.write_text(socket.sub(ffmpi, text))
    scripts = Path(sys.executable).parent
    driver = [scripts / "i-pi-driver-py", "--mpi", "-m", "custom", "-P", PES, "-o", "config=pidelta.yaml"]
    for name in ("ALLOW_RUN_AS_ROOT", "ALLOW_RUN_AS_ROOT_CONFIRM", "MCA_rmaps_base_oversubscribe"):
        monkeypatch.setenv(f"OMPI_{name}", "1")  # Open MPI asks; MPICH does not
    command = [str(MPIRUN), "-n", "1", scripts / "i-pi", path.name]
    # i-PI does not finalise MPI, so that MPICH kills a driver that is not gone yet and returns its 9.
    subprocess.run([*command, ":", "-n", "2", *driver], cwd=path.parent, check=False, timeout=120)
    over_mpi = read_properties(path.parent / "water.out").columns["potential"]
    direct = write_water(tmp_path / "direct", 4)
    direct.write_text(text)
    direct_in_place(direct, extra="<batch_size> 2 </batch_size>")
    with running_ipi(direct) as ipi:
        assert ipi.wait(60.0) == 0
    np.testing.assert_allclose(
        over_mpi, read_properties(direct.parent / "water.out").columns["potential"], rtol=1e-10
    )


def test_an_input_for_mpi_is_named_with_its_command(tmp_path):
    path = write_water(tmp_path / "run", 4)
    ffmpi = "<ffmpi name='pidelta' pbc='false'/>"
    path.write_text(re.sub("<ffsocket.*</ffsocket>", ffmpi, path.read_text(), flags=re.DOTALL))
    with pytest.raises(
        SetupError, match=rf"found an <ffmpi>.* mpirun -n 1 i-pi {path.name} : -n 2 i-pi-driver"
    ):
        read_simulation(path)


def test_extras_and_terms(folder, monkeypatch):
    monkeypatch.chdir(folder)
    driver = PideltaDriver(terms="low", verbosity=3)
    setup = Setup(load_config(folder / "pidelta.yaml"))
    positions = setup.system.positions
    energy, forces, virial, extras = driver(100.0 * np.eye(3), positions)
    expected = setup.evaluator(frozenset({"low"})).evaluate(positions[None], None)
    assert energy == pytest.approx(expected.energy[0], rel=1e-12)
    np.testing.assert_allclose(forces, -expected.gradient[0], atol=1e-12)
    np.testing.assert_allclose(virial, expected.virial[0], atol=1e-12)
    assert json.loads(extras)["terms"] == {"low": pytest.approx(energy)}
    moved = positions + 0.01 * np.sin(positions)
    results = driver([100.0 * np.eye(3)] * 2, [positions, moved])
    energies = setup.evaluator().evaluate(np.array([positions, moved]), None).energy
    np.testing.assert_allclose([result[0] for result in results], energies, atol=1e-8)


def test_whole_run(tmp_path, run, capsys):
    path = direct_in_place(write_water(tmp_path / "run", 5))
    assert run("run", path) == 0
    printed = capsys.readouterr().out
    assert "forcefield pidelta: mm" in printed
    assert "drift of the conserved quantity" in printed
    assert not list(path.parent.glob("*.status"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"pes": "none.py"},
            r"<pes_path> of <ffdirect name='pidelta'>: expected a Python file, .* No such file",
        ),
        ({"extra": "<batch_size> 2 </batch_size>"}, "expected a divisor of the 1 structures of a step"),
        ({"parameters": "terms: mm+lo"}, "expected mm, low, delta, .* joined by .*, found 'lo'"),
        ({"name": "mm"}, "a name made of terms: expected the same in <parameters> {terms: mm}, found none"),
        ({"name": "detla"}, "a name that looks like terms"),
        ({"parameters": "term: mm"}, "<parameters> of .*: expected config, terms, member, found 'term'"),
        (
            {"extra": "<activelist>[0]</activelist>"},
            "<activelist> of .* expected none, as",
        ),
    ],
)
def test_problems_of_the_input(tmp_path, changes, message):
    path = direct_in_place(write_water(tmp_path / "run"), **changes)
    path.write_text(
        path.read_text().replace("forcefield='pidelta'", f"forcefield='{changes.get('name', 'pidelta')}'")
    )
    with pytest.raises(SetupError, match=message) as caught:
        read_simulation(path)
    assert "\n" not in str(caught.value)


def test_parameters_as_restart_has_them(tmp_path):
    path = direct_in_place(write_water(tmp_path / "run"), parameters="terms: mm, verbosity: 3")
    assert read_simulation(path).forces.directs[0].terms == {"mm"}


def test_a_file_of_others_is_not_ours(tmp_path):
    other = tmp_path / "other.py"
    other.write_text('__DRIVER_NAME__ = "other"\n')
    path = direct_in_place(write_water(tmp_path / "run"), pes=other)
    with pytest.raises(
        SetupError, match="expected an <ffsocket> for pidelta to connect to, or an <ffdirect>"
    ):
        read_simulation(path)
    other.write_text('from pidelta.ipi_pes import PideltaDriver\n__DRIVER_NAME__ = "pidelta"\n')
    assert read_simulation(path).forces.directs[0].config == path.parent / "pidelta.yaml"


def test_run_checks_what_only_ipi_hears_of(tmp_path, fail):
    path = direct_in_place(write_water(tmp_path / "run"), parameters="config: other.yaml")
    config = path.parent / "pidelta.yaml"
    assert re.search(
        r"expected config: .*pidelta\.yaml, found .*other\.yaml$", fail("run", path, "--config", config)
    )
    assert "other.yaml: no such file" in fail("run", path)
    shutil.copy(config, path.parent / "other.yaml")
    assert "expected terms: mm, as asked for by --terms, found none" in fail("run", path, "--terms", "mm")


def supervise(path):
    return Supervisor(read_simulation(path), [sys.executable], {})


def wait_for_end(supervisor):
    while supervisor.is_running():
        time.sleep(0.05)


def test_errors_of_a_structure_end_ipi_in_one_line(tmp_path):
    """Atoms on top of each other, in the input alone."""
    path = direct_in_place(write_water(tmp_path / "run", 5))
    start = path.parent / "init.xyz"
    start.write_text(start.read_text().replace("H 0.96 ", "H nan "))
    with supervise(path) as supervisor, pytest.raises(RunError) as caught:
        wait_for_end(supervisor)
    assert re.match(r"i-PI: pidelta: .* \(exit code 2, log: .*\)$", str(caught.value))
