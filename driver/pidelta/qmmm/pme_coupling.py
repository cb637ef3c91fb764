"""The QM region in the Ewald potential of the whole cell, its own images among the charges.

With psi the Ewald kernel of the cell (its G = 0 term left out: the neutralising background),

    phi_A = sum over MM charges of q_j psi(R_A - r_j),     K_AB = psi(R_A - R_B) - 1/|R_A - R_B|,

K_AA the potential of an atom's own images. The classical evaluator has psi among the MM charges, so that the
three add up to the Ewald energy of the whole cell. Nam, Gao, York, J. Chem. Theory Comput. 1, 2 (2005);
Walker, Crowley, Case, J. Comput. Chem. 29, 1019 (2008).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pidelta.core import direct_sum, ewald
from pidelta.errors import GeometryError
from pidelta.qmmm.coupling import Field
from pidelta.qmmm.partition import Partition
from pidelta.qmmm.surroundings import CutRegion
from pidelta.state import FloatArray


@dataclass(frozen=True)
class PMEField(Field):
    """The field of a whole cell.

    Attributes:
        particles: (B, P, 3) in bohr.
        cells: (B, 3, 3) lattice vectors as rows in bohr.
        far: the reciprocal part of the potential of the MM charges, for each structure.
    """

    particles: FloatArray
    cells: FloatArray
    far: tuple[ewald.ReciprocalField, ...]


class PMECoupling:
    """All MM charges and all images of the QM region, by an Ewald sum.

    Args:
        partition: the QM region, and the charges of the other particles.
        reciprocal: the reciprocal sum, on a mesh or plain.
        cutoff: of the direct part in bohr.
    """

    def __init__(self, partition: Partition, reciprocal: ewald.ReciprocalSum, cutoff: float) -> None:
        alpha = reciprocal.alpha
        self._qm = partition.qm_indices
        self._mm = np.flatnonzero(partition.charges)
        self._charges = partition.charges[self._mm]
        self._reciprocal = reciprocal
        self._cutoff = cutoff
        # shifted at the cutoff, as the classical evaluator has it
        self._smooth = ewald.shifted_part(alpha, cutoff)
        self._own = -2.0 * alpha / math.sqrt(math.pi) - ewald.shift_at_cutoff(alpha, cutoff)

    def field(self, particles: FloatArray, cells: FloatArray | None, region: CutRegion) -> PMEField:
        """The field of each structure; arguments as `Coupling.field`.

        Raises:
            GeometryError: there is no cell.
        """
        if cells is None:
            raise GeometryError("expected a cell for an Ewald sum, found none")
        batch, n = region.positions.shape[:2]
        potential, kernel = np.empty((batch, n)), np.empty((batch, n, n))
        far = []
        for b, (qm, cell) in enumerate(zip(region.positions, cells, strict=True)):
            mm = particles[b, self._mm]
            background = self._background(cell)
            far.append(self._reciprocal.field(mm, self._charges, cell))
            potential[b] = far[b].at(qm)[0] + background * self._charges.sum()
            potential[b] += direct_sum.potential_of_many(
                qm, mm, self._charges, cell, self._cutoff, self._smooth
            )
            kernel[b] = self._reciprocal.kernel(qm, cell) + background + self._own * np.eye(n)
            kernel[b] += direct_sum.kernel_of_images(qm, cell, self._cutoff, self._smooth)
        return PMEField(potential, kernel, region, particles, cells, tuple(far))

    def pull_back(self, field: Field, charges: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See `Coupling.pull_back`."""
        assert isinstance(field, PMEField)
        gradient = np.zeros(field.particles.shape)
        virial = np.empty((len(charges), 3, 3))
        for b, q in enumerate(charges):
            qm, mm, cell = field.region.positions[b], field.particles[b, self._mm], field.cells[b]
            near, far = self._reciprocal.field(qm, q, cell), field.far[b]
            strain = near.strain(far) + 0.5 * near.strain(near)
            net = float(q.sum())
            strain -= self._background(cell) * net * (self._charges.sum() + 0.5 * net) * np.eye(3)
            qm_part = q[:, None] * (near.at_charges_of(near)[1] + far.at_charges_of(near)[1])
            mm_part = self._charges[:, None] * near.at_charges_of(far)[1]
            end = self._cutoff, self._smooth
            direct_sum.add_gradient_of_many(qm, q, mm, self._charges, cell, *end, qm_part, mm_part, strain)
            direct_sum.add_gradient_of_images(qm, q, cell, *end, qm_part, strain)
            gradient[b, self._mm] += mm_part
            gradient[b, self._qm] += qm_part
            virial[b] = -strain
        return gradient, virial

    def _background(self, cell: FloatArray) -> float:
        """Potential of the neutralising background of a unit charge, in hartree/e."""
        return 2.0 * ewald.background_energy(1.0, self._reciprocal.alpha, cell)
