"""The recipe of a Slater-Koster set: one YAML file with everything the set depends on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, TypeVar

from ase.data import atomic_masses, atomic_numbers
from pydantic import Field, field_validator, model_validator

from pidelta.parametrisation.atom import Shell
from pidelta.parametrisation.functionals import FunctionalName
from pidelta.qm.dftb.sets import DispersionD3
from pidelta.units import parse_quantity
from pidelta.yaml_input import Angle, Energy, Length, Section, Temperature, read_yaml

BUILTIN_RECIPE = Path(__file__).with_name("recipe.yaml")

Scan = TypeVar("Scan", "DihedralScan", "TransferScan")

_SHELL = re.compile(r"([1-7])([spd])")


def parse_shell(name: str) -> tuple[int, int]:
    """Turn a name such as ``2p`` into n and l.

    Raises:
        ValueError: it is not the name of an s, p or d shell.
    """
    match = _SHELL.fullmatch(name)
    if match is None or int(match[1]) <= "spd".index(match[2]):
        raise ValueError(f"expected the name of an s, p or d shell such as 2p, found {name!r}")
    return int(match[1]), "spd".index(match[2])


class ElementRecipe(Section):
    """One element; lengths in bohr and energies in hartree once read.

    `electrons` holds the electrons of each shell of the spherical atom (0 for an empty one that serves as
    polarisation), `valence` the shells of the basis: s, then p, then d. Radii are r0 of the confinement
    (r/r0)^2. `onsite` replaces energies of the free atom; empty shells, which it need not bind, have none.
    """

    electrons: dict[str, float]
    valence: list[str] = Field(min_length=1, max_length=3)
    wave_function_radius: Length = Field(gt=0.0)
    density_radius: Length = Field(gt=0.0)
    onsite: dict[str, Energy] = Field(default_factory=dict)

    @field_validator("electrons")
    @classmethod
    def _check_electrons(cls, electrons: dict[str, float]) -> dict[str, float]:
        for name, count in electrons.items():
            most = 2 * (2 * parse_shell(name)[1] + 1)
            if not 0.0 <= count <= most:
                raise ValueError(f"expected 0 to {most} electrons in {name}, found {count:g}")
        return electrons

    @model_validator(mode="after")
    def _check_shells(self) -> ElementRecipe:
        for key, names in (("valence", self.valence), ("onsite", list(self.onsite))):
            unknown = [name for name in names if name not in self.electrons]
            if unknown:
                raise ValueError(f"{key}: expected shells among those of electrons, found {unknown[0]}")
        if [parse_shell(name)[1] for name in self.valence] != list(range(len(self.valence))):
            raise ValueError(f"valence: expected one s, then one p, then one d shell, found {self.valence}")
        for name in self.valence:
            if self.electrons[name] == 0.0 and not self.onsite.get(name):
                raise ValueError(
                    f"onsite: expected an energy other than 0 of the empty shell {name}, found none"
                )
        return self

    @property
    def shells(self) -> list[Shell]:
        """All shells with their electrons."""
        return [Shell(*parse_shell(name), count) for name, count in self.electrons.items()]

    @property
    def valence_shells(self) -> tuple[int, ...]:
        """Principal quantum numbers of the valence shells s, p, d."""
        return tuple(parse_shell(name)[0] for name in self.valence)


class GridRecipe(Section):
    """Distances of the two-centre integrals and of the rows of the files, in bohr once read."""

    first: Length = Field(parse_quantity("0.4 bohr", "length"), gt=0.0)
    last: Length = Field(parse_quantity("12 bohr", "length"), gt=0.0)
    step: Length = Field(parse_quantity("0.1 bohr", "length"), gt=0.0)
    file_step: Length = Field(parse_quantity("0.02 bohr", "length"), gt=0.0)

    @model_validator(mode="after")
    def _check_range(self) -> GridRecipe:
        if self.last < self.first + 3.0 * self.step:
            raise ValueError(
                f"last: expected at least {self.first + 3 * self.step:g} bohr, found {self.last:g}"
            )
        return self


class RepulsiveRecipe(Section):
    """The repulsives and the DFTB they belong to; lengths in bohr once read.

    Each of the `orders` of DFTB has repulsives of its own; `damping_exponent` is that of X-H interactions.
    V'' is linear between `knots`; `cutoffs` holds the range of each pair, such as C-H. `regularisation`
    weights second differences of V'' at the knots against the mean square of the residuals (atomic units),
    `energy_weight` (1/bohr) energies against gradients. `least_curvature` (hartree/bohr^2) is the least that
    V'' falls from the shortest distance to the next knot, for pairs whose electronic part repels enough.
    """

    orders: list[Literal[2, 3]] = Field(min_length=1)
    damping_exponent: float | None = Field(None, gt=0.0)
    knots: Length = Field(parse_quantity("0.1 angstrom", "length"), gt=0.0)
    regularisation: float = Field(1e-6, ge=0.0)
    energy_weight: float = Field(1.0, gt=0.0)
    least_curvature: float = Field(0.0, ge=0.0)
    cutoffs: dict[str, Length]

    def cutoff(self, pair: tuple[str, str]) -> float:
        """Return the cutoff of a pair in bohr."""
        return self.cutoffs["-".join(pair)]


class DihedralScan(Section):
    """A scan of one dihedral angle, the rest relaxed: a torsion, or the inversion of a centre.

    `atoms` is a SMARTS of four atoms, whose first match in `molecule` (a SMILES) is taken. With a centre and
    its three neighbours, as in [#1]N([#1])C, 180 degrees is planar. `angles` in radians once read.
    """

    molecule: str
    atoms: str
    angles: list[Angle] = Field(min_length=1)

    @property
    def name(self) -> str:
        """What the sources of its frames begin with."""
        return f"{self.molecule} {self.atoms}"


class TransferScan(Section):
    """A scan of a proton between the molecules of a complex, a SMILES such as [NH4+].O.

    The complex is relaxed and its hydrogen bond D-H...A brought to each of `lengths` from D to A; the proton
    is put at each of `fractions` of the way.
    """

    complex: str
    lengths: list[Length] = Field(min_length=1)
    fractions: list[float] = Field(min_length=1)

    @property
    def name(self) -> str:
        """What the sources of its frames begin with."""
        return f"{self.complex} transfer"


class LabelRecipe(Section):
    """The level of theory of the labels, as PySCF names it.

    `diffuse_basis` is for complexes and ions.
    """

    xc: str
    basis: str
    diffuse_basis: str


class MoleculeGroup(Section):
    """Molecules, as SMILES, of which `frames` geometries come at each temperature."""

    frames: int = Field(ge=1)
    smiles: list[str]


class TrainingRecipe(Section):
    """Geometries for the fit of the repulsives, and the level of theory of their labels.

    `molecules` come at each of `temperatures`. Of each of `complexes` (SMILES of several molecules, such as
    O.O) come `complex_frames` geometries at `complex_temperature`, and one for each of `separations`, by
    which the last molecule is moved away. `dihedrals` and `transfers` are scans.
    """

    labels: LabelRecipe
    molecules: list[MoleculeGroup]
    complexes: list[str] = Field(default_factory=list)
    dihedrals: list[DihedralScan] = Field(default_factory=list)
    transfers: list[TransferScan] = Field(default_factory=list)
    complex_frames: int = Field(2, ge=1)
    temperatures: list[Temperature] = Field(min_length=1)
    complex_temperature: Temperature = parse_quantity("300 K", "temperature")
    separations: list[Length] = Field(default_factory=list)
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _check_repetitions(self) -> TrainingRecipe:
        repeated = [name for k, name in enumerate(self.smiles) if name in self.smiles[:k]]
        if repeated:
            raise ValueError(f"expected each molecule once, found {repeated[0]} again")
        for name in self.smiles:
            if not name or ("." in name) != (name in self.complexes):
                what = "several molecules" if name in self.complexes else "one molecule"
                raise ValueError(f"expected the SMILES of {what}, found {name!r}")
        return self

    @property
    def smiles(self) -> list[str]:
        """All molecules and complexes."""
        return [*(name for group in self.molecules for name in group.smiles), *self.complexes]

    @field_validator("dihedrals", "transfers")
    @classmethod
    def _check_scans(cls, scans: list[Scan]) -> list[Scan]:
        repeated = [scan.name for k, scan in enumerate(scans) if scan.name in [s.name for s in scans[:k]]]
        if repeated:
            raise ValueError(f"expected each scan once, found {repeated[0]} again")
        return scans


class Recipe(Section):
    """A Slater-Koster set.

    `dispersion` is D3(BJ) of the functional of the labels. Neither labels nor DFTB have it in the fit; it
    goes with the set for those who want it.
    """

    name: str
    version: str
    license: str
    functional: FunctionalName
    dispersion: DispersionD3 | None = None
    grid: GridRecipe = GridRecipe()
    elements: dict[str, ElementRecipe] = Field(min_length=1)
    repulsive: RepulsiveRecipe
    training: TrainingRecipe

    @model_validator(mode="after")
    def _check_cutoffs(self) -> Recipe:
        expected = ["-".join(pair) for pair in self.pairs]
        if sorted(self.repulsive.cutoffs) != sorted(expected):
            raise ValueError(
                f"repulsive.cutoffs: expected the pairs {', '.join(expected)}, "
                f"found {', '.join(self.repulsive.cutoffs)}"
            )
        return self

    @field_validator("elements")
    @classmethod
    def _check_elements(cls, elements: dict[str, ElementRecipe]) -> dict[str, ElementRecipe]:
        for symbol, element in elements.items():
            if not atomic_numbers.get(symbol):
                raise ValueError(f"expected the symbol of an element, found {symbol!r}")
            electrons = sum(element.electrons.values())
            if abs(electrons - atomic_numbers[symbol]) > 1e-9:
                raise ValueError(
                    f"{symbol}: electrons: expected {atomic_numbers[symbol]} in all, found {electrons:g}"
                )
        return elements

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Unordered pairs of elements, in the order of the recipe."""
        symbols = list(self.elements)
        return [(first, second) for k, first in enumerate(symbols) for second in symbols[k:]]


def nuclear_charge(symbol: str) -> int:
    """Return the atomic number of an element."""
    return int(atomic_numbers[symbol])


def mass(symbol: str) -> float:
    """Return the mass of an element in dalton."""
    return float(atomic_masses[atomic_numbers[symbol]])


def read_recipe(path: Path) -> Recipe:
    """Read and validate a recipe.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown or missing, or a value is wrong; the
            message names the file and the key.
    """
    return read_yaml(path, Recipe)
