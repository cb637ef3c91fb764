"""What the files of a configuration hold."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pidelta.config import Config, MMConfig
from pidelta.core import structure
from pidelta.core.names import NameDifference
from pidelta.errors import SetupError, StructureError
from pidelta.mm.readers import read_topology
from pidelta.mm.topology import Topology
from pidelta.mm.water import build_water, with_water
from pidelta.setup.sections import section
from pidelta.state import FloatArray, System
from pidelta.units import ANGSTROM

_MANY_MOLECULES = 100
"""Of a cluster without a cell: what deserves a warning."""

_PLACES_OF_CELLS = {
    ".pdb": " (its line CRYST1)",
    ".crd": " (CHARMM's .crd has no place for it: the line CRYST1 of a .pdb has)",
}


@dataclass(frozen=True)
class Inputs:
    """What the files of a configuration hold.

    `unused_cell` is that of a structure without a force field, (3, 3) in bohr.
    """

    config: Config
    system: System
    topology: Topology | None
    name_differences: tuple[NameDifference, ...] = ()
    unused_cell: FloatArray | None = None


def read_inputs(config: Config) -> Inputs:
    """Atoms, positions and cell, with the force field where there is one.

    Raises:
        SetupError: a file is missing or malformed, or they do not fit together.
    """
    if config.mm is None:
        # DFTB knows no lattice here: a molecule in a box is a molecule in vacuum.
        system = structure.read_structure(config.structure)
        return Inputs(config, replace(system, cell=None), None, unused_cell=system.cell)
    read = _box_of_water if config.mm.topology is None else _from_topology
    with section(config, "mm"):
        inputs = read(config, config.mm)
    _refuse_lost_cell(inputs, config.mm)
    return inputs


def _refuse_lost_cell(inputs: Inputs, mm: MMConfig) -> None:
    """Without a cell all pairs interact by bare Coulomb: right for a cluster, wrong for a box of solvent."""
    if inputs.system.cell is not None:
        return
    file = inputs.config.structure
    given = [key for key in ("electrostatics", "cutoff", "ewald_tolerance") if key in mm.model_fields_set]
    if given:
        raise SetupError(
            f"{file}: mm.{given[0]}: expected a cell, found none{where_a_cell_is(file)}; leave the key out "
            "for a cluster in vacuum"
        )
    if inputs.topology is not None and inputs.topology.periodic:
        raise SetupError(
            f"{file}: expected a cell, as {inputs.topology.source} has a box, found none"
            f"{where_a_cell_is(file)}"
        )


def where_a_cell_is(file: Path) -> str:
    """What to add to a message on a structure file without a cell."""
    return _PLACES_OF_CELLS.get(file.suffix.lower(), "")


def cluster_warnings(inputs: Inputs) -> list[str]:
    """Whether many molecules are in vacuum, perhaps because a file has lost its cell."""
    topology = inputs.topology
    if topology is None or inputs.system.cell is not None:
        return []
    i, j = topology.bonded_pairs.T
    bonds = coo_array((np.ones(len(i)), (i, j)), shape=(len(topology),) * 2)
    molecules = connected_components(bonds, directed=False)[0]
    if molecules < _MANY_MOLECULES:
        return []
    file = inputs.config.structure
    return [
        f"{file}: no cell{where_a_cell_is(file)}: {molecules} molecules are a cluster in vacuum, and all "
        "pairs interact"
    ]


def _from_topology(config: Config, mm: MMConfig) -> Inputs:
    """A topology and a structure that fits it."""
    assert mm.topology is not None
    topology = read_topology(mm.topology, mm.parameters, rigid_water=mm.water is not None)
    if mm.water is not None:
        topology = with_water(topology, mm.water)
    found = structure.read_coordinates(config.structure, topology)
    if found.labels is not None:  # the numbers that users see where they look up atoms
        topology = replace(
            topology, residue_numbers=found.labels.residue_numbers, segments=found.labels.segments
        )
    system = System(
        numbers=topology.numbers,
        positions=found.positions,
        cell=found.cell,
        names=topology.names,
        residue_names=topology.residue_names,
        residue_indices=topology.residue_indices,
        residue_numbers=topology.residue_numbers,
        segments=topology.segments,
    )
    return Inputs(config, system, topology, found.name_differences)


def _box_of_water(config: Config, mm: MMConfig) -> Inputs:
    """A structure of water alone, its molecules the residues."""
    assert mm.water is not None
    system = structure.without_massless(structure.read_structure(config.structure))
    topology = build_water(system, mm.water)
    system = replace(
        system, residue_indices=topology.residue_indices, residue_numbers=topology.residue_numbers
    )
    return Inputs(config, system, topology)


def read_point_charges(path: Path | None) -> tuple[FloatArray, FloatArray]:
    """Positions (m, 3) in bohr and charges (m,) in e, from columns x y z (angstrom) and q (e)."""
    if path is None:
        return np.zeros((0, 3)), np.zeros(0)
    if not path.is_file():
        raise StructureError(f"{path}: no such file of point charges")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of a file without data, which is refused below
            table = np.loadtxt(path, ndmin=2, encoding="utf-8")
    except ValueError as error:
        raise StructureError(f"{path}: expected columns x y z q ({error})") from None
    if not len(table):
        raise StructureError(f"{path}: expected point charges, a line x y z q each, found none")
    if table.shape[1] != 4:
        raise StructureError(f"{path}: expected four columns x y z q, found {table.shape[1]}")
    wrong = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if len(wrong):
        values = " ".join(f"{value:g}" for value in table[wrong[0]])
        raise StructureError(f"{path}: expected finite columns x y z q, found {values} for charge {wrong[0]}")
    return table[:, :3] * ANGSTROM, table[:, 3].copy()
