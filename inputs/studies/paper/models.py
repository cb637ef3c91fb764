"""Models on the same labels: errors, parameters and times of variants, for numbers of frames and seeds.

Run: python models.py TRAIN.h5 TEST.h5 [--name uracil] [--frames 50 100 200 400] [--seeds 3] [--variants ...]

Frames evenly spread over TRAIN.h5 are trained on, a tenth of them held back by blocks of time for validation.
Each row of `models.csv` is one model, or the mean of the seeds as a committee; rows that are there are not
made again. `--page` writes `models.md` and its picture from it. `repeat.sh` calls it for all rows.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from pidelta.core.switching import quintic
from pidelta.data.frames import Label, LabelledFrame
from pidelta.data.labelled import read_labelled
from pidelta.delta.assessment import assess
from pidelta.delta.base import Correction
from pidelta.delta.committee import Committee
from pidelta.delta.loading import load_correction
from pidelta.delta.training.run import prepare_training, train_models
from pidelta.delta.training.settings import TrainingFile
from pidelta.state import Region
from pidelta.units import ANGSTROM
from pidelta.workflow.learning.selection import descriptors, farthest

HERE = Path(__file__).parent
EMBEDDING = {"scheme": "cutoff", "cutoff": "1.4 nm", "switch": "0.2 nm"}
SWITCH = 2.0 * ANGSTROM
NO_GRADIENTS = {"training": {"qm_gradient_weight": 0.0, "mm_gradient_weight": 0.0}}
# `low` leaves out DFTB: the model learns the reference itself. `cutoff` in angstrom is where it sees charges.
# `choice` of the frames is even over the file by default; `also` is a file of more, beside the first.
# `response 1` is before the field acted on its coefficients, `response 2` before the near field.
FIRST = {"networks": {"response_width": 64, "pair_width": 24, "field_coupling": False, "near_powers": ()}}
SECOND = {"networks": {"near_powers": ()}}
KINDS = {"hdnnp": {"model": "hdnnp"}, "response": {}, "response 2": SECOND, "response 1": FIRST}
WAYS = {
    "": {},
    ", without DFTB": {"low": "none"},
    ", energies alone": NO_GRADIENTS,
    ", without DFTB, energies alone": {"low": "none"} | NO_GRADIENTS,
    **{f", charges within {cutoff} Å": {"cutoff": cutoff} for cutoff in (6, 8, 10, 12)},
}
VARIANTS = {
    "DFTB alone": {},
    **{kind + way: options | change for way, change in WAYS.items() for kind, options in KINDS.items()},
    "response, no field coupling": {"networks": {"field_coupling": False}},
    "response, near field by one function": {"networks": {"near_powers": (8,)}},
    "response, E0 shares its layer": {"networks": {"energy_width": 0}},
    "response, no short-range term": {"networks": {"short_width": 0}},
    "response, random frames": {"choice": "random"},
    "response, frames far from each other": {"choice": "farthest"},
    "response, with minima": {"also": "{}-minima.h5"},
    "response, small": {
        "networks": {"energy_width": 16, "response_width": 16, "pair_width": 8, "short_width": 8}
    },
    "response, large": {
        "networks": {"energy_width": 128, "response_width": 256, "pair_width": 96, "short_width": 48}
    },
}
ERRORS = ("energy", "qm_gradient", "mm_gradient", "near_gradient")
MEASURES = ("mae", "rmse")
COLUMNS = (
    "molecule", "variant", "frames", "seed", "parameters", "seconds", "call",
    *(f"{name}_{kind}" for name in ERRORS for kind in MEASURES),
)  # fmt: skip
Frames = Sequence[LabelledFrame]


def settings(options: dict, epochs: int | None) -> TrainingFile:
    """The settings of a variant, as `train.yaml` would hold them."""
    training = {} if epochs is None else {"epochs": epochs, "patience": epochs}
    content = {key: value for key, value in options.items() if key not in ("low", "cutoff", "choice", "also")}
    return TrainingFile.model_validate(
        {"embedding": EMBEDDING} | content | {"training": training | options.get("training", {})}
    )


def seen(frames: Frames, options: dict) -> list[LabelledFrame]:
    """The frames as a variant sees them; their labels by the reference stay what they are."""
    if options.get("low") == "none":
        frames = [replace(item, low=zero(item.low)) for item in frames]
    if "cutoff" in options:
        frames = [shortened(item, options["cutoff"] * ANGSTROM) for item in frames]
    return list(frames)


def chosen(frames: Frames, choice: str, count: int) -> list[LabelledFrame]:
    """So many of the frames."""
    if choice == "random":
        places = np.random.default_rng(0).permutation(len(frames))[:count]
    elif choice == "farthest":
        rows = descriptors([item.frame for item in frames])
        places = farthest(rows, rows[:0], count)
    else:
        places = np.linspace(0, len(frames) - 1, count).round().astype(int)
    return [frames[place] for place in np.sort(places)]


def zero(label: Label) -> Label:
    """The low-level label of `qm.engine: none`."""
    arrays = {name: np.zeros_like(getattr(label, name)) for name in ("gradient", "site_gradient", "charges")}
    return Label("none", 0.0, **arrays)


def shortened(item: LabelledFrame, cutoff: float) -> LabelledFrame:
    """A frame whose waters fade out, by their oxygens, over the last 2 angstrom before a cutoff in bohr."""
    frame = item.frame
    vectors = frame.site_positions[:, None] - frame.positions
    nearest = np.sqrt((vectors**2).sum(axis=2)).min(axis=1)
    oxygens = np.flatnonzero(frame.site_numbers == 8)
    of_oxygen = oxygens[np.searchsorted(oxygens, np.arange(len(nearest)), side="right") - 1]
    scale = quintic(np.clip((nearest[of_oxygen] - cutoff + SWITCH) / SWITCH, 0.0, 1.0))
    charges = frame.site_charges * scale
    # a site with neither charge nor element is none to the models
    numbers = np.where(scale > 0.0, frame.site_numbers, 0)
    return replace(item, frame=replace(frame, site_charges=charges, site_numbers=numbers))


def errors(model: Correction, frames: Frames, method: str = "low + delta") -> dict[str, float]:
    """Columns of the errors on test frames."""
    found = asdict(assess(model, frames)[method])
    return {f"{name}_{kind}": found[name][place] for name in ERRORS for place, kind in enumerate(MEASURES)}


def time_of_call(model: Correction, region: Region) -> float:
    """The least CPU time of some calls in ms."""
    times = []
    for _ in range(20):
        started = time.process_time()
        model.evaluate(region)
        times.append(time.process_time() - started)
    return 1e3 * min(times)


class Table:
    """The rows of `models.csv`, which grows row by row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as stream:
                self.rows = list(csv.DictReader(stream))

    def has(self, **key: object) -> bool:
        return any(all(row[name] == str(value) for name, value in key.items()) for row in self.rows)

    def add(self, row: dict) -> None:
        row = {
            name: f"{row[name]:.6g}" if isinstance(row[name], float) else str(row[name]) for name in COLUMNS
        }
        self.rows.append(row)
        with self.path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        print(row, flush=True)


