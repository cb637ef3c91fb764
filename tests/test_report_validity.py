"""What a report leaves out, or counts in another way, because plain formulas would be wrong."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from ipi.engine.properties import Properties as IpiProperties

from pidelta.analysis.ipi_output import Properties, read_properties
from pidelta.analysis.summary import summarise
from pidelta.analysis.temperatures import temperature_section
from pidelta.analysis.validity import wrong_numbers
from pidelta.cli.report_input import composition_of, read_run
from pidelta.ipi.outputs import Held
from pidelta.units import HARTREE_IN_EV, HARTREE_IN_KELVIN, KELVIN
from test_report import MASSES, N_BEADS, NAMES, make, write_run

THERMOSTAT = "<thermostat mode='pile_l'> <tau> 100 </tau> </thermostat>"
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


XYZ = "<file mode='xyz'> init.xyz </file>"
DEUTERIUM = np.where(MASSES < 4000.0, 3671.3, MASSES)


def write_state(path, masses, prefix="sim"):
    """A state of i-PI, with masses of its own."""
    numbers = ", ".join(f"{mass}" for mass in masses)
    path.write_text(
        f"""<simulation> <output prefix='{prefix}'/> <step>3</step> <system>
          <beads natoms='6' nbeads='1'> <q shape='(1, 18)'> [ {", ".join(map(str, range(18)))} ] </q>
          <m shape='(6)'> [ {numbers} ] </m> <names shape='(6)'> [ {", ".join(NAMES)} ] </names> </beads>
          <cell shape='(3, 3)'> [ 9, 0, 0, 0, 9, 0, 0, 0, 9 ] </cell> <forces/> </system> </simulation>"""
    )


def masses_of_run(path):
    (system,) = read_run(path).outputs.systems
    return composition_of(path, system, None).masses


def test_masses_of_a_state_of_ipi(written, tmp_path):
    """They come along, whatever the names; if the state is gone, the RESTART of the run has them."""
    path = edited(written, tmp_path, (XYZ, "<file mode='chk'> start.chk </file>"))
    write_state(tmp_path / "start.chk", DEUTERIUM)
    np.testing.assert_allclose(masses_of_run(path), DEUTERIUM)
    (tmp_path / "start.chk").rename(tmp_path / "RESTART")
    np.testing.assert_allclose(masses_of_run(path), DEUTERIUM)
    write_state(tmp_path / "RESTART", DEUTERIUM, prefix="another")
    np.testing.assert_allclose(masses_of_run(path), MASSES, rtol=1e-4)
    (warning,) = make(path).warnings
    assert "expected an existing file" in warning
    assert "start.chk: masses are those of the elements, and so may be wrong" in warning


def test_labels_do_not_change_masses(written, tmp_path):
    """i-PI takes masses from the names in the file, and then gives the atoms other names."""
    labels = "<labels mode='manual'> [ O, D, D, O, D, D ] </labels> <cell mode='abc'> [ 9, 9, 9 ] </cell>"
    path = edited(written, tmp_path, (XYZ, XYZ + labels))
    rows = [f"{name} 0 0 0" for name in NAMES]
    (tmp_path / "init.xyz").write_text("\n".join(["6", "", *rows, ""]))
    for file in (*tmp_path.glob("sim.pos_*"), *tmp_path.glob("sim.vel_*")):
        file.write_text(file.read_text().replace(" H ", " D "))
    (system,) = read_run(path).outputs.systems
    composition = composition_of(path, system, None)
    assert composition.names == tuple("ODDODD")
    np.testing.assert_allclose(composition.masses, MASSES, rtol=1e-4)


def test_masses_of_a_file(written, tmp_path):
    """Those of the names in the file, and of atoms that the input names after it."""
    masses = "<masses mode='xyz'> heavy.xyz </masses> <masses mode='manual' index='0'> [ 1.5 ] </masses>"
    path = edited(written, tmp_path, (XYZ, f"{XYZ} {masses} <cell mode='abc'> [ 9, 9, 9 ] </cell>"))
    for file, hydrogen in (("init.xyz", "H"), ("heavy.xyz", "D")):
        rows = [f"{name} 0 0 0".replace("H", hydrogen) for name in NAMES]
        (tmp_path / file).write_text("\n".join(["6", "", *rows, ""]))
    np.testing.assert_allclose(masses_of_run(path), [1.5, *DEUTERIUM[1:]], rtol=1e-3)


def test_beads_with_other_masses_have_no_temperature(written, tmp_path):
    """Path-integral CMD: i-PI's velocities are momenta over physical masses; those of centroids hold."""
    cmd = "<normal_modes> <frequencies style='pa-cmd'> [ 0.03 ] </frequencies> </normal_modes> </system>"
    numbers, remarks = section(edited(written, tmp_path, ("</system>", cmd)), "Temperature")
    assert not [name for name in numbers if name.endswith("beads")]
    assert {"i-PI's temperature", "all centroid"} <= set(numbers)
    assert "temperatures of beads: left out: by <frequencies style='pa-cmd'> they move with other" in remarks


