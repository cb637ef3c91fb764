"""Structures to check with, the atoms of them by kind, and how exact results can be expected to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pidelta.core.cell import minimum_image
from pidelta.qmmm.energy import QMMMEvaluator
from pidelta.qmmm.surroundings import CutRegion
from pidelta.state import BoolArray, FloatArray, IntArray, System


@dataclass(frozen=True)
class Sample:
    """Structures to check with.

    Attributes:
        positions: (B, N, 3) of at least two structures in bohr, away from discontinuities of the energy.
        cells: (B, 3, 3) lattice vectors as rows in bohr, or None.
        molecules: (N,) molecule of each atom, which lattice vectors are added to.
        alike: atoms of two molecules that the terms treat alike, which change places; or None.
    """

    positions: FloatArray
    cells: FloatArray | None
    molecules: IntArray
    alike: tuple[IntArray, IntArray] | None = None

    @classmethod
    def of(cls, system: System, bonds: IntArray, qm_indices: IntArray, seed: int = 0) -> Sample:
        """The structure of a set-up, and the same with displaced atoms in a cell 1 % wider.

        Args:
            system: atoms, positions and cell.
            bonds: (n, 2) bonded atoms.
            qm_indices: (n,) the QM atoms. Molecules with one of them do not change places.
            seed: of the displacements, 0.05 bohr in RMS along each axis.
        """
        n = len(system)
        graph = coo_matrix((np.ones(len(bonds)), (bonds[:, 0], bonds[:, 1])), shape=(n, n))
        molecules = connected_components(graph, directed=False)[1].astype(np.int64)
        other = system.positions + np.random.default_rng(seed).normal(scale=0.05, size=(n, 3))
        cells = None if system.cell is None else np.stack([system.cell, 1.01 * system.cell])
        positions = np.stack([system.positions, other])
        return cls(positions, cells, molecules, _alike(system, molecules, qm_indices))

    def cell(self, b: int) -> FloatArray | None:
        """(3, 3) of structure b, or None."""
        return None if self.cells is None else self.cells[b]


def _alike(system: System, molecules: IntArray, qm: IntArray) -> tuple[IntArray, IntArray] | None:
    """Two molecules of the same atoms by name and residue: the nearest to the QM region, and the farthest."""
    members = [np.flatnonzero(molecules == molecule) for molecule in range(int(molecules.max()) + 1)]
    members = [atoms for atoms in members if not np.isin(atoms, qm).any()]
    centre = system.positions[qm[0]] if len(qm) else system.positions[0]
    first = np.array([system.positions[atoms[0]] for atoms in members]).reshape(-1, 3)
    distances = np.linalg.norm(minimum_image(first - centre, system.cell), axis=1)
    kinds: dict[tuple[object, ...], list[IntArray]] = {}
    for place in np.argsort(distances):
        atoms = members[place]
        key = tuple((system.names[i], system.residue_names[i], int(system.numbers[i])) for i in atoms)
        kinds.setdefault(key, []).append(atoms)
    pairs = [found for found in kinds.values() if len(found) > 1]
    return (pairs[0][0], pairs[0][-1]) if pairs else None


@dataclass(frozen=True)
class Tolerances:
    """How exact results can be expected to be, by what the evaluator is made of; all in atomic units.

    Attributes:
        scc: largest change of a charge, in e, at which the QM method takes it for converged
            (`dftb.scc.tolerance`); 0 without. Gradients are off by as much, energies by its square.
        mesh: relative error of forces that an Ewald sum is made for (`mm.ewald_tolerance`); 0 without. On a
            mesh a translation changes the energy, forces do not add up to zero, and the direct part of the
            sum, switched off at its cutoff, leaves steps in forces of that size.
        rounding: of all terms.
        step: of differences in bohr. For single precision, 0.02 with a `rounding` of 1e-5.
        virial: whether the evaluator has a virial; if not, NaN is expected in its place.
    """

    scc: float = 1e-8
    mesh: float = 0.0
    rounding: float = 1e-10
    step: float = 1e-3
    virial: bool = True

    @property
    def gradient(self) -> float:
        """Of a component against differences, which meet the third derivative of the switch as well."""
        return 2e-8 + self.scc + 0.02 * self.mesh + 0.1 * self.rounding / self.step

    @property
    def strain(self) -> float:
        """Of a component of the virial against differences: lengths up to some 10 bohr in it."""
        return 10.0 * self.gradient

    def same(self, quantity: str) -> float:
        """Of an energy, gradient or virial that is the same by symmetry, or evaluated twice."""
        if quantity == "energy":
            return self.rounding + self.scc**2
        return (self.rounding + self.scc) * (10.0 if quantity == "virial" else 1.0)

    def translated(self, quantity: str) -> float:
        """Of the same at another place on the mesh."""
        return self.same(quantity) + self.mesh


def kinds_of_atoms(
    evaluator: QMMMEvaluator, positions: FloatArray, cell: FloatArray | None, count: int
) -> Mapping[str, IntArray]:
    """Up to `count` atoms of each kind that an energy may treat by a rule of its own.

    Args:
        evaluator: the QM region, its particles and surroundings.
        positions: (N, 3) in bohr.
        cell: (3, 3) lattice vectors as rows in bohr, or None.
        count: of atoms of a kind.

    Returns:
        atoms by kind: ``QM``, ``link partner`` and ``host`` (the QM and the MM end of a bond with a link
        hydrogen), ``next to the host`` (on a bond with charges of their own), ``parent of a site``, ``near
        MM`` (both by their distance from the QM region), ``being switched off`` and ``far``. Each atom is of
        the first of these kinds that fits.
    """
    n = len(evaluator.numbers)
    partition = evaluator.partition
    if partition is None or evaluator.surroundings is None:
        return {"MM": np.unique(np.linspace(0, n - 1, 4 * count).astype(np.int64))}
    cells = None if cell is None else cell[None]
    particles = evaluator.particles.place(positions[None], cells)
    region = evaluator.surroundings.cut(particles, cells)
    vectors = positions[:, None] - region.positions[0][None]
    distances = np.linalg.norm(minimum_image(vectors, cell), axis=2).min(axis=1)
    by_distance = np.argsort(distances, kind="stable")
    hydrogens = partition.qm_indices[len(partition.qm_atoms) :] - n
    parents = evaluator.particles.sites.parents
    cut, others = parents[hydrogens], np.delete(parents, hydrogens, axis=0)
    is_qm = np.isin(cut, partition.qm_atoms)
    candidates = {
        "link partner": np.unique(cut[is_qm]),
        "host": np.unique(cut[~is_qm]),
        "QM": partition.qm_atoms,
        "next to the host": np.unique(others[np.isin(others, cut[~is_qm]).any(axis=1)]),
        "parent of a site": by_distance[np.isin(by_distance, others)],
        "near MM": by_distance,
        "being switched off": _switched(evaluator, region)[:n].nonzero()[0],
        "far": by_distance[::-1],
    }
    chosen: dict[str, IntArray] = {}
    taken = np.zeros(n, dtype=np.bool_)
    for kind, atoms in candidates.items():
        free = atoms[~taken[atoms]]
        chosen[kind] = free[:count] if kind in _BY_DISTANCE else _spread(free, count)
        taken[chosen[kind]] = True
        if kind == "parent of a site":  # the kinds after this one are of MM atoms
            taken[partition.qm_atoms] = True
    return {kind: atoms for kind, atoms in chosen.items() if len(atoms)}


_BY_DISTANCE = ("parent of a site", "near MM", "far")


def _spread(atoms: IntArray, count: int) -> IntArray:
    return atoms[np.unique(np.linspace(0, len(atoms) - 1, min(count, len(atoms))).astype(np.int64))]


def _switched(evaluator: QMMMEvaluator, region: CutRegion) -> BoolArray:
    """Which particles (P,) count in part; atoms of a group of sites, too, whose own charge is zero."""
    assert evaluator.partition is not None
    partition = evaluator.partition
    particles = region.site_particles[0]
    charges = np.where(particles >= 0, partition.charges[particles], 0.0)
    charged = charges != 0.0
    weights = region.site_charges[0, charged] / charges[charged]
    found = np.zeros(len(partition.numbers), dtype=np.bool_)
    found[particles[charged][(weights > 0.05) & (weights < 0.95)]] = True
    n, sites = len(evaluator.numbers), evaluator.particles.sites
    found[sites.parents[found[n : n + len(sites)]].ravel()] = True
    return found
