"""Where systems start, as i-PI reads it: atoms, positions and cell of each, and what is wrong with them."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from ase.data import atomic_numbers
from rich.console import Console

from ipi_support import CELL, POSITIONS, SYMBOLS, WATERS, write_input, write_water
from pidelta.cli.start import check_starts
from pidelta.config import load_config
from pidelta.errors import DataError, PideltaError, SetupError, StructureError
from pidelta.ipi.simulation import read_simulation
from pidelta.ipi.starts import check_atom_order, read_starts
from pidelta.setup import Setup
from pidelta.state import System
from pidelta.units import ANGSTROM

CRYSTAL = "CRYST1   20.000   21.000   22.000  90.00  90.00  90.00 P 1           1"


def system(*symbols):
    n = len(symbols)
    numbers = np.array([atomic_numbers[symbol] for symbol in symbols])
    residues = np.zeros(n, dtype=np.int64)
    return System(numbers, np.zeros((n, 3)), None, symbols, ("MOL",) * n, residues, residues + 1, ("",) * n)


def write_pdb(path, names, head=(CRYSTAL,)):
    rows = [f"ATOM  {i:5d} {name:<4s} MOL X   1    {i:8.3f}{0:8.3f}{0:8.3f}" for i, name in enumerate(names)]
    path.write_text("\n".join([*head, *rows, "END", ""]))


def as_pdb(path, names, **options):
    """Let an input start from a PDB file."""
    path.write_text(path.read_text().replace("mode='xyz' units='atomic_unit'", "mode='pdb'"))
    write_pdb(path.parent / "init.xyz", names, **options)
    return path


def test_positions_and_cell_of_each_bead(tmp_path):
    (start,) = read_starts(write_input(tmp_path, address="x", n_beads=3))
    assert (start.path, start.names, start.goes_on) == (tmp_path / "init.xyz", SYMBOLS, False)
    np.testing.assert_allclose(start.positions, [POSITIONS] * 3, atol=1e-10)
    np.testing.assert_allclose(start.cell, CELL, atol=1e-10)


def test_a_checkpoint_and_parts_of_their_own(tmp_path):
    """Positions of one file, a cell in the input; a state of i-PI that is started from anew."""
    folder = tmp_path / "a & é"
    folder.mkdir()
    path = write_input(folder, address="x")
    rows = ", ".join(f"{x}" for x in POSITIONS.ravel())
    cell = ", ".join(f"{x}" for x in CELL.T.ravel())
    beads = f"""<beads natoms='4' nbeads='1'> <q shape='(1, 12)'> [ {rows} ] </q>
      <m shape='(4)'> [ 1, 1, 1, 1 ] </m> <names shape='(4)'> [ O, H, H, C ] </names> </beads>"""
    state = f"""<simulation><step>3</step><system> {beads} <cell shape='(3, 3)'> [ {cell} ] </cell>
      <forces/> </system></simulation>"""
    (folder / "state").write_text(state)
    path.write_text(
        re.sub(r"<file.*</file>", "<file mode='chk'> state </file>", path.read_text()).replace(
            "<cell mode='manual' units='atomic_unit'> [ 9", "<cell mode='manual' units='angstrom'> [ 9"
        )
    )
    (start,) = read_starts(path)
    assert (start.path, start.names) == (folder / "state", SYMBOLS)
    np.testing.assert_allclose(start.positions, [POSITIONS], atol=1e-10)
    np.testing.assert_allclose(start.cell, ANGSTROM * CELL, rtol=1e-6)
    (state,) = read_starts(folder / "state")
    assert (state.names, state.goes_on) == (SYMBOLS, True)
    np.testing.assert_allclose(state.positions, [POSITIONS], atol=1e-10)
    np.testing.assert_allclose(state.cell, CELL, atol=1e-10)


def test_truncated_xyz(tmp_path):
    path = write_input(tmp_path, address="x")
    (tmp_path / "init.xyz").write_text("4\n\nO 0 0 0\n")
    with pytest.raises(DataError, match=r"init\.xyz: expected 4 atoms as line 1 says, found 1"):
        read_starts(path)


def test_atom_order(tmp_path):
    starts = read_starts(write_input(tmp_path, address="x"))
    check_atom_order(starts, system(*SYMBOLS))
    message = r"init\.xyz: the order of atoms differs .* atom 1 \(from 0\): expected C, found H"
    with pytest.raises(StructureError, match=message) as caught:
        check_atom_order(starts, system("O", "C", "H", "H"))
    assert "\n" not in str(caught.value)
    with pytest.raises(
        StructureError, match=re.escape("init.xyz: expected 2 atoms as in the structure, found 4")
    ):
        check_atom_order(starts, system("O", "H"))


def test_atom_names_of_a_pdb_file(tmp_path):
    """Whatever they are, if masses are given; they are compared as far as they can be."""
    path = as_pdb(write_input(tmp_path, address="x"), ("OW", "HW1", " CA", "CL", "1HB", "D"))
    found = r"init\.xyz: atom 0 \(from 0\): expected the symbol of an element, or <masses> in .*, found OW"
    with pytest.raises(SetupError, match=found) as caught:
        read_starts(path)
    assert "\n" not in str(caught.value)
    masses = "</cell> <masses mode='manual' units='dalton'> [ 16, 1, 12, 35, 1, 2 ] </masses>"
    path.write_text(path.read_text().replace("</cell>", masses))
    starts = read_starts(path)
    check_atom_order(starts, system("O", "H", "C", "Cl", "H", "H"))
    with pytest.raises(StructureError, match=r"atom 0 .* expected N, found OW"):
        check_atom_order(starts, system("N", "H", "C", "Cl", "H", "H"))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ((), "line 1: expected CRYST1 with the cell, first or after one TITLE, found 'ATOM      0"),
        (("TITLE a", "REMARK b", CRYSTAL), "line 2: expected CRYST1 .*, found 'REMARK b'"),
        ((CRYSTAL, "MODEL 1"), "line 2: expected ATOM, HETATM or END, found 'MODEL 1'"),
    ],
)
def test_what_the_pdb_reader_of_ipi_does_not_know(tmp_path, head, message):
    path = as_pdb(write_input(tmp_path, address="x"), SYMBOLS, head=head)
    with pytest.raises(DataError, match=message) as caught:
        read_starts(path)
    assert "could not convert" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("units='atomic_unit'> init", "units='angstrom'> init", "i-PI cannot start from it: Requested units"),
        (
            "<file mode='xyz' units='atomic_unit'> init.xyz </file>",
            "",
            "could not initialize the atomic posit",
        ),
        ("<cell mode='manual' units='atomic_unit'> [", "<cell mode='abc'> [", "an array of 3 floats"),
    ],
)
def test_what_ipi_would_refuse(tmp_path, old, new, message):
    path = write_input(tmp_path, address="x")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(PideltaError, match=message) as caught:
        read_starts(path)
    assert "\n" not in str(caught.value)


def two_systems(path, second="other.xyz"):
    """Let an input have a second system that starts from another file."""
    text = path.read_text()
    begin, end = text.index("<system>"), text.index("</system>") + len("</system>")
    one = text[begin:end].replace("<system>", "<system prefix='one'>")
    two = one.replace("'one'", "'two'").replace("init.xyz", second)
    path.write_text(text[:begin] + one + two + text[end:])
    return path


def as_templates(path):
    """The same by a template, whose label is the file."""
    text = path.read_text()
    begin, end = text.index("<system prefix='one'>"), text.rindex("</system>") + len("</system>")
    system = text[begin : text.index("</system>") + len("</system>")]
    template = system.replace("prefix='one'", "prefix='FILE'").replace("init.xyz", "FILE.xyz")
    instances = "<instance> [ init ] </instance> <instance> [ other ] </instance>"
    path.write_text(
        f"{text[:begin]}<system_template> <labels> [ FILE ] </labels> {instances} <template> {template} "
        f"</template> </system_template>{text[end:]}"
    )


def rows_of(*rows, unit="angstrom"):
    return "\n".join(["6", f"# positions{{{unit}}} cell{{angstrom}}", *rows, ""])


WATER_ROWS = [f"{s} {x} {y} {z}" for s, (x, y, z) in zip("OHHOHH", WATERS, strict=True)]
# the first hydrogens of both molecules exchanged, by elements the same
EXCHANGED = [WATER_ROWS[i] for i in (0, 4, 2, 3, 1, 5)]


@pytest.mark.parametrize("template", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            rows_of(*WATER_ROWS[1:], WATER_ROWS[0]),
            "other.xyz: the order of atoms differs .* expected O, found H",
        ),
        (rows_of(*EXCHANGED), "atoms 0 and 1 are bonded, 0.96 angstrom, but .* apart in .*other.xyz"),
        (rows_of(*WATER_ROWS, unit="atomic_unit"), "0.529 times that in .*other.xyz, as if angstrom"),
    ],
)
def test_the_second_system_is_looked_at(tmp_path, fail, template, content, message):
    path = two_systems(write_water(tmp_path / "run", 3))
    (path.parent / "other.xyz").write_text(content)
    if template:
        as_templates(path)
    assert len(read_simulation(path).systems) == 2
    assert re.search(message, fail("run", path))
    assert not (path.parent / "water.i-pi.log").exists()


def test_a_missing_file_of_the_second_system(tmp_path):
    path = two_systems(write_water(tmp_path / "run", 3), "none.xyz")
    with pytest.raises(
        SetupError, match=r"<file> in <initialize>: expected an existing file, found .*none\.xyz"
    ):
        read_simulation(path)


def test_another_cell_is_a_warning(tmp_path):
    """It may be that of another pressure."""
    path = write_water(tmp_path / "run", 3)
    structure = path.parent / "water.xyz"
    structure.write_text(structure.read_text().replace("6\n\n", '6\nLattice="30 0 0 0 30 0 0 0 30"\n'))
    setup = Setup(load_config(path.parent / "pidelta.yaml"))
    for length, warns in ((30.8, False), (31.0, True)):
        path.write_text(re.sub(r"\[ 30, \S+, 30 \]", f"[ 30, {length}, 30 ]", path.read_text()))
        printed = io.StringIO()
        check_starts(Console(file=printed, width=60), path, setup)
        line = (
            f"warning: {structure}: a cell of 30.00, 30.00, 30.00 angstrom and 90.0, 90.0, 90.0 degrees, but "
            f"30.00, 31.00, 30.00 angstrom and 90.0, 90.0, 90.0 degrees in {path.parent / 'init.xyz'}\n"
        )
        assert printed.getvalue() == (line if warns else "")
