"""Models on the same labels: errors, parameters and time of variants, at several numbers of frames and seeds.

Run: python models.py TRAIN.h5 TEST.h5 [--name uracil] [--frames 50 100 200 400] [--seeds 3] [--variants ...]

The first frames of TRAIN.h5 are trained on, a tenth of them held back by blocks of time for validation. Each
row of `models.csv` is one model, or the mean of the seeds as a committee; rows that are there are not made
again. `models.md` is written from it. Both files need low-level labels, too:
`pidelta label TRAIN.h5 --low uracil/sampling.yaml` on a copy of `uracil/labels/train-1.h5`.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from pidelta.data.labelled import read_labelled
from pidelta.delta.assessment import assess
from pidelta.delta.committee import Committee
from pidelta.delta.loading import load_correction
from pidelta.delta.training.run import prepare_training, train_models
from pidelta.delta.training.settings import TrainingFile

HERE = Path(__file__).parent
EMBEDDING = {"scheme": "cutoff", "cutoff": "1.4 nm", "switch": "0.2 nm"}
VARIANTS = {
    "hdnnp": {"model": "hdnnp"},
    "response": {},
    "response, E0 shares its layer": {"networks": {"energy_width": 0}},
    "response, no short-range term": {"networks": {"short_width": 0}},
    "response, finer short range": {"descriptors": {"short_count": 12}, "networks": {"short_width": 48}},
    "response, small": {
        "networks": {"energy_width": 16, "response_width": 16, "pair_width": 8, "short_width": 8}
    },
    "response, large": {
        "networks": {"energy_width": 64, "response_width": 128, "pair_width": 48, "short_width": 48}
    },
}
ERRORS = ("energy", "qm_gradient", "mm_gradient", "near_gradient")
KINDS = ("mae", "rmse")
COLUMNS = (
    "molecule", "variant", "frames", "seed", "parameters", "seconds",
    *(f"{name}_{kind}" for name in ERRORS for kind in KINDS),
)  # fmt: skip


def settings(options, epochs):
    """The settings of a variant, as `train.yaml` would hold them."""
    training = {"epochs": epochs, "patience": epochs} | options.get("training", {})
    return TrainingFile.model_validate({"embedding": EMBEDDING} | options | {"training": training})


def errors(model, frames, method="low + delta"):
    """Columns of the errors on test frames."""
    found = asdict(assess(model, frames)[method])
    return {f"{name}_{kind}": found[name][place] for name in ERRORS for place, kind in enumerate(KINDS)}


class Table:
    """The rows of `models.csv`, which grows row by row."""

    def __init__(self, path):
        self.path = path
        self.rows = list(csv.DictReader(path.open())) if path.exists() else []

    def has(self, **key):
        return any(all(row[name] == str(value) for name, value in key.items()) for row in self.rows)

    def add(self, row):
        row = {
            name: f"{row[name]:.6g}" if isinstance(row[name], float) else str(row[name]) for name in COLUMNS
        }
        self.rows.append(row)
        with self.path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        print(row, flush=True)


def train(table, molecule, name, frames, test, seeds, epochs):
    """All rows of a variant at a number of frames."""
    key = {"molecule": molecule, "variant": name, "frames": len(frames)}
    if table.has(**key, seed="committee" if seeds > 1 else 0):
        return
    file = settings(VARIANTS[name], epochs)
    data = prepare_training(file, frames)
    models = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            own = file.training.model_copy(update={"seed": seed})
            started = time.process_time()
            (path,) = train_models(data, own, Path(folder) / str(seed))
            seconds = time.process_time() - started
            model = load_correction(path)
            models.append(model)
            row = {"parameters": sum(p.numel() for p in model.networks.parameters()), "seconds": seconds}
            if not table.has(**key, seed=seed):
                table.add(key | row | {"seed": seed} | errors(Committee([model]), test))
    if not table.has(molecule=molecule, variant="DFTB alone"):
        alone = {"variant": "DFTB alone", "frames": 0, "seed": "-", "parameters": 0, "seconds": 0.0}
        table.add(key | alone | errors(Committee(models), test, "low"))
    if seeds > 1:
        table.add(key | row | {"seed": "committee"} | errors(Committee(models), test))


FINDINGS = """
Settings: 200 epochs, B3LYP-D3(BJ)/def2-SVP labels, DFTB3/pid 1.1 as the low level, 31 held-out frames from
another box. Rows with one seed have no error bar, and the QM gradient of two seeds differs by a sixth at 50
frames: smaller differences say nothing. What they show:

- `response` has less than half the error on MM atoms of `hdnnp`, a quarter less on those within 5 angstrom,
  and 40 % less in the energy, at 50 and at 100 frames. In the QM gradient it is at most a fifth better.
- Most of that rests on the short-range term: without it, one seed, all errors are nearly twice as large, or more.
- From 50 to 100 frames the QM gradient falls by a fifth to a quarter in either model, with one seed at 100.

The rows are those of `--epochs 200 --frames 50 --seeds 2 --variants hdnnp response` and of `--epochs 200
--frames 100 --seeds 1 --variants hdnnp response "response, no short-range term"`.

Not done yet: 200 and 400 frames, three seeds, E0 apart or not, other sizes. The variants are in `models.py`.
"""


def page(rows):
    """Means over the seeds with their standard deviation, and the errors of the committee."""
    lines = [
        "# Models on the same labels",
        "",
        "MAE of held-out frames in kcal/mol and kcal/mol/angstrom: mean of the seeds ± their standard",
        "deviation; in parentheses the mean of the models as a committee. `models.csv` has each model;",
        "`python models.py TRAIN.h5 TEST.h5` makes both.",
        "",
        "| molecule | model | frames | energy | QM gradient | MM gradient | MM, 5 Å | parameters | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups = {}
    for row in rows:
        groups.setdefault((row["molecule"], row["variant"], int(row["frames"])), []).append(row)
    for (molecule, variant, frames), own in groups.items():
        single = [row for row in own if row["seed"] != "committee"] or own
        together = [row for row in own if row["seed"] == "committee"]
        cells = []
        for name in ERRORS:
            values = [float(row[f"{name}_mae"]) for row in single]
            cell = f"{np.mean(values):.3g}" + (f" ± {np.std(values, ddof=1):.1g}" if len(values) > 1 else "")
            cells.append(
                cell + "".join(f" ({float(row[f'{name}_mae']):.3g})" for row in together if len(single) > 1)
            )
        seconds = np.mean([float(row["seconds"]) for row in single])
        cells += [single[0]["parameters"], f"{seconds:.0f}"]
        lines.append(f"| {molecule} | {variant} | {frames} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n" + FINDINGS


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--name", default="uracil")
    parser.add_argument("--frames", nargs="+", type=int, default=[50, 100, 200, 400])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(HERE / "models.csv")
    frames, test = (read_labelled([path]).frames for path in (arguments.train, arguments.test))
    for count in arguments.frames:
        if count > len(frames):
            print(f"{arguments.train}: {len(frames)} labelled frames, so none of {count}")
            continue
        for name in arguments.variants:
            train(table, arguments.name, name, frames[:count], test, arguments.seeds, arguments.epochs)
    (HERE / "models.md").write_text(page(table.rows), encoding="utf-8")


if __name__ == "__main__":
    main()
