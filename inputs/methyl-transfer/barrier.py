"""The barrier of the methyl transfer along a path in the water of one moment, beside DFT.

    python barrier.py follow DELTA TRAJECTORY FRAMES    DELTA: the delta.yaml of a round of pidelta learn
    pidelta label FRAMES --dispersion d3bj
    pidelta label FRAMES --low sampling.yaml
    python barrier.py page FRAMES                       a table, and barrier.png

Water stays where the last snapshot of the trajectory has it, one of a window near the top. The atoms of the
QM region are relaxed by DFTB + delta for one value of d(S-C) - d(C-N) after the other, held by a spring. So
this is no free energy, which comes with water that follows: it is one curve by three methods, at the same
points.
"""

from __future__ import annotations

import argparse
import json
from collections import deque
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from pidelta.analysis.pages import table_row
from pidelta.analysis.plots import COLOURS, DPI, new_figure, tidy
from pidelta.config import load_config, load_delta
from pidelta.data.labelled import read_labelled
from pidelta.data.store import FrameStore
from pidelta.ipi.trajectories import Snapshot, read_trajectory
from pidelta.setup import Setup
from pidelta.state import Evaluator, FloatArray, IntArray
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL
from pidelta.workflow.learning.bias import BiasedEvaluator, Restraint
from pidelta.workflow.sampling import cut_frame

FOLDER = Path(__file__).parent
PAIRS, WEIGHTS = np.array([[0, 1], [0, 13]]), np.array([1.0, -1.0])  # carbon and sulfur, carbon and nitrogen
TOP = 0.2  # angstrom, of d(S-C) - d(C-N): from there to both ends
PLACES = np.arange(-1.6, 1.61, 0.2)
STIFFNESS = 600.0 / HARTREE_IN_KCAL_PER_MOL * BOHR_IN_ANGSTROM**2  # kcal/mol/angstrom^2 -> atomic units
METHODS = ("DFT", "DFTB", "DFTB + delta")


def coordinate(positions: FloatArray) -> float:
    """d(S-C) - d(C-N) in bohr."""
    vectors = positions[PAIRS[:, 0]] - positions[PAIRS[:, 1]]
    return float(np.linalg.norm(vectors, axis=1) @ WEIGHTS)


def relax(evaluator: Evaluator, qm: IntArray, positions: FloatArray, cell: FloatArray) -> FloatArray:
    """Positions with the atoms `qm` where their energy is least, the others where they are."""
    whole = positions.copy()

    def energy(x: FloatArray) -> tuple[float, FloatArray]:
        whole[qm] = x.reshape(-1, 3)
        found = evaluator.evaluate(whole[None], cell[None])
        return float(found.energy[0]), found.gradient[0, qm].ravel()

    options = {"gtol": 1e-4, "ftol": 0.0}
    result = minimize(energy, positions[qm].ravel(), jac=True, method="L-BFGS-B", options=options)
    whole[qm] = result.x.reshape(-1, 3)
    return whole


def follow(models: Path, trajectory: Path, path: Path) -> None:
    """Relax the QM region along the reaction, and keep the frames and their energies by DFTB + delta."""
    config = load_config(FOLDER / "sampling.yaml").model_copy(update={"delta": load_delta(models)})
    setup = Setup(config)
    (last,) = deque(read_trajectory(trajectory), maxlen=1)
    region, evaluator = setup.qm_region, setup.evaluator()
    qm = evaluator.partition.qm_atoms
    energies = {}
    with FrameStore(path, "w") as store:
        store.set_embedding(region.surroundings.settings)
        for places in (PLACES[PLACES >= TOP - 1e-6], PLACES[PLACES < TOP - 1e-6][::-1]):
            positions = last.positions
            for place in places:
                spring = Restraint(PAIRS, WEIGHTS, place / BOHR_IN_ANGSTROM, STIFFNESS)
                positions = relax(BiasedEvaluator(evaluator, spring, True), qm, positions, last.cell)
                snapshot = Snapshot(last.step, last.numbers, positions, last.cell)
                source = f"path of the methyl transfer at {place:.1f} angstrom"
                store.append(cut_frame(snapshot, region, True, source))
                found = evaluator.evaluate(positions[None], last.cell[None])
                low = sum(term.energy[0] for name, term in found.terms.items() if name != "delta")
                energies[source] = {"delta": float(found.terms["delta"].energy[0]), "others": float(low)}
                print(f"{source}: {found.energy[0] * HARTREE_IN_KCAL_PER_MOL:.2f} kcal/mol", flush=True)
    path.with_suffix(".json").write_text(json.dumps(energies, indent=1) + "\n", encoding="utf-8")


def page(path: Path) -> None:
    """Print the table and draw the curves, each from its first point."""
    energies = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    rows = []
    for item in read_labelled([path]).frames:
        place = coordinate(item.frame.positions) * BOHR_IN_ANGSTROM
        found = energies[item.frame.source]
        low = found["others"]  # with the classical terms, which the methods share
        rows.append([place, low + item.reference.energy - item.low.energy, low, low + found["delta"]])
    table = np.array(sorted(rows))
    table[:, 1:] = (table[:, 1:] - table[0, 1:]) * HARTREE_IN_KCAL_PER_MOL
    print("\n".join(map(table_row, [["d(S-C) - d(C-N) / Å", *METHODS], ["---"] * 4])))
    for place, *values in table:
        print(table_row([f"{place:.2f}", *(f"{value:.2f}" for value in values)]))
    away = np.abs(table[:, 2:] - table[:, 1:2])
    for number, method in enumerate(METHODS):
        print(f"{method}: barrier {table[:, number + 1].max():.2f} kcal/mol", end="")
        print(f", off by {away[:, number - 1].max():.2f} at most" if number else "")
    figure = new_figure(6.0, 3.6)
    axis = figure.subplots()
    colours = ("0.2", *COLOURS)
    for number, method in enumerate(METHODS):
        axis.plot(table[:, 0], table[:, number + 1], "o-", label=method, color=colours[number], markersize=4)
    axis.set_xlabel("d(S-C) - d(C-N) / Å", fontsize=9)
    axis.set_ylabel("energy / kcal/mol", fontsize=9)
    axis.legend(fontsize=8, frameon=False)
    tidy(axis)
    figure.savefig(FOLDER / "barrier.png", dpi=DPI)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=("follow", "page"))
    parser.add_argument("paths", type=Path, nargs="+")
    arguments = parser.parse_args()
    if arguments.task == "follow":
        follow(*arguments.paths)
    else:
        page(*arguments.paths)


if __name__ == "__main__":
    main()
