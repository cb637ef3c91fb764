"""What a response model is made of."""

from __future__ import annotations

from dataclasses import dataclass

from pidelta.delta.descriptors import DescriptorSettings
from pidelta.delta.response.multipoles import MOMENTS
from pidelta.errors import ModelError

NEAR_POWERS = (5, 64)
"""The least one, with which forces have continuous derivatives, and a largest that leaves only collisions."""


@dataclass(frozen=True, kw_only=True)
class ResponseSettings(DescriptorSettings):
    """Descriptors and widths of the networks of a response model; all lengths in bohr.

    Attributes:
        pair_radial_count: number of Gaussians of the distance that the coefficients of pairs depend on.
        energy_width: of the networks of the energy without the environment; 0: they share the first layer of
            the coefficients, and so see the field.
        response_width: of the first layer of the coefficients of the environment.
        pair_width, short_width: of the networks of pairs and of the short-range term; 0 for `short_width`
            leaves out that term.
        field_coupling: whether coefficients see the field, see `networks.py`.
        near_powers: of the functions of the distance by which charges within `short_cutoff` count once more,
            ascending, see `near_field.py`.

    Raises:
        ModelError: the powers are not ascending, or one is out of the range of `NEAR_POWERS`.
    """

    pair_radial_count: int = 12
    energy_width: int = 64
    response_width: int = 128
    pair_width: int = 48
    short_width: int = 24
    field_coupling: bool = True
    near_powers: tuple[int, ...] = (5, 18)

    def __post_init__(self) -> None:
        check_near_powers(self.near_powers)

    @property
    def feature_count(self) -> int:
        """Number of features of an atom: of the structure, the moments, near moments, short-range ones."""
        return int(self.near_moments.stop) + self.short_features

    @property
    def far_features(self) -> int:
        """Number of moments of all charges."""
        return MOMENTS

    @property
    def moments(self) -> slice:
        """Where the moments of all charges are among the features."""
        return slice(self.structure_count, self.structure_count + MOMENTS)

    @property
    def near_moments(self) -> slice:
        """Where the moments of near charges are, for each power."""
        first = int(self.moments.stop)
        return slice(first, first + MOMENTS * len(self.near_powers))

    @property
    def coverage_blocks(self) -> tuple[slice, ...]:
        """Kinds of the features by which the reach of the training is judged, see `coverage_features`."""
        first = self.structure_count
        last = first + 3 * (1 + len(self.near_powers))
        moments = tuple(slice(place, place + 1) for place in range(first, last))
        return *self.structure_blocks, *moments, slice(last, last + self.short_features)


def check_near_powers(powers: tuple[int, ...]) -> None:
    """Raise ModelError where they are not ascending whole numbers in the range of `NEAR_POWERS`."""
    least, most = NEAR_POWERS
    whole = all(type(power) is int and least <= power <= most for power in powers)
    if not whole or list(powers) != sorted(set(powers)):
        raise ModelError(
            f"near_powers: expected ascending whole numbers from {least} to {most}, found {powers!r}"
        )
