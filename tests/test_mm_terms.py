"""Quartic and Morse bonds, CMAP and virtual sites: derivatives, invariances, and against OpenMM."""

from __future__ import annotations

import numpy as np
import pytest

from mm_systems import FORCE_FIELD, MIXED, TRICLINIC, mm_evaluator, on_atoms, scrambled
from pidelta.core.virtual_sites import ANGLE, DISTANCE, LINEAR, OUT_OF_PLANE, VirtualSites
from pidelta.errors import TopologyError
from pidelta.mm.topology import (
    CMAPs,
    Harmonic,
    MorseBonds,
    Pairs14,
    QuarticBonds,
    Topology,
    Torsions,
    join,
    unique_pairs,
)
from pidelta.testing.evaluators import check_evaluator
from pidelta.testing.samples import Sample
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KJ_PER_MOL

NM = 0.1 * BOHR_IN_ANGSTROM
KJ = HARTREE_IN_KJ_PER_MOL
CUTOFF = 11.0
NO_BONDS = Harmonic(np.zeros((0, 2), np.int64), np.zeros(0), np.zeros(0))
QUARTIC = QuarticBonds(
    np.array([[0, 1]]), np.array([0.3]), np.array([-0.4]), np.array([0.25]), np.array([2.7])
)
MORSE = MorseBonds(
    np.array([[1, 2], [2, 3]]), np.array([0.15, 0.17]), np.array([1.1, 1.2]), np.array([2.7, 2.5])
)
MAPS = CMAPs(
    np.array([[0, 1, 2, 3, 4], [5, 1, 2, 3, 4]]),
    np.array([1, 0]),
    np.random.default_rng(3).normal(scale=2e-3, size=(2, 24, 24)),
)
SITES = VirtualSites(
    np.array([[0, 1, 2], [1, 2, 5], [2, 3, 4], [3, 2, 1]]),
    np.array([LINEAR, DISTANCE, ANGLE, OUT_OF_PLANE]),
    np.array([[0.2, 0.3, 0.0], [0.4, 0.9, 0.0], [1.9, 1.1, 0.0], [0.3, -0.2, 0.25]]),
)


def topology(**changes):
    """Six atoms with all of the terms, and a virtual site of each kind."""
    values = {
        "source": "made up",
        "numbers": np.array([6, 6, 6, 6, 1, 8]),
        "masses": np.ones(6),
        "charges": np.array([0.1, -0.2, 0.3, -0.1, 0.1, -0.4, 0.3, -0.5, 0.6, -0.2]),
        "names": tuple("ABCDEF"),
        "residue_names": ("RES",) * 6,
        "residue_indices": np.zeros(6, dtype=np.int64),
        "residue_numbers": np.ones(6, dtype=np.int64),
        "segments": ("",) * 6,
        "bonds": NO_BONDS,
        "quartic_bonds": QUARTIC,
        "morse_bonds": MORSE,
        "angles": Harmonic(np.zeros((0, 3), np.int64), np.zeros(0), np.zeros(0)),
        "urey_bradley": NO_BONDS,
        "torsions": Torsions(
            np.zeros((0, 4), np.int64), np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0)
        ),
        "impropers": Harmonic(np.zeros((0, 4), np.int64), np.zeros(0), np.zeros(0)),
        "cmaps": MAPS,
        "sites": SITES,
        "massless_rows": np.array([2, 3, 6, 9]),
        "lj_types": np.array([0, 0, 0, 0, 1, 0, 1, 1, 1, 0]),
        "lj_c6": np.array([[20.0, 0.0], [0.0, 0.0]]),
        "lj_c12": np.array([[2e4, 0.0], [0.0, 0.0]]),
        # a site is excluded from what its parents are excluded from
        "exclusions": unique_pairs([(i, j) for i in range(10) for j in range(i) if (i, j) != (5, 4)]),
        "pairs14": Pairs14(np.array([[0, 4], [3, 6]]), np.full(2, 20.0), np.full(2, 2e4), np.full(2, 0.5)),
    }
    return Topology(**(values | changes))


def positions(seed):
    rng = np.random.default_rng(seed)
    return MIXED + rng.normal(scale=0.1, size=MIXED.shape)


