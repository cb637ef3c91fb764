"""Models of water by name: q-TIP4P/F against i-PI's driver, the others against their papers."""

from __future__ import annotations

import json
import lzma
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.special import erfc

from conftest import ROOT
from mm_systems import DATA, TRICLINIC, acetamide_water, mm_evaluator, on_atoms, water_positions
from pidelta.errors import SettingError
from pidelta.mm.readers import read_topology
from pidelta.mm.water import WATER_MODELS, build_water, find_water, with_water
from pidelta.state import System
from pidelta.testing.evaluators import check_evaluator
from pidelta.testing.samples import Sample, Tolerances
from pidelta.units import ANGSTROM, KCAL_PER_MOL

REFERENCE = ROOT / "tests" / "data" / "qtip4pf-ipi-3.3.json.xz"


def water_box(positions, cell):
    n = len(positions) // 3
    return System(
        np.tile([8, 1, 1], n),
        positions,
        cell,
        ("O", "H", "H") * n,
        ("HOH",) * 3 * n,
        np.repeat(np.arange(n), 3),
        np.repeat(np.arange(n), 3) + 1,
        ("",) * 3 * n,
    )


def erfc_of_the_driver(x):
    """Abramowitz, Stegun, 7.1.26, good to 1.5e-7."""
    t = 1.0 / (1.0 + 0.3275911 * x)
    polynomial = np.polynomial.polynomial.polyval(
        t, [0.0, 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429]
    )
    return np.exp(-x * x) * polynomial


def ewald(x, charges, molecules, box, *, cutoff, exponent, erfc):
    """Coulomb energy and gradient of a box of molecules without Coulomb within: a plain sum.

    Both halves end where exp(-exponent^2) is reached, at `cutoff` in real space.
    """
    alpha = exponent / cutoff
    energy = -alpha / np.sqrt(np.pi) * (charges**2).sum()
    gradient = np.zeros_like(x)
    for i in range(len(x) - 1):
        d = x[i + 1 :] - x[i]
        d -= box * np.rint(d / box)
        r = np.linalg.norm(d, axis=1)
        inside = r < cutoff
        d, r = d[inside], r[inside]
        qq = charges[i] * charges[i + 1 :][inside]
        screened = erfc(alpha * r) - (molecules[i + 1 :][inside] == molecules[i])
        slope = -qq * (screened / r + 2.0 * alpha / np.sqrt(np.pi) * np.exp(-((alpha * r) ** 2))) / r
        energy += float((qq * screened / r).sum())
        pull = (slope / r)[:, None] * d
        gradient[i + 1 :][inside] += pull
        gradient[i] -= pull.sum(axis=0)
    k_max = 2.0 * exponent * alpha
    reach = (k_max * box / (2.0 * np.pi)).astype(int)
    for n in product(*(range(-m, m + 1) for m in reach)):
        k = 2.0 * np.pi * np.array(n) / box
        k2 = k @ k
        if n <= (0, 0, 0) or k2 > k_max**2:
            continue
        cosine, sine = np.cos(x @ k), np.sin(x @ k)
        a, b = charges @ cosine, charges @ sine
        weight = 4.0 * np.pi * np.exp(-k2 / (4.0 * alpha**2)) / (k2 * box.prod())
        energy += weight * (a * a + b * b)
        gradient += (2.0 * weight * charges * (b * cosine - a * sine))[:, None] * k
    return energy, gradient


def q_tip4p_f_as_i_pi(record, **settings):
    """Energy and forces: pidelta's terms but Coulomb, which is the sum above over pidelta's sites."""
    x, box = np.array(record["positions"]), np.array(record["box"])
    cell = np.diag(box)
    topology = build_water(water_box(x, cell), "q-tip4p-f")
    without_coulomb = on_atoms(
        mm_evaluator(
            replace(topology, charges=np.zeros(topology.n_particles)),
            cutoff=9.0 * ANGSTROM,
            lj_modifier="none",
        )
    )
    term = without_coulomb.evaluate(x[None], cell[None])
    particles = topology.particles.place(x[None], cell[None])[0]
    molecules = np.concatenate([topology.residue_indices, topology.residue_indices[::3]])
    energy, gradient = ewald(particles, topology.charges, molecules, box, **settings)
    topology.sites.spread(particles, cell, gradient, np.zeros((3, 3)))
    return term.energy[0] + energy, -(term.gradient[0] + gradient[: len(x)])


