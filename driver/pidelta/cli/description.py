"""What a set-up is, as tables: what `pidelta check` shows first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.markup import escape
from rich.table import Table

from pidelta.cli.border import describe_embedding
from pidelta.config import Config, MMConfig
from pidelta.core.cell import heights
from pidelta.qm_config import DFTBConfig, QMConfig
from pidelta.state import FloatArray
from pidelta.units import BOHR_IN_ANGSTROM

if TYPE_CHECKING:
    from pidelta.core.names import NameDifference
    from pidelta.mm.topology import Topology
    from pidelta.qmmm.energy import QMMMEvaluator
    from pidelta.qmmm.region import QMRegion
    from pidelta.setup import Setup

_SHOWN = 8
"""How many names that differ are listed."""


def describe_setup(config: Config, setup: Setup, evaluator: QMMMEvaluator) -> Table:
    """The atoms, the methods and the border between them, a row each."""
    from ase.data import chemical_symbols

    from pidelta.core.selection import describe_atoms
    from pidelta.qmmm.surroundings import CutoffSurroundings

    system, topology = setup.system, setup.topology
    table = Table(title=f"set-up {config.path.name}", show_header=False)
    table.add_row("atoms", f"{len(system)} (residues: {int(system.residue_indices[-1]) + 1})")
    if system.cell is not None:
        lengths = np.linalg.norm(system.cell, axis=1) * BOHR_IN_ANGSTROM
        table.add_row("cell", " x ".join(f"{length:.2f}" for length in lengths) + " angstrom")
    if setup.has_unused_cell:
        table.add_row("cell", f"that of {escape(config.structure.name)} is not used: no section mm")
    if config.mm is not None and topology is not None:
        table.add_row("force field", f"{_describe_source(config.mm, topology)}, by {_engine_name(evaluator)}")
        table.add_row("pair interactions", _describe_truncation(config.mm, system.cell))
        if config.mm.engine == "openmm" and config.mm.virial:
            table.add_row("virial", "12 more evaluations; mm.virial: false saves them")
    described = evaluator.engine is not None or evaluator.delta is not None
    if config.qm is not None and evaluator.partition is not None and described:
        symbols = [chemical_symbols[number] for number in evaluator.partition.qm_numbers]
        table.add_row("QM region", f"{len(symbols)} atoms: {' '.join(symbols)}; charge {config.qm.charge:+d}")
        atoms = describe_atoms(evaluator.partition.qm_atoms, system)
        table.add_row("by residue", escape("\n".join(atoms)))
        table.add_row("engine", setup.engine.program)
        for row in describe_method(config.qm):
            table.add_row(*row)
        table.add_row("low-level method", setup.engine.identity)
        for row in _describe_links(config.qm, setup):
            table.add_row(*row)
    if isinstance(evaluator.surroundings, CutoffSurroundings) and config.mm is not None:
        for row in describe_embedding(config.mm, setup, evaluator.surroundings):
            table.add_row(*row)
    if evaluator.partition is not None and config.point_charges is not None:
        charges = evaluator.partition.charges[len(system) :]
        table.add_row(
            "point charges",
            f"{len(charges)} from {config.point_charges.name}, {charges.sum():+.4f} e in all; they take up "
            "the net force of the molecule",
        )
    if config.delta is not None:
        table.add_row("delta", ", ".join(path.name for path in config.delta.models))
    return table


def describe_names(differences: tuple[NameDifference, ...]) -> Table:
    """The names most often different; each row counts those that differ alike."""
    table = Table("", "in the structure", "in the topology", "how many", title="names that differ")
    for row in differences[:_SHOWN]:
        table.add_row(row.kind, row.found, row.expected, str(row.count))
    if len(differences) > _SHOWN:
        rest = differences[_SHOWN:]
        table.add_row("others", "", "", str(sum(row.count for row in rest)))
    return table


def _describe_links(qm: QMConfig, setup: Setup) -> list[tuple[str, str]]:
    """The bonds that are cut, and the charges that this moves."""
    region = setup.qm_region
    if region.force_field is None:
        return []
    if len(region.links):
        hosts = region.force_field.charges[region.links.hosts]
        charges = ", ".join(f"{charge:+.4f}" for charge in hosts)
        rows = [
            ("link atoms", escape("\n".join(region.links.describe(region.force_field)))),
            ("charges of their hosts", f"{charges} e, {qm.links.host_charge} in what the QM region feels"),
        ]
    else:
        rows = [("link atoms", "none: no bond joins the QM region with MM atoms")]
    if len(region.moved.atoms):
        rows.append(
            (
                "charge remainder",
                f"{region.moved.amount:+.4f} e of the QM atoms' force-field charges, to "
                f"{len(region.moved.atoms)} MM atoms, such as "
                + escape(region.force_field.label(int(region.moved.atoms[0])))
                + f", whose charges change by up to {region.moved.largest:.4f} e",
            )
        )
    return rows


def describe_method(qm: QMConfig) -> list[tuple[str, str]]:
    """What the low-level method is, as names and values for a table."""
    from pidelta.qm.dispersion import TITLES

    if qm.engine == "ase":
        return [
            ("calculator", qm.ase.calculator),
            ("coupling", "mechanical embedding: MM charges do not polarise the QM region"),
        ]
    if qm.engine == "none":
        return [("parameters", "those of the delta models")]
    rows = [("parameters", _parameters(qm.dftb))]
    if qm.dftb.dispersion.method != "none":
        rows.append(("dispersion", TITLES[qm.dftb.dispersion.method]))
    return rows


def _engine_name(evaluator: QMMMEvaluator) -> str:
    from pidelta.mm.openmm import OpenMMEvaluator

    classical = evaluator.classical.get("mm")
    return classical.description if isinstance(classical, OpenMMEvaluator) else "the built-in evaluator"


def _describe_source(mm: MMConfig, topology: Topology) -> str:
    from pidelta.mm.water import find_water

    sources = [] if mm.topology is None else [mm.topology.name]
    if mm.water is not None:
        sources.append(f"water: {mm.water} ({len(find_water(topology))} molecules)")
    return ", ".join(sources)


def _describe_truncation(mm: MMConfig, cell: FloatArray | None) -> str:
    if cell is None:
        return "all pairs, without cutoff"
    largest = 0.5 * float(heights(cell).min()) * BOHR_IN_ANGSTROM
    method: str = mm.electrostatics
    if method in ("pme", "ewald"):
        method += f" at a tolerance of {mm.ewald_tolerance:g}"
    return (
        f"{method}, cutoff {mm.cutoff * BOHR_IN_ANGSTROM:.2f} angstrom; half of the smallest height "
        f"of the cell is {largest:.2f} angstrom"
    )


def describe_terms(topology: Topology, region: QMRegion | None) -> Table:
    """How many terms there are, how many of them the QM method replaces, and the charges."""
    rest = left = topology
    if region is not None and region.force_field is not None:
        rest, left = topology.without_internal(region.partition.qm_atoms), region.force_field
    table = Table("kind", "in all", "left to QM", "evaluated", title="terms of the force field")
    remaining = rest.counts
    for kind, count in topology.counts.items():
        if count:
            table.add_row(f"{kind}s", str(count), str(count - remaining[kind]), str(remaining[kind]))
    loose = _count_loose_atoms(topology)
    if loose:
        table.add_row("[yellow]atoms without a bond, in residues of several[/yellow]", str(loose))
    whole, mm = float(topology.charges.sum()), float(left.charges.sum())
    charges = (round(charge, 4) + 0.0 for charge in (whole, whole - mm, mm))  # + 0.0 makes -0.0 positive
    table.add_row("net charge / e", *(f"{charge:+.4f}" for charge in charges))
    return table


def _count_loose_atoms(topology: Topology) -> int:
    """Atoms that nothing holds: of a file that was cut off, most likely."""
    held = np.isin(np.arange(len(topology)), topology.bonded_pairs)
    residue_sizes = np.bincount(topology.residue_indices)
    return int(np.count_nonzero(~held & (residue_sizes[topology.residue_indices] > 1)))


def _parameters(dftb: DFTBConfig) -> str:
    from pidelta.qm.dftb.sets import builtin_set

    if dftb.parameters != "builtin":
        return str(dftb.parameters)
    description = builtin_set()[dftb.order].description
    return f"built-in {description.name} {description.version}"
