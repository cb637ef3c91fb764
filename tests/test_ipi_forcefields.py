"""What the ffsockets of an i-PI input serve, and whether the forces add up to each term once."""

from __future__ import annotations

import pytest
from ipi.inputs.simulation import InputSimulation
from ipi.utils.io.inputs.io_xml import xml_parse_string

from ipi_support import running_ipi, unique_address, write_input
from pidelta.errors import SetupError
from pidelta.ipi.outputs import read_outputs
from pidelta.ipi.protocol import Connection, Init
from pidelta.ipi.served import served_in_parameters, terms_in_name
from pidelta.ipi.simulation import read_simulation
from pidelta.ipi.transports import connect

ALL = ("mm", "low", "delta")


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("mm", {"mm"}),
        ("delta+mm", {"mm", "delta"}),
        ("dftb + delta", {"low", "delta"}),
        ("DFTB", {"low"}),
        ("mm.bonded", {"mm.bonded"}),
        ("mm.bonded+low", {"mm.bonded", "low"}),
        ("low.vacuum + MM.bonded", {"mm.bonded", "low.vacuum"}),
        *((name, None) for name in ("pidelta", "driver", "lmpserial", "all", "qmmm", "ff1", "dft-b3lyp")),
    ],
)
def test_names(name, terms):
    assert terms_in_name(name) == terms


@pytest.mark.parametrize(
    "name",
    [
        "dftb+detla",
        "mm+",
        "+",
        "low+low",
        "dftb+low",
        "lowdelta",
        "low-delta",
        "low,delta",
        "mm1",
        "detla",
        "dftb3",
        "dtfb",
        "Delt",
        "deltta",
        "x+y",
        "mm.bondd",
        "mm_bonded",
        "mmbonded",
        "mm.nonboded",
        "bonded",
        "low-vacuum",
        "mm+mm.bonded",
    ],
)
def test_names_that_look_like_terms(tmp_path, name):
    with pytest.raises(ValueError, match="looks like terms: expected"):
        terms_in_name(name)
    path = write_input(tmp_path, address="x", ff_name=name)
    with pytest.raises(SetupError, match="looks like terms") as caught:
        read_simulation(path)
    assert str(caught.value).startswith(f"{path}: <ffsocket name={name!r}>: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", None),
        ("\0", None),
        ("{}", None),
        ("{ terms: low+delta }", {"low", "delta"}),
        (" terms : dftb , ,  batch_size:4", {"low"}),
        (" batch_size:4", None),
    ],
)
def test_parameters(text, terms):
    assert served_in_parameters(text).terms == terms


@pytest.mark.parametrize("text", ["{term: low}", "{terms: lo}", "{terms: }", "{low+delta}"])
def test_parameters_that_say_nothing(text):
    with pytest.raises(ValueError, match="<parameters>"):
        served_in_parameters(text)


def written(folder, forces, sockets=("mm", "low", "delta"), wrap=("", ""), systems=1, extra=""):
    """An input with ffsockets named in turn and these forces."""
    path = write_input(folder, address="one", ff_name="none")
    text = path.read_text()
    head, rest = text.split("<ffsocket", 1)
    rest = rest.split("</ffsocket>", 1)[1]
    fields = "".join(
        f"<ffsocket name='{name}' mode='unix'><address>a{k}</address></ffsocket>"
        for k, name in enumerate(sockets)
    )
    before, system = rest.split("<system>")
    system = system.split("<forces>")[0] + f"<forces>{forces}</forces>{extra}</system>"
    names = ["<system>"] if systems == 1 else [f"<system prefix='s{place}'>" for place in range(systems)]
    all_systems = "".join(name + system for name in names)
    path.write_text(head + wrap[0] + fields + wrap[1] + before + all_systems + "</simulation>")
    return path


def simulation(folder, forces, **options):
    return read_simulation(written(folder, forces, **options))


def force(name, options="", inner=""):
    return f"<force forcefield='{name}' {options}>{inner}</force>"


def bias(*forces, weights=""):
    """An ensemble with a bias of forces."""
    return f"<ensemble><bias>{''.join(forces)}</bias>{weights}</ensemble>"


EACH = force("mm") + force("low") + force("delta")


