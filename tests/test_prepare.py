"""`pidelta prepare` from the command line, without AmberTools: what it makes runs, and what it refuses."""

import numpy as np
import pytest

from pidelta.config import load_config
from pidelta.core.structure import read_structure
from pidelta.ipi.simulation import read_simulation
from pidelta.ipi.starts import check_atom_order, read_starts
from pidelta.setup import Setup
from pidelta.units import ANGSTROM


@pytest.fixture(autouse=True)
def no_amber_tools(monkeypatch, tmp_path):
    monkeypatch.delenv("AMBERHOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_a_smiles_becomes_a_set_up(tmp_path, run, capsys):
    """Methylammonium in q-TIP4P/F, relaxed; a second call takes over what the first has made."""
    folder = tmp_path / "made"
    arguments = ("prepare", "C[NH3+]", "--name", "MAM", "--output", folder, "--water", "q-tip4p-f")
    arguments += ("--cutoff", "0.6 nm", "--equilibrate", "0 ps")
    assert run(*arguments) == 0
    assert "AmberTools was not found: generic Lennard-Jones types" in capsys.readouterr().out
    setup = Setup(load_config(folder / "pidelta.yaml"))
    assert setup.qm_region.charge == 1
    assert setup.qm_region.force_field.charges.sum() + 1.0 == pytest.approx(0.0, abs=1e-6)
    assert setup.embedding_scheme == "pme"
    assert setup.warnings() == []
    start = read_structure(folder / "init.pdb")
    np.testing.assert_allclose(start.positions, setup.system.positions, atol=1e-3 * ANGSTROM)
    np.testing.assert_array_equal(start.numbers, setup.system.numbers)
    qm = setup.system.positions[setup.qm_indices]
    assert min(qm.min(), (setup.system.cell.diagonal() - qm).min()) > 5.0 * ANGSTROM
    assert (folder / "system.png").stat().st_size > 10_000
    for kind in ("nve", "nvt", "pimd", "sample"):
        simulation = read_simulation(folder / f"{kind}.xml")
        check_atom_order(read_starts(folder / f"{kind}.xml"), setup.system)
        assert simulation.total_steps >= 3000

    before = (folder / "system.rst7").read_bytes()
    (folder / "system.rst7").unlink()
    assert run(*arguments) == 0
    assert (folder / "system.rst7").read_bytes() == before


@pytest.mark.slow
def test_what_is_prepared_is_equilibrated_and_runs(tmp_path, run, capsys):
    """A radical with another molecule of the force field's ions, by each of the inputs."""
    folder = tmp_path / "made"
    arguments = ("C[CH2]", "[Na+]", "[Cl-]", "--classical", "2", "--classical", "3", "--multiplicity", "2")
    short = ("--cutoff", "0.7 nm", "--equilibrate", "10 fs", "--output", folder)
    assert run("prepare", *arguments, *short) == 0
    for kind in ("nve", "nvt", "pimd", "sample"):
        path = folder / f"{kind}.xml"
        text = path.read_text()
        total = text.partition("<total_steps>")[2].partition("<")[0]
        path.write_text(text.replace(f"<total_steps>{total}<", "<total_steps>2<"))
        assert run("run", path) == 0
    assert run("check", folder / "pidelta.yaml") == 0
    assert "all checks passed" in capsys.readouterr().out


@pytest.mark.slow
def test_a_system_without_a_quantum_region_is_classical(tmp_path, run):
    folder = tmp_path / "made"
    arguments = ("[Na+]", "--classical", "1", "--cutoff", "0.6 nm", "--equilibrate", "0 ps")
    assert run("prepare", *arguments, "--output", folder) == 0
    assert load_config(folder / "pidelta.yaml").terms == ("mm",)
    assert not (folder / "sample.xml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("C(C",), "expected a SMILES or a file ending in .mol2"),
        (("C(" + 300 * "C",), "expected a SMILES or a file ending in .mol2"),  # no name of a file is as long
        (("CO", "--water", "tip3p"), "--water: expected spc-fw, q-spc-fw"),
        (("CO", "--charge", "-1"), "--charge: expected +0, as SMILES CO has it, found -1"),
        (("C[CH2]",), "--multiplicity: expected one"),
        (("CF",), "--molecule: expected H, C"),
        (("CO", "--margin", "1 nm"), "--margin: expected at least the cutoff, 1.4 nm"),
        (("CO", "--margin", "1"), "--margin: expected a length with its unit"),
        (("CO", "C", "--count", "2"), "--count: expected it once for each molecule"),
        (("CO", "--classical", "2"), "--classical: expected 1 to 1, found 2"),
        (("CO", "--classical", "1"), "a GAFF2 topology needs AmberTools, which was found neither"),
        (
            ("CO", "--classical", "1", "--force-field", "generic"),
            "--classical: expected a molecule of paired",
        ),
        (("CO", "--force-field", "gaff2"), "a GAFF2 topology needs AmberTools"),
        (("CO", "--force-field", "opls"), "--force-field: expected auto, gaff2, generic, found 'opls'"),
        (("CO", "--ambertools", "nowhere"), "nowhere: expected AmberTools (antechamber"),
        (("CO", "--name", "much"), "--name: expected names of molecules"),
        (("CO", "--topology", "lost.prmtop"), "lost.prmtop: no such file"),
    ],
)
def test_what_cannot_be_prepared_is_one_line(arguments, message, tmp_path, fail):
    assert message in fail("prepare", *arguments, "--output", tmp_path / "made")


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, fail):
    (tmp_path / "thesis.tex").write_text("")
    line = fail("prepare", "CO", "--output", tmp_path)
    assert "expected a new or an empty folder for --output, found thesis.tex" in line


def test_work_with_other_options_is_not_taken_over(tmp_path, fail):
    folder = tmp_path / "made"
    fail("prepare", "CO", "--margin", "1 nm", "--output", folder)
    (folder / "preparation/dftb.npy").touch()
    line = fail("prepare", "CO", "--margin", "1.1 nm", "--output", folder)
    assert "expected runs with --margin 1.1 nm, found those with 1 nm" in line


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (("CO", "C1CC("), "expected a SMILES"),
        (("CO", "C[SiH3]"), "--molecule: expected H, C"),
        (("CO", "C[CH2]"), "--multiplicity: expected one"),
        (("CO", "C", "--force-field", "gaff2"), "needs AmberTools"),
        (("CO", "C", "--margin", "1 nm"), "--margin: expected at least the cutoff"),
    ],
)
def test_a_mistake_leaves_the_folder_to_the_command_without_it(mistake, message, tmp_path, fail):
    """All molecules are read before topologies are made, and nothing that was made has the mistake in it."""
    folder = tmp_path / "made"
    assert message in fail("prepare", *mistake, "--output", folder)
    line = fail("prepare", "CO", "C", "--margin", "1.2 nm", "--output", folder)
    assert (
        "--margin: expected at least the cutoff, 1.4 nm, so that it fits into the box, found 1.2 nm" in line
    )
