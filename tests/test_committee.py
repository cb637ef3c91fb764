"""Committees: each member's energy, forces and virial, and what i-PI's ffcommittee makes of them."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from conftest import ROOT
from ipi_support import unique_address
from pidelta.analysis.ipi_output import read_properties
from pidelta.config import load_config
from pidelta.errors import ConfigError, SettingError, SetupError
from pidelta.ipi.committees import check_committees
from pidelta.ipi.served import served_in_parameters
from pidelta.ipi.simulation import read_simulation
from pidelta.qmmm.members import COMMITTEE_PROPERTIES
from pidelta.setup import Setup
from pidelta.units import ANGSTROM, HARTREE_IN_EV, HARTREE_IN_KELVIN

SOURCE = ROOT / "inputs" / "uracil-water"
MODELS = ("delta-0.pt", "delta-1.pt", "delta-2.pt")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Uracil in 900 waters with three delta models, whose members are reported."""
    folder = tmp_path_factory.mktemp("committee")
    for name in ("uracil-water.gro", "uracil-water.top", "init.pdb", *MODELS):
        shutil.copy(SOURCE / name, folder)
    text = (SOURCE / "pidelta.yaml").read_text()
    names = ", ".join(COMMITTEE_PROPERTIES)
    assert "delta-2.pt]\n" in text
    text = text.replace("delta-2.pt]\n", f"delta-2.pt]\n  properties: [{names}]\n")
    (folder / "pidelta.yaml").write_text(text)
    return folder / "pidelta.yaml"


@pytest.fixture(scope="module")
def setup(config):
    return Setup(load_config(config))


def two_structures(setup):
    rng = np.random.default_rng(4)
    positions = np.stack([setup.system.positions] * 2)
    positions += 0.02 * rng.normal(size=positions.shape)
    return positions, np.stack([setup.system.cell] * 2)


@pytest.mark.parametrize("terms", ["delta", "low+delta"])
def test_members_are_those_of_models_alone_and_their_mean_is_the_energy(setup, terms):
    terms = frozenset(terms.split("+"))
    positions, cells = two_structures(setup)
    both = setup.evaluator(terms).evaluate(positions, cells)
    pot, force, virial = (both.properties[name] for name in COMMITTEE_PROPERTIES)
    n = len(setup.system)
    assert (pot.shape, force.shape, virial.shape) == ((2, 3), (2, 3, 3 * n), (2, 3, 9))
    np.testing.assert_allclose(pot.mean(axis=1), both.energy, rtol=1e-12)
    np.testing.assert_allclose(force.mean(axis=1), -both.gradient.reshape(2, -1), atol=1e-12)
    np.testing.assert_allclose(virial.mean(axis=1), both.virial.reshape(2, -1), atol=1e-10)
    spread = setup.config.delta.calibration.energy * pot.std(axis=1, ddof=1)
    np.testing.assert_allclose(spread, both.properties["delta_standard_deviation"])
    for member in range(3):
        alone = setup.evaluator(terms, member).evaluate(positions, cells)
        assert set(COMMITTEE_PROPERTIES).isdisjoint(alone.properties)
        np.testing.assert_allclose(pot[:, member], alone.energy, atol=1e-9)
        np.testing.assert_allclose(force[:, member], -alone.gradient.reshape(2, -1), atol=1e-8)
        np.testing.assert_allclose(virial[:, member], alone.virial.reshape(2, -1), atol=1e-7)
    with pytest.raises(SettingError, match="member: expected 0 to 2, as there are 3 models, found 3"):
        setup.evaluator(terms, 3)


def test_forces_and_virials_of_members_are_derivatives(setup):
    """By displacements of atoms of the molecule and near it, and by a strain of cell and molecules."""
    evaluator = setup.evaluator(frozenset({"delta"}))
    positions, cells = (values[:1] for values in two_structures(setup))
    found = evaluator.evaluate(positions, cells).properties
    rng, step = np.random.default_rng(5), 1e-4

    def slope(moved):
        plus, minus = (
            evaluator.evaluate(*moved(sign * step)).properties["committee_pot"][0] for sign in (1, -1)
        )
        return (plus - minus) / (2.0 * step)

    direction = rng.normal(size=positions.shape)
    expected = np.einsum("ki,i->k", found["committee_force"][0], direction.ravel())
    np.testing.assert_allclose(-slope(lambda x: (positions + x * direction, cells)), expected, rtol=1e-5)

    strain = rng.normal(size=(3, 3))
    strain += strain.T

    def strained(x):
        matrix = np.eye(3) + 0.1 * x * strain
        return positions @ matrix, cells @ matrix

    expected = 0.1 * found["committee_virial"][0] @ strain.ravel()
    np.testing.assert_allclose(-slope(strained), expected, rtol=1e-5, atol=1e-8)


