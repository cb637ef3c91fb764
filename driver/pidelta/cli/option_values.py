"""Values of options: quantities with their unit, and words of a list."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from pidelta.errors import ConfigError
from pidelta.units import parse_quantity

Word = TypeVar("Word", bound=str)


def quantity(option: str, text: str, dimension: str, zero: bool = False) -> float:
    """The value of an option in atomic units.

    Raises:
        ConfigError: it has no unit, or is not above 0; `zero` allows that.
    """
    try:
        value = parse_quantity(text, dimension)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None
    if value < 0.0 or (value == 0.0 and not zero):
        raise ConfigError(f"{option}: expected a {dimension} above 0, found {text!r}")
    return value


def one_of(option: str, text: str, known: Collection[Word]) -> Word:
    """The value of an option that has to be one of a list.

    Raises:
        ConfigError: it is not.
    """
    for word in known:
        if text == word:
            return word
    raise ConfigError(f"{option}: expected {', '.join(known)}, found {text!r}")
