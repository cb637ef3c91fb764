"""How far ring polymers spread: radii of gyration of elements and regions."""

from __future__ import annotations

import numpy as np

from pidelta.analysis.composition import Composition, group_matrix
from pidelta.analysis.run_files import BeadsSnapshot
from pidelta.analysis.sections import Number, Section
from pidelta.analysis.statistics import Mean, mean_with_error, settled
from pidelta.state import FloatArray
from pidelta.units import BOHR_IN_ANGSTROM


class Gyration:
    """Collects mean squares of the distance of beads from their centroid, snapshot by snapshot.

    Args:
        composition: the atoms.
    """

    def __init__(self, composition: Composition) -> None:
        self._groups = composition.groups
        matrix = group_matrix(self._groups, len(composition))
        self._matrix = matrix / matrix.sum(axis=1, keepdims=True)
        self._rows: list[FloatArray] = []

    def add(self, snapshot: BeadsSnapshot) -> None:
        """Take one snapshot of all beads."""
        away = snapshot.values - snapshot.values.mean(axis=0)
        self._rows.append(self._matrix @ np.einsum("bai,bai->a", away, away) / len(away))

    def section(self) -> Section:
        """Roots of the mean squares, over atoms and time, in angstrom."""
        numbers = []
        for group, values in zip(self._groups, np.array(self._rows).T, strict=True):
            square = mean_with_error(settled(values))
            radius = np.sqrt(square.value)
            mean = Mean(float(radius), float(0.5 * square.error / radius)).scaled(BOHR_IN_ANGSTROM)
            numbers.append(Number(group.name, mean, "Å", details={"atoms": len(group.atoms)}))
        return Section(
            "Radius of gyration", tuple(numbers), remarks=("roots of mean squares over atoms and time",)
        )