def train(key: dict, paths: tuple[Path, Path], seeds: int, epochs: int | None) -> Iterator[dict]:
    """The rows of a variant at a number of frames."""
    torch.set_num_threads(1)
    options, count = VARIANTS[key["variant"]], key["frames"]
    frames, test = (seen(read_labelled([path]).frames, options) for path in paths)
    frames = chosen(frames, options.get("choice", "even"), count)
    if "also" in options:
        also = paths[0].with_name(options["also"].format(paths[0].stem))
        frames += seen(read_labelled([also]).frames, options)
    file = settings(options, epochs)
    data = prepare_training(file, frames)
    models = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            own = file.training.model_copy(update={"seed": seed})
            started = time.process_time()
            (path,) = train_models(data, own, Path(folder) / str(seed))
            seconds = time.process_time() - started
            models.append(load_correction(path))
            parameters = sum(p.numel() for p in models[-1].networks.parameters())
            row = key | {"seed": seed, "parameters": parameters, "seconds": seconds}
            row["call"] = time_of_call(models[-1], test[0].frame.region)
            yield row | errors(models[-1], test)
    if options.get("low") != "none":
        nothing = {"parameters": 0, "seconds": 0.0, "call": 0.0, "seed": "-", "frames": 0}
        yield key | {"variant": "DFTB alone"} | nothing | errors(models[0], test, "low")
    if seeds > 1:
        committee = Committee(models)
        call = time_of_call(committee, test[0].frame.region)
        yield row | {"seed": "committee", "call": call} | errors(committee, test)


def rows_of(key: dict, paths: tuple[Path, Path], seeds: int, epochs: int | None) -> list[dict]:
    """As `train`, for a process of its own."""
    return list(train(key, paths, seeds, epochs))


