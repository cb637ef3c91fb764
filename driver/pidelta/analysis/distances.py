"""Radial distribution functions: water, and QM sites with water."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pidelta.analysis.composition import Composition
from pidelta.analysis.run_files import BeadFrames
from pidelta.analysis.sections import Curve, Number, Panel, Picture, Section
from pidelta.analysis.statistics import Mean
from pidelta.core.cell import heights
from pidelta.state import FloatArray, IntArray
from pidelta.units import BOHR_IN_ANGSTROM

_LONGEST, _BINS = 8.0, 160  # angstrom
_BLOCKS = 8
_FEWEST_STRUCTURES, _MOST_STRUCTURES, _MOST_ATOMS = 40, 400, 200_000


@dataclass(frozen=True)
class Pair:
    """Two kinds of atoms between which distances are counted."""

    name: str
    first: IntArray
    second: IntArray


@dataclass(frozen=True)
class RadialDistribution:
    """g(r) of one pair; r in angstrom, one standard error from blocks in time."""

    name: str
    r: FloatArray
    g: FloatArray
    error: FloatArray


def pairs_of(composition: Composition) -> list[Pair]:
    """O-O, O-H and H-H of water, and the elements of the QM region with O and H of water.

    Hydrogens of the QM region are told apart by the heavier atom that they are bound to.

    Returns:
        Pairs between different molecules; none where nothing tells molecules apart.
    """
    waters, molecules = composition.waters, composition.molecules
    if not len(waters) or molecules is None:
        return []
    oxygens, hydrogens = waters[:, 0], waters[:, 1:].ravel()
    pairs = [Pair("water O - water O", oxygens, oxygens), Pair("water O - water H", oxygens, hydrogens)]
    pairs.append(Pair("water H - water H", hydrogens, hydrogens))
    for name, atoms in _sites(composition).items():
        pairs += [
            Pair(f"QM {name} - water O", atoms, oxygens),
            Pair(f"QM {name} - water H", atoms, hydrogens),
        ]
    return [pair for pair in pairs if _count_pairs(pair, molecules)]


def radial_distributions(
    pairs: Sequence[Pair], positions: BeadFrames, molecules: IntArray, most: int
) -> list[RadialDistribution]:
    """Count distances between atoms of different molecules.

    Args:
        pairs: what to count; two kinds of atoms are the same or have no atom in common.
        positions: of the beads; of long runs evenly spaced structures are taken, beads in turn.
        molecules: (N,) the molecule of each atom.
        most: number of structures.

    Returns:
        One function a pair, up to 8 angstrom or half the smallest height of the cell; normalised as in
        MDAnalysis' InterRDF, by the number of pairs that are counted and the mean volume.
    """
    structures = _chosen(len(positions), positions.n_beads, most)
    counter = _Counter(pairs, molecules, positions.read(*structures[0])[1])
    counts = np.zeros((len(structures), len(pairs), _BINS))
    volumes = np.empty(len(structures))
    for k, (index, bead) in enumerate(structures):
        values, cell = positions.read(index, bead)
        counts[k] = counter.count(values, cell)
        volumes[k] = abs(float(np.linalg.det(cell))) * BOHR_IN_ANGSTROM**3
    shells = 4.0 / 3.0 * np.pi * np.diff(counter.edges**3)
    found = []
    for k, pair in enumerate(pairs):
        g = counts[:, k] * volumes[:, None] / (_count_pairs(pair, molecules) * shells)
        blocks = [block.mean(axis=0) for block in np.array_split(g, min(_BLOCKS, len(g)))]
        error = np.full(_BINS, np.nan)
        if len(blocks) > 2:
            error = np.std(blocks, axis=0, ddof=1) / np.sqrt(len(blocks))
        r = 0.5 * (counter.edges[1:] + counter.edges[:-1])
        found.append(RadialDistribution(pair.name, r, g.mean(axis=0), error))
    return found


def structures_to_read(n_atoms: int, n_structures: int) -> int:
    """How many structures of a run to take, so that large systems do not take minutes."""
    return min(n_structures, int(np.clip(_MOST_ATOMS // n_atoms, _FEWEST_STRUCTURES, _MOST_STRUCTURES)))


class _Counter:
    """Counts pairs of atoms by distance, all kinds at once.

    Args:
        pairs: which.
        molecules: (N,) of the atoms; those of one are not counted.
        cell: (3, 3) of a typical structure in bohr.
    """

    def __init__(self, pairs: Sequence[Pair], molecules: IntArray, cell: FloatArray) -> None:
        import vesin

        longest = min(_LONGEST, 0.5 * float(heights(cell).min()) * BOHR_IN_ANGSTROM)
        self.edges = np.linspace(0.0, longest, _BINS + 1)
        self._neighbours = vesin.NeighborList(cutoff=longest, full_list=False)
        self._atoms = np.unique(
            np.concatenate([atoms for pair in pairs for atoms in (pair.first, pair.second)])
        )
        self._molecules = molecules[self._atoms]
        kinds = {atoms.tobytes(): atoms for pair in pairs for atoms in (pair.first, pair.second)}
        self._kinds = np.zeros(len(self._atoms), dtype=np.int64)
        for k, atoms in enumerate(kinds.values()):
            self._kinds[np.searchsorted(self._atoms, atoms)] = k
        self._n_pairs = len(pairs)
        self._table = np.full((len(kinds), len(kinds)), len(pairs))  # the last row is of no interest
        order = list(kinds)
        for k, pair in enumerate(pairs):
            i, j = order.index(pair.first.tobytes()), order.index(pair.second.tobytes())
            self._table[i, j] = self._table[j, i] = k

    def count(self, positions: FloatArray, cell: FloatArray) -> IntArray:
        """Numbers of pairs in each shell, (pairs, shells), of positions and cell in bohr."""
        i, j, distances = self._neighbours.compute(
            positions[self._atoms] * BOHR_IN_ANGSTROM, cell * BOHR_IN_ANGSTROM, True, "ijd"
        )
        others = self._molecules[i] != self._molecules[j]
        rows = self._table[self._kinds[i[others]], self._kinds[j[others]]]
        bins = np.minimum((distances[others] * (_BINS / self.edges[-1])).astype(np.int64), _BINS - 1)
        counts = np.bincount(rows * _BINS + bins, minlength=(self._n_pairs + 1) * _BINS)
        return np.asarray(counts.reshape(-1, _BINS)[:-1])


def distance_section(found: Sequence[RadialDistribution], n_structures: int) -> Section:
    """Positions and heights of the first maxima, and all functions."""
    numbers, panels = [], []
    for each in found:
        if not each.g.any():
            continue
        top = _first_maximum(each)
        details: dict[str, float | str] = {"at / Å": round(float(each.r[top]), 3)}
        mean = Mean(float(each.g[top]), float(each.error[top]))
        numbers.append(Number(f"{each.name}, first maximum", mean, details=details))
        error = None if np.isnan(each.error).all() else each.error
        panels.append(Panel(each.name, "r / Å", "g(r)", (Curve("", each.r, each.g, error),)))
    remarks = (f"{n_structures} structures, evenly spaced over time, beads in turn; other molecules only",)
    picture = Picture("radial-distributions", "radial distribution functions", tuple(panels))
    return Section("Radial distribution functions", tuple(numbers), (picture,), remarks)


def _sites(composition: Composition) -> dict[str, IntArray]:
    """Atoms of the QM region by element, hydrogens by the element that they are bound to, as ``H(N)``."""
    names = composition.names
    hosts: dict[int, str] = {}
    for i, j in () if composition.bonds is None else composition.bonds.tolist():
        hosts[i], hosts[j] = names[j], names[i]
    found: dict[str, list[int]] = {}
    for atom in composition.regions.get("QM", np.zeros(0, dtype=np.int64)).tolist():
        is_hydrogen = composition.numbers[atom] == 1 and atom in hosts
        found.setdefault(f"{names[atom]}({hosts[atom]})" if is_hydrogen else names[atom], []).append(atom)
    return {name: np.array(atoms) for name, atoms in sorted(found.items())}


def _chosen(n_snapshots: int, n_beads: int, most: int) -> list[tuple[int, int]]:
    """Snapshots and beads: all where they are few, else evenly spaced snapshots and beads in turn."""
    if n_snapshots * n_beads <= most:
        return [(index, bead) for index in range(n_snapshots) for bead in range(n_beads)]
    per_snapshot = max(1, most // n_snapshots)
    indices = np.unique(np.linspace(0, n_snapshots - 1, min(n_snapshots, most)).astype(int))
    return [
        (int(index), int((k * per_snapshot + bead) % n_beads))
        for k, index in enumerate(indices)
        for bead in range(per_snapshot)
    ]


def _count_pairs(pair: Pair, molecules: IntArray) -> float:
    """Pairs of atoms of different molecules, each counted once."""
    size = int(molecules.max()) + 1
    first, second = (np.bincount(molecules[atoms], minlength=size) for atoms in (pair.first, pair.second))
    count = float(len(pair.first) * len(pair.second) - (first * second).sum())
    return 0.5 * count if np.array_equal(pair.first, pair.second) else count


def _first_maximum(found: RadialDistribution) -> int:
    """The highest point before g falls below half of it for the first time, after its onset."""
    smooth = np.convolve(found.g, np.full(5, 0.2), mode="same")
    rising = int(np.argmax(smooth > 0.5 * min(1.0, smooth.max())))
    end = rising + 1
    top = rising
    while end < len(smooth) and (smooth[end] > 0.9 * smooth[top] or smooth[top] < 0.3):
        top = end if smooth[end] > smooth[top] else top
        end += 1
    window = slice(max(0, top - 2), top + 3)
    return int(max(0, top - 2) + np.argmax(found.g[window]))
