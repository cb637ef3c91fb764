"""DFT labels: PySCF by another way, central differences, and the errors of a wrong frame."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest

pytest.importorskip("pyscf")

from pyscf import dft, gto, qmmm

from pidelta.data.frames import Frame
from pidelta.errors import DataError, GeometryError, RunError, SettingError, SetupError
from pidelta.qm import kohn_sham as kohn_sham_module
from pidelta.qm import reference
from pidelta.qm.dispersion import Dispersion
from pidelta.qm.reference import error_of_gradient, label_frame
from pidelta.qm.reference_settings import ReferenceSettings
from pidelta.workflow.labelling import WORST_GRADIENT

WATER = Frame(
    numbers=np.array([8, 1, 1]),
    positions=np.array([[0.0, 0.0, 0.0], [1.8, 0.1, 0.2], [-0.5, 1.7, 0.1]]),
    site_positions=np.array([[4.5, 0.5, 1.0], [-3.0, 4.0, 2.0], [0.0, -5.0, 1.0]]),
    site_charges=np.array([-0.8, 0.4, 0.5]),
    site_numbers=np.array([8, 1, 1]),
    source="made up",
)
FINE = ReferenceSettings(convergence=1e-11)


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
    scf.grids.level = FINE.grid
    scf.conv_tol = 1e-10
    return scf.run()


@pytest.mark.parametrize(
    ("xc", "name", "alone", "interaction"), [("B3LYP", "B3LYPG", 1e-4, 2e-6), ("PBE", "PBE", 2e-4, 1e-5)]
)
def test_energy_matches_pyscf_without_density_fitting(xc, name, alone, interaction):
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
    # Density fitting costs some 1e-5 hartree an atom, that of Coulomb alone three times as much, nearly the
    # same with and without the charges.
    assert labels[0] == pytest.approx(expected, abs=alone)
    assert labels[0] - labels[1] == pytest.approx(expected - free, abs=interaction)


METHYL = replace(
    WATER,
    numbers=np.array([6, 1, 1, 1]),
    positions=np.array([[0.0, 0.0, 0.0], [0.0, 2.0, 0.2], [1.8, -1.0, 0.0], [-1.7, -1.1, 0.1]]),
    multiplicity=2,
)


# Most pairs of functions do not overlap.
LONG = replace(
    METHYL,
    numbers=np.concatenate([WATER.numbers, METHYL.numbers, WATER.numbers]),
    positions=np.concatenate(
        [WATER.positions - np.array([14, 0, 0]), METHYL.positions, WATER.positions + np.array([13, 2, 1])]
    ),
    site_positions=np.concatenate([WATER.site_positions, WATER.site_positions + np.array([20, 0, 0])]),
    site_charges=np.tile(WATER.site_charges, 2),
    site_numbers=np.tile(WATER.site_numbers, 2),
)
FUNCTIONALS = ("SVWN", "PBE", "r2SCAN", "B3LYP", "TPSSh", "LC_BLYP", "wB97M_V")


@pytest.mark.parametrize(
    ("frame", "xc"),
    [
        *(pytest.param(WATER, xc, id=f"water {xc}") for xc in FUNCTIONALS),
        *(pytest.param(METHYL, xc, id=f"methyl {xc}") for xc in FUNCTIONALS),
        *(pytest.param(LONG, xc, id=f"long {xc}") for xc in ("PBE", "LC_BLYP")),
    ],
)
def test_energies_and_gradients_are_those_of_pyscf(frame, xc):
    """With density fitting on one fine grid from the start, by PySCF's own integration and gradients."""
    atoms = [(int(z), tuple(r)) for z, r in zip(frame.numbers, frame.positions, strict=True)]
    spin = frame.multiplicity - 1
    molecule = gto.M(atom=atoms, unit="Bohr", basis="6-31G", spin=spin, verbose=0)
    kind = dft.UKS if spin else dft.RKS
    name = {"B3LYP": "B3LYPG", "SVWN": "lda,vwn"}.get(xc, xc)
    with_field = qmmm.mm_charge(
        kind(molecule, xc=name).density_fit(auxbasis=replace(FINE, xc=xc).fitting_basis),
        frame.site_positions,
        frame.site_charges,
        unit="Bohr",
    )
    with_field.nlc = 0
    with_field.grids.level = 1
    with_field.conv_tol = 1e-11
    energy = with_field.kernel()
    derivative = with_field.nuc_grad_method()
    gradient = derivative.kernel()
    site_gradient = derivative.grad_hcore_mm(with_field.make_rdm1().reshape(-1, *(molecule.nao,) * 2).sum(0))
    site_gradient += derivative.grad_nuc_mm()
    settings = replace(
        FINE, xc=name if xc == "SVWN" else xc, basis="6-31G", grid_level=1, unrestricted=bool(spin)
    )
    if xc == "wB97M_V":
        settings = replace(settings, dispersion="d3bj")
    label = label_frame(frame, settings)
    if xc == "wB97M_V":
        model = Dispersion(frame.numbers, "d3bj", settings.damping)
        energies, forces = model.evaluate(frame.positions[None])
        energy, gradient = energy + energies[0], gradient + forces[0]
    assert label.energy == pytest.approx(energy, abs=2e-8)
    np.testing.assert_allclose(label.gradient, gradient, atol=2e-6)
    np.testing.assert_allclose(label.site_gradient, site_gradient, atol=1e-6)
    if spin:
        assert label.properties["spin_square"] == pytest.approx(with_field.spin_square()[0], abs=1e-5)
    np.testing.assert_allclose(
        label.properties["dipole"], with_field.dip_moment(unit="AU", verbose=0), atol=1e-5
    )