def two_molecules(seed):
    shift = np.array([0.45, 0.5, 0.4]) @ TRICLINIC
    return np.concatenate([positions(seed), positions(seed + 1) + shift])


@pytest.mark.parametrize("cell", [TRICLINIC, None], ids=["triclinic", "open"])
def test_derivatives_and_invariances(cell):
    system = join([topology(), topology()])
    evaluator = on_atoms(mm_evaluator(system, cutoff=None if cell is None else CUTOFF))
    batch = np.stack([two_molecules(0), two_molecules(5)])
    cells = None if cell is None else np.stack([cell, cell])
    check_evaluator(evaluator, Sample(batch, cells, system.residue_indices), FORCE_FIELD)
    components = evaluator.evaluate(batch, cells).components
    assert min(np.abs(components[name]).min() for name in ("quartic_bond", "morse_bond", "cmap")) > 1e-5


def openmm_system(openmm):
    """The same terms from OpenMM's own forces and sites, by molecule: (system, name of each force)."""
    system = openmm.System()
    top = topology()
    for _ in range(6):
        system.addParticle(1.0)
    for _ in range(4):
        system.addParticle(0.0)
    (a, b), (c, d), (theta, length), (e, f, g) = (
        SITES.parameters[0, :2],
        SITES.parameters[1, :2],
        SITES.parameters[2, :2],
        SITES.parameters[3],
    )
    system.setVirtualSite(6, openmm.ThreeParticleAverageSite(0, 1, 2, 1 - a - b, a, b))
    # the local x axis along r_ij + a r_jk, y anywhere else
    system.setVirtualSite(
        7,
        openmm.LocalCoordinatesSite(
            [1, 2, 5], [1, 0, 0], [-1, 1 - c, c], [-1, 0, 1], openmm.Vec3(d * NM, 0, 0)
        ),
    )
    local = openmm.Vec3(length * np.cos(theta) * NM, length * np.sin(theta) * NM, 0)
    # x along r_ij, y the part of r_ik across it
    system.setVirtualSite(8, openmm.LocalCoordinatesSite([2, 3, 4], [1, 0, 0], [-1, 1, 0], [-1, 0, 1], local))
    system.setVirtualSite(9, openmm.OutOfPlaneSite(3, 2, 1, e, f, g / NM))
    system.addForce(_custom_bonds(openmm))
    system.addForce(_morse_bonds(openmm))
    system.addForce(_cmaps(openmm))
    coulomb = openmm.CustomBondForce(f"{138.93545764438198}*qq/r")
    coulomb.addPerBondParameter("qq")
    excluded = {tuple(pair) for pair in top.exclusions.tolist()}
    for i in range(10):
        for j in range(i + 1, 10):
            if (i, j) not in excluded:
                coulomb.addBond(i, j, [top.charges[i] * top.charges[j]])
    for (i, j), scale in zip(top.pairs14.atoms.tolist(), top.pairs14.coulomb_scale, strict=True):
        coulomb.addBond(i, j, [scale * top.charges[i] * top.charges[j]])
    system.addForce(coulomb)
    return system


def _custom_bonds(openmm):
    force = openmm.CustomBondForce("k2*(r-r0)^2 + k3*(r-r0)^3 + k4*(r-r0)^4")
    for name in ("k2", "k3", "k4", "r0"):
        force.addPerBondParameter(name)
    scaled = [(KJ * k[0] / NM**n) for n, k in ((2, QUARTIC.k2), (3, QUARTIC.k3), (4, QUARTIC.k4))]
    force.addBond(0, 1, [*scaled, QUARTIC.x0[0] * NM])
    return force


def _morse_bonds(openmm):
    force = openmm.CustomBondForce("d*(1-exp(-beta*(r-r0)))^2")
    for name in ("d", "beta", "r0"):
        force.addPerBondParameter(name)
    for t, (i, j) in enumerate(MORSE.atoms.tolist()):
        force.addBond(i, j, [MORSE.depth[t] * KJ, MORSE.beta[t] / NM, MORSE.x0[t] * NM])
    return force


