"""The options of `pidelta check --nve`: which runs they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pidelta.cli.configuration_digest import configuration_digest
from pidelta.cli.evaluate import chosen_terms
from pidelta.cli.option_values import quantity
from pidelta.config import Config
from pidelta.errors import ConfigError
from pidelta.state import common_terms, smallest_parts, terms_beyond
from pidelta.units import ATOMIC_TIME_IN_FEMTOSECOND, HARTREE_IN_KELVIN

if TYPE_CHECKING:
    from pidelta.workflow.conservation import Run

_TIME_STEPS, _TEMPERATURE, _EQUILIBRATE = ("0.25fs", "0.5fs"), "300K", "1ps"
_FEWEST_STEPS = 10
_BINDING = {"low.vacuum": "QM", "mm.bonded": "MM"}
"""Parts of terms and the atoms that nothing else holds together."""


@dataclass(frozen=True)
class NVEOptions:
    """The options of the report as they were given; None or nothing where they were not."""

    nve: str | None
    time_step: Sequence[str] | None
    terms: Sequence[str] | None
    temperature: str | None
    equilibrate: str | None
    output: Path | None
    seed: int


@dataclass(frozen=True)
class Report:
    """What is to be run.

    Attributes:
        folder: where everything goes.
        options: what must not change in a folder, as texts.
        record: what the configuration says, and what its files hold, for clients to compare with.
        runs: in their order.
        notes: what the user should know of them.
    """

    folder: Path
    options: dict[str, str | int]
    record: dict[str, object]
    runs: list[Run]
    notes: list[str]


def plan_report(given: NVEOptions, config: Config) -> Report | None:
    """Read the options; None where no report is asked for.

    Raises:
        ConfigError: one of them is wrong; the message names it.
        SetupError: the folder is that of a report with other options.
    """
    if given.nve is None:
        for name in ("time_step", "terms", "temperature", "equilibrate", "output"):
            if getattr(given, name):
                raise ConfigError(f"--{name.replace('_', '-')}: expected --nve beside it, found none")
        return None
    from pidelta.run_record import recorded_values
    from pidelta.workflow.conservation import Conditions, check_folder, plan_runs

    duration = quantity("--nve", given.nve, "time")
    equilibration = quantity("--equilibrate", given.equilibrate or _EQUILIBRATE, "time", zero=True)
    temperature = quantity("--temperature", given.temperature or _TEMPERATURE, "temperature")
    combinations = list(dict.fromkeys(_terms(text, config) for text in given.terms or ())) or [config.terms]
    options: dict[str, str | int] = {
        "configuration": configuration_digest(config),
        "--nve": _shown_time(duration),
        "--equilibrate": _shown_time(equilibration),
        "--temperature": f"{temperature * HARTREE_IN_KELVIN:.10g} K",
        "--seed": given.seed,
    }
    folder = given.output or config.path.with_name(f"{config.path.stem}-nve")
    check_folder(folder, options)
    conditions = Conditions(duration, equilibration, temperature, given.seed)
    time_steps = _time_steps(given.time_step or _TIME_STEPS, duration)
    runs = plan_runs(folder, conditions, combinations, time_steps)
    return Report(folder, options, recorded_values(config), runs, _notes(combinations, config))


def _time_steps(texts: Sequence[str], duration: float) -> list[float]:
    time_steps = [quantity("--time-step", text, "time") for text in texts]
    longest = max(time_steps)
    if duration < _FEWEST_STEPS * longest:
        raise ConfigError(
            f"--nve: expected at least {_FEWEST_STEPS} time steps of {_shown_time(longest)}, "
            f"found {_shown_time(duration)}"
        )
    return list(dict.fromkeys(time_steps))


def _notes(combinations: Sequence[Sequence[str]], config: Config) -> list[str]:
    return [
        f"in runs of {'+'.join(terms)} nothing binds the {atoms} atoms"
        for terms in combinations
        for part, atoms in _BINDING.items()
        if part in smallest_parts(config.terms) and part not in smallest_parts(terms)
    ]


def _terms(text: str, config: Config) -> tuple[str, ...]:
    chosen = chosen_terms(text) or frozenset()
    if unknown := terms_beyond(chosen, config.terms):
        raise ConfigError(f"--terms: expected terms among {', '.join(config.terms)}, found {unknown[0]}")
    return tuple(common_terms(config.terms, chosen))


def _shown_time(value: float) -> str:
    femtoseconds = value * ATOMIC_TIME_IN_FEMTOSECOND
    return f"{femtoseconds / 1000.0:.10g} ps" if femtoseconds >= 1000.0 else f"{femtoseconds:.10g} fs"
