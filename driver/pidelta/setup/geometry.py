"""Whether the structure of a set-up is one of its atoms, in their order and in its unit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import vesin
from ase.data import chemical_symbols, covalent_radii

from pidelta.core.cell import is_cell
from pidelta.errors import StructureError
from pidelta.mm.topology import Topology
from pidelta.setup.files import Inputs
from pidelta.state import FloatArray, IntArray, System
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM
from pidelta.workflow.yardstick import Yardstick

_FAR = 1.6
"""Of the largest sum of covalent radii: where an atom has no neighbour."""

_NEAR = 0.55
"""Of the sum of covalent radii: where two atoms are one. An angstrom read as bohr makes it 0.53."""

_UNLIKE, _MANY = (0.72, 1.35), 0.25
"""Of the lengths, and of the bonds: H O H read as O H H makes half of them 1.5 times as long."""

_BONDED = 1.25
"""Of the sum of covalent radii: what counts as bonded."""

_NOBLE_GASES = (2, 10, 18, 36, 54, 86)


def refuse_wrong_unit(inputs: Inputs) -> None:
    """Hold the bonds of a structure against the lengths that its force field has.

    Raises:
        StructureError: nearly all of them differ by the ratio of two units.
    """
    topology, system = inputs.topology, inputs.system
    if topology is None:
        return
    mistake = _of_force_field(inputs, topology).mistaken_unit(system.positions, system.cell)
    if mistake is not None:
        raise StructureError(
            f"{inputs.config.structure}: expected bonds as long as in {topology.source}, found {mistake}"
        )


def geometry_warnings(inputs: Inputs, qm_indices: IntArray) -> list[str]:
    """Whether atoms are where no structure of them has them, a line at most.

    Args:
        inputs: the structure, with its force field where there is one.
        qm_indices: (n,) the QM atoms, whose bonds may break.
    """
    if inputs.topology is None:
        lines = [*_bonds_across(inputs), *_strange_neighbours(inputs.system)]
        return [f"{inputs.config.structure}: {line}" for line in lines[:1]]
    return _strange_bonds(inputs, inputs.topology, qm_indices)


def _strange_bonds(inputs: Inputs, topology: Topology, qm_indices: IntArray) -> list[str]:
    yardstick, system = _of_force_field(inputs, topology, qm_indices), inputs.system
    found = yardstick.distances(system.positions, system.cell)
    wrong = yardstick.strange(found)
    unlike = ~((found > _UNLIKE[0] * yardstick.lengths) & (found < _UNLIKE[1] * yardstick.lengths))
    if np.count_nonzero(unlike) > _MANY * len(unlike):
        wrong |= unlike
    strange = np.flatnonzero(wrong)
    if not len(strange):
        return []
    first = int(strange[0])
    i, j = (topology.label(int(atom)) for atom in yardstick.pairs[first])
    return [
        f"{inputs.config.structure}: {len(strange)} of {len(found)} bonds are far from their lengths in "
        f"{topology.source}, such as {i} - {j}: expected {yardstick.lengths[first] * BOHR_IN_ANGSTROM:.2f} "
        f"angstrom, found {found[first] * BOHR_IN_ANGSTROM:.2f}: another order or unit?"
    ]


def _of_force_field(inputs: Inputs, topology: Topology, qm_indices: IntArray | None = None) -> Yardstick:
    """The lengths at which its bonds have no force."""
    tables = (topology.bonds, topology.quartic_bonds, topology.morse_bonds)
    pairs, lengths = topology.bonded_pairs, np.concatenate([table.x0 for table in tables])
    held = np.concatenate([topology.bonds.k != 0.0, np.ones(len(pairs) - len(topology.bonds.k), dtype=bool)])
    held &= lengths > 0.0  # shells of polarisable models sit on their atoms
    return Yardstick.of_lengths(
        topology.source,
        inputs.system,
        pairs[held],
        lengths[held],
        np.zeros(0, dtype=np.int64) if qm_indices is None else qm_indices,
    )


def _bonds_across(inputs: Inputs) -> Iterator[str]:
    """Bonds that a cell without effect has cut: of a crystal, or of a molecule at the edge of its box."""
    system, cell = inputs.system, inputs.unused_cell
    if cell is None or not is_cell(cell):
        return
    radii = covalent_radii[system.numbers] * ANGSTROM * _BONDED
    neighbours = vesin.NeighborList(cutoff=2.0 * float(radii.max()), full_list=False)
    i, j, d, shifts = neighbours.compute(points=system.positions, box=cell, periodic=True, quantities="ijdS")
    across = np.flatnonzero((d < radii[i] + radii[j]) & shifts.any(axis=1))
    if len(across):
        a, b = int(i[across[0]]), int(j[across[0]])
        yield (
            f"{len(across)} bonds cross its cell, such as that of {_name(system, a)} and {_name(system, b)}, "
            "and are cut: without a section mm the cell is not used, and the atoms are a cluster in vacuum"
        )


def _strange_neighbours(system: System) -> Iterator[str]:
    """What is unlike a molecule in vacuum, whatever its bonds are.

    Covalent radii: Cordero et al., Dalton Trans. 2008, 2832, as ASE has them.
    """
    if len(system) < 2:
        return
    radii = covalent_radii[system.numbers] * ANGSTROM
    reach = _FAR * (radii + _largest_of_others(radii))
    neighbours = vesin.NeighborList(cutoff=float(reach.max()), full_list=True)
    i, j, d = neighbours.compute(
        points=system.positions, box=np.zeros((3, 3)), periodic=False, quantities="ijd"
    )
    near = np.flatnonzero(d < _NEAR * (radii[i] + radii[j]))
    if len(near):
        a, b = int(i[near[0]]), int(j[near[0]])
        expected = (radii[a] + radii[b]) * BOHR_IN_ANGSTROM
        yield (
            f"{len(np.unique(i[near]))} of {len(system)} atoms are nearer to another than any bond is long, "
            f"such as {_name(system, a)} and {_name(system, b)}: expected about {expected:.2f} angstrom, "
            f"found {d[near[0]] * BOHR_IN_ANGSTROM:.2f}: another unit?"
        )
    nearest = np.full(len(system), np.inf)
    np.minimum.at(nearest, i, d)
    lonely = np.flatnonzero((nearest > reach) & ~np.isin(system.numbers, _NOBLE_GASES))
    if len(lonely):
        a = int(lonely[0])
        distance = np.linalg.norm(system.positions - system.positions[a], axis=1)
        distance[a] = np.inf
        yield (
            f"{len(lonely)} of {len(system)} atoms are alone, such as {_name(system, a)}: expected another "
            f"within {reach[a] * BOHR_IN_ANGSTROM:.2f} angstrom, found the nearest at "
            f"{distance.min() * BOHR_IN_ANGSTROM:.2f}: another unit?"
        )


def _largest_of_others(radii: FloatArray) -> FloatArray:
    """(n,) the largest radius of the other atoms."""
    largest = np.full(len(radii), radii.max())
    first = int(radii.argmax())
    largest[first] = np.delete(radii, first).max()
    return largest


def _name(system: System, atom: int) -> str:
    return f"{chemical_symbols[system.numbers[atom]]} (atom {atom})"