@pytest.mark.parametrize(
    ("mode", "covariance", "centroids_are_kept"),
    [
        ("nm_gle", "<C shape='(2,1,1)' units='kelvin'> [ 600, 1900 ] </C>", True),
        ("nm_gle", "<C shape='(2,1,1)' units='kelvin'> [ 900, 1900 ] </C>", False),
        ("nm_gle_g", "<C shape='(2,1,1)' units='kelvin'> [ 900, 1900 ] </C>", True),
        ("gle", "<C shape='(1,1)' units='kelvin'> [ 600 ] </C>", False),
    ],
)
def test_noise_that_drives_momenta_elsewhere(written, tmp_path, mode, covariance, centroids_are_kept):
    """Quantum thermostats and PIGLET: the latter, of normal modes, leaves centroids where they are."""
    noise = f"<thermostat mode='{mode}'> <A> [ 1 ] </A> {covariance} </thermostat>"
    path = edited(written, tmp_path, (THERMOSTAT, noise))
    numbers, remarks = section(path, "Temperature")
    expected = {name: number.expected for name, number in numbers.items()}
    assert expected["i-PI's temperature"] is expected["all beads"] is None
    assert expected["all centroid"] == (pytest.approx(300.0, rel=1e-4) if centroids_are_kept else None)
    assert "expected temperatures of beads: left out: the noise of quantum thermostats" in remarks
    found, remarks = kinds(path)
    assert found == CENTROID
    assert "primitive, kinetic_td: left out: with the noise of quantum thermostats" in remarks
    _, remarks = section(path, "Vibrational density of states")
    assert ("intensities are those of noise" in remarks) == (not centroids_are_kept)


def test_a_quantum_thermostat_of_one_bead(written, tmp_path):
    """i-PI's estimators of one bead are 3/2 k_B T whatever the noise."""
    noise = (
        "<thermostat mode='gle'> <A> [ 1 ] </A> <C shape='(1,1)' units='kelvin'> [ 600 ] </C> </thermostat>"
    )
    path = edited(written, tmp_path, (THERMOSTAT, noise), ("nbeads='2'", "nbeads='1'"))
    for file in tmp_path.glob("sim.*_1*"):
        file.unlink()
    numbers, _ = section(path, "Temperature")
    assert {number.expected for number in numbers.values()} == {None}
    found, remarks = kinds(path)
    assert found == set()
    assert "kinetic_td, kinetic_cv: left out: with the noise" in remarks


def test_momenta_of_baoab_are_cold_at_the_ends_of_steps(written, tmp_path):
    assert "baoab" not in section(written, "Temperature")[1]
    path = edited(written, tmp_path, ("mode='nvt'", "mode='nvt' splitting='baoab'"))
    assert (
        "with splitting='baoab' momenta are too cold at the ends of steps" in section(path, "Temperature")[1]
    )


