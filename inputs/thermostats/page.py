"""The page of the study: tables out of its results, in the text of `page.md`."""

from __future__ import annotations

import math
from string import Template

import numpy as np
from family import FOLDER, TEMPERATURE, Run
from observables import Result, hides_slow_exchange

from pictures import draw
from pidelta.analysis.pages import table_row

Results = dict[Run, Result]
FEW = 50.0  # independent samples, below which a correlation time is off by a third or more


_TOLD = {"svr": "svr-100", "nve": "nve", "pile_l": "pile-l", "pile_g": "pile-g", "free": "trpmd"}
"""Longer runs of uracil whose temperatures are told in words, by their names in ``page.md``."""


def write_page(results: Results) -> None:
    """Write ``README.md`` and its pictures."""
    draw(results)
    (FOLDER / "README.md").write_text(text(results))


def text(results: Results) -> str:
    """The page, with the tables in ``page.md``."""
    return Template((FOLDER / "page.md").read_text()).substitute(tables(results))


def tables(results: Results) -> dict[str, str]:
    """The tables by their names in ``page.md``."""
    return {
        "classical_temperatures": temperatures(chosen(results, "uracil", 1)),
        "classical_speed": speed(chosen(results, "uracil", 1)),
        "quantum_temperatures": quantum_temperatures(chosen(results, "uracil", 8)),
        "quantum_energies": quantum_energies(
            {run: result for run, result in results.items() if run.beads > 1}
        ),
        "water": water(chosen(results, "water", 1) | chosen(results, "water", 8)),
        "self_consistency": self_consistency(chosen(results, "molecule", 1)),
        **{key: found_in(results, f"uracil-long-{run}") for key, run in _TOLD.items()},
        "drift_half": drift(results, "water-8-pile-l-0.25fs"),
        "drift_free": drift(results, "water-8-nve"),
        "langevin": slowed(results, "uracil-long-langevin-1000", beside="uracil-long-svr-100"),
    }


def found_in(results: Results, name: str) -> str:
    """The temperatures of both regions in a run, in words."""
    if (result := _named(results, name)) is None:
        return "not run yet"
    qm, mm = (_value(result.temperatures[group], 1) for group in ("QM", "MM"))
    return f"{result.picoseconds:.0f} ps give {qm} K there, {mm} in water"


def drift(results: Results, name: str) -> str:
    """Of the conserved quantity in a run."""
    return "not known yet" if (result := _named(results, name)) is None else _value(result.drift, 2)


def slowed(results: Results, name: str, *, beside: str) -> str:
    """By how much water diffuses more slowly than in another run, in percent."""
    result, reference = _named(results, name), _named(results, beside)
    if result is None or reference is None:
        return "what is not known yet"
    (own, own_error), (other, other_error) = result.diffusion, reference.diffusion
    error = own / other * math.hypot(own_error / own, other_error / other)
    return f"{100.0 * (1.0 - own / other):.0f} ± {100.0 * error:.0f} %"


def _named(results: Results, name: str) -> Result | None:
    return next((result for run, result in results.items() if run.name == name), None)


def chosen(results: Results, system: str, beads: int) -> Results:
    """Those of a system, but for BAOAB's, whose momenta are too cold at the ends of steps."""
    wanted = (system, beads, "obabo")
    return {
        run: result for run, result in results.items() if (run.system, run.beads, run.splitting) == wanted
    }


def temperatures(results: Results) -> str:
    groups = ("QM", "QM H", "QM heavy", "MM", "MM H", "MM O")
    rows = []
    for run, result in results.items():
        cells = [_kelvin(result.temperatures[group]) for group in groups]
        cells[:3] = _bracketed(hides_slow_exchange(run, result), cells[:3])
        rows.append([run.title, f"{result.picoseconds:.3g}", *cells])
    return _table(["thermostat", "ps", *groups], rows)


def speed(results: Results) -> str:
    reference = next((result for run, result in results.items() if not run.thermostat), None)
    rows = []
    for run, result in results.items():
        qm = _bracketed(
            hides_slow_exchange(run, result),
            [_time(result.times["QM kinetic"]), _samples(result, "QM kinetic")],
        )
        rows.append(
            [
                run.title,
                qm[0],
                _time(result.times["potential"]),
                _time(result.times["QM dipole"]) if "QM dipole" in result.times else "",
                qm[1],
                _samples(result, "potential"),
                _value(result.diffusion, 3),
                *(distance(result, reference, kind) for kind in ("MM", "infrared")),
                _value(result.drift, 4),
                f"{result.fluctuation:.4f}",
            ]
        )
    head = ["thermostat", "τ QM kinetic / fs", "τ potential / fs", "τ dipole / fs", "samples/ps, QM kinetic"]
    head += [
        "samples/ps, potential",
        "D / Å²/ps",
        "VDOS",
        "IR",
        "drift / meV/atom/ps",
        "fluctuation / meV/atom",
    ]
    return _table(head, rows)