@pytest.mark.parametrize(
    ("forces", "options"),
    [
        (EACH, {}),
        (force("a"), {"sockets": ("a",)}),
        (force("mm", "nbeads='4'") + force("dftb+delta"), {"sockets": ("mm", "dftb+delta")}),
        # stiff parts on all beads, smooth ones on few
        (
            force("mm.bonded+low.vacuum") + force("mm.nonbonded+low.embedding+delta", "nbeads='4'"),
            {"sockets": ("mm.bonded+low.vacuum", "mm.nonbonded+low.embedding+delta")},
        ),
        (
            force("mm.bonded") + force("mm.nonbonded", "nbeads='1'") + force("low") + force("delta"),
            {"sockets": ("mm.bonded", "mm.nonbonded", "low", "delta")},
        ),
        # a contraction by a difference: cheap on all beads, the difference on few
        (EACH + force("low", "nbeads='2' weight='-1'") + force("low", "nbeads='2'"), {}),
        # the low level in the inner steps and its difference to the whole in the outer ones
        (
            force("low", inner="<mts_weights>[-1,1]</mts_weights>")
            + force("a", inner="<mts_weights>[1,0]</mts_weights>"),
            {"sockets": ("low", "a")},
        ),
        (force("c"), {"sockets": ("a", "b"), "wrap": ("<ffcommittee name='c'>", "</ffcommittee>")}),
        (EACH, {"systems": 2}),
        (force("mm") + force("low"), {"extra": bias(force("delta"))}),
        # a bias of another program
        (EACH, {"extra": bias(force("plumed")), "wrap": ("<ffplumed name='plumed'/>", "")}),
    ],
)
def test_sums_of_each_term_once(tmp_path, forces, options):
    assert simulation(tmp_path, forces, **options).forces.check("input.xml", ALL) == []


@pytest.mark.parametrize(
    ("forces", "options", "message"),
    [
        (
            force("mm") + force("low"),
            {},
            r"<forces>: expected each of mm, low, delta once, found none .* delta",
        ),
        (EACH + force("low"), {}, "found low 2 times, by low$"),
        (force("a") + force("b"), {"sockets": ("a", "b")}, "found mm 2 times, by a, b$"),
        (
            force("low+delta") + EACH,
            {"sockets": ("low+delta", *ALL)},
            r"found low 2 times, by low\+delta, low$",
        ),
        (force("mm"), {"sockets": ("mm", "pidelta")}, "found none that serves low"),
        (
            force("mm.bonded") + force("low") + force("delta"),
            {"sockets": ("mm.bonded", "low", "delta")},
            "found none that serves mm.nonbonded",
        ),
        (
            EACH + force("mm.bonded"),
            {"sockets": (*ALL, "mm.bonded")},
            "found mm.bonded 2 times, by mm, mm.bonded$",
        ),
        (EACH, {"extra": bias(force("low"))}, "found low 2 times, by low, low in <bias>$"),
        (
            EACH,
            {"sockets": (*ALL, "other"), "extra": bias(force("other"))},
            "found mm 2 times, by mm, other in <bias>$",
        ),
        # i-PI evaluates both levels and adds them up
        (
            EACH.replace(force("low"), force("low", inner="<mts_weights>[1, 1]</mts_weights>")),
            {},
            "found low 2 times, by low; i-PI adds up <mts_weights>, and a factor is asked for by weight$",
        ),
        (
            EACH.replace(force("low"), force("low", inner="<mts_weights>[0, 0.5]</mts_weights>")),
            {},
            "found low 0.5 times, by low; i-PI adds up <mts_weights>",
        ),
    ],
)
def test_sums_that_do_not(tmp_path, forces, options, message):
    with pytest.raises(SetupError, match=message) as caught:
        simulation(tmp_path, forces, **options).forces.check("input.xml", ALL)
    assert "\n" not in str(caught.value)


def test_each_system_counts(tmp_path):
    one = simulation(tmp_path, EACH, systems=2)
    text = one.path.read_text()
    assert text.count(force("delta")) == 2
    one.path.write_text(text[::-1].replace(force("delta")[::-1], "", 1)[::-1])
    with pytest.raises(SetupError, match="found none that serves delta"):
        read_simulation(one.path).forces.check("input.xml", ALL)


def test_terms_that_the_energy_does_not_have(tmp_path):
    forces = simulation(tmp_path, EACH).forces
    with pytest.raises(SetupError, match="forcefield 'delta': expected terms among mm, low, found delta"):
        forces.check("input.xml", ("mm", "low"))


def test_parts_of_the_terms_of_a_run(tmp_path):
    """``--terms mm.bonded+low``: sockets are told apart from those of whole terms."""
    sockets = ("mm.bonded", "low")
    forces = simulation(tmp_path, force("mm.bonded") + force("low"), sockets=sockets).forces
    assert forces.check("input.xml", ("mm.bonded", "low")) == []
    assert [forces.served(socket, ALL) for socket in forces.sockets] == [["mm.bonded"], ["low"]]
    whole = simulation(tmp_path, EACH).forces
    with pytest.raises(SetupError, match=r"forcefield 'mm': expected terms .* found mm$"):
        whole.check("input.xml", ("mm.bonded", "low", "delta"))


def test_weights_that_say_so_are_told(tmp_path):
    forces = simulation(tmp_path, force("mm") + force("low") + force("delta", "weight='0.5'")).forces
    assert forces.check("input.xml", ALL) == ["the weights of the forces count delta 0.5 times"]
    factors = "<ensemble><hamiltonian_weights>[1, 1, 0]</hamiltonian_weights></ensemble>"
    forces = simulation(tmp_path, EACH, extra=factors).forces
    assert forces.check("input.xml", ALL) == ["the weights of the forces count delta 0 times"]


