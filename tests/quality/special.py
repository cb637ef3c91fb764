"""Geometries of the water dimer, of malonaldehyde and of the protonated water dimer; bohr."""

from __future__ import annotations

import numpy as np
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolTransforms

from minima import symmetriser
from molecules import make_frame
from pidelta.data.frames import Frame
from pidelta.units import ANGSTROM

# Atoms of malonaldehyde: O C C C O, H on the carbons, the H between the oxygens.
MALONALDEHYDE = "O=C/C=C\\O"
MIRROR = np.array([4, 3, 2, 1, 0, 7, 6, 5, 8])
SYMMETRIC = symmetriser(MIRROR)

_OH = 0.97 * ANGSTROM
_POLAR = np.radians(115.0)  # of the outer O-H of the protonated dimer against the O-O axis
_AZIMUTH = np.radians(58.0)


def water() -> Frame:
    half = np.radians(104.5 / 2.0)
    hydrogens = [[0.0, sign * np.sin(half), np.cos(half)] for sign in (1, -1)]
    return make_frame([8, 1, 1], 0.96 * ANGSTROM * np.array([[0.0, 0.0, 0.0], *hydrogens]), source="water")


def water_dimer() -> Frame:
    """A start: atom 1 is the hydrogen of the bond, atom 3 the oxygen that accepts it."""
    positions = [
        [0.0, 0.0, 0.0],
        [0.965, 0.0, 0.06],
        [-0.3, 0.0, -0.91],
        [2.91, 0.0, 0.0],
        [3.25, 0.76, 0.46],
        [3.25, -0.78, 0.44],
    ]
    return make_frame([8, 1, 1, 8, 1, 1], np.array(positions) * ANGSTROM, source="water dimer")


def dimer_at(positions: np.ndarray, separation: float) -> np.ndarray:
    """The dimer with its second molecule moved along the line of the oxygens."""
    axis = positions[3] - positions[0]
    length = np.linalg.norm(axis)
    moved = positions.copy()
    moved[3:] += axis * (separation / length - 1.0)
    return moved


def zundel(separation: float, shift: float) -> Frame:
    """H5O2+, all but the shared proton (atom 6) symmetric; `shift` is its distance from the middle."""
    positions = [[0.0, 0.0, 0.0], [0.0, 0.0, separation]]
    for sign, origin in ((1, 0.0), (-1, separation)):
        for side in (1, -1):
            angle = (0.0 if sign == 1 else np.pi / 2.0) + side * _AZIMUTH
            along = np.array([np.sin(_POLAR) * np.cos(angle), np.sin(_POLAR) * np.sin(angle)])
            positions.append([*(_OH * along), origin + sign * _OH * np.cos(_POLAR)])
    positions.append([0.0, 0.0, 0.5 * separation + shift])
    return make_frame([8, 8, 1, 1, 1, 1, 1], positions, 1, "zundel")


def malonaldehyde() -> Frame:
    """The enol with its hydrogen bond."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(MALONALDEHYDE))
    AllChem.EmbedMolecule(molecule, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(molecule)
    conformer = molecule.GetConformer()
    rdMolTransforms.SetDihedralDeg(conformer, 0, 1, 2, 3, 0.0)
    positions = conformer.GetPositions() * ANGSTROM
    # Flat, with the hydroxyl hydrogen on the line of the oxygens.
    centred = positions - positions[:5].mean(axis=0)
    normal = np.linalg.svd(centred[:5])[2][2]
    flat = centred - np.outer(centred @ normal, normal)
    direction = flat[0] - flat[4]
    flat[8] = flat[4] + direction / np.linalg.norm(direction) * ANGSTROM
    return make_frame([a.GetAtomicNum() for a in molecule.GetAtoms()], flat, source="malonaldehyde")


def malonaldehyde_transition_state() -> Frame:
    """A start for the symmetric transition state."""
    frame = malonaldehyde()
    positions = SYMMETRIC(frame.positions)
    positions[8] = 0.5 * (positions[0] + positions[4])
    return make_frame(frame.numbers, positions, source="malonaldehyde transition state")
