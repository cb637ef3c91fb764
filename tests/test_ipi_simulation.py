"""Reading i-PI inputs: what is found, and the one-line errors for what is wrong."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import ipi.engine.outputs
import pytest
from ipi.engine.outputs import TrajectoryOutput

from ipi_support import write_input
from pidelta.errors import SetupError
from pidelta.ipi.outputs import read_outputs
from pidelta.ipi.saved_states import step_in_restart
from pidelta.ipi.simulation import TrajectoryFiles, read_simulation


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
    assert simulation.sockets_prefix == "/tmp/ipi_"


@pytest.mark.parametrize("n_beads", [4, 10, 100, 1000])
@pytest.mark.parametrize("bead", [-1, -3, 2])
@pytest.mark.parametrize(
    ("quantity", "form"), [("positions", "xyz"), ("v_centroid", "ase"), ("extras", "xyz"), ("forces", "bin")]
)
def test_names_of_trajectories_are_those_of_ipi(tmp_path, monkeypatch, n_beads, bead, quantity, form):
    opened = []
    monkeypatch.setattr(ipi.engine.outputs, "open_backup", lambda name, mode: opened.append(name))
    output = TrajectoryOutput(filename="sim.a", what=quantity, format=form, ibead=bead)
    output.system = SimpleNamespace(beads=SimpleNamespace(nbeads=n_beads))
    output.open_stream("w")
    files = TrajectoryFiles(tmp_path / "sim.a", quantity, form, 1, bead=bead)
    assert files.names(n_beads) == opened


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


def test_outputs_that_ipi_writes_unasked(tmp_path):
    path = write_input(tmp_path, address="x")
    head, _, rest = path.read_text().partition("<output")
    path.write_text(head + rest.partition("</output>")[2])
    simulation = read_simulation(path)
    assert simulation.output_path("client-1.log") == tmp_path / "i-pi.client-1.log"
    (system,) = read_outputs(path).systems
    assert simulation.properties == system.properties
    assert simulation.trajectories == system.trajectories
    (properties,), (positions,) = system.properties, system.trajectories
    assert (properties.path, properties.stride) == (tmp_path / "i-pi.md", 10)
    assert properties.columns[:3] == ("time", "step", "conserved")
    found = (positions.stem, positions.quantity, positions.stride, positions.format)
    assert found == (tmp_path / "i-pi.pos", "positions", 100, "xyz")
    assert simulation.checkpoints == (tmp_path / "i-pi.checkpoint",)
    path.write_text(f"{head}<output/>{rest.partition('</output>')[2]}")
    assert (read_simulation(path).properties, read_simulation(path).checkpoints) == ((), ())


@pytest.mark.parametrize(("prefix", "expected"), [("./s_", "/./s_"), ("", "/"), ("s/", "/s/")])
def test_sockets_beside_the_input(tmp_path, monkeypatch, prefix, expected):
    """They are there for clients in any folder, which have to reach them by the whole path."""
    path = write_input(tmp_path, address="x")
    path.write_text(path.read_text().replace("<simulation", f"<simulation sockets_prefix='{prefix}'"))
    monkeypatch.chdir(tmp_path.parent)
    simulation = read_simulation(path.relative_to(tmp_path.parent))
    assert os.path.abspath(simulation.sockets_prefix) == os.path.abspath(f"{tmp_path}{expected}")
    assert simulation.sockets_prefix.endswith(prefix)
    path.write_text(path.read_text().replace("<address> x", f"<address> {'x' * 100}"))
    with pytest.raises(SetupError, match=r"for the file of a unix socket, found"):
        read_simulation(path)


def test_sockets_in_a_folder_with_a_long_name(tmp_path, monkeypatch):
    """Names of unix sockets are limited; a short relative one serves from within."""
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    path = write_input(folder, address="x")
    path.write_text(path.read_text().replace("<simulation", "<simulation sockets_prefix='s_'"))
    monkeypatch.chdir(folder)
    assert read_simulation(Path(path.name)).sockets_prefix in ("s_", "./s_")


def test_spaces_about_prefixes_do_not_count(tmp_path):
    """As i-PI reads them; a prefix that begins with an underscore is whole."""
    path = write_input(tmp_path, address="x")
    path.write_text(path.read_text().replace("prefix='sim'", "prefix=' _sim '"))
    simulation = read_simulation(path)
    assert simulation.properties[0].path == tmp_path / "_sim.out"
    assert simulation.of_systems(tmp_path / "_sim.out") == (tmp_path / "_sim.out",)
    assert read_outputs(path).systems[0].properties[0].path == tmp_path / "_sim.out"


@pytest.mark.parametrize(
    ("prefixes", "found"), [(("", ""), "none for 2"), (("a", "b", "a "), "'a' for 2"), (("", "a"), None)]
)
def test_systems_that_would_write_the_same_files(tmp_path, prefixes, found):
    """i-PI moves the files of the first aside, and what is read is the second."""
    path = write_input(tmp_path, address="x")
    head, rest = path.read_text().split("<system>")
    systems = "".join(f"<system prefix='{each}'>" + rest.split("</simulation>")[0] for each in prefixes)
    path.write_text(f"{head}{systems}</simulation>")
    if found is None:
        assert read_simulation(path).system_names == ("0", "a")
        return
    expected = f"of its own for each of {len(prefixes)} systems, as .* the same files, found {found}$"
    for reader in (read_simulation, read_outputs):
        with pytest.raises(SetupError, match=rf"prefix of <system>: expected one {expected}"):
            reader(path)


def test_outputs_in_a_folder(tmp_path):
    """i-PI puts the prefix of a system before the name of the folder, and makes none."""
    path = write_input(tmp_path, address="x")
    head, rest = path.read_text().replace("prefix='sim'", "prefix='out/sim'").split("<system>")
    systems = "".join(f"<system prefix='{each}'>" + rest.split("</simulation>")[0] for each in "ab")
    path.write_text(f"{head}{systems}</simulation>")
    for name, file in (("out", "sim.i-pi.log"), ("a_out", "sim.out"), ("b_out", "sim.out")):
        found = f"expected the folder {tmp_path / name} for {file}, found none: i-PI makes no folders"
        with pytest.raises(SetupError, match=f"<output prefix='out/sim'>: {found}$"):
            read_simulation(path)
        (tmp_path / name).mkdir()
    simulation = read_simulation(path)
    expected = tuple(system.properties[0].path for system in read_outputs(path).systems)
    assert simulation.of_systems(simulation.properties[0].path) == expected
    assert expected == (tmp_path / "a_out" / "sim.out", tmp_path / "b_out" / "sim.out")


def test_missing_input(tmp_path):
    with pytest.raises(SetupError, match=r"none\.xml: cannot read the i-PI input: No such file"):
        read_simulation(tmp_path / "none.xml")
