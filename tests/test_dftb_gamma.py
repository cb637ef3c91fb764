"""gamma and Gamma3 against numerical integration and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from pidelta.qm.dftb.centres import ChargeCentres
from pidelta.qm.dftb.charges import ChargeEnergy
from pidelta.qm.dftb.gamma import GammaFunction

ZETA = 4.0


def interaction(u, distance, derivatives=None, zeta=None, symbols=("H", "C")):
    pair = [np.array([index]) for index in (0, 1, 0)]
    centres = ChargeCentres(symbols, np.arange(2), np.arange(2), np.ones(2), np.array(u), *pair)
    derivatives = None if derivatives is None else np.array(derivatives)
    function = GammaFunction(centres, derivatives, zeta, torch.device("cpu"))
    return function, function.evaluate(np.array([[distance]]))


def gamma_value(u, distance, zeta=None, symbols=("H", "C")):
    return interaction(u, distance, zeta=zeta, symbols=symbols)[1].gamma[0, 0, 1].item()


def integrated_gamma(u, distance):
    """Coulomb energy of densities tau^3 / (8 pi) exp(-tau r), tau = 16/5 U, by their Fourier transforms."""

    def integrand(k):
        factors = [((3.2 * x) ** 2 / ((3.2 * x) ** 2 + k * k)) ** 2 for x in u]
        return 2.0 / np.pi * np.sinc(k * distance / np.pi) * factors[0] * factors[1]

    return quad(integrand, 0.0, 60.0, limit=500, epsabs=1e-13)[0]


@pytest.mark.parametrize("u", [(0.42, 0.36), (0.36, 0.4954), (0.36, 0.36), (0.36, 0.3602)])
@pytest.mark.parametrize("distance", [0.7, 2.0, 5.0])
def test_gamma_is_the_coulomb_energy_of_the_charge_clouds(u, distance):
    assert gamma_value(u, distance) == pytest.approx(integrated_gamma(u, distance), abs=1e-7)
    np.testing.assert_allclose(interaction(u, distance)[1].gamma[0].diagonal(), u, rtol=1e-14)


def test_damping_shrinks_the_short_range_part():
    u, distance = (0.42, 0.36), 1.8
    plain = gamma_value(u, distance)
    expected = 1 / distance - (1 / distance - plain) * np.exp(-(0.39**ZETA) * distance**2)
    assert gamma_value(u, distance, ZETA) == pytest.approx(expected, rel=1e-12)
    assert gamma_value(u, distance, ZETA, ("N", "C")) == plain


@pytest.mark.parametrize("zeta", [None, ZETA])
def test_gamma3_is_the_derivative_by_u(zeta):
    u, derivatives, distance, step = (0.42, 0.36), (-0.18, -0.15), 1.9, 1e-4
    found = interaction(u, distance, derivatives, zeta)[1].gamma3[0].numpy()

    def gamma(first, second):
        return gamma_value((u[0] + first, u[1] + second), distance, zeta)

    by_first = (gamma(step, 0.0) - gamma(-step, 0.0)) / (2 * step)
    by_second = (gamma(0.0, step) - gamma(0.0, -step)) / (2 * step)
    assert found[0, 1] == pytest.approx(derivatives[0] * by_first, rel=1e-6)
    assert found[1, 0] == pytest.approx(derivatives[1] * by_second, rel=1e-6)
    np.testing.assert_allclose(found.diagonal(), 0.5 * np.array(derivatives))


def test_gamma3_of_one_element_uses_the_common_u():
    distance, step = 2.0, 1e-4
    found = interaction((0.36, 0.36), distance, (-0.15, -0.15), symbols=("C", "C"))[1].gamma3[0, 0, 1].item()
    above, below = (gamma_value((0.36 + h, 0.36 + h), distance) for h in (step, -step))
    assert found == pytest.approx(-0.15 * (above - below) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("zeta", [None, ZETA])
@pytest.mark.parametrize("u", [(0.42, 0.36), (0.36, 0.36)])
def test_slopes(zeta, u):
    derivatives, distance, step = (-0.18, -0.15), 1.9, 1e-5
    charges = torch.tensor([[0.3, -0.5]], dtype=torch.float64)

    def energy(r):
        result = interaction(u, r, derivatives, zeta)[1]
        return ChargeEnergy(torch.zeros(1, 2, dtype=torch.float64), result.gamma, result.gamma3).energy(
            charges
        )

    function, result = interaction(u, distance, derivatives, zeta)
    numerical = (energy(distance + step) - energy(distance - step)) / (2 * step)
    np.testing.assert_allclose(function.gradient(result, charges, 1)[0], numerical, rtol=0, atol=1e-9)


def test_derivatives_by_charges():
    rng = np.random.default_rng(0)
    kernel = torch.tensor(rng.normal(size=(1, 4, 4)))
    energy = ChargeEnergy(
        torch.tensor(rng.normal(size=(1, 4))), kernel + kernel.mT, torch.tensor(rng.normal(size=(1, 4, 4)))
    )
    charges = torch.tensor(rng.normal(size=(1, 4)), requires_grad=True)
    (slope,) = torch.autograd.grad(energy.energy(charges).sum(), charges)
    torch.testing.assert_close(energy.slope(charges), slope)
    hessian = torch.autograd.functional.hessian(lambda q: energy.energy(q[None]).sum(), charges[0])
    torch.testing.assert_close(energy.hessian(charges)[0], hessian)
