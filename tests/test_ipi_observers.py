"""Observers: positions in another unit, order or molecule, and how sure the delta model is."""

import json
import re
import shutil

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from conftest import ROOT
from ipi_support import running_ipi, unique_address
from pidelta.cli import uncertainty
from pidelta.config import load_config
from pidelta.errors import StructureError
from pidelta.ipi.client_status import ClientStatus, StatusFile, read_status
from pidelta.ipi.observers import (
    EXTRAPOLATION,
    SPREAD,
    Alarm,
    UncertaintyMonitor,
    merge_alarms,
)
from pidelta.setup import Setup
from pidelta.state import Evaluation, System, Term
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL
from pidelta.workflow.yardstick import FirstPositions, Yardstick

NANOMETER_IN_BOHR = 10.0 * ANGSTROM
CELL = np.diag([12.0, 13.0, 14.0]) * ANGSTROM


def as_system(atoms, cell=None):
    n = len(atoms)
    return System(
        numbers=atoms.numbers,
        positions=atoms.positions * ANGSTROM,
        cell=cell,
        names=tuple(atoms.symbols),
        residue_names=("UNK",) * n,
        residue_indices=np.zeros(n, dtype=np.int64),
        residue_numbers=np.ones(n, dtype=np.int64),
        segments=("",) * n,
    )


@pytest.fixture
def ethanol(tmp_path):
    system = as_system(molecule("CH3CH2OH"))
    return system, Yardstick.of(tmp_path / "ethanol.xyz", system, None, np.arange(len(system)))


