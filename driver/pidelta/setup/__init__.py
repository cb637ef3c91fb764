"""The only place that turns a configuration into objects."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from importlib.metadata import version
from typing import Literal, get_args

import numpy as np

from pidelta.checksums import checksum
from pidelta.config import Config
from pidelta.core.charge_fields import ChargeFields
from pidelta.core.names import NameDifference, swapped_names
from pidelta.core.selection import repeated_residue_numbers, select
from pidelta.delta.committee import Committee
from pidelta.errors import ConfigError, SettingError
from pidelta.ipi.observers import Alarm, Observer, UncertaintyMonitor
from pidelta.mm.flexibility import flexibility_warnings, refuse_collapsing_water
from pidelta.mm.settings import Part
from pidelta.mm.topology import Topology
from pidelta.qm.base import QMEngine, reported_properties
from pidelta.qm_config import QMConfig
from pidelta.qmmm.border import beyond_warnings, border_warnings
from pidelta.qmmm.coupling import Coupling
from pidelta.qmmm.energy import ClassicalEvaluator, QMMMEvaluator, has_whole_delta, is_embedded
from pidelta.qmmm.region import QMRegion
from pidelta.qmmm.surroundings import Surroundings
from pidelta.setup.files import Inputs, cluster_warnings, read_inputs
from pidelta.setup.geometry import geometry_warnings, refuse_wrong_unit
from pidelta.setup.methods import (
    embedding_scheme,
    make_classical,
    make_correction,
    make_coupling,
    make_engine,
    make_fields,
    stranger_warnings,
)
from pidelta.setup.region import make_region, remainder_warnings
from pidelta.setup.sections import section
from pidelta.state import PARTS, IntArray, System, common_terms, terms_beyond
from pidelta.workflow.uncertain import SpreadLimit, UncertainFrames
from pidelta.workflow.yardstick import FirstPositions, Yardstick


class Setup:
    """What a configuration describes; each part is made when it is first asked for, and once.

    Args:
        config: the configuration.

    Whatever is asked for raises SetupError where files, charges, cutoffs or models are missing, malformed or
    do not fit together.
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    @cached_property
    def _inputs(self) -> Inputs:
        inputs = read_inputs(self.config)
        refuse_wrong_unit(inputs)
        return inputs

    @property
    def system(self) -> System:
        """Atoms, positions and cell; elements and names come from the topology where there is one."""
        return self._inputs.system

    @property
    def topology(self) -> Topology | None:
        """The force field of the whole system, the QM region included, or None without a section mm."""
        return self._inputs.topology

    @property
    def name_differences(self) -> tuple[NameDifference, ...]:
        """Names in the structure file that are others in the topology."""
        return self._inputs.name_differences

    @property
    def has_unused_cell(self) -> bool:
        """Whether the structure has a cell that does not count, as there is no section mm."""
        return self._inputs.unused_cell is not None

    @cached_property
    def origin(self) -> dict[str, str]:
        """What frames cut from this set-up come from: the files by name and checksum, and the program."""
        topology = None if self.config.mm is None else self.config.mm.topology
        files = {"structure": self.config.structure, "topology": topology}
        digests = {
            name: f"{path.name} sha256 {checksum(path)[:16]}"
            for name, path in files.items()
            if path is not None
        }
        return {**digests, "pidelta": version("pidelta")}

    @cached_property
    def qm_indices(self) -> IntArray:
        """(n,) the QM atoms, sorted; none without a section qm."""
        if self.config.qm is None:
            return np.zeros(0, dtype=np.int64)
        bonds, charges = None, None
        if self.topology is not None:
            bonds, charges = self.topology.bonded_pairs, self.topology.charges[: len(self.system)]
        with section(self.config, "qm"):
            return select(self.config.qm.atoms, self.system, bonds, charges)

    @cached_property
    def yardstick(self) -> Yardstick:
        """The bonds of the structure, which positions from elsewhere are measured by."""
        bonds = None if self.topology is None else self.topology.bonded_pairs
        return Yardstick.of(self.config.structure, self.system, bonds, self.qm_indices)

    @cached_property
    def qm_region(self) -> QMRegion:
        """The QM region and the rule for its surroundings.

        Raises:
            ConfigError: the configuration has no section qm.
        """
        return make_region(self._inputs, self._qm, self.qm_indices)

    @property
    def surroundings(self) -> Surroundings:
        """The rule for the point charges around the QM region."""
        return self.qm_region.surroundings

    @property
    def embedding_scheme(self) -> Literal["cutoff", "pme"]:
        """The potential that the low-level method feels: as given, or as the force field suggests."""
        return embedding_scheme(self.config, self.system.cell)

    @cached_property
    def coupling(self) -> Coupling:
        """The potential that the low-level method feels."""
        return make_coupling(self.config, self.qm_region, self._fields)

    @cached_property
    def _fields(self) -> ChargeFields | None:
        """What coupling and force field have in common."""
        return make_fields(self.config, self.qm_region, self.system.cell)

    def warnings(self, terms: Collection[str] | None = None) -> list[str]:
        """What a user should know before this set-up runs, a line each.

        Args:
            terms: those of the energy that are asked for; None for all.
        """
        found = [*cluster_warnings(self._inputs), *geometry_warnings(self._inputs, self.qm_indices)]
        if self.topology is not None:
            found += flexibility_warnings(self._force_field)
        if swapped := swapped_names(self.name_differences):
            names = ", ".join(f"{each.found} for {each.expected}" for each in swapped[:3])
            found.append(
                f"{self.config.structure}: names of the topology at other atoms ({names}): "
                "are the atoms in another order?"
            )
        if self.config.qm is None:
            return found
        region, system = self.qm_region, self.system
        found += repeated_residue_numbers(self.qm_indices, system)
        if region.remainder:
            found.append(
                f"the force-field charges of the QM atoms sum to {region.charge + region.remainder:+.4f} e, "
                f"the QM region has {region.charge:+d} e, and the other atoms keep theirs: "
                f"{region.remainder:+.4f} e are dropped"
            )
        found += remainder_warnings(self._inputs, region)
        if region.force_field is not None and self.embedding_scheme == "cutoff":
            cut = region.cut(system.positions[None], None if system.cell is None else system.cell[None])
            found += border_warnings(
                region.surroundings, cut.positions[0], region.charge, region.force_field.label
            )
            if system.cell is None:
                found += beyond_warnings(region.surroundings, cut)
        if self.config.delta is not None and (terms is None or common_terms(["delta"], terms)):
            found += stranger_warnings(self.correction, region)
        return found

    @cached_property
    def engine(self) -> QMEngine:
        """The low-level QM method.

        Raises:
            ConfigError: the configuration has no section qm.
        """
        return make_engine(self.config, self._qm, self.qm_region)

    @cached_property
    def correction(self) -> Committee:
        """The delta model, checked against the QM region and its method.

        Raises:
            ConfigError: the configuration has no section delta, or one that does not fit its models.
            ModelError: a model does not fit the region or its method.
        """
        if self.config.delta is None:
            raise ConfigError(f"{self.config.path}: missing key delta")
        with section(self.config, "delta"):
            return make_correction(self.config.delta, self.qm_region, self.engine.identity)

    def _member(self, member: int) -> Committee:
        """One of the delta models alone.

        Raises:
            SettingError: there is no such one, or a weighted baseline needs all of them.
        """
        if self.config.delta is not None and self.config.delta.baseline_error is not None:
            raise SettingError("member", f"expected none with delta.baseline_error, found {member}")
        count = len(self.correction.members)
        if not 0 <= member < count:
            found = f"expected 0 to {count - 1}, as there are {count} models, found {member}"
            raise SettingError("member", found)
        return Committee([self.correction.members[member]], self.correction.offset)

    @property
    def spread_threshold(self) -> float:
        """Standard deviation of the committee, in hartree, above which users are warned.

        Raises:
            ConfigError: the configuration has no section delta.
        """
        delta = self.config.delta
        if delta is not None and delta.warn_above is not None:
            return delta.warn_above
        return self.correction.uncertainty_threshold

    @cached_property
    def _force_field(self) -> Topology:
        """The terms of all that the QM method does not describe."""
        left = self.topology if self.config.qm is None else self.qm_region.force_field
        assert left is not None
        refuse_collapsing_water(left)
        return left

    @cached_property
    def classical(self) -> ClassicalEvaluator:
        """The force field of all that the QM method does not describe, by the engine of the configuration.

        Raises:
            ConfigError: the configuration has no section mm.
        """
        return self._make_classical(None)

    def _make_classical(self, part: Part | None) -> ClassicalEvaluator:
        if self.config.mm is None or self.topology is None:
            raise ConfigError(f"{self.config.path}: missing key mm")
        with section(self.config, "mm"):
            fields = None if self.config.qm is None else self._fields
            return make_classical(self.config.mm, self._force_field, self.system.cell, fields, part)

    def _classical_terms(self, chosen: Collection[str]) -> dict[str, ClassicalEvaluator]:
        """The force field, or the chosen parts of it, by the names of their terms."""
        if "mm" in chosen:
            return {"mm": self.classical}
        parts: dict[str, Part] = dict(zip(PARTS["mm"], get_args(Part), strict=True))
        return {name: self._make_classical(part) for name, part in parts.items() if name in chosen}

    def evaluator(self, terms: frozenset[str] | None = None, member: int | None = None) -> QMMMEvaluator:
        """The sum of terms: all that the configuration has, or some of `TERMS` and of their `PARTS`.

        Args:
            terms: None for all.
            member: the place of the one delta model to use; None for the mean of all.

        Raises:
            ConfigError: the configuration has no section for one of the terms.
            SettingError: there is no such member.
        """
        config = self.config
        if config.qm is not None and config.qm.engine == "none" and config.delta is None:
            raise ConfigError(f"{config.path}: delta: expected models with qm.engine none, found none")
        chosen = _choose_terms(config, terms)
        periodic = self.system.cell is not None
        classical = self._classical_terms(chosen)
        if config.qm is None:
            assert self.topology is not None
            return QMMMEvaluator(self.system.numbers, periodic, self.topology.particles, classical=classical)
        low = tuple(common_terms(["low"], chosen))
        of_delta = tuple(common_terms(["delta"], chosen))
        delta = None
        if of_delta:
            delta = self.correction if member is None else self._member(member)
        reported = self._committee_properties(chosen) if member is None else ()
        places = range(len(self.correction.members)) if reported else ()
        return QMMMEvaluator(
            self.system.numbers,
            periodic,
            self.qm_region.particles,
            partition=self.qm_region.partition,
            surroundings=self.surroundings,
            coupling=self.coupling if is_embedded(chosen) else None,
            engine=self.engine if low else None,
            delta=delta,
            members=tuple(self._member(place) for place in places),
            classical=classical,
            low_terms=low or ("low",),
            delta_terms=of_delta or ("delta",),
            properties=self._properties(chosen),
            committee_properties=reported,
        )

    def _properties(self, terms: Collection[str]) -> tuple[str, ...]:
        """Names of what an evaluator of these terms reports of the engine."""
        if not is_embedded(terms):
            return ()
        with section(self.config, "qm"):
            return reported_properties(self.engine, self._qm.properties)

    def _committee_properties(self, terms: Collection[str]) -> tuple[str, ...]:
        """Names of what an evaluator of these terms reports of each member of the committee."""
        delta = self.config.delta
        return delta.committee_properties if delta is not None and "delta" in terms else ()

    def observers(self, evaluator: QMMMEvaluator) -> tuple[list[Observer], dict[str, Alarm]]:
        """Who watches the requests of i-PI to this evaluator, and what they will have seen, by property."""
        first = FirstPositions(self.yardstick)
        if not evaluator.knows_spread:
            return [first], {}
        monitor = UncertaintyMonitor(self.spread_threshold)
        observers: list[Observer] = [first, monitor]
        delta = self.config.delta
        assert delta is not None
        if delta.save_uncertain is not None:
            observers.append(
                UncertainFrames(
                    delta.save_uncertain, self.qm_region, self.system, self.spread_threshold, self.origin
                )
            )
        if delta.stop_above is not None:
            observers.append(SpreadLimit(delta.stop_above))
        return observers, monitor.alarms

    def extras(self, terms: frozenset[str]) -> frozenset[str]:
        """Names of the extras that i-PI gets from a client that serves these terms."""
        names = {"terms", *self._properties(terms)}
        if is_embedded(terms):
            names.add("embedding")
            if self.engine.embedding == "electrostatic" or self.qm_region.force_field_charges.any():
                names |= {"charges", "dipole"}
        if has_whole_delta(terms):
            names |= {*self.correction.properties, *self._committee_properties(terms)}
        return frozenset(names)

    @property
    def _qm(self) -> QMConfig:
        if self.config.qm is None:
            raise ConfigError(f"{self.config.path}: missing key qm")
        return self.config.qm


def _choose_terms(config: Config, terms: frozenset[str] | None) -> frozenset[str]:
    if terms is None:
        return frozenset(config.terms)
    missing = terms_beyond(terms, config.terms)
    if missing or not terms:
        found = ", ".join(missing) or "none"
        known = ", ".join(config.terms)
        raise ConfigError(f"{config.path}: expected terms among {known}, found {found}")
    return terms