FINDINGS = """
Settings: 200 epochs, all else as `pidelta train` has it; B3LYP-D3(BJ)/def2-SVP labels, DFTB3/pid 1.1 as the
low level; held out is another box. Frames to train on are evenly spread over all 720 of uracil and 280 of
benzene. Rows with one seed have no error bar.

`response 2` is `response` before the near field. `response 1` is the model before the field acted on its
coefficients, with half the widths. *First frames* and *hot frames first* are rows from before: the first
frames of the files, weight decay 0.3 (0.03 in that of hot frames), and all MM atoms alike in the loss, in
`hdnnp` and `response 1` with a third of their weight.

- Uracil at 400 frames, three models as a committee: 0.10 kcal/mol, 0.39 and 0.0020 kcal/mol/Å; asked were
  0.15, 0.5 and 0.005. DFTB alone errs 34, 28 and 23 times as much. Benzene at 200: 0.06, 0.22 and 0.0012;
  DFTB errs 20, 18 and 16 times as much.
- What was wrong was the form of the model, not the number of frames: `response 2` errs by 0.0040 on the MM
  gradients of its training frames and 0.0051 on those held out, by 0.19 to 0.23 kcal/mol in the energy of
  both. A molecule's field at a charge 2 Å away is not that of multipoles: the charge is within the density,
  which differs between DFT and DFTB. One model had to serve near and far charges by the same multipoles, and
  gave up some of both. With moments of the near charges of their own, errors of energies and MM gradients
  are half, of the QM gradient three quarters of what they were at 400 frames; for energies and MM gradients
  100 frames do what 400 did.
- Near moments alone do not do it: without the short-range term 200 frames give 0.28, 0.68 and 0.0045, with
  it 0.16, 0.59 and 0.0029 (one seed, trials).
- The labels are not what limits: a finer grid (level 6 for 2) moves energies of seven frames by 0.0015
  kcal/mol and QM gradients by 0.008 kcal/mol/Å (`pidelta label --grid-level 6`).
- More epochs help where frames are few: 400 instead of 200 with 200 frames give 0.13, 0.55 and 0.0025
  instead of 0.15, 0.58 and 0.0028 (one seed, trials).
- MM atoms count as the square of their distance in the loss. With equal weights the dipole of the region
  hardly counted, as the gradient on a far atom is small.
- `hdnnp`, networks of the paper's kind, has 0.69, 1.07 and 0.013 at 400 frames, in the energy no less than at
  50: its form is the limit.
- DFTB is worth more than four times the data: with it 100 frames give 0.19, 0.79 and 0.0037, without it 400
  give 0.23, 1.04 and 0.0041.
- Without gradients in the loss, 100 frames give 1.43, 4.3 and 0.027, five to eight times the errors.
- Charges that the models do not see cost MM gradients first: within 12, 10, 8 and 6 Å 0.0064, 0.0092, 0.0129
  and 0.0184, energies 0.22, 0.24, 0.27 and 0.41, QM gradients 0.80 to 0.96 (100 frames; within 14 Å 0.0037,
  0.19 and 0.79). Before the near field other errors hid that.
- Taken apart, 100 frames, three seeds (the whole: 0.19 ± 0.02, 0.79 ± 0.02 and 0.0037): without the
  short-range term 0.28, 0.86 and 0.0047; without the field in the coefficients 0.21, 0.85 and 0.0042; the
  near field by one function of the distance instead of two 0.20, 0.81 and 0.0041. That E0 has a layer of
  its own gains nothing: shared with the coefficients 0.17, 0.79 and 0.0036.
- Size matters little: an eighth of the parameters 0.20, 0.91 and 0.0045, 2.7 times as many 0.17, 0.75 and
  0.0034. `hdnnp` with as few parameters as the small one has 0.69, 1.41 and 0.015: it is the form.
- Frames far from each other are no better than frames drawn at random from these trajectories: 0.28, 1.07
  and 0.0054 against 0.24, 1.05 and 0.0052 with 50 frames, 0.19, 0.75 and 0.0037 against 0.19, 0.74 and 0.0036
  with 100. So as many labels are needed either way, where the pool is good; what a pool lacks is another
  matter.
- Six minima of DFT more in the training (boxes 1 and 2): no difference in the frames of dynamics, 0.19, 0.76
  and 0.0037, and at the minima of box 3 0.084, 0.35 and 0.0021 instead of 0.097, 0.45 and 0.0023.
"""


