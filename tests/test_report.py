"""`pidelta report` on outputs that are drawn from known distributions, written as i-PI writes them."""

import json
import re
import shutil
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
from ipi.engine.atoms import Atoms
from ipi.engine.cell import Cell
from ipi.engine.properties import Properties as IpiProperties
from ipi.utils.io import print_file

from pidelta.analysis.comparison import distinct, overlaid
from pidelta.analysis.correlations import Cost
from pidelta.analysis.cost import add_cost, read_cost
from pidelta.analysis.report import ReportOptions, SystemReport
from pidelta.analysis.run_files import RunFiles
from pidelta.analysis.sections import Curve, Panel, Picture, Report, Section
from pidelta.cli.report_input import composition_of, other_setup, read_run, read_setup
from pidelta.config import load_config
from pidelta.errors import DataError, SetupError
from pidelta.run_record import keep_configuration
from pidelta.units import ANGSTROM, HARTREE_IN_KELVIN, KELVIN

NAMES = ("O", "H", "H") * 2
MASSES = np.array([15.9994, 1.00794, 1.00794] * 2) * 1822.888486
GEOMETRY = np.array(
    [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [2.9, 0.1, 0.1], [3.2, 0.9, 0.5], [3.3, -0.7, 0.6]]
)
BOX = 12.0
N_BEADS, N_FRAMES, STRIDE, STEP_FS = 2, 90, 4, 0.5

INPUT = """<simulation>
  <output prefix='{prefix}'>
    <properties filename='out' stride='4'>
      [ step, time{{picosecond}}, conserved, temperature{{kelvin}}, potential ]
    </properties>
    <trajectory filename='pos' stride='4'> positions{{angstrom}} </trajectory>
    <trajectory filename='vel' stride='4'> velocities </trajectory>
    <trajectory filename='dip' stride='4' extra_type='dipole'> extras </trajectory>
  </output>
  <total_steps> 356 </total_steps>
  <system>
    <initialize nbeads='{n_beads}'> <file mode='xyz'> init.xyz </file> </initialize>
    <ensemble> <temperature units='kelvin'> 300 </temperature> </ensemble>
    <motion mode='dynamics'>
      <fixcom> False </fixcom>
      <dynamics mode='nvt'>
        <timestep units='femtosecond'> 0.5 </timestep>
        <thermostat mode='pile_l'> <tau> 100 </tau> </thermostat>
      </dynamics>
    </motion>
  </system>
</simulation>
"""


def write_frame(file, step, bead, values, quantity):
    atoms = Atoms(len(NAMES))
    atoms.names[:] = NAMES
    atoms.q[:] = values.ravel()
    title = f"Step:  {step:10d}  Bead:   {bead:5d} "
    dimension, unit = {"positions": ("length", "angstrom"), "velocities": ("velocity", "automatic")}[quantity]
    cell = Cell(np.eye(3) * BOX * ANGSTROM)
    print_file("xyz", atoms, cell, file, title=title, key=quantity, dimension=dimension, units=unit)


