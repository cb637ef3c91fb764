"""QM/MM from configurations: waters with virtual sites, charge groups, and charges that do not add up."""

import shutil

import numpy as np
import pytest

from conftest import ROOT
from mm_systems import DATA, WATER
from pidelta.config import load_config
from pidelta.data.store import FrameStore
from pidelta.errors import ConfigError
from pidelta.setup import Setup
from pidelta.testing.derivatives import central_differences
from pidelta.units import BOHR_IN_ANGSTROM
from pidelta.workflow.sampling import sample

URACIL_WATER = ROOT / "inputs" / "uracil-water"
MM = "{topology: uracil-water.top, water: q-tip4p-f, electrostatics: reaction-field, cutoff: 1.0 nm}"


@pytest.fixture
def configured(tmp_path):
    """Uracil in water, with the sections of a configuration as text; the set-up."""
    for name in ("uracil-water.gro", "uracil-water.top"):
        shutil.copy(URACIL_WATER / name, tmp_path)

    def make(mm=MM, qm="{atoms: resname URA}", embedding="{cutoff: 1.4 nm, switch: 0.2 nm}"):
        path = tmp_path / "pidelta.yaml"
        path.write_text(f"structure: uracil-water.gro\nqm: {qm}\nmm: {mm}\nembedding: {embedding}\n")
        return Setup(load_config(path))

    return make


