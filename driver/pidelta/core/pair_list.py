"""Pairs of atoms within a cutoff, by blocks of four.

Atoms are sorted into compact blocks, as in Pall, Hess, Comput. Phys. Commun. 184, 2641 (2013), and a list
holds pairs of blocks: it is short, quick to make, and a loop over it vectorises. Pairs of blocks are grouped
into segments that share their first block and their lattice vector, so that a loop needs no minimum-image
arithmetic, in any cell.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pidelta.core.cell import heights, wrapping_shifts
from pidelta.core.compilation import compiled
from pidelta.state import FloatArray, IntArray

_compiled = compiled(nogil=True)

WIDTH = 4  # atoms of a block
ALL = 0xFFFF
_UPPER_TRIANGLE = 0x08CE  # pairs of a block with itself, a < b, each once


@dataclass(frozen=True)
class PairList:
    """Pairs of P/4 blocks, each image once, of S segments of one first block and one lattice vector t.

    The distance vector of a pair of places (p, q) is (R_j + offset_q) + t - (R_i + offset_p), with i and j
    the atoms at these places. Block k has the places 4 k to 4 k + 3.

    Attributes:
        n_atoms: number of atoms N; places from N on repeat the last atom and interact with nothing.
        order: (P,) atom at each place.
        offsets: (P, 3) lattice vectors in bohr that wrap the positions.
        first: (S,) first block of each segment.
        translations: (S, 3) lattice vector t of each segment in bohr.
        start: (S + 1,) the pairs of segment s are start[s] to start[s + 1].
        partners: (M,) second block of each pair.
        masks: (M,) bit 4 a + b is set where place a of the first and b of the second block are a pair.
    """

    n_atoms: int
    order: IntArray
    offsets: FloatArray
    first: IntArray
    translations: FloatArray
    start: IntArray
    partners: npt.NDArray[np.int32]
    masks: npt.NDArray[np.uint16]

    @cached_property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        segments = self.first.nbytes + self.translations.nbytes + self.start.nbytes
        pairs = self.partners.nbytes + self.masks.nbytes
        return self.order.nbytes + self.offsets.nbytes + segments + pairs


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


def build_pair_list(
    positions: FloatArray, cell: FloatArray | None, radius: float, exclusions: Exclusions
) -> PairList:
    """Find all pairs closer than a radius, and some more, in time proportional to their number.

    Args:
        positions: (N, 3) in bohr, unwrapped or not.
        cell: (3, 3) lattice vectors as rows in bohr; None for a system without periodicity, where all pairs
            are listed, whatever the radius.
        radius: in bohr; images further apart than one cell are found as well.
        exclusions: pairs to leave out.
    """
    if cell is None:
        offsets, lattice, radius = np.zeros_like(positions), np.zeros((3, 3)), np.inf
        origin = positions.min(axis=0)
        box = np.diag(np.maximum(positions.max(axis=0) - origin, 1e-3))
    else:
        offsets, lattice = wrapping_shifts(positions, cell), cell
        origin, box = np.zeros(3), cell
    wrapped = positions + offsets
    order = _blocked(np.clip((wrapped - origin) @ np.linalg.inv(box), 0.0, 1.0), heights(box))
    corners = wrapped[order].reshape(-1, WIDTH, 3)
    centres = 0.5 * (corners.min(axis=1) + corners.max(axis=1))
    if cell is None:
        bins, reach = np.ones(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
    else:
        longest = radius + 2.0 * float(np.linalg.norm(corners - centres[:, None], axis=2).max())
        # about four blocks to a bin: small bins fit the sphere around a block
        spacing = (4.0 * heights(cell).prod() / len(centres)) ** (1.0 / 3.0)
        bins = np.clip(heights(cell) / spacing, 1, 64).astype(np.int64)
        reach = np.ceil(longest * bins / heights(cell)).astype(np.int64)
    index = np.clip((centres - origin) @ np.linalg.inv(box) * bins, 0, bins - 1).astype(np.int64)
    bin_of = (index[:, 0] * bins[1] + index[:, 1]) * bins[2] + index[:, 2]
    by_bin = np.argsort(bin_of, kind="stable")
    order = order.reshape(-1, WIDTH)[by_bin].reshape(-1)
    bin_start = np.searchsorted(bin_of[by_bin], np.arange(bins.prod() + 1)).astype(np.int64)
    first, translations, start, partners, masks = _fill(
        np.ascontiguousarray(wrapped[order].T), order, len(positions), bin_start, bins, reach, lattice,
        radius, exclusions.start, exclusions.partners,
    )  # fmt: skip
    return PairList(len(positions), order, offsets[order], first, translations, start, partners, masks)


def _blocked(fractional: FloatArray, lengths: FloatArray) -> IntArray:
    """Atoms in an order whose fours are compact, the last repeated to fill up; fractional (N, 3) in [0, 1].

    The order is a snake through columns as wide as a cube of four atoms would be.
    """
    n = len(fractional)
    width = (WIDTH * lengths.prod() / n) ** (1.0 / 3.0)
    columns = np.clip(np.rint(lengths[:2] / width), 1, 1024).astype(np.int64)
    x, y = np.minimum((fractional[:, :2] * columns).astype(np.int64), columns - 1).T
    column = x * columns[1] + np.where(x % 2 == 0, y, columns[1] - 1 - y)
    z = np.where((x + y) % 2 == 0, fractional[:, 2], -fractional[:, 2])
    order = np.lexsort((z, column))
    return np.concatenate([order, np.repeat(order[-1:], -n % WIDTH)])


@_compiled
def _fill(x, order, n_atoms, bin_start, bins, reach, cell, radius, excluded_start, excluded):
    """The arrays `first` to `masks` of a list; x (3, P) and `order` (P,) are by place, blocks by bin."""
    n_blocks = len(order) // WIDTH
    centres, extents = _boxes(x, n_blocks)
    place_of, rows, columns = _places(order, n_atoms)
    allowed = columns.copy()
    partners, masks = np.empty(64 * n_blocks, dtype=np.int32), np.empty(64 * n_blocks, dtype=np.uint16)
    # an interval of 2 reach + 1 bins touches at most this many images
    images_each = ((2 * reach[0]) // bins[0] + 2) * ((2 * reach[1]) // bins[1] + 2)
    most = n_blocks * images_each * ((2 * reach[2]) // bins[2] + 2)
    first, start = np.empty(most, dtype=np.int64), np.zeros(most + 1, dtype=np.int64)
    translations = np.empty((most, 3))
    gap2 = np.empty(n_blocks)
    n_pairs = n_segments = 0
    for here in range(len(bin_start) - 1):
        if bin_start[here] == bin_start[here + 1]:
            continue
        runs, run_start, images = _runs_around(here, bins, reach, bin_start)
        for i in range(bin_start[here], bin_start[here + 1]):
            _forbid(i, order, place_of, excluded_start, excluded, allowed)
            for image in range(len(images)):
                t = _translation(images[image], cell)
                begin = n_pairs
                for run in range(run_start[image], run_start[image + 1]):
                    low, high = max(runs[run, 0], i), runs[run, 1]
                    while n_pairs + high - low > len(partners):
                        partners, masks = _doubled(partners), _doubled(masks)
                    _set_gaps(centres, extents, i, t, low, high, gap2)
                    for j in range(low, high):
                        if gap2[j - low] < radius * radius and _near(x, i, j, t, radius):
                            mask = allowed[j] & rows[i] & (_UPPER_TRIANGLE if i == j else ALL)
                            partners[n_pairs], masks[n_pairs] = j, mask
                            n_pairs += mask != 0
                if n_pairs > begin:
                    first[n_segments] = i
                    translations[n_segments, 0], translations[n_segments, 1] = t[0], t[1]
                    translations[n_segments, 2] = t[2]
                    n_segments += 1
                    start[n_segments] = n_pairs
            _permit(i, order, place_of, excluded_start, excluded, allowed, columns)
    return (
        first[:n_segments].copy(), translations[:n_segments].copy(), start[: n_segments + 1].copy(),
        partners[:n_pairs].copy(), masks[:n_pairs].copy(),
    )  # fmt: skip


@_compiled
def _boxes(x, n_blocks):
    """Centres and half edges, both (3, B), of the boxes that hold the atoms of each block."""
    centres, extents = np.empty((3, n_blocks)), np.empty((3, n_blocks))
    for axis in range(3):
        for k in range(n_blocks):
            places = x[axis, WIDTH * k : WIDTH * (k + 1)]
            low, high = places.min(), places.max()
            centres[axis, k], extents[axis, k] = 0.5 * (low + high), 0.5 * (high - low)
    return centres, extents


@_compiled
def _places(order, n_atoms):
    """The place of each atom, and masks of the places of each block that do not repeat an atom.

    The masks have the bits of these places set as the first (rows) and as the second (columns) of a pair.
    """
    place_of = np.empty(n_atoms, dtype=np.int64)
    for place in range(len(order) - 1, -1, -1):
        place_of[order[place]] = place
    rows = np.zeros(len(order) // WIDTH, dtype=np.int64)
    columns = np.zeros(len(order) // WIDTH, dtype=np.int64)
    for place in place_of:
        rows[place // WIDTH] |= 0x000F << (WIDTH * (place % WIDTH))
        columns[place // WIDTH] |= 0x1111 << (place % WIDTH)
    return place_of, rows, columns


@_compiled
def _forbid(i, order, place_of, excluded_start, excluded, allowed):
    """Clear the bits of the excluded pairs of block i."""
    for a in range(WIDTH):
        atom = order[WIDTH * i + a]
        for e in range(excluded_start[atom], excluded_start[atom + 1]):
            place = place_of[excluded[e]]
            allowed[place // WIDTH] &= ~(1 << (WIDTH * a + place % WIDTH))


@_compiled
def _permit(i, order, place_of, excluded_start, excluded, allowed, columns):
    """Undo `_forbid`."""
    for a in range(WIDTH):
        atom = order[WIDTH * i + a]
        for e in range(excluded_start[atom], excluded_start[atom + 1]):
            block = place_of[excluded[e]] // WIDTH
            allowed[block] = columns[block]


@_compiled
def _set_gaps(centres, extents, i, t, low, high, gap2):
    """Squared distances of the box of block i from those of blocks low to high, moved by t."""
    x0, y0, z0 = centres[0, i] - t[0], centres[1, i] - t[1], centres[2, i] - t[2]
    x1, y1, z1 = extents[0, i], extents[1, i], extents[2, i]
    for j in range(low, high):
        x = max(abs(centres[0, j] - x0) - x1 - extents[0, j], 0.0)
        y = max(abs(centres[1, j] - y0) - y1 - extents[1, j], 0.0)
        z = max(abs(centres[2, j] - z0) - z1 - extents[2, j], 0.0)
        gap2[j - low] = x * x + y * y + z * z


@_compiled
def _near(x, i, j, t, radius):
    """Whether any atom of block j, moved by t, is within the radius of any of block i."""
    near = 0
    for p in range(WIDTH * i, WIDTH * (i + 1)):
        x0, y0, z0 = x[0, p] - t[0], x[1, p] - t[1], x[2, p] - t[2]
        for q in range(WIDTH * j, WIDTH * (j + 1)):
            dx, dy, dz = x[0, q] - x0, x[1, q] - y0, x[2, q] - z0
            near += dx * dx + dy * dy + dz * dz < radius * radius
    return near > 0


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
    x0, x1 = x - reach[0], x + reach[0]
    y0, y1 = y - reach[1], y + reach[1]
    z0, z1 = z - reach[2], z + reach[2]
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