def test_gradients_are_central_differences():
    """On a grid so fine that it does not matter that it rests; a gradient with a mistake is found on any."""
    fine = replace(FINE, basis="6-31G", grid_level=6)
    label = label_frame(WATER, fine)
    assert error_of_gradient(WATER, label, fine) < 3e-6
    rough = replace(fine, grid_level=2)
    assert error_of_gradient(WATER, label, rough, seed=1) < 1e-4
    for name in ("gradient", "site_gradient"):
        wrong = replace(label, **{name: getattr(label, name) + np.array([5e-3, 0.0, 0.0])})
        assert error_of_gradient(WATER, wrong, rough, seed=1) > 2e-4


def test_an_scf_that_does_not_converge_is_tried_again(monkeypatch):
    tried = []

    def seldom(scf, *arguments):
        tried.append(scf.level_shift)
        return kohn_sham_module.solve(scf, *arguments) if scf.level_shift else None

    monkeypatch.setattr(reference, "solve", seldom)
    label = label_frame(WATER, replace(FINE, basis="STO-3G"))
    monkeypatch.undo()
    assert tried == [0, 0.3]
    assert label.energy == pytest.approx(label_frame(WATER, replace(FINE, basis="STO-3G")).energy, abs=1e-8)


def test_contaminated_spin_is_refused(monkeypatch):
    monkeypatch.setattr(reference, "_CONTAMINATION", 1e-6)
    with pytest.raises(RunError, match=r"expected <S\^2> of 0.75, found 0.75\d: other spins mix in"):
        label_frame(METHYL, replace(FINE, basis="STO-3G", unrestricted=True))


def test_moving_everything_costs_nothing(label):
    net = label.gradient.sum(axis=0) + label.site_gradient.sum(axis=0)
    np.testing.assert_allclose(net, 0.0, atol=5e-5)  # the grid rests


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
        ({"charge": 1}, {}, SetupError, "multiplicity that fits.*found 9 electrons and multiplicity 1"),
        (
            {"multiplicity": 3},
            {},
            SetupError,
            "unrestricted: expected where electrons are unpaired, found 10 electrons and multiplicity 3",
        ),
        (
            {"multiplicity": 2},
            {"unrestricted": True},
            SetupError,
            "multiplicity that fits.*found 10 electrons",
        ),
        ({}, {"xc": "B3LYP-D3BJ"}, SettingError, "xc: expected a functional without dispersion in its name"),
        ({}, {"xc": "HF"}, SettingError, "xc: expected a functional without"),
        ({}, {"xc": "wB97M_V"}, SettingError, "dispersion: expected d3bj, which replaces VV10"),
        ({"numbers": np.array([52, 1, 1])}, {}, SetupError, "expects elements up to Kr.* found Te"),
        ({"site_positions": WATER.positions}, {}, GeometryError, "a point charge sits on a QM atom"),
        ({"positions": np.zeros((3, 3))}, {}, GeometryError, "an atom sits on a QM atom"),
        (
            {"positions": np.full((3, 3), np.nan)},
            {},
            DataError,
            "expected finite numbers, found others in positions",
        ),
        (
            {},
            {"xc": "SCAN"},
            SettingError,
            "grid_level: expected one for SCAN, .*found none; r2SCAN is smooth",
        ),
        ({}, {"xc": "SCANL", "grid_level": 2}, SettingError, "xc: expected .*without the Laplacian.*'SCANL'"),
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


@pytest.mark.parametrize(
    ("xc", "level"),
    [
        ("r2SCAN", 3),
        ("r2SCAN0", 3),
        ("rSCAN", 3),
        ("0.25*HF+0.75*R2SCAN,R2SCAN", 3),
        ("B3LYP", 2),
        ("M06_L", 2),
        ("wB97M_V", 2),
    ],
)
def test_the_default_grid_is_the_one_that_the_functional_needs(xc, level):
    settings = ReferenceSettings(xc=xc, dispersion="d3bj" if xc == "wB97M_V" else None)
    assert settings.grid == level
    assert f"grid level {level} at rest" in settings.method
    assert replace(settings, grid_level=5).grid == 5


def test_gradients_of_r2scan_are_within_the_limit_of_labels():
    """By the difference that `--check-every` takes; on level 2 they are not."""
    settings = ReferenceSettings("r2SCAN", convergence=1e-10)
    for level, is_good in ((None, True), (2, False)):
        chosen = replace(settings, grid_level=level)
        label = label_frame(WATER, chosen)
        error = max(error_of_gradient(WATER, label, chosen, seed) for seed in (1, 2))
        assert (error < WORST_GRADIENT) == is_good


@pytest.mark.parametrize(
    ("xc", "basis"),
    [
        ("PBE", "def2-universal-jfit"),
        ("r2SCAN", "def2-universal-jfit"),
        ("0.25*SR_HF(0.11)+PBE,PBE", "def2-universal-jkfit"),
        ("B3LYP", "def2-universal-jkfit"),
        ("HSE06", "def2-universal-jkfit"),
        ("LC_WPBE", "def2-universal-jkfit"),
    ],
)
def test_exact_exchange_asks_for_the_larger_fitting_basis(xc, basis):
    assert ReferenceSettings(xc=xc).fitting_basis == basis
    assert ReferenceSettings(xc=xc, auxiliary_basis="def2-tzvp-jkfit").fitting_basis == "def2-tzvp-jkfit"
