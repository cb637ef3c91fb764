"""What came of the production runs: ``python production_page.py FOLDER`` writes production.md and pictures.

FOLDER is that of production.py, with its frames labelled or not; runs may be under way.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from production import CONFIG, RUNS

from pidelta.analysis.bonds import BondLengths, bond_kinds
from pidelta.analysis.distances import RadialDistribution, pairs_of, radial_distributions
from pidelta.analysis.ipi_output import read_properties
from pidelta.analysis.pages import table_row
from pidelta.analysis.plots import COLOURS, DPI, new_figure, tidy
from pidelta.analysis.run_files import BeadFrames, RunFiles
from pidelta.analysis.sections import Section
from pidelta.analysis.statistics import mean_with_error, settled
from pidelta.analysis.summary import Drift, fit_drift
from pidelta.cli.report_input import composition_of
from pidelta.config import load_config
from pidelta.data.labelled import read_labelled
from pidelta.delta.assessment import CORRECTED, LOW, assess
from pidelta.ipi.outputs import read_outputs
from pidelta.setup import Setup
from pidelta.state import FloatArray
from pidelta.units import HARTREE_IN_KCAL_PER_MOL

HERE = Path(__file__).parent
TITLES = {
    "classical": "DFTB + delta, classical",
    "quantum": "DFTB + delta, 16 beads",
    "classical-dftb": "DFTB, classical",
    "quantum-dftb": "DFTB, 16 beads",
}
PAIRS = {"QM H(N) - water O": "N-H···O of water", "QM O - water H": "C=O···H of water"}
BONDS = ("QM N-H", "QM C-H", "QM C-O", "QM C-N")
STRUCTURES = 2000  # in which distances are counted
AT_ONCE = 20


@dataclass(frozen=True)
class Produced:
    """One run as far as it is.

    Attributes:
        name: of RUNS.
        time, temperature: (n,) in ps and K.
        drift: of the conserved quantity.
        pairs: radial distributions in the order of PAIRS.
        bonds: of the QM region.
        spread: (m, 3) time in ps, spread of the models in kcal/mol, distance from their training; one bead
            a snapshot. None by DFTB alone.
    """

    name: str
    time: FloatArray
    temperature: FloatArray
    drift: Drift
    pairs: list[RadialDistribution]
    bonds: Section
    spread: FloatArray | None


def read(folder: Path, name: str, setup: Setup) -> Produced:
    """Look at all that a run has written."""
    path = folder / name / "input.xml"
    system = read_outputs(path).systems[0]
    composition = composition_of(path, system, setup)
    frames = RunFiles(system, len(composition)).frames("positions")
    molecules = composition.molecules
    assert frames is not None
    assert molecules is not None
    written = read_properties(folder / name / f"{name}.out")
    time, conserved = written.columns["time"], written.atomic("conserved")
    pairs = [pair for pair in pairs_of(composition) if pair.name in PAIRS]
    kinds = [kind for kind in bond_kinds(composition, setup.system.positions) if kind.name in BONDS]
    lengths = BondLengths(kinds, frames.n_beads > 1)
    for index in range(len(frames) // 20, len(frames)):
        lengths.add(frames.snapshot(index, setup.qm_indices))
    return Produced(
        name,
        time,
        written.columns["temperature"],
        fit_drift(settled(time), settled(conserved), len(composition)),
        radial_distributions(pairs, frames, molecules, STRUCTURES),
        lengths.section(),
        spread(setup, frames, RUNS[name].spacing) if RUNS[name].delta else None,
    )


def spread(setup: Setup, frames: BeadFrames, spacing: float) -> FloatArray:
    """(m, 3) of Produced, by the whole models, which no client of a run on two sets of beads has."""
    evaluator = setup.evaluator(frozenset({"delta"}))
    rows = []
    for first in range(0, len(frames), AT_ONCE):
        indices = range(first, min(first + AT_ONCE, len(frames)))
        read = [frames.read(index, index % frames.n_beads) for index in indices]
        positions, cells = (np.stack(values) for values in zip(*read, strict=True))
        found = evaluator.evaluate(positions, cells).properties
        rows.append(
            np.column_stack(
                [
                    spacing * np.array(indices),
                    found["delta_standard_deviation"].ravel() * HARTREE_IN_KCAL_PER_MOL,
                    found["delta_extrapolation"].ravel(),
                ]
            )
        )
    return np.concatenate(rows)


def page(folder: Path) -> None:
    """Write production.md and its pictures."""
    setup = Setup(load_config(CONFIG))
    runs = [read(folder, name, setup) for name in RUNS if (folder / name / f"{name}.out").exists()]
    limit = setup.spread_threshold * HARTREE_IN_KCAL_PER_MOL
    lines = [
        "# Production",
        "",
        "Uracil in 900 waters at 300 K by `production.py`: stiff terms every 0.5 fs on all beads, smooth "
        "ones every 2 fs, on 8 beads of 16. Made by `production_page.py`.",
        "",
        *_stability(runs, limit),
        "![spread of the models over time](production-spread.png)",
        "",
        *_bonds(runs),
        "![bond lengths](production-bonds.png)",
        "",
        *_shells(runs),
        "![radial distribution functions](production-water.png)",
        "",
        *_errors(folder, setup),
    ]
    (HERE / "production.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))
    draw_spread(runs, limit)
    draw_bonds(runs)
    draw_pairs(runs)


def _stability(runs: list[Produced], limit: float) -> list[str]:
    lines = [
        f"Spread: of the models, calibrated, in kcal/mol; a run warns above {limit:.2f}, and where a "
        "structure is farther than 1 from those of the training. Conserved quantity: its slope.",
        "",
    ]
    head = ["run", "ps", "temperature / K", "conserved / meV/atom/ps"]
    head += ["spread, mean", "largest", "above the limit", "outside the training"]
    rows = []
    for run in runs:
        cells = [
            TITLES[run.name],
            f"{run.time[-1]:.1f}",
            mean_with_error(settled(run.temperature)).shown(".1f"),
            run.drift.slope.shown(".5f"),
        ]
        if run.spread is None:
            cells += [""] * 4
        else:
            _, values, far = run.spread.T
            shares = [f"{100 * np.mean(values > limit):.1f} %", f"{100 * np.mean(far > 1.0):.1f} %"]
            cells += [f"{values.mean():.3f}", f"{values.max():.2f}", *shares]
        rows.append(cells)
    return lines + _table(head, rows)


def _bonds(runs: list[Produced]) -> list[str]:
    lines = [
        "Bond lengths, mean and standard deviation over all beads in Å; the first twentieth left out:",
        "",
    ]
    rows = []
    for run in runs:
        numbers = {number.name: number for number in run.bonds.numbers}
        cells = [
            f"{numbers[name].mean.shown('.4f')}, {numbers[name].details['standard deviation, beads / Å']}"
            for name in BONDS
        ]
        rows.append([TITLES[run.name], *cells])
    return lines + _table(["run", *(name.removeprefix("QM ") for name in BONDS)], rows)


def _shells(runs: list[Produced]) -> list[str]:
    lines = [
        "Hydrogen bonds with water, the first maximum of g(r), errors from blocks in time:",
        "",
    ]
    rows = []
    for run in runs:
        cells = [TITLES[run.name]]
        for pair in run.pairs:
            first = int(np.argmax(np.where(pair.r < 2.5, pair.g, 0.0)))
            cells += [f"{pair.g[first]:.2f} ± {pair.error[first]:.2f}", f"{pair.r[first]:.2f}"]
        rows.append(cells)
    head = [words for title in PAIRS.values() for words in (f"{title}: height", "at / Å")]
    return lines + _table(["run", *head], rows)


def _errors(folder: Path, setup: Setup) -> list[str]:
    found = {name: folder / name / "frames.h5" for name in RUNS if (folder / name / "frames.h5").exists()}
    if not found:
        return []
    lines = [
        "Errors in the field: frames evenly spaced in time, of the ring polymer each of another bead, "
        "labelled afterwards by B3LYP-D3(BJ)/def2-SVP; MAE, of energies less their mean error:",
        "",
    ]
    head = ["run", "frames", "energy, DFTB / kcal/mol", "energy", "QM gradient, DFTB / kcal/mol/Å"]
    head += ["QM gradient", "MM gradient, DFTB", "MM gradient"]
    rows = []
    for name, path in found.items():
        frames = read_labelled([path]).frames
        errors = assess(setup.correction, frames)
        low, corrected = errors[LOW], errors[CORRECTED]
        values = [
            (low.energy, corrected.energy, ".2f", ".3f"),
            (low.qm_gradient, corrected.qm_gradient, ".1f", ".2f"),
            (low.mm_gradient, corrected.mm_gradient, ".3f", ".4f"),
        ]
        cells = [cell for a, b, fa, fb in values for cell in (f"{a[0]:{fa}}", f"{b[0]:{fb}}")]
        rows.append([TITLES[name], str(len(frames)), *cells])
    return lines + _table(head, rows)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [*map(table_row, [head, ["---"] * len(head), *rows]), ""]


def draw_spread(runs: list[Produced], limit: float) -> None:
    """The spread and the distance from the training over time."""
    known = [run for run in runs if run.spread is not None]
    figure = new_figure(8.0, 2.4 * len(known))
    axes = figure.subplots(len(known), 2, squeeze=False)
    for run, (left, right) in zip(known, axes, strict=True):
        time, values, far = run.spread.T
        colour = COLOURS[list(RUNS).index(run.name)]
        left.plot(time, values, color=colour, linewidth=0.7)
        left.axhline(limit, color="0.4", linestyle="--", linewidth=0.8)
        right.plot(time, far, color=colour, linewidth=0.7)
        right.axhline(1.0, color="0.4", linestyle="--", linewidth=0.8)
        _label(left, TITLES[run.name], "time / ps", "spread / kcal/mol")
        _label(right, "", "time / ps", "distance from the training")
        for axis in (left, right):
            axis.set_ylim(bottom=0.0)
    figure.savefig(HERE / "production-spread.png", dpi=DPI)


def draw_bonds(runs: list[Produced]) -> None:
    """Distributions of bond lengths, of beads where there are some."""
    figure = new_figure(8.0, 5.2)
    for axis, name in zip(figure.subplots(2, 2).ravel(), BONDS, strict=True):
        for run in runs:
            panel = next(panel for panel in run.bonds.pictures[0].panels if panel.title == name)
            curve = panel.curves[0]
            axis.plot(curve.x, curve.y, label=TITLES[run.name], **_style(run.name))
        _label(axis, name.removeprefix("QM "), "length / Å", "density / 1/Å")
        if name == BONDS[0]:
            axis.legend(fontsize=7, frameon=False)
    figure.savefig(HERE / "production-bonds.png", dpi=DPI)


def draw_pairs(runs: list[Produced]) -> None:
    """Water around N-H and C=O."""
    figure = new_figure(8.0, 3.2)
    for place, (axis, title) in enumerate(zip(figure.subplots(1, 2), PAIRS.values(), strict=True)):
        for run in runs:
            pair, style = run.pairs[place], _style(run.name)
            axis.plot(pair.r, pair.g, label=TITLES[run.name], **style)
            axis.fill_between(
                pair.r,
                pair.g - pair.error,
                pair.g + pair.error,
                color=style["color"],
                alpha=0.2,
                linewidth=0.0,
            )
        axis.set_xlim(1.2, 6.0)
        _label(axis, title, "distance / Å", "g(r)")
        if place == 0:
            axis.legend(fontsize=7, frameon=False)
    figure.savefig(HERE / "production-water.png", dpi=DPI)


def _style(name: str) -> dict[str, str | float]:
    """Colours tell classical from quantum, dashes DFTB alone."""
    return {
        "color": COLOURS[int("quantum" in name)],
        "linestyle": "-" if RUNS[name].delta else "--",
        "linewidth": 1.1,
    }


def _label(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=9, loc="left")
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)
    tidy(axis)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    page(parser.parse_args().folder.resolve())
