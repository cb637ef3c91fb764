"""Made-up systems that the tests of `pidelta.qmmm` share."""

from __future__ import annotations

import numpy as np

from pidelta.core.charge_fields import ChargeFields
from pidelta.core.particles import Particles
from pidelta.core.virtual_sites import VirtualSites
from pidelta.mm.topology import Harmonic, Pairs14, Topology, Torsions
from pidelta.qmmm.coupling import CutoffCoupling
from pidelta.qmmm.energy import QMMMEvaluator
from pidelta.qmmm.groups import make_groups
from pidelta.qmmm.partition import Partition
from pidelta.qmmm.pme_coupling import PMECoupling
from pidelta.qmmm.surroundings import CutoffSurroundings
from pidelta.testing.samples import Sample


def bare_topology(residues, charges, bonds, sites=None, names=None) -> Topology:
    """Oxygen atoms by residue with bonds (n, 2) and charges, those of virtual sites last; no other terms."""
    n, bonds = len(residues), np.reshape(bonds, (-1, 2)).astype(np.int64)
    return Topology(
        source="made-up.top",
        numbers=np.full(n, 8),
        masses=np.ones(n),
        charges=np.asarray(charges, dtype=np.float64),
        names=tuple(names or (f"X{i}" for i in range(n))),
        residue_names=("RES",) * n,
        residue_indices=np.asarray(residues, dtype=np.int64),
        residue_numbers=np.asarray(residues, dtype=np.int64) + 1,
        segments=("",) * n,
        bonds=Harmonic(bonds, np.ones(len(bonds)), np.ones(len(bonds))),
        angles=Harmonic.none(3),
        urey_bradley=Harmonic.none(2),
        torsions=Torsions(),
        impropers=Harmonic.none(4),
        lj_types=np.zeros(len(charges), dtype=np.int64),
        lj_c6=np.zeros((1, 1)),
        lj_c12=np.zeros((1, 1)),
        exclusions=np.zeros((0, 2), dtype=np.int64),
        pairs14=Pairs14(),
        sites=VirtualSites() if sites is None else sites,
    )


def embedded(topology, qm, positions, cell, cutoff, switch, **grouping) -> QMMMEvaluator:
    """QM atoms, the charge groups around them and the coupling to these; no terms."""
    qm_particles = topology.with_sites(np.asarray(qm))
    cells = None if cell is None else cell[None]
    partition = Partition(
        np.concatenate([topology.numbers, np.zeros(len(topology.sites), dtype=np.int64)]),
        np.asarray(qm),
        topology.without_internal(qm).charges,
        make_groups(
            topology,
            np.setdiff1d(np.arange(topology.n_particles), qm_particles),
            topology.particles.place(positions[None], cells)[0],
            cell,
            **grouping,
        ),
    )
    surroundings = CutoffSurroundings(partition, cutoff, switch, cell)
    return QMMMEvaluator(
        topology.numbers,
        cell is not None,
        topology.particles,
        partition=partition,
        surroundings=surroundings,
        coupling=CutoffCoupling(surroundings),
    )


def smooth_step(r, start, stop):
    """1 - 10 x^3 + 15 x^4 - 6 x^5, x from 0 at `start` to 1 at `stop`, and its derivative in r."""
    x = np.clip((np.asarray(r) - start) / (stop - start), 0.0, 1.0)
    return 1.0 - 10.0 * x**3 + 15.0 * x**4 - 6.0 * x**5, -30.0 * (x - x**2) ** 2 / (stop - start)


def sample_of(setup):
    """The structure of a set-up, to check its evaluator with."""
    return Sample.of(setup.system, setup.topology.bonded_pairs, setup.qm_indices)


class LossyParticles(Particles):
    """Forces on virtual sites, link hydrogens among them, are lost."""

    def pull_back(self, particles, cells, gradient, virial):
        return gradient[:, : self.n_atoms].copy(), virial


def pme_coupling(partition, reciprocal, cutoff) -> PMECoupling:
    """By a reciprocal sum of its own."""
    return PMECoupling(partition, ChargeFields(reciprocal, partition.charges), cutoff)
