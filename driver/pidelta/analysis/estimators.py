"""Estimators of the quantum kinetic energy: primitive, virial and centroid virial, beside each other.

Formulas as in i-PI (Herman, Bruskin, Berne, J. Chem. Phys. 76, 5150 (1982)); P beads, beta = 1 / k_B T:

    primitive           3 P n / (2 beta) - sum_j m P / (2 beta^2) |r_j - r_(j+1)|^2
    virial              3 / (2 beta) - 1/(2P) sum_j (r_j - R) . f_j, R the centre of mass of all atoms
                        (bound systems only, all atoms together)
    centroid virial     3 n / (2 beta) - 1/(2P) sum_j (r_j - r_c) . f_j
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ipi.utils.units import unit_to_internal

from pidelta.analysis.composition import Composition, Group, group_matrix
from pidelta.analysis.ipi_output import Properties
from pidelta.analysis.run_files import BeadFrames
from pidelta.analysis.sections import Number, Section
from pidelta.analysis.statistics import mean_with_error, settled
from pidelta.analysis.validity import left_out, without
from pidelta.state import FloatArray, IntArray
from pidelta.units import HARTREE_IN_EV

_MEV = 1000.0 * HARTREE_IN_EV
_NAMES = {
    "kinetic_td": "primitive",
    "kinetic_cv": "centroid virial",
    "kinetic_tdsc": "Suzuki-Chin, thermodynamic",
    "kinetic_opsc": "Suzuki-Chin, operator",
}
_KINDS = ("primitive", "virial", "centroid virial")


@dataclass(frozen=True)
class KineticEnergies:
    """One estimator of the kinetic energy of groups of atoms over time.

    Attributes:
        kind: ``primitive``, ``virial`` or ``centroid virial``.
        groups: the G groups.
        steps: (n,).
        energies: (n, G) in hartree, of all atoms of the group together.
    """

    kind: str
    groups: tuple[Group, ...]
    steps: IntArray
    energies: FloatArray


def primitive(positions: FloatArray, masses: FloatArray, temperature: float) -> FloatArray:
    """The primitive (thermodynamic) estimator of each atom, (N,) in hartree.

    Args:
        positions: (P, N, 3) of the beads in bohr.
        masses: (N,) in electron masses.
        temperature: k_B T in hartree.
    """
    n_beads = len(positions)
    stretch = positions - np.roll(positions, -1, axis=0)
    springs = 0.5 * n_beads * temperature**2 * masses * np.einsum("bai,bai->a", stretch, stretch)
    return np.asarray(1.5 * n_beads * temperature - springs)


def centroid_virial(positions: FloatArray, forces: FloatArray, temperature: float) -> FloatArray:
    """The centroid-virial estimator of each atom, (N,) in hartree; arguments as `primitive`.

    Args:
        positions: (P, N, 3).
        forces: (P, N, 3) in hartree/bohr.
        temperature: k_B T.
    """
    away = positions - positions.mean(axis=0)
    return np.asarray(1.5 * temperature - 0.5 * np.einsum("bai,bai->a", away, forces) / len(positions))


def virial(positions: FloatArray, forces: FloatArray, masses: FloatArray, temperature: float) -> FloatArray:
    """The virial estimator of each atom of a bound system, (N,) in hartree; arguments as above.

    Positions count from the centre of mass of the centroids; the share of the centre's own kinetic energy,
    3/2 k_B T, goes to atoms by mass.
    """
    weights = masses / masses.sum()
    away = positions - np.einsum("a,bai->i", weights, positions) / len(positions)
    return np.asarray(
        1.5 * temperature * weights - 0.5 * np.einsum("bai,bai->a", away, forces) / len(positions)
    )


def kinetic_energies(
    composition: Composition,
    positions: BeadFrames,
    forces: BeadFrames,
    temperature: float,
    *,
    is_bound: bool,
) -> list[KineticEnergies]:
    """All estimators that positions and forces of all beads give.

    Args:
        composition: the atoms.
        positions, forces: complete; those at steps that both have are used.
        temperature: k_B T in hartree.
        is_bound: whether this is a molecule or cluster in vacuum.
    """
    groups, masses = composition.groups, composition.masses
    matrix = group_matrix(groups, len(composition))
    steps = np.intersect1d(positions.steps, forces.steps)
    series: dict[str, list[FloatArray]] = {}
    for step in steps:
        r = positions.snapshot(int(np.searchsorted(positions.steps, step))).values
        f = forces.snapshot(int(np.searchsorted(forces.steps, step))).values
        found = {"primitive": primitive(r, masses, temperature)}
        found["centroid virial"] = centroid_virial(r, f, temperature)
        if is_bound:
            found["virial"] = virial(r, f, masses, temperature)
        for kind, energies in found.items():
            series.setdefault(kind, []).append(matrix @ energies)
    return [KineticEnergies(kind, groups, steps, np.array(rows)) for kind, rows in series.items()]


def written_centroid_virial(composition: Composition, frames: BeadFrames) -> KineticEnergies:
    """The trajectory ``kinetic_cv`` of i-PI, three components an atom, summed over groups."""
    matrix = group_matrix(composition.groups, len(composition))
    rows = [matrix @ snapshot.values[0].sum(axis=1) for snapshot in frames.stream()]
    return KineticEnergies("centroid virial", composition.groups, frames.steps, np.array(rows))


def estimator_section(
    composition: Composition,
    properties: Properties | None,
    found: Sequence[KineticEnergies],
    n_beads: int,
    temperature: float | None,
    wrong: Mapping[str, str],
) -> Section:
    """Kinetic energies per atom, and the differences of estimators with errors of their own.

    Args:
        composition: the atoms.
        properties: of the main file.
        found: from trajectories.
        n_beads: of the simulation.
        temperature: k_B T in hartree.
        wrong: what is not given, and why.
    """
    numbers = [] if properties is None else _from_properties(composition, without(properties, wrong))
    by_kind = {estimator.kind: estimator for estimator in found if estimator.kind not in wrong}
    for estimator in by_kind.values():
        for group, values in zip(estimator.groups, estimator.energies.T, strict=True):
            mean = mean_with_error(settled(values)).scaled(_MEV / len(group.atoms))
            numbers.append(Number(f"{group.name}, {estimator.kind}", mean, "meV/atom"))
    for kind in ("primitive", "virial"):
        numbers += _differences(by_kind, kind)
    remarks = []
    if temperature is not None:
        remarks.append(
            f"classical: {1.5 * temperature * _MEV:.2f} meV/atom at the temperature of the ensemble"
        )
    if len(composition.fixed):
        remarks.append("of atoms that are held fixed these are no kinetic energies: their momenta are zero")
    columns = () if properties is None else properties.columns
    written = {column.partition("(")[0] for column in columns}
    remarks += left_out(wrong, *_KINDS, *(name for name in _NAMES if name in written))
    kinds = {number.name.partition(", ")[2].partition(" of")[0] for number in numbers}
    if n_beads > 1 and "centroid virial" not in {*kinds, *wrong}:
        remarks.append(
            "centroid-virial kinetic energies are not in the output: ask for <trajectory filename='kin' "
            "stride='10'> kinetic_cv </trajectory>, which is of each atom"
        )
    if n_beads > 1 and "primitive" not in {*kinds, *wrong}:
        remarks.append(
            "primitive estimator: not in the output: ask for kinetic_td in <properties>, or for positions of "
            "all beads"
        )
    return Section("Kinetic energy", tuple(numbers), remarks=tuple(remarks))


def _from_properties(composition: Composition, properties: Properties) -> list[Number]:
    """i-PI's columns, each per atom of its kind; and the difference of primitive and centroid virial."""
    numbers, names = [], np.array(composition.names)
    for column in properties.columns:
        quantity, _, argument = column.rstrip(")").partition("(")
        count = int((names == argument).sum()) if argument else len(names)
        if quantity in _NAMES and count:
            factor = unit_to_internal("energy", properties.units[column] or "atomic_unit", 1.0)
            mean = mean_with_error(settled(properties.columns[column])).scaled(factor * _MEV / count)
            label = f"i-PI's {argument or 'all'}, {_NAMES[quantity]}"
            numbers.append(Number(label, mean, "meV/atom"))
    for column in properties.columns:
        other = column.replace("kinetic_td", "kinetic_cv")
        if column.startswith("kinetic_td") and other in properties:
            argument = column.partition("(")[2].rstrip(")")
            count = int((names == argument).sum()) if argument else len(names)
            if count:
                difference = settled(properties.atomic(column) - properties.atomic(other))
                mean = mean_with_error(difference).scaled(_MEV / count)
                label = f"i-PI's {argument or 'all'}, primitive - centroid virial"
                numbers.append(Number(label, mean, "meV/atom", 0.0))
    return numbers


def _differences(by_kind: dict[str, KineticEnergies], kind: str) -> list[Number]:
    if kind not in by_kind or "centroid virial" not in by_kind:
        return []
    one, other = by_kind[kind], by_kind["centroid virial"]
    steps, rows, other_rows = np.intersect1d(one.steps, other.steps, return_indices=True)
    numbers = []
    for index, group in enumerate(one.groups):
        if not len(steps):
            break
        difference = settled(one.energies[rows, index] - other.energies[other_rows, index])
        mean = mean_with_error(difference).scaled(_MEV / len(group.atoms))
        numbers.append(Number(f"{group.name}, {kind} - centroid virial", mean, "meV/atom", 0.0))
    return numbers