def write_run(folder, prefix="sim", temperature=300.0, n_beads=N_BEADS, seed=0, config=True):
    """Positions that are wiggled, canonical velocities, dipoles and energies that are noise."""
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    path = folder / f"{prefix}.xml"
    path.write_text(INPUT.format(prefix=prefix, n_beads=n_beads))
    if config:
        rows = [f"{name} {x} {y} {z}" for name, (x, y, z) in zip(NAMES, GEOMETRY, strict=True)]
        (folder / "water.xyz").write_text(
            "\n".join(["6", f'Lattice="{BOX} 0 0 0 {BOX} 0 0 0 {BOX}"', *rows, ""])
        )
        (folder / "pidelta.yaml").write_text(
            "structure: water.xyz\nqm: {atoms: [0, 1, 2], dftb: {parameters: builtin}}\n"
            "mm: {water: q-spc-fw, cutoff: 0.55 nm}\nembedding: {cutoff: 0.55 nm, switch: 0.1 nm}\n"
        )
    kelvin = []
    for bead in range(n_beads):
        spread = np.sqrt(n_beads * temperature * KELVIN / MASSES)[:, None]
        with (
            (folder / f"{prefix}.pos_{bead}.xyz").open("w") as positions,
            (folder / f"{prefix}.vel_{bead}.xyz").open("w") as velocities,
            (folder / f"{prefix}.dip_{bead}").open("w") as dipoles,
        ):
            for index in range(N_FRAMES):
                r = GEOMETRY * ANGSTROM + rng.normal(size=(6, 3)) * 0.05
                v = rng.normal(size=(6, 3)) * spread
                write_frame(positions, STRIDE * index, bead, r, "positions")
                write_frame(velocities, STRIDE * index, bead, v, "velocities")
                kelvin.append((MASSES[:, None] * v**2).sum() / (18 * n_beads) * HARTREE_IN_KELVIN)
                numbers = " ".join(f"{x:.8e}" for x in rng.normal(size=3))
                dipoles.write(f" #EXTRAS(dipole)# Step:  {STRIDE * index:10d} \n{numbers}\n")
    labels = ("step", "time{picosecond}", "conserved", "temperature{kelvin}", "potential")
    lines = [f"# column {k + 1:3d}     --> {label} : what it is" for k, label in enumerate(labels)]
    for index, row in enumerate(np.mean(np.reshape(kelvin, (n_beads, -1)), axis=0)):
        step = STRIDE * index
        noise = 1e-5 * rng.normal()
        lines.append(f"{step} {step * STEP_FS / 1000.0:.8e} {noise:.8e} {row:.6e} {rng.normal():.8e}")
    (folder / f"{prefix}.out").write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("sample") / "one")


def make(path):
    """The report without its page."""
    run = read_run(path)
    composition = composition_of(path, run.outputs.systems[0], read_setup(path, None))
    return SystemReport(run, 0, composition, ReportOptions(), lambda text: None).make()


def numbers_of(folder):
    """Of report.json, by section and name."""
    content = json.loads((folder / "report.json").read_text())
    return {
        section["title"]: {number["name"]: number for number in section["numbers"]}
        for section in content["sections"]
    }


def test_report(sample, run, capsys):
    """The numbers of known distributions, with errors; a page whose pictures exist and can be looked at."""
    assert run("report", sample.parent, "--bond", "0-3", "--mode", "1600=bend") == 0
    folder = sample.parent / "sim-report"
    assert f"report: {folder / 'report.md'}" in capsys.readouterr().out.replace("\n", "")
    found = numbers_of(folder)
    for name in ("all beads", "QM beads", "MM beads", "QM H beads", "QM centroid", "i-PI's temperature"):
        number = found["Temperature"][name]
        assert number["unit"] == "K"
        assert number["expected"] == pytest.approx(300.0, rel=1e-5)
        assert abs(number["value"] - 300.0) < 4.0 * number["error"], name
    assert found["Temperature"]["QM - MM beads"]["expected"] == 0.0
    assert set(found["Bonds"]) == {"QM O-H", "water O-H", "O0-O3"}
    assert found["Bonds"]["O0-O3"]["value"] == pytest.approx(2.9, abs=0.05)
    assert "bond O0-O3" in found["Correlation times"]
    steps = 0.95 * N_FRAMES  # rows are independent, half a row long
    number = found["Correlation times"]["potential energy"]
    assert number["value"] == pytest.approx(0.5 * STRIDE * STEP_FS / 1000.0, rel=0.7)
    assert 0.4 * steps < number["details"]["independent samples"] <= steps + 1
    # of a position with the same noise in each of two beads: the spread about their middle
    radius = np.sqrt(3.0 * 0.05**2 / 2.0) * 0.529177
    assert found["Radius of gyration"]["all"]["value"] == pytest.approx(radius, rel=0.05)
    assert found["Vibrational density of states"]["mean wavenumber, QM"]["unit"] == "1/cm"
    for name in ("QM dipole", "QM and MM", "MM charges"):
        assert f"mean wavenumber, {name}" in found["Infrared spectrum"]
    page = (folder / "report.md").read_text()
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", page)
    assert {"energies.png", "temperatures.png", "bonds.png", "infrared-spectrum.png"} <= set(pictures)
    for picture in pictures:
        image = matplotlib.image.imread(folder / picture)
        ink = (image[..., :3].min(axis=2) < 0.8).mean()
        assert 0.005 < ink < 0.5
        assert image.shape[1] > 400
    for words in (
        "centroid-virial kinetic energies are not in the output: ask for <trajectory",
        "samples per CPU hour are not known",
        "the run is too short: expected 4 ps",
    ):
        assert words in page


