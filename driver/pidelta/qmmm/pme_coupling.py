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
from pidelta.state import FloatArray, IntArray


@dataclass(frozen=True)
class PMEField:
    """What the QM region feels in B structures.

    Attributes:
        potential: (B, n) in hartree/e.
        kernel: (B, n, n) in hartree/e^2.
        particles: (B, P, 3) in bohr.
        positions: (B, n, 3) of the QM atoms in bohr, the region whole.
        cells: (B, 3, 3) lattice vectors as rows in bohr.
        far: the reciprocal part of the potential of the MM charges, for each structure.
    """

    potential: FloatArray
    kernel: FloatArray
    particles: FloatArray
    positions: FloatArray
    cells: FloatArray
    far: tuple[ewald.ReciprocalField, ...]


class PMECoupling:
    """All MM charges and all images of the QM region, by an Ewald sum.

    Args:
        qm: (n,) the particles of the QM region.
        charges: (P,) force-field charges in e; those of the QM region do not count.
        reciprocal: the reciprocal sum, on a mesh or plain.
        cutoff: of the direct part in bohr.
    """

    def __init__(
        self, qm: IntArray, charges: FloatArray, reciprocal: ewald.ReciprocalSum, cutoff: float
    ) -> None:
        alpha = reciprocal.alpha
        self._qm = qm
        mm = charges.copy()
        mm[qm] = 0.0
        self._mm = np.flatnonzero(mm)
        self._charges = mm[self._mm]
        self._reciprocal = reciprocal
        self._cutoff = cutoff
        # as the classical evaluator has it: the direct part is shifted to zero at the cutoff
        shift = math.erfc(alpha * cutoff) / cutoff
        self._smooth = ewald.smooth_part(alpha, cutoff)
        self._smooth[0] -= shift
        self._own = -2.0 * alpha / math.sqrt(math.pi) - shift

    def _background(self, cell: FloatArray) -> float:
        """Potential of the neutralising background of a unit charge, in hartree/e."""
        return -math.pi / (abs(float(np.linalg.det(cell))) * self._reciprocal.alpha**2)

    def field(self, particles: FloatArray, positions: FloatArray, cells: FloatArray) -> PMEField:
        """The field of each structure.

        Args:
            particles: (B, P, 3) in bohr.
            positions: (B, n, 3) of the QM atoms in bohr, the region whole.
            cells: (B, 3, 3) lattice vectors as rows in bohr.
        """
        batch, n = positions.shape[:2]
        potential, kernel = np.empty((batch, n)), np.empty((batch, n, n))
        fields = []
        for b in range(batch):
            qm, mm, cell = positions[b], particles[b, self._mm], cells[b]
            background = self._background(cell)
            far = self._reciprocal.field(mm, self._charges, cell)
            potential[b] = far.at(qm)[0] + background * self._charges.sum()
            potential[b] += direct_sum.potential_of_many(
                qm, mm, self._charges, cell, self._cutoff, self._smooth
            )
            kernel[b] = self._reciprocal.kernel(qm, cell) + background + self._own * np.eye(n)
            kernel[b] += direct_sum.kernel_of_images(qm, cell, self._cutoff, self._smooth)
            fields.append(far)
        return PMEField(potential, kernel, particles, positions, cells, tuple(fields))

    def pull_back(self, field: PMEField, charges: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Gradient (B, P, 3) and virial (B, 3, 3) of sum_A q_A phi_A + 1/2 sum_AB q_A K_AB q_B.

        Args:
            field: as returned by `field`.
            charges: (B, n) net charges of the QM atoms in e, at which derivatives are taken.
        """
        gradient = np.zeros_like(field.particles)
        virial = np.empty((len(charges), 3, 3))
        for b, q in enumerate(charges):
            qm, mm, cell = field.positions[b], field.particles[b, self._mm], field.cells[b]
            near, far = self._reciprocal.field(qm, q, cell), field.far[b]
            strain = near.strain(far) + 0.5 * near.strain(near)
            net = float(q.sum())
            strain -= self._background(cell) * net * (self._charges.sum() + 0.5 * net) * np.eye(3)
            qm_part = q[:, None] * (near.at(qm)[1] + far.at(qm)[1])
            mm_part = self._charges[:, None] * near.at(mm)[1]
            end = self._cutoff, self._smooth
            direct_sum.add_gradient_of_many(qm, q, mm, self._charges, cell, *end, qm_part, mm_part, strain)
            direct_sum.add_gradient_of_images(qm, q, cell, *end, qm_part, strain)
            gradient[b, self._mm] += mm_part
            gradient[b, self._qm] += qm_part
            virial[b] = -strain
        return gradient, virial
