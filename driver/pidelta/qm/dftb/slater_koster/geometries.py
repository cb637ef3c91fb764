"""Geometries for the fit of the repulsives: molecules from SMILES, shaken by molecular dynamics.

The dynamics uses the force field MMFF94 (Halgren, J. Comput. Chem. 17, 490 (1996)) or, where that has no
parameters, UFF (Rappe et al., J. Am. Chem. Soc. 114, 10024 (1992)), both through RDKit, because a set without
repulsives has no dynamics of its own. It only has to visit geometries; their forces come from DFT.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from ase.data import atomic_masses

from pidelta.data.frames import Frame
from pidelta.data.store import FrameStore
from pidelta.errors import ConfigError, MissingExtraError
from pidelta.qm.dftb.slater_koster.recipe import TrainingRecipe
from pidelta.state import FloatArray
from pidelta.units import ANGSTROM, DALTON_IN_ELECTRON_MASS, FEMTOSECOND, KCAL_PER_MOL

_TIME_STEP = 0.5 * FEMTOSECOND
_FRICTION = 0.02 / FEMTOSECOND
_STEPS_BETWEEN = 400
_CONTACT = 3.0  # angstrom between the nearest atoms of the molecules of a complex, before it is relaxed


def add_training_frames(store: FrameStore, recipe: TrainingRecipe) -> Iterator[tuple[str, int]]:
    """Add the geometries of a recipe to a store, molecule by molecule; those it has are not made again.

    Every molecule has a random stream of its own, from the seed and its SMILES, so that a longer list changes
    nothing for the others. Another seed, temperature or number of frames needs a new store.

    Yields:
        The SMILES and the number of frames added, after each molecule.

    Raises:
        MissingExtraError: RDKit is not installed.
        ConfigError: a SMILES cannot be read, or two are the same molecule.
    """
    _check_distinct([*recipe.molecules, *recipe.complexes])
    present = {frame.source for frame in store}
    for smiles in [*recipe.molecules, *recipe.complexes]:
        added = 0
        if f"{smiles} 0" not in present:
            frames = list(training_frames(smiles, recipe))
            # The first frame tells that a molecule is complete, so it is the last to be stored.
            for frame in [*frames[1:], frames[0]]:
                if frame.source not in present:
                    store.append(frame)
                    added += 1
        yield smiles, added


def training_frames(smiles: str, recipe: TrainingRecipe) -> Iterator[Frame]:
    """Make the frames of one molecule or complex, their sources ``SMILES NUMBER``.

    Raises:
        MissingExtraError: RDKit is not installed.
        ConfigError: the SMILES cannot be read or has no geometry.
    """
    generator = np.random.default_rng([recipe.seed, *smiles.encode()])
    molecule = _ForceFieldMolecule(smiles, generator)
    is_complex = len(molecule.fragments) > 1
    geometries = []
    for temperature in [recipe.complex_temperature] if is_complex else recipe.temperatures:
        geometries += molecule.dynamics(temperature, recipe.frames, generator)
    if is_complex:
        geometries += [molecule.separated(distance) for distance in recipe.separations]
    for count, positions in enumerate(geometries):
        yield Frame(
            numbers=molecule.numbers,
            positions=positions,
            env_positions=np.zeros((0, 3)),
            env_charges=np.zeros(0),
            env_numbers=np.zeros(0, dtype=np.int64),
            charge=molecule.charge,
            source=f"{smiles} {count}",
        )


def _rdkit(module: str) -> Any:
    try:
        return importlib.import_module(f"rdkit.{module}")
    except ModuleNotFoundError:
        raise MissingExtraError("rdkit", "slater-koster", "making training geometries") from None


def _check_distinct(names: list[str]) -> None:
    chem = _rdkit("Chem")
    known: dict[str, str] = {}
    for name in names:
        canonical = chem.MolToSmiles(_parse(name))
        if canonical in known:
            raise ConfigError(f"training: expected different molecules, found {known[canonical]} and {name}")
        known[canonical] = name


def _parse(smiles: str) -> Any:
    molecule = _rdkit("Chem").MolFromSmiles(smiles)
    if molecule is None:
        raise ConfigError(f"training: expected a SMILES, found {smiles!r}")
    return molecule


class _ForceFieldMolecule:
    """A molecule or complex relaxed in its force field; positions in bohr.

    Attributes:
        numbers: (n,) atomic numbers.
        charge: total charge.
        fragments: the atoms of each molecule.
        positions: (n, 3) the relaxed geometry.
    """

    def __init__(self, smiles: str, generator: np.random.Generator) -> None:
        chem, all_chem = _rdkit("Chem"), _rdkit("Chem.AllChem")
        molecule = chem.AddHs(_parse(smiles))
        if all_chem.EmbedMolecule(molecule, randomSeed=int(generator.integers(2**31))) != 0:
            raise ConfigError(f"training: no geometry was found for {smiles}")
        self.numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.int64)
        self.charge = int(chem.GetFormalCharge(molecule))
        self.fragments = [np.array(atoms) for atoms in chem.GetMolFrags(molecule)]
        self._masses = atomic_masses[self.numbers] * DALTON_IN_ELECTRON_MASS
        conformer = molecule.GetConformer()
        if len(self.fragments) > 1:
            conformer.SetPositions(_apart(conformer.GetPositions(), self.fragments, generator))
        self._field = _force_field(molecule, all_chem)
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


def _force_field(molecule: Any, all_chem: Any) -> Any:
    if all_chem.MMFFHasAllMoleculeParams(molecule):
        properties = all_chem.MMFFGetMoleculeProperties(molecule)
        return all_chem.MMFFGetMoleculeForceField(molecule, properties, ignoreInterfragInteractions=False)
    return all_chem.UFFGetMoleculeForceField(molecule, ignoreInterfragInteractions=False)


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