def page(rows: list[dict]) -> str:
    """Means over the seeds with their standard deviation, and the errors of the committee."""
    lines = [
        "# Models on the same labels",
        "",
        "MAE of held-out frames in kcal/mol and kcal/mol/Å: mean of the seeds ± their standard deviation; in",
        "parentheses the mean of the models as a committee. A call is one structure, one model, one thread.",
        "`models.csv` has each model; `bash repeat.sh` makes all rows and this page.",
        "",
        "| molecule | model | frames | energy | QM gradient | MM gradient | MM, 5 Å | parameters "
        "| training, s | call, ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (molecule, variant, frames), single, together in groups(rows):
        seconds, call = (np.mean([float(row[name]) for row in single]) for name in ("seconds", "call"))
        cells = [*cells_of(single, together, "mae"), single[0]["parameters"], f"{seconds:.0f}", f"{call:.1f}"]
        lines.append(f"| {molecule} | {variant} | {frames} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "![learning curves](models.png)",
        "",
        "RMSE of the same:",
        "",
        "| molecule | model | frames | energy | QM gradient | MM gradient | MM, 5 Å |",
        "|---|---|---|---|---|---|---|",
    ]
    for (molecule, variant, frames), single, together in groups(rows):
        cells = cells_of(single, together, "rmse")
        lines.append(f"| {molecule} | {variant} | {frames} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n" + FINDINGS


def cells_of(single: list[dict], together: list[dict], measure: str) -> list[str]:
    """MAE or RMSE of the kinds of errors: over the seeds, and of the committee."""
    cells = []
    for name in ERRORS:
        values = [float(row[f"{name}_{measure}"]) for row in single]
        cell = f"{np.mean(values):.3g}" + (f" ± {np.std(values, ddof=1):.1g}" if len(values) > 1 else "")
        cells.append(cell + "".join(f" ({float(row[f'{name}_{measure}']):.3g})" for row in together))
    return cells


def groups(rows: list[dict]) -> Iterator[tuple[tuple[str, str, int], list[dict], list[dict]]]:
    """Rows of the same variant and number of frames: those of each seed, and that of the committee."""
    found: dict[tuple[str, str, int], list[dict]] = {}
    for row in rows:
        found.setdefault((row["molecule"], row["variant"], int(row["frames"])), []).append(row)
    order = list(VARIANTS)
    molecules = list(dict.fromkeys(key[0] for key in found))
    for key in sorted(found, key=lambda key: (molecules.index(key[0]), order.index(key[1]), key[2])):
        single = [row for row in found[key] if row["seed"] != "committee"]
        yield key, single, [row for row in found[key] if row["seed"] == "committee"]


def draw(rows: list[dict], path: Path) -> None:
    """Learning curves: errors over the number of frames."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    molecules = list(dict.fromkeys(row["molecule"] for row in rows if "," not in row["molecule"]))
    titles = {
        "energy": "energy, kcal/mol",
        "qm_gradient": "QM gradient, kcal/mol/Å",
        "mm_gradient": "MM gradient, kcal/mol/Å",
    }
    figure = Figure(figsize=(11.0, 3.4 * len(molecules)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(molecules), 3, squeeze=False)
    for line, molecule in zip(panels, molecules, strict=True):
        for axes, (name, title) in zip(line, titles.items(), strict=True):
            curves: dict[tuple[str, str], list[tuple[int, float]]] = {}
            for (own, variant, frames), single, _ in groups(rows):
                value = float(np.mean([float(row[f"{name}_mae"]) for row in single]))
                base, _, which = own.partition(", ")
                if own == molecule and variant == "DFTB alone":
                    axes.axhline(value, color="0.6", linestyle=":", label=variant)
                elif base == molecule and "Å" not in variant:
                    curves.setdefault((variant, which), []).append((frames, value))
            for (variant, which), points in curves.items():
                if len(points) > 1:
                    # frames chosen in another way, in rows from before
                    label, style = (f"{variant} ({which})", "--") if which else (variant, "-")
                    colour = f"C{list(VARIANTS).index(variant)}"
                    axes.loglog(*zip(*points, strict=True), style, marker="o", label=label, color=colour)
            axes.set(xlabel="training frames", title=f"{molecule}: {title}")
            axes.set_xticks([50, 100, 200, 400], labels=["50", "100", "200", "400"])
            axes.minorticks_off()
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small"
    )
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path, nargs="?")
    parser.add_argument("test", type=Path, nargs="?")
    parser.add_argument("--name", default="uracil")
    parser.add_argument("--frames", nargs="+", type=int, default=[50, 100, 200, 400])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS)[1:])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--page", action="store_true")
    arguments = parser.parse_args()
    table = Table(HERE / "models.csv")
    if arguments.train is not None:
        os.environ["OMP_NUM_THREADS"] = "1"
        keys = [
            {"molecule": arguments.name, "variant": variant, "frames": count}
            for count in arguments.frames
            for variant in arguments.variants
        ]
        last = "committee" if arguments.seeds > 1 else 0
        paths = (arguments.train, arguments.test)
        with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
            waiting = [
                pool.submit(rows_of, key, paths, arguments.seeds, arguments.epochs)
                for key in keys
                if not table.has(**key, seed=last)
            ]
            for job in as_completed(waiting):
                for row in job.result():
                    own = {name: row[name] for name in ("molecule", "variant", "frames", "seed")}
                    if not table.has(**own):
                        table.add(row)
    if arguments.page:
        (HERE / "models.md").write_text(page(table.rows), encoding="utf-8")
        draw(table.rows, HERE / "models.png")


if __name__ == "__main__":
    main()
