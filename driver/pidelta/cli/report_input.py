"""What the configuration beside an i-PI input says of its atoms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pidelta.config import load_config
from pidelta.errors import DataError

if TYPE_CHECKING:
    from pidelta.analysis.composition import Charges, Composition
    from pidelta.ipi.outputs import SystemOutputs
    from pidelta.setup import Setup


def composition_of(path: Path, outputs: SystemOutputs, config: Path | None) -> tuple[Composition, list[str]]:
    """The atoms of a system, and what is not known of them, a line each.

    Args:
        path: the i-PI input.
        outputs: of the system, whose trajectories name the atoms.
        config: the configuration; by default the pidelta.yaml beside the input, if there is one.

    Raises:
        SetupError: the configuration cannot be read.
        DataError: it is of other atoms than the trajectories, or there are neither.
    """
    from pidelta.analysis.composition import Composition
    from pidelta.analysis.run_files import RunFiles

    names = RunFiles(outputs).names()
    if config is None and not (path.parent / "pidelta.yaml").exists():
        if not names:
            raise DataError(f"{path}: expected a trajectory, or a configuration with --config, found neither")
        return Composition(names), ["no pidelta.yaml beside the input and no --config: no regions, no bonds"]

    from pidelta.setup import Setup

    setup = Setup(load_config(config or path.parent / "pidelta.yaml"))
    return compose(setup, names, path), []


def compose(setup: Setup, names: tuple[str, ...], path: Path) -> Composition:
    """The atoms of a configuration under the names of i-PI, or its own where these are not known."""
    from ase.data import chemical_symbols

    from pidelta.analysis.composition import Composition
    from pidelta.ipi.trajectories import number_of
    from pidelta.mm.water import find_water

    system = setup.system
    expected = tuple(chemical_symbols[int(number)] for number in system.numbers)
    names = names or expected
    if [number_of(name) for name in names] != system.numbers.tolist():
        raise DataError(
            f"{path}: expected trajectories of the {len(system)} atoms of {setup.config.structure}, found "
            f"others ({len(names)} atoms): are they of another input?"
        )
    every, regions = np.arange(len(system)), {}
    if len(setup.qm_indices) not in (0, len(system)):
        regions = {"QM": setup.qm_indices, "MM": np.setdiff1d(every, setup.qm_indices)}
    topology = setup.topology
    waters = np.zeros((0, 3), dtype=np.int64) if topology is None else find_water(topology)
    return Composition(
        names=names,
        regions=regions,
        bonds=None if topology is None else topology.bonded_pairs,
        waters=waters[~np.isin(waters, setup.qm_indices).any(axis=1)],
        molecules=None if topology is None else topology.residue_indices,
        charges=_charges(setup),
        qm_charge=0 if setup.config.qm is None else setup.config.qm.charge,
    )


def _charges(setup: Setup) -> Charges | None:
    from pidelta.analysis.composition import Charges

    if setup.topology is None:
        return None
    periodic = setup.system.cell is not None
    if setup.config.qm is None:
        return Charges(setup.topology.particles, setup.topology.charges, periodic)
    region = setup.qm_region
    return Charges(region.particles, region.partition.charges, periodic)
