"""Geometries for the fit of the repulsives: molecules shaken by dynamics, complexes pulled apart, scans.

The dynamics uses a force field because a set without repulsives has none of its own. It only has to visit
geometries; their forces come from DFT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from pidelta.data.frames import Frame
from pidelta.data.store import FrameStore
from pidelta.errors import ConfigError, DataError
from pidelta.parametrisation.force_field import ForceFieldMolecule, parse_smiles, rdkit
from pidelta.parametrisation.recipe import DihedralScan, TrainingRecipe, TransferScan

_SAME = 1e-6  # bohr


def add_training_frames(store: FrameStore, recipe: TrainingRecipe) -> Iterator[tuple[str, int]]:
    """Add the geometries of a recipe to a store, molecule by molecule, but for those it has.

    Every molecule has a random stream of its own, from the seed and its SMILES, so that a longer list changes
    nothing for the others.

    Yields:
        The name of a molecule, complex or scan and the number of frames added, after each.

    Raises:
        MissingExtraError: RDKit is not installed.
        ConfigError: a SMILES cannot be read, or two are the same molecule.
        DataError: the store has other geometries than the recipe makes, or frames that it does not make.
    """
    _check_distinct(recipe.smiles)
    present = {frame.source: frame.positions for frame in store}
    made = set()
    for name, make in _parts(recipe).items():
        added = 0
        for frame in make():
            made.add(frame.source)
            if frame.source not in present:
                store.append(frame)
                added += 1
            elif not np.allclose(frame.positions, present[frame.source], atol=_SAME):
                raise DataError(
                    f"{store.path}: expected {frame.source} with the geometry of the recipe, found another"
                )
        yield name, added
    strangers = sorted(set(present) - made)
    if strangers:
        raise DataError(f"{store.path}: expected frames of the recipe alone, found {strangers[0]}")


def _parts(recipe: TrainingRecipe) -> dict[str, Callable[[], Iterator[Frame]]]:
    """What makes the frames of each molecule, complex and scan, by the name that their sources begin with."""
    return {
        **{name: partial(training_frames, name, recipe) for name in recipe.smiles},
        **{scan.name: partial(dihedral_frames, scan, recipe.seed) for scan in recipe.dihedrals},
        **{scan.name: partial(transfer_frames, scan, recipe.seed) for scan in recipe.transfers},
    }


def training_frames(smiles: str, recipe: TrainingRecipe) -> Iterator[Frame]:
    """Make the frames of one molecule or complex, their sources ``SMILES NUMBER``.

    Raises:
        MissingExtraError: RDKit is not installed.
        ConfigError: the SMILES cannot be read or has no geometry.
    """
    generator = _generator(recipe.seed, smiles)
    molecule = ForceFieldMolecule(smiles, generator)
    geometries = []
    if len(molecule.fragments) > 1:
        geometries += molecule.dynamics(recipe.complex_temperature, recipe.complex_frames, generator)
        geometries += [molecule.separated(distance) for distance in recipe.separations]
    else:
        count = next(group.frames for group in recipe.molecules if smiles in group.smiles)
        for temperature in recipe.temperatures:
            geometries += molecule.dynamics(temperature, count, generator)
    yield from molecule.frames(smiles, geometries)


def dihedral_frames(scan: DihedralScan, seed: int) -> Iterator[Frame]:
    """Make the frames of a scan of a dihedral angle.

    Raises:
        MissingExtraError: RDKit is not installed.
        ConfigError: the SMILES or SMARTS cannot be read, the SMARTS is not of four atoms or matches none.
    """
    molecule = ForceFieldMolecule(scan.molecule, _generator(seed, scan.molecule))
    atoms = molecule.match(scan.atoms, 4)
    yield from molecule.frames(scan.name, [molecule.with_dihedral(atoms, angle) for angle in scan.angles])


def transfer_frames(scan: TransferScan, seed: int) -> Iterator[Frame]:
    """Make the frames of a scan of a proton in a complex.

    Raises:
        MissingExtraError: RDKit is not installed.
        ConfigError: the SMILES cannot be read, or is not of two molecules.
    """
    molecule = ForceFieldMolecule(scan.complex, _generator(seed, scan.complex))
    if len(molecule.fragments) != 2:
        raise ConfigError(f"training: transfers: expected two molecules, found {scan.complex}")
    lengths = [(length, fraction) for length in scan.lengths for fraction in scan.fractions]
    yield from molecule.frames(scan.name, [molecule.with_proton_at(*length) for length in lengths])


def _generator(seed: int, smiles: str) -> np.random.Generator:
    return np.random.default_rng([seed, *smiles.encode()])


def wants_diffuse_functions(frame: Frame) -> bool:
    """Whether a frame is of an ion or a complex, whose labels are in the basis with diffuse functions."""
    return frame.charge != 0 or "." in frame.source.split()[0]


def _check_distinct(names: list[str]) -> None:
    chem = rdkit("Chem")
    known: dict[str, str] = {}
    for name in names:
        canonical = chem.MolToSmiles(parse_smiles(name))
        if canonical in known:
            raise ConfigError(f"training: expected different molecules, found {known[canonical]} and {name}")
        known[canonical] = name
