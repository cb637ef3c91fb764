"""A pidelta client, and an ffdirect, whose evaluator returns zeros at once: what is left is the talking.

Run: python free_evaluator.py MODE ADDRESS PORT [SECONDS for a structure]
"""

import sys
import time
from contextlib import closing

import numpy as np

from pidelta.ipi.client import ObservedEvaluator, serve
from pidelta.ipi.transports import connect
from pidelta.state import Evaluation, Term

__DRIVER_NAME__ = "free"
__DRIVER_CLASS__ = "FreeDriver"
ATOMS = 3222


class Free:
    """Zeros for any number of structures, at once or after a while."""

    numbers = np.ones(ATOMS, dtype=np.int64)

    def __init__(self, seconds=0.0):
        self._seconds = seconds
        self._zeros = {}

    def evaluate(self, positions, cells):
        batch = len(positions)
        if self._seconds:
            time.sleep(batch * self._seconds)
        if batch not in self._zeros:
            zeros = Term(np.zeros(batch), np.zeros_like(positions), np.zeros((batch, 3, 3)))
            self._zeros[batch] = Evaluation({"mm": zeros})
        return self._zeros[batch]


def main():
    mode, address, port, *seconds = sys.argv[1:]
    place = "localhost" if mode == "inet" else address
    with closing(connect(mode, place, int(port), patience=60.0)) as transport:
        print(serve(Free(*map(float, seconds)), transport).to_json())


if __name__ == "__main__":
    main()
else:  # i-PI loads this file for an ffdirect
    from pidelta.ipi_pes import PideltaDriver

    class FreeDriver(PideltaDriver):
        def __init__(self, verbosity=None):
            self._evaluator = ObservedEvaluator(Free())
