"""Which bonds there are, and their lengths along a trajectory: of all beads, and of centroids."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii

from pidelta.analysis.composition import Composition
from pidelta.analysis.correlations import Series
from pidelta.analysis.run_files import BeadsSnapshot
from pidelta.analysis.sections import Curve, Number, Panel, Picture, Section
from pidelta.analysis.statistics import mean_with_error, settled
from pidelta.core.cell import minimum_image
from pidelta.errors import DataError
from pidelta.state import FloatArray, IntArray
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM

_BOND_FACTOR = 1.3
_BIN, _N_BINS = 0.004, 4096
"""The narrowest bins of a distribution, in angstrom, and how many it has."""
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
        is_periodic: whether lengths are those of nearest images; in vacuum i-PI's cell says nothing.
    """

    def __init__(self, kinds: Sequence[BondKind], with_centroids: bool, is_periodic: bool = True) -> None:
        self.kinds = kinds
        self._is_periodic = is_periodic
        self._bonds = np.concatenate([kind.atoms for kind in kinds])
        self._slices = list(_slices([len(kind.atoms) for kind in kinds]))
        self._of_beads = [_Distribution("beads") for _ in kinds]
        self._of_centroids = [_Distribution("centroid") for _ in kinds] if with_centroids else None
        self._steps: list[int] = []
        self._means: list[FloatArray] = []
        self._centroid_means: list[FloatArray] = []
        self._followed: list[list[FloatArray]] = [[] for _ in kinds]

    def add(self, snapshot: BeadsSnapshot) -> None:
        """Take the lengths of one snapshot of all atoms.

        Raises:
            DataError: a length is no number.
        """
        lengths = self._lengths(snapshot.values, snapshot.cell)
        if not np.isfinite(lengths).all():  # squares beyond the largest double
            raise DataError(
                f"positions at step {snapshot.step}: expected distances that are finite, found others"
            )
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
            details["standard deviation, beads / Å"] = round(self._of_beads[index].deviation, 4)
            curves = [self._of_beads[index].curve()]
            if self._of_centroids is not None:
                details["of centroids / Å"] = round(self._of_centroids[index].deviation, 4)
                curves.append(self._of_centroids[index].curve())
            numbers.append(Number(kind.name, mean, "Å", details=details))
            panels.append(Panel(kind.name, "length / Å", "density / Å⁻¹", tuple(curves)))
        picture = Picture("bonds", "distributions of bond lengths", tuple(panels))
        return Section("Bonds", tuple(numbers), (picture,))

    def _lengths(self, positions: FloatArray, cell: FloatArray) -> FloatArray:
        """(B, m) in angstrom."""
        vectors = positions[:, self._bonds[:, 1]] - positions[:, self._bonds[:, 0]]
        vectors = minimum_image(vectors, cell) if self._is_periodic else vectors
        return np.asarray(np.linalg.norm(vectors, axis=-1) * BOHR_IN_ANGSTROM)

    def _count(self, distributions: Sequence[_Distribution], lengths: FloatArray) -> None:
        for distribution, each in zip(distributions, self._slices, strict=True):
            distribution.add(lengths[:, each].ravel())


class _Distribution:
    """Lengths in bins about the first ones; bins become wider, in pairs, where lengths lie outside of them.

    Args:
        name: of its curve.

    Attributes:
        deviation: standard deviation in angstrom, of the lengths themselves.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts = np.zeros(_N_BINS)
        self._width, self._start = _BIN, 0.0
        self._n, self._first = 0, 0.0
        self._sum, self._squares = 0.0, 0.0  # of differences from the first, whose squares cancel less

    def add(self, lengths: FloatArray) -> None:
        """Count lengths (m,) in angstrom."""
        if not self._n:
            self._first = float(lengths[0])
            middle = round(self._first / _BIN) - _N_BINS // 2
            self._start = max(0, middle) * _BIN
        differences = lengths - self._first
        self._n += len(lengths)
        self._sum += float(differences.sum())
        self._squares += float(differences @ differences)
        lowest, highest = float(lengths.min()), float(lengths.max())
        while highest >= self._start + _N_BINS * self._width:
            self._widen(0)
        while lowest < self._start:
            self._widen(_N_BINS // 2)
        bins = ((lengths - self._start) / self._width).astype(np.int64)
        self._counts += np.bincount(np.minimum(bins, _N_BINS - 1), minlength=_N_BINS)

    @property
    def deviation(self) -> float:
        mean = self._sum / self._n
        return math.sqrt(max(0.0, self._squares / self._n - mean**2))

    def curve(self) -> Curve:
        """Density over the range where there is any, bins joined where lengths are few."""
        joined = 1
        while joined < 16 and self._counts.reshape(-1, joined).sum(axis=1).max() < _FEWEST_IN_PEAK:
            joined *= 2
        width = self._width * joined
        density = self._counts.reshape(-1, joined).sum(axis=1) / (self._n * width)
        centres = self._start + (np.arange(len(density), dtype=np.float64) + 0.5) * width
        cumulative = np.cumsum(density) / density.sum()
        first, last = np.searchsorted(cumulative, [0.0005, 0.9995])
        shown = slice(max(0, int(first) - 3), int(last) + 4)
        return Curve(self._name, centres[shown], density[shown])

    def _widen(self, place: int) -> None:
        """Twice as wide bins, of which those of before begin at `place`."""
        pairs = self._counts.reshape(-1, 2).sum(axis=1)
        self._start -= 2 * place * self._width
        self._width *= 2.0
        self._counts = np.zeros(_N_BINS)
        self._counts[place : place + len(pairs)] = pairs


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
