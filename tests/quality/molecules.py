"""The molecules of the quality report and their starting geometries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolTransforms

from pidelta.data.frames import Frame
from pidelta.parametrisation.force_field import ForceFieldMolecule
from pidelta.parametrisation.recipe import BUILTIN_RECIPE, read_recipe
from pidelta.units import ANGSTROM, parse_quantity

_NOISE = 0.05  # bohr
LIST = Path(__file__).with_name("molecules.yaml")


@dataclass(frozen=True)
class Molecule:
    """A molecule of the list; `dihedrals` are four atoms and an angle in degrees each."""

    name: str
    smiles: str
    dihedrals: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Molecules:
    """The list. `settings` holds its sections that are no molecules."""

    neutral: dict[str, Molecule]
    ions: dict[str, Molecule]
    sulfur_chlorine: dict[str, Molecule]
    partners: dict[str, Molecule]
    settings: dict

    @property
    def sampled(self) -> dict[str, Molecule]:
        """Those with geometries at the temperature of the dynamics."""
        return {**self.neutral, **self.ions, **self.sulfur_chlorine}

    @property
    def minima(self) -> dict[str, Molecule]:
        """Those with a minimum."""
        return {**self.sampled, **self.partners}


def read_molecules() -> Molecules:
    content = yaml.safe_load(LIST.read_text())
    groups = {
        group: {
            name: Molecule(name, entry["smiles"], tuple(map(tuple, entry.get("dihedrals", []))))
            for name, entry in content.pop(group).items()
        }
        for group in ("neutral", "ions", "sulfur_chlorine", "partners")
    }
    return Molecules(**groups, settings=content)


def make_frame(numbers, positions, charge: int = 0, source: str = "") -> Frame:
    """A frame without environment, positions in bohr."""
    return Frame(
        numbers=np.asarray(numbers, dtype=np.int64),
        positions=np.asarray(positions, dtype=np.float64),
        site_positions=np.zeros((0, 3)),
        site_charges=np.zeros(0),
        site_numbers=np.zeros(0, dtype=np.int64),
        charge=charge,
        source=source,
    )


def dynamics_frames(molecule: Molecule, settings: dict) -> list[Frame]:
    """Geometries of force-field dynamics, as the training set has them, from another seed."""
    generator = np.random.default_rng([settings["seed"], *molecule.smiles.encode()])
    model = ForceFieldMolecule(molecule.smiles, generator)
    temperature = parse_quantity(settings["temperature"], "temperature")
    geometries = model.dynamics(temperature, settings["frames"], generator)
    return list(model.frames(molecule.name, geometries))


def force_field_minimum(molecule: Molecule) -> Frame:
    """The force-field geometry of a molecule with its dihedrals as the list has them."""
    rdkit_molecule = Chem.AddHs(Chem.MolFromSmiles(molecule.smiles))
    AllChem.EmbedMolecule(rdkit_molecule, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(rdkit_molecule)
    conformer = rdkit_molecule.GetConformer()
    for *atoms, angle in molecule.dihedrals:
        rdMolTransforms.SetDihedralDeg(conformer, *(int(atom) for atom in atoms), float(angle))
    # Off any symmetry, so that no minimum is sought on a saddle.
    noise = np.random.default_rng(1).normal(scale=_NOISE, size=(rdkit_molecule.GetNumAtoms(), 3))
    return make_frame(
        [atom.GetAtomicNum() for atom in rdkit_molecule.GetAtoms()],
        conformer.GetPositions() * ANGSTROM + noise,
        Chem.GetFormalCharge(rdkit_molecule),
        molecule.name,
    )


def heavy_atoms(molecule: Molecule) -> int:
    return Chem.MolFromSmiles(molecule.smiles).GetNumAtoms()


def training_smiles() -> list[str]:
    """Molecules, and the parts of complexes, that the built-in set was fitted to, as canonical SMILES."""
    training = read_recipe(BUILTIN_RECIPE).training
    scanned = [
        *(scan.molecule for scan in training.dihedrals),
        *(scan.complex for scan in training.transfers),
    ]
    parts = {part for name in [*training.smiles, *scanned] for part in name.split(".")}
    return sorted({canonical(part) for part in parts})


def canonical(smiles: str) -> str:
    return Chem.MolToSmiles(Chem.MolFromSmiles(smiles), isomericSmiles=False)
