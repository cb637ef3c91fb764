"""Conserved quantity, potential energy, volume and density over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pidelta.analysis.ipi_output import Properties
from pidelta.analysis.sections import Curve, Number, Panel, Picture, Section
from pidelta.analysis.statistics import Mean, mean_with_error, settled
from pidelta.analysis.summary import fit_drift, time_in_ps
from pidelta.analysis.validity import left_out
from pidelta.analysis.written import WrittenProperties
from pidelta.units import HARTREE_IN_EV


def energy_section(written: WrittenProperties, n_atoms: int, wrong: Mapping[str, str]) -> Section:
    """Means over time of what the properties files have, and the drift of the conserved quantity.

    Of all columns of the files it says which are not numbers, and where; `wrong` are left out, and why.
    """
    numbers, panels, remarks = [], [], []
    files = list(written.files.values())
    conserved = _file_with(files, "conserved")
    time = None if conserved is None else time_in_ps(conserved)
    if conserved is None or time is None:
        why = written.why_not("time", "conserved")
        why = why or "not in the output: ask for time{picosecond} and conserved in <properties>"
        remarks.append(f"drift: {why}")
    elif len(time) > 2:
        values = conserved.atomic("conserved")
        drift = fit_drift(settled(time), settled(values), n_atoms)
        numbers.append(Number("drift of the conserved quantity", drift.slope, "meV/atom/ps", 0.0))
        numbers.append(Number("its fluctuation", Mean(drift.rms, math.nan), "meV/atom"))
        energy = (values - values[0]) * (1000.0 * HARTREE_IN_EV / n_atoms)
        panels.append(
            Panel("conserved quantity", "time / ps", "change / (meV/atom)", (Curve("", time, energy),))
        )
    for column, title in (("potential", "potential energy"), ("volume", "volume"), ("density", "density")):
        file = _file_with(files, column)
        if file is None:
            continue
        if column in wrong:
            remarks += left_out(wrong, column)
            continue
        unit, values = file.units[column] or "a.u.", file.columns[column]
        if column == "potential":
            unit, values = "eV", file.atomic(column) * HARTREE_IN_EV
        numbers.append(Number(title, mean_with_error(settled(values)), unit))
        if (when := time_in_ps(file)) is not None:
            panels.append(Panel(title, "time / ps", f"{title} / {unit}", (Curve("", when, values),)))
    remarks += [text for file in files for column in file.columns if (text := file.not_numbers(column))]
    pictures = (Picture("energies", "energies over time", tuple(panels)),) if panels else ()
    return Section("Energies", tuple(numbers), pictures, tuple(remarks))


def _file_with(files: Sequence[Properties], column: str) -> Properties | None:
    """The first file with a column, one that has the time, too, if there is any."""
    found = [file for file in files if column in file]
    return max(found, key=lambda file: "time" in file, default=None)
