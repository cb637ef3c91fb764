"""Spin constants of atoms against published values and PySCF's spin-polarised atoms."""

from __future__ import annotations

import numpy as np
import pytest

from pidelta.parametrisation.functionals import FunctionalName
from pidelta.parametrisation.recipe import BUILTIN_RECIPE, nuclear_charge, read_recipe

pytest.importorskip("pyscf")

from pyscf import dft, gto

from pidelta.parametrisation.spin_response import SpinFunctional, spin_constants


def constants(symbol: str, name: FunctionalName = "PBE") -> np.ndarray:
    element = read_recipe(BUILTIN_RECIPE).elements[symbol]
    functional = SpinFunctional(name)
    return spin_constants(nuclear_charge(symbol), element.shells, element.valence_shells, functional)


# ss, sp, pp in the appendix "Atomic spin constants" of the manual of DFTB+ 25.1, from the thesis of C. Köhler
# (2003): three decimals, of which it calls two significant.
@pytest.mark.parametrize(
    ("symbol", "name", "published"),
    [
        ("H", "LDA", [-0.064]),
        ("C", "LDA", [-0.028, -0.024, -0.022]),
        ("N", "LDA", [-0.030, -0.026, -0.025]),
        ("O", "LDA", [-0.032, -0.028, -0.027]),
        ("S", "LDA", [-0.019, -0.016, -0.014]),
        ("H", "PBE", [-0.072]),
        ("C", "PBE", [-0.031, -0.025, -0.023]),
        ("N", "PBE", [-0.033, -0.027, -0.026]),
        ("O", "PBE", [-0.035, -0.030, -0.028]),
        ("S", "PBE", [-0.021, -0.017, -0.016]),
    ],
)
def test_constants_are_those_of_the_manual(symbol: str, name: FunctionalName, published: list[float]) -> None:
    found = constants(symbol, name)[:2, :2]
    np.testing.assert_allclose(found[np.triu_indices(len(found))], published, atol=8e-4)


class Polarised:
    """An atom of PySCF with given electrons n and magnetisations m of its shells 1s, 2s, 2p."""

    def __init__(self, symbol: str, electrons: list[float], magnetisations: list[float], xc: str) -> None:
        basis = {symbol: gto.expand_etbs([(0, 22, 0.02, 2.2), (1, 12, 0.02, 2.2)])}
        solver = dft.UKS(gto.M(atom=symbol, basis=basis, spin=None, verbose=0))
        solver.set(xc=xc, conv_tol=1e-12)
        solver.grids.atom_grid = (200, 50)
        degeneracies = [1, 1, 3][: len(electrons)]
        n, m = (np.repeat(np.divide(x, degeneracies), degeneracies) for x in (electrons, magnetisations))

        def occupations(energies: np.ndarray, _orbitals: object = None) -> np.ndarray:
            result = np.zeros_like(energies)
            for spin, sign in enumerate((1.0, -1.0)):
                result[spin, np.argsort(energies[spin])[: len(n)]] = 0.5 * (n + sign * m)
            return result

        solver.get_occ = occupations
        # Orbitals of one shell may turn into each other, as their occupations are the same.
        solver.get_grad = lambda *_: np.zeros(1)
        self.energy = solver.kernel()
        assert solver.converged
        up, down = np.sort(solver.mo_energy, axis=1)[:, np.cumsum([0, *degeneracies[:-1]])]
        self.half_splittings = 0.5 * (up - down)


@pytest.mark.parametrize(("name", "xc"), [("PBE", "PBE"), ("LDA", "LDA,VWN")])
def test_hydrogen_is_that_of_pyscf(name: FunctionalName, xc: str) -> None:
    m = 0.02
    unpolarised, polarised = (Polarised("H", [1.0], [x], xc) for x in (0.0, m))
    ((w,),) = constants("H", name)
    assert 2.0 * (polarised.energy - unpolarised.energy) / m**2 == pytest.approx(w, abs=1e-5)
    assert polarised.half_splittings[0] / m == pytest.approx(w, abs=1e-5)


def test_carbon_is_that_of_pyscf() -> None:
    """By the energy, its second derivative; by the splittings, W_sp from either shell."""
    m = 0.02
    none, s, p, both = (
        Polarised("C", [2.0, 2.0, 2.0], [0.0, *x], "PBE") for x in ((0, 0), (m, 0), (0, m), (m, m))
    )
    w = constants("C")
    from_energies = np.array(
        [
            2.0 * (s.energy - none.energy),
            both.energy - s.energy - p.energy + none.energy,
            2.0 * (p.energy - none.energy),
        ]
    )
    np.testing.assert_allclose(from_energies / m**2, [w[0, 0], w[0, 1], w[1, 1]], atol=5e-6)
    np.testing.assert_allclose(s.half_splittings[1:] / m, w[:, 0], atol=5e-6)
    np.testing.assert_allclose(p.half_splittings[1:] / m, w[:, 1], atol=5e-6)


@pytest.mark.parametrize("symbol", ["S", "Cl"])
def test_an_empty_shell_has_the_constants_of_the_highest_occupied(symbol: str) -> None:
    w = constants(symbol)
    np.testing.assert_array_equal(w[2], w[1][[0, 1, 1]])
    np.testing.assert_array_equal(w, w.T)


@pytest.mark.parametrize("name", ["LDA", "PBE"])
def test_kernel_is_the_curvature_of_the_energy(name: FunctionalName) -> None:
    functional = SpinFunctional(name)
    xc = {"LDA": "LDA_X,LDA_C_VWN", "PBE": "GGA_X_PBE,GGA_C_PBE"}[name]
    density, slope = np.array([0.01, 0.3, 2.0]), np.array([-0.02, -0.4, 1.5])

    def energy(m: np.ndarray, m_slope: np.ndarray) -> np.ndarray:
        zero = np.zeros(3)
        spins = [
            np.stack([(density + s * m) / 2, (slope + s * m_slope) / 2, zero, zero]) for s in (1.0, -1.0)
        ]
        rho = tuple(spin[0] for spin in spins) if name == "LDA" else tuple(spins)
        return density * dft.libxc.eval_xc(xc, rho, spin=1, deriv=0)[0]

    a, b, c = functional.spin_kernel(density, slope)
    steps = np.array([0.7, -0.4, 0.5]) * 1e-3 * density, np.array([0.3, 0.6, -0.5]) * 1e-3 * slope
    curvature = a * steps[0] ** 2 + 2.0 * b * steps[0] * steps[1] + c * steps[1] ** 2
    change = energy(*steps) - energy(np.zeros(3), np.zeros(3))
    np.testing.assert_allclose(2.0 * change, curvature, rtol=1e-4)