def distance(result: Result, reference: Result | None, kind: str) -> str:
    """Half the area between a spectrum and that at constant energy: 0 the same, 1 nothing in common."""
    if reference is None:
        return ""
    if result is reference:
        return "0"
    return f"{0.5 * np.abs(result.spectra[kind] - reference.spectra[kind]).sum():.2f}"


def quantum_temperatures(results: Results) -> str:
    rows = []
    for run, result in results.items():
        region = [_kelvin(result.temperatures["QM"]), _time(result.times["QM kinetic"])]
        qm, time = _bracketed(hides_slow_exchange(run, result), region)
        beads = [_kelvin(result.bead_temperatures[group]) for group in ("QM", "QM H", "MM", "MM H")]
        water = _kelvin(result.temperatures["MM"])
        rows.append([run.title, f"{result.picoseconds:.3g}", qm, water, *beads, time])
    head = ["thermostat", "ps", "centroid QM", "centroid MM", "all modes QM", "QM H", "MM", "MM H"]
    return _table([*head, "τ QM centroid kinetic / fs"], rows)


def quantum_energies(results: Results) -> str:
    groups = ("QM H", "QM heavy", "MM H", "MM O")
    rows = []
    for run, result in results.items():
        energies = [_value(result.quantum_kinetic.get(group), 1) for group in groups]
        length, drift = f"{result.picoseconds:.3g}", _value(result.drift, 2)
        rows.append([run.system, str(run.beads), run.title, length, *energies, drift])
    return _table(["system", "beads", "thermostat", "ps", *groups, "drift / meV/atom/ps"], rows)


def water(results: Results) -> str:
    rows = []
    for run, result in results.items():
        kelvin = [_kelvin(result.temperatures[group]) for group in ("MM H", "MM O")]
        times = [_time(result.times[name]) for name in ("MM kinetic", "potential")]
        numbers = [_value(result.diffusion, 3), _value(result.drift, 4)]
        rows.append([run.title, str(run.beads), f"{result.picoseconds:.3g}", *kelvin, *times, *numbers])
    head = ["thermostat", "beads", "ps", "H / K", "O / K", "τ kinetic / fs", "τ potential / fs", "D / Å²/ps"]
    return _table([*head, "drift / meV/atom/ps"], rows)


def self_consistency(results: Results) -> str:
    rows = []
    for run, result in results.items():
        tolerance, start = run.scc.removeprefix("tolerance: ").split(", start: ")
        cells = [_value(result.drift, 3), f"{result.fluctuation:.3f}", _kelvin(result.temperatures["QM"])]
        rows.append([run.title, f"{float(tolerance):g}", start, f"{result.picoseconds:.3g}", *cells])
    head = ["thermostat", "tolerance / e", "charges start", "ps", "drift / meV/atom/ps"]
    return _table([*head, "fluctuation / meV/atom", "T / K"], rows)


def _kelvin(pair: list[float]) -> str:
    """A temperature; bold where its error is below 1 % of the target."""
    text = _value(pair, 1)
    return f"**{text}**" if pair[1] < 0.01 * TEMPERATURE else text


def _bracketed(doubtful: bool, cells: list[str]) -> list[str]:
    return [f"({cell.strip('*()')})" for cell in cells] if doubtful else cells


def _samples(result: Result, quantity: str) -> str:
    """Independent values in a picosecond."""
    rate = result.times[quantity][1] / result.picoseconds
    return f"{rate:.0f}" if rate >= 10.0 else f"{rate:.1f}"


def _value(pair: list[float] | None, digits: int) -> str:
    if not pair:
        return ""
    value, error = pair
    return f"{value:.{digits}f}" if math.isnan(error) else f"{value:.{digits}f} ± {error:.{digits}f}"


def _time(pair: list[float]) -> str:
    """A correlation time; in brackets where the run has too few independent samples to tell."""
    time, samples = pair
    text = f"{1000.0 * time:.0f}"
    return text if samples >= FEW else f"({text})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return "Not run yet."
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(map(table_row, lines))