@pytest.fixture(scope="module")
def record():
    """64 molecules in an orthorhombic box, by tests/records/make_qtip4pf_record.py."""
    return json.loads(lzma.decompress(REFERENCE.read_bytes()))


def test_q_tip4p_f_is_that_of_i_pi(record):
    """With the cutoffs and the erfc of i-PI's Ewald sum nothing but rounding is left."""
    settings = {"cutoff": 1.2 * 192 ** (-1 / 6) * min(record["box"]), "exponent": np.pi}
    energy, forces = q_tip4p_f_as_i_pi(record, **settings, erfc=erfc_of_the_driver)
    assert abs(energy - record["energy"]) < 64 * 2e-9
    np.testing.assert_allclose(forces, record["forces"], atol=1e-8)


def test_q_tip4p_f_with_a_converged_ewald_sum(record):
    """What the approximations of i-PI's Ewald sum amount to: 1.2e-6 hartree for each molecule."""
    energy, forces = q_tip4p_f_as_i_pi(record, cutoff=0.5 * min(record["box"]), exponent=5.0, erfc=erfc)
    assert abs(energy - record["energy"]) < 64 * 1.5e-6
    np.testing.assert_allclose(forces, record["forces"], atol=1e-5)


@pytest.mark.parametrize(("method", "tolerance"), [("ewald", 1e-12), ("pme", 1e-7)])
def test_q_tip4p_f_with_the_evaluators_own_electrostatics(record, method, tolerance):
    """Within the driver's approximations of the reference, and close to the converged sum above."""
    x, cell = np.array(record["positions"]), np.diag(record["box"])
    evaluator = on_atoms(
        mm_evaluator(
            build_water(water_box(x, cell), "q-tip4p-f"),
            cutoff=9.0 * ANGSTROM,
            cell=cell,
            electrostatics=method,
            ewald_tolerance=tolerance,
            lj_modifier="none",
        )
    )
    term = evaluator.evaluate(x[None], cell[None])
    assert abs(term.energy[0] - record["energy"]) < 64 * 1.5e-6
    np.testing.assert_allclose(-term.gradient[0], record["forces"], atol=1e-5)
    energy, forces = q_tip4p_f_as_i_pi(record, cutoff=0.5 * min(record["box"]), exponent=5.0, erfc=erfc)
    assert abs(term.energy[0] - energy) < 64 * 1e-7
    np.testing.assert_allclose(-term.gradient[0], forces, atol=1e-6)


def test_three_point_models_have_the_published_parameters():
    expected = {  # charge of H, sigma, epsilon, k and length of the bond, k and angle
        "spc-fw": (0.41, 3.165492, 0.1554253, 1059.162, 1.012, 75.90, 113.24),
        "q-spc-fw": (0.42, 3.165492, 0.1554252, 1059.162, 1.000, 75.90, 112.0),
        "tip3p-flexible": (0.417, 3.15061, 0.1521, 900.0, 0.9572, 110.0, 104.52),
    }
    box = water_box(water_positions(2, np.eye(3) * 20.0, seed=0), None)
    for name, (q, sigma, epsilon, k, length, angle_k, angle) in expected.items():
        top = build_water(box, name)
        np.testing.assert_allclose(top.charges, [-2 * q, q, q] * 2)
        np.testing.assert_allclose(top.bonds.k, k * KCAL_PER_MOL / ANGSTROM**2)
        np.testing.assert_allclose(top.bonds.x0, length * ANGSTROM)
        np.testing.assert_allclose(top.angles.k, angle_k * KCAL_PER_MOL)
        np.testing.assert_allclose(top.angles.x0, np.deg2rad(angle))
        oxygen, hydrogen = top.lj_types[:2]
        np.testing.assert_allclose(
            top.lj_c6[oxygen, oxygen], 4.0 * epsilon * KCAL_PER_MOL * (sigma * ANGSTROM) ** 6
        )
        assert not top.lj_c12[hydrogen].any()
        assert top.exclusions.tolist() == [[0, 1], [0, 2], [1, 2], [3, 4], [3, 5], [4, 5]]


