"""Cut small boxes out of `../uracil-water`: uracil in 216 waters, and 216 waters alone, at its density.

Run it as ``python prepare.py`` with the extra ``openmm``; it takes some minutes. Molecules nearest to the
middle are kept, and 40 ps at 300 K and constant volume settle the new faces.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import openmm
import openmm.app as app
from openmm import unit

FOLDER = Path(__file__).parent
LARGE = FOLDER.parent / "uracil-water"
WATERS = 216
URACIL_ATOMS = 12
SEED = 20217
STEPS = 80_000  # of 0.5 fs
WATER_VOLUME, URACIL_VOLUME = 0.02987, 0.12  # nm^3, so that the 900 waters and uracil fill 27 nm^3


def cut(positions: np.ndarray, large_edge: float, with_uracil: bool) -> tuple[np.ndarray, float]:
    """Keep the waters nearest to the middle by the largest coordinate; positions and edge in nm."""
    edge = (WATERS * WATER_VOLUME + with_uracil * URACIL_VOLUME) ** (1 / 3)
    uracil, water = positions[:URACIL_ATOMS], positions[URACIL_ATOMS:].reshape(-1, 3, 3)
    middle = uracil.mean(axis=0)
    water = water - large_edge * np.round((water[:, :1] - middle) / large_edge)
    order = np.argsort(np.abs(water[:, 0] - middle).max(axis=1))[:WATERS]
    kept = water[order].reshape(-1, 3)
    if with_uracil:
        kept = np.concatenate([uracil, kept])
    return (kept - middle + edge / 2).round(4), round(edge, 4)


def settle(topology: Path, positions: np.ndarray, edge: float) -> np.ndarray:
    """Equilibrate at constant volume; positions in nm, molecules whole."""
    top = app.GromacsTopFile(str(topology), periodicBoxVectors=np.eye(3) * edge * unit.nanometer)
    system = top.createSystem(
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.9 * unit.nanometer,
        constraints=None,
        rigidWater=False,
    )
    integrator = openmm.LangevinMiddleIntegrator(
        300 * unit.kelvin, 2 / unit.picosecond, 0.5 * unit.femtosecond
    )
    integrator.setRandomNumberSeed(SEED)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, 50.0, 500)
    context.setVelocitiesToTemperature(300 * unit.kelvin, SEED)
    integrator.step(STEPS)
    state = context.getState(getPositions=True, enforcePeriodicBox=True)
    return state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def write_topology(path: Path, with_uracil: bool) -> None:
    """The topology of the large box with the molecules of the small one."""
    text = (LARGE / "uracil-water.top").read_text()
    head, _ = text.split("[ molecules ]")
    counts = f"[ molecules ]\n{'URA  1' if with_uracil else ''}\nSOL  {WATERS}\n".replace("\n\n", "\n")
    path.write_text(head + counts)


def write_structures(stem: str, positions: np.ndarray, edge: float) -> None:
    """The same atoms as `.gro` for the force field and as the `.pdb` that i-PI starts from."""
    lines = (LARGE / "uracil-water.gro").read_text().splitlines()[2:-1]
    with_uracil = len(positions) > 3 * WATERS
    labels = [line[:20] for line in (lines if with_uracil else lines[URACIL_ATOMS:])][: len(positions)]
    elements = [line[10:15].strip()[0] for line in labels]
    gro = [f"{stem}, equilibrated at 300 K", f"{len(positions):5d}"]
    pdb = [f"CRYST1{10 * edge:9.3f}{10 * edge:9.3f}{10 * edge:9.3f}  90.00  90.00  90.00 P 1           1"]
    residue = 0
    starts = [label[:10] for label in labels]
    for index, (label, element, point) in enumerate(zip(labels, elements, positions, strict=True)):
        residue += index == 0 or starts[index] != starts[index - 1]
        gro.append(f"{residue:5d}{label[5:15]}{index + 1:5d}" + "".join(f"{x:9.4f}" for x in point))
        atom = f"ATOM  {index + 1:5d}  {element:<3s} {label[5:8]}  {residue:4d}    "
        pdb.append(atom + "".join(f"{10 * x:8.3f}" for x in point) + f"  1.00  0.00          {element:>2s}")
    (FOLDER / f"{stem}.gro").write_text("\n".join([*gro, f"{edge:10.5f}" * 3]) + "\n")
    (FOLDER / f"{stem}.pdb").write_text("\n".join([*pdb, "END"]) + "\n")


def main() -> None:
    lines = (LARGE / "uracil-water.gro").read_text().splitlines()
    width = 9  # of a coordinate: four digits behind the point
    positions = np.array(
        [[float(line[a:b]) for a, b in pairwise(range(20, 21 + 3 * width, width))] for line in lines[2:-1]]
    )
    large_edge = float(lines[-1].split()[0])
    for stem, with_uracil in (("uracil-216", True), ("water-216", False)):
        topology = FOLDER / f"{stem}.top"
        write_topology(topology, with_uracil)
        small, edge = cut(positions, large_edge, with_uracil)
        write_structures(stem, settle(topology, small, edge), edge)


if __name__ == "__main__":
    main()
