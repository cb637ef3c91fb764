"""One pass over the positions of all beads, for all that needs them at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pidelta.analysis.bonds import BondLengths, bond_kinds
from pidelta.analysis.composition import Composition, group_matrix
from pidelta.analysis.estimators import KineticEnergies, primitive
from pidelta.analysis.gyration import Gyration
from pidelta.analysis.run_files import BeadFrames, BeadsSnapshot
from pidelta.state import FloatArray, IntArray
from pidelta.units import BOHR_IN_ANGSTROM


@dataclass(frozen=True)
class Positions:
    """What a pass found.

    Attributes:
        steps: (n,) of the simulation.
        bonds, gyration: None where there are none, or where beads are missing.
        primitive: kinetic energies by the primitive estimator; None without all beads.
        oxygens: (n, W, 3) centroids of the oxygens of water in angstrom.
        dipoles: (n, 3) of the MM charges in e bohr, averages over beads; None where charges are not known.
        volume: mean of the cell in bohr^3.
    """

    steps: IntArray
    bonds: BondLengths | None
    gyration: Gyration | None
    primitive: KineticEnergies | None
    oxygens: FloatArray
    dipoles: FloatArray | None
    volume: float


def read_positions(
    composition: Composition,
    frames: BeadFrames,
    chosen_bonds: Sequence[tuple[int, int]],
    temperature: float | None,
) -> Positions:
    """Read all positions once.

    Args:
        composition: the atoms.
        frames: positions of some or all beads.
        chosen_bonds: pairs of atoms whose distance is followed, besides the bonds.
        temperature: k_B T in hartree; None where there is none.
    """
    several = frames.is_complete and frames.n_beads > 1
    kinds = bond_kinds(composition, frames.read(0, 0)[0], chosen_bonds)
    bonds = BondLengths(kinds, several, composition.is_periodic) if kinds else None
    gyration = Gyration(composition) if several else None
    oxygens = np.empty((len(frames), len(composition.waters), 3), dtype=np.float32)
    dipoles = None if composition.charges is None else np.empty((len(frames), 3))
    matrix = group_matrix(composition.groups, len(composition))
    volumes, kinetic = [], []
    for index, snapshot in enumerate(frames.stream()):
        if bonds is not None:
            bonds.add(snapshot)
        if gyration is not None:
            gyration.add(snapshot)
            if temperature is not None:
                kinetic.append(matrix @ primitive(snapshot.values, composition.masses, temperature))
        oxygens[index] = snapshot.values[:, composition.waters[:, 0]].mean(axis=0) * BOHR_IN_ANGSTROM
        if dipoles is not None:
            dipoles[index] = _dipole(composition, snapshot)
        volumes.append(abs(float(np.linalg.det(snapshot.cell))))
    estimated = None
    if kinetic:
        estimated = KineticEnergies("primitive", composition.groups, frames.steps, np.array(kinetic))
    return Positions(
        steps=frames.steps,
        bonds=bonds,
        gyration=gyration,
        primitive=estimated,
        oxygens=oxygens.astype(np.float64),
        dipoles=dipoles,
        volume=float(np.mean(volumes)),
    )


def _dipole(composition: Composition, snapshot: BeadsSnapshot) -> FloatArray:
    """The dipole of the MM charges, (3,), at unwrapped positions, which do not jump."""
    assert composition.charges is not None
    charges, particles = composition.charges.charges, composition.charges.particles
    values = snapshot.values
    if len(particles) > values.shape[1]:
        cells = np.repeat(snapshot.cell[None], len(values), axis=0)
        values = particles.place(values, cells if composition.is_periodic else None)
    return np.asarray(np.einsum("p,bpi->i", charges, values) / len(values))
