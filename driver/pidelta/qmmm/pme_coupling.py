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
from pidelta.core.charge_fields import ChargeFields
from pidelta.errors import GeometryError
from pidelta.qmmm.coupling import Field
from pidelta.qmmm.partition import Partition
from pidelta.qmmm.surroundings import CutRegion
from pidelta.state import FloatArray, IntArray


@dataclass(frozen=True)
class _Surroundings:
    """What the QM region of one structure feels.

    Attributes:
        fields: the reciprocal part of the MM charges: that of the force field's, first, and of what these
            have more or less here.
        near: (k,) the particles of the direct part, those that are near.
        places: (3, k) where these are, in bohr.
    """

    fields: tuple[ewald.ReciprocalField, ...]
    near: IntArray
    places: FloatArray


@dataclass(frozen=True)
class PMEField(Field):
    """The field of a whole cell.

    Attributes:
        cells: (B, 3, 3) lattice vectors as rows in bohr.
        around: for each structure.
    """

    cells: FloatArray
    around: tuple[_Surroundings, ...]


class PMECoupling:
    """All MM charges and all images of the QM region, by an Ewald sum.

    Args:
        partition: the QM region, and the charges of the other particles.
        fields: of the charges of the force field, by the sum that it has; the charges of the partition differ
            from these in a few at most.
        cutoff: of the direct part in bohr.
    """

    def __init__(self, partition: Partition, fields: ChargeFields, cutoff: float) -> None:
        fields.share()
        alpha = fields.reciprocal.alpha
        self._qm = partition.qm_indices
        self._charges = partition.charges
        self._charged = np.flatnonzero(partition.charges)
        self._changed = np.flatnonzero(partition.charges != fields.charges)
        self._changes = (partition.charges - fields.charges)[self._changed]
        self._fields, self._reciprocal = fields, fields.reciprocal
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
        around = []
        for b, (qm, cell) in enumerate(zip(region.positions, cells, strict=True)):
            one, background = self._around(b, particles[b], qm, cell), self._background(cell)
            around.append(one)
            potential[b] = one.fields[0].own[0][self._qm] + background * self._charges.sum()
            for changes in one.fields[1:]:
                potential[b] += changes.at(qm)[0]
            end = self._cutoff, self._smooth
            potential[b] += direct_sum.potential_of_many(qm, one.places, self._charges[one.near], *end)
            kernel[b] = self._reciprocal.kernel(qm, cell) + background + self._own * np.eye(n)
            kernel[b] += direct_sum.kernel_of_images(qm, cell, *end)
        return PMEField(potential, kernel, region, cells, tuple(around))

    def _around(self, b: int, particles: FloatArray, qm: FloatArray, cell: FloatArray) -> _Surroundings:
        fields = [self._fields.take(b, particles, cell)]
        if len(self._changed):
            fields.append(self._reciprocal.field(particles[self._changed], self._changes, cell))
        near, places = direct_sum.images_in_reach(qm, particles[self._charged], cell, self._cutoff)
        return _Surroundings(tuple(fields), self._charged[near], places)

    def pull_back(self, field: Field, charges: FloatArray) -> tuple[FloatArray, FloatArray]:
        """See `Coupling.pull_back`."""
        assert isinstance(field, PMEField)
        gradient = np.empty((len(charges), len(self._charges), 3))
        virial = np.empty((len(charges), 3, 3))
        for b, (q, one) in enumerate(zip(charges, field.around, strict=True)):
            qm, cell = field.region.positions[b], field.cells[b]
            own = self._reciprocal.field(qm, q, cell)
            strain = own.strain(*one.fields)
            net = float(q.sum())
            strain -= self._background(cell) * net * (self._charges.sum() + 0.5 * net) * np.eye(3)
            slopes = own.at_charges_of(one.fields[0])[1]
            at_qm = slopes[self._qm] + one.fields[0].own[1][self._qm]
            for changes in one.fields[1:]:
                at_qm += changes.at(qm)[1]
            end = self._cutoff, self._smooth
            qm_part, near_part, direct = direct_sum.gradient_of_many(
                qm, q, one.places, self._charges[one.near], *end
            )
            qm_part += q[:, None] * at_qm
            strain += direct
            direct_sum.add_gradient_of_images(qm, q, cell, *end, qm_part, strain)
            gradient[b] = self._charges[:, None] * slopes
            np.add.at(gradient[b], one.near, near_part)
            gradient[b, self._qm] += qm_part
            virial[b] = -strain
        return gradient, virial

    def _background(self, cell: FloatArray) -> float:
        """Potential of the neutralising background of a unit charge, in hartree/e."""
        return 2.0 * ewald.background_energy(1.0, self._reciprocal.alpha, cell)
