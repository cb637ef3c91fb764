"""Make `box-2.pdb` and `box-3.pdb`: the box of `inputs/uracil-water` in other configurations of the water.

Run it as ``python boxes.py``; it needs the extra ``openmm`` and minutes. Waters start on a lattice in random
order and orientation, at 400 K with rigid bonds; then they are cooled to 300 K and their bonds are let go.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import openmm
import openmm.app as app
from openmm import unit

FOLDER = Path(__file__).parent
MAIN = FOLDER.parents[2] / "uracil-water"
BOXES = {"box-2": 20212, "box-3": 20213}  # seeds of lattice, orientation and velocities
STAGES = ((False, 400, 2.0, 10), (False, 300, 2.0, 8), (True, 300, 0.5, 2))  # flexible, kelvin, fs, ps


def equilibrate(topology: Path, positions: np.ndarray, edge: float, seed: int) -> np.ndarray:
    """Positions in nm after all stages, in a box of constant volume."""
    for flexible, temperature, femtoseconds, picoseconds in STAGES:
        top = app.GromacsTopFile(str(topology), periodicBoxVectors=np.eye(3) * edge * unit.nanometer)
        system = top.createSystem(
            nonbondedMethod=app.PME,
            nonbondedCutoff=0.9 * unit.nanometer,
            constraints=None if flexible else app.HBonds,
            rigidWater=not flexible,
        )
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


def main() -> None:
    main_example = runpy.run_path(str(MAIN / "prepare.py"))
    lines = (MAIN / "init.pdb").read_text(encoding="utf-8").splitlines()
    edge = float(lines[0].split()[1]) / 10
    for name, seed in BOXES.items():
        main_example["lattice"].__globals__["SEED"] = seed
        start = main_example["lattice"](edge)
        positions = equilibrate(MAIN / "uracil-water.top", start, edge, seed)
        positions = 10 * main_example["rescale"](positions, edge, edge)
        atoms = iter(positions)
        with (FOLDER / f"{name}.pdb").open("w", encoding="utf-8") as stream:
            for line in lines:
                if line.startswith("ATOM"):
                    x, y, z = next(atoms)
                    line = f"{line[:30]}{x:8.3f}{y:8.3f}{z:8.3f}{line[54:]}"
                stream.write(line + "\n")


if __name__ == "__main__":
    main()
