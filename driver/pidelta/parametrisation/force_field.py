"""Molecules and complexes in a force field, from SMILES: what training geometries are made of.

The force field is MMFF94 (Halgren, J. Comput. Chem. 17, 490 (1996)) or, where that has no parameters, UFF
(Rappe et al., J. Am. Chem. Soc. 114, 10024 (1992)), both through RDKit.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from ase.data import atomic_masses

from pidelta.data.frames import Frame
from pidelta.errors import ConfigError, MissingExtraError
from pidelta.state import FloatArray
from pidelta.units import ANGSTROM, DALTON_IN_ELECTRON_MASS, FEMTOSECOND, KCAL_PER_MOL

_TIME_STEP = 0.5 * FEMTOSECOND
_FRICTION = 0.02 / FEMTOSECOND
_STEPS_BETWEEN = 400
_TURN = 15.0  # degrees
_CONSTRAINT = 1000.0  # kcal/mol/rad^2
_CONTACT = 3.0  # angstrom between the nearest atoms of the molecules of a complex, before it is relaxed


def rdkit(module: str) -> Any:
    """Import a module of RDKit.

    Raises:
        MissingExtraError: RDKit is not installed.
    """
    try:
        return importlib.import_module(f"rdkit.{module}")
    except ModuleNotFoundError:
        raise MissingExtraError("rdkit", "slater-koster", "making training geometries") from None


def parse_smiles(smiles: str) -> Any:
    """Read a SMILES.

    Raises:
        MissingExtraError: RDKit is not installed.
        ConfigError: it cannot be read.
    """
    molecule = rdkit("Chem").MolFromSmiles(smiles)
    if molecule is None:
        raise ConfigError(f"training: expected a SMILES, found {smiles!r}")
    return molecule


class ForceFieldMolecule:
    """A molecule or complex relaxed in its force field; positions in bohr.

    Attributes:
        numbers: (n,) atomic numbers.
        charge: total charge.
        fragments: the atoms of each molecule.
        positions: (n, 3) the relaxed geometry.
    """

    def __init__(self, smiles: str, generator: np.random.Generator) -> None:
        self._smiles = smiles
        chem, all_chem = rdkit("Chem"), rdkit("Chem.AllChem")
        molecule = chem.AddHs(parse_smiles(smiles))
        if all_chem.EmbedMolecule(molecule, randomSeed=int(generator.integers(2**31))) != 0:
            raise ConfigError(f"training: no geometry was found for {smiles}")
        self.numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.int64)
        self.charge = int(chem.GetFormalCharge(molecule))
        self.fragments = [np.array(atoms) for atoms in chem.GetMolFrags(molecule)]
        self._masses = atomic_masses[self.numbers] * DALTON_IN_ELECTRON_MASS
        conformer = molecule.GetConformer()
        if len(self.fragments) > 1:
            conformer.SetPositions(_apart(conformer.GetPositions(), self.fragments, generator))
        self._field, _ = _force_field(molecule, all_chem)
        self._field.Minimize(maxIts=5000)
        self._molecule = molecule  # the force field does not keep it alive
        self.positions: FloatArray = conformer.GetPositions() * ANGSTROM

    def _gradient(self, positions: FloatArray) -> FloatArray:
        self._field.Initialize()  # without this, distances of the previous positions are used
        gradient = np.array(self._field.CalcGrad((positions / ANGSTROM).ravel().tolist()), dtype=np.float64)
        return gradient.reshape(positions.shape) * (KCAL_PER_MOL / ANGSTROM)

    def dynamics(self, temperature: float, count: int, generator: np.random.Generator) -> list[FloatArray]:
        """Snapshots of Langevin dynamics from the relaxed geometry (BAOAB: Leimkuhler, Matthews, 2013)."""
        widths = np.sqrt(temperature / self._masses)[:, None]
        positions = self.positions.copy()
        velocities = widths * generator.normal(size=positions.shape)
        decay = np.exp(-_FRICTION * _TIME_STEP)
        kick = 0.5 * _TIME_STEP / self._masses[:, None]
        snapshots = []
        gradient = self._gradient(positions)
        for step in range(1, count * _STEPS_BETWEEN + 1):
            velocities -= kick * gradient
            positions = positions + 0.5 * _TIME_STEP * velocities
            noise = generator.normal(size=positions.shape)
            velocities = decay * velocities + np.sqrt(1.0 - decay**2) * widths * noise
            positions = positions + 0.5 * _TIME_STEP * velocities
            gradient = self._gradient(positions)
            velocities -= kick * gradient
            if step % _STEPS_BETWEEN == 0:
                snapshots.append(positions)
        return snapshots

    def frames(self, name: str, geometries: Iterable[FloatArray]) -> Iterator[Frame]:
        """Turn geometries into frames, their sources ``NAME NUMBER``."""
        for count, positions in enumerate(geometries):
            yield Frame(
                numbers=self.numbers,
                positions=positions,
                site_positions=np.zeros((0, 3)),
                site_charges=np.zeros(0),
                site_numbers=np.zeros(0, dtype=np.int64),
                charge=self.charge,
                source=f"{name} {count}",
            )

    def match(self, smarts: str, count: int) -> list[int]:
        """Find atoms by a SMARTS.

        Raises:
            ConfigError: it cannot be read, is not of `count` atoms, or matches none.
        """
        pattern = rdkit("Chem").MolFromSmarts(smarts)
        if pattern is None or pattern.GetNumAtoms() != count:
            raise ConfigError(
                f"training: {self._smiles}: expected a SMARTS of {count} atoms, found {smarts!r}"
            )
        found = self._molecule.GetSubstructMatch(pattern)
        if not found:
            raise ConfigError(f"training: {self._smiles}: expected atoms that match {smarts}, found none")
        return list(found)

    def with_dihedral(self, atoms: Sequence[int], angle: float) -> FloatArray:
        """The geometry with a dihedral angle held (in radians), relaxed from the relaxed one."""
        all_chem, transforms = rdkit("Chem.AllChem"), rdkit("Chem.rdMolTransforms")
        conformer = self._molecule.GetConformer()
        conformer.SetPositions(self.positions / ANGSTROM)
        degrees = float(np.degrees(angle))
        now = transforms.GetDihedralDeg(conformer, *atoms)
        # In steps, so that a large turn does not begin with atoms inside one another.
        turn = (degrees - now + 180.0) % 360.0 - 180.0
        for target in np.linspace(now, now + turn, max(2, int(abs(turn) / _TURN) + 2))[1:]:
            field, is_mmff = _force_field(self._molecule, all_chem)
            add = field.MMFFAddTorsionConstraint if is_mmff else field.UFFAddTorsionConstraint
            add(*atoms, False, target, target, _CONSTRAINT)
            field.Minimize(maxIts=5000)
        positions: FloatArray = conformer.GetPositions() * ANGSTROM
        return positions

    def with_proton_at(self, length: float, fraction: float) -> FloatArray:
        """The relaxed complex with its hydrogen bond D-H...A of a length D-A, H a part of the way to A."""
        donor, proton, acceptor = self._hydrogen_bond()
        moved: FloatArray = self.positions.copy()
        vector = moved[acceptor] - moved[donor]
        direction = vector / np.linalg.norm(vector)
        fragment = next(atoms for atoms in self.fragments if acceptor in atoms)
        moved[fragment] += (length - np.linalg.norm(vector)) * direction
        moved[proton] = moved[donor] + fraction * length * direction
        return moved

    def _hydrogen_bond(self) -> tuple[int, int, int]:
        """D, H and A of the shortest contact of a hydrogen with another molecule's heavy atom."""
        distances = np.linalg.norm(self.positions[:, None] - self.positions, axis=-1)
        fragment = np.zeros(len(self.numbers), dtype=np.int64)
        for k, atoms in enumerate(self.fragments):
            fragment[atoms] = k
        contact = (self.numbers[:, None] == 1) & (self.numbers > 1) & (fragment[:, None] != fragment)
        proton, acceptor = np.unravel_index(np.where(contact, distances, np.inf).argmin(), distances.shape)
        bonded = (self.numbers > 1) & (fragment == fragment[proton])
        if not contact.any() or not bonded.any():
            raise ConfigError(f"training: transfers: expected a hydrogen bond in {self._smiles}, found none")
        donor = int(np.where(bonded, distances[proton], np.inf).argmin())
        return donor, int(proton), int(acceptor)

    def separated(self, distance: float) -> FloatArray:
        """The relaxed complex with its last molecule moved away by a distance in bohr."""
        last = self.fragments[-1]
        rest = np.setdiff1d(np.arange(len(self.numbers)), last)
        vectors = self.positions[last][:, None] - self.positions[rest]
        lengths = np.linalg.norm(vectors, axis=-1)
        nearest = np.unravel_index(lengths.argmin(), lengths.shape)
        moved: FloatArray = self.positions.copy()
        moved[last] += distance * vectors[nearest] / lengths[nearest]
        return moved


def _force_field(molecule: Any, all_chem: Any) -> tuple[Any, bool]:
    """The force field of a molecule as it stands, and whether it is MMFF94."""
    if all_chem.MMFFHasAllMoleculeParams(molecule):
        properties = all_chem.MMFFGetMoleculeProperties(molecule)
        return all_chem.MMFFGetMoleculeForceField(
            molecule, properties, ignoreInterfragInteractions=False
        ), True
    return all_chem.UFFGetMoleculeForceField(molecule, ignoreInterfragInteractions=False), False


def _apart(positions: FloatArray, fragments: list[Any], generator: np.random.Generator) -> FloatArray:
    """Put molecules side by side in a random direction, so that they do not begin inside one another."""
    placed: FloatArray = positions - positions[fragments[0]].mean(axis=0)
    done = fragments[0]
    for atoms in fragments[1:]:
        direction = generator.normal(size=3)
        direction /= np.linalg.norm(direction)
        own = positions[atoms] - positions[atoms].mean(axis=0)
        shift = 0.0
        while np.linalg.norm(placed[done][:, None] - own - shift * direction, axis=-1).min() < _CONTACT:
            shift += 0.1
        placed[atoms] = own + shift * direction
        done = np.concatenate([done, atoms])
    return placed
