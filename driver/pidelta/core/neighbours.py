"""Verlet pair lists: every pair of atoms within a cutoff, reused until atoms have moved by half of the skin.

Pairs are grouped into segments that share their first atom and their lattice vector, so that a loop over a
list needs no minimum-image arithmetic, in any cell.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from pidelta.core.cell import heights, wrapping_shifts
from pidelta.state import FloatArray, IntArray

_compiled = numba.njit(cache=True, nogil=True)

MEMORY = 2**28  # bytes of lists kept beyond those of one batch


@dataclass(frozen=True)
class PairList:
    """Pairs (i, j), each image once, of S segments of one i and one lattice vector t.

    The distance vector of a pair is (R_j + offset_j) + t - (R_i + offset_i).

    Attributes:
        offsets: (N, 3) lattice vectors in bohr that wrap the positions.
        first: (S,) atom i of each segment.
        translations: (S, 3) lattice vector t of each segment in bohr.
        start: (S + 1,) the pairs of segment s are start[s] to start[s + 1].
        partners: (P,) atom j of each pair, int32.
    """

    offsets: FloatArray
    first: IntArray
    translations: FloatArray
    start: IntArray
    partners: np.ndarray[tuple[int], np.dtype[np.int32]]

    def __len__(self) -> int:
        return len(self.partners)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        arrays = (self.offsets, self.first, self.translations, self.start, self.partners)
        return sum(array.nbytes for array in arrays)


class Exclusions:
    """Pairs of atoms that a list leaves out, all their periodic images included.

    Args:
        pairs: (E, 2) atoms; order and repetition do not matter.
        n_atoms: number of atoms N.
    """

    def __init__(self, pairs: IntArray, n_atoms: int) -> None:
        both = np.concatenate([pairs, pairs[:, ::-1]])
        both = both[np.argsort(both[:, 0], kind="stable")]
        self.start: IntArray = np.searchsorted(both[:, 0], np.arange(n_atoms + 1)).astype(np.int64)
        self.partners: IntArray = np.ascontiguousarray(both[:, 1], dtype=np.int64)


class VerletLists:
    """Lists of recent structures, found again by their positions.

    The beads of a ring polymer may come in any order, together or one by one, so a list belongs to no slot: a
    structure takes any list that is valid for it, which is so while no atom is further than half of the skin
    from where it was when the list was built, in the same cell.

    Args:
        cutoff: in bohr; infinite to list all pairs, without cells only.
        skin: added to the cutoff, in bohr.
        exclusions: pairs to leave out.
    """

    def __init__(self, cutoff: float, skin: float, exclusions: Exclusions) -> None:
        self._cutoff = cutoff
        self._skin = skin
        self._exclusions = exclusions
        self._entries: list[_Entry] = []
        self._reserved = 1

    def reserve(self, n_structures: int) -> None:
        """Keep at least the lists of this many structures, however large."""
        self._reserved = max(self._reserved, n_structures)

    def find(self, positions: FloatArray, cell: FloatArray | None) -> PairList:
        """A list of all pairs within the cutoff, and of some more within the skin.

        Args:
            positions: (N, 3) in bohr, unwrapped or not.
            cell: (3, 3) lattice vectors as rows in bohr, or None.
        """
        limit = np.inf if cell is None else (0.5 * self._skin) ** 2
        entry = next((entry for entry in self._entries if entry.fits(positions, cell, limit)), None)
        if entry is None:
            pairs = build_pair_list(positions, cell, self._cutoff + self._skin, self._exclusions)
            entry = _Entry(positions.copy(), None if cell is None else cell.copy(), pairs)
        else:
            self._entries.remove(entry)
        self._entries.append(entry)
        self._forget()
        return entry.pairs

    def _forget(self) -> None:
        """Drop lists not used for longest."""
        total = sum(entry.pairs.nbytes for entry in self._entries)
        while len(self._entries) > self._reserved and total > MEMORY:
            total -= self._entries.pop(0).pairs.nbytes


@dataclass(frozen=True, eq=False)
class _Entry:
    positions: FloatArray
    cell: FloatArray | None
    pairs: PairList

    def fits(self, positions: FloatArray, cell: FloatArray | None, limit: float) -> bool:
        if cell is None or self.cell is None:
            return cell is self.cell
        return np.array_equal(cell, self.cell) and bool(_all_within(positions, self.positions, limit))


def build_pair_list(
    positions: FloatArray, cell: FloatArray | None, radius: float, exclusions: Exclusions
) -> PairList:
    """Find all pairs closer than a radius, in time proportional to their number.

    Args:
        positions: (N, 3) in bohr, unwrapped or not.
        cell: (3, 3) lattice vectors as rows in bohr; None for a system without periodicity, where all pairs
            are listed, whatever the radius.
        radius: in bohr; images further apart than one cell are found as well.
        exclusions: pairs to leave out.
    """
    if cell is None:
        offsets, radius = np.zeros_like(positions), np.inf
        cell = np.zeros((3, 3))
        bins, reach = np.ones(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
        bin_of = np.zeros(len(positions), dtype=np.int64)
    else:
        offsets = wrapping_shifts(positions, cell)
        # bins of half the radius: the 5 x 5 x 5 of them around an atom fit the sphere better than 3 x 3 x 3
        bins = np.clip(2.0 * heights(cell) / radius, 1, 64).astype(np.int64)
        reach = np.ceil(radius * bins / heights(cell)).astype(np.int64)
        fractional = (positions + offsets) @ np.linalg.inv(cell)
        index = np.clip((fractional * bins).astype(np.int64), 0, bins - 1)
        bin_of = (index[:, 0] * bins[1] + index[:, 1]) * bins[2] + index[:, 2]
    order = np.argsort(bin_of, kind="stable")
    bin_start = np.searchsorted(bin_of[order], np.arange(bins.prod() + 1)).astype(np.int64)
    sorted_positions = (positions + offsets)[order]
    n_pairs, n_segments, first, translations, start, partners = _fill(
        sorted_positions, order, bin_start, bins, reach, cell, radius, exclusions.start, exclusions.partners
    )
    return PairList(
        offsets,
        first[:n_segments].copy(),
        translations[:n_segments].copy(),
        start[: n_segments + 1].copy(),
        partners[:n_pairs].copy(),
    )


@_compiled
def _fill(x, order, bin_start, bins, reach, cell, radius, excluded_start, excluded):
    """Pairs of atoms in the order of their bins; the first of a pair in that order is its owner.

    x (N, 3) and `order` (N,) are positions and indices in that order.
    """
    n = len(order)
    partners = np.empty(64 * n + 64, dtype=np.int32)
    # an interval of 2 reach + 1 bins touches at most this many images
    images_each = ((2 * reach[0]) // bins[0] + 2) * ((2 * reach[1]) // bins[1] + 2)
    most = n * images_each * ((2 * reach[2]) // bins[2] + 2)
    first = np.empty(most, dtype=np.int64)
    start = np.zeros(most + 1, dtype=np.int64)
    translations = np.empty((most, 3))
    excluded_by = np.full(n, -1, dtype=np.int64)
    n_pairs = n_segments = 0
    for here in range(len(bin_start) - 1):
        if bin_start[here] == bin_start[here + 1]:
            continue
        runs, run_start, images = _runs_around(here, bins, reach, bin_start)
        for a in range(bin_start[here], bin_start[here + 1]):
            i = order[a]
            for e in range(excluded_start[i], excluded_start[i + 1]):
                excluded_by[excluded[e]] = i
            for image in range(len(images)):
                tx, ty, tz = _translation(images[image], cell)
                x0, y0, z0 = x[a, 0] - tx, x[a, 1] - ty, x[a, 2] - tz
                begin = n_pairs
                for run in range(run_start[image], run_start[image + 1]):
                    low, high = max(runs[run, 0], a + 1), runs[run, 1]
                    while n_pairs + high - low > len(partners):
                        partners = _doubled(partners)
                    for b in range(low, high):
                        dx, dy, dz = x[b, 0] - x0, x[b, 1] - y0, x[b, 2] - z0
                        near = dx * dx + dy * dy + dz * dz < radius * radius
                        partners[n_pairs] = order[b]
                        n_pairs += near and excluded_by[order[b]] != i
                if n_pairs > begin:
                    first[n_segments] = i
                    translations[n_segments, 0] = tx
                    translations[n_segments, 1] = ty
                    translations[n_segments, 2] = tz
                    n_segments += 1
                    start[n_segments] = n_pairs
    return n_pairs, n_segments, first, translations, start, partners


@_compiled
def _translation(image, cell):
    return (
        image[0] * cell[0, 0] + image[1] * cell[1, 0] + image[2] * cell[2, 0],
        image[0] * cell[0, 1] + image[1] * cell[1, 1] + image[2] * cell[2, 1],
        image[0] * cell[0, 2] + image[1] * cell[1, 2] + image[2] * cell[2, 2],
    )


@_compiled
def _doubled(array):
    larger = np.empty(2 * len(array), dtype=array.dtype)
    for k in range(len(array)):
        larger[k] = array[k]
    return larger


@_compiled
def _runs_around(here, bins, reach, bin_start):
    """The atoms of this bin and of later ones within reach, as runs of consecutive atoms.

    Returns:
        (R, 2) start and stop of each run, (G + 1,) where the runs of each of G images start, and (G, 3) the
        images as integer multiples of the lattice vectors.
    """
    nx, ny, nz = bins
    x, y, z = here // (ny * nz), here // nz % ny, here % nz
    x0, x1, y0, y1, z0, z1 = (
        x - reach[0],
        x + reach[0],
        y - reach[1],
        y + reach[1],
        z - reach[2],
        z + reach[2],
    )
    n_images = (x1 // nx - x0 // nx + 1) * (y1 // ny - y0 // ny + 1) * (z1 // nz - z0 // nz + 1)
    runs = np.empty((n_images * nx * ny, 2), dtype=np.int64)
    run_start = np.zeros(n_images + 1, dtype=np.int64)
    images = np.empty((n_images, 3), dtype=np.int64)
    n = image = 0
    for sx in range(x0 // nx, x1 // nx + 1):
        for sy in range(y0 // ny, y1 // ny + 1):
            for sz in range(z0 // nz, z1 // nz + 1):
                images[image, 0], images[image, 1], images[image, 2] = sx, sy, sz
                low, high = max(z0 - sz * nz, 0), min(z1 - sz * nz, nz - 1)
                for bx in range(max(x0 - sx * nx, 0), min(x1 - sx * nx, nx - 1) + 1):
                    for by in range(max(y0 - sy * ny, 0), min(y1 - sy * ny, ny - 1) + 1):
                        row = (bx * ny + by) * nz
                        if row + high >= here:
                            runs[n, 0] = bin_start[max(row + low, here)]
                            runs[n, 1] = bin_start[row + high + 1]
                            n += 1
                image += 1
                run_start[image] = n
    return runs, run_start, images


@_compiled
def _all_within(a, b, limit):
    """Whether no row of a - b has a square above the limit; stops at the first that has."""
    for i in range(len(a)):
        dx, dy, dz = a[i, 0] - b[i, 0], a[i, 1] - b[i, 1], a[i, 2] - b[i, 2]
        if dx * dx + dy * dy + dz * dz > limit:
            return False
    return True