def test_comparison(sample, run, tmp_path):
    """A run at another temperature: z-scores with both errors, and pictures with a line for each run."""
    other = write_run(tmp_path / "two", temperature=450.0, seed=1)
    first = shutil.copytree(sample.parent, tmp_path / "one") / sample.name
    output = first.with_name("comparison")
    assert run("report", first, other, "--compare") == 0
    content = json.loads((output / "report.json").read_text())
    assert [each["name"] for each in content["runs"]] == ["one/sim", "two/sim"]
    rows = {(row["section"], row["name"]): row for row in content["differences"]}
    row = rows["Temperature", "all beads"]
    assert row["difference"] == pytest.approx(150.0, abs=4.0 * row["error"])
    assert row["z"] > 4.0
    bonds = rows["Bonds", "water O-H"]
    assert abs(bonds["z"]) < 4.0
    page = (output / "report.md").read_text()
    assert re.search(r"\| all beads \| \d+\.?\d* ± .* \| \d+\.?\d* ± .* \| K \| \+\d", page)
    assert (output / "temperatures.png").exists()


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    """By as much of the path as that takes; a run is not compared with itself."""

    def named(*folders):
        reports = [Report("sim", tmp_path / folder, "", (), ()) for folder in folders]
        return [report.name for report in distinct(reports)]

    assert named("a") == ["sim"]
    assert named("a", "b") == ["a/sim", "b/sim"]
    assert named("x1/run", "x2/run") == ["x1/run/sim", "x2/run/sim"]
    assert named("a", "x/y/a", "x/z/a")[1:] == ["y/a/sim", "z/a/sim"]
    with pytest.raises(DataError, match=r"--compare: expected runs that differ, found .*/a/sim twice"):
        named("a", "b", "a")


def test_unlike_units_do_not_share_a_panel():
    def section(unit):
        curve = Curve("", np.arange(3.0), np.arange(3.0))
        panel = Panel("volume", "time / ps", f"volume / {unit}", (curve,))
        return Section("Energies", pictures=(Picture("energies", "over time", (panel,)),))

    (picture,) = overlaid(["a", "b", "c"], [section("angstrom3"), section("a.u."), section("angstrom3")])
    found = {panel.y_label: [curve.name for curve in panel.curves] for panel in picture.panels}
    assert found == {"volume / angstrom3": ["a", "c"], "volume / a.u.": ["b"]}
    assert {panel.title for panel in picture.panels} == {"volume"}


def test_a_run_that_went_on(tmp_path):
    """Steps that were computed again count once, and a cut-off snapshot is left out and said."""
    path = write_run(tmp_path / "a")
    folder = path.parent
    before = make(path)
    for file in (*folder.glob("sim.*_*"), folder / "sim.out"):
        lines = file.read_text().splitlines(keepends=True)
        per_frame = {".xyz": 8, ".out": 1}.get(file.suffix, 2)
        text = "".join(lines) + "".join(lines[-3 * per_frame :])
        file.write_text(text + ("" if file.suffix == ".out" else "".join(lines[-per_frame:])[:-20]))
    after = make(path)
    for one, two in zip(before.sections, after.sections, strict=True):
        assert str(one.numbers) == str(two.numbers)
    remarks = [remark for section in after.sections for remark in section.remarks]
    assert "sim.vel_1.xyz: the last snapshot is cut off and left out" in remarks
    again = "3 of 93 {} come again further on, and the later ones count"
    assert f"sim.vel_0.xyz and 1 more: {again.format('snapshots')}" in remarks
    assert after.warnings == (f"sim.out: {again.format('rows')}",)