def water_box(n_qm=0):
    """Eight waters in a cell, whose bonds are known."""
    rng = np.random.default_rng(2)
    corners = np.stack(np.meshgrid(*[[2.0, 8.0]] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    water = molecule("H2O").positions
    positions = (corners + water + rng.normal(scale=0.02, size=(8, 3, 3))).reshape(-1, 3)
    system = as_system(Atoms("OHH" * 8, positions), CELL)
    bonds = np.array([[3 * i, 3 * i + j] for i in range(8) for j in (1, 2)])
    return system, Yardstick.of("box.gro", system, bonds, np.arange(n_qm))


@pytest.mark.parametrize("unit", [1.0, ANGSTROM, NANOMETER_IN_BOHR])
@pytest.mark.parametrize("taken_for", [1.0, ANGSTROM, NANOMETER_IN_BOHR])
def test_a_unit_that_was_taken_for_another(ethanol, unit, taken_for):
    """A molecule in vacuum; the message names both units."""
    system, yardstick = ethanol
    names = {1.0: "bohr", ANGSTROM: "angstrom", NANOMETER_IN_BOHR: "nm"}
    positions = (system.positions / unit * taken_for)[None]
    positions += 0.02 * np.random.default_rng(1).normal(size=positions.shape) * taken_for / unit
    if unit == taken_for:
        FirstPositions(yardstick).before(positions, None)
        return
    message = f"as if {names[unit]} had been read as {names[taken_for]}"
    with pytest.raises(StructureError, match=message):
        FirstPositions(yardstick).before(positions, None)


@pytest.mark.parametrize("scale_of_cell", [1.0, BOHR_IN_ANGSTROM])
@pytest.mark.parametrize("scale", [BOHR_IN_ANGSTROM, ANGSTROM, 10.0, 0.1])
def test_positions_of_a_box_in_another_unit(scale, scale_of_cell):
    """With the cell scaled alike or not, the molecules whole."""
    system, yardstick = water_box()
    with pytest.raises(StructureError, match="had been read as"):
        FirstPositions(yardstick).before(scale * system.positions[None], scale_of_cell * CELL[None])


@pytest.mark.parametrize("scale", [BOHR_IN_ANGSTROM, ANGSTROM, 10.0])
def test_a_cell_in_another_unit(scale):
    system, yardstick = water_box()
    with pytest.raises(StructureError, match=r"cell vectors .* had been read as"):
        FirstPositions(yardstick).before(system.positions[None], scale * CELL[None])


def test_what_simulations_do_is_let_pass():
    """Another density, another frame, beads that spread, molecules across the cell, a QM bond that breaks."""
    system, yardstick = water_box(n_qm=3)
    rng = np.random.default_rng(5)
    moved = system.positions + rng.integers(-2, 3, size=(24, 3)) @ CELL
    moved += rng.normal(scale=0.06, size=moved.shape) * ANGSTROM
    for cell in (CELL, 1.1 * CELL):
        yardstick.check(system.positions, cell, "here")
    FirstPositions(yardstick).before(moved[None], CELL[None])
    broken = system.positions.copy()
    broken[1] += 2.0 * (broken[1] - broken[0])
    FirstPositions(yardstick).before(broken[None], CELL[None])
    broken[[4, 5]] = broken[[7, 8]]
    with pytest.raises(StructureError, match=r"atoms 3 and 4 are bonded, 0\.9"):
        FirstPositions(yardstick).before(broken[None], CELL[None])


def test_one_bond_that_is_much_too_short_is_refused():
    system, yardstick = water_box(n_qm=3)
    positions = system.positions.copy()
    positions[1] = positions[0] + 0.6 * (positions[1] - positions[0])
    with pytest.raises(
        StructureError, match=r"atoms 0 and 1 are bonded, 0\.9\d angstrom, but 0\.5\d angstrom"
    ):
        FirstPositions(yardstick).before(positions[None], CELL[None])


def test_each_structure_once(ethanol):
    """All of the first request, later those of another system, and none that goes on from an earlier one."""
    system, yardstick = ethanol
    good = system.positions
    observer = FirstPositions(yardstick)
    with pytest.raises(StructureError, match="in the first positions from i-PI"):
        observer.before(np.stack([good, good[::-1]]), None)
    observer.before(np.stack([good, good]), None)
    for scale in np.linspace(1.0, 3.0, 41):
        observer.before(scale * good[None], None)
    with pytest.raises(StructureError, match=r"in later positions from i-PI \(another system"):
        observer.before(good[None, ::-1], None)
    with pytest.raises(StructureError):
        observer.before(np.stack([3.0 * good, good[::-1]]), None)


def test_structures_are_looked_at_for_a_while_only():
    system, yardstick = water_box()
    observer = FirstPositions(yardstick)
    first = system.positions[None]
    for _ in range(2048):
        observer.before(first, CELL[None])
    observer.before(first[:, ::-1], CELL[None])


def test_a_qm_bond_that_is_gone_and_another_cell_are_differences():
    """They may be meant so. A cell of another pressure is none, nor the order of a molecule alone."""
    system, yardstick = water_box(n_qm=6)
    assert yardstick.differences(system.positions, 1.02 * CELL, "here") == []
    (line,) = yardstick.differences(system.positions, CELL @ np.diag([1.0, 1.04, 1.0]), "here")
    assert line == (
        "box.gro: a cell of 12.00, 13.00, 14.00 angstrom and 90.0, 90.0, 90.0 degrees, but 12.00, 13.52, "
        "14.00 angstrom and 90.0, 90.0, 90.0 degrees in here"
    )
    skew = CELL.copy()
    skew[1, 0] = CELL[1, 1] * np.tan(np.radians(3.5))
    assert len(yardstick.differences(system.positions, skew, "here")) == 1
    exchanged = system.positions[[0, 4, 2, 3, 1, 5, *range(6, 24)]]
    yardstick.check(exchanged, CELL, "here")
    (line,) = yardstick.differences(exchanged, CELL, "here")
    assert line.startswith("box.gro: atoms 0 and 1 are bonded, 0.9")
    assert line.endswith(
        "in here: if no reaction has broken the bond, QM atoms of one element are in another order"
    )
    whole = Yardstick.of("water.gro", system, yardstick.pairs, np.arange(24))
    assert whole.differences(exchanged, CELL, "here") == []


def test_atoms_in_any_state_of_the_qm_region():
    """All QM bonds gone, and one MM bond of a water alone on a curve; exchanged MM atoms are found."""
    system, yardstick = water_box(n_qm=6)
    apart = system.positions.copy()
    apart[:6] *= 3.0
    yardstick.check_atoms(apart, CELL, "here")
    with pytest.raises(StructureError, match="atoms 6 and 7 are bonded"):
        yardstick.check_atoms(system.positions[[*range(6), 9, 7, 8, 6, *range(10, 24)]], CELL, "here")
    water = as_system(molecule("H2O"))
    alone = Yardstick.of("water.xyz", water, np.array([[0, 1], [0, 2]]), np.arange(0))
    alone.check_atoms(2.5 * water.positions, None, "here")


def test_a_potential_curve_of_few_bonds_is_no_matter_of_units():
    """Water, all bonds at once, as users of `evaluate` compute it."""
    water = as_system(molecule("H2O"))
    yardstick = Yardstick.of("water.xyz", water, None, np.arange(3))
    for scale in np.linspace(0.5, 2.0, 31):
        yardstick.check_unit(scale * water.positions, None, "a curve")


@pytest.fixture
def plain(tmp_path):
    """Uracil in angstrom, and the same atoms in a file for i-PI that names no unit."""
    shutil.copy(ROOT / "examples" / "uracil.xyz", tmp_path)
    lines = (tmp_path / "uracil.xyz").read_text().splitlines()
    (tmp_path / "plain.xyz").write_text("\n".join([lines[0], "no unit here", *lines[2:], ""]))
    (tmp_path / "pidelta.yaml").write_text("structure: uracil.xyz\nqm: {atoms: all}\n")
    (tmp_path / "input.xml").write_text(f"""<simulation verbosity='low'>
      <output prefix='sim'><properties filename='out'> [step, potential] </properties></output>
      <total_steps>3</total_steps> <prng><seed>1</seed></prng>
      <ffsocket name='drv' mode='unix' pbc='false'><address>{unique_address()}</address></ffsocket>
      <system>
        <initialize nbeads='1'>
          <file mode='xyz'> plain.xyz </file>
          <cell mode='abc' units='angstrom'> [30, 30, 30] </cell>
          <velocities mode='thermal' units='kelvin'> 300 </velocities>
        </initialize>
        <forces> <force forcefield='drv'/> </forces>
        <motion mode='dynamics'><dynamics mode='nve'>
          <timestep units='femtosecond'>0.5</timestep>
        </dynamics></motion>
        <ensemble><temperature units='kelvin'>300</temperature></ensemble>
      </system></simulation>""")
    return tmp_path


def test_run_refuses_a_start_without_its_unit(plain, fail):
    line = fail("run", plain / "input.xml")
    assert f"0.529 times that in {plain / 'plain.xyz'}" in line
    assert "angstrom had been read as bohr" in line


def test_a_client_alone_refuses_it_too(plain, run, capsys):
    """Where nobody has looked at the input: i-PI is started by hand."""
    path, address = plain / "input.xml", unique_address()
    path.write_text(re.sub("<address>.*?</address>", f"<address>{address}</address>", path.read_text()))
    with running_ipi(path):
        assert run("client", plain / "pidelta.yaml", "--address", address) == 2
    served, line = capsys.readouterr().err.strip().splitlines()
    assert served.startswith("serves the whole energy, low: ")
    assert "0.529 times that in the first positions from i-PI" in line
    assert "angstrom had been read as bohr" in line


@pytest.mark.parametrize("command", ["evaluate", "sample"])
def test_frames_with_a_wrong_unit_in_their_comment(plain, run, capsys, command):
    lines = (plain / "plain.xyz").read_text().splitlines()
    comment = "# CELL(abcABC): 30 30 30 90 90 90 Step: 5 Bead: 0 positions{atomic_unit} cell{angstrom}"
    (plain / "frames.xyz").write_text("\n".join([lines[0], comment, *lines[2:], ""]))
    arguments = {
        "evaluate": [plain / "pidelta.yaml", "--frames", plain / "frames.xyz"],
        "sample": [plain / "pidelta.yaml", plain / "frames.xyz", "--output", plain / "frames.h5"],
    }
    assert run(command, *arguments[command]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "frames.xyz" in line
    assert "angstrom had been read as bohr" in line


def test_evaluate_refuses_frames_of_another_program_in_bohr(plain, fail):
    atoms = Atoms(
        "CH4",
        np.concatenate([[[0, 0, 0]], 0.63 * np.array([[1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]])]),
    )
    write(plain / "methane.xyz", atoms)
    (plain / "methane.yaml").write_text("structure: methane.xyz\nqm: {atoms: all}\n")
    atoms.positions *= ANGSTROM
    write(plain / "frames.extxyz", [atoms])
    line = fail("evaluate", plain / "methane.yaml", "--frames", plain / "frames.extxyz")
    assert "1.89 times that in frame 0 of" in line
    assert "bohr had been read as angstrom" in line


def evaluation(spread, extrapolation=None, members=3):
    properties = {"delta_energies": np.zeros((len(spread), members)), SPREAD: np.array(spread)}
    if extrapolation is not None:
        properties[EXTRAPOLATION] = np.array(extrapolation)
    n = len(spread)
    term = Term(np.zeros(n), np.zeros((n, 1, 3)), np.zeros((n, 3, 3)))
    return Evaluation({"delta": term}, properties=properties)


NOTHING = np.zeros((2, 1, 3)), None


def test_the_monitor_counts_and_its_status_is_written(tmp_path):
    path = tmp_path / "client-1.status"
    assert read_status(path) == ClientStatus()
    monitor = UncertaintyMonitor(0.002)
    status = StatusFile(path, monitor.alarms)

    def see(spread, extrapolation):
        for observer in (monitor, status):
            observer.after(*NOTHING, evaluation(spread, extrapolation))

    see([0.001, 0.003], [0.5, 0.7])
    first = read_status(path)
    assert first.structures == 2
    see([0.0015, 0.0025], [0.9, 1.2])
    assert read_status(path) == first  # within a second
    status.write()
    assert read_status(path) == ClientStatus(4, monitor.alarms)
    spread, extrapolation = monitor.alarms[SPREAD], monitor.alarms[EXTRAPOLATION]
    assert (spread.structures, spread.above, spread.threshold) == (4, 2, 0.002)
    assert [spread.mean, spread.largest, spread.latest] == pytest.approx([0.002, 0.003, 0.002])
    assert (extrapolation.above, extrapolation.threshold) == (1, 1.0)
    assert extrapolation.largest == 1.2
    assert list(tmp_path.iterdir()) == [path]


def test_a_single_model_has_no_spread():
    monitor = UncertaintyMonitor(0.002)
    monitor.after(*NOTHING, evaluation([0.0, 0.0], [0.5, 0.7], members=1))
    alarms = merge_alarms([monitor.alarms])
    assert set(alarms) == {EXTRAPOLATION}
    (spread, extrapolation) = uncertainty.rows(alarms)
    assert "a single model" in spread[1]
    assert extrapolation[1].startswith("0.70 at most")


def test_what_is_not_a_number_counts_as_above():
    alarm = Alarm(1.0)
    alarm.add(np.array([np.nan, 0.5]))
    assert alarm.above == 1


def test_a_full_disk_does_not_end_a_run(tmp_path):
    status = StatusFile(tmp_path / "none" / "status", {})
    status.after(*NOTHING, evaluation([0.001]))
    assert read_status(tmp_path / "none" / "status") == ClientStatus()


def test_alarms_of_several_clients():
    kcal = 1.0 / HARTREE_IN_KCAL_PER_MOL
    one = {SPREAD: Alarm(kcal, structures=3, total=3 * kcal, largest=2 * kcal, latest=0.5 * kcal, above=1)}
    two = {SPREAD: Alarm(kcal, structures=1, total=0.2 * kcal, largest=0.2 * kcal, latest=0.1 * kcal)}
    idle = {SPREAD: Alarm(kcal)}
    alarms = merge_alarms([one, two, idle, {}])
    assert alarms[SPREAD].mean == pytest.approx(0.8 * kcal)
    assert uncertainty.in_short(alarms) == "spread 0.3 (max 2) kcal/mol"
    assert uncertainty.rows(alarms)[0][1] == "mean 0.8, largest 2 kcal/mol (warning above 1)"
    (warning,) = uncertainty.warnings(alarms)
    assert "by more than 1 kcal/mol in 25 % of the structures, by 2 at most" in warning
    assert uncertainty.warnings(merge_alarms([two])) == []
    assert uncertainty.rows({}) == []


def write_delta_setup(folder, more=""):
    """Uracil in vacuum with two of the shipped models."""
    for name in ("uracil-water.gro", "uracil-water.top", "delta-0.pt", "delta-1.pt"):
        shutil.copy(ROOT / "inputs" / "uracil-water" / name, folder)
    text = (ROOT / "inputs" / "uracil-water" / "pidelta.yaml").read_text()
    head = text[: text.index("delta:")]
    (folder / "pidelta.yaml").write_text(f"{head}delta: {{models: [delta-0.pt, delta-1.pt]{more}}}\n")
    return folder / "pidelta.yaml"


def test_evaluate_warns_above_the_threshold_that_is_asked_for(tmp_path, run, capsys):
    for more, warns in ((", warn_above: 0.000001 kcal/mol", True), (", warn_above: 100 kcal/mol", False)):
        config = write_delta_setup(tmp_path, more)
        assert run("evaluate", config, "--terms", "delta", "--output", tmp_path / "out.json") == 0
        captured = capsys.readouterr()
        assert ("warning: the delta models differ by more than 1e-06 kcal/mol" in captured.err) is warns
        (frame,) = json.loads((tmp_path / "out.json").read_text())["frames"]
        assert frame["properties"][SPREAD] > 0.0


def test_run_shows_and_writes_the_spread(tmp_path, run, capsys):
    """The summary has what i-PI wrote of the extras; the status files of the clients are gone."""
    config = write_delta_setup(tmp_path, ", warn_above: 0.000001 kcal/mol")
    source = ROOT / "inputs" / "uracil-water"
    shutil.copy(source / "init.pdb", tmp_path)
    text = (source / "nvt.xml").read_text()
    for old, new in (
        ("<total_steps>1000", "<total_steps>2"),
        ("stride='10'", "stride='1'"),
        ("pidelta-uracil-nvt", unique_address()),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "nvt.xml").write_text(text)
    assert run("run", tmp_path / "nvt.xml", "--config", config) == 0
    output = " ".join(capsys.readouterr().out.split())
    written = np.loadtxt(tmp_path / "nvt.spread_0")
    assert len(written) == 3
    largest = written.max() * HARTREE_IN_KCAL_PER_MOL
    assert f"largest {largest:.3g} kcal/mol" in output
    assert "warning: the delta models differ by more than 1e-06 kcal/mol in 100 % of the structures" in output
    assert not list(tmp_path.glob("*.status*"))
    alarms = json.loads((tmp_path / "nvt.client-1.log").read_text().splitlines()[-1])["alarms"]
    assert alarms[SPREAD]["largest"] == pytest.approx(written.max(), rel=1e-6)
    assert alarms[SPREAD]["structures"] == alarms[SPREAD]["above"] >= 3


def test_the_default_threshold_is_that_of_the_models(tmp_path):
    setup = Setup(load_config(write_delta_setup(tmp_path)))
    assert setup.spread_threshold == setup.correction.uncertainty_threshold
    given = Setup(load_config(write_delta_setup(tmp_path, ", warn_above: 0.5 kcal/mol")))
    assert given.spread_threshold == pytest.approx(0.5 / HARTREE_IN_KCAL_PER_MOL)


def test_a_threshold_needs_its_unit(tmp_path, fail):
    config = write_delta_setup(tmp_path, ", warn_above: 0.5")
    assert "delta.warn_above: expected an energy with its unit" in fail("check", config)