def test_properties_of_members_that_there_are_not(config, tmp_path):
    wrong = tmp_path / "pidelta.yaml"
    wrong.write_text(config.read_text().replace("committee_pot", "committee_energy"))
    with pytest.raises(SetupError, match=r"delta\.properties"):
        load_config(wrong)


def test_an_offset_is_taken_off_each_model(config, setup, tmp_path):
    shifted = config.with_name("shifted.yaml")
    shifted.write_text(config.read_text().replace("delta:", "delta:\n  offset: -394.8 hartree"))
    positions, cells = two_structures(setup)
    terms = frozenset({"delta"})
    before, after = (
        each.evaluator(terms).evaluate(positions, cells) for each in (setup, Setup(load_config(shifted)))
    )
    for name in ("committee_pot", "delta_energies"):
        np.testing.assert_allclose(after.properties[name], before.properties[name] + 394.8, rtol=1e-12)
    np.testing.assert_allclose(after.energy, before.energy + 394.8, rtol=1e-12)
    np.testing.assert_array_equal(after.gradient, before.gradient)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "offset: 394.85 hartree",
            r"delta.offset: expected about -394.8497 hartree, the mean of .*, found 394.8500$",
        ),
        ("offset: -394.78 hartree", r"delta.offset: expected about -394.8497 hartree"),
        ("offset: -394.85 eV", r"delta.offset: .*, found -14.51"),
        (
            "calibration: {energy: 2.0, models: 0123abcdef01}",
            r"delta.calibration.models: expected 29ef7f60d022, .*, found 0123abcdef01: the factors",
        ),
    ],
)
def test_an_offset_or_a_calibration_of_other_models_is_refused(config, more, message):
    other = config.with_name("other.yaml")
    text = config.read_text()
    kept = [line for line in text.splitlines() if "calibration:" not in line]
    other.write_text("\n".join(kept).replace("delta:", f"delta:\n  {more}") + "\n")
    with pytest.raises(ConfigError, match=message) as info:
        _ = Setup(load_config(other)).correction
    assert str(info.value).startswith(f"{other}: ")
    assert "\n" not in str(info.value)


INPUT = """<simulation>
  <ffcommittee name='c'> {committee} {sockets} </ffcommittee>
  <system> <initialize nbeads='1'/> <forces> <force forcefield='c'/> </forces> </system>
</simulation>"""


def checked(folder, sockets, committee="", reported=(), centred=True):
    """The notes on a committee of sockets with these parameters."""
    elements = "".join(
        f"<ffsocket name='s{place}' mode='unix'> <address>s{place}</address>"
        f"<parameters> {{{text}}} </parameters> </ffsocket>"
        for place, text in enumerate(sockets)
    )
    path = folder / "input.xml"
    path.write_text(INPUT.format(committee=committee, sockets=elements))
    forces = read_simulation(path).forces
    return check_committees("input.xml", forces, 3, reported, centred=centred)


MEMBERS = tuple(f"terms: delta, member: {k}" for k in range(3))
PARSE = "<parse_json> True </parse_json>"
BASELINE = "<baseline_name> s0 </baseline_name>"


def test_committees_that_are_right(tmp_path):
    assert checked(tmp_path, MEMBERS) == []
    assert checked(tmp_path, ["terms: delta"], PARSE, ["committee_pot"]) == []
    assert checked(tmp_path, ["terms: mm+low", *MEMBERS], BASELINE) == []
    assert checked(tmp_path, ["terms: mm+low", "terms: delta"], BASELINE + PARSE, COMMITTEE_PROPERTIES) == []
    (note,) = checked(tmp_path, MEMBERS, "<weights> [1, 2, 1] </weights>")
    assert "i-PI takes the plain mean" in note
    (note,) = checked(tmp_path, MEMBERS[:2])
    assert "leaves out the models 2 (from 0)" in note


