"""What a report leaves out, or counts in another way, because plain formulas would be wrong."""

from __future__ import annotations

import pytest

from pidelta.analysis.ipi_output import read_properties
from pidelta.analysis.summary import summarise
from pidelta.analysis.validity import wrong_numbers
from pidelta.cli.report_input import read_run
from test_report import N_BEADS, make, write_run

ESTIMATES = ("kinetic_td", "kinetic_cv")
FORCES = "<trajectory filename='frc' stride='4'> forces </trajectory> </output>"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A run with forces, which are no more than positions, and with kinetic energies of i-PI."""
    path = write_run(tmp_path_factory.mktemp("written") / "one")
    path.write_text(path.read_text().replace("</output>", FORCES))
    for bead in range(N_BEADS):
        text = path.with_name(f"sim.pos_{bead}.xyz").read_text()
        path.with_name(f"sim.frc_{bead}.xyz").write_text(
            text.replace("positions{angstrom}", "forces{atomic_unit}")
        )
    return path


def edited(run, folder, *changes, columns=ESTIMATES):
    """A copy of a run whose input says something else, with further columns of ones."""
    for file in run.parent.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    path, text = folder / run.name, run.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    lines = (folder / "sim.out").read_text().splitlines()
    heads = [line for line in lines if line.startswith("#")]
    rows = [line + " 1.0" * len(columns) for line in lines[len(heads) :]]
    heads += [
        f"# column {len(heads) + k + 1:3d}     --> {name} : what it is" for k, name in enumerate(columns)
    ]
    (folder / "sim.out").write_text("\n".join([*heads, *rows, ""]))
    return path


def section(path, title):
    """Names of the numbers of a section, and its remarks in one text."""
    found = next(each for each in make(path).sections if each.title == title)
    return {number.name: number for number in found.numbers}, "\n".join(found.remarks)


def kinds(path):
    """The estimators of kinetic energies in a report, those of all atoms, and the remarks."""
    numbers, remarks = section(path, "Kinetic energy")
    return {name for name in numbers if "all, " in name}, remarks


PRIMITIVE = {"all, primitive", "i-PI's all, primitive"}
CENTROID = {"all, centroid virial", "i-PI's all, centroid virial"}
DIFFERENCES = {"all, primitive - centroid virial", "i-PI's all, primitive - centroid virial"}


def test_all_estimators(written, tmp_path):
    """Where nothing is wrong, all are there."""
    assert kinds(edited(written, tmp_path))[0] == PRIMITIVE | CENTROID | DIFFERENCES


def test_forces_are_those_without_the_bias(written, tmp_path):
    """So no virial counts: neither by forces of a trajectory nor by i-PI, nor in the table of `run`."""
    bias = "<bias> <force forcefield='umbrella'/> </bias> </ensemble>"
    path = edited(written, tmp_path, ("</ensemble>", bias))
    found, remarks = kinds(path)
    assert found == PRIMITIVE
    assert "centroid virial, kinetic_cv: left out: i-PI's forces are those without the <bias>" in remarks
    assert "ask for <trajectory" not in remarks
    wrong = wrong_numbers(read_run(path).outputs.systems[0])
    rows = dict(summarise(read_properties(tmp_path / "sim.out"), 6, wrong).rows())
    assert "quantum kinetic energy" not in rows
    assert rows["kinetic_cv"] == "left out: i-PI's forces are those without the <bias>"
