"""The command line, one thin file for each subcommand."""

import os

# Before NumPy and torch are loaded: the small matrices of a force call are slowest with many threads.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
