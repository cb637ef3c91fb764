"""Spin constants of atoms, from the linear response of the free atom to a magnetisation of its shells.

W_ll' = 1/2 (d e_l,up / d n_l',up - d e_l,up / d n_l',down) at the atom without spin polarisation, orbital
relaxation included, of Köhler, Frauenheim, Hourahine, Seifert, Sternberg, J. Phys. Chem. A 111, 5622 (2007).
With m = n_up - n_down and Janak's theorem it is d^2 E / dm_l dm_l', which makes it symmetric.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pidelta.parametrisation.atom import Atom, AtomSolver, Shell
from pidelta.parametrisation.functionals import Functional
from pidelta.state import FloatArray, IntArray

_STATES = 25  # of each l that orbitals relax into; as good as all to 1e-8 hartree
_SMALLEST_DENSITY = 1e-30  # kernels are not finite without a density


class SpinFunctional(Functional):
    """A functional with its second derivatives with respect to the magnetisation density."""

    def spin_kernel(
        self, density: FloatArray, slope: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return a, b, c at points of a spherical density (n,) with its radial derivative (n,).

        To second order, a magnetisation density m(r) changes the energy of exchange and correlation per
        volume by 1/2 (a m^2 + 2 b m dm/dr + c (dm/dr)^2).
        """
        half, zero = 0.5 * density, np.zeros_like(density)
        if not self.uses_gradient:
            by_densities = self._libxc.eval_xc(self._code, (half, half), spin=1, deriv=2)[2][0]
            return 0.5 * (by_densities[:, 0] - by_densities[:, 1]), zero, zero
        rho = np.stack([half, 0.5 * slope, zero, zero])
        first, second = self._libxc.eval_xc(self._code, (rho, rho), spin=1, deriv=2)[1:3]
        # libxc's order: uu, ud, dd of two densities or of sigma; u with uu, ud, dd, then d with them; the six
        # of two sigmas.
        by_sigma, (by_densities, by_density_sigma, by_sigmas) = first[1], second[:3]
        a = 0.5 * (by_densities[:, 0] - by_densities[:, 1])
        b = 0.5 * slope * (by_density_sigma[:, 0] - by_density_sigma[:, 2])
        c = by_sigma[:, 0] - 0.5 * by_sigma[:, 1] + 0.5 * slope**2 * (by_sigmas[:, 0] - by_sigmas[:, 2])
        return a, b, c


def spin_constants(
    charge: float, shells: Sequence[Shell], valence: Sequence[int], functional: SpinFunctional
) -> FloatArray:
    """W of the valence shells of a free atom, (len(valence), len(valence)) in hartree.

    The atom may have any number of electrons, as in atomic hydrogen with half an electron of each spin. An
    empty shell, which the free atom need not bind, has the constants of the highest occupied one, as the
    authors of DFTB+ advise (B. Aradi, DFTB-Plus-User, 23 March 2017); so it is with U.

    Args:
        charge: nuclear charge.
        shells: all shells of the atom.
        valence: principal quantum numbers of the valence shells s, p, d.
        functional: exchange and correlation.

    Raises:
        RunError: the density did not converge.
    """
    given = {(shell.n, shell.ell): shell for shell in shells}
    states = [
        given.get((n, ell), Shell(n, ell, 0.0))
        for ell in {shell.ell for shell in shells if shell.occupation > 0.0}
        for n in range(ell + 1, ell + 1 + _STATES)
    ]
    atom = AtomSolver(charge, states, functional).solve()
    bound = [
        atom.index(n, ell) if given[n, ell].occupation > 0.0 else atom.highest_occupied
        for ell, n in enumerate(valence)
    ]
    return _magnetic_response(atom, bound, functional)


def _magnetic_response(atom: Atom, shells: Sequence[int], functional: SpinFunctional) -> FloatArray:
    """d^2 E / dm_k dm_k' of `shells` of an atom that has all shells they relax into.

    With K the kernel, f_ka = R_k R_a / 4 pi and chi_ka = 2 n_k / (e_k - e_a) of each occupied k and each
    other a of its l, W = <f_kk|K|f_k'k'> + <f_kk|K|f> (1 / chi - <f|K|f>)^-1 <f|K|f_k'k'>.
    """
    occupations = np.array([shell.occupation for shell in atom.shells])
    pairs = [
        (k, a)
        for k, occupied in enumerate(atom.shells)
        for a, other in enumerate(atom.shells)
        if occupied.occupation > 0.0 and other.ell == occupied.ell and a != k
    ]
    count = len(pairs)
    first, second = np.array(pairs + [(k, k) for k in shells]).T
    kernel = _kernel_matrix(atom, occupations, first, second, functional)
    differences = atom.energies[first[:count]] - atom.energies[second[:count]]
    inverse = np.diag(differences / (2.0 * occupations[first[:count]])) - kernel[:count, :count]
    relaxation = kernel[count:, :count] @ np.linalg.solve(inverse, kernel[:count, count:])
    constants = kernel[count:, count:] + relaxation
    symmetric: FloatArray = 0.5 * (constants + constants.T)  # to the last digit
    return symmetric


def _kernel_matrix(
    atom: Atom, occupations: FloatArray, first: IntArray, second: IntArray, functional: SpinFunctional
) -> FloatArray:
    """<f|K|f'> of all products f of the shells `first` and `second`, (P,) each."""
    values, slopes = _radial_functions(atom)
    products = values[:, first] * values[:, second]
    derivatives = values[:, first] * slopes[:, second] + slopes[:, first] * values[:, second]
    density = np.maximum(values**2 @ occupations, _SMALLEST_DENSITY)
    slope = 2.0 * (values * slopes) @ occupations
    volumes = 4.0 * np.pi * atom.radii**3 * np.log(atom.radii[1] / atom.radii[0])
    a, b, c = (volumes * part for part in functional.spin_kernel(density, slope))
    mixed = products.T @ (b[:, None] * derivatives)
    of_values: FloatArray = products.T @ (a[:, None] * products) + mixed + mixed.T
    of_slopes: FloatArray = derivatives.T @ (c[:, None] * derivatives)
    return of_values + of_slopes


def _radial_functions(atom: Atom) -> tuple[FloatArray, FloatArray]:
    """R_k / sqrt(4 pi) and its derivative at the radii of an atom, each (points, K)."""
    r = atom.radii[:, None]
    ells = np.array([shell.ell for shell in atom.shells])
    coefficients = atom.coefficients.T / np.sqrt(4.0 * np.pi)
    gaussians = np.exp(-(r**2) * atom.exponents)
    values = r**ells * (gaussians @ coefficients)
    slopes = ells / r * values - 2.0 * r ** (ells + 1) * ((gaussians * atom.exponents) @ coefficients)
    return values, slopes