def test_without_a_configuration(tmp_path):
    made = make(write_run(tmp_path / "a", config=False))
    names = {section.title: {number.name for number in section.numbers} for section in made.sections}
    assert {"all beads", "O beads", "H centroid"} <= names["Temperature"]
    assert "O-H" in names["Bonds"]
    assert "no regions, no water" in dict(made.facts)["configuration"]


def test_the_configuration_is_that_of_the_run(tmp_path, run, capsys):
    """Of the record that `pidelta run` keeps; another one is a warning, also in the report."""
    path = write_run(tmp_path / "a")
    other = path.with_name("other.yaml")
    other.write_text(path.with_name("pidelta.yaml").read_text().replace("[0, 1, 2]", "[3, 4, 5]"))
    simulation = SimpleNamespace(step=0, output_path=lambda name: path.with_name(f"sim.{name}"))
    keep_configuration(simulation, load_config(other), ["mm", "low"])
    assert read_setup(path, None).qm_indices.tolist() == [3, 4, 5]
    assert other_setup(path, read_setup(path, None)) == ""
    assert run("report", path, "--config", path.with_name("pidelta.yaml")) == 0
    said = (
        "pidelta.yaml: qm.atoms.0: expected 3 as when the run began (sim.configuration.json), found 0: "
        "is that of the run another file, to be given with --config?"
    )
    assert said in capsys.readouterr().out.replace("\n", " ")
    assert said in (path.parent / "sim-report" / "report.md").read_text()
    other.unlink()
    assert read_setup(path, None).qm_indices.tolist() == [0, 1, 2]


def test_the_configuration_of_a_run_in_a_linked_folder(tmp_path):
    """Beside the link, as of a folder on scratch, where ``..`` leads elsewhere."""
    scratch, home = tmp_path / "scratch" / "deep", tmp_path / "home"
    for folder in (scratch, home):
        folder.mkdir(parents=True)
    (home / "a").symlink_to(scratch / "a")
    path = home / "a" / write_run(scratch / "a").name
    other = home / "other.yaml"
    text = path.with_name("pidelta.yaml").read_text().replace("[0, 1, 2]", "[3, 4, 5]")
    other.write_text(text.replace("water.xyz", "a/water.xyz"))
    simulation = SimpleNamespace(step=0, output_path=lambda name: path.with_name(f"sim.{name}"))
    keep_configuration(simulation, load_config(other), ["mm", "low"])
    assert read_setup(path, None).qm_indices.tolist() == [3, 4, 5]


def test_one_bead_of_several(tmp_path):
    """Asked for by `bead`: no estimator of all beads, and a warning that dipoles are of that one."""
    path = write_run(tmp_path / "a")
    text = path.read_text().replace("filename='pos'", "filename='pos' bead='0'")
    path.write_text(text.replace("filename='dip'", "filename='dip' bead='1'"))
    (path.parent / "sim.pos_1.xyz").unlink()
    (path.parent / "sim.dip_0").unlink()
    made = make(path)
    assert "dipole: 1 of 2 beads are there: what follows from it is not of the mean of all" in made.warnings
    (estimators,) = (section for section in made.sections if section.title.startswith("Kinetic"))
    assert not any("primitive" in number.name for number in estimators.numbers)


