"""What the configuration beside an i-PI input says of its atoms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pidelta.config import load_config
from pidelta.errors import DataError
from pidelta.ipi.forcefields import DEFAULT_CONFIG, configuration_of

if TYPE_CHECKING:
    from pidelta.analysis.composition import Charges, Composition
    from pidelta.analysis.report import Run
    from pidelta.ipi.outputs import SystemOutputs
    from pidelta.setup import Setup


def report_folder(path: Path, prefix: str) -> Path:
    """Where the report of an i-PI input belongs."""
    return path.parent / f"{prefix or path.stem}-report"


def read_run(path: Path) -> Run:
    """What is known of a run by its input.

    Raises:
        SetupError: the input is malformed.
        DataError: the record of CPU times, or that of exchanges, is.
    """
    from pidelta.analysis.cost import read_cost
    from pidelta.analysis.exchange import read_exchange
    from pidelta.analysis.report import Run
    from pidelta.ipi.outputs import read_outputs

    outputs = read_outputs(path)
    exchange = None
    temperatures = [system.temperature for system in outputs.systems]
    if outputs.swaps is not None and None not in temperatures:
        own = np.array(temperatures)
        if sorted(outputs.replicas) == list(range(len(own))):
            own[list(outputs.replicas)] = temperatures
        exchange = read_exchange(outputs.swaps, own, outputs.swap_stride)
    return Run(outputs, read_cost(report_folder(path, outputs.prefix)), exchange)


def read_setup(path: Path, config: Path | None) -> Setup | None:
    """The configuration of a run; None without one.

    It is the one given, that of the record which `pidelta run` keeps, that of an ffdirect, or the
    pidelta.yaml beside the input.

    Raises:
        SetupError: it cannot be read.
    """
    from pidelta.run_record import recorded_path

    config = config or recorded_path(path, _prefix(path)) or configuration_of(path)
    if config.name == DEFAULT_CONFIG and not config.exists():
        return None

    from pidelta.setup import Setup

    return Setup(load_config(config))


def other_setup(path: Path, setup: Setup | None) -> str:
    """What tells that a configuration is not that of a run, as a warning; '' where nothing does."""
    from pidelta.run_record import other_configuration

    return "" if setup is None else other_configuration(path, _prefix(path), setup.config)


def _prefix(path: Path) -> str:
    from pidelta.ipi.xml_input import output_of, prefix_of, read_xml

    return prefix_of(output_of(read_xml(path)), "i-pi")


def composition_of(path: Path, outputs: SystemOutputs, setup: Setup | None) -> Composition:
    """The atoms of a system, whose trajectories name them.

    Raises:
        DataError: the configuration is of other atoms than the trajectories, or there are neither.
    """
    from pidelta.analysis.composition import Composition
    from pidelta.analysis.run_files import RunFiles

    names = RunFiles(outputs).names()
    if setup is not None:
        return replace(_compose(setup, names, path), given_masses=outputs.masses, fixed=outputs.fixed)
    if not names:
        raise DataError(f"{path}: expected a trajectory, or a configuration with --config, found neither")
    return Composition(names, given_masses=outputs.masses, fixed=outputs.fixed)


def _compose(setup: Setup, names: tuple[str, ...], path: Path) -> Composition:
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
        is_periodic=system.cell is not None,
        has_quantum=setup.config.qm is not None,
    )


def _charges(setup: Setup) -> Charges | None:
    from pidelta.analysis.composition import Charges

    if setup.topology is None:
        return None
    if setup.config.qm is None:
        return Charges(setup.topology.particles, setup.topology.charges)
    return Charges(setup.qm_region.particles, setup.qm_region.partition.charges)
