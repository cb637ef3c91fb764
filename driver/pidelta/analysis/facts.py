"""What the page of a report says of a run before its results."""

from __future__ import annotations

from pathlib import Path

from pidelta.analysis.composition import Composition
from pidelta.analysis.correlations import Cost
from pidelta.analysis.ipi_output import Properties
from pidelta.ipi.outputs import SystemOutputs
from pidelta.units import ATOMIC_TIME_IN_FEMTOSECOND, HARTREE_IN_KELVIN


def run_facts(
    path: Path,
    outputs: SystemOutputs,
    composition: Composition,
    cost: Cost | None,
    properties: Properties | None,
) -> list[tuple[str, str]]:
    """Names and values.

    Args:
        path: the i-PI input.
        outputs: of the system.
        composition: its atoms.
        cost: of the run; None where nobody measured it.
        properties: with the steps; None without.
    """
    regions = composition.regions
    facts = [("input", path.name), ("atoms", f"{len(composition)}")]
    facts += [(f"atoms of region {name}", f"{len(atoms)}") for name, atoms in regions.items()]
    facts.append(("beads", f"{outputs.n_beads}"))
    dynamics = ", ".join(filter(None, (outputs.ensemble, *outputs.thermostats)))
    facts.append(("dynamics", dynamics or "none"))
    if outputs.is_ramped:
        facts.append(("temperature", "of a ramp"))
    elif outputs.temperature is not None:
        facts.append(("temperature", f"{outputs.temperature * HARTREE_IN_KELVIN:.4g} K"))
    if outputs.time_step is not None:
        facts.append(("time step", f"{outputs.time_step * ATOMIC_TIME_IN_FEMTOSECOND:.4g} fs"))
    if properties is not None:
        steps = properties.columns["step"]
        facts.append(("steps", f"{steps[0]:.0f} to {steps[-1]:.0f}"))
    if cost is not None:
        facts.append(
            (
                "CPU time",
                f"{cost.cpu_seconds:.0f} s for {cost.steps} steps, i-PI and clients from their start",
            )
        )
    if not composition.is_configured:
        facts.append(("configuration", "none: no regions, no water; name one by --config"))
    facts.append(("left out", "the first twentieth of each series"))
    facts.append(("errors", "one standard error, by blocks (Flyvbjerg, Petersen 1989)"))
    return facts
