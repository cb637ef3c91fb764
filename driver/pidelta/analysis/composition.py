"""What the atoms of a simulation are: elements, masses, regions, bonds, water, charges."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pidelta.core.particles import Particles
from pidelta.errors import DataError
from pidelta.ipi.trajectories import number_of
from pidelta.state import FloatArray, IntArray


@dataclass(frozen=True)
class Group:
    """Atoms that are looked at together."""

    name: str
    atoms: IntArray


@dataclass(frozen=True)
class Charges:
    """Charges of the MM particles, zero on QM atoms, and where the particles are."""

    particles: Particles
    charges: FloatArray


@dataclass(frozen=True)
class Composition:
    """The N atoms of a simulation.

    Attributes:
        names: (N,) as i-PI calls them: elements and isotopes.
        regions: atoms by the name of the region, ``QM`` and ``MM``; empty where nothing tells them apart.
        bonds: (m, 2) pairs of bonded atoms; None where nothing tells.
        waters: (W, 3) oxygens and hydrogens of water.
        molecules: (N,) the number of the molecule or residue of each atom; None where nothing tells.
        charges: of the MM particles, for the dipole; None where nothing tells.
        is_periodic: whether there is a cell; without one this is a molecule or cluster.
        has_quantum: whether there is a QM region, which may be all atoms.
        given_masses: what the input says of masses: an atom, or -1 for all, and values in electron masses.
        fixed: degrees of freedom that do not move: 3 times the atom, and 0, 1 or 2 for x, y or z.
    """

    names: tuple[str, ...]
    regions: Mapping[str, IntArray] = field(default_factory=dict)
    bonds: IntArray | None = None
    waters: IntArray = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int64))
    molecules: IntArray | None = None
    charges: Charges | None = None
    is_periodic: bool = True
    has_quantum: bool = False
    given_masses: Sequence[tuple[int, Sequence[float]]] = ()
    fixed: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_configured(self) -> bool:
        """Whether a configuration tells what the atoms are, and so whether their cell means anything."""
        return bool(self.regions) or self.has_quantum or self.bonds is not None

    @cached_property
    def numbers(self) -> IntArray:
        """(N,) atomic numbers; 0 for names that are no element."""
        return np.array([number_of(name) or 0 for name in self.names], dtype=np.int64)

    @cached_property
    def masses(self) -> FloatArray:
        """(N,) in electron masses: those of the input, or i-PI's of the names.

        Raises:
            DataError: the input has masses of another number of atoms.
        """
        from ipi.utils.units import Elements

        with redirect_stdout(io.StringIO()):  # where i-PI says that it knows no mass for a name
            masses = {name: Elements.mass(name) for name in set(self.names)}
        found = np.array([masses[name] for name in self.names])
        for index, values in self.given_masses:
            chosen = slice(None) if index < 0 else slice(index, index + 1)
            if len(values) != len(found[chosen]):
                raise DataError(
                    f"masses of the i-PI input: expected {len(found[chosen])} numbers, found {len(values)}"
                )
            found[chosen] = values
        return found

    @cached_property
    def free(self) -> FloatArray:
        """(N, 3) ones, zeros where an atom is held fixed.

        Raises:
            DataError: the input fixes an atom that is not there.
        """
        if beyond := [index for index in self.fixed if index >= 3 * len(self)]:
            raise DataError(
                f"<fixatoms> or <fixatoms_dof> of the i-PI input: expected atoms below {len(self)}, found "
                f"{beyond[0] // 3}"
            )
        found = np.ones(3 * len(self))
        found[list(self.fixed)] = 0.0
        return found.reshape(-1, 3)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """All atoms, each region, each kind of atom in several regions, and each kind in each region."""
        names = np.array(self.names)
        kinds = sorted(set(self.names), key=lambda name: (number_of(name) or 0, name))
        every = np.arange(len(names))
        groups = [Group("all", every)]
        groups += [Group(region, atoms) for region, atoms in self.regions.items() if len(atoms)]
        within = {
            kind: sum((names[atoms] == kind).any() for atoms in self.regions.values()) for kind in kinds
        }
        if len(kinds) > 1:
            groups += [Group(kind, every[names == kind]) for kind in kinds if within[kind] != 1]
        for region, atoms in self.regions.items():
            found = [kind for kind in kinds if (names[atoms] == kind).any()]
            if len(found) > 1:
                groups += [Group(f"{region} {kind}", atoms[names[atoms] == kind]) for kind in found]
        return tuple(groups)

    def is_telling(self, group: Group) -> bool:
        """Whether a picture shows the group: where there are regions, it leaves elements over all out."""
        return not self.regions or group.name not in self.names

    def region_of(self, atom: int) -> str:
        """The name of the region of an atom; '' without regions."""
        return next((name for name, atoms in self.regions.items() if atom in atoms), "")


def group_matrix(groups: Sequence[Group], n_atoms: int) -> FloatArray:
    """(G, N) ones where an atom belongs to a group: a product with it sums over groups."""
    matrix = np.zeros((len(groups), n_atoms))
    for row, group in zip(matrix, groups, strict=True):
        row[group.atoms] = 1.0
    return matrix
