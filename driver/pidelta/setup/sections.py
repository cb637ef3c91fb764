"""Which key of the configuration a setting came from that a lower room refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pidelta.errors import ConfigError, SettingError


@contextmanager
def section(name: str) -> Iterator[None]:
    """Say which key of the configuration a setting that a lower room refuses came from."""
    try:
        yield
    except SettingError as error:
        raise ConfigError(f"{name}.{error.quantity}: {error.problem}") from None


@contextmanager
def method_section(name: str) -> Iterator[None]:
    """As `section`, for a method of the QM region, whose charge and multiplicity stand above its section."""
    try:
        yield
    except SettingError as error:
        section = "qm" if error.quantity in ("charge", "multiplicity") else f"qm.{name}"
        raise ConfigError(f"{section}.{error.quantity}: {error.problem}") from None
