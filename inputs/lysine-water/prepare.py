"""Build the inputs of this folder: acetyl-lysine-N-methylamide and chloride in flexible SPC/Fw water.

Run it as ``python prepare.py`` with tleap of AmberTools on the PATH and the extra ``openmm``; it takes some
ten minutes. ``leap.in`` makes the topology (ff14SB), and 15 ps at 300 K and 1 bar on the force field alone
make the structure, ``lysine-water.rst7``. ``init.pdb``, from which i-PI starts, has elements as names.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import openmm
import openmm.app as app
import parmed
from openmm import unit

FOLDER = Path(__file__).parent
TEMPERATURE = 300 * unit.kelvin
SEED = 20401


def relax(topology: Path, start: Path) -> parmed.Structure:
    prmtop = app.AmberPrmtopFile(str(topology))
    inpcrd = app.AmberInpcrdFile(str(start))
    system = prmtop.createSystem(
        nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer, constraints=None, rigidWater=False
    )
    barostat = openmm.MonteCarloBarostat(1 * unit.bar, TEMPERATURE)
    barostat.setRandomNumberSeed(SEED)
    system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5 / unit.picosecond, 0.5 * unit.femtosecond)
    integrator.setRandomNumberSeed(SEED)
    simulation = app.Simulation(prmtop.topology, system, integrator, openmm.Platform.getPlatformByName("CPU"))
    simulation.context.setPositions(inpcrd.positions)
    simulation.context.setPeriodicBoxVectors(*inpcrd.boxVectors)
    simulation.minimizeEnergy(maxIterations=500)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, SEED)
    simulation.step(30_000)
    state = simulation.context.getState(positions=True, enforcePeriodicBox=True)
    found = parmed.load_file(str(topology))
    found.coordinates = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    found.box_vectors = state.getPeriodicBoxVectors()
    return found


def pdb_text(structure: parmed.Structure) -> str:
    edges = "".join(f"{edge:9.3f}" for edge in structure.box[:3])
    lines = [f"CRYST1{edges}  90.00  90.00  90.00 P 1           1"]
    for number, atom in enumerate(structure.atoms, start=1):
        position = f"{atom.xx:8.3f}{atom.xy:8.3f}{atom.xz:8.3f}"
        residue = f"{atom.residue.name:>3.3s} {atom.residue.idx + 1:5d}"
        element = f"{atom.element_name:>2s}"
        lines.append(f"ATOM  {number:5d} {element}   {residue}    {position}  1.00  0.00          {element}")
    return "\n".join([*lines, "END", ""])


def main() -> None:
    subprocess.run(["tleap", "-f", "leap.in"], cwd=FOLDER, check=True)
    start = FOLDER / "leap.rst7"
    structure = relax(FOLDER / "lysine-water.prmtop", start)
    structure.save(str(FOLDER / "lysine-water.rst7"), overwrite=True)
    (FOLDER / "init.pdb").write_text(pdb_text(structure), encoding="utf-8")
    start.unlink()
    (FOLDER / "leap.log").unlink()


if __name__ == "__main__":
    main()
