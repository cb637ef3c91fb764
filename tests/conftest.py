"""What all tests share: the reference material beside the checkout and one thread per test process."""

import os
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

SHARED = Path(__file__).parents[2] / "shared"
ROOT = Path(__file__).parents[1]
