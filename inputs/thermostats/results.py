"""The numbers and spectra of the study, kept beside its page: `results.json` and `spectra.csv`."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
from family import FOLDER, Run, family
from observables import Result, observe

NUMBERS, SPECTRA = FOLDER / "results.json", FOLDER / "spectra.csv"
_AXIS = "wavenumber / cm-1"


def collect(runs: Path) -> dict[Run, Result]:
    """The results of all runs: anew of those that have come as far in a folder as before, or further."""
    found = read()
    for run in family():
        if run.start and (result := observe(run, runs / run.name)):
            before = found.get(run)
            if before is None or result.picoseconds >= before.picoseconds:
                found[run] = result
    write(found)
    return read()


def read() -> dict[Run, Result]:
    """What was kept."""
    if not NUMBERS.exists():
        return {}
    numbers, spectra = _restored(json.loads(NUMBERS.read_text())), _read_spectra()
    return {
        run: Result(**numbers[run.name], spectra=spectra.get(run.name, {}))
        for run in family()
        if run.name in numbers
    }


def write(results: dict[Run, Result]) -> None:
    """Keep all that is known, five digits of each number."""
    numbers = {run.name: _rounded(result.numbers()) for run, result in results.items()}
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n")
    columns = {
        f"{run.name}:{kind}": values
        for run, result in results.items()
        for kind, values in result.spectra.items()
        if kind != "wavenumber"
    }
    axis = next((result.spectra["wavenumber"] for result in results.values() if result.spectra), np.zeros(0))
    with SPECTRA.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([_AXIS, *columns])
        for index, wavenumber in enumerate(axis):
            writer.writerow(
                [f"{wavenumber:.1f}", *(f"{1e4 * values[index]:.1f}" for values in columns.values())]
            )


def _read_spectra() -> dict[str, dict[str, np.ndarray]]:
    with SPECTRA.open() as file:
        names, *rows = list(csv.reader(file))
    table = np.array(rows, dtype=np.float64).T
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, values in zip(names[1:], table[1:], strict=True):
        run, kind = name.split(":")
        found.setdefault(run, {"wavenumber": table[0]})[kind] = 1e-4 * values
    return found


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None  # JSON has no NaN
    return value


def _restored(value: object) -> object:
    """The opposite, but for digits."""
    if isinstance(value, dict):
        return {key: _restored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_restored(item) for item in value]
    return math.nan if value is None else value
