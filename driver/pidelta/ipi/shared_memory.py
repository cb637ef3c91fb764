"""The numbers of a request and of its answer in shared memory, as i-PI has them in mode ``shm``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from pidelta.errors import ProtocolError, TransportError
from pidelta.ipi.protocol import SEGMENTS
from pidelta.state import FloatArray


class SharedArrays:
    """The arrays of B structures of N atoms in segments that i-PI made and will remove.

    Args:
        segments: names of the segments, in the order of `SEGMENTS`.
        batch_size: B.
        n_atoms: N.

    Raises:
        TransportError: there is no such segment.
        ProtocolError: a segment is too small.
    """

    def __init__(self, segments: Sequence[str], batch_size: int, n_atoms: int) -> None:
        atoms, matrix = (batch_size, n_atoms, 3), (batch_size, 3, 3)
        shapes = (atoms, matrix, matrix, (batch_size,), atoms, matrix)
        self._arrays: dict[str, FloatArray] = {}
        self._attached: list[SharedMemory] = []
        try:
            for kind, segment, shape in zip(SEGMENTS, segments, shapes, strict=True):
                self._attached.append(_attach(segment))
                self._arrays[kind] = _array_in(self._attached[-1], kind, shape)
        except BaseException:
            self.close()
            raise

    def structures(self) -> tuple[FloatArray, FloatArray]:
        """Return positions (B, N, 3) and cells (B, 3, 3), lattice vectors as rows, both in bohr."""
        return self._arrays["positions"].copy(), self._arrays["cells"].transpose(0, 2, 1).copy()

    def write(self, energies: FloatArray, gradient: FloatArray, virials: FloatArray) -> None:
        """Leave the results for i-PI, before FORCEREADY is sent.

        Args:
            energies: (B,) in hartree.
            gradient: (B, N, 3) dE/dR in hartree/bohr; i-PI gets forces.
            virials: (B, 3, 3) -dE/d(strain) in hartree.
        """
        self._arrays["energies"][:] = energies
        np.negative(gradient, out=self._arrays["forces"])
        self._arrays["virials"][:] = virials

    def close(self) -> None:
        """Let go of the segments."""
        self._arrays.clear()
        for segment in self._attached:
            segment.close()
        self._attached.clear()


def _attach(name: str) -> SharedMemory:
    try:
        if sys.version_info >= (3, 13):
            return SharedMemory(name, track=False)
        attached = SharedMemory(name)
    except OSError as error:
        raise TransportError(
            f"cannot attach to the shared memory {name} of i-PI: {error.strerror}; with mode shm, client and "
            "i-PI run on one host"
        ) from error
    # Before Python 3.13 a process removes at its end all that it attached to, under the feet of i-PI.
    resource_tracker.unregister(f"/{name}", "shared_memory")
    return attached


def _array_in(segment: SharedMemory, kind: str, shape: tuple[int, ...]) -> FloatArray:
    expected = 8 * int(np.prod(shape))
    if segment.size < expected:
        raise ProtocolError(
            f"shared memory of {kind}: expected {expected} bytes, found {segment.size} in {segment.name}"
        )
    array: FloatArray = np.ndarray(shape, np.float64, buffer=segment.buf)
    return array
