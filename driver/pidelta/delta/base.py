"""The contract of a correction to the low-level method, and what it remembers of its training."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ase.data import chemical_symbols
from ase.formula import Formula

from pidelta.data.embedding import same
from pidelta.errors import ModelError
from pidelta.state import FloatArray, IntArray, Region, RegionGradient

UNITS = "hartree, bohr, e"


@dataclass(frozen=True)
class Provenance:
    """What a correction was trained on; its use elsewhere is refused (`check_fits`).

    Attributes:
        low_level: identity of the low-level method (`QMEngine.identity`).
        reference: the reference method (`Label.method`).
        embedding: settings of the surroundings, such as ``scheme`` and ``cutoff``, lengths in bohr.
        compositions: the atomic numbers of each QM region of the training, each in ascending order.
        site_elements: atomic numbers of the sites that came near the QM atoms, ascending.
        charge, multiplicity: of the QM region.
        start: SHA-256 of the file of the earlier model whose weights the training began with, or empty.
    """

    low_level: str
    reference: str
    embedding: Mapping[str, str | float]
    compositions: tuple[tuple[int, ...], ...]
    site_elements: tuple[int, ...]
    charge: int = 0
    multiplicity: int = 1
    start: str = ""

    def check_composition(self, numbers: IntArray) -> None:
        """Whether a QM region of these atomic numbers (n,), in any order, was trained on.

        Raises:
            ModelError: it was not.
        """
        if tuple(sorted(numbers.tolist())) not in self.compositions:
            expected = " or ".join(formula(known) for known in self.compositions)
            raise ModelError(
                f"delta model: expected a QM region {expected}, found {formula(numbers.tolist())}"
            )

    def strangers(self, numbers: Iterable[int]) -> tuple[int, ...]:
        """Which of these atomic numbers of sites no frame of the training had near the QM atoms.

        They count by their charges. `Correction.evaluate` refuses a structure where one is near.
        """
        return tuple(sorted(set(numbers) - {0, *self.site_elements}))


@dataclass(frozen=True)
class CorrectionResult:
    """Energy corrections of B structures and their derivatives, in atomic units.

    Properties that corrections have in common, where they have them:

    - ``delta_energies`` (B, K): the corrections of the K members of a committee in hartree;
    - ``delta_standard_deviation`` (B,): their sample standard deviation in hartree, zero for K = 1, times a
      factor where the committee is calibrated;
    - ``delta_force_deviation`` (B, n): the same of the force on each QM atom in hartree/bohr, on demand;
    - ``delta_weight`` (B,): what a weighted baseline has multiplied the energy by;
    - ``delta_extrapolation`` (B,): how far the structure lies from those the model was trained on. Training
      frames are at 1 and below; above 1 the model extrapolates.

    Attributes:
        energy: (B,) in hartree.
        gradient: dE/d of the arrays of the region.
        properties: further results by name, each of shape (B, ...).
        atom_extrapolation: (B, n) what ``delta_extrapolation`` is the largest of; None where nothing is known
            of the training frames.
    """

    energy: FloatArray
    gradient: RegionGradient
    properties: Mapping[str, FloatArray] = field(default_factory=dict)
    atom_extrapolation: FloatArray | None = None


class Correction(Protocol):
    """A model of (reference - low level)."""

    @property
    def provenance(self) -> Provenance:
        """What it was trained on."""

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of all properties of its results."""

    @property
    def uncertainty_threshold(self) -> float:
        """Standard deviation of a committee in hartree above which a structure deserves a warning.

        It comes from the errors of the energy on frames held back from the training.
        """

    def evaluate(self, region: Region) -> CorrectionResult:
        """Energy correction and its derivatives for a batch.

        Raises:
            ModelError: the region is not one the correction was made for, or a site of an element that no
                frame of the training had near the QM atoms is near them.
            GeometryError: the energy is not finite, as when atoms coincide.
        """


@runtime_checkable
class JointCorrection(Correction, Protocol):
    """A correction that saves work when it is evaluated together with others of its class."""

    @property
    def shared_work(self) -> Hashable:
        """What is computed but once; members of one class that have it equal can be evaluated together."""

    def evaluate_with(self, others: Sequence[Any], region: Region) -> tuple[FloatArray, CorrectionResult]:
        """Energies (K, B) of this member and K - 1 others in hartree, and their mean with its derivatives.

        Errors are those of `evaluate`.
        """


def check_fits(
    provenance: Provenance,
    *,
    low_level: str,
    embedding: Mapping[str, object],
    numbers: IntArray,
    charge: int,
    multiplicity: int,
) -> None:
    """Refuse to use a correction in a set-up it was not trained for.

    Args:
        provenance: of the correction.
        low_level: identity of the low-level method in use.
        embedding: settings of the surroundings in use.
        numbers: (n,) atomic numbers of the QM region, in any order.
        charge, multiplicity: of the QM region.

    Raises:
        ModelError: something differs; the message names what.
    """
    provenance.check_composition(numbers)
    for name, expected, found in (
        ("a QM region of charge", provenance.charge, charge),
        ("a QM region of multiplicity", provenance.multiplicity, multiplicity),
        ("the low-level method it was trained on,", provenance.low_level, low_level),
        *_pairs(provenance.embedding, embedding),
    ):
        if not same(expected, found):
            raise ModelError(f"delta model: expected {name} {expected!r}, found {found!r}")


def check_alike(models: Sequence[Provenance]) -> None:
    """Refuse to mix models that correct different methods or embeddings, or QM regions of another charge.

    Raises:
        ModelError: something differs; the message names what.
    """
    for place, other in enumerate(models[1:], start=1):
        if differs := difference(models[0], other):
            name, expected, found = differs
            raise ModelError(
                f"committee: expected the {name} of model 0, {expected!r}, for model {place}, found {found!r}"
            )


def difference(one: Provenance, other: Provenance) -> tuple[str, object, object] | None:
    """The first of the methods, embeddings and charges in which two trainings differ: name and values."""
    for name, expected, found in (
        ("low-level method", one.low_level, other.low_level),
        ("reference", one.reference, other.reference),
        ("charge", one.charge, other.charge),
        ("multiplicity", one.multiplicity, other.multiplicity),
        *_pairs(one.embedding, other.embedding),
    ):
        if not same(expected, found):
            return name, expected, found
    return None


def _pairs(
    one: Mapping[str, object], other: Mapping[str, object]
) -> list[tuple[str, object | None, object | None]]:
    return [(f"embedding {key}", one.get(key), other.get(key)) for key in sorted(one.keys() | other.keys())]


def formula(numbers: Iterable[int]) -> str:
    """The composition of atomic numbers, in Hill's order."""
    return Formula.from_list([chemical_symbols[number] for number in numbers]).format("hill")


def symbols(numbers: Iterable[int]) -> str:
    """Symbols of elements, as a list to read."""
    return ", ".join(chemical_symbols[number] for number in numbers) or "none"