def test_forces_of_four_point_water_around_a_qm_region(configured):
    """DFTB in water whose negative charge is a virtual site: QM, near MM, and MM that is switched off."""
    setup = configured()
    system, evaluator = setup.system, setup.evaluator()
    cells = system.cell[None]
    evaluation = evaluator.evaluate(system.positions[None], cells)
    region = setup.qm_region.cut(system.positions[None], cells)
    sites = region.site_particles[0]
    weights = region.site_charges[0] / np.where(sites >= len(system), -1.1128, 0.5564)
    hydrogens = sites < len(system)
    switching = sites[(weights > 0.1) & (weights < 0.9) & hydrogens & (region.site_charges[0] != 0.0)]
    nearest = np.linalg.norm(region.site_positions[0] - region.positions[0, 1], axis=1)
    near = sites[hydrogens][np.argsort(nearest[hydrogens])][0]
    oxygens = [(switching[0] // 3) * 3, (near // 3) * 3]
    atoms = np.array([1, 11, *switching[:2], near, *oxygens])

    def energy(positions):
        return evaluator.evaluate(positions, np.repeat(cells, len(positions), axis=0)).energy

    numerical = central_differences(energy, system.positions, atoms)
    np.testing.assert_allclose(evaluation.gradient[0, atoms], numerical, rtol=0, atol=1e-7)
    assert np.abs(evaluation.gradient.sum(axis=1)).max() < 1e-10
    assert np.abs(evaluation.terms["low"].gradient[0, oxygens]).max() > 1e-6

    energies = []
    for sign in (1.0, -1.0):
        strain = np.eye(3)
        strain[1, 2] += sign * 1e-5
        energies.append(evaluator.evaluate((system.positions @ strain.T)[None], cells @ strain.T).energy[0])
    assert evaluation.virial[0, 1, 2] == pytest.approx((energies[1] - energies[0]) / 2e-5, abs=2e-5)


def test_frames_hold_sites_as_charges_without_a_nucleus(configured, tmp_path):
    setup = configured()
    system = setup.system
    lengths = " ".join(f"{edge * BOHR_IN_ANGSTROM:.10f}" for edge in np.diag(system.cell))
    names = {1: "H", 6: "C", 7: "N", 8: "O"}
    rows = [
        f"{names[number]} " + " ".join(f"{x:.10f}" for x in point * BOHR_IN_ANGSTROM)
        for number, point in zip(system.numbers.tolist(), system.positions, strict=True)
    ]
    comment = f"# CELL(abcABC): {lengths} 90 90 90 Step: 0 Bead: 0 positions{{angstrom}} cell{{angstrom}}"
    trajectory = tmp_path / "run.pos_0.xyz"
    trajectory.write_text("\n".join([str(len(rows)), comment, *rows, ""]))
    with FrameStore(tmp_path / "frames.h5", "a") as store:
        options = {"numbers": system.numbers, "periodic": True, "yardstick": setup.yardstick}
        assert sample(trajectory, setup.qm_region, store, **options) == 1
        (frame,) = store
    counts = {number: np.count_nonzero(frame.site_numbers == number) for number in (0, 1, 8)}
    assert counts[1] == 2 * counts[8] == 2 * counts[0]
    assert np.all(frame.site_charges[frame.site_numbers == 8] == 0.0)
    assert frame.site_charges[frame.site_numbers == 0].min() == pytest.approx(-1.1128)
    assert frame.site_charges.sum() == pytest.approx(0.0, abs=1e-10)


@pytest.fixture
def waters(tmp_path):
    """Eight waters of four points in a box; a set-up of them with the given section qm."""
    grid = np.array(list(np.ndindex(2, 2, 2)))[:, None] * 4.5 + 2.0
    rows = (grid + WATER * BOHR_IN_ANGSTROM).reshape(-1, 3)
    lines = [
        f"{i // 3 + 1:5d}{'SOL':<5s}{('OW', 'HW1', 'HW2')[i % 3]:>5s}{i + 1:5d}"
        + "".join(f"{x / 10:8.3f}" for x in row)
        for i, row in enumerate(rows)
    ]
    (tmp_path / "w.gro").write_text("\n".join(["water", "24", *lines, "   2.1   2.1   2.1", ""]))

    def make(qm, topology=DATA / "tip4p.top"):
        path = tmp_path / "p.yaml"
        path.write_text(
            f"structure: w.gro\nqm: {qm}\nmm: {{topology: {topology}, cutoff: 0.9 nm}}\n"
            "embedding: {cutoff: 1.0 nm, switch: 0.2 nm}\n"
        )
        return Setup(load_config(path))

    return make


def test_a_qm_water_has_no_site(waters):
    """Its site is QM and has no charge of its own, neither for the force field nor for the surroundings."""
    region = waters("{atoms: [0, 1, 2]}").qm_region
    assert region.force_field.charges[24] == 0.0
    assert np.all(region.force_field.charges[25:] < -1.0)
    assert 24 not in region.partition.groups.particles
    assert region.remainder == 0.0
    with pytest.raises(
        ConfigError, match=r"\.yaml: qm\.engine: .* virtual site.* found ase with the virtual site of SOL1"
    ):
        _ = waters(
            "{atoms: [0, 1, 2], engine: ase, ase: {calculator: ase.calculators.lj.LennardJones}}"
        ).qm_region


def test_charges_that_do_not_sum_to_an_integer(waters, tmp_path, fail, run, capsys):
    """As AM1-BCC leaves them, 0.002 e: accepted and said; 0.3 e: refused, or moved to other atoms."""
    text = (DATA / "tip4p.top").read_text()
    whole = waters("{atoms: [0, 1, 2]}")
    for change, remainder in ((0.002, 0.002), (0.3, None)):
        path = tmp_path / f"{change}.top"
        path.write_text(text.replace("OW  1  0.0\n", f"OW  1  {change}\n"))
        setup = waters("{atoms: [0, 1, 2]}", path)
        if remainder is None:
            with pytest.raises(
                ConfigError, match=r"\.yaml: qm\.charge: .*found \+0\.3000: .* charge_remainder"
            ):
                _ = setup.qm_region
        else:
            assert setup.qm_region.remainder == pytest.approx(remainder)
            assert any("+0.0020 e are dropped" in warning for warning in setup.warnings())
            assert run("check", setup.config.path, "--atoms", 1) == 0
            assert "are dropped" in " ".join(capsys.readouterr().out.split())
    setup = waters("{atoms: [0, 1, 2], charge_remainder: [3, 4]}", tmp_path / "0.3.top")
    region = setup.qm_region
    assert region.remainder == 0.0
    moved = region.partition.charges - setup.topology.charges
    np.testing.assert_allclose(moved[[3, 4]], 0.15)
    assert region.force_field_charges.shape == whole.qm_region.force_field_charges.shape
    np.testing.assert_array_equal(region.force_field.charges, region.partition.charges)
    assert region.partition.charges.sum() == pytest.approx(setup.topology.charges.sum())
    fail_text = fail("check", waters("{atoms: [0, 1, 2], charge_remainder: [2]}").config.path)
    assert "qm.charge_remainder: expected atoms outside the QM region, found atom 2" in fail_text


@pytest.mark.parametrize(("charge", "told"), [(0, False), (2, True)])
def test_a_remainder_that_hides_a_wrong_charge_is_told(waters, run, capsys, monkeypatch, charge, told):
    """No bond is cut, so that `check` has no other place for it."""
    monkeypatch.setenv("COLUMNS", "200")
    setup = waters(f"{{atoms: [0, 1, 2], charge: {charge}, charge_remainder: [3, 4, 7]}}")
    warnings = [line for line in setup.warnings() if "charge_remainder" in line]
    assert len(warnings) == told
    if told:
        assert f"{-charge:+.4f} e go to 3 MM atoms of SOL2, SOL3, as" in warnings[0]
        assert warnings[0].endswith(f"is qm.charge {charge:+d} right?")
        run("check", setup.config.path, "--atoms", 1)
        assert f"charge remainder │ {-charge:+.4f} e of the QM" in " ".join(capsys.readouterr().out.split())


def test_groups_of_the_configuration(configured, capsys, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    mm = "{topology: uracil-water.top, electrostatics: reaction-field, cutoff: 1.0 nm}"
    lengths = "cutoff: 1.4 nm, switch: 0.2 nm"
    for groups, count, remembered in (
        ("residue", 900, None),
        ("molecule", 900, "molecule"),
        ("[[12, 13], [14]]", 901, "listed"),
        ("['index 12 or (bonded index 12 and index 13)']", 901, "listed"),
    ):
        setup = configured(mm=mm, embedding=f"{{{lengths}, groups: {groups}}}")
        assert len(setup.qm_region.partition.groups) == count
        assert setup.surroundings.settings.get("groups") == remembered  # so that models do, too
    with pytest.raises(
        ConfigError, match=r"\.yaml: embedding\.groups: expected atoms outside the QM region.*URA1"
    ):
        _ = configured(mm=mm, embedding=f"{{{lengths}, groups: [[11, 12]]}}").qm_region
    assert run("check", configured(mm=mm).config.path, "--atoms", 1) == 0
    output = capsys.readouterr().out
    assert "900; up to 0.95 angstrom" in output
    assert "all neutral; charges within 11.1 angstrom of a QM atom count in full" in output


def test_ions_around_a_charged_region_are_warned_of(tmp_path, run, capsys, monkeypatch):
    """Hydronium and chloride: said by check, and by run through the same list."""
    (tmp_path / "p.top").write_text(
        "[ defaults ]\n1 2 yes 0.5 0.8333\n[ atomtypes ]\nOW 8 15.999 0 A 0.3 0.6\nHW 1 1.008 0 A 0.1 0.1\n"
        "CL 17 35.45 0 A 0.4 0.4\n[ moleculetype ]\nH3O 3\n[ atoms ]\n1 OW 1 H3O O 1 -0.2 15.999\n"
        "2 HW 1 H3O H1 1 0.4 1.008\n3 HW 1 H3O H2 1 0.4 1.008\n4 HW 1 H3O H3 1 0.4 1.008\n[ bonds ]\n"
        "1 2 1 0.1 4e5\n1 3 1 0.1 4e5\n1 4 1 0.1 4e5\n[ moleculetype ]\nCL 1\n[ atoms ]\n"
        "1 CL 1 CL CL 1 -1.0 35.45\n[ system ]\nx\n[ molecules ]\nH3O 1\nCL 1\n"
    )
    rows = ["O", "H1", "H2", "H3"]
    places = [[2, 2, 2], [2.094, 2, 2.025], [1.953, 2.081, 2.025], [1.953, 1.919, 2.025], [2, 2, 3.3]]
    lines = [
        f"{1 + (i > 3):5d}{'H3O' if i < 4 else 'CL':<5s}{[*rows, 'CL'][i]:>5s}{i + 1:5d}"
        + "".join(f"{x:8.3f}" for x in place)
        for i, place in enumerate(places)
    ]
    (tmp_path / "p.gro").write_text("\n".join(["x", "5", *lines, "   4.0   4.0   4.0", ""]))
    path = tmp_path / "p.yaml"
    path.write_text(
        "structure: p.gro\nqm: {atoms: resname H3O, charge: 1}\n"
        "mm: {topology: p.top, electrostatics: reaction-field, cutoff: 0.9 nm}\n"
    )
    (warning,) = Setup(load_config(path)).warnings()
    assert "CL2:CL (atom 4) with -1.00 e" in warning
    assert "wrong by up to 37.8 kcal/mol/angstrom" in warning
    monkeypatch.setenv("COLUMNS", "400")
    assert run("check", path, "--atoms", 1) == 0
    assert "wrong by up to 37.8 kcal/mol/angstrom" in " ".join(capsys.readouterr().out.split())
