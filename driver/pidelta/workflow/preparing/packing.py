"""A cubic box: molecules in the middle, water around them from tiles of an equilibrated box, ions in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import vdw_radii
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from pidelta.core.structure import read_structure
from pidelta.errors import SettingError
from pidelta.state import FloatArray, IntArray
from pidelta.units import ANGSTROM

_TILE = Path(__file__).with_name("water-216.gro")
_CONTACT = 3.5 * ANGSTROM
"""Between the nearest atoms of two molecules that are put side by side."""
_CLOSEST_WATER = 1.7 * ANGSTROM
"""From an atom of a molecule to one of water; nearer waters go in any case."""
_OXYGENS_APART, _ATOMS_APART = 2.45 * ANGSTROM, 1.5 * ANGSTROM
"""Of different waters, as far as they come in liquid water."""
_ROOM = 2.3 * ANGSTROM
"""Around a point that a water is put at, from oxygens and atoms of molecules."""
_NEIGHBOURHOOD = 5.0 * ANGSTROM
_ION_DISTANCE = 9.0 * ANGSTROM
"""From an ion to the atoms of molecules and to other ions, where the box has room for that."""
_ORIENTATIONS = 200
_DEFAULT_RADIUS = 2.0  # angstrom
_MOLAR_VOLUME = 1.3
"""Volume that a molecule takes in water, its partial molar volume, over its van der Waals volume: between 1.1
of glycine and 1.7 of benzene."""
_EDGE_STEP = 0.01 * ANGSTROM
_FINE, _COARSE = 0.2 * ANGSTROM, 0.4 * ANGSTROM
"""Grids: of the volume of molecules, and of gaps between waters."""


@dataclass(frozen=True)
class Box:
    """Positions in bohr, molecules whole.

    Attributes:
        edge: of the cube.
        molecules: (n, 3) of the molecules, in their order.
        ions: (k, 3).
        waters: (w, 3, 3) of O, H and H.
        missing: waters that the density asks for and the gaps have no room for.
    """

    edge: float
    molecules: FloatArray
    ions: FloatArray
    waters: FloatArray
    missing: int

    @property
    def positions(self) -> FloatArray:
        """(N, 3) molecules, ions, water."""
        return np.concatenate([self.molecules, self.ions, self.waters.reshape(-1, 3)])


def put_together(molecules: Sequence[FloatArray], rng: np.random.Generator) -> FloatArray:
    """Put molecules (n_i, 3) side by side in random orientations, as near as they fit; (n, 3)."""
    placed = molecules[0] - molecules[0].mean(axis=0)
    for molecule in molecules[1:]:
        centred = molecule - molecule.mean(axis=0)
        tree, best, nearest = cKDTree(placed), centred, np.inf
        for _ in range(_ORIENTATIONS):
            turned = Rotation.random(random_state=rng).apply(centred)
            direction = rng.normal(size=3)
            moved = turned + _touching(tree, turned, direction / np.linalg.norm(direction))
            span = float(np.linalg.norm(moved.mean(axis=0) - placed.mean(axis=0)))
            if span < nearest:
                best, nearest = moved, span
        placed = np.concatenate([placed, best])
    return np.asarray(placed)


def _touching(tree: Any, molecule: FloatArray, direction: FloatArray) -> FloatArray:
    """The shift along a direction at which a molecule just does not touch what is placed, by bisection."""
    near, far = 0.0, float(np.ptp(tree.data, axis=0).sum() + np.ptp(molecule, axis=0).sum() + 2.0 * _CONTACT)
    for _ in range(20):
        middle = 0.5 * (near + far)
        distances, _ = tree.query(molecule + middle * direction)
        near, far = (middle, far) if distances.min() < _CONTACT else (near, middle)
    return far * direction


def edge_for(molecules: FloatArray, margin: float) -> float:
    """Edge of a cube that leaves a margin on all sides, whichever way the molecules (n, 3) turn; in bohr.

    It is rounded up to what all files can hold, so that a cutoff as long as the margin fits into each.
    """
    longest = float(pdist(molecules).max()) if len(molecules) > 1 else 0.0
    return float(np.floor((longest + 2.0 * margin) / _EDGE_STEP) + 1.0) * _EDGE_STEP


def fill(numbers: IntArray, molecules: FloatArray, edge: float, charge: int, rng: np.random.Generator) -> Box:
    """Put molecules into the middle of a cube, water of the density of the tile around them, and ions.

    Args:
        numbers: (n,) atomic numbers of the molecules.
        molecules: (n, 3) in bohr.
        edge: of the cube in bohr.
        charge: of the molecules, which as many monovalent ions balance.
        rng: which waters ions replace, and how waters are turned that are put into gaps.

    Raises:
        SettingError: too few waters fit for the ions.
    """
    molecules = molecules + 0.5 * edge - 0.5 * (molecules.min(axis=0) + molecules.max(axis=0))
    tile = read_structure(_TILE)
    assert tile.cell is not None
    tile_edge = float(tile.cell[0, 0])
    template = tile.positions.reshape(-1, 3, 3)
    wanted = round((edge**3 - _MOLAR_VOLUME * volume(numbers, molecules)) * len(template) / tile_edge**3)
    waters = _without_clashes(_tiled(template, tile_edge, edge), edge)
    gaps = _gaps(waters, molecules)
    # of those that touch the molecules, the nearest go first, and more of them where there are too many
    order = np.argsort(-gaps, kind="stable")[: max(wanted, 0)]
    kept = np.sort(order[gaps[order] > _CLOSEST_WATER])
    waters = _with_gaps_filled(waters[kept], molecules, edge, wanted, rng)
    replaced = _choose_for_ions(waters, _gaps(waters, molecules), abs(charge), edge, rng)
    missing = max(wanted, 0) - len(waters)
    return Box(edge, molecules, waters[replaced, 0], np.delete(waters, replaced, axis=0), missing)


def _gaps(waters: FloatArray, molecules: FloatArray) -> FloatArray:
    """(w,) from each water to the nearest atom of the molecules."""
    distances = cKDTree(molecules).query(waters.reshape(-1, 3))[0]
    return np.asarray(np.reshape(distances, (-1, 3)).min(axis=1))


def _tiled(waters: FloatArray, tile_edge: float, edge: float) -> FloatArray:
    """Copies of a box of water (w, 3, 3) whose oxygens are in a cube, molecules whole."""
    copies = int(np.ceil(edge / tile_edge)) + 1
    steps = np.arange(copies) * tile_edge
    shifts = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = waters - np.floor(waters[:, :1] / tile_edge) * tile_edge
    copied = (inside[None] + shifts[:, None, None]).reshape(-1, 3, 3)
    return np.asarray(copied[(copied[:, 0] < edge).all(axis=1)])


def _without_clashes(waters: FloatArray, edge: float) -> FloatArray:
    """The waters without those that overlap with others across the faces of the cube."""
    clashing: set[int] = set()
    oxygens = _periodic_tree(waters[:, 0], edge).query_pairs(_OXYGENS_APART, output_type="ndarray")
    atoms = _periodic_tree(waters.reshape(-1, 3), edge).query_pairs(_ATOMS_APART, output_type="ndarray") // 3
    for first, second in (*oxygens.tolist(), *atoms.tolist()):
        if first != second and first not in clashing:
            clashing.add(second)
    return np.delete(waters, sorted(clashing), axis=0)


def _with_gaps_filled(
    waters: FloatArray, molecules: FloatArray, edge: float, wanted: int, rng: np.random.Generator
) -> FloatArray:
    """Waters (w, 3, 3) with others where most room is, up to a number, or until no room is left."""
    axis = np.arange(0.0, edge, _COARSE)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    distances = np.minimum(
        _periodic_tree(waters[:, 0], edge).query(points)[0], _periodic_tree(molecules, edge).query(points)[0]
    )
    roomy = distances > _ROOM
    points, distances = points[roomy], distances[roomy]
    shape = waters[0] - waters[0, 0]
    added: list[FloatArray] = []
    while len(waters) + len(added) < wanted and len(points) and distances.max() > _ROOM:
        middle = points[distances.argmax()]
        others = np.concatenate([waters.reshape(-1, 3), *added, molecules])
        near = others[np.linalg.norm(_nearest(others - middle, edge), axis=1) < _NEIGHBOURHOOD]
        turned = Rotation.random(_ORIENTATIONS, random_state=rng).as_matrix()
        atoms = middle + shape @ turned.transpose(0, 2, 1)
        gaps = np.linalg.norm(_nearest(atoms[:, :, None] - near, edge), axis=3).min(axis=(1, 2))
        added.append(atoms[gaps.argmax()])
        distances = np.minimum(distances, np.linalg.norm(_nearest(points - middle, edge), axis=1))
    return np.concatenate([waters, np.reshape(added, (-1, 3, 3))])


def volume(numbers: IntArray, positions: FloatArray) -> float:
    """Van der Waals volume in bohr^3, on a grid."""
    radii = np.nan_to_num(vdw_radii[numbers], nan=_DEFAULT_RADIUS) * ANGSTROM
    largest = radii.max()
    axes = [
        np.arange(low - largest, high + largest, _FINE)
        for low, high in zip(positions.min(axis=0), positions.max(axis=0), strict=True)
    ]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = np.zeros(len(points), dtype=bool)
    for radius in np.unique(radii):
        distances, _ = cKDTree(positions[radii == radius]).query(points, distance_upper_bound=radius)
        inside |= np.isfinite(distances)
    return float(inside.sum()) * _FINE**3


def _choose_for_ions(
    waters: FloatArray, gaps: FloatArray, count: int, edge: float, rng: np.random.Generator
) -> IntArray:
    """(count,) waters at random that are far from molecules and from each other, as far as there is room."""
    if count > len(waters):
        raise SettingError("margin", f"expected room for {count} ions, found {len(waters)} waters")
    chosen: list[int] = []
    distances = gaps.copy()
    for _ in range(count):
        far = np.flatnonzero(distances > _ION_DISTANCE)
        ion = int(rng.choice(far)) if len(far) else int(distances.argmax())
        chosen.append(ion)
        vectors = _nearest(waters[:, 0] - waters[ion, 0], edge)
        distances = np.minimum(distances, np.linalg.norm(vectors, axis=1))
    return np.array(chosen, dtype=np.int64)


def _nearest(vectors: FloatArray, edge: float) -> FloatArray:
    return vectors - edge * np.round(vectors / edge)


def _periodic_tree(positions: FloatArray, edge: float) -> Any:
    return cKDTree(positions % edge, boxsize=np.full(3, edge))


def wrapped(box: Box, positions: FloatArray) -> FloatArray:
    """Positions (N, 3) of a box with the molecules in its middle and ions and waters, whole, inside it."""
    n_molecules, n_ions = len(box.molecules), len(box.ions)
    positions = positions + 0.5 * box.edge - positions[:n_molecules].mean(axis=0)
    rest = positions[n_molecules:]
    firsts = np.concatenate([np.arange(n_ions), n_ions + 3 * np.arange(len(box.waters))])
    sizes = np.concatenate([np.ones(n_ions, dtype=np.int64), np.full(len(box.waters), 3)])
    shifts = np.floor(rest[firsts] / box.edge) * box.edge
    return np.concatenate([positions[:n_molecules], rest - np.repeat(shifts, sizes, axis=0)])


def closest_contact(positions: FloatArray, molecules: IntArray, edge: float) -> float:
    """The shortest distance in bohr between atoms of different molecules (N,), images too."""
    tree = _periodic_tree(positions, edge)
    radius = 1.0 * ANGSTROM
    while True:
        pairs = tree.query_pairs(radius, output_type="ndarray")
        pairs = pairs[molecules[pairs[:, 0]] != molecules[pairs[:, 1]]]
        if len(pairs):
            vectors = _nearest(positions[pairs[:, 0]] - positions[pairs[:, 1]], edge)
            return float(np.linalg.norm(vectors, axis=1).min())
        radius *= 1.3
