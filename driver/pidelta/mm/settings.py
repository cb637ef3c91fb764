"""How a force field is evaluated, whichever engine does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pidelta.errors import SettingError
from pidelta.mm.checks import cell_problem
from pidelta.mm.lennard_jones import LJModifier, tail_coefficient
from pidelta.mm.nonbonded import Truncation
from pidelta.mm.topology import Topology
from pidelta.state import FloatArray

CoulombMethod = Literal["pme", "ewald", "reaction-field", "cutoff"]
Part = Literal["bonded", "nonbonded"]
"""Of the terms of a force field. Listed 1-4 pairs are bonded: they are within molecules, and fast. What an
Ewald sum takes off excluded pairs is nonbonded: it cancels what the mesh has of them.
"""


@dataclass(frozen=True)
class ForceFieldSettings:
    """What the engines of a force field have in common.

    Attributes:
        cutoff: of Lennard-Jones and Coulomb in bohr; None for systems that are never periodic.
        electrostatics: ``pme``, ``ewald``, ``reaction-field``, or ``cutoff`` for a potential that is only
            shifted to zero at the cutoff (a reaction field of dielectric constant 1).
        ewald_tolerance: of ``pme`` and ``ewald``, as `LongRange` has it.
        reaction_field_dielectric: infinite (the force vanishes at the cutoff) or at least 1.
        switch_distance: in bohr, where the switch of Lennard-Jones starts; 0.9 cutoff if None.
        lj_modifier: how Lennard-Jones ends: ``switch``, ``potential-shift`` (to zero at the cutoff, the force
            jumps) or ``none`` (both jump).
        dispersion_correction: add the Lennard-Jones energy beyond the cutoff of a homogeneous system.
        threads: how many share the work; results do not depend on it.

    Raises:
        SettingError: a setting is out of range.
    """

    cutoff: float | None
    electrostatics: CoulombMethod = "reaction-field"
    ewald_tolerance: float = 1e-4
    reaction_field_dielectric: float = np.inf
    switch_distance: float | None = None
    lj_modifier: LJModifier = "switch"
    dispersion_correction: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        if self.electrostatics not in ("pme", "ewald", "reaction-field", "cutoff"):
            raise SettingError(
                "electrostatics",
                f"expected pme, ewald, reaction-field or cutoff, found {self.electrostatics!r}",
            )
        if not 1e-12 <= self.ewald_tolerance <= 0.05:
            raise SettingError("ewald_tolerance", f"expected 1e-12 to 0.05, found {self.ewald_tolerance}")
        if not self.dielectric >= 1.0:
            raise SettingError(
                "reaction_field_dielectric", f"expected at least 1, found {self.reaction_field_dielectric}"
            )
        switch, cutoff = self.switch_distance, self.cutoff
        if switch is not None and cutoff is not None and not 0.0 < switch < cutoff:
            raise SettingError(
                "switch_distance",
                f"expected a distance between 0 and the cutoff of {cutoff:.3f} bohr, found {switch:.3f} bohr",
            )

    @property
    def dielectric(self) -> float:
        """The dielectric constant of the continuum beyond the cutoff, where there is a reaction field."""
        return 1.0 if self.electrostatics == "cutoff" else self.reaction_field_dielectric

    @property
    def truncation(self) -> Truncation:
        """How pair interactions end in a periodic system, by a reaction field where there is no Ewald sum."""
        if self.cutoff is None:
            return Truncation()
        switch = 0.9 * self.cutoff if self.switch_distance is None else self.switch_distance
        end = Truncation.reaction_field(self.cutoff, switch, self.dielectric)
        return end.end_lj(self.lj_modifier)

    def tail(self, topology: Topology) -> float:
        """What the dispersion correction is times the volume, in hartree bohr^3; 0 without one."""
        if not self.dispersion_correction or self.cutoff is None:
            return 0.0
        end = self.truncation
        return tail_coefficient(
            topology.lj_types, topology.lj_c6, topology.lj_c12, end.cutoff, end.switch, end.shift6
        )

    def check_cell(self, cell: FloatArray) -> None:
        """See that the cutoff fits a cell (3, 3) of rows in bohr.

        Raises:
            SettingError: the rows are no cell, or the cutoff exceeds half of its smallest height.
        """
        problem = cell_problem(cell, self.cutoff)
        if problem:
            raise SettingError("cutoff", problem)
