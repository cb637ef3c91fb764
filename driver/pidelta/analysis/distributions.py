"""Distances X-H along a path-integral trajectory, of the beads and of the centroid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from pidelta.ipi.frames import FrameFile
from pidelta.state import FloatArray, IntArray
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM

_BOND_FACTOR = 1.3


@dataclass(frozen=True)
class BondLengths:
    """Lengths of all bonds of one kind.

    Attributes:
        kind: such as ``O-H``.
        beads: lengths in every bead, in angstrom.
        centroid: lengths between the centroids, in angstrom; None for one bead or where beads are missing.
    """

    kind: str
    beads: FloatArray
    centroid: FloatArray | None


def find_x_h_bonds(numbers: IntArray, positions: FloatArray) -> IntArray:
    """Return the covalent bonds between a hydrogen and its nearest heavier atom.

    Args:
        numbers: (n,) atomic numbers.
        positions: (n, 3) in bohr, molecules whole.

    Returns:
        (m, 2) indices, the heavy atom first; at most 1.3 times the sum of the covalent radii apart.
    """
    heavy, hydrogen = np.flatnonzero(numbers > 1), np.flatnonzero(numbers == 1)
    if not len(heavy) or not len(hydrogen):
        return np.zeros((0, 2), dtype=np.int64)
    distances = np.linalg.norm(positions[hydrogen, None] - positions[None, heavy], axis=2)
    nearest = distances.argmin(axis=1)
    longest = _BOND_FACTOR * ANGSTROM * (covalent_radii[numbers[heavy[nearest]]] + covalent_radii[1])
    bonded = distances.min(axis=1) < longest
    return np.asarray(np.stack([heavy[nearest], hydrogen], axis=1)[bonded])


def bond_length_distributions(
    files: Sequence[Path], n_beads: int, atoms: IntArray, numbers: IntArray, max_frames: int = 500
) -> list[BondLengths]:
    """Collect the X-H distances of some atoms from trajectories of beads.

    Args:
        files: xyz trajectories of positions from i-PI, one for each bead that was written.
        n_beads: number of beads of the simulation.
        atoms: (n,) indices of the atoms, for instance the QM region.
        numbers: (n,) their atomic numbers.
        max_frames: frames to use of each file.

    Returns:
        One item for each kind of bond, the most frequent first; empty without X-H bonds.

    Raises:
        DataError: a file is missing or malformed.
    """
    trajectories = [_read_positions(path, atoms, max_frames) for path in files]
    n_frames = min(len(positions) for positions in trajectories)
    beads = np.stack([positions[:n_frames] for positions in trajectories])
    bonds = find_x_h_bonds(numbers, beads[0, 0])
    lengths = _lengths(beads, bonds)
    centroid = _lengths(beads.mean(axis=0), bonds) if len(files) == n_beads > 1 else None
    kinds = [f"{chemical_symbols[number]}-H" for number in numbers[bonds[:, 0]]]
    collected = []
    for kind in sorted(set(kinds), key=kinds.count, reverse=True):
        chosen = np.array([k == kind for k in kinds])
        of_centroid = None if centroid is None else centroid[..., chosen].ravel()
        collected.append(BondLengths(kind, lengths[..., chosen].ravel(), of_centroid))
    return collected


def _read_positions(path: Path, atoms: IntArray, max_frames: int) -> FloatArray:
    """Positions (n, len(atoms), 3) in bohr; of a longer trajectory, evenly spaced ones."""
    file = FrameFile(path)
    every = max(1, -(-len(file) // max_frames))
    return np.array([file.read(index, atoms)[0] for index in range(0, len(file), every)])


def _lengths(positions: FloatArray, bonds: IntArray) -> FloatArray:
    """Distances in angstrom, (..., m), of positions (..., n, 3) in bohr."""
    vectors = positions[..., bonds[:, 1], :] - positions[..., bonds[:, 0], :]
    return np.asarray(np.linalg.norm(vectors, axis=-1) * BOHR_IN_ANGSTROM)