def _cmaps(openmm):
    force = openmm.CMAPTorsionForce()
    for grid in MAPS.grids:
        # OpenMM's maps start at 0 and have the first angle as their fast index
        from_zero = np.roll(grid, (-12, -12), axis=(0, 1))
        force.addMap(24, (from_zero.T * KJ).ravel().tolist())
    for index, (i, j, k, m, n) in zip(MAPS.maps.tolist(), MAPS.atoms.tolist(), strict=True):
        force.addTorsion(index, i, j, k, m, j, k, m, n)
    return force


def test_same_as_openmm():
    openmm = pytest.importorskip("openmm")
    system = openmm_system(openmm)
    for group, force in enumerate(system.getForces()):
        force.setForceGroup(group)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    no_lj = np.zeros((2, 2))
    pairs = topology().pairs14
    without_lj = Pairs14(pairs.atoms, np.zeros(2), np.zeros(2), pairs.coulomb_scale)
    top = topology(lj_c6=no_lj, lj_c12=no_lj, pairs14=without_lj)
    x = positions(2)
    context.setPositions(np.concatenate([x, np.zeros((4, 3))]) * NM)
    context.computeVirtualSites()
    placed = context.getState(getPositions=True).getPositions(asNumpy=True)._value / NM
    np.testing.assert_allclose(top.particles.place(x[None], None)[0], placed, atol=1e-9)
    term = on_atoms(mm_evaluator(top, cutoff=None)).evaluate(x[None], None)
    found = [term.components[name][0] for name in ("quartic_bond", "morse_bond", "cmap")]
    found.append(term.components["coulomb"][0] + term.components["coulomb14"][0])
    energies = [
        context.getState(getEnergy=True, groups={g}).getPotentialEnergy()._value / KJ for g in range(4)
    ]
    np.testing.assert_allclose(found, energies, rtol=1e-8)
    forces = context.getState(getForces=True).getForces(asNumpy=True)._value[:6] * NM / KJ
    np.testing.assert_allclose(term.gradient[0], -forces, atol=1e-9)


def test_sites_are_placed_next_to_the_image_of_their_first_atom():
    whole = topology().particles.place(positions(0)[None], TRICLINIC[None])[0]
    moved = scrambled(positions(0), TRICLINIC, seed=1)
    broken = topology().particles.place(moved[None], TRICLINIC[None])[0]
    first = SITES.parents[:, 0]
    np.testing.assert_allclose(broken[6:] - moved[first], whole[6:] - whole[first], atol=1e-9)


def test_joined_molecules_keep_their_own_terms_and_sites():
    one, two = topology(), topology()
    system = join([one, two])
    assert (len(system), system.n_particles) == (12, 20)
    x = two_molecules(0)
    far = x + np.repeat([[0.0, 0.0, 0.0], [1e6, 0.0, 0.0]], 6, axis=0)
    apart = [on_atoms(mm_evaluator(one, cutoff=None)).evaluate(part[None], None) for part in (x[:6], x[6:])]
    together = on_atoms(mm_evaluator(system, cutoff=None)).evaluate(far[None], None)
    np.testing.assert_allclose(together.energy, apart[0].energy + apart[1].energy, rtol=1e-9)
    np.testing.assert_array_equal(system.massless_rows, [2, 3, 6, 9, 12, 13, 16, 19])


def test_sites_of_a_qm_region_lose_their_charge():
    system = join([topology(), topology()]).without_internal(range(6))
    np.testing.assert_array_equal(system.charges[12:16], 0.0)
    np.testing.assert_array_equal(system.charges[16:], topology().charges[6:])
    assert (len(system.morse_bonds.atoms), len(system.cmaps.atoms)) == (2, 2)


def test_a_region_must_not_cut_a_site():
    no_pairs = topology().pairs14.select(np.zeros(2, dtype=bool))
    none = {"quartic_bonds": QuarticBonds(), "morse_bonds": MorseBonds(), "cmaps": CMAPs()}
    free = topology(**none, pairs14=no_pairs)
    with pytest.raises(TopologyError, match="cuts the virtual site RES1:A"):
        free.without_internal([0, 1])
