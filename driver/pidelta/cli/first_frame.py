"""Whether the first positions from i-PI are those of the structure's atoms, in its order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import vesin
from ase.data import covalent_radii

from pidelta.core.cell import minimum_image
from pidelta.errors import StructureError
from pidelta.setup import Setup
from pidelta.state import FloatArray, IntArray, System
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM

_BOND_FACTOR = 1.25  # of the sum of covalent radii: what counts as bonded in the structure file
_STRETCH_FACTOR = 1.5  # of the structure's length: what no flexible bond reaches


def check_first_frame(setup: Setup) -> Callable[[FloatArray, FloatArray | None], None]:
    """A check that positions from i-PI list the atoms in the structure's order.

    i-PI sends no elements, so the bonds of the topology (or, in vacuum, of the structure) are looked for: a
    flexible bond stretches, but not to one and a half times its length. Bonds of the QM region may break, so
    most of them have to be gone.

    Returns:
        check(positions (B, N, 3), cells (B, 3, 3) or None), which raises StructureError.
    """
    system = setup.system
    pairs = _bonds_by_radii(system) if setup.topology is None else setup.topology.bonded_pairs
    lengths = _distances(system.positions, pairs, system.cell)
    reactive = np.isin(pairs, setup.qm_indices).all(axis=1)

    def check(positions: FloatArray, cells: FloatArray | None) -> None:
        cell = cells[0] if cells is not None and system.cell is not None else None
        found = _distances(positions[0], pairs, cell)
        broken = found > _STRETCH_FACTOR * lengths
        suspicious = broken & ~reactive
        if 2 * np.count_nonzero(broken & reactive) > np.count_nonzero(reactive):
            suspicious = broken
        if suspicious.any():
            worst = int(np.flatnonzero(suspicious)[0])
            i, j = pairs[worst]
            raise StructureError(
                f"{setup.config.structure}: atoms {i} and {j} are bonded, "
                f"{lengths[worst] * BOHR_IN_ANGSTROM:.2f} angstrom, but "
                f"{found[worst] * BOHR_IN_ANGSTROM:.2f} angstrom apart in the first positions from i-PI: "
                "its file must list the atoms in the same order"
            )

    return check


def _distances(positions: FloatArray, pairs: IntArray, cell: FloatArray | None) -> FloatArray:
    vectors = positions[pairs[:, 1]] - positions[pairs[:, 0]]
    return np.asarray(np.linalg.norm(minimum_image(vectors, cell), axis=1))


def _bonds_by_radii(system: System) -> IntArray:
    """Bonded pairs (nb, 2) of a molecule in vacuum, from its distances and covalent radii."""
    radii = covalent_radii[system.numbers] * ANGSTROM * _BOND_FACTOR
    neighbours = vesin.NeighborList(cutoff=2.0 * float(radii.max()), full_list=False)
    i, j, d = neighbours.compute(
        points=system.positions, box=np.zeros((3, 3)), periodic=False, quantities="ijd"
    )
    hydrogens = (system.numbers[i] == 1) & (system.numbers[j] == 1)
    bonded = (d < radii[i] + radii[j]) & ~hydrogens
    return np.stack([i[bonded], j[bonded]], axis=1).astype(np.int64)
