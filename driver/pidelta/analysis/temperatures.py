"""Temperatures of elements and regions, and their distribution beside the canonical one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pidelta.analysis.composition import Composition, Group, group_matrix
from pidelta.analysis.ipi_output import Properties
from pidelta.analysis.run_files import BeadFrames
from pidelta.analysis.sections import Curve, Number, Panel, Picture, Section
from pidelta.analysis.statistics import (
    CanonicalTest,
    compare_with_canonical,
    mean_with_error,
    settled,
)
from pidelta.ipi.outputs import SystemOutputs
from pidelta.state import FloatArray, IntArray
from pidelta.units import HARTREE_IN_KELVIN

_SUSPECT = 0.01
"""A p-value below which a distribution is said to be another one."""


@dataclass(frozen=True)
class KineticTemperatures:
    """k_B T in hartree of groups of atoms over time, by 2 K / g.

    Attributes:
        groups: the G groups.
        steps: (n,).
        beads: (n, G) of all momenta of the ring polymers, which are P times as hot, divided by P; of the only
            bead in classical simulations.
        bead_degrees: (G,) g of these.
        centroid: (n, G) of the centroids; None for one bead or where beads are missing.
        centroid_degrees: (G,) g of these.
    """

    groups: tuple[Group, ...]
    steps: IntArray
    beads: FloatArray | None
    bead_degrees: FloatArray
    centroid: FloatArray | None
    centroid_degrees: FloatArray


def degrees_of_freedom(composition: Composition, groups: Sequence[Group], fixes_momentum: bool) -> FloatArray:
    """(G,) 2 <K> / k_B T of the groups, classical.

    A total momentum of zero takes 3 degrees of freedom, from each atom the share of its mass: the covariance
    of the velocities is k_B T (1/m_i delta_ij - 1/M).
    """
    matrix = group_matrix(groups, len(composition))
    degrees = 3.0 * matrix.sum(axis=1)
    if fixes_momentum:
        degrees -= 3.0 * (matrix @ composition.masses) / composition.masses.sum()
    return np.asarray(degrees)


def kinetic_temperatures(
    composition: Composition,
    velocities: BeadFrames,
    n_beads: int,
    *,
    fixes_momentum: bool,
    are_centroids: bool,
) -> KineticTemperatures:
    """Temperatures from velocities.

    Args:
        composition: the atoms.
        velocities: of the beads, or of the centroids.
        n_beads: P of the simulation.
        fixes_momentum: whether the total momentum is zero.
        are_centroids: whether the velocities are those of centroids.
    """
    matrix = group_matrix(composition.groups, len(composition)) * composition.masses
    once = degrees_of_freedom(composition, composition.groups, False)
    fixed = once - degrees_of_freedom(composition, composition.groups, fixes_momentum)
    written = velocities.n_beads
    bead_degrees = once * written - fixed * written / n_beads
    with_centroid = are_centroids or (velocities.is_complete and n_beads > 1)
    beads, centroids = [], []
    for snapshot in velocities.stream():
        if not are_centroids:
            beads.append(matrix @ np.einsum("bai,bai->a", snapshot.values, snapshot.values))
        if with_centroid:
            centroid = snapshot.values.mean(axis=0)
            centroids.append(matrix @ np.einsum("ai,ai->a", centroid, centroid))
    with np.errstate(invalid="ignore", divide="ignore"):  # one atom with fixed momentum has no freedom
        return KineticTemperatures(
            groups=composition.groups,
            steps=velocities.steps,
            beads=np.array(beads) / (bead_degrees * n_beads) if beads else None,
            bead_degrees=bead_degrees,
            centroid=np.array(centroids) / (once - fixed) if centroids else None,
            centroid_degrees=once - fixed,
        )


def temperature_section(
    outputs: SystemOutputs,
    composition: Composition,
    properties: Properties | None,
    kinetic: Sequence[KineticTemperatures],
    target: float | None,
) -> Section:
    """The temperatures of all groups, by velocities and by i-PI's own properties.

    Args:
        outputs: of the system.
        composition: the atoms.
        properties: of the main file.
        kinetic: from velocities of beads, of centroids, or both.
        target: k_B T of the ensemble in hartree; None without one.
    """
    numbers, panels, remarks = [], [], []
    if properties is not None:
        numbers += _from_properties(outputs, composition, properties, target)
    for found in kinetic:
        for label, series, degrees in (
            ("beads" if outputs.n_beads > 1 else "", found.beads, found.bead_degrees),
            ("centroid", found.centroid, found.centroid_degrees),
        ):
            if series is None:
                continue
            numbers += [
                _number(f"{group.name} {label}".strip(), settled(values), g, target, outputs)
                for group, values, g in zip(found.groups, series.T, degrees, strict=True)
                if g > 0.5
            ]
            numbers += _differences(found.groups, series, label)
            panels += _panels(found.groups, series, degrees, label, target)
    if not kinetic:
        remarks.append(
            "temperatures of regions are not in the output: ask for "
            "<trajectory filename='vel' stride='10'> velocities </trajectory>"
        )
    if target is None:
        remarks.append("no temperature to compare with: the ensemble has none")
    elif not outputs.is_canonical:
        remarks.append(
            "distributions are not judged: no thermostat, or one with a covariance of its own (<C>), as "
            "quantum thermostats and PIGLET have for all but the centroid"
        )
    else:
        remarks.append(
            "width: standard deviation over that of the canonical distribution; p: Kolmogorov-Smirnov test "
            "of rows two correlation times apart, below 0.01 in few cases by chance"
        )
        remarks += [
            f"{number.name}: another distribution than the canonical one (p = {number.details['p']:.1g})"
            for number in numbers
            if isinstance(number.details.get("p"), float) and number.details["p"] < _SUSPECT  # type: ignore[operator]
        ]
    pictures: tuple[Picture, ...] = ()
    if panels:
        pictures = (
            Picture("temperatures", "distributions of the temperature beside canonical ones", tuple(panels)),
        )
    return Section("Temperature", tuple(numbers), pictures, tuple(remarks))


def _number(
    name: str, values: FloatArray, degrees: float, target: float | None, outputs: SystemOutputs
) -> Number:
    """One row; the distribution is compared where the ensemble is canonical."""
    details: dict[str, float | str] = {"degrees of freedom": round(float(degrees), 1)}
    if target is None or len(values) < 2:
        return Number(name, mean_with_error(values).scaled(HARTREE_IN_KELVIN), "K", details=details)
    test = compare_with_canonical(values, degrees, target)
    if outputs.is_canonical and not outputs.has_fixed_atoms:
        details |= _details(test)
    return Number(name, test.temperature.scaled(HARTREE_IN_KELVIN), "K", target * HARTREE_IN_KELVIN, details)


def _details(test: CanonicalTest) -> dict[str, float | str]:
    details: dict[str, float | str] = {
        "width": test.width.shown(".3f"),
        "independent rows": round(test.correlation.n_effective, 1),
    }
    if not math.isnan(test.p_value):
        details["p"] = test.p_value
    return details


def _differences(groups: Sequence[Group], series: FloatArray, label: str) -> list[Number]:
    """QM less MM, with the error of the difference itself."""
    index = {group.name: i for i, group in enumerate(groups)}
    numbers = []
    for one, other in (("QM", "MM"), ("QM H", "MM H")):
        if one in index and other in index:
            difference = settled(series[:, index[one]] - series[:, index[other]])
            mean = mean_with_error(difference).scaled(HARTREE_IN_KELVIN)
            numbers.append(Number(f"{one} - {other} {label}".strip(), mean, "K", 0.0))
    return numbers


def _from_properties(
    outputs: SystemOutputs, composition: Composition, properties: Properties, target: float | None
) -> list[Number]:
    """i-PI's temperatures of all atoms or of those of one name, without what it adds for fixed momentum."""
    numbers = []
    names = np.array(composition.names)
    for column in properties.columns:
        kind = column.removeprefix("temperature").strip("()")
        if not column.startswith("temperature") or (kind and not (names == kind).any()):
            continue
        atoms = np.arange(len(names)) if not kind else np.flatnonzero(names == kind)
        if not len(atoms):
            continue
        values, label = settled(properties.atomic(column)), f"i-PI's {column}"
        group = [Group(kind, atoms)]
        whole = degrees_of_freedom(composition, group, False)[0]
        fixed = whole - degrees_of_freedom(composition, group, outputs.fixes_momentum)[0]
        degrees = whole * outputs.n_beads - fixed
        if target is not None and degrees > 0.5:
            values = (values * whole * outputs.n_beads - fixed * target) / degrees
            numbers.append(_number(label, values, degrees, target, outputs))
        else:
            numbers.append(Number(label, mean_with_error(values).scaled(HARTREE_IN_KELVIN), "K"))
    return numbers


def _panels(
    groups: Sequence[Group], series: FloatArray, degrees: FloatArray, label: str, target: float | None
) -> list[Panel]:
    """Histograms of regions and elements of regions, each with the Gamma distribution."""
    from scipy.stats import gamma

    panels = []
    for group, values, g in zip(groups, settled(series).T, degrees, strict=True):
        if g < 0.5 or len(values) < 10:
            continue
        bins = int(np.clip(2.0 * len(values) ** (1.0 / 3.0), 8, 50))
        density, edges = np.histogram(values * HARTREE_IN_KELVIN, bins, density=True)
        curves = [Curve("sampled", 0.5 * (edges[1:] + edges[:-1]), density)]
        if target is not None:
            kelvin = target * HARTREE_IN_KELVIN
            canonical = gamma(g / 2.0, scale=2.0 * kelvin / g)
            low, high = canonical.ppf([0.001, 0.999])
            x = np.linspace(min(low, edges[0]), max(high, edges[-1]), 200)
            curves.append(Curve("canonical", x, canonical.pdf(x), is_reference=True))
        title = f"{group.name} {label}".strip()
        panels.append(Panel(title, "temperature / K", "density / K⁻¹", tuple(curves)))
    return panels
