"""DFT labels: PySCF by another way, central differences, and the errors of a wrong frame."""

from __future__ import annotations

import gc
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest

pytest.importorskip("pyscf")

from pyscf import dft, gto

from pidelta.data.frames import Frame
from pidelta.errors import GeometryError, RunError, SettingError, SetupError
from pidelta.qm.reference import ReferenceSettings, label_frame

# PySCF leaves temporary files open until they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

WATER = Frame(
    numbers=np.array([8, 1, 1]),
    positions=np.array([[0.0, 0.0, 0.0], [1.8, 0.1, 0.2], [-0.5, 1.7, 0.1]]),
    site_positions=np.array([[4.5, 0.5, 1.0], [-3.0, 4.0, 2.0], [0.0, -5.0, 1.0]]),
    site_charges=np.array([-0.8, 0.4, 0.5]),
    site_numbers=np.array([8, 1, 1]),
    source="made up",
)
FINE = ReferenceSettings(convergence=1e-11)


@pytest.fixture(autouse=True)
def _collect_temporary_files():
    yield
    gc.collect()


@pytest.fixture(scope="module")
def label():
    return label_frame(WATER, FINE)


def kohn_sham(frame: Frame, xc: str, field: bool) -> dft.rks.RKS:
    """Kohn-Sham without density fitting, the charges as ghost-free nuclei of fractional charge."""
    atoms = [(int(z), tuple(r)) for z, r in zip(frame.numbers, frame.positions, strict=True)]
    molecule = gto.M(atom=atoms, unit="Bohr", basis="def2-SVP", verbose=0)
    scf = dft.RKS(molecule, xc=xc)
    if field:
        core = scf.get_hcore()
        for charge, point in zip(frame.site_charges, frame.site_positions, strict=True):
            with molecule.with_rinv_origin(point):
                core = core - charge * molecule.intor("int1e_rinv")
        scf.get_hcore = lambda *_: core
    scf.grids.level = FINE.grid_level
    scf.conv_tol = 1e-10
    return scf.run()


@pytest.mark.parametrize(("xc", "name"), [("B3LYP", "B3LYPG"), ("PBE", "PBE")])
def test_energy_matches_pyscf_without_density_fitting(xc, name):
    nuclei = sum(
        z * q / np.linalg.norm(r - s)
        for z, r in zip(WATER.numbers, WATER.positions, strict=True)
        for q, s in zip(WATER.site_charges, WATER.site_positions, strict=True)
    )
    expected = kohn_sham(WATER, name, field=True).e_tot + nuclei
    free = kohn_sham(WATER, name, field=False).e_tot
    bare = replace(
        WATER, site_positions=np.zeros((0, 3)), site_charges=np.zeros(0), site_numbers=np.zeros(0, int)
    )
    labels = [label_frame(frame, replace(FINE, xc=xc)).energy for frame in (WATER, bare)]
    # Density fitting costs some 1e-5 hartree an atom, the same with and without the charges.
    assert labels[0] == pytest.approx(expected, abs=1e-4)
    assert labels[0] - labels[1] == pytest.approx(expected - free, abs=2e-6)


@pytest.mark.parametrize("array", ["positions", "site_positions"])
@pytest.mark.parametrize(("atom", "axis"), [(0, 0), (2, 1)])
def test_gradients_are_central_differences(label, array, atom, axis):
    step = 1e-3
    energies = []
    for sign in (1, -1):
        moved = getattr(WATER, array).copy()
        moved[atom, axis] += sign * step
        energies.append(label_frame(replace(WATER, **{array: moved}), FINE).energy)
    gradient = label.gradient if array == "positions" else label.site_gradient
    assert (energies[0] - energies[1]) / (2 * step) == pytest.approx(gradient[atom, axis], abs=2e-6)


def test_moving_everything_costs_nothing(label):
    net = label.gradient.sum(axis=0) + label.site_gradient.sum(axis=0)
    np.testing.assert_allclose(net, 0.0, atol=1e-9)


def test_charges_and_method(label):
    assert label.charges.sum() == pytest.approx(0.0, abs=1e-8)
    assert label.charges[0] < -0.2 < 0.0 < label.charges[1:].min()
    assert label.program == f"PySCF {version('pyscf')}"
    for part in ("B3LYP (VWN-RPA)/def2-SVP", "def2-universal-jkfit", "grid level 2"):
        assert part in label.method


def test_many_charges_in_blocks_equal_few():
    """Charges beyond one block of integrals count as the first ones do."""
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(250, 3))
    positions = 12.0 * directions / np.linalg.norm(directions, axis=1)[:, None]
    charges = rng.normal(size=250) * 0.1
    frame = replace(WATER, site_positions=positions, site_charges=charges, site_numbers=np.ones(250, int))
    order = rng.permutation(250)
    shuffled = replace(frame, site_positions=positions[order], site_charges=charges[order])
    settings = ReferenceSettings(xc="PBE", basis="STO-3G")
    one, other = label_frame(frame, settings), label_frame(shuffled, settings)
    assert one.energy == pytest.approx(other.energy, abs=1e-9)
    np.testing.assert_allclose(one.site_gradient[order], other.site_gradient, atol=1e-8)
    np.testing.assert_allclose(one.gradient, other.gradient, atol=1e-8)


@pytest.mark.parametrize(
    ("changes", "settings", "error", "message"),
    [
        ({"charge": 1}, {}, SetupError, "found 9 electrons and multiplicity 1"),
        ({"multiplicity": 3}, {}, SetupError, "found 10 electrons and multiplicity 3"),
        ({"numbers": np.array([52, 1, 1])}, {}, SetupError, "expects elements up to Kr.* found Te"),
        ({"site_positions": WATER.positions}, {}, GeometryError, "a point charge sits on a QM atom"),
        ({"positions": np.zeros((3, 3))}, {}, GeometryError, "an atom sits on a QM atom"),
        ({"positions": np.full((3, 3), np.nan)}, {}, GeometryError, "not finite"),
        ({}, {"xc": "B4LYP"}, SettingError, "xc: expected .*found 'B4LYP'"),
        ({}, {"basis": "def3-SVP"}, SettingError, "basis: expected .*found 'def3-SVP'"),
        ({}, {"auxiliary_basis": "nothing"}, SettingError, "auxiliary_basis: expected .*found 'nothing'"),
        ({}, {"max_iterations": 2}, RunError, "frame made up: the SCF .* did not converge in 2 iterations"),
    ],
)
def test_errors_are_one_line(changes, settings, error, message):
    with pytest.raises(error, match=message) as caught:
        label_frame(replace(WATER, **changes), replace(ReferenceSettings(basis="STO-3G"), **settings))
    assert "\n" not in str(caught.value)