@pytest.mark.parametrize(
    ("sockets", "options", "message"),
    [
        ([*MEMBERS, MEMBERS[1]], {}, "expected each member once, found member 1 twice"),
        ([*MEMBERS, "member: 3"], {}, "expected a member below 3, the number of models, found 3"),
        (["terms: delta"], {}, "expected two members or more, .* found 1: their spread would be no number"),
        (["terms: delta"], {"committee": PARSE}, r"that report committee_pot, which .*, found none"),
        (
            ["terms: mm+low", "terms: delta"],
            {"committee": PARSE + BASELINE, "reported": ["committee_pot"]},
            r"that report committee_pot, committee_force, committee_virial, which .*, found committee_pot",
        ),
        (
            ["terms: mm+low", *MEMBERS],
            {"committee": BASELINE, "centred": False},
            r"<baseline_name>: expected delta\.offset, .* found none",
        ),
        (
            ["terms: mm+delta.embedding"],
            {"committee": PARSE, "reported": COMMITTEE_PROPERTIES},
            r"expected delta models as a whole, found delta\.embedding \+ mm of s0: .*",
        ),
    ],
)
def test_committees_that_are_refused(tmp_path, sockets, options, message):
    with pytest.raises(SetupError, match=rf"^input\.xml: <ffcommittee name='c'>: .*{message}"):
        checked(tmp_path, sockets, **options)


@pytest.mark.parametrize("text", ["member: -1", "member: one", "terms: delta, member: 1.5"])
def test_members_that_are_no_numbers(text):
    with pytest.raises(ValueError, match="member: expected the place of a delta model"):
        served_in_parameters(text)


def by_ipi(folder, name, run, steps=2):
    """Run an input of inputs/committee for few steps; the names of extras to read, by column."""
    shutil.copytree(ROOT / "inputs" / "committee", folder / "committee")
    (folder / "uracil-water").symlink_to(SOURCE)
    path = folder / "committee" / f"{name}.xml"
    text = path.read_text().replace("<total_steps>400", f"<total_steps>{steps}").replace("stride='5'", "")
    text = text.replace("<address>pidelta", f"<address>{unique_address()}")
    extra = "<trajectory filename='low' extra_type='baseline_pot'> extras </trajectory> </output>"
    path.write_text(text.replace("</output>", extra) if name == "baseline" else text)
    assert run("run", path) == 0
    return path.parent


@pytest.mark.slow
def test_a_weighted_baseline_by_ipi(tmp_path, run):
    """The energy is that of Imbalzano et al., J. Chem. Phys. 154, 074102 (2021)."""
    folder = by_ipi(tmp_path, "baseline", run)
    pot, weight, low, spread = (
        np.loadtxt(folder / f"baseline.{name}_0") for name in ("committee_pot", "weight", "low", "spread")
    )
    assert pot.shape == (3, 3)
    np.testing.assert_allclose(spread, pot.std(axis=1, ddof=1), rtol=1e-6)
    uncertainty = 0.15 / HARTREE_IN_EV
    np.testing.assert_allclose(weight, uncertainty**2 / (uncertainty**2 + spread**2), rtol=1e-5)
    potential = read_properties(folder / "baseline.out").atomic("potential")
    np.testing.assert_allclose(potential, low + weight * pot.mean(axis=1), rtol=1e-8)
    assert np.abs(pot).max() < 0.02


@pytest.mark.slow
def test_a_socket_for_each_member_by_ipi(tmp_path, run):
    """The same energies as one client gives of all members; reweighting is i-PI's."""
    folder = by_ipi(tmp_path, "members", run, steps=5)
    pot = np.loadtxt(folder / "members.committee_pot_0")
    setup = Setup(load_config(folder / "pidelta.yaml"))
    frames = [np.array(frame.positions) * ANGSTROM for frame in read(folder / "members.pos_0.xyz", ":")]
    cells = np.stack([setup.system.cell] * len(frames))
    found = setup.evaluator(frozenset({"delta"})).evaluate(np.stack(frames), cells)
    # i-PI writes positions with six digits, in a box of 30 angstrom.
    np.testing.assert_allclose(pot, found.properties["committee_pot"], atol=2e-5)

    command = [sys.executable, folder / "reweight.py", folder / "members"]
    subprocess.run(command, check=True, capture_output=True)
    reweight = Path(sys.executable).with_name("i-pi-committee-reweight")
    command = [sys.executable, reweight, folder / "members.committee_pot_0", folder / "members.bonds"]
    command += ["--kt", f"{300 / HARTREE_IN_KELVIN}"]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    rows = [line.split() for line in ended.stdout.splitlines() if line[0] != "#"]
    namespace = runpy.run_path(str(folder / "reweight.py"))
    own = [namespace["cumulant"](values, pot) for values in np.loadtxt(folder / "members.bonds").T]
    np.testing.assert_allclose(np.array(rows, dtype=float)[:, 2:], own, rtol=1e-6)
