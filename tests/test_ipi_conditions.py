"""Time steps, temperatures and pressures of an input: what they are, and units that are missing."""

from __future__ import annotations

import re

import pytest

from ipi_support import write_input, write_water
from pidelta.errors import SetupError
from pidelta.ipi.conditions import read_conditions

NPT = """<dynamics mode='npt'>
  <timestep units='femtosecond'> 0.5 </timestep>
  <thermostat mode='svr'> <tau units='femtosecond'> 100 </tau> </thermostat>
  <barostat mode='isotropic'>
    <tau units='femtosecond'> 200 </tau>
    <thermostat mode='langevin'> <tau units='picosecond'> 0.1 </tau> </thermostat>
  </barostat>
</dynamics>"""
ENSEMBLE = """<ensemble> <temperature units='kelvin'> 300 </temperature>
  <pressure units='megapascal'> 0.1 </pressure> </ensemble>"""


def written(folder, *changes, dynamics=NPT, ensemble=ENSEMBLE):
    """An input at constant pressure, texts in it replaced."""
    path = write_input(folder, address="x")
    text = re.sub(r"<dynamics.*</dynamics>", dynamics, path.read_text(), flags=re.DOTALL)
    text = re.sub(r"<ensemble>.*</ensemble>", ensemble, text)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def test_all_of_them(tmp_path):
    conditions = read_conditions(written(tmp_path))
    assert conditions.text == (
        "time step 0.5 fs; tau of thermostat 100 fs; tau of barostat 200 fs; temperature 300 K; "
        "pressure 1 bar"
    )
    assert conditions.warnings == ()


def test_velocities_of_another_temperature(tmp_path):
    path = written(
        tmp_path, ("<velocities mode='thermal' units='kelvin'> 300", "<velocities mode='thermal'> 0")
    )
    assert "velocities" not in read_conditions(path).text
    path.write_text(path.read_text().replace("'thermal'> 0", "'thermal' units='kelvin'> 600"))
    assert "; temperature 300 K; velocities 600 K; " in read_conditions(path).text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<timestep units='femtosecond'> 0.5", "<timestep> 10", "<timestep> of <dynamics> (0.242 fs)"),
        ("<tau units='femtosecond'> 100", "<tau> 100", "<tau> of <thermostat> (2.42 fs)"),
        ("<tau units='femtosecond'> 200", "<tau units='automatic'> 200", "<tau> of <barostat> (4.84 fs)"),
        (
            "<tau units='picosecond'> 0.1",
            "<tau> 100",
            "<tau> of <thermostat> of <barostat> (2.42 fs)",
        ),
        ("units='kelvin'> 300 </temp", "> 0.001 </temp", "<temperature> of <ensemble> (316 K)"),
        ("units='kelvin'> 300 </vel", "> 0.001 </vel", "<velocities> of <initialize> (316 K)"),
        ("units='megapascal'> 0.1", "> 1e-8", "<pressure> of <ensemble> (2.94 bar)"),
        ("mode='manual' units='atomic_unit'", "mode='manual'", "<cell> of <initialize>"),
        ("</cell>", "</cell><masses mode='manual'> [16, 1, 1, 12] </masses>", "<masses> of <initialize>"),
    ],
)
def test_a_missing_unit(tmp_path, old, new, message):
    path = written(tmp_path, (old, new))
    (warning,) = read_conditions(path).warnings
    assert warning == f"{path}: no units in {message}: i-PI takes atomic units"


def test_all_missing_units_in_one_line(tmp_path):
    path = written(tmp_path, (" units='femtosecond'", ""), (" units='kelvin'> 300", "> 0.001"))
    (units, step) = read_conditions(path).warnings
    assert units.count("(") == 5
    assert step == f"{path}: <timestep> of <dynamics>: expected 0.05 to 5 fs, found 0.0121 fs"


@pytest.mark.parametrize("unit", ["", "units='atomic_unit'", "units='kilokelvin'"])
@pytest.mark.parametrize("tag", ["temperature", "velocities"])
def test_a_temperature_beyond_all_reason(tmp_path, unit, tag):
    path = written(tmp_path, (f"units='kelvin'> 300 </{tag}", f"{unit}> 300 </{tag}"))
    hint = ": units='kelvin' is missing" if not unit else ""
    found = "3e+05" if "kilo" in unit else "9.47e+07"
    with pytest.raises(SetupError, match=f"expected at most 100000 K, found {re.escape(found)} K{hint}$"):
        read_conditions(path)


