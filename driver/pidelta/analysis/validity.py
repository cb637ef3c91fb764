"""What would be wrong of a simulation, though its outputs are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pidelta.analysis.ipi_output import Properties
from pidelta.ipi.outputs import SystemOutputs

OF_BEADS, BONDS, DISTANCES = "temperatures of beads", "bond lengths", "radial distribution functions"
RADII, TARGETS = "radii of gyration", "expected temperatures"
MOMENTA = "expected temperatures of beads"
_ESTIMATORS, _COLUMNS = ("primitive", "virial", "centroid virial"), ("kinetic_td", "kinetic_cv")


def wrong_numbers(outputs: SystemOutputs) -> dict[str, str]:
    """Why numbers of a system are not given, the first reason of each.

    Returns:
        Reasons by the names of i-PI's properties, of the estimators from trajectories (``primitive``,
        ``virial``, ``centroid virial``), and of what this module names.
    """
    found: dict[str, str] = {}

    def leave_out(reason: str, *names: str) -> None:
        for name in names:
            found.setdefault(name, reason)

    if outputs.is_ramped:
        leave_out("a <t_ramp> changes the temperature", TARGETS, *_ESTIMATORS)
    if outputs.has_own_covariance:
        noise = "the noise of quantum thermostats and PIGLET, which have a <C> of their own"
        leave_out(f"{noise}, gives them other temperatures", MOMENTA)
        if outputs.n_beads == 1:
            leave_out(f"with {noise}, that of one bead is in its temperature", *_ESTIMATORS, *_COLUMNS)
        else:
            leave_out(f"with {noise}, springs have another energy than it takes", "primitive", "kinetic_td")
    if outputs.n_beads == 1:
        return found
    if outputs.ensemble in ("sc", "scnpt"):
        unlike = "beads of Suzuki-Chin do not count alike"
        leave_out(f"{unlike}: ask for kinetic_tdsc and kinetic_opsc", *_ESTIMATORS, *_COLUMNS)
        leave_out(f"{unlike}: ask for potential_opsc", "potential")
        leave_out(unlike, BONDS, DISTANCES, RADII)
    if outputs.exchanges:
        leave_out("of bosons only i-PI's kinetic_td takes the exchange in", *_ESTIMATORS, "kinetic_cv", RADII)
    if outputs.opens_paths:
        leave_out("they are of closed paths, and some are open", *_ESTIMATORS, *_COLUMNS, RADII)
    if outputs.frequencies == "eco":
        leave_out("the springs are others by <frequencies style='eco'>: ask for kinetic_td", "primitive")
    elif outputs.frequencies != "rpmd":
        style = f"<frequencies style='{outputs.frequencies}'>"
        leave_out(f"by {style} they move with other masses than i-PI's velocities are of", OF_BEADS)
    if outputs.held.centroids:
        leave_out("the centroids do not move", "virial")
    if outputs.has_bias:
        leave_out("i-PI's forces are those without the <bias>", "virial", "centroid virial", "kinetic_cv")
        leave_out("i-PI's forces are those without the <bias>", "kinetic_tdsc", "kinetic_opsc")
    return found


def without(properties: Properties, wrong: Mapping[str, str]) -> Properties:
    """The properties without columns that are wrong, whatever their arguments."""
    columns = {
        name: values for name, values in properties.columns.items() if name.partition("(")[0] not in wrong
    }
    return replace(properties, columns=columns)


def left_out(wrong: Mapping[str, str], *names: str) -> list[str]:
    """A line on each reason why some of these numbers are not given."""
    reasons = dict.fromkeys(wrong[name] for name in names if name in wrong)
    return [
        f"{', '.join(name for name in names if wrong.get(name) == reason)}: left out: {reason}"
        for reason in reasons
    ]
