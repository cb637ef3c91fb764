"""DFTB as a configuration chooses it: what is filled in, and one line for whatever is wrong."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from dftb_sets import make_engine
from made_up_set import DERIVATIVES, SPIN_CONSTANTS, write_made_up_set
from pidelta.cli.main import main
from pidelta.config import load_config
from pidelta.errors import SettingError
from pidelta.qm.dftb.method import DFTBMethod
from pidelta.qm.dftb.parameters import PUBLISHED_HUBBARD_DERIVATIVES, load_parameters
from pidelta.qm.dftb.sets import builtin_set
from pidelta.qm.dftb.settings import DFTBSettings, SCCSettings
from pidelta.setup import Setup
from pidelta.units import ANGSTROM, KELVIN

METHYL = np.array([[0.0, 0.0, 0.02], [1.08, 0.0, 0.0], [-0.54, 0.93, 0.0], [-0.53, -0.95, 0.01]])  # angstrom
NUMBERS = np.array([6, 1, 1, 1])
EMT = "ase: {calculator: ase.calculators.emt.EMT}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the methyl radical, and a set of .skf files for it."""
    write_made_up_set(tmp_path / "set", 3)
    atoms = (f"{s} {x} {y} {z}" for s, (x, y, z) in zip("CHHH", METHYL, strict=True))
    (tmp_path / "m.xyz").write_text("\n".join(["4", "", *atoms, ""]))
    return tmp_path


def configure(folder: Path, qm: str) -> Path:
    path = folder / "pidelta.yaml"
    path.write_text(f"structure: m.xyz\nqm: {{{qm}}}\n")
    return path


def test_every_setting_arrives(folder):
    """All that a configuration says, against the engine made from the same settings by hand."""
    dftb = (
        "parameters: set, order: 3, hubbard_derivatives: {H: -0.18, C: -0.14}, damping_exponent: 3.9, "
        "shell_resolved: false, spin_constants: {H: -0.07, C: [[-0.03, -0.02], [-0.02, -0.02]]}, "
        "electronic_temperature: 900 K, scc: {tolerance: 1.0e-11, max_iterations: 77, start: none}"
    )
    setup = Setup(load_config(configure(folder, f"charge: -1, multiplicity: 3, dftb: {{{dftb}}}")))
    by_hand = make_engine(
        NUMBERS,
        load_parameters(folder / "set", ["C", "H"]),
        order=3,
        hubbard_derivatives={"H": -0.18, "C": -0.14},
        damping_exponent=3.9,
        charge=-1,
        multiplicity=3,
        spin_constants={"H": -0.07, "C": [[-0.03, -0.02], [-0.02, -0.02]]},
        electronic_temperature=900.0 * KELVIN,
        tolerance=1e-11,
        start="none",
    )
    assert setup.engine.identity == by_hand.identity
    positions, potential = METHYL[None] * ANGSTROM, np.array([[0.01, -0.02, 0.0, 0.03]])
    found, expected = (engine.evaluate(positions, potential) for engine in (setup.engine, by_hand))
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=0, atol=1e-10)
    for name in setup.engine.properties:
        np.testing.assert_allclose(found.properties[name], expected.properties[name], atol=1e-8)


def test_what_the_built_in_set_brings():
    description = builtin_set()[3].description
    inputs = DFTBMethod(DFTBSettings(order=3)).inputs(NUMBERS)
    assert sorted(inputs.parameters.elements) == ["C", "H"]
    assert inputs.settings.hubbard_derivatives == description.hubbard_derivatives
    assert inputs.settings.damping_exponent == description.damping_exponent
    assert inputs.settings.spin_constants == description.spin_constants
    own = DFTBSettings(
        order=3, hubbard_derivatives=DERIVATIVES, damping_exponent=3.0, spin_constants=SPIN_CONSTANTS
    )
    assert DFTBMethod(own).inputs(NUMBERS).settings == own


def test_what_a_published_set_brings(folder):
    """Its Hubbard derivatives always, its damping exponent unless another is given; no spin constants."""
    named = DFTBMethod(DFTBSettings(order=3), folder / "set", published="3ob").inputs(NUMBERS)
    assert named.settings.hubbard_derivatives == PUBLISHED_HUBBARD_DERIVATIVES["3ob"]
    assert named.settings.damping_exponent == 4.0
    assert named.settings.spin_constants is None
    own = DFTBMethod(DFTBSettings(order=3, damping_exponent=4.2), folder / "set", published="3ob")
    assert own.inputs(NUMBERS).settings.damping_exponent == 4.2


