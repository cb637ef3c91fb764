"""Spin polarisation and shell-resolved charges: DFTB+ 25.1, closed formulas, the engine contract, errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.data import atomic_numbers

import made_up_set
from dftb_sets import PUBLISHED_FOLDERS, engine, make_engine, published_sets
from pidelta.errors import ParameterError, SetupError
from pidelta.qm.dftb import engine as engine_module
from pidelta.qm.dftb.engine import DFTBEngine
from pidelta.qm.dftb.parameters import PUBLISHED_HUBBARD_DERIVATIVES, ParameterSet, load_parameters
from pidelta.testing.engines import check_charges, check_engine, check_gradient

RECORDS = json.loads((Path(__file__).parent / "data" / "dftbplus-spin.json").read_text())["records"]
SHELL_U = {"H": np.array([0.42]), "C": np.array([0.36, 0.31])}
MADE_UP_W = {"H": [[-0.07]], "C": [[-0.03, -0.02], [-0.02, -0.025]]}
CH2 = (np.array([6, 1, 1]), np.array([[0.0, 0.1, 0.2], [1.7, 0.0, 0.9], [-1.8, 0.0, 1.0]]))
WATER = (np.array([8, 1, 1]), np.array([[0.0, 0.0, 0.1], [0.0, 1.45, 1.2], [0.1, -1.4, 1.25]]))
HO2 = (np.array([8, 8, 1]), np.array([[0.0, 0.0, 0.0], [0.1, 2.5, 0.0], [1.7, -0.6, 0.1]]))


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")

    def load(order: int) -> ParameterSet:
        path = folder / str(order)
        return load_parameters(path if path.exists() else made_up_set.write_made_up_set(path, order), "CH")

    return load


def with_shell_u(parameters: ParameterSet) -> ParameterSet:
    elements = {s: replace(e, hubbard_u=SHELL_U[s]) for s, e in parameters.elements.items()}
    return replace(parameters, elements=elements)


def reference_engine(record: dict[str, Any], made_up: Any) -> DFTBEngine:
    order = record["order"]
    if record["set"] == "made-up":
        parameters = with_shell_u(made_up(order)) if record["shell_resolved"] else made_up(order)
        derivatives, zeta = made_up_set.DERIVATIVES, 4.2
    else:
        folder = PUBLISHED_FOLDERS[{"mio": "dftb2-mio", "3ob": "dftb3-3ob"}[record["set"]]]
        parameters = load_parameters(folder, record["symbols"])
        derivatives, zeta = PUBLISHED_HUBBARD_DERIVATIVES["3ob"], 4.0
    names = ("order", "shell_resolved", "charge", "multiplicity", "spin_constants", "electronic_temperature")
    numbers = np.array([atomic_numbers[symbol] for symbol in record["symbols"]])
    return make_engine(
        numbers,
        parameters,
        hubbard_derivatives=derivatives if order == 3 else None,
        damping_exponent=zeta if order == 3 else None,
        spin_polarised=record.get("spin_polarised", True),
        **{name: record[name] for name in names},
    )


def name(record: dict[str, Any]) -> str:
    shells = " shells" if record["shell_resolved"] else ""
    charges = " charges" if record["mm_charges"] else ""
    warm = " warm" if record["electronic_temperature"] else ""
    spin = f"multiplicity {record['multiplicity']}"
    spin += "" if record.get("spin_polarised", True) else " unpolarised"
    return f"{record['set']} {record['order']} {record['name']} {spin}{shells}{charges}{warm}"


@pytest.mark.parametrize(
    "record",
    [pytest.param(r, id=name(r), marks=[] if r["set"] == "made-up" else published_sets) for r in RECORDS],
)
def test_agrees_with_dftbplus(record, made_up):
    positions = np.array(record["positions"])
    mm_positions, mm_charges = np.array(record["mm_positions"]).reshape(-1, 3), np.array(record["mm_charges"])
    vectors = positions[:, None] - mm_positions
    distances = np.linalg.norm(vectors, axis=-1)
    result = reference_engine(record, made_up).evaluate(
        positions[None], (mm_charges / distances).sum(1)[None]
    )
    charges = result.charges[0]
    pair = -(charges[:, None] * mm_charges / distances**3)[..., None] * vectors

    assert result.energy[0] == pytest.approx(record["energy"], abs=1e-10)
    np.testing.assert_allclose(result.gradient[0] + pair.sum(1), record["gradient"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(charges, record["charges"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(
        result.properties["orbital_energies"][0], record["orbital_energies"], rtol=0, atol=1e-8
    )
    expected = record.get("spin_populations", np.zeros(len(positions)))
    np.testing.assert_allclose(result.properties["spin_populations"][0], expected, rtol=0, atol=1e-6)
    assert not result.properties["scc_fallbacks"].any()
    if len(mm_charges):
        np.testing.assert_allclose(-pair.sum(0), record["mm_gradient"], rtol=0, atol=1e-8)


@pytest.mark.parametrize("order", [2, 3])
def test_contract_with_a_u_for_each_shell(order, monkeypatch):
    """The built-in set has one U for each element, so other values are put in."""
    numbers = np.array([6, 8, 1, 1])
    positions = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 2.3], [1.8, 0.3, -1.1], [-1.7, 0.2, -1.2]])
    build = engine_module.build_basis

    def other_u(numbers, parameters):
        basis = build(numbers, parameters)
        elements = [replace(e, hubbard_u=e.hubbard_u - 0.04 * np.arange(e.l_max + 1)) for e in basis.elements]
        return replace(basis, elements=tuple(elements))

    monkeypatch.setattr(engine_module, "build_basis", other_u)
    check_engine(lambda n: engine(n, order=order, shell_resolved=True), numbers, positions)


def test_free_energy_of_a_radical():
    numbers, positions = HO2
    method = engine(numbers, multiplicity=2, electronic_temperature=0.02)
    cold = engine(numbers, multiplicity=2)
    potential = np.array([0.02, -0.03, 0.01])
    check_gradient(method, positions, potential)
    check_charges(method, positions, potential)
    energies = [m.evaluate(positions[None], potential[None]).energy[0] for m in (method, cold)]
    assert energies[0] < energies[1] - 1e-5


def test_atoms(made_up):
    """E = sum of occupied onsite energies + 1/2 m W m: charges vanish."""
    s, p = made_up_set.ONSITE["C"][:2]
    w = MADE_UP_W["C"]
    expected = {
        (1, 2): made_up_set.ONSITE["H"][0] + 0.5 * MADE_UP_W["H"][0][0],
        (6, 3): 2 * s + 2 * p + 0.5 * 2 * w[1][1] * 2,
        (6, 5): s + 3 * p + 0.5 * (w[0][0] + 3 * w[0][1] + 3 * w[1][0] + 9 * w[1][1]),
    }
    for (number, multiplicity), energy in expected.items():
        method = make_engine(
            np.array([number]), made_up(2), multiplicity=multiplicity, spin_constants=MADE_UP_W
        )
        result = method.evaluate(np.zeros((1, 1, 3)), np.full((1, 1), 0.3))
        assert result.energy[0] == pytest.approx(energy, abs=1e-12)
        np.testing.assert_allclose(result.properties["spin_populations"], [[multiplicity - 1]], atol=1e-12)
        np.testing.assert_allclose(result.charges, 0.0, atol=1e-12)


@pytest.mark.parametrize("distance", [1.4, 2.5, 6.0, 12.0])
def test_triplet_hydrogen(distance, made_up):
    """Both orbitals hold one electron of spin up: E = 2 (eps - s h) / (1 - s^2) + W + repulsion."""
    numbers = np.array([1, 1])
    positions = np.array([[[0.0, 0.0, 0.0], [0.0, 0.0, distance]]])
    triplet = make_engine(numbers, made_up(2), multiplicity=3, spin_constants=MADE_UP_W)
    overlap = 0.4 * np.exp(-((distance / 2.5) ** 2)) if distance < 8.0 else 0.0
    hopping = -0.6 * overlap
    repulsion = 0.2 * max(0.0, 3.0 - distance) ** 3 if distance >= 2.0 else None
    bands = 2.0 * (made_up_set.ONSITE["H"][0] - overlap * hopping) / (1.0 - overlap**2)
    result = triplet.evaluate(positions, np.zeros((1, 2)))
    if repulsion is None:  # by the exponential head of the repulsive, which the singlet has as well
        singlet = make_engine(numbers, made_up(2)).evaluate(positions, np.zeros((1, 2))).energy[0]
        repulsion = singlet - 2.0 * (made_up_set.ONSITE["H"][0] + hopping) / (1.0 + overlap)
    assert result.energy[0] == pytest.approx(bands + MADE_UP_W["H"][0][0] + repulsion, abs=1e-7)


def test_two_equal_spins_are_a_closed_shell(monkeypatch):
    """The same molecule in two channels, W without effect: no magnetisation."""
    numbers, positions = WATER
    potential = np.array([[0.02, -0.01, 0.03]])
    closed = engine(numbers).evaluate(positions[None], potential)
    monkeypatch.setattr(engine_module, "filled_orbitals", lambda *_: (4, 4))
    open_shell = engine(numbers).evaluate(positions[None], potential)
    assert open_shell.energy[0] == pytest.approx(closed.energy[0], abs=1e-11)
    np.testing.assert_allclose(open_shell.gradient, closed.gradient, rtol=0, atol=1e-9)
    np.testing.assert_allclose(open_shell.charges, closed.charges, rtol=0, atol=1e-8)
    np.testing.assert_allclose(
        open_shell.properties["orbital_energies"][0, 1],
        closed.properties["orbital_energies"][0, 0],
        atol=1e-9,
    )


def test_far_apart_radicals_add_up():
    numbers, positions = HO2
    one = engine(numbers, multiplicity=2).evaluate(positions[None], np.zeros((1, 3)))
    both = engine(np.tile(numbers, 2), multiplicity=3).evaluate(
        np.concatenate((positions, positions + 3e4))[None], np.zeros((1, 6))
    )
    assert both.energy[0] == pytest.approx(2 * one.energy[0], abs=1e-9)
    np.testing.assert_allclose(
        both.properties["spin_populations"][0], np.tile(one.properties["spin_populations"][0], 2), atol=1e-7
    )


def test_one_u_for_all_shells_is_the_atom_resolved_energy():
    """The built-in set has one U for each element."""
    numbers, positions = WATER
    results = [
        engine(numbers, shell_resolved=shells).evaluate(positions[None], np.zeros((1, 3)))
        for shells in (False, True)
    ]
    assert results[1].energy[0] == pytest.approx(results[0].energy[0], abs=1e-11)
    np.testing.assert_allclose(results[1].gradient, results[0].gradient, rtol=0, atol=1e-9)


def test_newton_converges_quadratically_with_two_spins():
    numbers, positions = HO2
    batch = positions + np.random.default_rng(0).normal(0.0, 0.05, (8, 3, 3))
    method = engine(numbers, multiplicity=2, tolerance=1e-10)
    assert method.evaluate(batch, np.zeros((8, 3))).properties["scc_iterations"].max() <= 6


def test_impossible_spins(made_up):
    numbers = HO2[0]
    with pytest.raises(SetupError, match=r"multiplicity: expected 2, 4, 6 with the 13 .* found 1"):
        engine(numbers, multiplicity=1)
    with pytest.raises(SetupError, match=r"expected 1, 3, 5, 7, \.\.\. 13 with the 12 .* found 2"):
        engine(np.array([6, 6, 1, 1, 1, 1]), multiplicity=2)
    with pytest.raises(SetupError, match=r"spin_constants: .* every element .*, found none for O"):
        engine(numbers, multiplicity=2, spin_constants={"H": -0.07})
    for wrong in ([[-0.03]], [[-0.03, -0.02], [-0.01, -0.02]], [[-0.03], [-0.03, 0.0]]):
        with pytest.raises(SetupError, match=r"spin_constants.O: expected .* 2 x 2 matrix \(shells s, p\)"):
            engine(numbers, multiplicity=2, spin_constants={"H": -0.07, "O": wrong})
    elements = {**made_up(2).elements}
    elements["C"] = replace(elements["C"], hubbard_u=np.array([0.36, 0.0]))
    with pytest.raises(ParameterError, match=r"C-C.skf: expected a positive U of the p shell, found 0"):
        make_engine(CH2[0], replace(made_up(2), elements=elements), shell_resolved=True)


def test_open_filling_without_polarisation():
    numbers, positions = HO2
    with pytest.raises(SetupError, match="spin_polarised: false with a multiplicity of 2 needs"):
        engine(numbers, multiplicity=2, spin_polarised=False)
    temperature = 0.005
    settings = {"multiplicity": 2, "spin_polarised": False, "electronic_temperature": temperature}
    check_engine(lambda n: engine(n, **settings), numbers, positions)
    result = engine(numbers, **settings).evaluate(positions[None], np.zeros((1, len(numbers))))
    filled = result.properties["occupations"] / 2.0
    assert filled.sum() == pytest.approx(6.5)
    assert not result.properties["spin_populations"].any()
    empty = 1.0 - filled
    disorder = -(filled * np.log(filled.clip(1e-300)) + empty * np.log(empty.clip(1e-300))).sum()
    assert result.properties["entropy_term"][0] == pytest.approx(-2.0 * temperature * disorder, abs=1e-12)


def test_identity_tells_methods_apart():
    numbers = CH2[0]
    identities = [
        engine(numbers).identity,
        engine(numbers, shell_resolved=True).identity,
        engine(numbers, multiplicity=3).identity,
        engine(numbers, multiplicity=3, spin_constants={"H": -0.07, "C": -0.02}).identity,
    ]
    assert len(set(identities)) == len(identities)