def test_centroids_that_are_held(written, tmp_path):
    """Of 2 beads and 6 atoms, 18 degrees of freedom; the centroids have none."""
    path = edited(written, tmp_path, ("mode='nvt'", "mode='nvt-cc'"))
    numbers, _ = section(path, "Temperature")
    degrees = {name: n.details["degrees of freedom"] for name, n in numbers.items() if n.details}
    assert degrees["all beads"] == degrees["i-PI's temperature"] == 18.0
    assert not [name for name in numbers if "centroid" in name]
    assert wrong_numbers(read_run(path).outputs.systems[0]) == {"virial": "the centroids do not move"}
    assert section(path, "Vibrational density of states") == ({}, "centroids do not move")


def ipis_temperature(path, held, *, is_combined):
    """i-PI's first temperature of all atoms, by its own code, were the kinetic energy what the file says."""
    kelvin = read_properties(path.with_name("sim.out")).columns["temperature"][0]
    enstype = {} if is_combined else {"enstype": "nvt-cc" if held.centroids else "nvt"}
    system = SimpleNamespace(
        beads=SimpleNamespace(natoms=6, nbeads=N_BEADS, m=MASSES),
        ensemble=SimpleNamespace(temp=300.0 * KELVIN),
        motion=SimpleNamespace(fixcom=held.momentum, fixatoms_dof=[], **enstype),
        get_atom_ids=lambda atom: np.arange(6),
        get_kinmd=lambda *which: 9.0 * N_BEADS * kelvin * KELVIN,
    )
    return kelvin, IpiProperties.get_temp(system) * HARTREE_IN_KELVIN


RAMP = "<motion mode='p_ramp'> <p_ramp> <p_end> 1.0 </p_end> </p_ramp> </motion>"
MOTION = "<motion mode='dynamics'>\n      <fixcom> False </fixcom>"


@pytest.mark.parametrize("ensemble", ["nvt", "nvt-cc"])
@pytest.mark.parametrize("other", ["", RAMP])
def test_what_ipi_adds_to_temperatures_is_taken_away(written, tmp_path, ensemble, other):
    """Of motions that are combined i-PI takes for held only what all of them hold: nothing beside a ramp."""
    changes = [("mode='nvt'", f"mode='{ensemble}'"), (MOTION, "<motion mode='dynamics'>")]
    if other:
        changes += [
            ("<motion", "<motion mode='multi'> <motion"),
            ("</motion>", f"</motion> {other} </motion>"),
        ]
    path = edited(written, tmp_path, *changes)
    (system,) = read_run(path).outputs.systems
    assert system.held == Held(momentum=True, centroids=ensemble == "nvt-cc")
    kelvin, shown = ipis_temperature(path, system.counted, is_combined=bool(other))
    degrees = 18.0 * (N_BEADS - 1) if system.held.centroids else 18.0 * N_BEADS - 3.0
    properties = Properties({"temperature": np.full(9, shown)}, {"temperature": "kelvin"})
    composition = composition_of(path, system, None)
    found = temperature_section(system, composition, properties, [], lambda steps: None, {}).numbers[0]
    assert found.mean.value == pytest.approx(kelvin * 18.0 * N_BEADS / degrees, rel=1e-5)


SUZUKI_CHIN = ("kinetic_tdsc", "kinetic_opsc{electronvolt}")


def test_beads_of_suzuki_chin_do_not_count_alike(written, tmp_path):
    """i-PI's own estimators count; means over all beads do not."""
    path = edited(written, tmp_path, ("mode='nvt'", "mode='sc'"), columns=(*ESTIMATES, *SUZUKI_CHIN))
    numbers, remarks = section(path, "Kinetic energy")
    assert set(numbers) == {"i-PI's all, Suzuki-Chin, thermodynamic", "i-PI's all, Suzuki-Chin, operator"}
    assert numbers["i-PI's all, Suzuki-Chin, operator"].mean.value == pytest.approx(1000.0 / 6.0)
    factor = 1000.0 * HARTREE_IN_EV / 6.0
    assert numbers["i-PI's all, Suzuki-Chin, thermodynamic"].mean.value == pytest.approx(factor, rel=1e-6)
    assert (
        "kinetic_cv: left out: beads of Suzuki-Chin do not count alike: ask for kinetic_tdsc and" in remarks
    )
    for title in ("Bonds", "Radius of gyration"):
        assert section(path, title)[0] == {}
    numbers, remarks = section(path, "Energies")
    assert "potential energy" not in numbers
    assert "potential: left out: beads of Suzuki-Chin do not count alike: ask for potential_opsc" in remarks


