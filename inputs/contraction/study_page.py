"""The page of study.py: tables, numbers and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from study import (
    BEADS,
    GROUPS,
    LARGE,
    SAMPLED,
    SMALL,
    STRIDE,
    TEMPERATURE,
    WAYS,
    Box,
    beads_of,
    group_indices,
    kinetic_energies,
)

from pidelta.analysis.pages import table_row, write_text
from pidelta.analysis.plots import COLOURS, DPI, new_figure, tidy
from pidelta.analysis.statistics import Mean, mean_with_error
from pidelta.config import load_config
from pidelta.core.cell import minimum_image
from pidelta.setup import Setup
from pidelta.state import FloatArray, IntArray
from pidelta.units import ANGSTROM, HARTREE_IN_EV, HARTREE_IN_KJ_PER_MOL

WHOLE = "all on 32"
SETTLING = {SAMPLED: 400}  # fs, left out: the beads spread out; other runs begin there, in another ensemble
OTHERS_SETTLE, FEWEST_FRAMES = 100, 3
FIRST_FRAME = {"": 20, "large-": 40}
TITLES = {"": "Uracil in 216 waters, DFTB3", "large-": "Uracil in 900 waters, DFTB3 and three delta models"}
HYDROGENS = (GROUPS[0], GROUPS[2])
MEV = 1000.0 * HARTREE_IN_EV
EDGES = np.linspace(0.75, 1.35, 41)  # angstrom, of histograms of bond lengths
BeadFrames = list[tuple[FloatArray, FloatArray]]
Frames = Sequence[Mapping[str, Mapping[str, float]]]
Numbers = dict[str, dict[str, dict[str, Any]]]  # of convergence.json: by kind, title and way


def write_page(folder: Path, target: Path) -> None:
    """Write ``convergence.md``, ``.json`` and ``.png`` from runs and frames in `folder` into `target`.

    What `folder` does not have, and runs that were longer, stay as ``convergence.json`` has them.
    """
    path = target / "convergence.json"
    numbers: Numbers = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for box in (SMALL, LARGE):
        add_numbers(numbers, box, folder)
    write_text(path, json.dumps(numbers, indent=1) + "\n")
    frames, runs = (
        {title: {name: means(ways[name]) for name in WAYS if name in ways} for title, ways in each.items()}
        for each in (numbers["frames"], numbers["runs"])
    )
    write_text(target / "convergence.md", "\n".join(page(frames, runs)) + "\n")
    large = TITLES[LARGE.prefix]
    draw(frames[large], numbers["bonds"][large], target / "convergence.png")


def add_numbers(numbers: Numbers, box: Box, folder: Path) -> None:
    """What `folder` has of a box: its frames, and by way its runs and their bond lengths."""
    title = TITLES[box.prefix]
    frames, runs, bonds = (
        numbers.setdefault(kind, {}).setdefault(title, {}) for kind in ("frames", "runs", "bonds")
    )
    if box.frames(folder).exists():
        frames.update({name: plain(found) for name, found in read_frames(box, folder).items()})
    setup = Setup(load_config(box.config))
    groups = group_indices(setup)
    for name in WAYS:
        place = box.folder(folder, name)
        snapshots = settled_frames(box, place, name) if (place / "run.out").exists() else []
        if len(snapshots) < FEWEST_FRAMES:
            continue
        found = numbers_of_run(place, name, groups, snapshots)
        if name in runs and found["ps"].value < runs[name]["ps"][0]:
            continue
        bonds[name] = {}
        for kind, lengths in bond_lengths(snapshots, setup).items():
            found[f"{kind} mean"] = Mean(float(lengths.mean()), np.nan)
            found[f"{kind} width"] = Mean(float(lengths.std()), np.nan)
            density, _ = np.histogram(lengths, EDGES, density=True)
            bonds[name][kind] = [round(float(value), 3) for value in density]
        runs[name] = plain(found)


def read_frames(box: Box, folder: Path) -> dict[str, dict[str, Mean]]:
    """What frames say of each way that contracts something."""
    frames = json.loads(box.frames(folder).read_text(encoding="utf-8"))[FIRST_FRAME[box.prefix] :]
    found, seen = {}, [dict.fromkeys(box.parts, BEADS)]
    for name, way in WAYS.items():
        beads = {part: way.beads[part] for part in box.parts}
        if way.nmts == 1 and beads not in seen:
            seen.append(beads)
            found[name] = on_frames(frames, name)
    return found


def plain(values: Mapping[str, Mean]) -> dict[str, list[float | None]]:
    """Means and errors as JSON has them."""
    return {key: [mean.value, None if np.isnan(mean.error) else mean.error] for key, mean in values.items()}


def means(values: Mapping[str, tuple[float, float | None]]) -> dict[str, Mean]:
    """What `plain` wrote."""
    return {key: Mean(value, np.nan if error is None else error) for key, (value, error) in values.items()}


def on_frames(frames: Frames, name: str) -> dict[str, Mean]:
    """Of a way: errors of forces, and how much kinetic energies differ from those of the whole in percent."""
    difference = np.array([frame[name]["energy"] - frame[WHOLE]["energy"] for frame in frames]) / TEMPERATURE
    found = {"frames": Mean(len(frames), np.nan), "spread": Mean(float(difference.std()), np.nan)}
    for group in GROUPS:
        own, whole = (np.array([frame[way][group] for frame in frames]) for way in (name, WHOLE))
        error = np.array([frame[name][f"error, {group}"] for frame in frames])
        found[f"force, {group}"] = Mean(100.0 * float(error.mean()), np.nan)
        found[f"kinetic energy, {group}"] = mean_with_error(100.0 * (own - whole) / whole.mean())
    return found


def numbers_of_run(
    place: Path, name: str, groups: Mapping[str, IntArray], frames: BeadFrames
) -> dict[str, Mean]:
    """Kinetic energies in meV an atom, the potential in kJ/mol over the waters, radii in angstrom."""
    series = kinetic_energies(place, groups)
    start = SETTLING.get(name, OTHERS_SETTLE) // STRIDE
    found = {group: mean_with_error(MEV * series[group][start:]) for group in GROUPS}
    per_water = HARTREE_IN_KJ_PER_MOL / len(groups["O of water"])
    found["potential"] = mean_with_error(per_water * series["potential"][start:])
    found["ps"] = Mean(1e-3 * STRIDE * len(series["potential"][start:]), np.nan)
    radii = np.array([radii_of_gyration(beads) for beads, _ in frames])
    for group in HYDROGENS:
        found[f"radius, {group}"] = mean_with_error(radii[:, groups[group]].mean(axis=1))
    return found


def settled_frames(box: Box, place: Path, name: str) -> BeadFrames:
    """The frames of a run that count."""
    return list(beads_of(place))[SETTLING.get(name, OTHERS_SETTLE) // box.frame_stride :]


def radii_of_gyration(beads: FloatArray) -> FloatArray:
    """(N,) of the ring polymers (32, N, 3), in angstrom."""
    spread = ((beads - beads.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0)
    return np.asarray(np.sqrt(spread) / ANGSTROM)


def bond_lengths(frames: BeadFrames, setup: Setup) -> dict[str, FloatArray]:
    """In all beads, in angstrom, of N-H and C-H in uracil and O-H in water."""
    assert setup.topology is not None
    pairs, numbers = setup.topology.bonded_pairs, setup.system.numbers
    kinds = {"O-H": (8, 1), "N-H": (7, 1), "C-H": (6, 1)}
    chosen = {
        kind: np.array([pair for pair in pairs if sorted(numbers[pair]) == sorted(elements)])
        for kind, elements in kinds.items()
    }
    found: dict[str, list[FloatArray]] = {kind: [] for kind in kinds}
    for beads, cell in frames:
        for kind, atoms in chosen.items():
            vectors = minimum_image(beads[:, atoms[:, 1]] - beads[:, atoms[:, 0]], cell)
            found[kind].append(np.linalg.norm(vectors, axis=2).ravel() / ANGSTROM)
    return {kind: np.concatenate(lengths) for kind, lengths in found.items()}


def page(
    by_box: Mapping[str, Mapping[str, Mapping[str, Mean]]],
    runs: Mapping[str, Mapping[str, Mapping[str, Mean]]],
) -> list[str]:
    """The tables, with what they show."""
    lines = [
        "# Convergence of ring polymer contraction",
        "",
        "Uracil in q-SPC/Fw water at 300 K, 32 beads, 1 fs, BAOAB and PILE-G with 100 fs, by `python "
        "study.py run FOLDER`, `frames FOLDER`, both once more with `--large`, and `page FOLDER`. *Smooth* "
        "is `mm.nonbonded`, `low.embedding` and `delta.embedding`; all else is on 32 beads. *Every 2 fs*: "
        "the smooth terms act in the outer time step, the others every 0.5 fs.",
        "",
        f"Frames of the run `{SAMPLED}`, evaluated in each way: RMS error of the forces on beads relative "
        "to their RMS, and the difference of the centroid-virial kinetic energy of an atom from that of all "
        "terms on 32 beads, both in percent; and the spread of the difference of their energies, in kT. "
        "These are differences of the estimator on given frames: what a way samples is in the runs.",
    ]
    for title, ways in by_box.items():
        count = int(next(iter(ways.values()))["frames"].value)
        lines += ["", f"## {title}: the same {count} frames", "", *frames_table(ways)]
    for title, each in runs.items():
        if each:
            lines += ["", f"## {title}: runs of their own", "", *runs_table(each)]
    lines += [
        "",
        "Kinetic energies in meV an atom, radii of gyration and bond lengths (mean and width of all beads) "
        "in angstrom. The potential energy is the whole one, uracil's own included, in kJ/mol over the "
        "number of waters: only its differences mean something.",
    ]
    return lines


def runs_table(runs: Mapping[str, Mapping[str, Mean]]) -> list[str]:
    """One row a way."""
    columns = [*GROUPS, "potential", *(f"radius, {group}" for group in HYDROGENS)]
    kinds = ("O-H", "N-H", "C-H")
    lines = [table_row(["way", "ps", *columns, *kinds]), table_row(["---"] * (len(columns) + 5))]
    for name, values in runs.items():
        cells = [
            f"{values['ps'].value:.2f}",
            *(values[key].shown(".2f" if key == "potential" else ".4g") for key in columns),
        ]
        cells += [
            f"{values[f'{kind} mean'].value:.4f}, {values[f'{kind} width'].value:.4f}" for kind in kinds
        ]
        lines.append(table_row([name, *cells]))
    return lines


def frames_table(ways: Mapping[str, Mapping[str, Mean]]) -> list[str]:
    """One row a way."""
    forces = [f"force, {group}" for group in HYDROGENS]
    energies = [f"kinetic energy, {group}" for group in GROUPS]
    header = ["way", *forces, *energies, "spread"]
    rows = [table_row(header), table_row(["---"] * len(header))]
    for name, values in ways.items():
        cells = [f"{values[key].value:.2g}" for key in forces]
        cells += [values[key].shown("+.2f") for key in energies]
        rows.append(table_row([name, *cells, f"{values['spread'].value:.2f}"]))
    return rows


def draw(
    by_frame: Mapping[str, Mapping[str, Mean]],
    bonds: Mapping[str, Mapping[str, Sequence[float]]],
    path: Path,
) -> None:
    """Kinetic energies by the beads of the smooth terms, and bond lengths of all beads."""
    figure = new_figure(9.6, 3.0)
    axes: Sequence[Axes] = figure.subplots(1, 3)
    names = [name for name in by_frame if name.startswith("smooth on ")]
    counts = [WAYS[name].beads["mm.nonbonded"] for name in names]
    axes[0].axhspan(-1.0, 1.0, color="#5a5a5a", alpha=0.15, linewidth=0.0)
    for group, colour in zip(GROUPS, COLOURS, strict=False):
        means = [by_frame[name][f"kinetic energy, {group}"] for name in names]
        axes[0].errorbar(
            counts, [m.value for m in means], [m.error for m in means], color=colour, label=group, marker="o"
        )
    axes[0].set_xlabel(f"beads of smooth terms, of {BEADS}")
    axes[0].set_ylabel("kinetic energy, off by / %")
    axes[0].legend(frameon=False, fontsize=8)
    for axis, kind in zip(axes[1:], ("O-H", "N-H"), strict=True):
        for name, colour in zip((name for name in WAYS if name in bonds), COLOURS * 2, strict=False):
            style = "-" if name == WHOLE else "--"
            middles = 0.5 * (EDGES[1:] + EDGES[:-1])
            axis.plot(middles, bonds[name][kind], style, color=colour, linewidth=1.1, label=name)
        axis.set_xlabel(f"{kind} / Å")
    axes[1].set_ylabel("probability density / Å$^{-1}$")
    axes[2].set_ylim(top=8.0)
    axes[2].legend(frameon=False, fontsize=6, loc="upper left")
    for axis in axes:
        tidy(axis)
    figure.savefig(path, dpi=DPI)