def test_a_bias_is_weighed_by_its_own_weights(tmp_path):
    extra = bias(force("delta"), weights="<bias_weights>[0.25]</bias_weights>")
    forces = simulation(tmp_path, force("mm") + force("low"), extra=extra).forces
    assert forces.check("input.xml", ALL) == ["the weights of the forces count delta 0.25 times"]
    assert [each.name for each in forces.sockets] == ["mm", "low", "delta"]
    with pytest.raises(SetupError, match=r"weight of .*'delta'> in <bias>: expected none, .*, found 0\.5$"):
        simulation(tmp_path, EACH, extra=bias(force("delta", "weight='0.5'")))
    with pytest.raises(SetupError, match="expected a forcefield among mm, low, delta, found 'plumed'"):
        simulation(tmp_path, EACH, extra=bias(force("plumed")))


def test_beads_of_a_bias_are_structures(tmp_path):
    forces = simulation(tmp_path, EACH, extra=bias(force("delta", "nbeads='3'"))).forces
    assert [forces.structures(socket) for socket in forces.sockets] == [1, 1, 4]


def test_template_of_systems(tmp_path):
    path = written(tmp_path, force("mm") + force("low") + force("delta", "weight='LAMBDA'"))
    text = path.read_text().replace("<system>", "<system_template><labels>[LAMBDA]</labels>\n", 1)
    start = text.index("\n", text.index("<labels>"))
    body = text[start:].replace("</system>", "</system></template></system_template>")
    instances = "<instance>[1]</instance><instance>[0.25]</instance><template><system prefix='LAMBDA'>"
    path.write_text(text[:start] + instances + body)
    forces = read_simulation(path).forces
    assert [[f.weight for f in system] for system in forces.systems] == [[1.0, 1.0, 1.0], [1.0, 1.0, 0.25]]
    assert forces.check("input.xml", ALL) == ["the weights of the forces count delta 0.25 times"]


def test_systems_are_in_the_order_of_ipi(tmp_path):
    """Its own reader gives the prefixes in the order in which the replicas of a run are counted."""
    path = written(tmp_path, EACH, sockets=("mm", "low", "delta"))
    head, _, rest = path.read_text().partition("<system>")
    system = rest.partition("</system>")[0] + "</system>"
    single = "<system prefix='{}'>" + system
    template = (
        "<system_template><labels>[NAME]</labels><instance>[{}]</instance><instance>[{}]</instance>"
        f"<template>{single.format('NAME')}</template></system_template>"
    )
    systems = [template.format("b", "a"), single.format("z"), template.format("d", "c"), single.format("y")]
    path.write_text(f"{head}{''.join(systems)}</simulation>")
    reader = InputSimulation()
    reader.parse(xml_parse_string(path.read_text()).fields[0][1])
    read = (each.fetch() for kind, each in reader.extra if kind.startswith("system"))
    ipis = [each.prefix for found in read for each in (found if isinstance(found, list) else [found])]
    assert ipis == ["b", "a", "z", "d", "c", "y"]
    assert list(read_simulation(path).systems) == ipis
    assert [system.name for system in read_outputs(path).systems] == ipis


def test_structures_of_each_socket(tmp_path):
    forces = simulation(tmp_path, force("mm") + force("low", "nbeads='3'") + force("delta"), systems=2).forces
    assert [forces.structures(socket) for socket in forces.sockets] == [2, 6, 2]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_parameters_reach_the_client_and_survive_a_restart(tmp_path, batch_size):
    address = unique_address()
    path = write_input(tmp_path, address=address, batch_size=batch_size, n_beads=2)
    text = path.read_text()
    path.write_text(text.replace("</address>", "</address> <parameters>{terms: low + delta}</parameters>"))
    assert read_simulation(path).forces.sockets[0].terms == {"low", "delta"}
    connection, found = Connection(4), None
    with running_ipi(path) as ipi:
        transport = connect("unix", address, 0, patience=30.0)
        while found is None:
            count = transport.receive_into(connection.wanted())
            if (event := connection.received(count)) is not None:
                if isinstance(event, Init):
                    found = event
                elif hasattr(event, "reply"):
                    transport.send(event.reply)
        ipi.terminate()
        transport.close()
        ipi.wait(30.0)
    assert served_in_parameters(found.parameters).terms == {"low", "delta"}
    assert found.batch_size == batch_size
    restarted = (tmp_path / "RESTART").read_text().replace("<step>", "<step> ")
    assert "terms" in restarted
    assert read_simulation(tmp_path / "RESTART").forces.sockets[0].terms == {"low", "delta"}


@pytest.mark.parametrize("weight", ["nan", "inf", "1e400", "one"])
def test_weights_are_numbers(tmp_path, weight):
    with pytest.raises(SetupError, match=f"weight of <force forcefield='mm'>: expected a number, .*{weight}"):
        simulation(tmp_path, force("mm", f"weight='{weight}'"))
    with pytest.raises(SetupError, match=f"<mts_weights> .* expected a number, .*{weight}"):
        simulation(tmp_path, force("mm", inner=f"<mts_weights> [1, {weight}] </mts_weights>"))
