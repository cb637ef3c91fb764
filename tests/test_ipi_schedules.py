"""The beads and time steps of the terms of an i-PI input, and stiff ones that have the coarser."""

from __future__ import annotations

import pytest

from pidelta.errors import SetupError
from pidelta.ipi.schedules import schedule_of, stiff_terms_behind
from pidelta.ipi.simulation import read_simulation

ALL = ("mm", "low", "delta")
STIFF, SMOOTH = "mm.bonded+low.vacuum", "mm.nonbonded+low.embedding"
INPUT = """<simulation> {sockets}
  <system>
    <initialize nbeads='{beads}'/>
    <forces> {forces} </forces>
    <ensemble> {bias} </ensemble>
    <motion mode='dynamics'> <dynamics mode='nve'> {steps} </dynamics> </motion>
  </system>
</simulation>"""
TWO_FEMTOSECONDS = "<timestep units='femtosecond'> 2.0 </timestep>"
BOTH_STEPS = TWO_FEMTOSECONDS + "<nmts> [1, 4] </nmts>"


def force(name, levels="[1]", beads=0, weight=1):
    return (
        f"<force forcefield='{name}' nbeads='{beads}' weight='{weight}'>"
        f"<mts_weights> {levels} </mts_weights> </force>"
    )


def forces_of(folder, *forces, sockets=(STIFF, SMOOTH), beads=1, steps=BOTH_STEPS, bias=""):
    path = folder / "input.xml"
    elements = "".join(
        f"<ffsocket name='{name}' mode='unix'> <address>s{place}</address> </ffsocket>"
        for place, name in enumerate(sockets)
    )
    path.write_text(
        INPUT.format(sockets=elements, beads=beads, forces="".join(forces), steps=steps, bias=bias)
    )
    return read_simulation(path).forces


def schedules(forces):
    return [schedule_of(forces, source) for source in forces.sources]


def test_the_short_step_is_that_of_stiff_terms(tmp_path):
    forces = forces_of(tmp_path, force(STIFF, "[0, 1]"), force(SMOOTH, "[1, 0]"))
    assert schedules(forces) == ["every 0.5 fs", "every 2 fs"]
    assert stiff_terms_behind(forces, ALL) == []


def test_exchanged_schedules(tmp_path):
    forces = forces_of(tmp_path, force(STIFF, "[1, 0]"), force(SMOOTH, "[0, 1]"))
    assert schedules(forces) == ["every 2 fs", "every 0.5 fs"]
    assert stiff_terms_behind(forces, ALL) == [
        f"the stiff {stiff} has a longer time step than the smooth {smooth}: 2 fs and 0.5 fs"
        for stiff, smooth in (("mm.bonded", "mm.nonbonded"), ("low.vacuum", "low.embedding"))
    ]


def test_exchanged_beads(tmp_path):
    forces = forces_of(tmp_path, force(STIFF, beads=4), force(SMOOTH), beads=32, steps=TWO_FEMTOSECONDS)
    assert schedules(forces) == ["4 beads", "32 beads"]
    assert stiff_terms_behind(forces, ("mm",)) == [
        "the stiff mm.bonded is on fewer beads than the smooth mm.nonbonded: 4 and 32"
    ]


def test_beads_and_time_steps(tmp_path):
    forces = forces_of(tmp_path, force(STIFF, "[0, 1]"), force(SMOOTH, "[1, 0]", beads=1), beads=8)
    assert schedules(forces) == ["8 beads, every 0.5 fs", "1 bead, every 2 fs"]


def test_terms_as_fine_as_the_system_need_no_words(tmp_path):
    forces = forces_of(tmp_path, force(STIFF), force(SMOOTH), beads=8, steps=TWO_FEMTOSECONDS)
    assert schedules(forces) == ["", ""]


def test_three_levels(tmp_path):
    """The steps of a level divide those of the level above, as i-PI has it."""
    steps = "<timestep units='femtosecond'> 3.0 </timestep> <nmts> [1, 3, 4] </nmts>"
    sockets = ("mm.bonded", "mm.nonbonded", "low")
    forces = forces_of(
        tmp_path,
        force("mm.bonded", "[0, 0, 1]"),
        force("mm.nonbonded", "[0, 1, 0]"),
        force("low", "[1, 0, 0]"),
        sockets=sockets,
        steps=steps,
    )
    assert schedules(forces) == ["every 0.25 fs", "every 1 fs", "every 3 fs"]
    assert stiff_terms_behind(forces, ("mm", "low")) == []


def test_what_a_difference_leaves(tmp_path):
    """The bonded terms cancel at the long step: what is left of them acts at the short one alone."""
    whole = force("whole", "[1, 0]")
    forces = forces_of(tmp_path, force(STIFF, "[-1, 1]"), whole, sockets=(STIFF, "whole"))
    assert forces.check("input.xml", ALL) == []
    assert schedules(forces) == ["every 2 fs; every 0.5 fs", "every 2 fs"]
    assert stiff_terms_behind(forces, ALL) == []
    forces = forces_of(tmp_path, force(SMOOTH, "[-1, 1]"), whole, sockets=(SMOOTH, "whole"))
    assert len(stiff_terms_behind(forces, ALL)) == 2


def test_a_bias_acts_at_the_long_step(tmp_path):
    bias = f"<bias> {force(STIFF, '[0, 1]')} </bias>"
    forces = forces_of(tmp_path, force(SMOOTH, "[0, 1]"), bias=bias)
    assert schedules(forces) == ["every 2 fs", "every 0.5 fs"]
    assert len(stiff_terms_behind(forces, ALL)) == 2


def test_time_steps_without_a_unit_are_atomic(tmp_path):
    """As in RESTART: 41.341373336 a.u. of time are a femtosecond (CODATA)."""
    steps = "<timestep> 41.341373336 </timestep> <nmts shape='(2)'> [ 1, 2 ] </nmts>"
    forces = forces_of(tmp_path, force(STIFF, "[0, 1]"), force(SMOOTH, "[1, 0]"), steps=steps)
    assert schedules(forces) == ["every 0.5 fs", "every 1 fs"]


@pytest.mark.parametrize(
    ("levels", "steps", "message"),
    [
        ("[1]", BOTH_STEPS, r"<mts_weights> of <force forcefield='mm'>: expected 2, one for .*, found 1$"),
        ("[0, 1]", TWO_FEMTOSECONDS, "expected 1, one for each level of <nmts>, found 2$"),
        ("[0, 1]", TWO_FEMTOSECONDS + "<nmts>[1, 0]</nmts>", "<nmts>: expected 1 or more, found 0$"),
        ("[0, 1]", BOTH_STEPS.replace("2.0", "two"), "<timestep>: expected a number, found 'two'$"),
        (
            "[0, 1]",
            BOTH_STEPS.replace("femtosecond", "fs"),
            "<timestep>: expected a unit that i-PI knows, found 'fs'$",
        ),
    ],
)
def test_levels_that_ipi_would_end_with(tmp_path, levels, steps, message):
    with pytest.raises(SetupError, match=message):
        forces_of(tmp_path, force("mm", levels), sockets=("mm",), steps=steps)
