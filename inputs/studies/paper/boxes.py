"""Make the boxes of a molecule: 900 waters around it, in another configuration in each box.

``python boxes.py uracil`` or ``benzene`` makes the boxes that are missing, each in some minutes; it needs
the extra ``openmm``. Waters start on a lattice in random order and orientation, at 400 K with rigid bonds;
then they are cooled to 300 K and their bonds are let go. The edge is that of `inputs/uracil-water`.
"""

from __future__ import annotations

import argparse
import runpy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from openmm import unit

FOLDER = Path(__file__).parent
MAIN = FOLDER.parents[1] / "uracil-water"
MAIN_EXAMPLE = runpy.run_path(str(MAIN / "prepare.py"))
STAGES = ((False, 400, 2.0, 10), (False, 300, 2.0, 8), (True, 300, 0.5, 2))  # flexible, kelvin, fs, ps


@dataclass(frozen=True)
class Molecule:
    """A molecule and its boxes.

    Attributes:
        residue: its residue name.
        topology: of it in water.
        atoms: name, element, type, x and y in angstrom, of each atom; as many atoms as uracil.
        seeds: of lattice, orientation and velocities, by the name of the box.
    """

    residue: str
    topology: Path
    atoms: tuple[tuple[str, str, str, float, float], ...]
    seeds: dict[str, int]


def ring(name: str, kind: str, radius: float) -> tuple[tuple[str, str, str, float, float], ...]:
    """Six atoms on a circle."""
    angles = np.radians(60 * np.arange(6))
    return tuple(
        (f"{name}{i}", name, kind, radius * float(np.cos(angle)), radius * float(np.sin(angle)))
        for i, angle in enumerate(angles, 1)
    )


MOLECULES = {
    "uracil": Molecule(
        "URA", MAIN / "uracil-water.top", MAIN_EXAMPLE["URACIL"], {"box-2": 20212, "box-3": 20213}
    ),
    "benzene": Molecule(
        "BNZ",
        FOLDER / "benzene" / "benzene-water.top",
        ring("C", "ca", 1.3986) + ring("H", "ha", 1.3986 + 1.0860),
        {"box-1": 20221, "box-2": 20222, "box-3": 20223},
    ),
}


def equilibrate(topology: Path, positions: np.ndarray, edge: float, seed: int) -> np.ndarray:
    """Positions in nm after all stages, in a box of constant volume."""
    for flexible, temperature, femtoseconds, picoseconds in STAGES:
        system = MAIN_EXAMPLE["make_system"](topology, edge, flexible)
        integrator = openmm.LangevinMiddleIntegrator(
            temperature * unit.kelvin, 5 / unit.picosecond, femtoseconds * unit.femtosecond
        )
        integrator.setRandomNumberSeed(seed)
        context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"))
        context.setPositions(positions)
        openmm.LocalEnergyMinimizer.minimize(context, 50.0, 100)
        context.setVelocitiesToTemperature(temperature * unit.kelvin, seed)
        for _ in range(picoseconds):
            integrator.step(round(1000 / femtoseconds))
        state = context.getState(getEnergy=True, getPositions=True)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        print(f"{'flexible' if flexible else 'rigid'}, {temperature} K: {energy:.0f} kJ/mol", flush=True)
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    return positions


def write_box(path: Path, molecule: Molecule, positions: np.ndarray) -> None:
    """Write positions in angstrom as `init.pdb` of the main example has them, with this molecule in it."""
    atoms = iter(positions)
    solute = iter(molecule.atoms)
    with path.open("w", encoding="utf-8") as stream:
        for line in (MAIN / "init.pdb").read_text(encoding="utf-8").splitlines():
            if line.startswith("ATOM"):
                if line[17:20] == "URA":
                    _, element, *_ = next(solute)
                    line = f"{line[:13]}{element:<3s} {molecule.residue}{line[20:76]}{element:>2s}"
                x, y, z = next(atoms)
                line = f"{line[:30]}{x:8.3f}{y:8.3f}{z:8.3f}{line[54:]}"
            stream.write(line + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("molecule", choices=sorted(MOLECULES))
    name = parser.parse_args().molecule
    molecule = MOLECULES[name]
    edge = float((MAIN / "init.pdb").read_text(encoding="utf-8").split(maxsplit=2)[1]) / 10
    for box, seed in molecule.seeds.items():
        path = FOLDER / name / f"{box}.pdb"
        if path.exists():
            continue
        start = MAIN_EXAMPLE["lattice"](edge, molecule.atoms, seed)
        positions = equilibrate(molecule.topology, start, edge, seed)
        write_box(path, molecule, 10 * MAIN_EXAMPLE["rescale"](positions, edge, edge))


if __name__ == "__main__":
    main()
