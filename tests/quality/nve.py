"""Energy conservation: velocity Verlet of some molecules of the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.data import atomic_masses

from methods import Method
from molecules import force_field_minimum, read_molecules
from pidelta.units import DALTON_IN_ELECTRON_MASS, FEMTOSECOND, HARTREE_IN_EV, HARTREE_IN_KELVIN, KELVIN

RESULTS = Path(__file__).with_name("nve.json")
TIME_STEP = 0.5  # fs
DURATION = 10.0  # ps
TEMPERATURE = 300.0  # K
_EVERY = 10  # steps between stored energies


def run_all(method: Method, path: Path = RESULTS) -> Iterator[tuple[str, dict]]:
    """Run what the file does not have for this set, writing after each molecule."""
    molecules = read_molecules()
    results = read(path)
    for name in molecules.settings["nve"]:
        frame = force_field_minimum(molecules.minima[name])
        if results.get(name, {}).get("set") != _identity(method):
            results[name] = {"set": _identity(method), **_run(method, frame)}
            path.write_text(json.dumps(results, indent=1) + "\n")
        yield name, results[name]


def read(path: Path = RESULTS) -> dict[str, dict]:
    return json.loads(path.read_text()) if path.is_file() else {}


def results_of(method: Method, path: Path = RESULTS) -> dict[str, dict]:
    """The stored results of this set."""
    return {name: result for name, result in read(path).items() if result["set"] == _identity(method)}


def _identity(method: Method) -> str:
    return f"{method.parameters.identity}, order {method.settings['order']}"


def _run(method: Method, frame) -> dict:
    """From the minimum, with velocities of twice the temperature, half of which becomes potential energy."""
    function = method.function(frame)
    masses = (atomic_masses[frame.numbers] * DALTON_IN_ELECTRON_MASS)[:, None]
    x = method.minimum(frame).positions
    velocities = np.random.default_rng(1).normal(size=x.shape) / np.sqrt(masses)
    velocities -= (masses * velocities).sum(axis=0) / masses.sum()
    freedom = x.size - 3
    # So few degrees of freedom would miss the temperature by far.
    velocities *= np.sqrt(2.0 * TEMPERATURE * KELVIN * freedom / (masses * velocities**2).sum())
    step = TIME_STEP * FEMTOSECOND
    energy, gradient = function(x)
    times, totals, kinetics = [], [], []
    for number in range(round(1000.0 * DURATION / TIME_STEP) + 1):
        if number % _EVERY == 0:
            kinetic = 0.5 * float((masses * velocities**2).sum())
            times.append(number * TIME_STEP / 1000.0)
            totals.append(energy + kinetic)
            kinetics.append(kinetic)
        velocities -= 0.5 * step * gradient / masses
        x = x + step * velocities
        energy, gradient = function(x)
        velocities -= 0.5 * step * gradient / masses
    per_atom = 1000.0 * HARTREE_IN_EV / len(masses)
    slope, offset = np.polyfit(times, totals, 1)
    return {
        "drift": float(slope) * per_atom,
        "fluctuation": float(np.std(np.array(totals) - slope * np.array(times) - offset)) * per_atom,
        "temperature": 2.0 * float(np.mean(kinetics)) / freedom * HARTREE_IN_KELVIN,
    }
