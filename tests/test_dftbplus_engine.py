"""DFTB+ as the engine, through its library (conda-forge: dftbplus, dftbplus-python)."""

from __future__ import annotations

import gc
import importlib.util
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule as ase_molecule

from conftest import ROOT
from dftb_sets import (
    PUBLISHED_FOLDERS,
    PUBLISHED_SETTINGS,
    RECORDS,
    builtin,
    find_record,
    make_engine,
    make_settings,
    molecule,
    published,
    published_engine,
    published_records,
    published_sets,
    record_name,
    record_settings,
)
from made_up_set import pair_file, write_made_up_set
from pidelta.config import load_config
from pidelta.errors import GeometryError, SCCConvergenceError, SetupError
from pidelta.parametrisation.writer import write_skf
from pidelta.qm.dftb import sets
from pidelta.qm.dftb.parameters import load_parameters
from pidelta.qm.dftbplus import engine as dftbplus_engine
from pidelta.qm.dftbplus.engine import DFTBPlusEngine
from pidelta.qmmm.pme_coupling import PMECoupling
from pidelta.setup import Setup
from pidelta.testing.engines import check_engine

pytestmark = [
    pytest.mark.dftbplus,
    pytest.mark.skipif(importlib.util.find_spec("dftbplus") is None, reason="needs the module dftbplus"),
]


def of_published_set(record):
    """DFTB+ as the engine and the built-in engine, with the set of a record."""
    numbers, _ = molecule(record)
    settings = {**PUBLISHED_SETTINGS[record["model"]], "charge": record["charge"]}
    folder = PUBLISHED_FOLDERS[record["model"]]
    theirs = DFTBPlusEngine(numbers, published(record["model"]), folder, make_settings(**settings))
    return theirs, published_engine(record["model"], numbers, charge=record["charge"])


def of_builtin_set(record, numbers, **settings):
    settings = make_settings(**{**record_settings(record), **settings})
    return DFTBPlusEngine(numbers, builtin(record["order"])[1], sets.builtin_set()[record["order"]], settings)


@pytest.fixture
def quick(monkeypatch):
    """Without another process that sets DFTB+ up first, to save time."""
    monkeypatch.setattr(dftbplus_engine, "rehearse", lambda *_: None)


@pytest.fixture
def acetamide(tmp_path):
    """Builds the engine of a configuration of acetamide, with the built-in parameters."""
    atoms = ase_molecule("CH3CONH2")
    atoms.positions += np.random.default_rng(1).normal(scale=0.05, size=atoms.positions.shape)
    atoms.write(tmp_path / "in.xyz")

    def build(qm):
        path = tmp_path / "pidelta.yaml"
        path.write_text(f"structure: in.xyz\nqm: {qm}\n")
        config = load_config(path)
        return Setup(config).engine, Setup(config).evaluator(), atoms.positions[None] / 0.529177210903

    return build


def compare(theirs, ours, record):
    """In the potential of the record's point charges."""
    _, positions = molecule(record)
    charges = np.array(record.get("mm_charges", []))
    mm_positions = np.array(record.get("mm_positions", [])).reshape(-1, 3)
    potential = (charges / np.linalg.norm(positions[:, None] - mm_positions, axis=-1)).sum(1)
    expected = ours.evaluate(positions[None], potential[None])
    found = theirs.evaluate(positions[None], potential[None])
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.charges, expected.charges, rtol=0, atol=1e-7)
    return found


# Without dispersion, which is added to both engines alike; with one U of each element, shells change nothing.
CLOSED_SHELLS = [
    record
    for record in RECORDS
    if record["dispersion"] == "none" and record["multiplicity"] == 1 and not record["temperature"]
]


@pytest.mark.parametrize("record", CLOSED_SHELLS, ids=record_name)
def test_agrees_with_the_builtin_engine(record, quick):
    numbers, _ = molecule(record)
    ours = make_engine(numbers, builtin(record["order"])[1], **record_settings(record))
    found = compare(of_builtin_set(record, numbers), ours, record)
    np.testing.assert_allclose(found.charges[0], record["charges"], rtol=0, atol=1e-7)


@published_sets
@pytest.mark.parametrize("record", published_records(), ids=record_name)
def test_agrees_with_published_sets(record, quick):
    found = compare(*of_published_set(record), record)
    np.testing.assert_allclose(found.charges[0], record["mulliken"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "order"), [("CC(=O)O", 3), ("CC(N)=O", 2), ("CS", 3)])
def test_engine_contract(name, order, quick):
    record = find_record(name, order)
    numbers, positions = molecule(record)
    check_engine(lambda n: of_builtin_set(record, n, tolerance=1e-10), numbers, positions)


