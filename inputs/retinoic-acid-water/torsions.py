"""Energy of retinoic acid along two torsions in water: DFTB, delta models, and DFT in the same charges.

The water of each step is another, and the energy is that of the QM region in its charges, as much of the
water as of the torsion. It shows whether the methods agree, and is no free energy.

``python torsions.py torsions.h5`` turns the molecule step by step, relaxes it and the water with the torsion
held by a spring, on DFTB, delta models and force field, and cuts a frame at each step; it goes on where it
stopped. Then ``pidelta label torsions.h5 --xc PBE --dispersion d3bj`` and ``pidelta label torsions.h5 --low
sampling.yaml``; ``python torsions.py torsions.h5 --page`` prints the table and draws ``torsions.png``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.geometry import get_dihedrals, get_dihedrals_derivatives
from ase.io import read
from ase.optimize import FIRE

import pidelta
from pidelta.analysis.plots import COLOURS, DPI, new_figure, tidy
from pidelta.checksums import checksum
from pidelta.config import load_config
from pidelta.data.labelled import read_labelled
from pidelta.data.store import FrameStore
from pidelta.delta.committee import Committee
from pidelta.delta.loading import load_correction
from pidelta.ipi.trajectories import Snapshot
from pidelta.output_files import replacing
from pidelta.setup import Setup
from pidelta.units import ANGSTROM, HARTREE_IN_KCAL_PER_MOL
from pidelta.workflow.sampling import cut_frame

FOLDER = Path(__file__).parent
# Atoms by their number in the structure, from 0: C8=C7-C6=C5, and C9=C10-C11=C12 in the middle of the chain.
# The far side turns, which is the smaller one.
TORSIONS = {"twist of the ring": (10, 9, 2, 1), "middle of the chain": (11, 12, 13, 14)}
STEP = 30  # degrees
STIFFNESS = 60.0  # eV/rad^2
TURNS, TURN_STEPS = 6, 15  # each step in so many turns, so that water can make way
STEPS, LARGEST = 100, 0.15  # of FIRE at the end of a step; eV/angstrom


class Turned(Calculator):
    """Another calculator and a spring on one torsion, in ASE's units.

    Args:
        calculator: of the energy.
        torsion: four atoms.
        angle: of the spring at rest, in degrees.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - as ASE declares it

    def __init__(self, calculator: Calculator, torsion: tuple[int, ...], angle: float) -> None:
        super().__init__()
        self.calculator, self.torsion, self.angle = calculator, list(torsion), angle

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        inner = self.atoms.copy()
        inner.calc = self.calculator
        vectors = np.diff(inner.positions[self.torsion], axis=0)[:, None]
        away = _folded(float(get_dihedrals(*vectors)[0]) - self.angle) * np.pi / 180.0
        slopes = get_dihedrals_derivatives(*vectors)[0] * np.pi / 180.0
        forces = inner.get_forces().copy()
        forces[self.torsion] -= STIFFNESS * away * slopes
        self.results = {
            "energy": inner.get_potential_energy() + 0.5 * STIFFNESS * away**2,
            "forces": forces,
        }


def _folded(angle: float) -> float:
    """Degrees between -180 and 180."""
    return (angle + 180.0) % 360.0 - 180.0


def beyond(bonds: Iterable[tuple[int, int]], torsion: tuple[int, ...]) -> list[int]:
    """The atoms on the far side of the torsion's middle bond."""
    graph = nx.Graph(bonds)
    graph.remove_edge(torsion[1], torsion[2])
    return sorted(nx.node_connected_component(graph, torsion[2]))