def break_run(folder, fault):
    path = write_run(folder)
    if fault == "none yet":
        for file in folder.glob("sim.*[!l]"):
            if file != path:
                file.unlink()
    elif fault == "beads":
        path.write_text(path.read_text().replace("nbeads='2'", "nbeads='1'"))
    elif fault == "beads of old extras":
        (folder / "sim.dip_2").write_text((folder / "sim.dip_1").read_text())
    elif fault == "beads of old positions":
        path.write_text(path.read_text().replace("filename='pos'", "filename='pos' bead='0'"))
    elif fault == "another input":
        for file in folder.glob("sim.*_*.xyz"):
            text = file.read_text().replace("       O ", "       S ")
            file.write_text(text)
    elif fault == "units":
        file = folder / "sim.pos_0.xyz"
        file.write_text(file.read_text().replace("positions{angstrom}", "positions{furlong}"))
    elif fault == "quantity":
        file = folder / "sim.vel_0.xyz"
        file.write_text(file.read_text().replace("velocities{", "forces{"))
    elif fault == "columns":
        file = folder / "sim.out"
        file.write_text(file.read_text() + "1 2 3\n")
    elif fault == "unit of a column":
        file = folder / "sim.out"
        file.write_text(file.read_text().replace("temperature{kelvin}", "temperature{bananas}"))
    elif fault in ("positions not finite", "velocities not finite"):
        file = folder / f"sim.{fault[:3]}_1.xyz"
        lines = file.read_text().splitlines()
        lines[-1] = "H nan 0 0"
        file.write_text("\n".join([*lines, ""]))
    elif fault == "dipole not finite":
        file = folder / "sim.dip_0"
        file.write_text(file.read_text() + " #EXTRAS(dipole)# Step:   360 \n1 inf 2\n")
    return path


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("none yet", r"sim\.xml: expected outputs of this input, found none yet: run it first"),
        ("beads", r"sim\.\w+: expected \w+ of one bead as in the input, found 2 files"),
        (
            "beads of old extras",
            r"sim\.dip: expected extras of 2 beads .* found 3 files: .* such as sim\.dip_2\?",
        ),
        (
            "beads of old positions",
            r"sim\.pos: expected positions of bead 0 .* such as sim\.pos_1\.xyz\?",
        ),
        ("another input", r"sim\.xml: expected trajectories of the 6 atoms of .*water\.xyz, found others"),
        ("units", r"sim\.pos_0\.xyz: expected units that i-PI knows in snapshot 0"),
        ("quantity", r"sim\.vel_0\.xyz: expected velocities .* found forces"),
        ("unit of a column", r"sim\.out: column temperature: expected a unit of temp.* found 'bananas'"),
        (
            "positions not finite",
            r"pos_1\.xyz: expected finite positions of atom 5 in snapshot 89 \(step 356\), found nan 0 0",
        ),
        ("velocities not finite", r"sim\.vel_1\.xyz: expected finite velocities of atom 5 in snapshot 89"),
        ("dipole not finite", r"sim\.dip_0: step 360: expected finite numbers, found '1 inf 2'"),
        ("columns", r"sim\.out: line 96: expected 5 columns, found 3"),
    ],
)
def test_faults_are_one_line(fail, tmp_path, fault, message):
    assert re.search(message, fail("report", break_run(tmp_path / "a", fault)))


def test_faults_of_the_command_line(fail, sample, tmp_path):
    assert "expected a folder with one i-PI input that has run, found none" in fail("report", tmp_path)
    assert "cannot read the i-PI input" in fail("report", tmp_path / "none.xml")
    assert "--compare: expected two runs" in fail("report", sample, "--compare", "--output", tmp_path / "c")
    assert "--bond: expected two atoms" in fail("report", sample, "--bond", "0")
    assert "--bond: expected atoms below 6, found 0-6" in fail("report", sample, "--bond", "0-6")
    assert "--mode: expected a wavenumber" in fail("report", sample, "--mode", "bend")
    assert "--output: expected one run" in fail("report", sample, sample, "--output", tmp_path / "c")
    second = write_run(sample.parent, prefix="other")
    assert second.name in fail("report", sample.parent)


def test_cost_of_a_run_that_went_on(tmp_path):
    """Parts add up; a run that starts anew, or from an older state, replaces what was after it."""
    assert read_cost(tmp_path) is None
    add_cost(tmp_path, 0, 100, 10.0)
    add_cost(tmp_path, 100, 300, 30.0)
    assert read_cost(tmp_path) == Cost(40.0, 300)
    add_cost(tmp_path, 100, 150, 7.0)
    assert read_cost(tmp_path) == Cost(17.0, 150)
    add_cost(tmp_path, 0, 20, 1.0)
    assert read_cost(tmp_path) == Cost(1.0, 20)
    (tmp_path / "cost.json").write_text("[]")
    with pytest.raises(DataError, match=r"cost\.json: expected steps and CPU seconds"):
        read_cost(tmp_path)


