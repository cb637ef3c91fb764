"""Components, water and ions in a box: which atoms stand where, and their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import parmed
from ase.data import covalent_radii

from pidelta.errors import SettingError
from pidelta.state import FloatArray, IntArray
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM
from pidelta.workflow.preparing import packing, topologies
from pidelta.workflow.preparing.components import Component

_BROKEN, _FORMED = 1.35, 1.15
"""Of the sum of covalent radii: a bond that is longer, atoms that are nearer without one."""


@dataclass(frozen=True)
class Layout:
    """A system in a cubic box.

    Attributes:
        components: the molecules, in their order.
        parts: topologies and how often each stands, in the order of the atoms.
        box: where all is.
        qm_residues: names of the residues of the QM region.
    """

    components: Sequence[Component]
    parts: Sequence[tuple[parmed.Structure, int]]
    box: packing.Box
    qm_residues: tuple[str, ...]

    @property
    def qm_charge(self) -> int:
        """Of the QM region, in e."""
        return sum(part.charge * part.request.count for part in self.components if part.request.quantum)

    @property
    def is_bonded(self) -> bool:
        """Whether the force field has what holds all molecules together."""
        return all(
            bond.type.k > 0.0 for part in self.components for bond in part.structure.bonds if bond.type
        )

    @property
    def molecule_of_atom(self) -> IntArray:
        """(N,) the molecule that each atom is in, from 0."""
        sizes = [len(structure.atoms) for structure, count in self.parts for _ in range(count)]
        return np.repeat(np.arange(len(sizes)), sizes)

    def write(self, topology: Path, restart: Path) -> None:
        """Write the topology, and the positions of the box."""
        topologies.write_topology(topology, self.parts, self.box.edge)
        topologies.write_restart(restart, self.box.positions, self.box.edge)

    def describe(self) -> str:
        """The box in words."""
        ions = f", {len(self.box.ions)} {self.parts[-2][0].residues[0].name}" if len(self.box.ions) else ""
        edge = 0.1 * self.box.edge * BOHR_IN_ANGSTROM
        return f"{len(self.box.positions)} atoms in {edge:.3f} nm: {len(self.box.waters)} waters{ions}"

    def changed_bonds(self, positions: FloatArray) -> list[str]:
        """Bonds of the molecules that broke or formed at positions (N, 3) in bohr, in words."""
        changes, first = [], 0
        copies = [part for part in self.components for _ in range(part.request.count)]
        for part in copies:
            own = positions[first : first + len(part.numbers)]
            radii = covalent_radii[part.numbers] * ANGSTROM
            lengths = np.linalg.norm(own[:, None] - own, axis=2) / (radii[:, None] + radii)
            bonded = np.zeros(lengths.shape, dtype=bool)
            for bond in part.structure.bonds:
                bonded[bond.atom1.idx, bond.atom2.idx] = bonded[bond.atom2.idx, bond.atom1.idx] = True
            for kind, found in (
                ("broke", bonded & (lengths > _BROKEN)),
                ("formed", ~bonded & (lengths < _FORMED)),
            ):
                for i, j in np.argwhere(np.triu(found, k=1)).tolist():
                    names = [part.structure.atoms[atom].name for atom in (i, j)]
                    changes.append(f"{part.request.name}: the bond {names[0]} - {names[1]} {kind}")
            first += len(own)
        return changes


def lay_out(components: Sequence[Component], water: str, margin: float, cutoff: float, seed: int) -> Layout:
    """Put components side by side into a cube of water, with ions for their charge.

    Args:
        components: at least one.
        water: the model.
        margin: between molecules and faces, in bohr.
        cutoff: the longest of the set-up, which the box has to have room for twice, in bohr.
        seed: of orientations and of the places of ions.

    Raises:
        SettingError: the margin is less than the cutoff, names of QM residues are others' names, too.
    """
    if margin < cutoff:
        shown, longest = (f"{0.1 * length * BOHR_IN_ANGSTROM:.3g} nm" for length in (margin, cutoff))
        raise SettingError(
            "margin", f"expected at least the cutoff, {longest}, so that it fits into the box, found {shown}"
        )
    rng = np.random.default_rng(seed)
    copies = [component for component in components for _ in range(component.request.count)]
    molecules = packing.put_together([copy.positions for copy in copies], rng)
    numbers = np.concatenate([copy.numbers for copy in copies])
    charge = sum(copy.charge for copy in copies)
    edge = packing.edge_for(molecules, margin)
    box = packing.fill(numbers, molecules, edge, charge, rng)
    parts = [(component.structure, component.request.count) for component in components]
    if charge:
        sign = -1 if charge > 0 else 1
        parts.append((topologies.ion(topologies.COUNTER_IONS[sign], sign), abs(charge)))
    parts.append((topologies.water(water), len(box.waters)))
    return Layout(components, parts, box, _qm_residues(components, parts))


def _qm_residues(
    components: Sequence[Component], parts: Sequence[tuple[parmed.Structure, int]]
) -> tuple[str, ...]:
    """Names of the QM residues, which tell them from all others."""
    quantum = Counter(name for part in components if part.request.quantum for name in part.residues)
    others = [residue.name for structure, _ in parts[len(components) :] for residue in structure.residues]
    others += [name for part in components if not part.request.quantum for name in part.residues]
    for name in quantum:
        if name in others:
            raise SettingError("name", f"expected names of QM residues that no others have, found {name}")
    return tuple(quantum)
