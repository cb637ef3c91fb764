"""Time of the delta term for uracil in 900 waters: both kinds of models, a committee of three, several beads.

Run: python tests/benchmarks/delta.py [--models FILE ...] [--batches 1 8 32] [--repeats 20] [--float32]

The term is timed alone, from a `Region` to its gradient, on one thread. The committees take turns; medians of
CPU time. Their weights are random, as the time does not depend on them; `--models` adds a committee of files,
`--float32` each committee with its networks in float32.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from pidelta.config import load_config
from pidelta.delta.base import Provenance
from pidelta.delta.committee import Committee
from pidelta.delta.coverage import Coverage, Ellipsoid
from pidelta.delta.loading import load_correction, model_kinds
from pidelta.delta.training.settings import TrainingFile
from pidelta.setup import Setup

URACIL = Path(__file__).parents[2] / "inputs" / "uracil-water"
EMBEDDING = {"scheme": "cutoff", "cutoff": "1.4 nm", "switch": "0.2 nm"}
MEMBERS = 3
WARM_UP = 2


def committee(name, rng):
    """Untrained models of a kind; their coverage has as many directions as that of the models that ship."""
    kind = model_kinds()[name]
    file = TrainingFile.model_validate({"model": name, "embedding": EMBEDDING})
    settings = file.model_settings((1, 6, 7, 8), (1, 8))
    structure = settings.structure_count
    widths = (structure, settings.coverage_blocks[-1].stop - structure)
    parts = [
        tuple(
            Ellipsoid(np.zeros(width), np.ones(width), rng.normal(0.0, 0.01, (width, width // 3)))
            for _ in settings.elements
        )
        for width in widths
    ]
    provenance = Provenance(
        "", "", file.embedding.as_mapping(), ((1, 1, 1, 1, 6, 6, 6, 6, 7, 7, 8, 8),), settings.mm_elements
    )
    return Committee(
        [
            kind(settings, kind.networks_class(settings, seed), Coverage(*parts), 1e-3, provenance)
            for seed in range(MEMBERS)
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", type=Path, default=[])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--float32", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    setup = Setup(load_config(URACIL / "pidelta.yaml"))
    corrections = {}
    for dtype in (torch.float64, torch.float32)[: 2 if arguments.float32 else 1]:
        more = "" if dtype == torch.float64 else ", float32"
        own = {name: committee(name, rng) for name in model_kinds()}
        if arguments.models:
            own["files"] = Committee([load_correction(path) for path in arguments.models])
        for name, correction in own.items():
            for member in correction.members:
                member.dtype = dtype
            corrections[name + more] = Committee(correction.members)
    table = Table("structures", *corrections, title=f"delta term, {MEMBERS} models: ms a structure")
    for batch in arguments.batches:
        shape = (batch, *setup.system.positions.shape)
        beads = setup.system.positions + rng.normal(0.0, 0.05, shape)
        region = setup.surroundings.cut(beads, np.repeat(setup.system.cell[None], batch, axis=0))
        times = {name: [] for name in corrections}
        for _ in range(WARM_UP + arguments.repeats):
            for name, correction in corrections.items():
                started = time.process_time()
                correction.evaluate(region)
                times[name].append(time.process_time() - started)
        medians = [1e3 * np.median(own[WARM_UP:]) / batch for own in times.values()]
        table.add_row(str(batch), *(f"{value:.2f}" for value in medians))
    sites = region.site_charges.shape[1]
    Console(width=100).print(table)
    print(f"{len(region.numbers)} QM atoms, {sites} sites, one thread")


if __name__ == "__main__":
    main()