def test_the_file_of_swaps_has_ipis_default_name(tmp_path):
    """As i-PI has it where the input does not say; without the file a report counts no exchange."""
    from ipi.inputs.smotion.remd import InputReplicaExchange

    from pidelta.ipi.outputs import read_outputs

    path = tmp_path / "remd.xml"
    text = INPUT.format(prefix="run", n_beads=1)
    swaps = "<smotion mode='remd'> <remd> <stride> 2 </stride> </remd> </smotion> </simulation>"
    path.write_text(text.replace("</simulation>", swaps))
    default = InputReplicaExchange.fields["swapfile"][1]["default"]
    assert read_outputs(path).swaps == tmp_path / f"run.{default}"


def with_masses(run, folder, masses):
    """The input of a run with masses of its own, beside the same outputs."""
    path = folder / run.name
    for file in run.parent.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    path.write_text(run.read_text().replace("</file> </initialize>", f"</file> {masses} </initialize>"))
    return path


def region_temperatures(path):
    """Kelvin by region and element, from velocities."""
    section = next(section for section in make(path).sections if section.title == "Temperature")
    return {n.name: n.mean.value for n in section.numbers if n.name.endswith("beads") and "-" not in n.name}


def test_masses_are_those_of_the_input(sample, tmp_path):
    """Isotopes by <masses>: the same velocities of masses twice as large are twice as hot."""
    doubled = ", ".join(str(2 * mass / 1822.888486) for mass in MASSES)
    path = with_masses(sample, tmp_path, f"<masses mode='manual' units='dalton'> [ {doubled} ] </masses>")
    outputs, setup = read_run(path).outputs.systems[0], read_setup(path, None)
    np.testing.assert_allclose(composition_of(path, outputs, setup).masses, 2 * MASSES, rtol=1e-6)
    kelvin, twice = (region_temperatures(each) for each in (sample, path))
    assert set(kelvin) == set(twice) >= {"QM beads", "MM beads"}
    for name, value in kelvin.items():
        assert twice[name] == pytest.approx(2 * value, rel=1e-4)

    path.write_text(path.read_text().replace(f"units='dalton'> [ {doubled} ]", "index='1'> [ 3672.3 ]"))
    outputs = read_run(path).outputs.systems[0]
    changed = composition_of(path, outputs, setup).masses
    assert changed[1] == 3672.3
    np.testing.assert_allclose(np.delete(changed, 1), np.delete(MASSES, 1), rtol=1e-4)


@pytest.mark.parametrize(
    ("masses", "message"),
    [
        ("<masses mode='manual'> [ 1.0, 2.0 ] </masses>", "expected 6 numbers, found 2"),
        ("<masses mode='manual' units='stone'> [ 1.0 ] </masses>", "a unit that i-PI knows, found 'stone'"),
    ],
)
def test_masses_that_are_none(sample, tmp_path, masses, message):
    path = with_masses(sample, tmp_path, masses)
    with pytest.raises((DataError, SetupError), match=message):
        _ = composition_of(path, read_run(path).outputs.systems[0], read_setup(path, None)).masses


def test_what_is_no_dynamics_has_no_report(sample, tmp_path):
    path = with_masses(sample, tmp_path, "")
    path.write_text(re.sub("(?s)<motion.*</motion>", "<motion mode='minimize'/>", path.read_text()))
    with pytest.raises(DataError, match="expected <motion mode='dynamics'>, whose means have errors"):
        make(path)


FIXED = {
    "atoms": "<fixatoms> [ 0, 1 ] </fixatoms>",
    "degrees of freedom": "<fixatoms_dof> [ 0, 1, 2, 3, 4, 5 ] </fixatoms_dof>",  # as in a RESTART
    "a file": "<fixatoms mode='file'> fixed.txt </fixatoms>",
}


def ipis_temperatures(frames, fixed):
    """(n,) k_B T as i-PI writes it, by its own formula, of velocities that are zero where they are fixed."""
    system = SimpleNamespace(
        beads=SimpleNamespace(natoms=len(MASSES), nbeads=N_BEADS, m=MASSES),
        ensemble=SimpleNamespace(temp=300.0 * KELVIN),
        motion=SimpleNamespace(fixcom=False, fixatoms_dof=np.array(fixed), enstype="nvt"),
        get_atom_ids=lambda atom: np.arange(len(MASSES)),
    )
    values = []
    for snapshot in frames.stream():
        v = snapshot.values.reshape(N_BEADS, -1).copy()
        v[:, fixed] = 0.0
        kinetic = 0.5 * (np.repeat(MASSES, 3) * v**2).sum() / N_BEADS
        system.get_kinmd = lambda *which, kinetic=kinetic: kinetic
        values.append(IpiProperties.get_temp(system))
    return np.array(values)


