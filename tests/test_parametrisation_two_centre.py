"""Two-centre integrals against closed forms, PySCF and mio-1-1."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from dftb_sets import PUBLISHED_FOLDERS, published_sets
from pidelta.parametrisation.atom import Atom, AtomSolver, Shell
from pidelta.parametrisation.two_centre import ConfinedElement, HalfPlaneGrid, PairIntegrator, resample
from pidelta.qm.dftb.skf import INTEGRALS, parse_skf

pytest.importorskip("pyscf")

from pyscf import dft, gto

from pidelta.parametrisation.functionals import Functional

BARE = Functional("LDA")  # nothing of a density of nothing
SS, SP, PP_SIGMA, PP_PI = (INTEGRALS.index(key) for key in ((0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 1, 1)))
WIDTH = len(INTEGRALS)


def bare_element(charge: float, orbitals: list[Shell]) -> ConfinedElement:
    """Hydrogen-like orbitals and the potential of a bare nucleus."""
    atom = AtomSolver(charge, orbitals, None).solve()
    return ConfinedElement(atom, atom, tuple(shell.n for shell in orbitals))


def confined_element(charge: int, wave_function: float, density: float) -> ConfinedElement:
    orbitals = [Shell(1, 0, min(charge, 2.0))]
    if charge > 2:
        orbitals += [Shell(2, 0, 2.0), Shell(2, 1, charge - 4.0)]
    atoms = AtomSolver(charge, orbitals, Functional("PBE"))
    return ConfinedElement(atoms.solve(wave_function), atoms.solve(density), (2, 2) if charge > 2 else (1,))


@pytest.mark.parametrize("distance", [0.4, 1.4, 3.0, 8.0])
def test_hydrogen_molecule_ion(distance: float) -> None:
    hydrogen = bare_element(1.0, [Shell(1, 0, 0.0)])
    forward, backward = PairIntegrator(hydrogen, hydrogen, BARE).integrals(distance)
    overlap = np.exp(-distance) * (1.0 + distance + distance**2 / 3.0)
    attraction = np.exp(-distance) * (1.0 + distance)  # <a| 1/r_b |b>
    np.testing.assert_allclose(forward[WIDTH + SS], overlap, atol=1e-6)
    np.testing.assert_allclose(forward[SS], -0.5 * overlap - attraction, atol=1e-6)
    np.testing.assert_array_equal(forward, backward)


@pytest.mark.parametrize("distance", [1.0, 4.0])
def test_overlap_of_2p_orbitals(distance: float) -> None:
    # Mulliken, Rieke, Orloff, Orloff, J. Chem. Phys. 17, 1248 (1949); their axes point at each other.
    hydrogen = bare_element(1.0, [Shell(1, 0, 0.0), Shell(2, 1, 0.0)])
    overlap = PairIntegrator(hydrogen, hydrogen, BARE).integrals(distance)[0][WIDTH:]
    p = distance / 2.0
    sigma = np.exp(-p) * (1.0 + p + p**2 / 5.0 - 2.0 * p**3 / 15.0 - p**4 / 15.0)
    pi = np.exp(-p) * (1.0 + p + 2.0 * p**2 / 5.0 + p**3 / 15.0)
    np.testing.assert_allclose(overlap[[PP_SIGMA, PP_PI]], [sigma, pi], atol=2e-6)


def pyscf_basis(atom: Atom, chosen: Iterable[int]) -> list[list[object]]:
    """The radial functions of an atom as contracted Gaussians, without those that count for nothing."""
    basis = []
    for k in chosen:
        ell = atom.shells[k].ell
        terms = atom.coefficients[k] / gto.gto_norm(ell, atom.exponents)
        kept = np.abs(terms) > 3e-6
        basis.append([ell, *np.stack([atom.exponents, terms], axis=1)[kept].tolist()])
    return basis


def valence_basis(element: ConfinedElement) -> list[list[object]]:
    chosen = [element.orbitals.index(n, ell) for ell, n in enumerate(element.valence)]
    return pyscf_basis(element.orbitals, chosen)


def pair_molecule(bases: list[list[list[object]]], symbols: str, distance: float) -> gto.Mole:
    (a, b), (first, second) = symbols.split(), bases
    return gto.M(
        atom=f"{a}@1 0 0 0; {b}@2 0 0 {distance}",
        basis={f"{a}@1": first, f"{b}@2": second},
        unit="bohr",
        spin=None,
        verbose=0,
    )


def test_all_integrals_of_s_p_and_d_agree_with_pyscf() -> None:
    orbitals = [Shell(1, 0, 0.0), Shell(2, 1, 0.0), Shell(3, 2, 0.0)]
    elements = bare_element(3.0, orbitals), bare_element(2.0, orbitals)
    distance = 2.2
    forward, backward = PairIntegrator(*elements, BARE).integrals(distance)
    molecule = pair_molecule([pyscf_basis(e.orbitals, [0, 1, 2]) for e in elements], "Li He", distance)
    hamiltonian = molecule.intor("int1e_kin") + molecule.intor("int1e_nuc")
    overlap = molecule.intor("int1e_ovlp")
    # PySCF's order: s; x, y, z; xy, yz, z2, xz, x2-y2.
    place = {(0, 0): 0, (1, 0): 3, (1, 1): 1, (2, 0): 6, (2, 1): 7, (2, 2): 8}
    for column, (l1, l2, m) in enumerate(INTEGRALS):
        for table, (row, other), sign in (
            (forward, (place[l1, m], 9 + place[l2, m]), 1.0),
            (backward, (place[l2, m], 9 + place[l1, m]), (-1.0) ** (l1 + l2)),
        ):
            expected = sign * np.array([hamiltonian[row, other], overlap[row, other]])
            np.testing.assert_allclose(table[[column, WIDTH + column]], expected, atol=1e-5)


def coulomb_with_hydrogen(molecule: gto.Mole, valence: int, occupations: dict[int, float]) -> np.ndarray:
    """<orbitals of a shell| V_Hartree |last orbital> of filled spherical shells (electrons by shell)."""
    last = molecule.nbas - 1
    total = 0.0
    for shell, electrons in occupations.items():
        bra, ket = (valence, valence + 1, last, last + 1), (shell, shell + 1, shell, shell + 1)
        repulsion = molecule.intor("int2e", shls_slice=bra + ket)[:, 0]
        total = total + electrons * np.trace(repulsion, axis1=1, axis2=2) / repulsion.shape[-1]
    return np.asarray(total)


def test_density_superposition_with_pbe_agrees_with_pyscf() -> None:
    distance = 2.1
    elements = confined_element(6, 3.1, 6.4), confined_element(1, 2.43, 2.875)
    forward, backward = PairIntegrator(*elements, Functional("PBE")).integrals(distance)
    bases = [pyscf_basis(e.density, range(len(e.density.shells))) + valence_basis(e) for e in elements]
    molecule = pair_molecule(bases, "C H", distance)
    # Shells: 1s, 2s of the density, 2s of the basis, 2p, 2p of carbon; 1s, 1s of hydrogen.
    occupations = {0: 2.0, 1: 2.0, 3: 2.0, 5: 1.0}
    starts, counts = molecule.ao_loc[:-1], np.diff(molecule.ao_loc)
    density = np.zeros(molecule.nao)
    for shell, electrons in occupations.items():
        density[starts[shell] : starts[shell] + counts[shell]] = electrons / counts[shell]
    grids = dft.gen_grid.Grids(molecule)
    grids.level = 4
    grids.build()
    xc = dft.numint.NumInt().nr_rks(molecule, grids, "pbe,pbe", np.diag(density))[2]
    hamiltonian = (molecule.intor("int1e_kin") + molecule.intor("int1e_nuc") + xc)[:, -1]
    s_s = hamiltonian[starts[2]] + coulomb_with_hydrogen(molecule, 2, occupations)[0]
    pz_s = hamiltonian[starts[4] + 2] + coulomb_with_hydrogen(molecule, 4, occupations)[2]
    np.testing.assert_allclose(forward[SS], s_s, atol=2e-5)
    np.testing.assert_allclose(-backward[SP], pz_s, atol=2e-5)


def test_quadrature_and_resampling_are_converged() -> None:
    pair = PairIntegrator(confined_element(8, 2.6, 4.0), confined_element(1, 2.43, 2.875), Functional("PBE"))
    for distance in (0.4, 1.8, 5.0):
        fine = pair.integrals(distance, HalfPlaneGrid(distance, 150, 80))[1]
        np.testing.assert_allclose(pair.integrals(distance)[1], fine, atol=7e-6)
    distances = np.linspace(1.0, 2.6, 17)
    table = np.stack([pair.integrals(float(distance))[1] for distance in distances])
    rows = resample(distances, table, 0.02)
    assert len(rows) == 130
    np.testing.assert_allclose(rows[round(1.84 / 0.02) - 1], pair.integrals(1.84)[1], atol=5e-6)
    np.testing.assert_array_equal(rows[0], table[0])


@published_sets
def test_carbon_at_the_radii_of_mio_gives_mio() -> None:
    # The radii stand in the documentation at the end of mio's C-C.skf: 2.7 and 7.0 bohr.
    mio = parse_skf((PUBLISHED_FOLDERS["dftb2-mio"] / "C-C.skf").read_bytes(), "mio", homonuclear=True)
    carbon = confined_element(6, 2.7, 7.0)
    pair = PairIntegrator(carbon, carbon, Functional("PBE"))
    for row in range(19, 480, 23):
        found = pair.integrals((row + 1) * mio.spacing)[0]
        np.testing.assert_allclose(found[:WIDTH], mio.hamiltonian[row], atol=1e-3)
        np.testing.assert_allclose(found[WIDTH:], mio.overlap[row], atol=1e-3)


def test_swapping_the_elements_swaps_the_tables() -> None:
    first, second = confined_element(6, 3.1, 6.4), confined_element(8, 2.6, 4.0)
    functional = Functional("PBE")
    forward, backward = PairIntegrator(first, second, functional).integrals(2.3)
    np.testing.assert_allclose(
        PairIntegrator(second, first, functional).integrals(2.3), [backward, forward], atol=1e-9
    )


def test_empty_shells_do_not_change_the_density() -> None:
    plain = confined_element(6, 2.7, 7.0)
    atoms = AtomSolver(6, [*plain.orbitals.shells, Shell(3, 2, 0.0)], Functional("PBE"))
    with_d = replace(plain, orbitals=atoms.solve(2.7), density=atoms.solve(7.0), valence=(2, 2, 3))
    found = PairIntegrator(with_d, plain, Functional("PBE")).integrals(2.5)[1]
    expected = PairIntegrator(plain, plain, Functional("PBE")).integrals(2.5)[1]
    sp = [column for column, integral in enumerate(INTEGRALS) if integral[1] < 2]
    np.testing.assert_allclose(found[sp], expected[sp], atol=1e-8)
    assert np.all(np.abs(found[[INTEGRALS.index((0, 2, 0)), INTEGRALS.index((1, 2, 1))]]) > 1e-3)
