"""Whether the terms of a force field hold molecules in shape without the constraints of other programs."""

from __future__ import annotations

from collections import Counter

import numpy as np

from pidelta.errors import TopologyError
from pidelta.mm.topology import Topology
from pidelta.mm.water import find_water
from pidelta.state import IntArray

_SHOWN = 3
"""How many angles are named in a warning."""


def loose_angles(topology: Topology) -> IntArray:
    """(n, 3) angles between two bonds of an atom, which stands in the middle, that nothing holds.

    An angle term, a Urey-Bradley term or a bond between the ends does, if its force constant is not zero. The
    distance of the ends counts, whichever atom is in the middle, as the diagonal of a ring of four has two.
    """
    angles = _angles(topology.bonded_pairs, len(topology))
    bonds, terms, distances = topology.bonds, topology.angles, topology.urey_bradley
    holding = np.concatenate(
        [
            terms.atoms[terms.k != 0.0][:, [0, 2]],
            *(table.atoms[table.k != 0.0] for table in (bonds, distances)),
            topology.quartic_bonds.atoms,
            topology.morse_bonds.atoms,
        ]
    )
    held = np.isin(_keys(angles[:, [0, 2]], len(topology)), _keys(holding, len(topology)))
    return angles[~held]


def refuse_collapsing_water(topology: Topology) -> None:
    """Water whose hydrogens only its rigidity kept apart falls together: they have no Lennard-Jones.

    Raises:
        TopologyError: nothing holds the angle of a water molecule.
    """
    loose = _of_water(topology, loose_angles(topology))
    if len(loose):
        raise TopologyError(
            f"{topology.source}: expected a term that holds the angle of water, found bonds alone in "
            f"{topology.label(int(loose[0, 1]))}; in tleap, `set default FlexibleWater on` writes it, and "
            "mm.water puts a flexible model in"
        )


def flexibility_warnings(topology: Topology) -> list[str]:
    """What a user should know of angles that nothing holds, and of water that was made to be rigid."""
    loose, found = loose_angles(topology), []
    if len(loose):
        kinds = Counter(" - ".join(topology.names[atom] for atom in angle) for angle in loose.tolist())
        names = ", ".join(f"{names} ({count})" for names, count in kinds.most_common(_SHOWN))
        found.append(
            f"{topology.source}: nothing in the force field holds {len(loose)} of its angles, such as "
            f"{names}, the first of them at {topology.label(int(loose[0, 1]))}"
        )
    rigid = _held_by_a_bond(topology)
    if len(rigid):
        found.append(
            f"{topology.source}: {len(rigid)} water molecules have a bond H-H and no angle term, such as "
            f"{topology.label(int(rigid[0, 0]))}: a model made to be rigid, which runs as a triangle of "
            "springs; `set default FlexibleWater on` in tleap or mm.water makes it a flexible one"
        )
    return found


def _of_water(topology: Topology, angles: IntArray) -> IntArray:
    """Those of the angles H - O - H that are in water."""
    return angles[np.isin(angles[:, 1], find_water(topology)[:, 0])]


def _held_by_a_bond(topology: Topology) -> IntArray:
    """(w, 3) atoms O, H, H of water whose angle a bond between the hydrogens holds, and no angle term."""
    waters, terms = find_water(topology), topology.angles
    n_atoms = len(topology)
    hydrogens = _keys(waters[:, 1:], n_atoms)
    bonded = np.isin(hydrogens, _keys(topology.bonds.atoms[topology.bonds.k != 0.0], n_atoms))
    angles = np.isin(hydrogens, _keys(terms.atoms[terms.k != 0.0][:, [0, 2]], n_atoms))
    return waters[bonded & ~angles]


def _angles(bonds: IntArray, n_atoms: int) -> IntArray:
    """(n, 3) pairs of bonds (m, 2) that share an atom, this in the middle."""
    if not len(bonds):
        return np.zeros((0, 3), dtype=np.int64)
    both = np.unique(np.concatenate([bonds, bonds[:, ::-1]]), axis=0)
    degrees = np.bincount(both[:, 0], minlength=n_atoms)
    starts = np.cumsum(degrees) - degrees
    found = [np.zeros((0, 3), dtype=np.int64)]
    for degree in np.unique(degrees[degrees > 1]).tolist():
        middles = np.flatnonzero(degrees == degree)
        ends = both[starts[middles][:, None] + np.arange(degree), 1]
        for first, second in zip(*np.triu_indices(degree, k=1), strict=True):
            found.append(np.stack([ends[:, first], middles, ends[:, second]], axis=1))
    return np.concatenate(found)


def _keys(pairs: IntArray, n_atoms: int) -> IntArray:
    """One number for each pair (n, 2), whichever way round."""
    ordered = np.sort(pairs, axis=1)
    return np.asarray(ordered[:, 0] * n_atoms + ordered[:, 1])