@pytest.mark.parametrize("said_by", FIXED)
def test_fixed_atoms_have_no_degrees_of_freedom(tmp_path, said_by):
    """2 of 6 atoms with 2 beads: 24 are left, of region and element those of the others; i-PI agrees."""
    path = write_run(tmp_path)
    (tmp_path / "fixed.txt").write_text("0\n1\n")
    path.write_text(path.read_text().replace("<fixcom> False </fixcom>", FIXED[said_by]))
    outputs = read_run(path).outputs.systems[0]
    assert not outputs.held.momentum
    kelvin = ipis_temperatures(RunFiles(outputs, 6).frames("velocities"), list(range(6))) * HARTREE_IN_KELVIN
    out = tmp_path / "sim.out"
    lines = [line.split() for line in out.read_text().splitlines() if not line.startswith("#")]
    header = [line for line in out.read_text().splitlines() if line.startswith("#")]
    rows = [" ".join([*row[:3], f"{value:.8e}", row[4]]) for row, value in zip(lines, kelvin, strict=True)]
    out.write_text("\n".join([*header, *rows, ""]))

    section = next(section for section in make(path).sections if section.title == "Temperature")
    found = {number.name: number for number in section.numbers}
    degrees = {name: number.details["degrees of freedom"] for name, number in found.items() if number.details}
    assert degrees["all beads"] == degrees["i-PI's temperature"] == 24.0
    assert degrees["all centroid"] == 12.0
    assert (degrees["QM beads"], degrees["MM beads"], degrees["H beads"]) == (6.0, 18.0, 18.0)
    assert "QM O beads" not in found  # it cannot move
    whole, ours = found["i-PI's temperature"].mean.value, found["all beads"].mean.value
    assert whole == pytest.approx(ours, rel=1e-5)
    for name in ("all beads", "QM beads", "H beads", "all centroid"):
        assert abs(found[name].mean.value - 300.0) < 4.0 * found[name].mean.error, name
    assert abs(float(found["all beads"].details["width"].split()[0]) - 1.0) < 0.3


def test_a_region_of_fixed_atoms_has_no_temperature(tmp_path):
    path = write_run(tmp_path)
    path.write_text(path.read_text().replace("<fixcom>", "<fixatoms> [ 0, 1, 2 ] </fixatoms> <fixcom>"))
    section = next(section for section in make(path).sections if section.title == "Temperature")
    assert not [number.name for number in section.numbers if "QM" in number.name]
    path.write_text(path.read_text().replace("[ 0, 1, 2 ]", "[ 6 ]"))
    with pytest.raises(DataError, match="expected atoms below 6, found 6"):
        make(path)


def test_what_is_not_a_number_is_said(tmp_path):
    path = write_run(tmp_path)
    out = tmp_path / "sim.out"
    lines = out.read_text().splitlines()
    row = next(place for place, line in enumerate(lines) if line.startswith("40 "))
    lines[row] = " ".join([*lines[row].split()[:2], "nan", *lines[row].split()[3:]])
    out.write_text("\n".join(lines) + "\n")
    energies = make(path).sections[0]
    assert [remark for remark in energies.remarks if "not a number" in remark] == [
        "conserved: not a number at step 40, so neither is what follows from it"
    ]


