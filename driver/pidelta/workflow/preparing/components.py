"""The kinds of molecules of a system: what each is, how often it stands, and its topology."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import parmed
from ase.data import chemical_symbols

from pidelta.core.structure import read_coordinates
from pidelta.errors import SettingError, SetupError
from pidelta.mm.readers import read_topology
from pidelta.qm.dftb.sets import builtin_set
from pidelta.state import FloatArray, IntArray
from pidelta.workflow.preparing import topologies
from pidelta.workflow.preparing.amber import AmberTools, guessed_parameters, make_topology
from pidelta.workflow.preparing.molecules import FILES, Molecule, read_molecule

ForceField = Literal["auto", "gaff2", "generic"]
_WITH_COORDINATES = (".pdb", ".xyz", ".gro", ".rst7", ".inpcrd", ".rst", ".crd", ".nc")


@dataclass(frozen=True)
class Request:
    """One kind of molecule as the user asks for it.

    Attributes:
        source: SMILES or file.
        name: of its residue.
        count: how often it stands.
        charge: in e, or None where the source says it.
        quantum: whether it is in the QM region.
        topology: a file, or None where one is to be made.
    """

    source: str
    name: str
    count: int
    charge: int | None
    quantum: bool
    topology: Path | None


@dataclass(frozen=True)
class Species:
    """One kind of molecule as it was read.

    Attributes:
        request: what was asked for.
        numbers: (n,) atomic numbers.
        positions: (n, 3) in bohr.
        charge: in e.
        unpaired: electrons that its formula shows without a partner; 0 where it comes with a topology.
        molecule: its formula; None where it comes with a topology.
    """

    request: Request
    numbers: IntArray
    positions: FloatArray
    charge: int
    unpaired: int
    molecule: Molecule | None


@dataclass(frozen=True)
class Component(Species):
    """One kind of molecule, ready to be put into a box.

    Attributes:
        structure: its topology, as ParmEd has it.
        description: what it is and where its topology comes from.
        notes: what the user should know.
    """

    structure: parmed.Structure
    description: str
    notes: tuple[str, ...]

    @property
    def residues(self) -> list[str]:
        """Names of its residues, each once."""
        return list(dict.fromkeys(residue.name for residue in self.structure.residues))


def read_species(request: Request, seed: int, *, open_shell: bool) -> Species:
    """Read a molecule, which takes a moment, where its topology may take minutes.

    Args:
        request: the molecule.
        seed: of the geometry.
        open_shell: whether the QM region has unpaired electrons.

    Raises:
        SetupError: the molecule or the topology cannot be read, or they contradict each other.
    """
    if request.topology is not None:
        return _with_given_topology(request, request.topology, seed)
    molecule = read_molecule(request.source, request.charge, seed, open_shell=request.quantum and open_shell)
    return Species(
        request, molecule.numbers, molecule.positions, molecule.charge, molecule.unpaired, molecule
    )


def make_component(
    species: Species,
    water: str,
    force_field: ForceField,
    tools: AmberTools | None,
    folder: Path,
    working: Callable[[str], None],
) -> Component:
    """Make or load the topology of a molecule.

    Args:
        species: the molecule.
        water: the model of the solvent, which a molecule of water shares.
        force_field: what makes a topology; `auto` is GAFF2 where AmberTools is there and electrons are
            paired, and else generic Lennard-Jones types, if it is quantum mechanical.
        tools: AmberTools, or None.
        folder: for the files of AmberTools.
        working: called with what is being done, before what takes a while.

    Raises:
        SetupError: the topology cannot be made.
    """
    request, molecule = species.request, species.molecule
    name, notes = request.source, []
    if molecule is None:
        assert request.topology is not None
        structure, source = topologies.load(request.topology), request.topology.name
        if len(structure.residues) == 1:
            topologies.rename_residues(structure, request.name)
    else:
        name, notes = molecule.smiles, list(molecule.notes)
        structure, source, said = _make_topology(
            request, molecule, water, force_field, tools, folder, working
        )
        notes += said
        topologies.rename_residues(structure, request.name)
    topologies.with_charge(structure, species.charge)
    described = f"{name}, {len(species.numbers)} atoms, {_shown_charge(species.charge)}; {source}"
    return Component(**vars(species), structure=structure, description=described, notes=tuple(notes))


def _make_topology(
    request: Request,
    molecule: Molecule,
    water: str,
    force_field: ForceField,
    tools: AmberTools | None,
    folder: Path,
    working: Callable[[str], None],
) -> tuple[parmed.Structure, str, list[str]]:
    """The topology, where it comes from, and what the user should know of it."""
    if topologies.is_ion(molecule):
        symbol = chemical_symbols[molecule.numbers[0]]
        return topologies.ion(symbol, molecule.charge), "ion of Joung and Cheatham", []
    if topologies.is_water(molecule):
        return topologies.water(water), f"water of the model {water}", []
    if force_field == "generic" or (force_field == "auto" and (tools is None or molecule.unpaired)):
        note = (
            f"{request.name}: {_why_generic(force_field, tools)}generic Lennard-Jones types and no bonded "
            "terms, which a QM molecule does not need"
        )
        return _generic(request, molecule, force_field, tools), "generic Lennard-Jones types", [note]
    working(f"{request.name}: GAFF2 topology by AmberTools")
    structure, guessed = _gaff2(request, molecule, tools, folder / request.name)
    notes = []
    if guessed and not request.quantum:
        notes.append(
            f"{request.name}: parmchk2 guesses {guessed} parameters: molecule.frcmod in "
            f"{folder / request.name}"
        )
    return structure, "GAFF2, AM1-BCC", notes


def _gaff2(
    request: Request, molecule: Molecule, tools: AmberTools | None, folder: Path
) -> tuple[parmed.Structure, int]:
    """The topology, and how many of its parameters are guesses."""
    if tools is None:
        raise SetupError(_no_amber_tools(request))
    path = make_topology(tools, molecule, folder, relaxed=not request.quantum)
    structure = topologies.load(path)
    if not np.array_equal(topologies.numbers_of(structure), molecule.numbers):
        raise SetupError(f"{path}: expected the atoms of {request.source} in their order, found others")
    return structure, guessed_parameters(path)


def _generic(
    request: Request, molecule: Molecule, force_field: ForceField, tools: AmberTools | None
) -> parmed.Structure:
    if not request.quantum:
        if force_field == "auto" and tools is None:
            raise SetupError(_no_amber_tools(request))
        raise SettingError(
            "classical",
            f"expected a molecule of paired electrons and a force field, found {request.source} with "
            "generic Lennard-Jones types, which hold nothing together",
        )
    return topologies.generic(molecule)


def _why_generic(force_field: ForceField, tools: AmberTools | None) -> str:
    if force_field == "generic":
        return ""
    return "AmberTools was not found: " if tools is None else "AM1-BCC is for paired electrons: "


def _no_amber_tools(request: Request) -> str:
    return (
        f"{request.source}: a GAFF2 topology needs AmberTools, which was found neither by --ambertools, nor "
        "in $AMBERHOME, nor on PATH; install it (conda-forge: ambertools) or give a --topology"
    )


def _with_given_topology(request: Request, path: Path, seed: int) -> Species:
    topology = read_topology(path)
    if Path(request.source).suffix.lower() in _WITH_COORDINATES:
        positions = read_coordinates(Path(request.source), topology).positions
    else:
        molecule = read_molecule(request.source, request.charge, seed)
        positions = molecule.positions
        if not np.array_equal(molecule.numbers, topology.numbers):
            raise SetupError(f"{path}: expected the atoms of {request.source} in their order, found others")
    charge = round(float(topology.charges.sum()))
    if request.charge is not None and request.charge != charge:
        raise SettingError("charge", f"expected {charge:+d}, as {path} has it, found {request.charge:+d}")
    return Species(request, topology.numbers, positions, charge, 0, None)


def check_quantum(species: Sequence[Species], multiplicity: int | None) -> int:
    """See that DFTB can describe the QM region, and return its multiplicity.

    Args:
        species: all kinds of molecules.
        multiplicity: as given; None for 1, where electrons are paired.

    Raises:
        SettingError: an element has no parameters, or the multiplicity does not fit the electrons.
    """
    quantum = [kind for kind in species if kind.request.quantum]
    known = builtin_set()[3].description.elements
    for kind in quantum:
        found = {chemical_symbols[number] for number in kind.numbers}
        if unknown := sorted(found - set(known)):
            raise SettingError(
                "molecule",
                f"expected {', '.join(known)}, the elements of the built-in DFTB parameters, "
                f"found {unknown[0]} in {kind.request.source}; --classical leaves it to the force field",
            )
    electrons = sum((int(part.numbers.sum()) - part.charge) * part.request.count for part in quantum)
    unpaired = sum(part.unpaired * part.request.count for part in quantum)
    if multiplicity is None and (electrons % 2 or unpaired):
        suggestion = max(unpaired, electrons % 2) + 1
        raise SettingError(
            "multiplicity",
            f"expected one, as the QM region has {electrons} electrons, {unpaired} of them unpaired in its "
            f"formula, found none; --multiplicity {suggestion} has {suggestion - 1} unpaired electrons",
        )
    multiplicity = multiplicity or 1
    if (electrons + multiplicity) % 2 == 0:
        parity = "even" if electrons % 2 else "odd"
        raise SettingError(
            "multiplicity", f"expected an {parity} one with {electrons} electrons, found {multiplicity}"
        )
    return multiplicity


def _shown_charge(charge: int) -> str:
    return f"charge {charge:+d}" if charge else "neutral"


def default_names(sources: Sequence[str]) -> list[str]:
    """Names of residues of three letters: from files' names, or MOL, and else with a number."""
    names: list[str] = []
    for place, source in enumerate(sources):
        stem = Path(source).stem if Path(source).suffix.lower() in (*FILES, *_WITH_COORDINATES) else ""
        letters = "".join(letter for letter in stem.upper() if letter.isascii() and letter.isalnum())[:3]
        name = letters or ("MOL" if len(sources) == 1 else f"MO{place + 1}")
        names.append(name if name not in names else f"M{place + 1:02d}")
    return names