def test_a_pressure_beyond_all_reason(tmp_path):
    path = written(tmp_path, ("<pressure units='megapascal'> 0.1", "<pressure> 1"))
    message = (
        "<pressure> of <ensemble>: expected at most 1e+07 bar, found 2.94e+08 bar: units='bar' is missing"
    )
    with pytest.raises(SetupError, match=re.escape(message)):
        read_conditions(path)


@pytest.mark.parametrize(
    ("step", "shown", "warns"),
    [("0.05", "0.05", False), ("0.049", "0.049", True), ("5", "5", False), ("5.1", "5.1", True)],
)
def test_the_range_of_time_steps(tmp_path, step, shown, warns):
    conditions = read_conditions(written(tmp_path, ("'femtosecond'> 0.5", f"'femtosecond'> {step}")))
    assert conditions.text.startswith(f"time step {shown} fs")
    assert len(conditions.warnings) == warns


def test_a_time_step_that_is_not_there(tmp_path):
    """i-PI's default is one atomic unit."""
    path = written(tmp_path, dynamics="<dynamics mode='nve'/>")
    (warning,) = read_conditions(path).warnings
    assert warning.endswith(
        "i-PI's default of <timestep> of <dynamics>: expected 0.05 to 5 fs, found 0.0242 fs"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "'femtosecond'> 0.5",
            "'fs'> 0.5",
            "expected a unit of time that i-PI knows, such as femtosecond, found",
        ),
        (
            "'femtosecond'> 0.5",
            "'femtosecond'> half",
            "<timestep> of <dynamics>: expected a number, found 'half'",
        ),
    ],
)
def test_what_is_no_time(tmp_path, old, new, message):
    with pytest.raises(SetupError, match=message) as caught:
        read_conditions(written(tmp_path, (old, new)))
    assert "\n" not in str(caught.value)


def test_a_cold_system(tmp_path):
    (warning,) = read_conditions(written(tmp_path, ("> 300 </temp", "> 0.00095 </temp"))).warnings
    assert warning.endswith("<temperature> of <ensemble>: expected 1 K or more, found 0.00095 K")


def test_a_state_of_ipi_has_no_units(tmp_path):
    """It is in atomic units, which are shown in others."""
    path = tmp_path / "RESTART"
    path.write_text("""<simulation><system> <beads natoms='1' nbeads='1'/>
      <motion mode='dynamics'> <dynamics mode='nvt'> <timestep> 20.670687 </timestep>
        <thermostat mode='svr'> <tau> 4134.1373 </tau> </thermostat> </dynamics> </motion>
      <ensemble> <temperature> 9.5004456e-04 </temperature> </ensemble> </system></simulation>""")
    conditions = read_conditions(path)
    assert conditions.text == "time step 0.5 fs; tau of thermostat 100 fs; temperature 300 K"
    assert conditions.warnings == ()


def test_labels_of_templates_are_filled_in(tmp_path):
    path = written(tmp_path, (" 300 </", " KELVIN </"))
    text = path.read_text().replace("<system>", "<template><system prefix='KELVIN'>")
    head = "<labels> [ KELVIN ] </labels> <instance> [ 300 ] </instance> <instance> [ 3e5 ] </instance>"
    text = text.replace("</system>", "</system></template></system_template>")
    path.write_text(text.replace("<template>", f"<system_template> {head} <template>"))
    with pytest.raises(
        SetupError, match=r"<velocities> of <initialize>: expected at most 100000 K, found 3e\+05 K"
    ):
        read_conditions(path)
    path.write_text(path.read_text().replace("3e5", "450"))
    assert "; temperature 300, 450 K; " in read_conditions(path).text


def test_run_shows_them_first(tmp_path, run, capsys):
    path = write_water(tmp_path / "run", 2)
    path.write_text(path.read_text().replace("<timestep units='femtosecond'> 0.25", "<timestep> 2"))
    assert run("run", path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "time step 0.04838 fs; temperature 300 K" in lines
    (units, step) = (line for line in lines if line.startswith("warning: "))
    assert "no units in <timestep> of <dynamics> (0.0484 fs)" in units
    assert "expected 0.05 to 5 fs" in step