def test_a_named_model_is_the_one_a_file_spells_out():
    """SPC/Fw: the topology of the tests has it, so putting it in must change nothing."""
    from_file = read_topology(DATA / "acetamide-water.top")
    named = with_water(from_file, "spc-fw")
    x = acetamide_water()
    before, after = (
        on_atoms(mm_evaluator(top, cutoff=11.0)).evaluate(x[None], TRICLINIC[None])
        for top in (from_file, named)
    )
    np.testing.assert_allclose(after.energy, before.energy, rtol=1e-8)
    np.testing.assert_allclose(after.gradient, before.gradient, atol=1e-9)


def test_every_model_can_replace_every_other():
    x = acetamide_water()
    original = read_topology(DATA / "acetamide-water.top")
    direct = {name: with_water(original, name) for name in WATER_MODELS}
    four_points = direct["q-tip4p-f"]
    assert four_points.n_particles == len(four_points) + 60
    for name, top in direct.items():
        again = with_water(four_points, name)
        one, two = (
            on_atoms(mm_evaluator(t, cutoff=11.0)).evaluate(x[None], TRICLINIC[None]) for t in (top, again)
        )
        np.testing.assert_allclose(two.energy, one.energy, rtol=1e-12)
        np.testing.assert_allclose(two.gradient, one.gradient, atol=1e-12)
        np.testing.assert_allclose(top.charges.sum(), original.charges.sum(), atol=1e-9)


@pytest.mark.parametrize(("electrostatics", "mesh"), [("reaction-field", 0.0), ("ewald", 0.0), ("pme", 1e-4)])
def test_solute_and_q_tip4p_f_pass_all_checks(electrostatics, mesh):
    topology = with_water(read_topology(DATA / "acetamide-water.top"), "q-tip4p-f")
    settings = {"cutoff": 11.0, "dispersion_correction": True, "electrostatics": electrostatics}
    evaluator = on_atoms(mm_evaluator(topology, **settings))
    alike = np.arange(9, 12), np.arange(60, 63)
    sample = Sample(acetamide_water()[None], TRICLINIC[None], topology.residue_indices, alike)
    check_evaluator(evaluator, sample, Tolerances(scc=0.0, rounding=1e-9, mesh=mesh))


def test_water_is_found_in_any_order_of_its_atoms():
    topology = read_topology(DATA / "water.top")
    order = np.tile([1, 0, 2], 64) + np.repeat(np.arange(64) * 3, 3)
    shuffled = replace(topology, numbers=topology.numbers[order])
    assert find_water(shuffled)[:2].tolist() == [[1, 0, 2], [4, 3, 5]]


def test_refused():
    x = water_positions(2, np.eye(3) * 20.0, seed=0)
    box = water_box(x, None)
    with pytest.raises(SettingError, match="expected molecules O H H, found a break of the order at atom 3"):
        build_water(replace(box, numbers=np.array([8, 1, 1, 1, 8, 1])), "spc-fw")
    with pytest.raises(SettingError, match=r"mixed\.top, found none"):
        with_water(read_topology(DATA / "mixed.top"), "spc-fw")
    top = read_topology(DATA / "acetamide-water.top")
    nbfix = top.lj_c6.copy()
    water_type, solute_type = top.lj_types[[9, 0]]
    nbfix[water_type, solute_type] = nbfix[solute_type, water_type] = 1.1 * nbfix[water_type, solute_type]
    repelling = top.lj_c6.copy()
    repelling[solute_type] = repelling[:, solute_type] = 0.0
    with pytest.raises(SettingError, match=r"Lennard-Jones without attraction at ACM1:C1"):
        with_water(replace(top, lj_c6=repelling), "spc-fw")
    with pytest.raises(SettingError, match=r"\(NBFIX\) between water and ACM1:C1"):
        with_water(replace(top, lj_c6=nbfix), "spc-fw")
