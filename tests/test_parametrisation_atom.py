"""Spherical atoms against closed forms and published values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import simpson

from pidelta.parametrisation.atom import Atom, AtomSolver, Shell
from pidelta.parametrisation.mixing import AndersonMixer

CHARGES = {"H": 1, "C": 6, "N": 7, "O": 8, "Cl": 17}


def shells(symbol: str) -> list[Shell]:
    charge = CHARGES[symbol]
    if charge == 1:
        return [Shell(1, 0, 1.0)]
    if charge <= 10:
        return [Shell(1, 0, 2.0), Shell(2, 0, 2.0), Shell(2, 1, charge - 4.0)]
    core = [Shell(1, 0, 2.0), Shell(2, 0, 2.0), Shell(2, 1, 6.0)]
    return [*core, Shell(3, 0, 2.0), Shell(3, 1, charge - 12.0)]


def solver(symbol: str, functional: str) -> AtomSolver:
    pytest.importorskip("pyscf")
    from pidelta.parametrisation.functionals import Functional

    return AtomSolver(CHARGES[symbol], shells(symbol), Functional(functional))  # type: ignore[arg-type]


def radial(atom: Atom, k: int, r: np.ndarray) -> np.ndarray:
    return r ** atom.shells[k].ell * (np.exp(-np.outer(r * r, atom.exponents)) @ atom.coefficients[k])


def test_one_electron_has_the_orbitals_of_hydrogen() -> None:
    charge = 2.0
    orbitals = [Shell(1, 0, 0.0), Shell(2, 0, 0.0), Shell(2, 1, 0.0), Shell(3, 2, 0.0)]
    atom = AtomSolver(charge, orbitals, None).solve()
    np.testing.assert_allclose(
        atom.energies, charge**2 * np.array([-1 / 2, -1 / 8, -1 / 8, -1 / 18]), atol=2e-7
    )
    r = np.linspace(0.01, 8.0, 50)  # times the charge
    closed = [
        2.0 * np.exp(-r),
        (r - 2.0) * np.exp(-r / 2) / np.sqrt(8.0),
        r * np.exp(-r / 2) / np.sqrt(24.0),
        4.0 / (81.0 * np.sqrt(30.0)) * r**2 * np.exp(-r / 3),
    ]
    for k, expected in enumerate(closed):
        np.testing.assert_allclose(radial(atom, k, r / charge), charge**1.5 * expected, atol=1e-4)


def test_confinement_obeys_hellmann_and_feynman() -> None:
    hydrogen = AtomSolver(1.0, [Shell(1, 0, 1.0)], None)
    middle, step = hydrogen.solve(3.0), 1e-3
    slope = (hydrogen.solve(3.0 + step).energies[0] - hydrogen.solve(3.0 - step).energies[0]) / (2.0 * step)
    r = np.linspace(0.0, 12.0, 4001)
    square = simpson(radial(middle, 0, r) ** 2 * r**4, x=r)
    assert slope == pytest.approx(-2.0 / 3.0**3 * square, rel=1e-5)


# Kotochigova, Levine, Shirley, Stiles, Clark, "Atomic Reference Data for Electronic Structure Calculations"
# (NIST): LDA, spherical, without spin polarisation; printed with six decimals.
@pytest.mark.parametrize(
    ("symbol", "total", "orbitals"),
    [
        ("H", -0.445671, [-0.233471]),
        ("C", -37.425749, [-9.947718, -0.500866, -0.199186]),
        ("N", -54.025016, [-14.011501, -0.676151, -0.266297]),
        ("O", -74.473077, [-18.758245, -0.871362, -0.338381]),
    ],
)
def test_lda_atoms_are_those_of_nist(symbol: str, total: float, orbitals: list[float]) -> None:
    atom = solver(symbol, "LDA").solve()
    assert atom.total_energy == pytest.approx(total, abs=2e-6)
    np.testing.assert_allclose(atom.energies, orbitals, atol=2e-6)


# On-site energies and U are those of the published sets (mio, 3ob), Elstner et al., Phys. Rev. B 58, 7260
# (1998); Hubbard derivatives of Gaus, Goez, Elstner, JCTC 9, 338 (2013), and Kubillus, Kubar, Gaus, Rezac,
# Elstner, JCTC 11, 332 (2015).
@pytest.mark.parametrize(
    ("symbol", "onsite", "hubbard_u", "derivative"),
    [
        ("H", [-0.23860], 0.4195, -0.1857),
        ("C", [-0.50489, -0.19436], 0.3647, -0.1492),
        ("N", [-0.68198, -0.26073], 0.4309, -0.1535),
        ("O", [-0.87885, -0.33213], 0.4954, -0.1575),
        ("Cl", [-0.75442, -0.31640], 0.3668, -0.0697),
    ],
)
def test_pbe_atoms_are_those_of_published_sets(
    symbol: str, onsite: list[float], hubbard_u: float, derivative: float
) -> None:
    atoms = solver(symbol, "PBE")
    energies = atoms.solve().energies
    np.testing.assert_allclose(energies[-len(onsite) :], onsite, atol=2e-5)
    u, du = atoms.hubbard()
    assert u == pytest.approx(hubbard_u, abs=1.2e-4)
    assert du == pytest.approx(derivative, rel=0.012)


def test_potential_goes_from_nucleus_to_neutral_atom() -> None:
    atom = solver("O", "PBE").solve(4.0)
    near, far = np.array([2e-6]), np.array([30.0, 100.0])
    assert (-near * atom.potential(near))[0] == pytest.approx(8.0, abs=1e-3)
    np.testing.assert_allclose(atom.potential(far), 0.0, atol=1e-8)


def test_mixer_solves_a_linear_problem() -> None:
    # Eigenvalues up to 5: without acceleration this iteration diverges.
    matrix = np.diag([0.1, 0.5, 1.0, 5.0])
    target = np.array([1.0, -2.0, 3.0, 0.5])
    mixer, x = AndersonMixer(), np.zeros(4)
    for _ in range(7):
        x = mixer.mix(x, matrix @ (target - x))
    np.testing.assert_allclose(x, target, atol=1e-8)
