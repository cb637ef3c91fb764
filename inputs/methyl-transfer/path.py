"""How far DFTB and delta models are from DFT along the methyl transfer, on frames that no training saw.

    python path.py cut ROUND FILE      evenly spaced frames of the windows of a round of pidelta learn
    pidelta label FILE --dispersion d3bj
    pidelta label FILE --low sampling.yaml
    python path.py page FILE MODEL...  a table, and path.png

A round is sampled with the models of the round before, so these models have not seen its frames. Energies
less those of DFT are shown against their mean in the frames of the sulfonium ion: at the top that is by how
much the models' barrier of the free energy is wrong, to first order, where `trust` weighed them down little.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np

from pidelta.analysis.plots import COLOURS, DPI, new_figure, tidy
from pidelta.config import load_config
from pidelta.data.labelled import read_labelled
from pidelta.data.store import FrameStore
from pidelta.delta.committee import Committee
from pidelta.delta.loading import load_correction
from pidelta.ipi.trajectories import read_trajectory
from pidelta.setup import Setup
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL
from pidelta.workflow.learning.pool import evenly
from pidelta.workflow.sampling import cut_frame

FOLDER = Path(__file__).parent
CARBON, SULFUR, NITROGEN = 0, 1, 13
FRAMES = 3  # of each window
SKIP = 100  # steps at the beginning of each
EDGES = (-np.inf, -1.0, -0.4, 0.0, 0.4, 1.0, np.inf)  # angstrom


def cut(folder: Path, path: Path) -> None:
    """Take frames from the windows."""
    region = Setup(load_config(FOLDER / "sampling.yaml")).qm_region
    with FrameStore(path, "a") as store:
        store.set_embedding(region.surroundings.settings)
        present = {frame.source for frame in store}
        for window in sorted(folder.glob("*-umbrella/*")):
            (file,) = window.glob("*.pos_0.xyz")
            snapshots = [each for each in read_trajectory(file) if each.step >= SKIP]
            for place in evenly(len(snapshots), FRAMES):
                snapshot = snapshots[place]
                source = f"{folder.name}/{window.parent.name}/{window.name} step {snapshot.step}"
                if source not in present:
                    store.append(cut_frame(snapshot, region, True, source))


def page(path: Path, models: list[Path]) -> None:
    """Print the table and draw the energies."""
    committee = Committee([load_correction(model) for model in models])
    rows = []
    for item in read_labelled([path]).frames:
        positions = item.frame.positions
        lengths = [np.linalg.norm(positions[CARBON] - positions[other]) for other in (SULFUR, NITROGEN)]
        result = committee.evaluate(item.frame.region)
        low, high = item.low, item.reference
        slopes = [low.gradient, low.gradient + result.gradient.positions[0]]
        energies = [low.energy - high.energy, low.energy + float(result.energy[0]) - high.energy]
        away = [np.abs(slope - high.gradient).mean() / BOHR_IN_ANGSTROM for slope in slopes]
        rows.append([(lengths[0] - lengths[1]) * BOHR_IN_ANGSTROM, *energies, *away])
    table = np.array(sorted(rows))
    table[:, 1:] *= HARTREE_IN_KCAL_PER_MOL
    first = table[:, 0] < EDGES[1]
    if not first.any():
        raise SystemExit(f"{path}: expected frames of the sulfonium ion, found none")
    table[:, 1:3] -= table[first, 1:3].mean(axis=0)  # energies less those of the sulfonium ion
    print(
        "| d(S-C) - d(C-N) / Å | frames | DFTB | DFTB + delta | MAE of their QM gradients |\n"
        "|---|---|---|---|---|"
    )
    for start, end in pairwise(EDGES):
        own = table[(start <= table[:, 0]) & (table[:, 0] < end)]
        if not len(own):
            continue
        cells = [f"{own[:, k].mean():+.2f} ({np.abs(own[:, k]).mean():.2f})" for k in (1, 2)]
        slopes = ", ".join(f"{own[:, k].mean():.2f}" for k in (3, 4))
        print(f"| {start:g} to {end:g} | {len(own)} | {' | '.join(cells)} | {slopes} |")
    figure = new_figure(6.0, 3.6)
    axis = figure.subplots()
    for column, title, colour in ((1, "DFTB", COLOURS[0]), (2, "DFTB + delta", COLOURS[1])):
        axis.plot(table[:, 0], table[:, column], "o", label=title, color=colour, markersize=4)
    axis.axhspan(-1.0, 1.0, color="0.9", zorder=0)
    axis.set_xlabel("d(S-C) - d(C-N) / Å", fontsize=9)
    axis.set_ylabel("energy less DFT / kcal/mol", fontsize=9)
    axis.legend(fontsize=8, frameon=False)
    tidy(axis)
    figure.savefig(FOLDER / "path.png", dpi=DPI)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=("cut", "page"))
    parser.add_argument("paths", type=Path, nargs="+")
    arguments = parser.parse_args()
    if arguments.task == "cut":
        cut(*arguments.paths)
    else:
        page(arguments.paths[0], arguments.paths[1:])


if __name__ == "__main__":
    main()