def test_a_few_frames_are_no_spectrum(tmp_path):
    path = write_run(tmp_path, n_beads=1)
    for name in ("vel_0.xyz", "dip_0"):
        file = tmp_path / f"sim.{name}"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[: 2 * len(lines) // N_FRAMES]))
    sections = {section.title: section for section in make(path).sections}
    assert sections["Vibrational density of states"].remarks == (
        "too short: expected snapshots of velocities, 32 or more, found 2",
    )
    assert "QM dipole: too short: expected snapshots, 33 or more, found 2" in (
        sections["Infrared spectrum"].remarks
    )


def cut(file, share):
    """Leave the first part of the snapshots."""
    lines = file.read_text().splitlines(keepends=True)
    per_frame = len(lines) // N_FRAMES
    file.write_text("".join(lines[: per_frame * int(N_FRAMES * share)]))


def test_a_whole_run_has_no_warnings(sample):
    assert make(sample).warnings == ()


@pytest.mark.parametrize("fault", ["no file", "no rows", "empty"])
def test_properties_that_are_not_there(tmp_path, run, capsys, fault):
    """The rest is reported, and nothing says to ask for what the input asks for."""
    path = write_run(tmp_path)
    out = tmp_path / "sim.out"
    header = [line for line in out.read_text().splitlines() if line.startswith("#")]
    out.write_text("" if fault == "empty" else "\n".join([*header, ""]))
    if fault == "no file":
        out.unlink()
    assert run("report", path) == 0
    problem = "sim.out: no such file" if fault == "no file" else "sim.out: no rows yet"
    assert f"warning: {problem}" in capsys.readouterr().out
    page = (tmp_path / "sim-report" / "report.md").read_text()
    for words in (f"- warning: {problem}", f"drift: {problem}", f"potential energy: {problem}"):
        assert words in page
    assert "time{picosecond}" not in page


def test_a_run_without_a_row_or_snapshot(tmp_path, fail):
    path = write_run(tmp_path)
    for file in tmp_path.glob("sim.*[!l]"):
        if file != path:
            file.write_text("")
    assert "expected outputs of this input, found none yet" in fail("report", path)


def test_trajectories_of_unlike_lengths(tmp_path, run, capsys):
    path = write_run(tmp_path)
    cut(tmp_path / "sim.pos_1.xyz", 0.5)
    cut(tmp_path / "sim.dip_0", 0.3)
    for bead in range(N_BEADS):
        cut(tmp_path / f"sim.vel_{bead}.xyz", 0.4)
    assert run("report", path) == 0
    shown, page = capsys.readouterr().out, (tmp_path / "sim-report" / "report.md").read_text()
    for warning in (
        "positions: 45 snapshots count, those that all files have: sim.pos_0.xyz has 90, sim.pos_1.xyz 45",
        "dipole: 27 snapshots count, those that all files have: sim.dip_1 has 90, sim.dip_0 27",
        "sim.vel ends at step 140, sim.pos at step 356",
    ):
        assert f"warning: {warning}\n" in shown
        assert f"- warning: {warning}\n" in page


def facts_and_times(path):
    made = make(path)
    times = next(section for section in made.sections if section.title == "Correlation times")
    return made.warnings, dict(made.facts)["time step"], times.numbers[0].mean.value


def test_the_time_step_is_that_of_the_run(sample, tmp_path):
    """An input that was edited after the run does not make its times ten times as long."""
    path = write_run(tmp_path)
    before = facts_and_times(path)
    path.write_text(path.read_text().replace("'femtosecond'> 0.5", "'femtosecond'> 5"))
    warnings, shown, time = facts_and_times(path)
    assert (shown, time) == ("0.5 fs", pytest.approx(before[2], rel=1e-6))
    assert warnings == (
        "sim.out: the time step is 0.5 fs, in sim.xml it is 5 fs: that of sim.out counts; "
        "was the input edited after the run?",
    )


def test_a_time_step_that_changed(tmp_path):
    path = write_run(tmp_path)
    out, lines = tmp_path / "sim.out", []
    for line in out.read_text().splitlines():
        words = line.split()
        if not line.startswith("#") and (step := int(words[0])) > 100:
            words[1] = f"{(100 * 0.5 + (step - 100) * 0.25) / 1000:.8e}"
        lines.append(line if line.startswith("#") else " ".join(words))
    out.write_text("\n".join([*lines, ""]))
    warnings, shown, _ = facts_and_times(path)
    assert shown == "0.5 fs"
    assert warnings == (
        "sim.out: the time step changes at step 100 from 0.5 fs to 0.25 fs: times and spectra are those of "
        "0.5 fs, as in sim.xml",
    )
