"""Solvent and ions in the QM region, near it and far, slabs and chains without an end, flat cells.

Each by both couplings: differences of the energy, lattice vectors, batches; and for the Ewald sum the energy
of the whole cell, from a sum of another splitting over images, and the Coulomb energy of the force field.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from mm_systems import mm_evaluator
from pidelta.core.ewald import EwaldSum
from pidelta.core.pme import ParticleMeshEwald, grid_for, reciprocal_sum
from pidelta.mm.topology import Topology
from pidelta.testing.evaluators import (
    check_batch,
    check_gradient,
    check_gradient_of_all,
    check_lattice_invariance,
    check_virial,
)
from pidelta.testing.qmmm import FixedChargeEngine, check_qmmm
from pidelta.testing.samples import Sample, Tolerances, kinds_of_atoms
from qmmm_systems import bare_topology, embedded, pme_coupling
from test_core_ewald import whole_energy
from test_qmmm_surroundings import CUBE, TRICLINIC, make_system, perturbed

FLAT = np.array([[33.0, 0.0, 0.0], [5.0, 33.0, 0.0], [3.0, -2.0, 12.5]])
EXACT = Tolerances(scc=0.0, rounding=1e-11)
QM_CHARGE = 0.6  # no region is neutral


@dataclass(frozen=True)
class Case:
    """A system with a QM region and fixed charges for it; lengths in bohr."""

    topology: Topology
    positions: np.ndarray
    cell: np.ndarray
    qm: np.ndarray
    charges: np.ndarray
    alike: tuple
    cutoff: float = 10.0
    units: str = "residue"

    @property
    def evaluator(self):
        return embedded(self.topology, self.qm, self.positions, self.cell, self.cutoff, 3.0, unit=self.units)

    @property
    def all_charges(self):
        charges = self.topology.charges.copy()
        charges[self.qm] = self.charges
        return charges


def make_case(topology, positions, cell, qm, alike, **options):
    qm = np.sort(np.asarray(qm))
    charges = np.random.default_rng(8).normal(scale=0.4, size=len(qm))
    charges += (QM_CHARGE - charges.sum()) / len(qm)
    inside = np.array([[i, j] for i in qm for j in qm if i < j])
    outside = topology.bonds.atoms[~np.isin(topology.bonds.atoms, qm).any(axis=1)]
    topology = replace(topology, exclusions=np.concatenate([inside, outside]))
    return Case(topology, positions, cell, qm, charges, alike, **options)


def from_first(positions, cell):
    """Distance of each group of three from the first atom."""
    d = positions - positions[0]
    d -= np.rint(d @ np.linalg.inv(cell)) @ cell
    return np.linalg.norm(d, axis=1).reshape(-1, 3).max(axis=1)


def solvent_inside(cell):
    """A molecule and the two next to it."""
    topology, positions = make_system(cell)
    nearest = np.argsort(from_first(positions, cell))[:3]
    rest = np.setdiff1d(np.arange(20, 60), nearest)[:2]
    return make_case(
        topology, positions, cell, (3 * nearest[:, None] + np.arange(3)).ravel(), tuple(
            [list(range(3 * m, 3 * m + 3)) for m in rest]
        ),
    )  # fmt: skip


def several_molecules(cell):
    """Two molecules, solvent between them."""
    topology, positions = make_system(cell)
    distances = from_first(positions, cell)
    other = np.argmin(np.abs(distances - 8.5))
    assert 7.5 < distances[other] < 9.5
    assert np.count_nonzero(distances < 7.5) > 2
    rest = np.setdiff1d(np.arange(20, 60), other)[:2]
    qm = np.concatenate([np.arange(3), 3 * other + np.arange(3)])
    return make_case(topology, positions, cell, qm, tuple(3 * m + np.arange(3) for m in rest))


def larger_than_the_cutoff(cell):
    """A chain of 11 bohr, the cutoff 7."""
    chain = 0.5 * cell.sum(axis=0) + np.array([[2.2 * i - 5.5, 0.8 * (i % 2), 0.0] for i in range(6)])
    topology, positions = make_system(cell)
    apart = np.linalg.norm(positions[3:, None] - chain, axis=2).min(axis=1).reshape(-1, 3).min(axis=1) > 3.0
    kept = np.repeat(apart, 3)
    positions = np.concatenate([chain, positions[3:][kept]])
    charges = np.concatenate([np.zeros(6), topology.charges[3:][kept]])
    molecules = np.arange(apart.sum())
    residues = np.concatenate([np.zeros(6, dtype=int), np.repeat(molecules + 1, 3)])
    bonds = [[i, i + 1] for i in range(5)]
    bonds += [[6 + 3 * m, 6 + 3 * m + place] for m in molecules for place in (1, 2)]
    topology = bare_topology(residues, charges, bonds)
    return make_case(
        topology, positions, cell, np.arange(6), (np.arange(6, 9), np.arange(30, 33)), cutoff=7.0
    )


def ions_near(cell):
    """Every tenth group a cation or an anion, some of them next to the region and some being switched off."""
    topology, positions = make_system(cell)
    charges = topology.charges.copy()
    charges[3::30] += 1.0
    charges[18::30] -= 1.1
    near = np.argsort(from_first(positions, cell))[1:3]
    charges[3 * near[0]] += 1.0
    charges[3 * near[1]] -= 1.0
    return make_case(
        replace(topology, charges=charges), positions, cell, np.arange(3), (np.arange(6, 9), np.arange(9, 12))
    )


def beside_a_network(positions, charges, bonds, cell, qm, **options):
    """Three QM atoms, an endless network of bonded atoms, and some solvent where there is room."""
    solvent, places = make_system(cell, groups=40)
    taken = np.concatenate([positions, qm])
    d = places[3:, None] - taken
    d -= np.rint(d @ np.linalg.inv(cell)) @ cell
    apart = np.linalg.norm(d, axis=2).min(axis=1).reshape(-1, 3).min(axis=1) > 3.5
    kept, n = np.repeat(apart, 3), len(positions)
    residues = np.concatenate(
        [np.zeros(3, dtype=int), np.ones(n, dtype=int), np.repeat(np.arange(apart.sum()) + 2, 3)]
    )
    first = 3 + n + 3 * np.arange(apart.sum())
    all_bonds = np.concatenate(
        [[[0, 1], [1, 2]], np.asarray(bonds) + 3, *(np.stack([first, first + k], axis=1) for k in (1, 2))]
    )
    topology = bare_topology(
        residues, np.concatenate([np.zeros(3), charges, solvent.charges[3:][kept]]), all_bonds
    )
    everyone = np.concatenate([qm, positions, places[3:][kept]])
    alike = first[0] + np.arange(3), first[1] + np.arange(3)
    return make_case(topology, everyone, cell, np.arange(3), alike, **options)


def slab(cell):
    """A sheet of 8 x 8 atoms of alternating charge, bonded through all faces it meets; the QM atoms on it."""
    i, j = (index.ravel() for index in np.meshgrid(np.arange(8), np.arange(8), indexing="ij"))
    rng = np.random.default_rng(6)
    fractional = np.stack([i / 8, j / 8, np.full(64, 0.3)], axis=1)
    positions = fractional @ cell + rng.normal(scale=0.1, size=(64, 3))
    charges = np.where((i + j) % 2, 0.4, -0.4)
    bonds = np.concatenate(
        [np.stack([8 * i + j, (8 * ((i + 1) % 8)) + j], 1), np.stack([8 * i + j, 8 * i + (j + 1) % 8], 1)]
    )
    qm = np.array([0.02, 0.5, 0.3]) @ cell + np.array([[0.0, 0.0, 4.0], [2.0, 0.3, 4.5], [1.0, 1.8, 5.5]])
    return beside_a_network(positions, charges, bonds, cell, qm)


def chain(cell, **options):
    """A chain of 9 atoms, bonded to itself across the face of the cell; the QM atoms near that bond."""
    rng = np.random.default_rng(7)
    along = np.stack([np.arange(9) / 9, np.full(9, 0.5), np.full(9, 0.4)], axis=1)
    positions = along @ cell + rng.normal(scale=0.1, size=(9, 3))
    charges = np.tile([0.3, -0.5, 0.2], 3)
    bonds = np.stack([np.arange(9), (np.arange(9) + 1) % 9], axis=1)
    qm = np.array([0.97, 0.5, 0.4]) @ cell + np.array([[0.0, 0.0, 4.0], [2.0, 0.3, 4.5], [1.0, 1.8, 5.5]])
    return beside_a_network(positions, charges, bonds, cell, qm, **options)


def flat(_):
    """A cell three times as wide as high: above and below the region there are its own images."""
    topology, positions = make_system(FLAT, groups=80)
    return make_case(
        topology, positions, FLAT, np.arange(3), (np.arange(3, 6), np.arange(60, 63)), cutoff=6.0
    )


CASES = {
    "solvent inside": (solvent_inside, TRICLINIC),
    "several molecules": (several_molecules, CUBE),
    "larger than the cutoff": (larger_than_the_cutoff, CUBE),
    "ions near": (ions_near, TRICLINIC),
    "slab": (slab, CUBE),
    "chain": (chain, TRICLINIC),
    "chain, one group": (lambda cell: chain(cell, units="molecule"), CUBE),
    "flat cell": (flat, FLAT),
}


@pytest.fixture(params=CASES)
def case(request):
    build, cell = CASES[request.param]
    return build(cell)


def ewald_coupling(case):
    """Its direct part ends at 1e-16 of its value."""
    return pme_coupling(case.evaluator.partition, EwaldSum(5.9 / case.cutoff, 1e-14), case.cutoff)


@pytest.fixture
def sample(case):
    return Sample(*perturbed(case.positions, case.cell), case.topology.residue_indices, case.alike)


def with_charges(case, coupling):
    """The energy of the QM charges in the field of a coupling."""
    engine = FixedChargeEngine(case.evaluator.partition.qm_numbers, case.charges)
    return replace(case.evaluator, coupling=coupling, engine=engine)


def test_conformance_within_a_cutoff(case, sample):
    check_qmmm(with_charges(case, case.evaluator.coupling), sample, EXACT, count=2)


def test_on_a_mesh(case, sample):
    """Derivatives, lattice vectors and batches; the direct part ends at 3e-9 of its value."""
    alpha = 4.2 / case.cutoff
    mesh = ParticleMeshEwald(alpha, grid_for(case.cell, alpha, 1e-4))
    evaluator = with_charges(case, pme_coupling(case.evaluator.partition, mesh, case.cutoff))
    for atoms in kinds_of_atoms(evaluator, case.positions, case.cell, 1).values():
        check_gradient(evaluator, case.positions, case.cell, atoms, EXACT)
    check_gradient_of_all(evaluator, sample.positions[1], sample.cell(1), EXACT)
    check_virial(evaluator, sample.positions[1], sample.cell(1), EXACT)
    check_lattice_invariance(evaluator, case.positions, case.cell, sample.molecules, EXACT)
    check_batch(evaluator, sample, EXACT)


def field_of(case, coupling):
    cells, positions = case.cell[None], case.positions[None]
    return coupling.field(positions, cells, case.evaluator.surroundings.cut(positions, cells))


def energy_of(case, coupling):
    """Of the QM charges in the field of the cell, without that of the region by itself; and its positions."""
    field, q = field_of(case, coupling), case.charges
    return float(field.potential[0] @ q + 0.5 * q @ field.kernel[0] @ q), field.region.positions[0]


def test_ewald_energy_of_the_whole(case):
    found, qm = energy_of(case, ewald_coupling(case))
    q = case.charges
    for a in range(len(q)):
        found += sum(q[a] * q[b] / np.linalg.norm(qm[a] - qm[b]) for b in range(a))
    mm = np.delete(np.arange(len(case.positions)), case.qm)
    charges, reference = case.all_charges, EwaldSum(0.45, 1e-15)
    expected = whole_energy(reference, case.positions, charges, case.cell, 13.0)
    expected -= whole_energy(reference, case.positions[mm], charges[mm], case.cell, 13.0)
    assert found == pytest.approx(expected, abs=2e-10)


@pytest.mark.parametrize("method", ["ewald", "pme"])
def test_the_force_field_and_the_coupling_add_up(case, method):
    """To the Coulomb energy of the force field with these charges, excluded pairs of both parts left out."""
    cutoff = min(11.5, case.cutoff)
    settings = {"cutoff": cutoff, "cell": case.cell, "electrostatics": method, "ewald_tolerance": 1e-5}
    whole = replace(case.topology, charges=case.all_charges)
    left = case.topology.without_internal(case.qm)
    energies = [
        mm_evaluator(topology, **settings)
        .evaluate(case.positions[None], case.cell[None])
        .components["coulomb"][0]
        for topology in (whole, left)
    ]
    coupling = pme_coupling(case.evaluator.partition, reciprocal_sum(method, cutoff, 1e-5, case.cell), cutoff)
    found, _ = energy_of(case, coupling)
    assert energies[1] + found == pytest.approx(energies[0], abs=1e-8)


def test_images_of_a_flat_cell_are_those_of_three_cells():
    """Three times the energy of the cell is that of three cells on top of each other."""
    case = flat(None)
    found, qm = energy_of(case, ewald_coupling(case))
    q, charges = case.charges, case.all_charges
    for a in range(3):
        found += sum(q[a] * q[b] / np.linalg.norm(qm[a] - qm[b]) for b in range(a))
    mm = np.arange(3, len(charges))
    tall, energies = FLAT * np.array([[1.0], [1.0], [3.0]]), []
    for atoms in (np.arange(len(charges)), mm):
        positions = np.concatenate([case.positions[atoms] + k * FLAT[2] for k in range(3)])
        energies.append(
            whole_energy(EwaldSum(0.45, 1e-15), positions, np.tile(charges[atoms], 3), tall, 13.0)
        )
    assert 3.0 * found == pytest.approx(energies[0] - energies[1], abs=1e-9)
    higher = replace(case, cell=FLAT * np.array([[1.0], [1.0], [1.02]]))
    kernels = [field_of(one, ewald_coupling(one)).kernel[0] for one in (case, higher)]
    assert abs(q @ (kernels[1] - kernels[0]) @ q) > 1e-4  # images do matter
