"""Reading properties and trajectories: against files written here and against i-PI's own reader."""

from __future__ import annotations

import numpy as np
import pytest
from ipi.scripting import read_output

from pidelta.analysis.ipi_output import PropertiesFollower, read_properties
from pidelta.errors import DataError
from pidelta.units import HARTREE_IN_EV, HARTREE_IN_KELVIN

HEADER = """# column   1     --> step : The current simulation time step.
# column   2     --> time{picosecond} : The elapsed simulation time.
# column   3     --> temperature{kelvin} : The current temperature, as obtained from the MD kinetic energy.
# column   4     --> potential{electronvolt} : The physical system potential energy.
# cols.    5-10  --> stress_md : The total stress tensor of the (extended) classical system.
# column  11     --> conserved : The value of the conserved energy quantity per bead.
# column  12     --> temperature{kelvin}(1) : The temperature of one bead.
"""


def row(step, seed=0):
    values = np.random.default_rng(step + seed).normal(size=10)
    return " ".join(f"{x:16.8e}" for x in (step, step * 5e-4, *values)) + "\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "sim.out"
    path.write_text(HEADER + "".join(row(step) for step in range(0, 20, 2)))
    return path


def test_agrees_with_the_reader_of_ipi(path):
    properties = read_properties(path)
    values, info = read_output(path)
    assert set(properties.columns) == set(values)
    for name, expected in values.items():
        np.testing.assert_array_equal(properties.columns[name], expected)
        assert properties.units[name] == (info[name][0] or "")
    assert properties.columns["stress_md"].shape == (10, 6)


def test_atomic_units(path):
    properties = read_properties(path)
    kelvin, ev = properties.columns["temperature"], properties.columns["potential"]
    # i-PI's constants are older than CODATA 2018; what it converted must be undone with its own.
    np.testing.assert_allclose(properties.atomic("temperature"), kelvin / HARTREE_IN_KELVIN, rtol=2e-6)
    np.testing.assert_allclose(properties.atomic("potential"), ev / HARTREE_IN_EV, rtol=1e-6)
    np.testing.assert_array_equal(properties.atomic("conserved"), properties.columns["conserved"])


def test_rows_computed_again_replace_the_old_ones(path):
    again = [row(step, seed=100) for step in range(14, 24, 2)]
    path.write_text(path.read_text() + "".join(again) + "   2.4e+01  1.2")
    properties = read_properties(path)
    np.testing.assert_array_equal(properties.columns["step"], np.arange(0, 24, 2))
    assert properties.columns["conserved"][6] == float(row(12).split()[10])
    assert properties.columns["conserved"][7] == float(row(14, seed=100).split()[10])
    assert properties.notes == ("3 of 15 rows come again further on, and the later ones count",)


def test_the_same_run_twice(path):
    path.write_text(path.read_text() * 2)
    properties = read_properties(path)
    np.testing.assert_array_equal(properties.columns["step"], np.arange(0, 20, 2))
    (note,) = properties.notes
    assert note.startswith("10 of 20 rows come again further on")
    assert note.endswith("number 11 begins anew: are outputs of several runs joined?")


def test_rows_without_steps(tmp_path):
    """Times tell which rows were computed again; without these nothing does, which is said."""
    path = tmp_path / "sim.out"
    values = [0.0, 0.1, 0.2, 0.3, 0.2, 0.3, 0.4]
    path.write_text("# column   1     --> time{picosecond} : t\n" + "".join(f"{t:.8e}\n" for t in values))
    properties = read_properties(path)
    np.testing.assert_allclose(properties.columns["time"], [0.0, 0.1, 0.2, 0.3, 0.4])
    assert properties.notes == ("2 of 7 rows come again further on, and the later ones count",)
    path.write_text(path.read_text().replace("time{picosecond}", "potential"))
    properties = read_properties(path)
    assert len(properties.columns["potential"]) == 7
    assert "would count twice" in properties.notes[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{electronvolt}",
            "",
            r"found column 4 \(potential in atomic units\) in place of column 4 \(potential in ele",
        ),
        (
            "column   4     --> potential{electronvolt}",
            "column   4     --> conserved",
            "found column 4 .conserved in",
        ),
        ("# column  12     --> temperature{kelvin}(1)", "#", "expected one header, or the same again"),
    ],
)
def test_headers_that_differ(path, old, new, message):
    text = path.read_text()
    assert old in text
    path.write_text(text + text.replace(old, new))
    with pytest.raises(DataError, match=message):
        read_properties(path)


@pytest.mark.parametrize("lost", [2, 3, 9, 40, 150, 200])
def test_a_row_that_a_killed_run_did_not_finish(path, lost):
    """i-PI goes on in the same line, with a row of before."""
    follower = PropertiesFollower(path, continued=True)
    again = [row(step, seed=100) for step in (14, 16, 18, 20)]
    path.write_text(path.read_text()[:-lost] + "  " + again[0])
    assert follower.latest()["conserved"] == float(again[0].split()[10])
    path.write_text(path.read_text() + "".join(again[1:]))
    properties = read_properties(path)
    np.testing.assert_array_equal(properties.columns["step"], np.arange(0, 22, 2))
    assert properties.columns["conserved"][7] == float(again[0].split()[10])
    assert properties.notes[0] == "line 17: part of a row that a killed run did not finish is left out"


def test_a_line_with_more_that_is_no_such_row(path):
    """The steps go on as if nothing had happened, or it is no row."""
    text = path.read_text()
    path.write_text(text[:-40] + "  " + row(20) + row(22))
    with pytest.raises(DataError, match="line 17: expected 12 columns, found 22"):
        read_properties(path)
    path.write_text(text + "1 " * 25 + "\n")
    with pytest.raises(DataError, match="line 18: expected 12 columns, found 25"):
        read_properties(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", "expected the header of an i-PI properties file"),
        (HEADER, "expected at least one row of properties"),
        (HEADER + row(0) + "1 2 3\n", "line 9: expected 12 columns, found 3"),
        (HEADER + row(0).replace("e", "x"), "line 8: expected numbers"),
    ],
)
def test_malformed_properties(path, text, message):
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_properties(path)


def test_missing_properties(tmp_path):
    with pytest.raises(DataError, match=r"none\.out: cannot read the properties: No such file"):
        read_properties(tmp_path / "none.out")


def test_follower(tmp_path):
    path = tmp_path / "sim.out"
    follower = PropertiesFollower(path)
    assert follower.latest() is None
    text = HEADER + row(0) + row(2)
    cut = len(HEADER) + 40
    path.write_text(text[:cut])
    assert follower.latest() is None
    path.write_text(text[: len(HEADER + row(0)) + 7])
    assert follower.latest()["step"] == 0.0
    assert follower.latest() is None
    path.write_text(text + row(4))
    latest = follower.latest()
    assert latest["step"] == 4.0
    assert latest["temperature"] == float(row(4).split()[2])
    assert latest["temperature(1)"] == float(row(4).split()[11])


def test_follower_waits_for_the_file_of_its_own_run(tmp_path):
    """i-PI renames the output of an earlier run; a restart goes on in it."""
    path = tmp_path / "sim.out"
    path.write_text(HEADER + row(0) + row(400))
    continued, new = PropertiesFollower(path, continued=True), PropertiesFollower(path)
    assert continued.latest()["step"] == 400.0
    assert new.latest() is None
    assert not new.has_started
    path.rename(tmp_path / "#sim.out#0#")
    path.write_text(HEADER + row(0) + row(2))
    assert new.latest()["step"] == 2.0
    assert new.has_started
