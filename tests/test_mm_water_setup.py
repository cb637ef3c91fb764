"""Models of water by name in a configuration: with a topology or without, sites in the files or not."""

from __future__ import annotations

import numpy as np
import pytest

from mm_systems import DATA, WATER, mm_evaluator, on_atoms, water_positions
from pidelta.config import load_config
from pidelta.errors import ConfigError, StructureError, TopologyError
from pidelta.mm.water import build_water
from pidelta.setup import Setup
from pidelta.units import ANGSTROM, NANOMETER
from pidelta.workflow.yardstick import FirstPositions


def molecules():
    """Eight waters in a box of 2.4 nm: (8, 3, 3) in bohr, multiples of 0.001 nm."""
    corners = np.stack(np.meshgrid(*[[0.3, 1.0]] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    return (corners + np.round(WATER / NANOMETER, 3)) * NANOMETER


def write_gro(path, *, with_site):
    names = ("OW", "HW1", "HW2", "MW")[: 4 if with_site else 3]
    lines = []
    for number, molecule in enumerate(molecules(), start=1):
        rows = np.vstack([molecule, molecule[:1] + 1.0]) / NANOMETER  # where a file has M does not matter
        for name, (x, y, z) in zip(names, rows, strict=False):
            lines.append(f"{number:5d}SOL  {name:>5s}{len(lines) + 1:5d}{x:8.3f}{y:8.3f}{z:8.3f}")
    body = "\n".join(lines)
    path.write_text(f"water\n{len(lines):5d}\n{body}\n   2.40000   2.40000   2.40000\n")


@pytest.fixture
def setup(tmp_path):
    """Write a structure and a configuration of its section mm; returns the configuration."""

    def write(mm, *, with_site=False, more=""):
        write_gro(tmp_path / "water.gro", with_site=with_site)
        (tmp_path / "pidelta.yaml").write_text(f"structure: water.gro\nmm: {mm}\n{more}")
        return load_config(tmp_path / "pidelta.yaml")

    return write


def energy(config):
    system = Setup(config).system
    evaluator = Setup(config).evaluator()
    return evaluator.evaluate(system.positions[None], system.cell[None]).energy[0]


@pytest.mark.parametrize("with_site", [False, True])
@pytest.mark.parametrize("topology", ["", f"topology: {DATA / 'tip4p.top'}, "])
def test_q_tip4p_f_from_any_files(setup, with_site, topology):
    config = setup(f"{{{topology}water: q-tip4p-f}}", with_site=with_site)
    system = Setup(config).system
    np.testing.assert_allclose(system.positions, molecules().reshape(-1, 3), atol=1e-6)
    expected = on_atoms(
        mm_evaluator(
            build_water(system, "q-tip4p-f"), cutoff=10.0 * ANGSTROM, cell=system.cell, electrostatics="pme"
        )
    )
    reference = expected.evaluate(system.positions[None], system.cell[None]).energy[0]
    assert energy(config) == pytest.approx(reference, rel=1e-12)


@pytest.fixture
def rigid_top(tmp_path):
    """tip4p.top with its [ settles ] also where FLEXIBLE is defined."""
    text = (DATA / "tip4p.top").read_text()
    path = tmp_path / "rigid.top"
    path.write_text(text.replace("#ifdef FLEXIBLE", "#ifdef NEVER"))
    return path


def test_rigid_water_is_refused_unless_a_model_takes_its_place(setup, rigid_top):
    with pytest.raises(TopologyError, match=r"\[ settles \] keeps distances rigid.* such as q-spc-fw"):
        energy(setup(f"{{topology: {rigid_top}}}", with_site=True))
    named = energy(setup(f"{{topology: {rigid_top}, water: q-spc-fw}}", with_site=True))
    assert named == pytest.approx(energy(setup("{water: q-spc-fw}")), rel=1e-12)


def test_only_water_may_be_rigid(setup, rigid_top):
    text = rigid_top.read_text()
    rigid_top.write_text(text.replace("HW 1  1.008", "HW 9  19.00"))
    with pytest.raises(TopologyError, match=r"molecule SOL: \[ settles \] keeps distances rigid"):
        energy(setup(f"{{topology: {rigid_top}, water: q-spc-fw}}", with_site=True))


def test_constraints_of_water_are_rigid_water_as_well(setup, rigid_top):
    text = rigid_top.read_text()
    constraints = "[ constraints ]\n1 2 1 0.09572\n1 3 1 0.09572\n2 3 1 0.15139\n"
    start = text.index("[ settles ]")
    end = text.index("#endif", start)
    rigid_top.write_text(text[:start] + constraints + text[end:])
    with pytest.raises(TopologyError, match=r"\[ constraints \] keeps distances rigid.* such as q-spc-fw"):
        energy(setup(f"{{topology: {rigid_top}}}", with_site=True))
    named = energy(setup(f"{{topology: {rigid_top}, water: q-spc-fw}}", with_site=True))
    assert named == pytest.approx(energy(setup("{water: q-spc-fw}")), rel=1e-12)
    rigid_top.write_text(rigid_top.read_text().replace("HW 1  1.008", "HW 9  19.00"))
    with pytest.raises(TopologyError, match=r"molecule SOL: \[ constraints \] keeps distances rigid"):
        energy(setup(f"{{topology: {rigid_top}, water: q-spc-fw}}", with_site=True))


@pytest.mark.parametrize(
    ("source", "described"),
    [
        ("water: q-tip4p-f", "water: q-tip4p-f (8 molecules), by the built-in evaluator"),
        (
            f"topology: {DATA / 'tip4p.top'}, water: q-spc-fw",
            "tip4p.top, water: q-spc-fw (8 molecules), by the built-in evaluator",
        ),
        (f"topology: {DATA / 'tip4p.top'}", "tip4p.top, by the built-in evaluator"),
    ],
)
def test_check_names_the_model_of_water(setup, run, capsys, monkeypatch, source, described):
    monkeypatch.setenv("COLUMNS", "200")
    config = setup(f"{{{source}, ewald_tolerance: 1.0e-5}}")
    assert run("check", config.path, "--atoms", 1) == 0
    assert described in capsys.readouterr().out


def test_bonds_of_every_form_are_looked_for_in_the_first_frame(setup):
    config = setup("{water: q-tip4p-f}")
    system = Setup(config).system
    yardstick = Setup(config).yardstick
    FirstPositions(yardstick).before(system.positions[None], system.cell[None])
    swapped = system.positions.copy()
    swapped[[0, 4]] = swapped[[4, 0]]
    with pytest.raises(StructureError, match="are bonded"):
        FirstPositions(yardstick).before(swapped[None], system.cell[None])


def test_options_of_lennard_jones_reach_the_evaluator(setup):
    default, corrected, shifted = (
        energy(setup(f"{{water: q-tip4p-f{more}}}"))
        for more in ("", ", dispersion_correction: true", ", lj_modifier: potential-shift")
    )
    assert corrected < default
    assert shifted != default


@pytest.mark.parametrize(
    ("mm", "message"),
    [
        ("{cutoff: 1 nm}", "mm: expected topology, water or both, found neither"),
        ("{water: spc-fw, parameters: [a.prm]}", "mm: expected parameters with a topology, and only with it"),
        ("{water: spc}", "mm.water: input should be 'spc-fw', 'q-spc-fw', 'q-tip4p-f' or 'tip3p-flexible'"),
        ("{water: spc-fw, lj_modifier: x}", "mm.lj_modifier: input should be 'switch'"),
    ],
)
def test_wrong_sections(setup, mm, message):
    with pytest.raises(ConfigError) as caught:
        setup(mm)
    assert message in str(caught.value)


@pytest.mark.parametrize(("molecules", "warned"), [(99, False), (100, True)])
def test_many_molecules_without_a_cell_are_told(tmp_path, molecules, warned):
    """A .pdb file of a box of solvent may have lost its line CRYST1."""
    positions = water_positions(molecules, 30.0 * np.eye(3), seed=0) / ANGSTROM
    (tmp_path / "water.pdb").write_text(
        "".join(
            f"ATOM  {i + 1:5d}  {('O', 'H1', 'H2')[i % 3]:<3s} HOH A{i // 3 + 1:4d}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           {'OHH'[i % 3]}\n"
            for i, (x, y, z) in enumerate(positions)
        )
    )
    (tmp_path / "pidelta.yaml").write_text("structure: water.pdb\nmm: {water: spc-fw}\n")
    warnings = Setup(load_config(tmp_path / "pidelta.yaml")).warnings()
    assert [line.partition(": ")[2] for line in warnings] == [
        f"no cell (its line CRYST1): {molecules} molecules are a cluster in vacuum, and all pairs interact"
    ] * warned