@pytest.mark.parametrize(
    ("qm", "message"),
    [
        ("charge: 0", "qm.multiplicity: expected 2, 4, 6, 8 with the 7 valence electrons that a charge of 0"),
        (
            "charge: 7",
            "qm.charge: expected one that leaves 1 to 14 valence electrons, found 7, which leaves 0",
        ),
        ("charge: 9", "qm.charge: expected one that leaves 1 to 14 .* found 9, which leaves -2"),
        ("charge: -8", "qm.charge: .* found -8, which leaves 15"),
        ("charge: 0.5", "qm.charge: input should be a valid integer, found 0.5"),
        ("charge: true", "qm.charge: input should be a valid integer, found True"),
        ("charge: 1 e", "qm.charge: input should be a valid integer, found '1 e'"),
        ("multiplicity: 0", "qm.multiplicity: input should be greater than or equal to 1, found 0"),
        ("multiplicity: 3", "qm.multiplicity: expected 2, 4, 6, 8 with the 7 .* found 3"),
        ("multiplicity: 10", "qm.multiplicity: expected 2, 4, 6, 8 with the 7 .* found 10"),
        ("properties: [gap, colour], multiplicity: 2", "qm.properties: expected some of .*found 'colour'"),
        (
            "multiplicity: 2, dftb: {spin_polarised: false}",
            "qm.dftb.spin_polarised: false with a multiplicity of 2 needs an electronic temperature above 0",
        ),
        (
            "multiplicity: 2, dftb: {parameters: set, order: 2}",
            "qm.dftb.spin_constants: expected those of every element with a multiplicity above 1, found none",
        ),
        (
            "multiplicity: 2, dftb: {spin_constants: {H: -0.07, C: [[-0.03]]}}",
            r"qm.dftb.spin_constants.C: expected a number or a symmetric 2 x 2 matrix",
        ),
        (
            "charge: 1, dftb: {spin_constants: {h: -0.07}}",
            "qm.dftb.spin_constants: expected symbols of elements, such as H or Cl, found 'h'",
        ),
        (
            "charge: 1, dftb: {hubbard_derivatives: {H: -0.18, C: -0.14, carbon: -0.14}}",
            "qm.dftb.hubbard_derivatives: expected symbols of elements, such as H or Cl, found 'carbon'",
        ),
        (
            "charge: 1, dftb: {hubbard_derivatives: {H: -0.18}}",
            "qm.dftb.hubbard_derivatives: expected that of every element with order 3, found none for C",
        ),
        (
            "multiplicity: 2, dftb: {spin_constants: {H: -0.07, C: [[-0.03, x], [-0.02, -0.02]]}}",
            "qm.dftb.spin_constants.C.0.1: input should be a valid number, .* found 'x'",
        ),
        (
            "charge: 1, dftb: {hubbard_derivatives: {H: .nan, C: -0.14}}",
            "qm.dftb.hubbard_derivatives.H: input should be a finite number",
        ),
        (
            "dftb: {hubbard_derivatives: 3OB}",
            "qm.dftb.hubbard_derivatives: expected values or 3ob, found '3OB'",
        ),
        ("dftb: {damping_exponent: .inf}", "qm.dftb.damping_exponent: input should be a finite number"),
        ("dftb: {scc: {tolerance: .inf}}", "qm.dftb.scc.tolerance: input should be a finite number"),
        ("dftb: {scc: {max_iterations: 1.5}}", "qm.dftb.scc.max_iterations: input should be a valid integer"),
        (
            "dftb: {electronic_temperature: 300}",
            r"qm.dftb.electronic_temperature: expected a temperature with its unit \(K, .*\), found 300",
        ),
        (
            "dftb: {electronic_temperature: 27 C}",
            "expected a temperature in one of K, hartree, eV, found '27 C'",
        ),
        ("dftb: {electronic_temperature: 1e999 K}", "expected a finite temperature, found '1e999 K'"),
        ("dftb: {electronic_temperature: -1 K}", "input should be greater than or equal to 0"),
        ("dftb: {ordr: 3}", "unknown key qm.dftb.ordr"),
        ("dftb: 3", "qm.dftb: expected keys and values, found 3"),
        ("dftb: {device: gpu}", "qm.dftb.device: input should be 'cpu' or 'cuda', found 'gpu'"),
        ("dftb: {parameters: nowhere}", "nowhere: expected a folder of .skf files, found none"),
        ("dftb: {parameters: m.xyz}", "m.xyz: expected a folder of .skf files, found none"),
        (
            f"engine: ase, {EMT}",
            "qm.multiplicity: expected an even number of 10 at most with the 9 electrons",
        ),
        (f"engine: ase, multiplicity: 12, {EMT}", "qm.multiplicity: expected an even number of 10 at most"),
        (f"engine: ase, charge: 10, {EMT}", "qm.charge: expected at most the charge of the nuclei, found 10"),
        (
            "engine: ase, charge: 1, ase: {calculator: EMT}",
            "qm.ase.calculator: expected a class with its module",
        ),
        (
            "engine: ase, charge: 1, ase: {calculator: ase.calculators.emt.EMT, options: {charge: 2}}",
            "qm.ase.options.charge: expected 1, the charge of the QM region, found 2",
        ),
        ("engine: DFTB", "qm.engine: expected one of dftb, dftb\\+, ase, none, found DFTB"),
    ],
)
def test_mistakes_are_one_line(folder, qm, message, monkeypatch, capsys):
    """As `pidelta check` prints them, with the key of the configuration."""
    monkeypatch.setattr(sys, "argv", ["pidelta", "check", str(configure(folder, qm))])
    with pytest.raises(SystemExit, match="2"):
        main()
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1, error
    assert re.search(message, error), error


def test_a_pair_that_the_folder_lacks(folder, monkeypatch, capsys):
    (folder / "set" / "C-H.skf").rename(folder / "set" / "c-H.skf")
    path = configure(folder, "charge: 1, dftb: {parameters: set}")
    monkeypatch.setattr(sys, "argv", ["pidelta", "check", str(path)])
    for found in (
        "set: expected the file C-H.skf, found c-H.skf",
        "no parameters for the pair C-H: expected",
    ):
        with pytest.raises(SystemExit, match="2"):
            main()
        assert found in capsys.readouterr().err
        (folder / "set" / "c-H.skf").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DFTBSettings(order=4), "order: expected 2 or 3, found 4"),
        (lambda: DFTBSettings(damping_exponent=0.0), "damping_exponent: expected a finite number above 0"),
        (lambda: DFTBSettings(electronic_temperature=float("nan")), "electronic_temperature: expected"),
        (lambda: SCCSettings(tolerance=float("inf")), "scc.tolerance: expected a finite number above 0"),
        (lambda: SCCSettings(max_iterations=0), "scc.max_iterations: expected 1 or more, found 0"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(SettingError, match=message):
        make()
