"""Dispersion: DFTB+'s own D3 and D4, limits, derivatives, the engine contract, configurations and labels."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule
from ase.data import atomic_numbers

from conftest import ROOT
from dftb_sets import make_engine
from pidelta.cli.main import main
from pidelta.config import load_config
from pidelta.data.frames import Frame
from pidelta.data.store import FrameStore
from pidelta.errors import ConfigError, MissingExtraError, SettingError, SetupError
from pidelta.qm.dftb.sets import builtin_set
from pidelta.qm.dispersion import PUBLISHED_DAMPING, Damping, Dispersion, DispersionCorrected
from pidelta.qm.reference import label_frame
from pidelta.qm.reference_settings import ReferenceSettings
from pidelta.setup import Setup
from pidelta.testing.derivatives import central_differences
from pidelta.testing.engines import check_engine
from pidelta.units import ANGSTROM, HARTREE_IN_KCAL_PER_MOL

pytest.importorskip("dftd3")
pytest.importorskip("dftd4")

REFERENCE = json.loads((ROOT / "tests" / "data" / "dispersion-dftbplus-25.1.json").read_text())
BENZENE_DIMER = REFERENCE["records"][0]


def atoms_of(record):
    return np.array([atomic_numbers[symbol] for symbol in record["symbols"]]), np.array(record["positions"])


def dftb3(numbers, charge=0):
    files = builtin_set()[3]
    return make_engine(
        numbers,
        files.parameters(files.description.elements),
        order=3,
        hubbard_derivatives=files.description.hubbard_derivatives,
        damping_exponent=files.description.damping_exponent,
        charge=charge,
    )


@pytest.mark.parametrize("record", REFERENCE["records"], ids=lambda r: f"{r['name']}-{r['method']}")
def test_energies_and_gradients_of_dftbplus(record):
    """DFTB+ has a D3 and a D4 of its own; the charge matters to D4."""
    numbers, positions = atoms_of(record)
    published = PUBLISHED_DAMPING[record["method"]]["3ob"]
    assert vars(published) == REFERENCE["damping"][record["method"]]
    dispersion = Dispersion(numbers, record["method"], published, record["charge"])
    energy, gradient = dispersion.evaluate(positions[None])
    assert energy[0] == pytest.approx(record["energy"], abs=1e-9)
    np.testing.assert_allclose(gradient[0], record["gradient"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", ["d3bj", "d4"])
def test_published_parameters_are_those_of_the_packages(method):
    """By their own names; D3 of 3ob is another fit there, that for zeta = 4.2."""
    numbers, positions = atoms_of(BENZENE_DIMER)
    if method == "d3bj":
        interface = importlib.import_module("dftd3.interface")
        others = {"bp86": "bp", "wb97x_v": "wb97x", "wb97m_v": "wb97m"}
        named = {name: others.get(name, name) for name in PUBLISHED_DAMPING["d3bj"] if name != "3ob"}
        load = interface.RationalDampingParam
    else:
        interface = importlib.import_module("dftd4.interface")
        sets = ("3ob", "mio", "matsci", "pbc")
        named = {name: f"dftb({name})" if name in sets else name for name in PUBLISHED_DAMPING["d4"]}
        load = interface.DampingParam
    model = interface.DispersionModel(numbers, positions)
    for name, package_name in named.items():
        expected = model.get_dispersion(load(method=package_name, atm=method == "d4"), grad=False)["energy"]
        found, _ = Dispersion(numbers, method, PUBLISHED_DAMPING[method][name]).evaluate(positions[None])
        assert found[0] == pytest.approx(float(expected), rel=1e-12), name


@pytest.mark.parametrize("method", ["d3bj", "d4"])
def test_far_argon_atoms(method):
    """Far apart the energy is -C6/R^6: 64.3 hartree bohr^6 by experiment (Kumar, Meath, 1985)."""
    dispersion = Dispersion(np.array([18, 18]), method, Damping(s8=0.0, a1=0.4, a2=4.5))
    distances = np.array([30.0, 40.0])
    positions = distances[:, None, None] * np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    energies, gradients = dispersion.evaluate(positions)
    coefficients = -energies * distances**6
    np.testing.assert_allclose(coefficients, 64.3, rtol=0.03)
    np.testing.assert_allclose(gradients[:, 1, 2], 6.0 * coefficients / distances**7, rtol=1e-3)


@pytest.mark.parametrize("method", ["d3bj", "d4"])
def test_gradient_is_the_derivative(method):
    numbers, positions = atoms_of(REFERENCE["records"][2])
    dispersion = Dispersion(numbers, method, replace(PUBLISHED_DAMPING[method]["b3lyp"], s9=1.0), -1)
    numerical = central_differences(lambda p: dispersion.evaluate(p)[0], positions, np.arange(len(numbers)))
    np.testing.assert_allclose(dispersion.evaluate(positions[None])[1][0], numerical, rtol=0, atol=1e-8)


@pytest.mark.parametrize("method", ["d3bj", "d4"])
def test_engine_contract(method):
    atoms = molecule("CH3COOH")
    positions = atoms.positions * ANGSTROM + np.random.default_rng(0).normal(0.0, 0.05, (len(atoms), 3))

    def make(numbers):
        dispersion = Dispersion(numbers, method, PUBLISHED_DAMPING[method]["b3lyp"])
        return DispersionCorrected(dftb3(numbers), dispersion)

    check_engine(make, atoms.numbers.astype(np.int64), positions)


def test_it_is_added_once():
    numbers, positions = atoms_of(BENZENE_DIMER)
    plain, dispersion = dftb3(numbers), Dispersion(numbers, "d3bj", PUBLISHED_DAMPING["d3bj"]["b3lyp"])
    batch = np.stack([positions, 1.05 * positions])
    potential = np.random.default_rng(0).normal(0.0, 0.01, batch.shape[:2])
    corrected = DispersionCorrected(plain, dispersion).evaluate(batch, potential)
    bare = plain.evaluate(batch, potential)
    np.testing.assert_allclose(corrected.energy - bare.energy, dispersion.evaluate(batch)[0], atol=1e-9)
    np.testing.assert_allclose(corrected.charges, bare.charges, rtol=0, atol=1e-8)
    assert (corrected.energy - bare.energy)[0] * HARTREE_IN_KCAL_PER_MOL < -5.0


def write(tmp_path, dftb, symbols="N2"):
    atoms = molecule(symbols)
    atoms.write(tmp_path / "m.xyz", format="xyz")
    path = tmp_path / "m.yaml"
    path.write_text(f"structure: m.xyz\nqm: {{dftb: {{{dftb}}}}}\n")
    return path


@pytest.mark.parametrize(
    ("dispersion", "named"),
    [
        ("d3bj", "D3(BJ) s6=1 s8=1.9889 s9=0 a1=0.3981 a2=4.4211"),
        ("d4", "D4 s6=1 s8=2.02929 s9=1 a1=0.40868 a2=4.53807"),
        ("{method: d4, damping: 3ob}", "D4 s6=1 s8=0.663501 s9=1 a1=0.552324 a2=4.35371"),
        ("{method: d3bj, damping: {s8: 1, a1: 0.5, a2: 4}}", "D3(BJ) s6=1 s8=1 s9=0 a1=0.5 a2=4"),
        ("{method: d4, damping: {s8: 1, a1: 0.5, a2: 4}}", "D4 s6=1 s8=1 s9=1 a1=0.5 a2=4"),
        ("{method: d4, damping: {s8: 1, s9: 0, a1: 0.5, a2: 4}}", "D4 s6=1 s8=1 s9=0 a1=0.5 a2=4"),
    ],
)
def test_configured_dispersion_is_part_of_the_identity(tmp_path, dispersion, named):
    plain = Setup(load_config(write(tmp_path, "dispersion: none"))).engine.identity
    identity = Setup(load_config(write(tmp_path, f"dispersion: {dispersion}"))).engine.identity
    assert identity == f"{plain} + {named}"


@pytest.mark.parametrize(
    ("dispersion", "message"),
    [
        ("d2", "qm.dftb.dispersion: input should be 'none', 'd3bj' or 'd4', found 'd2'"),
        ("{method: d3bj, damping: mio}", "qm.dftb.dispersion.damping: expected s8, a1 and a2, or one of 3ob"),
        ("{method: d3bj, damping: {s8: 1, a1: 1}}", "missing key qm.dftb.dispersion.damping.a2"),
        ("{damping: 3ob}", "missing key qm.dftb.dispersion.method"),
    ],
)
def test_wrong_dispersion_is_explained_in_one_line(tmp_path, dispersion, message):
    with pytest.raises(ConfigError) as error:
        Setup(load_config(write(tmp_path, f"dispersion: {dispersion}"))).evaluator()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_folder_of_skf_files_needs_a_name(tmp_path):
    from made_up_set import write_made_up_set

    write_made_up_set(tmp_path / "slako", 2)
    with pytest.raises(ConfigError, match=r"damping: expected .* published for D3\(BJ\), found none"):
        Setup(load_config(write(tmp_path, "parameters: slako, dispersion: d3bj", "CH4"))).evaluator()
    config = load_config(write(tmp_path, "parameters: slako, dispersion: {method: d4, damping: mio}", "CH4"))
    assert "D4 s6=1 s8=1.29162" in Setup(config).engine.identity


def test_missing_package_and_element(monkeypatch):
    with pytest.raises(SetupError, match=r"D3\(BJ\) dispersion: expected elements up to Lr.* 104"):
        Dispersion(np.array([1, 104]), "d3bj", PUBLISHED_DAMPING["d3bj"]["b3lyp"])

    def without(name, *arguments):
        raise ImportError(name)

    settings = ReferenceSettings(dispersion="d3bj")
    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingExtraError, match=r"D3\(BJ\) dispersion needs .* dftd3"):
        _ = settings.method
    with pytest.raises(MissingExtraError, match=r"D4 dispersion needs .* dftd4: pip install 'pidelta\[disp"):
        Dispersion(np.array([1]), "d4", PUBLISHED_DAMPING["d4"]["b3lyp"])


def test_builtin_set_goes_with_the_published_dispersion_of_b3lyp():
    """So that D4 may take B3LYP's parameters, too."""
    for files in builtin_set().values():
        assert "B3LYP" in files.description.reference
        assert Damping(**files.description.dispersion.model_dump()) == PUBLISHED_DAMPING["d3bj"]["b3lyp"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_dft_labels_with_dispersion():
    pytest.importorskip("pyscf")
    frame = Frame(
        numbers=np.array([10, 10]),
        positions=np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 6.0]]),
        site_positions=np.zeros((0, 3)),
        site_charges=np.zeros(0),
        site_numbers=np.zeros(0, int),
        source="made up",
    )
    plain = ReferenceSettings(xc="PBE", basis="STO-3G", grid_level=0)
    settings = replace(plain, dispersion="d3bj")
    energy, gradient = Dispersion(frame.numbers, "d3bj", PUBLISHED_DAMPING["d3bj"]["pbe"]).evaluate(
        frame.positions[None]
    )
    bare, full = label_frame(frame, plain), label_frame(frame, settings)
    assert full.energy - bare.energy == pytest.approx(energy[0], abs=1e-8)
    np.testing.assert_allclose(full.gradient - bare.gradient, gradient[0], atol=1e-7)
    assert energy[0] < -1e-5
    assert "PBE-D3(BJ)/STO-3G" in full.method
    assert "D3" not in bare.method
    with pytest.raises(SettingError, match=r"dispersion: found no published D3\(BJ\) parameters for SVWN"):
        label_frame(frame, replace(settings, xc="SVWN"))


def test_label_command_knows_no_other_dispersion(tmp_path, monkeypatch, capsys):
    none = np.zeros((0, 3))
    with FrameStore(tmp_path / "f.h5", "a") as store:
        store.append(
            Frame(np.array([1, 1]), 1.4 * np.eye(3)[:2], none, none[:, 0], none[:, 0].astype(int), 0, 1)
        )
    monkeypatch.setattr(sys, "argv", ["pidelta", "label", str(tmp_path / "f.h5"), "--dispersion", "d2"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == "pidelta: --dispersion: expected none, d3bj or d4, found 'd2'\n"