@pytest.mark.parametrize("order", [2, 3])
def test_builtin_parameters_and_coulomb_correction(acetamide, order):
    rng = np.random.default_rng(2)
    theirs, _, positions = acetamide(f"{{engine: dftb+, dftb: {{order: {order}}}}}")
    ours, _, _ = acetamide(f"{{dftb: {{order: {order}}}}}")
    assert theirs.identity == ours.identity
    batch = positions + rng.normal(0.0, 0.05, (3, *positions.shape[1:]))
    potential = rng.normal(0.0, 0.02, batch.shape[:2])
    correction = rng.normal(0.0, 0.02, (3, 9, 9))
    correction = correction + correction.transpose(0, 2, 1)
    expected = ours.evaluate(batch, potential, correction)
    found = theirs.evaluate(batch, potential, correction)
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.charges, expected.charges, rtol=0, atol=1e-7)


@pytest.mark.parametrize("shell_resolved", ["false", "true"])
def test_open_shells_and_shell_resolved_charges(acetamide, shell_resolved):
    constants = (
        "{H: -0.07, C: [[-0.031, -0.025], [-0.025, -0.023]], N: -0.03, O: [[-0.035, -0.03], [-0.03, -0.028]]}"
    )
    dftb = (
        f"dftb: {{spin_constants: {constants}, shell_resolved: {shell_resolved}, scc: {{tolerance: 1.0e-9}}}}"
    )
    ours, _, positions = acetamide(f"{{charge: 1, multiplicity: 2, {dftb}}}")
    theirs, _, _ = acetamide(f"{{engine: dftb+, charge: 1, multiplicity: 2, {dftb}}}")
    assert theirs.identity == ours.identity
    potential = np.random.default_rng(3).normal(0.0, 0.02, positions.shape[:2])
    expected, found = ours.evaluate(positions, potential), theirs.evaluate(positions, potential)
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.charges, expected.charges, rtol=0, atol=1e-6)


@pytest.mark.parametrize("more", ["", ", spin_polarised: false"])
def test_fermi_filling(acetamide, more):
    qm = f"dftb: {{electronic_temperature: 6000 K{more}}}"
    if more:
        qm += ", charge: 1, multiplicity: 2"
    ours, _, positions = acetamide(f"{{{qm}}}")
    theirs, _, _ = acetamide(f"{{engine: dftb+, {qm}}}")
    assert theirs.identity == ours.identity
    # A broken bond, so that the gap is small.
    positions = positions * np.array([1.0, 1.0, 1.4])
    potential = np.zeros(positions.shape[:2])
    expected, found = ours.evaluate(positions, potential), theirs.evaluate(positions, potential)
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=0, atol=1e-6)


def test_engines_take_turns_with_the_library(acetamide):
    """The library takes one set-up at a time."""
    neutral, _, positions = acetamide("{engine: dftb+}")
    anion, _, _ = acetamide("{engine: dftb+, charge: -2}")
    potential = np.zeros(positions.shape[:2])
    first = neutral.evaluate(positions, potential)
    assert anion.evaluate(positions, potential).charges.sum() == pytest.approx(-2.0)
    assert neutral.evaluate(positions, potential).energy[0] == pytest.approx(first.energy[0], abs=1e-12)


