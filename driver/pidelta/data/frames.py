"""What a model learns from: QM geometries in the point charges of their environment, and their labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pidelta.errors import DataError
from pidelta.state import FloatArray, IntArray, Region
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM

LabelKind = Literal["reference", "low"]

_SAME = 2e-5  # bohr and e: compact stores and text files round
_SAME_LABEL = 1e-7  # atomic units
_FAR = 3.0 * ANGSTROM  # from any other atom
_BONDED = (1, 5, 6, 7, 8, 14, 15, 16)


@dataclass(frozen=True)
class Frame:
    """One row of a `Region` (its charges already scaled) and where it comes from, in atomic units.

    Attributes:
        numbers: (n,) atomic numbers of the QM atoms.
        positions: (n, 3) in bohr, the QM region whole.
        site_positions: (m, 3) in bohr.
        site_charges: (m,) in e.
        site_numbers: (m,) atomic numbers of the MM atoms.
        charge: total charge of the QM region in e.
        multiplicity: 2S + 1.
        source: where the frame comes from, such as a trajectory, its step and bead.

    Raises:
        DataError: arrays do not fit each other, or a number is not finite.
    """

    numbers: IntArray
    positions: FloatArray
    site_positions: FloatArray
    site_charges: FloatArray
    site_numbers: IntArray
    charge: int = 0
    multiplicity: int = 1
    source: str = ""

    @property
    def region(self) -> Region:
        """The frame as a batch of one."""
        return Region(
            self.numbers,
            self.positions[None],
            self.site_positions[None],
            self.site_charges[None],
            self.site_numbers[None],
        )

    def __post_init__(self) -> None:
        where = f"frame {self.source}".rstrip()
        n, m = len(self.numbers), len(self.site_charges)
        for name, array, shape in (
            ("numbers", self.numbers, (n,)),
            ("positions", self.positions, (n, 3)),
            ("site_positions", self.site_positions, (m, 3)),
            ("site_charges", self.site_charges, (m,)),
            ("site_numbers", self.site_numbers, (m,)),
        ):
            _check_array(where, name, array, shape)
        if n and self.numbers.min() < 1:
            raise DataError(
                f"{where}: expected atomic numbers of QM atoms from 1 on, found {self.numbers.min()}"
            )


@dataclass(frozen=True)
class Label:
    """Energy and gradients of a frame by one method, in atomic units.

    The energy holds the QM region and its interaction with the point charges, not the charges among
    themselves. Gradients are dE/dR at fixed (scaled) charges.

    Attributes:
        method: what was computed, as precise as a methods section. Labels with the same text can be compared.
        energy: in hartree.
        gradient: (n, 3) on QM atoms in hartree/bohr.
        site_gradient: (m, 3) on the point charges in hartree/bohr.
        charges: (n,) net charges in e.
        program: what computed it, with its version, or empty where nobody said. It is no part of the method.
        properties: what else is known, by name, such as ``dipole`` (3,) in e bohr about the origin.

    Raises:
        DataError: arrays do not fit each other, or a number is not finite.
    """

    method: str
    energy: float
    gradient: FloatArray
    site_gradient: FloatArray
    charges: FloatArray
    program: str = ""
    properties: Mapping[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"label by {self.method}"
        n, m = len(self.gradient), len(self.site_gradient)
        for name, values, shape in (
            ("energy", self.energy, ()),
            ("gradient", self.gradient, (n, 3)),
            ("site_gradient", self.site_gradient, (m, 3)),
            ("charges", self.charges, (n,)),
        ):
            _check_array(where, name, values, shape)
        for name, values in self.properties.items():
            _check_array(where, name, values, np.shape(values))

    def __str__(self) -> str:
        return f"{self.program}: {self.method}" if self.program else self.method


@dataclass(frozen=True)
class LabelledFrame:
    """A frame with its labels by the reference and the low-level method."""

    frame: Frame
    reference: Label
    low: Label

    def __post_init__(self) -> None:
        for label in self.labels.values():
            check_fits(label, len(self.frame.numbers), len(self.frame.site_numbers))

    @property
    def labels(self) -> dict[LabelKind, Label]:
        """Both by their kind."""
        return {"reference": self.reference, "low": self.low}


def check_fits(label: Label, atoms: int, sites: int) -> None:
    """Compare a label with the numbers of QM atoms and point charges of its frame.

    Raises:
        DataError: they differ.
    """
    for name, array, count in (
        ("gradient", label.gradient, atoms),
        ("site_gradient", label.site_gradient, sites),
    ):
        _check_array(f"label by {label.method}", name, array, (count, 3))


def _check_array(
    where: str, name: str, values: FloatArray | IntArray | float, shape: tuple[int, ...]
) -> None:
    if np.shape(values) != shape:
        raise DataError(f"{where}: expected {name} of shape {shape}, found {np.shape(values)}")
    if not np.isfinite(values).all():
        raise DataError(f"{where}: expected finite numbers, found others in {name}")


def same_surroundings(one: Frame, other: Frame) -> bool:
    """Whether frames are in the same point charges, charge and multiplicity, as text files keep them."""
    return (
        (one.charge, one.multiplicity) == (other.charge, other.multiplicity)
        and one.site_charges.shape == other.site_charges.shape
        and close(one.site_positions, other.site_positions)
        and close(one.site_charges, other.site_charges)
    )


def same_label(one: Label, other: Label) -> bool:
    """Whether labels by one method are the same, as text files and compact stores keep them.

    Properties of the other one that the first lacks do not count.
    """
    missing = np.array(np.nan)
    values = [(value, other.properties.get(name, missing)) for name, value in one.properties.items()]
    values += [
        (np.asarray(getattr(one, name)), np.asarray(getattr(other, name)))
        for name in ("energy", "gradient", "site_gradient", "charges")
    ]
    return all(a.shape == b.shape and np.allclose(a, b, rtol=0.0, atol=_SAME_LABEL) for a, b in values)


def check_whole(frame: Frame) -> None:
    """See that no QM atom is far from all others, as where a molecule was wrapped into its cell.

    Ions of one atom may be alone, so only elements are judged that are bonded in molecules.

    Raises:
        DataError: one is.
    """
    distances = np.linalg.norm(frame.positions[:, None] - frame.positions, axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.min(axis=1, initial=np.inf)
    alone = np.isin(frame.numbers, _BONDED) & (nearest > _FAR) & (len(frame.numbers) > 1)
    for index in np.flatnonzero(alone):
        raise DataError(
            f"frame {frame.source}: expected a QM region that is whole, found its atom {index} "
            f"{nearest[index] * BOHR_IN_ANGSTROM:.1f} angstrom from all others, as if wrapped into a cell"
        )


def close(one: FloatArray, other: FloatArray) -> bool:
    """Whether lengths or charges of one shape are the same, as text files keep them."""
    return bool(np.abs(one - other).max(initial=0.0) <= _SAME)


@contextmanager
def named(where: str) -> Iterator[None]:
    """Say in which file and place a frame or label is wrong."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
