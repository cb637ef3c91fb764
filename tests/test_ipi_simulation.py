"""Reading i-PI inputs: what is found, and the one-line errors for what is wrong."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase.data import atomic_numbers

from ipi_support import SYMBOLS, write_input
from pidelta.errors import SetupError, StructureError
from pidelta.ipi.saved_states import step_in_restart
from pidelta.ipi.simulation import check_atom_order, read_simulation
from pidelta.state import System


def system(*symbols):
    n = len(symbols)
    numbers = np.array([atomic_numbers[symbol] for symbol in symbols])
    residues = np.zeros(n, dtype=np.int64)
    return System(numbers, np.zeros((n, 3)), None, symbols, ("MOL",) * n, residues, residues + 1, ("",) * n)


def test_description(tmp_path):
    path = write_input(tmp_path, address="where", batch_size=3, n_beads=4, steps=50, ff_name="dftb+delta")
    simulation = read_simulation(path)
    assert (simulation.prefix, simulation.step, simulation.total_steps, simulation.n_beads) == (
        "sim",
        0,
        50,
        4,
    )
    (ffsocket,) = simulation.forces.sockets
    assert (ffsocket.mode, ffsocket.address, ffsocket.port, ffsocket.batch_size) == (
        "unix",
        "where",
        31415,
        3,
    )
    assert ffsocket.terms == {"low", "delta"}
    (properties,) = simulation.properties
    assert properties.path == tmp_path / "sim.out"
    assert properties.columns[:3] == ("step", "time{picosecond}", "conserved")
    assert simulation.main_properties is properties
    assert {"kinetic_cv", "temperature"} <= properties.names
    for name in ("sim.pos_10.xyz", "sim.pos_02.xyz", "sim.pos_x_1.xyz", "sim.pos_01.pdb"):
        (tmp_path / name).touch()
    assert [p.name for p in simulation.trajectories[0].files()] == ["sim.pos_02.xyz", "sim.pos_10.xyz"]
    assert [t.quantity for t in simulation.trajectories] == ["positions", "forces", "extras"]
    assert simulation.atom_names == SYMBOLS
    assert simulation.sockets_prefix == "/tmp/ipi_"


def test_nested_ffsockets_defaults_and_restart(tmp_path):
    path = tmp_path / "RESTART"
    path.write_text("""<!-- a comment --><simulation sockets_prefix='/tmp/other_'>
      <ffcommittee name='committee'> <ffsocket name='mm' mode='inet'/> </ffcommittee>
      <output> <properties> [ step ] </properties> </output>
      <step> 7 </step>
      <system>
        <beads natoms='3' nbeads='8'> <names shape='(3)'> [ O, H, H ] </names> </beads>
        <forces> <force forcefield='committee'/> </forces>
      </system>
    </simulation>""")
    simulation = read_simulation(path)
    assert (simulation.step, simulation.total_steps, simulation.n_beads) == (7, 1000, 8)
    assert simulation.sockets_prefix == "/tmp/other_"
    assert (simulation.forces.sockets[0].address, simulation.forces.sockets[0].port) == ("localhost", 65535)
    assert simulation.properties[0].path == tmp_path / "i-pi.out"
    check_atom_order(simulation, system("O", "H", "H"))
    assert step_in_restart(path) == 7
    assert step_in_restart(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</output>", "", r"input\.xml: line \d+: expected well-formed XML, found mismatched tag"),
        ("simulation", "simulator", "expected <simulation> as the outermost element, found <simulator>"),
        ("ffsocket", "ffdirect", "expected an <ffsocket> for pidelta to connect to, or .*, found none"),
        ("mode='unix'", "mode='mpi'", "mode of <ffsocket name='all'>: expected unix, shm, inet, found 'mpi'"),
        ("<batch_size>1", "<batch_size>many", "<batch_size>: expected an integer, found 'many'"),
        ("<batch_size>1", "<batch_size>0", "<batch_size>: expected 1 or more, found 0"),
        ("<total_steps> 20", "<total_steps> 0", "nothing left to run: .* found 0"),
        ("<total_steps> 20", "<total_steps> ten", "<total_steps>: expected an integer, found 'ten'"),
        ("init.xyz", "none.xyz", r"<file> in <initialize>: expected an existing file, found .*none\.xyz"),
        ("nbeads='1'", "nbeads='0'", "nbeads of <initialize>: expected 1 or more, found 0"),
        ("nbeads='1'", "nbeads='-4'", "nbeads of <initialize>: expected 1 or more, found -4"),
        ("nbeads='1'", "nbeads='2.5'", "nbeads of <initialize>: expected an integer, found '2.5'"),
        ("nbeads='1'", "", "<system>: expected <initialize nbeads='...'>, found none"),
        ("<force forcefield='all'/>", "", "<system>: expected <forces> with a <force>, found none"),
        ("<force f", "<force nbeads='-1' f", "nbeads of <force forcefield='all'>: expected 0 or more, found"),
        (
            "<force f",
            "<force weight='x' f",
            "weight of <force forcefield='all'>: expected a number, found 'x'",
        ),
        ("<force forcefield='all'", "<force forcefield='al'", "expected a forcefield among all, found 'al'"),
        ("system>", "sistem>", "expected a <system>, found none"),
        ("stride='1'", "stride='0'", "stride of <properties>: expected 1 or more, found 0"),
        ("<simulation", "<?xml version='1.0' encoding='none'?><simulation", "expected well-formed XML"),
        ("</ffsocket>", "</ffsocket><fflj name='all'/>", "a name of its own .* found 'all' twice"),
        (
            "</address>",
            "</address> <activelist> [0, 1, 2] </activelist>",
            "<activelist> of <ffsocket name='all'>: expected none, as .* all atoms, found 3 of them",
        ),
        (
            "<address> x",
            f"<address> {'x' * 120}",
            "<address> of <ffsocket name='all'>: expected 10. bytes at most .*, found 129: /tmp/ipi_xx",
        ),
    ],
)
def test_problems(tmp_path, old, new, message):
    path = write_input(tmp_path, address="x")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SetupError, match=message) as caught:
        read_simulation(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_list_of_all_atoms_as_restart_has_it(tmp_path):
    path = write_input(tmp_path, address="x")
    whole = "</address> <activelist shape='(1)'> [ -1 ] </activelist>"
    path.write_text(path.read_text().replace("</address>", whole))
    assert len(read_simulation(path).forces.sockets) == 1


def test_a_committee_without_some_atoms(tmp_path):
    path = write_input(tmp_path, address="x")
    text = path.read_text().replace("<ffsocket name='all'", "<ffcommittee name='all'><ffsocket name='one'")
    path.write_text(text.replace("</ffsocket>", "</ffsocket><activelist>[0]</activelist></ffcommittee>"))
    with pytest.raises(SetupError, match=r"<activelist> of <ffcommittee name='all'>: .* found 1 of them"):
        read_simulation(path)


def test_missing_input(tmp_path):
    with pytest.raises(SetupError, match=r"none\.xml: cannot read the i-PI input: No such file"):
        read_simulation(tmp_path / "none.xml")


def test_truncated_xyz(tmp_path):
    path = write_input(tmp_path, address="x")
    (tmp_path / "init.xyz").write_text("4\n\nO 0 0 0\n")
    with pytest.raises(SetupError, match=r"init\.xyz: expected 4 atoms as line 1 says, found 1"):
        read_simulation(path)


def test_atom_order(tmp_path):
    simulation = read_simulation(write_input(tmp_path, address="x"))
    check_atom_order(simulation, system(*SYMBOLS))
    message = r"init\.xyz: the order of atoms differs .* atom 1 \(from 0\): expected C, found H"
    with pytest.raises(StructureError, match=message) as caught:
        check_atom_order(simulation, system("O", "C", "H", "H"))
    assert "\n" not in str(caught.value)
    with pytest.raises(
        StructureError, match=re.escape("init.xyz: expected 2 atoms as in the structure, found 4")
    ):
        check_atom_order(simulation, system("O", "H"))


def test_atom_names_of_a_pdb_file(tmp_path):
    path = write_input(tmp_path, address="x")
    path.write_text(path.read_text().replace("mode='xyz'", "mode='pdb'"))
    names = ("OW", "HW1", " CA", "CL", "1HB", "D")
    rows = ["CRYST1   20.000   21.000   22.000  90.00  90.00  90.00 P 1           1"]
    rows += [f"ATOM  {i:5d} {name:<4s} MOL X   1    {i:8.3f}{0:8.3f}{0:8.3f}" for i, name in enumerate(names)]
    (tmp_path / "init.xyz").write_text("TITLE\n" + "\n".join(rows) + "\nEND\n")
    simulation = read_simulation(path)
    check_atom_order(simulation, system("O", "H", "C", "Cl", "H", "H"))
    with pytest.raises(StructureError, match=r"atom 0 .* expected N, found OW"):
        check_atom_order(simulation, system("N", "H", "C", "Cl", "H", "H"))
