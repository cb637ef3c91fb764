"""Temperatures of elements and regions, and their distribution beside the canonical one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

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
from pidelta.analysis.validity import MOMENTA, OF_BEADS, TARGETS, left_out
from pidelta.ipi.outputs import Held, SystemOutputs
from pidelta.state import FloatArray, IntArray
from pidelta.units import HARTREE_IN_KELVIN

_LEAST_FREEDOM = 0.5
_SUSPECT = 0.01
"""A p-value, over the number of tests, below which a distribution is said to be another one."""


Targets = Callable[[IntArray], FloatArray | None]


@dataclass(frozen=True)
class Freedom:
    """How freely groups of atoms move.

    What is held fixed has no degree of freedom; then i-PI leaves the total momentum alone.

    A total momentum of zero takes 3 degrees of freedom, from each group the share of its mass: three of its
    normal velocities keep 1 - share of their k_B T. The distribution of 2 K is that of a sum of squares of
    nearly equal widths, and so nearly a Gamma distribution with the same mean and variance.

    Attributes:
        degrees: (G,) 2 <K> / k_B T.
        shape: (G,) twice the shape of the Gamma distribution: 2 mean^2 / variance.
    """

    degrees: FloatArray
    shape: FloatArray

    @classmethod
    def of(
        cls, composition: Composition, groups: Sequence[Group], n_beads: int, fixes_momentum: bool
    ) -> Freedom:
        """Of the momenta of all beads of groups of atoms."""
        matrix = group_matrix(groups, len(composition))
        share = matrix @ composition.masses / composition.masses.sum() * fixes_momentum
        full = matrix @ composition.free.sum(axis=1) * n_beads
        degrees, squares = full - 3.0 * share, full - 6.0 * share + 3.0 * share**2
        moves = degrees > _LEAST_FREEDOM
        shape = np.divide(degrees**2, squares, out=np.zeros_like(degrees), where=moves)
        return cls(np.where(moves, degrees, 0.0), shape)


@dataclass(frozen=True)
class KineticTemperatures:
    """k_B T in hartree of groups of atoms over time, by 2 K / degrees of freedom.

    Attributes:
        label: ``beads``, ``centroid``, or '' for the only bead.
        groups: the G groups.
        steps: (n,).
        values: (n, G); of beads, which are P times as hot, divided by P; nan for groups that cannot move.
        freedom: of the groups.
    """

    label: str
    groups: tuple[Group, ...]
    steps: IntArray
    values: FloatArray
    freedom: Freedom


def kinetic_temperatures(
    composition: Composition,
    velocities: BeadFrames,
    n_beads: int,
    *,
    held: Held,
    are_centroids: bool,
) -> list[KineticTemperatures]:
    """Temperatures from velocities: of all beads, and of centroids as far as these are known.

    Args:
        composition: the atoms.
        velocities: of the beads, or of the centroids.
        n_beads: P of the simulation.
        held: what does not move.
        are_centroids: whether the velocities are those of centroids.
    """
    groups = composition.groups
    matrix = group_matrix(groups, len(composition)) * composition.masses
    beads, centroids = [], []
    for snapshot in velocities.stream():
        values = snapshot.values * composition.free  # first velocities are drawn for fixed atoms, too
        beads.append(matrix @ np.einsum("bai,bai->a", values, values))
        if velocities.is_complete and n_beads > 1:
            centroid = values.mean(axis=0)
            centroids.append(matrix @ np.einsum("ai,ai->a", centroid, centroid))
    found = []
    if not are_centroids:
        freedom = _freedom(composition, groups, n_beads, held)
        part = velocities.n_beads / n_beads
        freedom = Freedom(freedom.degrees * part, freedom.shape * part)
        label = "beads" if n_beads > 1 else ""
        values = _divided(np.array(beads), freedom.degrees * n_beads)
        found.append(KineticTemperatures(label, groups, velocities.steps, values, freedom))
    if centroids:
        freedom = _freedom(composition, groups, 1, held)
        values = _divided(np.array(centroids), freedom.degrees)
        found.append(KineticTemperatures("centroid", groups, velocities.steps, values, freedom))
    return found


def _freedom(composition: Composition, groups: Sequence[Group], n_beads: int, held: Held) -> Freedom:
    """Of all beads, or of centroids, which are like one bead."""
    moving = n_beads - held.centroids
    return Freedom.of(composition, groups, moving, held.momentum and not held.centroids)


def _divided(values: FloatArray, degrees: FloatArray) -> FloatArray:
    return values / np.where(degrees > 0.0, degrees, np.nan)


def temperature_section(
    outputs: SystemOutputs,
    composition: Composition,
    properties: Properties | None,
    kinetic: Sequence[KineticTemperatures],
    targets: Targets,
    wrong: Mapping[str, str],
) -> Section:
    """The temperatures of all groups, by velocities and by i-PI's own properties.

    Where replica exchange changes the temperature of the ensemble, series are scaled to that of the input.

    Args:
        outputs: of the system.
        composition: the atoms.
        properties: of the main file.
        kinetic: from velocities of beads, of centroids, or both.
        targets: tells k_B T of the ensemble in hartree at some steps; None without one.
        wrong: what is not given, and why.
    """
    numbers, panels, remarks = [], [], left_out(wrong, TARGETS, MOMENTA, OF_BEADS)
    kinetic = [found for found in kinetic if not (found.label == "beads" and OF_BEADS in wrong)]
    target = outputs.temperature if outputs.keeps_temperature else None
    if properties is not None:
        expected = _expected(outputs, "")
        numbers += _from_properties(outputs, composition, properties, targets, expected)
    for found in kinetic:
        series, expected = found.values, _expected(outputs, found.label)
        if target is not None and (wanted := targets(found.steps)) is not None:
            series = series * (target / wanted)[:, None]
        for index, group in enumerate(found.groups):
            degrees, shape = found.freedom.degrees[index], found.freedom.shape[index]
            if degrees > 0.0:
                name, values = f"{group.name} {found.label}".strip(), settled(series[:, index])
                numbers.append(_number(name, values, degrees, shape, expected, outputs.is_canonical))
                if composition.is_telling(group):
                    panels += _panels(name, values, shape, expected)
        numbers += _differences(found, series, None if _is_driven(outputs, found.label) else 0.0)
    if not kinetic and OF_BEADS not in wrong:
        remarks.append(
            "temperatures of regions are not in the output: ask for "
            "<trajectory filename='vel' stride='10'> velocities </trajectory>"
        )
    if target is None and TARGETS not in wrong:
        remarks.append("no temperature to compare with: none is kept constant")
    elif target is not None and not outputs.is_canonical:
        remarks.append("distributions are not judged: no thermostat, or one with a covariance of its own")
    elif target is not None:
        remarks.append(
            "width: standard deviation over that of the canonical distribution; p: Kolmogorov-Smirnov test "
            "of rows two correlation times apart"
        )
        remarks += _suspects(numbers)
    if outputs.splitting == "baoab" and target is not None:
        remarks.append(
            "with splitting='baoab' momenta are too cold at the ends of steps, where i-PI writes them: by "
            "some 1 % for O-H bonds and 0.5 fs; positions are not"
        )
    pictures: tuple[Picture, ...] = ()
    if panels:
        pictures = (
            Picture("temperatures", "distributions of the temperature beside canonical ones", tuple(panels)),
        )
    return Section("Temperature", tuple(numbers), pictures, tuple(remarks))


def _suspects(numbers: Sequence[Number]) -> list[str]:
    """Those whose p-value is too small to be chance, given how many there are."""
    tested = [(number.name, p) for number in numbers if isinstance(p := number.details.get("p"), float)]
    return [
        f"{name}: another distribution than the canonical one (p = {p:.1g}), or a run too short to tell"
        for name, p in tested
        if p < _SUSPECT / len(tested)
    ]


def _is_driven(outputs: SystemOutputs, label: str) -> bool:
    """Whether noise gives momenta other temperatures than that of the ensemble."""
    return outputs.drives_centroids if label == "centroid" else outputs.has_own_covariance


def _expected(outputs: SystemOutputs, label: str) -> float | None:
    """k_B T that momenta should have; None where none is kept, or noise gives them another."""
    return None if _is_driven(outputs, label) or not outputs.keeps_temperature else outputs.temperature


def _number(
    name: str, values: FloatArray, degrees: float, shape: float, target: float | None, is_canonical: bool
) -> Number:
    """One row; the distribution is compared where the ensemble is canonical."""
    details: dict[str, float | str] = {"degrees of freedom": round(float(degrees), 1)}
    if target is None or len(values) < 2:
        return Number(name, mean_with_error(values).scaled(HARTREE_IN_KELVIN), "K", details=details)
    test = compare_with_canonical(values, shape, target)
    if is_canonical:
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


def _differences(found: KineticTemperatures, series: FloatArray, expected: float | None) -> list[Number]:
    """QM less MM, with the error of the difference itself."""
    moving = zip(found.groups, found.freedom.degrees, strict=True)
    index = {group.name: i for i, (group, degrees) in enumerate(moving) if degrees > 0.0}
    numbers = []
    for one, other in (("QM", "MM"), ("QM H", "MM H")):
        if one in index and other in index:
            difference = settled(series[:, index[one]] - series[:, index[other]])
            mean = mean_with_error(difference).scaled(HARTREE_IN_KELVIN)
            numbers.append(Number(f"{one} - {other} {found.label}".strip(), mean, "K", expected))
    return numbers


def _from_properties(
    outputs: SystemOutputs,
    composition: Composition,
    properties: Properties,
    targets: Targets,
    expected: float | None,
) -> list[Number]:
    """i-PI's temperatures of all atoms or of those of one name, without what it adds.

    For each degree of freedom that it takes for held, or for part of a fixed momentum, i-PI adds 1/2 k_B T
    of the ensemble to the kinetic energy and divides by all, so that the fluctuation is too small, and the
    mean right only where it takes all for held that are.
    """
    numbers = []
    target, scale = outputs.temperature if outputs.keeps_temperature else None, np.ones(1)
    if target is not None and "step" in properties:
        wanted = targets(properties.columns["step"].astype(np.int64))
        scale = scale if wanted is None else target / wanted
    names, counting = np.array(composition.names), replace(composition, fixed=outputs.counted.degrees)
    for column in properties.columns:
        kind = column.removeprefix("temperature").strip("()")
        if not column.startswith("temperature") or (kind and not (names == kind).any()):
            continue
        atoms = np.arange(len(names)) if not kind else np.flatnonzero(names == kind)
        if not len(atoms):
            continue
        values, label = settled(properties.atomic(column) * scale), f"i-PI's {column}"
        group, n_beads = [Group(kind, atoms)], outputs.n_beads
        whole = 3.0 * len(atoms) * n_beads
        freedom = _freedom(composition, group, n_beads, outputs.held)
        degrees = float(freedom.degrees[0])
        added = whole - float(_freedom(counting, group, n_beads, outputs.counted).degrees[0])
        if degrees > 0.0:
            values = (values * whole - added * (outputs.temperature or 0.0)) / degrees
            shape = float(freedom.shape[0])
            numbers.append(_number(label, values, degrees, shape, expected, outputs.is_canonical))
    return numbers


def _panels(name: str, values: FloatArray, shape: float, target: float | None) -> list[Panel]:
    """The histogram of one group with the canonical distribution; none of a few rows."""
    from scipy.stats import gamma

    if len(values) < 10:
        return []
    bins = int(np.clip(2.0 * len(values) ** (1.0 / 3.0), 8, 50))
    density, edges = np.histogram(values * HARTREE_IN_KELVIN, bins, density=True)
    curves = [Curve("sampled", 0.5 * (edges[1:] + edges[:-1]), density)]
    if target is not None:
        kelvin = target * HARTREE_IN_KELVIN
        canonical = gamma(shape / 2.0, scale=2.0 * kelvin / shape)
        low, high = canonical.ppf([0.001, 0.999])
        x = np.linspace(min(low, edges[0]), max(high, edges[-1]), 200)
        curves.append(Curve("canonical", x, canonical.pdf(x), is_reference=True))
    return [Panel(name, "temperature / K", "density / K⁻¹", tuple(curves))]
