"""The point charges that the QM region feels, and the way back from their derivatives to the atoms.

Scheme ``cutoff``: each charge group g (a molecule or residue) counts with one weight

    w_g = 1 - prod_A (1 - s(|R_A - r_g|)),

where A runs over QM atoms, r_g is the geometric centre of the group and s falls smoothly from 1 to 0 over
the last `switch` of the cutoff. Charges of the group are scaled by w_g, for DFTB, the delta model and DFT
labels alike, and the gradient holds dw_g/dR exactly. A group whose periodic images are both within reach
enters twice, so that the energy stays continuous whatever the shape of the QM region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pidelta.core.cell import heights, minimum_image
from pidelta.core.compilation import compiled
from pidelta.errors import GeometryError, SetupError
from pidelta.qmmm.partition import Partition
from pidelta.state import FloatArray, IntArray, Region, RegionGradient


@dataclass(frozen=True)
class CutRegion(Region):
    """A region cut out of a system.

    Attributes:
        site_atoms: (B, m) index of each site's atom, -1 for padding and for charges that belong to no atom.
    """

    site_atoms: IntArray


class Embedding(Protocol):
    """A way to choose point charges."""

    @property
    def settings(self) -> dict[str, str | float]:
        """What a model has to remember: the scheme and its lengths in bohr."""

    @property
    def has_fixed_charges(self) -> bool:
        """Whether charges that belong to no atom take part."""

    def region(self, positions: FloatArray, cells: FloatArray | None) -> CutRegion:
        """The region of positions (B, N, 3) with lattice rows (B, 3, 3), or None if not periodic."""

    def pull_back(self, region: CutRegion, gradient: RegionGradient) -> tuple[FloatArray, FloatArray]:
        """The chain rule: gradient (B, N, 3) and virial (B, 3, 3) from derivatives of the environment."""


class CutoffEmbedding:
    """Charge groups within a smooth cutoff of the QM region.

    Args:
        partition: QM atoms and charge groups.
        cutoff: distance from a QM atom to a group's centre beyond which the group is left out, in bohr.
        switch: width over which the weight falls from 1 to 0 before the cutoff, in bohr.
        cell: (3, 3) lattice of the set-up, to find out early that the cutoff does not fit.

    Raises:
        SetupError: the cutoff is larger than half the cell, or the switch is not within the cutoff.
    """

    def __init__(
        self, partition: Partition, cutoff: float, switch: float, cell: FloatArray | None = None
    ) -> None:
        if not 0.0 < switch < cutoff:
            raise SetupError(
                f"embedding.switch: expected between 0 and the cutoff, {cutoff:.3f} bohr, found {switch:.3f}"
            )
        if cell is not None and cutoff > (half := 0.5 * float(heights(cell).min())):
            raise SetupError(
                f"embedding.cutoff: expected at most half the cell, {half:.3f} bohr, found {cutoff:.3f} bohr"
            )
        self.partition = partition
        self.cutoff = cutoff
        self.switch = switch
        self._group_of_atom = np.repeat(
            np.arange(len(partition.group_starts) - 1), np.diff(partition.group_starts)
        )

    @property
    def settings(self) -> dict[str, str | float]:
        """What a model has to remember: the scheme and its lengths in bohr."""
        return {"scheme": "cutoff", "cutoff": self.cutoff, "switch": self.switch}

    @property
    def has_fixed_charges(self) -> bool:
        """Never."""
        return False

    def region(self, positions: FloatArray, cells: FloatArray | None) -> CutRegion:
        """The region of each structure.

        Args:
            positions: (B, N, 3) in bohr; molecules may be broken across the cell.
            cells: (B, 3, 3) lattice rows in bohr, or None.

        Raises:
            GeometryError: the cutoff is larger than half the cell, or the QM region as large as that.
        """
        parts = [
            self._single(positions[b], None if cells is None else cells[b]) for b in range(len(positions))
        ]
        size = max(len(atoms) for _, _, _, atoms in parts)
        batch, n = len(parts), len(self.partition.qm_indices)
        qm_positions = np.empty((batch, n, 3))
        site_positions = np.empty((batch, size, 3))
        charges = np.zeros((batch, size))
        numbers = np.zeros((batch, size), dtype=np.int64)
        atoms = np.full((batch, size), -1)
        for b, (qm, env, scaled, indices) in enumerate(parts):
            m = len(indices)
            qm_positions[b] = qm
            site_positions[b, :m] = env
            site_positions[b, m:] = qm[0] + 10.0 * self.cutoff  # away from any atom, so that 1/r is finite
            charges[b, :m] = scaled
            numbers[b, :m] = self.partition.numbers[indices]
            atoms[b, :m] = indices
        return CutRegion(self.partition.qm_numbers, qm_positions, site_positions, charges, numbers, atoms)

    def _single(
        self, positions: FloatArray, cell: FloatArray | None
    ) -> tuple[FloatArray, FloatArray, FloatArray, IntArray]:
        """QM positions, and positions, scaled charges and atoms of the environment of one structure."""
        qm = self._whole_qm(positions, cell)
        group_positions, centres = self._whole_groups(positions, cell)
        starts = self.partition.group_starts
        if cell is None:
            groups = np.arange(len(centres))
            shifts = np.zeros((len(centres), 3))
        else:
            groups, images = _images_in_reach(qm, centres, cell, np.linalg.inv(cell), self.cutoff)
            shifts = images @ cell
        weights = _group_weights(qm, centres[groups] + shifts, self.cutoff - self.switch, self.cutoff)
        sizes = np.diff(starts)[groups]
        rows = np.repeat(starts[groups] - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes) + np.arange(
            sizes.sum()
        )
        atoms = self.partition.group_atoms[rows]
        env = group_positions[rows] + np.repeat(shifts, sizes, axis=0)
        return qm, env, self.partition.charges[atoms] * np.repeat(weights, sizes), atoms

    def _whole_qm(self, positions: FloatArray, cell: FloatArray | None) -> FloatArray:
        qm: FloatArray = positions[self.partition.qm_indices]
        if cell is None:
            return qm
        half = 0.5 * float(heights(cell).min())
        if self.cutoff > half:
            raise GeometryError(
                f"embedding.cutoff: expected at most half the cell, {half:.3f} bohr, "
                f"found {self.cutoff:.3f} bohr"
            )
        qm = qm[0] + minimum_image(qm - qm[0], cell)
        extent = float(np.sqrt(((qm[:, None] - qm[None]) ** 2).sum(axis=2).max()))
        if extent > half:
            raise GeometryError(
                f"the QM region spans {extent:.3f} bohr, expected at most half the cell, {half:.3f} bohr"
            )
        return qm

    def _whole_groups(self, positions: FloatArray, cell: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """Positions (M, 3) of MM atoms with each group whole, and the centres (G, 3)."""
        starts = self.partition.group_starts
        mm = positions[self.partition.group_atoms]
        if len(mm) == 0:
            return mm, np.zeros((0, 3))
        first = mm[starts[:-1]][self._group_of_atom]
        mm = first + minimum_image(mm - first, cell)
        return mm, np.add.reduceat(mm, starts[:-1], axis=0) / np.diff(starts)[:, None]

    def pull_back(self, region: CutRegion, gradient: RegionGradient) -> tuple[FloatArray, FloatArray]:
        """The chain rule from the environment to all atoms.

        Args:
            region: as returned by `region`.
            gradient: dE/dR of QM atoms, dE/dr of charges, and dE/dq of the scaled charges.

        Returns:
            gradient (B, N, 3) in hartree/bohr and virial (B, 3, 3), -dE/d(strain), in hartree.
        """
        batch = len(region.site_charges)
        total = np.zeros((batch, len(self.partition.numbers), 3))
        virial = np.empty((batch, 3, 3))
        for b in range(batch):
            m = int(np.count_nonzero(region.site_atoms[b] >= 0))
            atoms, site_positions = region.site_atoms[b, :m], region.site_positions[b, :m]
            qm_part, env_part = self._weight_gradients(
                region.positions[b], site_positions, atoms, gradient.site_charges[b, :m]
            )
            qm_part += gradient.positions[b]
            env_part += gradient.site_positions[b, :m]
            total[b, self.partition.qm_indices] = qm_part
            np.add.at(total[b], atoms, env_part)
            virial[b] = -(qm_part.T @ region.positions[b] + env_part.T @ site_positions)
        return total, virial

    def _weight_gradients(
        self, qm: FloatArray, site_positions: FloatArray, atoms: IntArray, charge_gradient: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """What dE/dq and the weights contribute to the gradient on QM atoms (n, 3) and charges (m, 3)."""
        if len(atoms) == 0:
            return np.zeros_like(qm), np.zeros_like(site_positions)
        group_of_atom = np.full(len(self.partition.numbers), -1)
        group_of_atom[self.partition.group_atoms] = self._group_of_atom
        groups = group_of_atom[atoms]
        # Two images of one group may follow one another, so an entry starts at each group's first atom.
        first_atoms = self.partition.group_atoms[self.partition.group_starts[:-1]]
        starts = np.flatnonzero(atoms == first_atoms[groups])
        sizes = np.diff(np.append(starts, len(atoms)))
        centres = np.add.reduceat(site_positions, starts, axis=0) / sizes[:, None]
        weight_gradient = np.add.reduceat(charge_gradient * self.partition.charges[atoms], starts)
        qm_part, centre_part = _group_weight_gradients(
            qm, centres, self.cutoff - self.switch, self.cutoff, weight_gradient
        )
        return qm_part, np.repeat(centre_part / sizes[:, None], sizes, axis=0)


class FixedCharges:
    """Point charges that do not move, around a molecule in vacuum: bare Coulomb, no cutoff.

    Args:
        numbers: (n,) atomic numbers of the molecule.
        positions: (m, 3) of the charges in bohr.
        charges: (m,) in e.
    """

    def __init__(self, numbers: IntArray, positions: FloatArray, charges: FloatArray) -> None:
        self._numbers = numbers
        self._positions = positions
        self._charges = charges

    @property
    def settings(self) -> dict[str, str | float]:
        """What a model has to remember."""
        return {"scheme": "fixed"}

    @property
    def has_fixed_charges(self) -> bool:
        """Whether there are any."""
        return len(self._charges) > 0

    def region(self, positions: FloatArray, cells: FloatArray | None) -> CutRegion:
        """The same charges for each structure."""
        batch, m = len(positions), len(self._charges)
        return CutRegion(
            numbers=self._numbers,
            positions=positions,
            site_positions=np.broadcast_to(self._positions, (batch, m, 3)).copy(),
            site_charges=np.broadcast_to(self._charges, (batch, m)).copy(),
            site_numbers=np.zeros((batch, m), dtype=np.int64),
            site_atoms=np.full((batch, m), -1),
        )

    def pull_back(self, region: CutRegion, gradient: RegionGradient) -> tuple[FloatArray, FloatArray]:
        """Gradient (B, n, 3) and virial (B, 3, 3) of the molecule; the charges do not follow a strain."""
        virial = -np.einsum("bai,baj->bij", gradient.positions, region.positions)
        return gradient.positions, virial


@compiled()
def _images_in_reach(qm, centres, cell, inverse, cutoff):  # type: ignore[no-untyped-def]
    """Groups and their images (as numbers of cells) within the cutoff of any QM atom.

    As the cutoff is at most half the smallest height of the cell, each QM atom sees one image of a group at
    most, the one whose fractional displacement is nearest to zero.
    """
    groups = []
    images = []
    seen = np.empty((len(qm), 3))
    for g in range(len(centres)):
        found = 0
        for a in range(len(qm)):
            d = centres[g] - qm[a]
            image = np.empty(3)
            for k in range(3):
                image[k] = -np.round(d[0] * inverse[0, k] + d[1] * inverse[1, k] + d[2] * inverse[2, k])
            squared = 0.0
            for k in range(3):
                x = d[k] + image[0] * cell[0, k] + image[1] * cell[1, k] + image[2] * cell[2, k]
                squared += x * x
            if squared >= cutoff * cutoff:
                continue
            known = False
            for i in range(found):
                known = known or (
                    seen[i, 0] == image[0] and seen[i, 1] == image[1] and seen[i, 2] == image[2]
                )
            if not known:
                seen[found] = image
                found += 1
                groups.append(g)
                images.append((image[0], image[1], image[2]))
    group_array = np.empty(len(groups), dtype=np.int64)
    image_array = np.empty((len(groups), 3))
    for i in range(len(groups)):
        group_array[i] = groups[i]
        for k in range(3):
            image_array[i, k] = images[i][k]
    return group_array, image_array


@compiled()
def _steps(qm, centre, start, stop):  # type: ignore[no-untyped-def]
    """1 - s(d_A) and ds/dd_A / d_A for each QM atom A; the quintic of `core.switching.smooth_step`."""
    n = len(qm)
    rest = np.ones(n)
    slope = np.zeros(n)
    for a in range(n):
        squared = 0.0
        for k in range(3):
            squared += (centre[k] - qm[a, k]) ** 2
        distance = np.sqrt(squared)
        if distance >= stop:
            continue
        x = max((distance - start) / (stop - start), 0.0)
        rest[a] = x**3 * (10.0 - 15.0 * x + 6.0 * x * x)
        if x > 0.0:
            slope[a] = -30.0 * (x * (1.0 - x)) ** 2 / (stop - start) / distance
    return rest, slope


@compiled()
def _group_weights(qm, centres, start, stop):  # type: ignore[no-untyped-def]
    weights = np.empty(len(centres))
    for g in range(len(centres)):
        rest, _ = _steps(qm, centres[g], start, stop)
        weights[g] = 1.0 - np.prod(rest)
    return weights


@compiled()
def _group_weight_gradients(qm, centres, start, stop, weight_gradient):  # type: ignore[no-untyped-def]
    """dE/dR of QM atoms and dE/dr of centres, from dE/dw."""
    qm_part = np.zeros_like(qm)
    centre_part = np.zeros_like(centres)
    for g in range(len(centres)):
        rest, slope = _steps(qm, centres[g], start, stop)
        for a in range(len(qm)):
            if slope[a] == 0.0:
                continue
            others = 1.0
            for b in range(len(qm)):
                if b != a:
                    others *= rest[b]
            scale = weight_gradient[g] * slope[a] * others
            for k in range(3):
                part = scale * (centres[g, k] - qm[a, k])
                centre_part[g, k] += part
                qm_part[a, k] -= part
    return qm_part, centre_part
