"""Radial distribution functions: water, and QM sites with water."""

from __future__ import annotations

import warnings
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
MOST_STRUCTURES = 400
"""Structures that are used of a long run, evenly spaced over time, beads in turn."""


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
    """
    waters = composition.waters
    if not len(waters):
        return []
    oxygens, hydrogens = waters[:, 0], waters[:, 1:].ravel()
    pairs = [Pair("water O - water O", oxygens, oxygens), Pair("water O - water H", oxygens, hydrogens)]
    pairs.append(Pair("water H - water H", hydrogens, hydrogens))
    for name, atoms in _sites(composition).items():
        pairs += [
            Pair(f"QM {name} - water O", atoms, oxygens),
            Pair(f"QM {name} - water H", atoms, hydrogens),
        ]
    return pairs


def radial_distributions(
    pairs: Sequence[Pair], positions: BeadFrames, molecules: IntArray | None, most: int = MOST_STRUCTURES
) -> list[RadialDistribution]:
    """Count distances between atoms of different molecules.

    Args:
        pairs: what to count.
        positions: of the beads; of long runs evenly spaced structures are taken, beads in turn.
        molecules: (N,) the molecule of each atom; None where all atoms are of different ones.
        most: number of structures.

    Returns:
        One function a pair, up to 8 angstrom or half the smallest height of the cell; normalised as in
        MDAnalysis' InterRDF, by the number of pairs that are counted and the mean volume.
    """
    structures = _chosen(len(positions), positions.n_beads, most)
    cells = [positions.read(index, bead, np.zeros(1, dtype=np.int64))[1] for index, bead in structures[:1]]
    longest = min(_LONGEST, 0.5 * float(heights(cells[0]).min()) * BOHR_IN_ANGSTROM)
    edges = np.linspace(0.0, longest, _BINS + 1)
    counts, volumes = np.zeros((len(structures), len(pairs), _BINS)), []
    for row, (index, bead) in zip(counts, structures, strict=True):
        values, cell = positions.read(index, bead)
        volumes.append(abs(float(np.linalg.det(cell))) * BOHR_IN_ANGSTROM**3)
        for target, pair in zip(row, pairs, strict=True):
            target[:] = _count(pair, values * BOHR_IN_ANGSTROM, cell * BOHR_IN_ANGSTROM, molecules, edges)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    found = []
    for k, pair in enumerate(pairs):
        n_pairs = len(pair.first) * len(pair.second) - _excluded(pair, molecules)
        g = counts[:, k] * np.array(volumes)[:, None] / (n_pairs * shells)
        blocks = [block.mean(axis=0) for block in np.array_split(g, min(_BLOCKS, len(g)))]
        error = (
            np.std(blocks, axis=0, ddof=1) / np.sqrt(len(blocks))
            if len(blocks) > 2
            else np.full(_BINS, np.nan)
        )
        found.append(RadialDistribution(pair.name, 0.5 * (edges[1:] + edges[:-1]), g.mean(axis=0), error))
    return found


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


def _count(
    pair: Pair, positions: FloatArray, cell: FloatArray, molecules: IntArray | None, edges: FloatArray
) -> IntArray:
    """Numbers of ordered pairs in each shell, in angstrom."""
    from ase.geometry import cell_to_cellpar
    from MDAnalysis.lib.distances import capped_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, distances = capped_distance(
            positions[pair.first].astype(np.float32),
            positions[pair.second].astype(np.float32),
            float(edges[-1]),
            box=cell_to_cellpar(cell).astype(np.float32),
        )
    first, second = pair.first[found[:, 0]], pair.second[found[:, 1]]
    others = first != second if molecules is None else molecules[first] != molecules[second]
    return np.histogram(distances[others], edges)[0]


def _excluded(pair: Pair, molecules: IntArray | None) -> int:
    """Pairs of atoms of one molecule."""
    if molecules is None:
        return len(np.intersect1d(pair.first, pair.second))
    size = int(molecules.max()) + 1
    first = np.bincount(molecules[pair.first], minlength=size)
    return int((first * np.bincount(molecules[pair.second], minlength=size)).sum())


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