def turn(path: Path) -> None:
    """Relax the missing steps and append their frames."""
    setup = Setup(load_config(FOLDER / "pidelta.yaml"))
    region = setup.qm_region
    calculator = pidelta.Calculator(FOLDER / "pidelta.yaml")
    bonds = [tuple(pair) for pair in setup.topology.bonded_pairs.tolist()]
    # positions of each step, so that it can go on with the same models
    made = checksum(*(FOLDER / f"delta-{k}.pt" for k in range(3)))[:12]
    states = path.with_suffix("") / made
    states.mkdir(parents=True, exist_ok=True)
    with FrameStore(path, "a") as store:
        store.set_embedding(region.surroundings.settings)
        present = {frame.source for frame in store}
        for name, torsion in TORSIONS.items():
            atoms = read(FOLDER / "init.pdb")
            atoms.pbc = True
            moving = beyond(bonds, torsion)
            first = round(atoms.get_dihedral(*torsion) / STEP) * STEP
            for place in range(360 // STEP):
                angle = first + place * STEP
                source = f"{name} step {place} of models {made}"
                state = states / f"{name.replace(' ', '-')}-{place}.npy"
                if state.exists():
                    atoms.positions = np.load(state)
                else:
                    away = _folded(angle - atoms.get_dihedral(*torsion))
                    for turned in np.linspace(angle - away, angle, TURNS + 1)[1:]:
                        atoms.set_dihedral(*torsion, turned, indices=moving)
                        atoms.calc = Turned(calculator, torsion, turned)
                        steps = STEPS if turned == angle else TURN_STEPS
                        FIRE(atoms, logfile=None).run(fmax=LARGEST, steps=steps)
                    force = np.linalg.norm(atoms.get_forces(), axis=1).max()
                    print(f"{source}: largest force {force:.2f} eV/angstrom")
                    with replacing(state, "wb") as stream:
                        np.save(stream, atoms.positions)
                found = _folded(atoms.get_dihedral(*torsion))
                print(f"{source}: {found:.1f} degrees", flush=True)
                if source not in present:
                    snapshot = Snapshot(
                        place, atoms.numbers, atoms.positions * ANGSTROM, atoms.cell.array * ANGSTROM
                    )
                    store.append(cut_frame(snapshot, region, True, source))


def page(path: Path) -> None:
    """Print the table, and draw it."""
    committee = Committee([load_correction(FOLDER / f"delta-{k}.pt") for k in range(3)])
    labelled = read_labelled([path]).frames
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in TORSIONS}
    for item in labelled:
        name = item.frame.source.split(" step ")[0]
        vectors = np.diff(item.frame.positions[list(TORSIONS[name])], axis=0)[:, None]
        correction = float(committee.evaluate(item.frame.region).energy[0])
        energies = (item.reference.energy, item.low.energy, item.low.energy + correction)
        rows[name].append((_folded(float(get_dihedrals(*vectors)[0])), *energies))
    figure = new_figure(9.0, 3.6)
    for axis, (name, points) in zip(figure.subplots(1, 2), rows.items(), strict=True):
        table = np.array(sorted(points))
        energies = table[:, 1:] * HARTREE_IN_KCAL_PER_MOL
        energies -= energies.mean(axis=0)
        errors = np.abs(energies[:, 1:] - energies[:, :1]).mean(axis=0)
        print(f"{name}: MAE of DFTB {errors[0]:.2f}, with delta models {errors[1]:.2f} kcal/mol")
        print("| angle / ° | DFT | DFTB | DFTB + delta |\n|---|---|---|---|")
        for angle, row in zip(table[:, 0], energies, strict=True):
            print(f"| {angle:.0f} | " + " | ".join(f"{value:.2f}" for value in row) + " |")
        for method, values, style in zip(
            ("DFT", "DFTB", "DFTB + delta"), energies.T, ("ko", "--", "-"), strict=True
        ):
            colour = {} if method == "DFT" else {"color": COLOURS[int(method != "DFTB")]}
            axis.plot(table[:, 0], values, style, label=method, markersize=4, **colour)
        axis.set_title(name, loc="left", fontsize=10)
        axis.set_xlabel("torsion / °", fontsize=9)
        tidy(axis)
    figure.axes[0].set_ylabel("QM region in its charges, less the mean / kcal/mol", fontsize=9)
    figure.axes[0].legend(fontsize=8, frameon=False)
    figure.savefig(path.with_suffix(".png"), dpi=DPI)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("frames", type=Path)
    parser.add_argument("--page", action="store_true")
    arguments = parser.parse_args()
    if arguments.page:
        page(arguments.frames)
    else:
        turn(arguments.frames)


if __name__ == "__main__":
    main()
