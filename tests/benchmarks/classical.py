"""Time of the classical evaluator beside OpenMM's CPU platform: flexible water, PME.

Run: python tests/benchmarks/classical.py [--cutoff 1.2] [--atoms 1536 3072] [--beads 1 8] [--threads 1 2]

Both evaluate the same frames of a trajectory of 0.5 fs steps, in alternation, energy and forces, pair lists
included. A ring polymer is the frames moved by 0.03 bohr for each bead; OpenMM takes its beads one by one.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import openmm
from rich.console import Console
from rich.table import Table

from pidelta.mm.evaluator import MMEvaluator
from pidelta.mm.readers import read_topology
from pidelta.mm.settings import ForceFieldSettings
from pidelta.mm.topology import join
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM, HARTREE_IN_KJ_PER_MOL

WATER = Path(__file__).parents[1] / "data" / "mm" / "water.top"
NM = 0.1 * BOHR_IN_ANGSTROM
BASE_EDGE = 24.84 * ANGSTROM  # of 512 molecules at 1 g/cm3
TILES = {
    1536: (1, 1, 1),
    3072: (1, 1, 2),
    9216: (1, 2, 3),
    18432: (2, 2, 3),
    41472: (3, 3, 3),
    98304: (4, 4, 4),
}
TOLERANCE = 5e-4


def openmm_context(topology, cell, cutoff, threads):
    """The same water in OpenMM: bonds, angles, Lennard-Jones of the oxygens, PME."""
    system = openmm.System()
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    nonbonded = openmm.NonbondedForce()
    energy = HARTREE_IN_KJ_PER_MOL
    for mass, charge, kind in zip(topology.masses, topology.charges, topology.lj_types, strict=True):
        c6, c12 = topology.lj_c6[kind, kind], topology.lj_c12[kind, kind]
        sigma, epsilon = ((c12 / c6) ** (1 / 6), c6**2 / (4 * c12)) if c6 else (1.0, 0.0)
        system.addParticle(mass / 1822.888486)
        nonbonded.addParticle(charge, sigma * NM, epsilon * energy)
    for (i, j), k, r0 in zip(topology.bonds.atoms, topology.bonds.k, topology.bonds.x0, strict=True):
        bonds.addBond(i, j, r0 * NM, k * energy / NM**2)
    for (i, j, m), k, x0 in zip(topology.angles.atoms, topology.angles.k, topology.angles.x0, strict=True):
        angles.addAngle(i, j, m, x0, k * energy)
    for i, j in topology.exclusions:
        nonbonded.addException(i, j, 0.0, 1.0, 0.0)
    nonbonded.setNonbondedMethod(openmm.NonbondedForce.PME)
    nonbonded.setCutoffDistance(cutoff * NM)
    nonbonded.setEwaldErrorTolerance(TOLERANCE)
    nonbonded.setUseDispersionCorrection(False)
    nonbonded.setUseSwitchingFunction(True)
    nonbonded.setSwitchingDistance(0.9 * cutoff * NM)
    system.setDefaultPeriodicBoxVectors(*(openmm.Vec3(*row) for row in cell * NM))
    for force in (bonds, angles, nonbonded):
        system.addForce(force)
    platform = openmm.Platform.getPlatformByName("CPU")
    integrator = openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.0005)
    return openmm.Context(system, integrator, platform, {"Threads": str(threads)})


def trajectory(molecules, count):
    """Frames (count, 1536, 3) in bohr, 0.5 fs apart, from a grid of turned molecules."""
    rng = np.random.default_rng(0)
    cell = BASE_EDGE * np.eye(3)
    grid = (np.stack(np.meshgrid(*3 * [np.arange(8)], indexing="ij"), -1).reshape(-1, 1, 3) + 0.5) / 8
    water = np.array([[0.0, 0.0, 0.0], [0.82, 0.58, 0.0], [-0.82, 0.58, 0.0]]) * ANGSTROM
    turns = np.linalg.qr(rng.normal(size=(512, 3, 3)))[0]
    context = openmm_context(molecules, cell, 10.0 * ANGSTROM, 2)
    context.setPositions((grid * BASE_EDGE + water @ turns).reshape(-1, 3) * NM)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
    context.setVelocitiesToTemperature(300.0, 0)
    frames = []
    context.getIntegrator().step(1000)
    for _ in range(count):
        context.getIntegrator().step(1)
        frames.append(context.getState(getPositions=True).getPositions(asNumpy=True)._value / NM)
    return np.array(frames)


def tiled(frame, tiles):
    corners = np.stack(np.meshgrid(*map(np.arange, tiles), indexing="ij"), -1).reshape(-1, 1, 3) * BASE_EDGE
    return (frame + corners).reshape(-1, 3)


def measure(topology, frames, tiles, cutoff, beads, threads):
    """Seconds of each call of OpenMM and of pidelta, and the largest difference of forces."""
    cell = np.diag(np.array(tiles) * BASE_EDGE)
    context = openmm_context(topology, cell, cutoff, threads)
    settings = ForceFieldSettings(cutoff, "pme", TOLERANCE, threads=threads)
    evaluator = MMEvaluator(topology, settings, cell)
    cells = np.repeat(cell[None], beads, axis=0)
    spread = np.random.default_rng(1).normal(scale=0.03, size=(beads, len(topology), 3)) * (beads > 1)
    times = []
    for frame in frames:
        positions = tiled(frame, tiles) + spread
        in_nm = positions * NM
        start = time.perf_counter()
        for bead in in_nm:
            context.setPositions(bead)
            forces = context.getState(getEnergy=True, getForces=True).getForces(asNumpy=True)
        middle = time.perf_counter()
        term = evaluator.evaluate(positions, cells)
        times.append((middle - start, time.perf_counter() - middle))
    found = term.gradient[-1] * HARTREE_IN_KJ_PER_MOL / NM
    error = np.sqrt(np.mean((found + forces._value) ** 2) / np.mean(found**2))
    return 1e3 * np.array(times[3:]).T, error


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cutoff", type=float, default=1.2, help="nm")
    parser.add_argument("--atoms", nargs="+", type=int, default=list(TILES), choices=list(TILES))
    parser.add_argument("--beads", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--frames", type=int, default=40)
    arguments = parser.parse_args()
    cutoff = 10.0 * arguments.cutoff * ANGSTROM
    box = join([read_topology(WATER)] * 8)
    frames = trajectory(box, arguments.frames)
    columns = ("atoms", "beads", "threads", "OpenMM CPU", "pidelta", "OpenMM/pidelta", "difference of forces")
    title = f"PME, {arguments.cutoff} nm: median (least) of a call / ms"
    table = Table(*columns, title=title)
    for atoms in arguments.atoms:
        tiles = TILES[atoms]
        topology = join([box] * int(np.prod(tiles)))
        for beads in arguments.beads:
            if atoms * beads > 2e5:
                continue
            for threads in arguments.threads:
                used = frames if atoms * beads < 4e4 else frames[:13]
                (theirs, ours), error = measure(topology, used, tiles, cutoff, beads, threads)
                ratio = f"{np.median(theirs) / np.median(ours):.2f} ({theirs.min() / ours.min():.2f})"
                cells = [f"{np.median(t):.1f} ({t.min():.1f})" for t in (theirs, ours)]
                table.add_row(str(atoms), str(beads), str(threads), *cells, ratio, f"{error:.0e}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
