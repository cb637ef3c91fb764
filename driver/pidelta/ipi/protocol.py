"""The i-PI socket protocol as a state machine: bytes in, events out, no input or output of its own.

The messages are those of i-PI 3.3 (``ipi/interfaces/sockets.py``; Kapil et al., Comput. Phys. Commun. 236,
214 (2019)): headers of 12 characters padded with blanks, native int32 and float64. i-PI speaks first; per
force request the exchange is

    STATUS                      -> NEEDINIT | READY | HAVEDATA
    INIT  rid, n, n bytes
    POSDATA  cell, inverse, N, positions                             (one structure)
    POSDATA  N, B x (cell, inverse), B x positions                   (INIT announced batch_size:B > 1)
    GETFORCE                    -> FORCEREADY, energies, N, forces, virials, B x (n, n bytes)
    EXIT

With the numbers in shared memory (mode ``shm``) they are instead, with the names in the first POSDATA only,

    POSDATA  N, 6 x (n, name of n bytes)
    GETFORCE                    -> FORCEREADY, B x (n, n bytes)
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from pidelta.errors import ProtocolError, TransportError
from pidelta.state import FloatArray

HEADER_BYTES = 12
SEGMENTS = ("positions", "cells", "inverse cells", "energies", "forces", "virials")
"""What the segments of shared memory hold, in the order in which i-PI names them."""
_INT_BYTES = 4
_MATRIX_BYTES = 72
_LONGEST_INIT = 1 << 20
_LARGEST_POSDATA = 1 << 31
_LONGEST_NAME = 200
_SEGMENT_NAME = re.compile(rb"[A-Za-z0-9_.-]+")
_HEADERS = {
    name.ljust(HEADER_BYTES).encode(): name for name in ("STATUS", "INIT", "POSDATA", "GETFORCE", "EXIT")
}


@dataclass(frozen=True)
class Status:
    """i-PI asks what the client is ready for.

    Attributes:
        reply: the answer to send: NEEDINIT, READY or HAVEDATA.
    """

    reply: bytes


@dataclass(frozen=True)
class Init:
    """i-PI initialises the client.

    Attributes:
        rid: index of the request, usually the bead.
        parameters: the text of ``<parameters>`` in the i-PI input, with the announced batch size.
        batch_size: number of structures in each POSDATA that follows.
    """

    rid: int
    parameters: str
    batch_size: int


@dataclass(frozen=True, eq=False)
class PosData:
    """Structures to evaluate.

    Attributes:
        positions: (B, N, 3) in bohr.
        cells: (B, 3, 3) lattice vectors as rows in bohr (i-PI sends them as columns).
    """

    positions: FloatArray
    cells: FloatArray


@dataclass(frozen=True)
class SharedPosData:
    """Structures to evaluate lie in shared memory.

    Attributes:
        segments: names of the shared memory, in the order of `SEGMENTS`; the same in each event.
    """

    segments: tuple[str, ...]


@dataclass(frozen=True)
class GetForce:
    """i-PI asks for the results of the last POSDATA."""


@dataclass(frozen=True)
class Exit:
    """i-PI ends the conversation."""


Event = Status | Init | PosData | SharedPosData | GetForce | Exit


class Connection:
    """The client's side of one conversation with i-PI.

    Bytes go straight to where they belong: write what comes next into `wanted()`, all of it or its beginning,
    and tell `received()` how many bytes that was.

    Args:
        n_atoms: the number of atoms every structure must have.
        shared_memory: whether numbers travel through shared memory.
    """

    def __init__(self, n_atoms: int, *, shared_memory: bool = False) -> None:
        self.batch_size = 1
        self.closed = False
        self._n_atoms = n_atoms
        self._shared_memory = shared_memory
        self._segments: tuple[str, ...] = ()
        self._initialised = False
        self._have_data = False
        self._event: Event | None = None
        self._message = ""
        self._parser = self._parse()
        self._rest = next(self._parser)

    def wanted(self) -> memoryview:
        """Where the next bytes go; empty once i-PI has said EXIT: what follows is of no interest."""
        return self._rest

    def received(self, count: int) -> Event | None:
        """Take note that the first `count` bytes of `wanted()` are there; return the event they complete.

        Raises:
            ProtocolError: an unknown header, a wrong length or number of atoms, or a message out of turn.
        """
        self._rest = self._rest[count:]
        self._event = None
        while not self._rest and not self.closed:
            self._rest = next(self._parser)
        return self._event

    def receive_end(self) -> None:
        """Take note that the peer closed the connection; between messages that is a clean end.

        Raises:
            TransportError: the connection ended in the middle of a message.
        """
        if not self.closed and (self._message or len(self._rest) < HEADER_BYTES):
            raise TransportError(
                f"the connection to i-PI broke inside {self._message or 'a header'}: "
                f"expected {len(self._rest)} more bytes, found none"
            )
        self.closed = True

    def _parse(self) -> Generator[memoryview, None, None]:
        """Yield where the next bytes go, and leave the event of a whole message behind."""
        header = bytearray(HEADER_BYTES)
        while True:
            self._message = ""
            yield memoryview(header)
            name = _HEADERS.get(bytes(header))
            if name is None:
                raise ProtocolError(
                    f"i-PI sent an unknown header: expected {', '.join(_HEADERS.values())}, "
                    f"found {bytes(header)!r}"
                )
            self._message = name
            if name == "STATUS":
                self._event = Status(self._status_reply())
            elif name == "INIT":
                yield from self._parse_init()
            elif name == "POSDATA":
                if not self._initialised:
                    raise ProtocolError("i-PI sent POSDATA: expected INIT before it, found none")
                yield from self._parse_shared() if self._shared_memory else self._parse_positions()
                self._have_data = True
            elif name == "GETFORCE":
                if not self._have_data:
                    raise ProtocolError("i-PI sent GETFORCE: expected POSDATA before it, found none")
                self._have_data = False
                self._event = GetForce()
            else:
                self._event = Exit()
                self.closed = True
                yield memoryview(bytearray())

    def _status_reply(self) -> bytes:
        if not self._initialised:
            return _header("NEEDINIT")
        return _header("HAVEDATA" if self._have_data else "READY")

    def _parse_init(self) -> Generator[memoryview, None, None]:
        numbers = bytearray(2 * _INT_BYTES)
        yield memoryview(numbers)
        rid, length = _read_integer(numbers[:_INT_BYTES]), _read_integer(numbers[_INT_BYTES:])
        if not 0 <= length <= _LONGEST_INIT:
            raise ProtocolError(
                f"i-PI sent INIT with a wrong length: expected 0 to {_LONGEST_INIT}, found {length}"
            )
        parameters = bytearray(length)
        yield memoryview(parameters)
        text = parameters.decode("utf-8", errors="replace")
        self.batch_size = self._read_batch_size(text)
        self._initialised = True
        self._event = Init(rid, text, self.batch_size)

    def _parse_positions(self) -> Generator[memoryview, None, None]:
        batch = self.batch_size
        matrices = memoryview(bytearray(2 * _MATRIX_BYTES * batch + _INT_BYTES))
        if batch == 1:
            yield matrices
            matrices, count = matrices[:-_INT_BYTES], matrices[-_INT_BYTES:]
            self._check_count(count)
        else:
            yield from self._parse_count()
            matrices = matrices[:-_INT_BYTES]
            yield matrices
        positions = np.empty((batch, self._n_atoms, 3))
        yield positions.data.cast("B")
        cells = np.frombuffer(matrices).reshape(batch, 2, 3, 3)[:, 0].transpose(0, 2, 1).copy()
        self._event = PosData(positions, cells)

    def _parse_shared(self) -> Generator[memoryview, None, None]:
        yield from self._parse_count()
        number = bytearray(_INT_BYTES)
        while len(self._segments) < len(SEGMENTS):
            yield memoryview(number)
            length = _read_integer(number)
            name = bytearray(length if 0 <= length <= _LONGEST_NAME else 0)
            yield memoryview(name)
            if _SEGMENT_NAME.fullmatch(name) is None:
                raise ProtocolError(
                    f"i-PI sent POSDATA: expected the name of the shared memory of "
                    f"{SEGMENTS[len(self._segments)]}, found {length} bytes, {bytes(name)!r}"
                )
            self._segments += (name.decode(),)
        self._event = SharedPosData(self._segments)

    def _parse_count(self) -> Generator[memoryview, None, None]:
        count = bytearray(_INT_BYTES)
        yield memoryview(count)
        self._check_count(count)

    def _check_count(self, count: bytearray | memoryview) -> None:
        found = _read_integer(count)
        if found != self._n_atoms:
            raise ProtocolError(
                f"wrong number of atoms: expected {self._n_atoms} as in the structure, i-PI sent {found}"
            )

    def _read_batch_size(self, parameters: str) -> int:
        """Find ``batch_size:B`` among the parameters of INIT; without it B is 1."""
        value = read_parameters(parameters).get("batch_size", "1")
        largest = max(1, _LARGEST_POSDATA // (2 * _MATRIX_BYTES + 24 * self._n_atoms))
        if not re.fullmatch("[0-9]{1,10}", value) or not 1 <= int(value) <= largest:
            raise ProtocolError(
                f"i-PI sent INIT with a wrong batch_size: expected 1 to {largest}, found {value!r}"
            )
        return int(value)


def encode_forces(
    energies: FloatArray, gradient: FloatArray, virials: FloatArray, extras: Sequence[bytes]
) -> bytearray:
    """Return the answer to GETFORCE for the B structures of a POSDATA.

    Args:
        energies: (B,) in hartree.
        gradient: (B, N, 3) dE/dR in hartree/bohr; i-PI gets forces.
        virials: (B, 3, 3) -dE/d(strain) in hartree.
        extras: B strings, encoded (their length on the wire counts bytes, not characters).

    Raises:
        ValueError: an argument has a wrong shape.
    """
    batch, n_atoms = gradient.shape[:2]
    if len(extras) != batch:
        raise ValueError(f"extras: expected {batch} strings, found {len(extras)}")
    head = _header("FORCEREADY") + _floats("energies", energies, (batch,)) + _integer(n_atoms)
    tail = _floats("virials", virials, (batch, 3, 3)) + b"".join(_lengths_and_texts(extras))
    reply = bytearray(len(head) + 8 * gradient.size + len(tail))
    reply[: len(head)] = head
    reply[len(reply) - len(tail) :] = tail
    forces = np.frombuffer(reply, np.float64, gradient.size, len(head)).reshape(batch, n_atoms, 3)
    np.negative(gradient, out=forces)
    return reply


def encode_shared(extras: Sequence[bytes]) -> bytes:
    """Return the answer to GETFORCE with the numbers in shared memory; `extras` as in `encode_forces`."""
    return b"".join([_header("FORCEREADY"), *_lengths_and_texts(extras)])


def _lengths_and_texts(extras: Sequence[bytes]) -> list[bytes]:
    return [part for extra in extras for part in (_integer(len(extra)), extra)]


def _header(name: str) -> bytes:
    return name.ljust(HEADER_BYTES).encode()


def _floats(name: str, values: FloatArray, shape: tuple[int, ...]) -> bytes:
    if values.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, found {values.shape}")
    return np.asarray(values, np.float64).tobytes()


def _integer(value: int) -> bytes:
    return struct.pack("=i", value)


def _read_integer(data: bytearray | memoryview) -> int:
    return int.from_bytes(data, sys.byteorder, signed=True)


def read_parameters(text: str) -> dict[str, str]:
    """Keys and values of ``<parameters>``: ``{key: value, ...}`` in an input, the same bare in INIT."""
    tokens = text.strip(" \t\r\n\0").strip("{}").split(",")  # ASE sends a zero byte for nothing
    pairs = (token.partition(":") for token in tokens if token.strip())
    return {key.strip(): value.strip() for key, _, value in pairs}