OF_PATHS = {
    "<bosons> [ 1, 2 ] </bosons>": {"i-PI's all, primitive"},
    "<bosons id='label'> [ H ] </bosons>": {"i-PI's all, primitive"},
    "<open_paths> [ 1 ] </open_paths>": set(),
    "<frequencies style='eco'> [ 0.02 ] </frequencies>": CENTROID
    | {"i-PI's all, primitive", "i-PI's all, primitive - centroid virial"},
}


@pytest.mark.parametrize("paths", OF_PATHS)
def test_other_paths_than_rings_of_each_atom(written, tmp_path, paths):
    """Bosons share rings, an open path is none, and economised rings have other springs."""
    path = edited(written, tmp_path, ("</system>", f"<normal_modes> {paths} </normal_modes> </system>"))
    found, remarks = kinds(path)
    assert found == OF_PATHS[paths]
    assert "primitive" in remarks
    assert "left out: " in remarks
    assert bool(section(path, "Radius of gyration")[0]) == ("eco" in paths)


@pytest.mark.parametrize("n_beads", ["1", "2"])
def test_a_ramped_temperature_is_not_expected(written, tmp_path, n_beads):
    """No temperature to compare with, and none for estimators; i-PI's own take that of each step."""
    ramp = "<motion mode='t_ramp'> <t_ramp> <t_end units='kelvin'> 900 </t_end> </t_ramp> </motion>"
    changes = [("<motion", "<motion mode='multi'> <motion"), ("</motion>", f"</motion> {ramp} </motion>")]
    path = edited(written, tmp_path, *changes, ("nbeads='2'", f"nbeads='{n_beads}'"))
    for file in tmp_path.glob("sim.*_1*") if n_beads == "1" else ():
        file.unlink()
    numbers, remarks = section(path, "Temperature")
    assert "i-PI's temperature" in numbers
    assert {number.expected for name, number in numbers.items() if "-" not in name} <= {None}
    assert not any("width" in number.details for number in numbers.values())
    assert remarks == "expected temperatures: left out: a <t_ramp> changes the temperature"
    found, remarks = kinds(path)
    assert found == {name for name in PRIMITIVE | CENTROID | DIFFERENCES if name.startswith("i-PI's")}
    assert "primitive, virial, centroid virial: left out: a <t_ramp> changes the temperature" in remarks
    assert ("temperature", "of a ramp") in make(path).facts


def test_the_cell_of_nobody_knows_what(written, tmp_path):
    """Without a configuration it may be that of a molecule in vacuum: absorption says what it is over."""
    says = "over the volume of the cell: no configuration tells whether this is a molecule in vacuum"
    path = edited(written, tmp_path)
    assert says not in section(path, "Infrared spectrum")[1]
    (tmp_path / "pidelta.yaml").unlink()
    assert says in section(path, "Infrared spectrum")[1]


def test_outputs_that_are_in_several_files(written, tmp_path):
    """The file with the time counts for the drift; all beads count more than one bead more often."""
    first = """<properties filename='few' stride='8'> [ step, conserved ] </properties>
      <trajectory filename='fast' stride='2' bead='0'> positions{angstrom} </trajectory> <properties"""
    path = edited(written, tmp_path, ("<properties", first))
    (tmp_path / "sim.few").write_text("# column 1 --> step : s\n# column 2 --> conserved : c\n0 1.0\n8 1.0\n")
    (tmp_path / "sim.fast_0.xyz").write_bytes((tmp_path / "sim.pos_0.xyz").read_bytes())
    numbers, remarks = section(path, "Energies")
    assert "drift of the conserved quantity" in numbers
    assert not remarks
    assert section(path, "Radius of gyration")[0]
