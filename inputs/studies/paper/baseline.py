"""Does a weighted baseline help? Errors of the uracil models that ship, for what DFTB is trusted to err by.

Run: python baseline.py FRAMES.h5...     labelled, with low-level labels, as repeat.sh makes them in frames/
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pidelta.config import load_config
from pidelta.data.labelled import read_labelled
from pidelta.delta.assessment import CORRECTED, assess
from pidelta.setup import Setup
from pidelta.units import KCAL_PER_MOL

CONFIG = Path(__file__).resolve().parents[2] / "uracil-water" / "pidelta.yaml"


def main(paths: list[Path]) -> None:
    config = load_config(CONFIG)
    assert config.delta is not None
    for path in paths:
        frames = read_labelled([path]).frames
        offset = float(np.mean([item.reference.energy - item.low.energy for item in frames]))
        for trusted in (None, 3.0, 1.0, 0.3):
            error = None if trusted is None else trusted * KCAL_PER_MOL
            delta = config.delta.model_copy(update={"baseline_error": error, "offset": offset})
            model = Setup(config.model_copy(update={"delta": delta})).correction
            found = assess(model, frames)[CORRECTED]
            errors = f"{found.energy[0]:.3f} {found.qm_gradient[0]:.2f} {found.mm_gradient[0]:.4f}"
            print(f"{path.name}, baseline_error {trusted} kcal/mol: {errors}")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
