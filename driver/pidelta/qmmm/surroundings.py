"""Which point charges methods of the QM region are given, and the way back from their derivatives.

`CutoffSurroundings`: each charge group g counts with one weight

    w_g = 1 - prod_A prod_c (1 - s(|R_A - r_c|)),

where A runs over QM atoms, c over the centres of the group (one but for large groups), and s falls smoothly
from 1 to 0 over the last `switch` of the cutoff. Charges of the group are scaled by w_g, for the low level,
the delta model and DFT labels alike, and the gradient holds dw_g/dR exactly. A group whose periodic images
are both within reach enters twice, so that the energy stays continuous whatever the shape of the QM region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pidelta.core.cell import heights, minimum_image
from pidelta.errors import GeometryError, SettingError
from pidelta.qmmm import cutting
from pidelta.qmmm.partition import Partition
from pidelta.state import FloatArray, IntArray, Region, RegionGradient
from pidelta.units import BOHR_IN_ANGSTROM


@dataclass(frozen=True)
class CutRegion(Region):
    """A region cut out of a system.

    Attributes:
        site_particles: (B, m) the particle that each site is an image of, -1 for padding.
    """

    site_particles: IntArray


class Surroundings(Protocol):
    """A rule for the point charges around a QM region."""

    @property
    def settings(self) -> dict[str, str | float]:
        """What a model has to remember: the scheme and its lengths in bohr."""

    def qm_positions(self, particles: FloatArray, cells: FloatArray | None) -> FloatArray:
        """(B, n, 3) of the QM atoms, whole: those of the region of `cut`, for the same arguments."""

    def cut(self, particles: FloatArray, cells: FloatArray | None) -> CutRegion:
        """The region of particles (B, P, 3) with lattice rows (B, 3, 3), or None if not periodic."""

    def pull_back(self, region: CutRegion, gradient: RegionGradient) -> tuple[FloatArray, FloatArray]:
        """The chain rule: gradient (B, P, 3) and virial (B, 3, 3) from derivatives of the region."""


class CutoffSurroundings:
    """Charge groups within a smooth cutoff of the QM region.

    Args:
        partition: QM atoms and charge groups.
        cutoff: distance from a QM atom to a group's centre beyond which the group is left out, in bohr.
        switch: width over which the weight falls from 1 to 0 before the cutoff, in bohr.
        cell: (3, 3) lattice of the set-up, to find out early that the cutoff does not fit.
        grouping: how the groups were made, which models remember: ``residue``, ``molecule`` or ``listed``.
        links: how bonds across the border are cut, which models remember as well, or None without any.

    Raises:
        SettingError: the cutoff is larger than half the cell, or the switch is not within the cutoff.
    """

    def __init__(
        self,
        partition: Partition,
        cutoff: float,
        switch: float,
        cell: FloatArray | None = None,
        *,
        grouping: str = "residue",
        links: str | None = None,
    ) -> None:
        longest, shown = cutoff * BOHR_IN_ANGSTROM, switch * BOHR_IN_ANGSTROM
        if not 0.0 < switch < cutoff:
            raise SettingError(
                "switch",
                f"expected between 0 and the cutoff, {longest:.2f} angstrom, found {shown:.2f} angstrom",
            )
        if cell is not None and cutoff > (half := 0.5 * float(heights(cell).min())):
            half *= BOHR_IN_ANGSTROM
            raise SettingError(
                "cutoff", f"expected at most half the cell, {half:.2f} angstrom, found {longest:.2f} angstrom"
            )
        self.partition = partition
        self.cutoff = cutoff
        self.switch = switch
        self._grouping = grouping
        self._links = links
        groups = partition.groups
        self._row_of_particle = np.full(len(partition.numbers), -1)
        self._row_of_particle[groups.particles] = np.arange(len(groups.particles))
        self._group_of_row = np.repeat(np.arange(len(groups)), np.diff(groups.starts))

    @property
    def settings(self) -> dict[str, str | float]:
        """What a model has to remember: the scheme and its lengths in bohr."""
        settings: dict[str, str | float] = {
            "scheme": "cutoff",
            "cutoff": self.cutoff,
            "switch": self.switch,
        }
        if self._grouping != "residue":
            settings["groups"] = self._grouping
        if self._links is not None:
            settings["links"] = self._links
        return settings

    def qm_positions(self, particles: FloatArray, cells: FloatArray | None) -> FloatArray:
        """(B, n, 3) of the QM atoms, made whole; arguments and errors as of `cut`."""
        qm: FloatArray = particles[:, self.partition.qm_indices]
        if cells is None:
            return qm
        half = 0.5 * heights(cells).min(axis=1)
        if self.cutoff > half.min():
            raise GeometryError(
                f"the cutoff of the embedding is {_angstrom(self.cutoff)}, expected at most half the cell, "
                f"{_angstrom(half.min())}"
            )
        qm = qm[:, :1] + minimum_image(qm - qm[:, :1], cells)
        extents = np.sqrt(((qm[:, :, None] - qm[:, None]) ** 2).sum(axis=3).max(axis=(1, 2)))
        if (extents > half).any():
            b = int((extents - half).argmax())
            raise GeometryError(
                f"the QM region spans {_angstrom(extents[b])}, expected at most half the cell, "
                f"{_angstrom(half[b])}"
            )
        return qm

    def cut(self, particles: FloatArray, cells: FloatArray | None) -> CutRegion:
        """The region of each structure.

        Args:
            particles: (B, P, 3) in bohr; molecules may be broken across the cell.
            cells: (B, 3, 3) lattice rows in bohr, or None.

        Raises:
            GeometryError: the cutoff is larger than half the cell, or the QM region as large as that.
        """
        parts = [
            self._cut_one(
                qm, np.ascontiguousarray(one), None if cells is None else np.ascontiguousarray(cells[b])
            )
            for b, (qm, one) in enumerate(zip(self.qm_positions(particles, cells), particles, strict=True))
        ]
        size = max((len(scaled) for _, _, scaled, _ in parts), default=0)
        batch, n = len(parts), len(self.partition.qm_indices)
        positions, site_positions = np.empty((batch, n, 3)), np.empty((batch, size, 3))
        charges, sites = np.zeros((batch, size)), np.full((batch, size), -1)
        for b, (qm, own, scaled, indices) in enumerate(parts):
            m = len(indices)
            positions[b], site_positions[b, :m], charges[b, :m], sites[b, :m] = qm, own, scaled, indices
            site_positions[b, m:] = qm[0] + 10.0 * self.cutoff  # away from any atom, so that 1/r is finite
        numbers = np.where(sites >= 0, self.partition.numbers[sites], 0)
        return CutRegion(self.partition.qm_numbers, positions, site_positions, charges, numbers, sites)

    def weights(self, particles: FloatArray, cell: FloatArray | None) -> FloatArray:
        """(G,) weights of the groups, those of images added up, of particles (P, 3) with rows (3, 3)."""
        (qm,) = self.qm_positions(particles[None], None if cell is None else cell[None])
        near, _, weights, _ = self._weigh(qm, particles, cell)
        return np.bincount(near, weights, minlength=len(self.partition.groups)).astype(np.float64)

    def _cut_one(
        self, qm: FloatArray, particles: FloatArray, cell: FloatArray | None
    ) -> tuple[FloatArray, FloatArray, FloatArray, IntArray]:
        """QM positions, and positions, scaled charges and particles of the sites of one structure."""
        groups = self.partition.groups
        near, shifts, weights, whole = self._weigh(qm, particles, cell)
        m = int(np.diff(groups.starts)[near].sum())
        positions, scaled, sites = np.empty((m, 3)), np.empty(m), np.empty(m, dtype=np.int64)
        cutting.fill_sites(
            whole, groups.particles, groups.starts, self.partition.charges, near, shifts, weights, positions,
            scaled, sites,
        )  # fmt: skip
        return qm, positions, scaled, sites

    def _weigh(
        self, qm: FloatArray, particles: FloatArray, cell: FloatArray | None
    ) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
        """Groups in reach of the QM atoms, the images they are there by, their weights; all groups whole."""
        groups = self.partition.groups
        lattice, inverse = (np.zeros((3, 3)),) * 2 if cell is None else (cell, np.linalg.inv(cell))
        whole, centres = cutting.make_whole(
            particles,
            groups.particles,
            groups.neighbours,
            groups.parts,
            groups.part_starts[-1],
            lattice,
            inverse,
        )
        near, shifts = cutting.images_in_reach(qm, centres, groups.part_starts, lattice, inverse, self.cutoff)
        start, stop = self.cutoff - self.switch, self.cutoff
        weights = cutting.group_weights(qm, centres, groups.part_starts, near, shifts, start, stop)
        return near, shifts, weights, whole

    def pull_back(self, region: CutRegion, gradient: RegionGradient) -> tuple[FloatArray, FloatArray]:
        """The chain rule from the region to all particles.

        Args:
            region: as returned by `cut`.
            gradient: dE/dR of QM atoms, dE/dr of sites, and dE/dq of their scaled charges.

        Returns:
            gradient (B, P, 3) in hartree/bohr and virial (B, 3, 3), -dE/d(strain), in hartree.
        """
        batch, groups = len(region), self.partition.groups
        total = np.zeros((batch, len(self.partition.numbers), 3))
        virial = np.empty((batch, 3, 3))
        for b in range(batch):
            m = int(np.count_nonzero(region.site_particles[b] >= 0))
            sites, positions = region.site_particles[b, :m], region.site_positions[b, :m]
            qm_part = np.array(gradient.positions[b])
            site_part = np.array(gradient.site_positions[b, :m])
            cutting.add_weight_gradients(
                region.positions[b], positions, self._row_of_particle[sites], groups.starts,
                self._group_of_row, groups.parts, groups.part_starts, self.partition.charges[sites],
                np.ascontiguousarray(gradient.site_charges[b, :m]), self.cutoff - self.switch, self.cutoff,
                qm_part, site_part,
            )  # fmt: skip
            total[b, self.partition.qm_indices] = qm_part
            for axis in range(3):
                total[b, :, axis] += np.bincount(sites, site_part[:, axis], minlength=total.shape[1])
            virial[b] = -(qm_part.T @ region.positions[b] + site_part.T @ positions)
        return total, virial


class FixedCharges:
    """All particles that are no QM atoms, with their charges: around a molecule in vacuum, without a cutoff.

    Args:
        partition: QM atoms, and the charges of the particles.
    """

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        others = np.ones(len(partition.numbers), dtype=np.bool_)
        others[partition.qm_indices] = False
        self._sites = np.flatnonzero(others)

    @property
    def settings(self) -> dict[str, str | float]:
        """What a model has to remember."""
        return {"scheme": "fixed"}

    def qm_positions(self, particles: FloatArray, cells: FloatArray | None) -> FloatArray:
        """(B, n, 3) of the QM atoms."""
        return particles[:, self.partition.qm_indices]

    def cut(self, particles: FloatArray, cells: FloatArray | None) -> CutRegion:
        """The same charges for each structure."""

        def repeated(values: FloatArray | IntArray) -> np.ndarray:
            return np.repeat(values[None], len(particles), axis=0)

        partition, sites = self.partition, self._sites
        return CutRegion(
            numbers=partition.qm_numbers,
            positions=particles[:, partition.qm_indices],
            site_positions=particles[:, sites],
            site_charges=repeated(partition.charges[sites]),
            site_numbers=repeated(partition.numbers[sites]),
            site_particles=repeated(sites),
        )

    def pull_back(self, region: CutRegion, gradient: RegionGradient) -> tuple[FloatArray, FloatArray]:
        """Gradient (B, P, 3) and virial (B, 3, 3) of all particles."""
        total = np.empty((len(region), len(self.partition.numbers), 3))
        total[:, self.partition.qm_indices] = gradient.positions
        total[:, self._sites] = gradient.site_positions
        virial = -np.einsum("bai,baj->bij", gradient.positions, region.positions)
        return total, virial - np.einsum("bai,baj->bij", gradient.site_positions, region.site_positions)


def _angstrom(length: float) -> str:
    return f"{length * BOHR_IN_ANGSTROM:.3f} angstrom"
