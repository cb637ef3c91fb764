"""Extras that an i-PI input writes: those that no force gives are found before i-PI starts."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import ROOT
from ipi_support import write_input
from pidelta.cli.run import wrapping_warnings
from pidelta.config import load_config
from pidelta.errors import SetupError
from pidelta.ipi.client import encode_extras
from pidelta.ipi.extras import check_extras
from pidelta.ipi.simulation import read_simulation
from pidelta.setup import Setup

TERMS = ("mm", "low", "delta")
GIVEN = {"mm": {"terms"}, "low": {"terms", "dipole"}, "delta": {"terms", "spread"}}


def given(terms):
    return set().union(*(GIVEN[term] for term in terms))


def check(folder, wanted, low="", quantity="extras"):
    """The check of an input with one ffsocket for `low` and one for the rest."""
    path = write_input(folder, address="a", ff_name="mm+delta", n_beads=4)
    text = path.read_text().replace("extra_type='dipole'> extras", f"extra_type='{wanted}'> {quantity}")
    text = text.replace(
        "<system>", "<ffsocket name='low' mode='unix'><address>b</address></ffsocket><system>"
    )
    path.write_text(text.replace("</forces>", f"<force forcefield='low' {low}</forces>"))
    check_extras(read_simulation(path), TERMS, given)


@pytest.mark.parametrize("wanted", ["raw", "terms", "dipole", "spread", "spread, dipole"])
def test_extras_of_any_force(tmp_path, wanted):
    check(tmp_path, wanted, "/>")


def test_contracted_extras_are_there_if_interpolated(tmp_path):
    check(tmp_path, "dipole", "nbeads='2'> <interpolate_extras> [ dipole ] </interpolate_extras> </force>")
    check(tmp_path, "dipole", "nbeads='4'/>")
    with pytest.raises(SetupError, match=r"'dipole'>: .* found it on fewer beads than the system has"):
        check(tmp_path, "dipole", "nbeads='2'/>")


def test_extras_of_no_force(tmp_path):
    with pytest.raises(
        SetupError,
        match=r"'spraed'>: expected a force that gives it, found none .*; there are dipole, spread",
    ):
        check(tmp_path, "dipole, spraed", "/>")


def test_other_outputs_are_not_judged(tmp_path):
    check(tmp_path, "x", "/>", quantity="extras_bias")


def test_committees_have_extras_of_their_own(tmp_path):
    path = write_input(tmp_path, address="a", ff_name="low")
    text = path.read_text().replace("extra_type='dipole'", "extra_type='committee_pot'")
    text = text.replace("<ffsocket", "<ffcommittee name='c'><ffsocket").replace(
        "</ffsocket>", "</ffsocket></ffcommittee>"
    )
    path.write_text(text.replace("<force forcefield='low'/>", "<force forcefield='c'/>"))
    check_extras(read_simulation(path), ("low",), given)


@pytest.mark.parametrize("terms", [{"low"}, {"delta"}, {"mm"}, {"mm", "low", "delta"}])
def test_the_extras_of_a_set_up_are_those_that_clients_send(terms):
    setup = Setup(load_config(ROOT / "inputs" / "uracil-water" / "pidelta.yaml"))
    positions, cell = setup.system.positions[None], setup.system.cell[None]
    sent = json.loads(encode_extras(setup.evaluator(frozenset(terms)).evaluate(positions, cell), 0))
    assert setup.extras(frozenset(terms)) == set(sent)


@pytest.mark.parametrize("wanted", ["dipole", "dipole, charges", "raw"])
def test_the_dipole_of_a_charged_region_that_is_put_into_the_cell(tmp_path, wanted):
    path = write_input(tmp_path, address="a", ff_name="low")
    path.write_text(path.read_text().replace("extra_type='dipole'", f"extra_type='{wanted}'"))

    def warnings(charge=1, embedding="electrostatic"):
        setup = SimpleNamespace(
            config=SimpleNamespace(qm=True),
            engine=SimpleNamespace(embedding=embedding),
            extras=given,
            qm_region=SimpleNamespace(charge=charge, force_field_charges=np.array([0.5, -0.25])),
        )
        return list(wrapping_warnings(read_simulation(path), setup, TERMS))

    assert warnings() == []
    path.write_text(path.read_text().replace("pbc='false'", "pbc='true'"))
    (line,) = warnings()
    message = "expected false, found true: the dipole jumps by +1 e"
    assert line.startswith(f"{path}: pbc of forcefield 'low': {message}")
    assert "jumps by +0.25 e" in warnings(embedding="mechanical")[0]
    assert warnings(charge=0) == []
    path.write_text(path.read_text().replace(f"extra_type='{wanted}'", "extra_type='charges'"))
    assert warnings() == []


def test_run_says_it_before_anything_starts(tmp_path, fail):
    """The input that ships asks for the spread of the committee; without delta nobody sends it."""
    for name in ("uracil-water.gro", "uracil-water.top", "init.pdb", "nvt.xml", "pidelta.yaml"):
        shutil.copy(ROOT / "inputs" / "uracil-water" / name, tmp_path)
    config = tmp_path / "pidelta.yaml"
    config.write_text(config.read_text().split("delta:")[0])
    line = fail("run", tmp_path / "nvt.xml")
    assert "nvt.xml: <trajectory extra_type='delta_standard_deviation'>: expected a force that gives" in line
    assert not (tmp_path / "nvt.i-pi.log").exists()
