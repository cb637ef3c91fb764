"""Which bonds there are, and their lengths along a trajectory: of all beads, and of centroids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii

from pidelta.analysis.composition import Composition
from pidelta.analysis.correlations import Series
from pidelta.analysis.run_files import Snapshot
from pidelta.analysis.sections import Curve, Number, Panel, Picture, Section
from pidelta.analysis.statistics import mean_with_error, settled
from pidelta.core.cell import minimum_image
from pidelta.errors import DataError
from pidelta.state import FloatArray, IntArray
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM

_BOND_FACTOR = 1.3
_BIN, _LONGEST = 0.004, 16.0  # angstrom
_FEWEST_IN_PEAK = 100
"""Bins are joined until the highest of a distribution has about so many lengths, as far as that goes."""


@dataclass(frozen=True)
class BondKind:
    """Bonds that are looked at together, such as ``QM N-H``.

    Attributes:
        name: unique.
        atoms: (k, 2).
        is_followed: whether its correlation time is of interest.
    """

    name: str
    atoms: IntArray
    is_followed: bool


def find_bonds(numbers: IntArray, positions: FloatArray) -> IntArray:
    """Return covalent bonds by distance: of each hydrogen to its nearest heavier atom, and among these.

    Args:
        numbers: (n,) atomic numbers.
        positions: (n, 3) in bohr, molecules whole.

    Returns:
        (m, 2) indices, hydrogen last; at most 1.3 times the sum of the covalent radii apart.
    """
    from scipy.spatial import cKDTree

    radii = covalent_radii[numbers] * (_BOND_FACTOR * ANGSTROM)
    pairs = cKDTree(positions).query_pairs(2.0 * float(radii.max()), output_type="ndarray")
    lengths = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    bonded = lengths < radii[pairs].sum(axis=1)
    pairs, lengths = pairs[bonded], lengths[bonded]
    hydrogens = (numbers[pairs] == 1).sum(axis=1)
    heavy, mixed = pairs[hydrogens == 0], pairs[hydrogens == 1]
    swapped = numbers[mixed[:, 0]] == 1
    mixed[swapped] = mixed[swapped, ::-1]
    mixed = mixed[np.argsort(lengths[hydrogens == 1], kind="stable")]
    _, nearest = np.unique(mixed[:, 1], return_index=True)
    return np.concatenate([heavy, mixed[nearest]]).astype(np.int64)


def bond_kinds(
    composition: Composition, positions: FloatArray, chosen: Sequence[tuple[int, int]] = ()
) -> list[BondKind]:
    """The bonds of a system by kind: all of the QM region, those of water, those with hydrogen elsewhere.

    Args:
        composition: the atoms; without bonds they are found by distance in the QM region or in all.
        positions: (N, 3) of one snapshot in bohr.
        chosen: further pairs, each a kind of its own.

    Raises:
        DataError: there is no such atom.
    """
    for i, j in chosen:
        if max(i, j) >= len(composition):
            raise DataError(f"--bond: expected atoms below {len(composition)}, found {i}-{j}")
    found: dict[str, list[tuple[int, int]]] = {}
    names, numbers = composition.names, composition.numbers
    waters = set(composition.waters.ravel().tolist())
    with_regions = bool(composition.regions)
    for pair in _all_bonds(composition, positions):
        first, second = sorted(map(int, pair), key=lambda atom: (numbers[atom] == 1, names[atom]))
        region = composition.region_of(first) if with_regions else ""
        is_quantum = region == "QM" or not len(composition.waters)
        if first in waters:
            region = "water"
        elif not is_quantum and numbers[second] != 1:
            continue
        found.setdefault(f"{region} {names[first]}-{names[second]}".strip(), []).append((first, second))
    kinds = [
        BondKind(name, np.array(pairs), not name.startswith(("MM", "water")) and "-H" in name)
        for name, pairs in sorted(found.items(), key=lambda item: (not item[0].startswith("QM"), item[0]))
    ]
    labels = [(f"{names[i]}{i}-{names[j]}{j}", i, j) for i, j in chosen]
    return kinds + [BondKind(label, np.array([[i, j]]), True) for label, i, j in labels]


class BondLengths:
    """Collects the lengths of bonds, snapshot by snapshot.

    Args:
        kinds: the bonds.
        with_centroids: whether all beads are there, and more than one.
    """

    def __init__(self, kinds: Sequence[BondKind], with_centroids: bool) -> None:
        self.kinds = kinds
        self._bonds = np.concatenate([kind.atoms for kind in kinds])
        self._slices = list(_slices([len(kind.atoms) for kind in kinds]))
        n_bins = round(_LONGEST / _BIN)
        self._of_beads = np.zeros((len(kinds), n_bins))
        self._of_centroids = np.zeros((len(kinds), n_bins)) if with_centroids else None
        self._steps: list[int] = []
        self._means: list[FloatArray] = []
        self._centroid_means: list[FloatArray] = []
        self._followed: list[list[FloatArray]] = [[] for _ in kinds]

    def add(self, snapshot: Snapshot) -> None:
        """Take the lengths of one snapshot of all atoms."""
        lengths = self._lengths(snapshot.values, snapshot.cell)
        self._steps.append(snapshot.step)
        self._means.append(np.array([lengths[:, each].mean() for each in self._slices]))
        self._count(self._of_beads, lengths)
        for rows, kind, each in zip(self._followed, self.kinds, self._slices, strict=True):
            if kind.is_followed:
                rows.append(lengths[:, each].mean(axis=0))
        if self._of_centroids is not None:
            centroid = self._lengths(snapshot.values.mean(axis=0, keepdims=True), snapshot.cell)
            self._count(self._of_centroids, centroid)

    def series(self) -> list[Series]:
        """The lengths, bead averages, of the bonds that are followed, and their squared deviations.

        Lengths oscillate about their mean, so that their correlations cancel; squares tell how long a
        vibration keeps its energy.
        """
        steps, found = np.array(self._steps, dtype=np.int64), []
        for kind, rows in zip(self.kinds, self._followed, strict=True):
            if rows:
                lengths = np.array(rows)
                squares = (lengths - lengths.mean(axis=0)) ** 2
                found.append(Series(f"bond {kind.name}", steps, lengths))
                found.append(Series(f"bond {kind.name}, squared deviation", steps, squares))
        return found

    def section(self) -> Section:
        """Means, standard deviations and distributions of all kinds."""
        numbers, panels = [], []
        means = np.array(self._means)
        for index, kind in enumerate(self.kinds):
            mean = mean_with_error(settled(means[:, index]))
            details: dict[str, float | str] = {"bonds": len(kind.atoms)}
            details["standard deviation, beads / Å"] = round(_deviation(self._of_beads[index]), 4)
            curves = [_distribution("beads", self._of_beads[index])]
            if self._of_centroids is not None:
                details["of centroids / Å"] = round(_deviation(self._of_centroids[index]), 4)
                curves.append(_distribution("centroid", self._of_centroids[index]))
            numbers.append(Number(kind.name, mean, "Å", details=details))
            panels.append(Panel(kind.name, "length / Å", "density / Å⁻¹", tuple(curves)))
        picture = Picture("bonds", "distributions of bond lengths", tuple(panels))
        return Section("Bonds", tuple(numbers), (picture,))

    def _lengths(self, positions: FloatArray, cell: FloatArray) -> FloatArray:
        """(B, m) in angstrom."""
        vectors = positions[:, self._bonds[:, 1]] - positions[:, self._bonds[:, 0]]
        return np.asarray(np.linalg.norm(minimum_image(vectors, cell), axis=-1) * BOHR_IN_ANGSTROM)

    def _count(self, counts: FloatArray, lengths: FloatArray) -> None:
        bins = np.minimum((lengths / _BIN).astype(np.int64), counts.shape[1] - 1)
        for row, each in zip(counts, self._slices, strict=True):
            row += np.bincount(bins[:, each].ravel(), minlength=len(row))


def _all_bonds(composition: Composition, positions: FloatArray) -> Iterator[IntArray]:
    if composition.bonds is not None:
        yield from composition.bonds
        return
    atoms = composition.regions.get("QM", np.arange(len(composition)))
    yield from atoms[find_bonds(composition.numbers[atoms], positions[atoms])]


def _slices(sizes: Sequence[int]) -> Iterator[slice]:
    start = 0
    for size in sizes:
        yield slice(start, start + size)
        start += size


def _centres(count: int) -> FloatArray:
    return np.asarray((np.arange(count) + 0.5) * _BIN, dtype=np.float64)


def _deviation(counts: FloatArray) -> float:
    centres = _centres(len(counts))
    mean = np.average(centres, weights=counts)
    return float(np.sqrt(np.average((centres - mean) ** 2, weights=counts)))


def _distribution(name: str, counts: FloatArray) -> Curve:
    """Density over the range where there is any, bins joined where lengths are few."""
    joined = 1
    while joined < 16 and counts.reshape(-1, joined).sum(axis=1).max() < _FEWEST_IN_PEAK:
        joined *= 2
    density = counts.reshape(-1, joined).sum(axis=1) / (counts.sum() * _BIN * joined)
    centres = _centres(len(counts)).reshape(-1, joined).mean(axis=1)
    cumulative = np.cumsum(density) / density.sum()
    first, last = np.searchsorted(cumulative, [0.0005, 0.9995])
    shown = slice(max(0, int(first) - 3), int(last) + 4)
    return Curve(name, centres[shown], density[shown])