def test_no_files_and_no_output(acetamide, tmp_path, monkeypatch, capfd):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    engine, _, positions = acetamide("{engine: dftb+}")
    folder = engine._session._hsd.parent
    before = sorted(folder.rglob("*"))
    for step in range(3):
        engine.evaluate(positions + 0.01 * step * positions, np.zeros(positions.shape[:2]))
    assert sorted(folder.rglob("*")) == sorted([*before, folder / "dftb+.log"])
    assert Path.cwd() == work
    assert list(work.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    del engine
    gc.collect()
    assert not folder.exists()


_STOP = """
import sys
from pathlib import Path
import numpy as np
from pidelta.setup import Setup
from pidelta.config import load_config
engine = Setup(load_config(Path(sys.argv[1]))).engine
print(engine._session._hsd.parent)
sys.stdout.flush()
engine._builtin.check_geometry = lambda positions: None
engine.evaluate(np.zeros((1, 2, 3)), np.zeros((1, 2)))
"""


def test_a_stop_of_the_library_is_explained(tmp_path):
    """It ends the process; what pidelta checks beforehand is turned off to make it do so."""
    (tmp_path / "hydrogen.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.75\n")
    config = tmp_path / "pidelta.yaml"
    config.write_text("structure: hydrogen.xyz\nqm: {engine: dftb+}\n")
    ended = subprocess.run(
        [sys.executable, "-c", _STOP, str(config)], capture_output=True, text=True, check=False
    )
    assert ended.returncode
    assert "pidelta: DFTB+ stopped: Atoms 2 and 1 too close together\n" in ended.stderr
    assert not Path(ended.stdout.strip()).exists()


def test_charges_that_do_not_converge(acetamide):
    engine, _, positions = acetamide("{engine: dftb+, dftb: {scc: {max_iterations: 3}}}")
    with pytest.raises(SCCConvergenceError, match="in 3 iterations") as error:
        engine.evaluate(positions, np.zeros(positions.shape[:2]))
    assert error.value.last_change > 1e-4


def test_geometries_that_would_stop_the_library(acetamide):
    engine, evaluator, positions = acetamide("{engine: dftb+}")
    potential = np.zeros(positions.shape[:2])
    coinciding, missing = positions.copy(), positions.copy()
    coinciding[0, 1] = positions[0, 0] + [0.0, 0.0, 0.05]
    missing[0, 3, 0] = np.nan
    for expected, geometry in (("at least 0.1 bohr", coinciding), ("finite", missing)):
        with pytest.raises(GeometryError, match=f"structure 0, atom .* expected {expected}"):
            engine.evaluate(geometry, potential)
    with pytest.raises(GeometryError, match="expected a finite potential"):
        engine.evaluate(positions, potential + np.inf)
    assert np.isfinite(evaluator.evaluate(positions, None).energy).all()


def test_overlap_that_would_stop_the_library(tmp_path, quick):
    """Two hydrogens with an overlap above 1."""
    folder = write_made_up_set(tmp_path / "set", 2)
    file = pair_file("H", "H", stiffness=0.2)
    write_skf(folder / "H-H.skf", replace(file, overlap=3.0 * file.overlap), 1.008, ["made up"])
    method = DFTBPlusEngine(np.array([1, 1]), load_parameters(folder, "H"), folder, make_settings())
    positions = np.array([[[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    with pytest.raises(GeometryError, match=r"atom 0 \(H\) and atom 1 \(H\): expected a positive definite"):
        method.evaluate(positions, np.zeros((1, 2)))


def test_a_users_input(acetamide, tmp_path):
    engine, _, positions = acetamide("{engine: dftb+, dftb: {order: 2}}")
    sets.export(sets.builtin_set()[2], tmp_path / "set")
    text = (tmp_path / "set" / "README").read_text().partition("For DFTB+:")[2].partition("\n}")[0]
    names = '"O" "C" "N" "H"'
    rows = "\n".join(f"{kind} 0 0 0" for kind in (1, 2, 3, 2, 4, 4, 4, 4, 4))
    head = f"Geometry {{\n TypeNames = {{ {names} }}\n TypesAndCoordinates {{\n{rows}\n}}\n}}\n{text}\n"
    head = head.replace('"./"', '"set/"')

    def build(keywords):
        (tmp_path / "dftb_in.hsd").write_text(f"{head}{keywords}\n}}\n")
        return acetamide("{engine: dftb+, dftb: {order: 2}, dftbplus: {input: dftb_in.hsd}}")[0]

    potential = np.zeros(positions.shape[:2])
    expected = engine.evaluate(positions, potential)
    mixed = build("Mixer = Anderson {\n MixingParameter = 0.1\n}")
    assert mixed.identity == engine.identity
    found = mixed.evaluate(positions, potential)
    assert found.energy[0] == pytest.approx(expected.energy[0], abs=1e-10)
    assert found.properties["scc_iterations"][0] > expected.properties["scc_iterations"][0]
    other = build("ForceEvaluation = Dynamics")
    assert other.identity.startswith(f"{engine.identity} DFTB+input=")
    with pytest.raises(SetupError, match=r"DFTB\+ stopped at its set-up: .*Hamiltonian/DFTB/Wrong"):
        build("Wrong = 3")


def test_the_ewald_sum_of_a_cell_reaches_both_engines_alike(tmp_path, quick):
    """Uracil in water, by default in the Ewald potential of the whole cell and of its own images."""
    for name in ("uracil-water.gro", "uracil-water.top"):
        shutil.copy(ROOT / "inputs" / "uracil-water" / name, tmp_path)
    found = {}
    for engine in ("dftb", "dftb+"):
        path = tmp_path / "pidelta.yaml"
        path.write_text(
            f"structure: uracil-water.gro\nqm: {{atoms: resname URA, engine: {engine}}}\n"
            "mm: {topology: uracil-water.top}\n",
            encoding="utf-8",
        )
        setup = Setup(load_config(path))
        assert isinstance(setup.coupling, PMECoupling)
        positions, cells = (
            np.repeat(x[None], 2, axis=0) for x in (setup.system.positions, setup.system.cell)
        )
        positions[1] += np.random.default_rng(0).normal(scale=0.02, size=positions[1].shape)
        evaluation = setup.evaluator(frozenset({"low"})).evaluate(positions, cells)
        found[engine] = evaluation.terms["low"], evaluation.charges
    (ours, our_charges), (theirs, their_charges) = found["dftb"], found["dftb+"]
    np.testing.assert_allclose(theirs.energy, ours.energy, rtol=0, atol=1e-9)
    np.testing.assert_allclose(theirs.gradient, ours.gradient, rtol=0, atol=1e-7)
    np.testing.assert_allclose(their_charges, our_charges, rtol=0, atol=1e-7)
