"""Which file and key a setting came from that a lower room refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pidelta.config import Config
from pidelta.errors import ConfigError, SettingError

_OF_THE_REGION = ("charge", "multiplicity")


@contextmanager
def section(config: Config, name: str) -> Iterator[None]:
    """Name the file and the key of a setting of a section that a lower room refuses."""
    try:
        yield
    except SettingError as error:
        raise refused(config, f"{name}.{error.quantity}", error) from None


@contextmanager
def method_section(config: Config, name: str) -> Iterator[None]:
    """As `section`, for a method of the QM region, whose charge and multiplicity stand above its section."""
    try:
        yield
    except SettingError as error:
        above = "qm" if error.quantity in _OF_THE_REGION else f"qm.{name}"
        raise refused(config, f"{above}.{error.quantity}", error) from None


def refused(config: Config, key: str, error: SettingError) -> ConfigError:
    """The error with its key, and its file where the configuration was read from one."""
    file = f"{config.path}: " if config.path.name else ""
    return ConfigError(f"{file}{key}: {error.problem}")
