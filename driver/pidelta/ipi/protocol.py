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
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pidelta.errors import ProtocolError, TransportError
from pidelta.state import FloatArray

HEADER_BYTES = 12
_INT_BYTES = 4
_MATRIX_BYTES = 72
_LONGEST_INIT = 1 << 20
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
class GetForce:
    """i-PI asks for the results of the last POSDATA."""


@dataclass(frozen=True)
class Exit:
    """i-PI ends the conversation."""


Event = Status | Init | PosData | GetForce | Exit


class Connection:
    """The client's side of one conversation with i-PI.

    Args:
        n_atoms: the number of atoms every structure must have.
    """

    def __init__(self, n_atoms: int) -> None:
        self.batch_size = 1
        self.closed = False
        self._n_atoms = n_atoms
        self._initialised = False
        self._have_data = False
        self._buffer = bytearray()
        self._events: list[Event] = []
        self._message = ""
        self._parser = self._parse()
        self._wanted = next(self._parser)

    def receive(self, data: bytes) -> list[Event]:
        """Take what came from the socket, cut anywhere, and return the events it completes.

        Bytes after EXIT are ignored: i-PI closes the connection next.

        Raises:
            ProtocolError: an unknown header, a wrong length or number of atoms, or a message out of turn.
        """
        self._buffer += data
        self._events = []
        while not self.closed and len(self._buffer) >= self._wanted:
            chunk = bytes(self._buffer[: self._wanted])
            del self._buffer[: self._wanted]
            self._wanted = self._parser.send(chunk)
        return self._events

    def receive_end(self) -> None:
        """Take note that the peer closed the connection; between messages that is a clean end.

        Raises:
            TransportError: the connection ended in the middle of a message.
        """
        if not self.closed and (self._message or self._buffer):
            raise TransportError(
                f"the connection to i-PI broke inside {self._message or 'a header'}: "
                f"expected {self._wanted} more bytes, found {len(self._buffer)}"
            )
        self.closed = True

    def _parse(self) -> Generator[int, bytes, None]:
        """Yield the number of bytes wanted next, get them, and collect events."""
        while True:
            self._message = ""
            header = yield HEADER_BYTES
            name = _HEADERS.get(header)
            if name is None:
                raise ProtocolError(
                    f"i-PI sent an unknown header: expected {', '.join(_HEADERS.values())}, found {header!r}"
                )
            self._message = name
            if name == "STATUS":
                self._events.append(Status(self._status_reply()))
            elif name == "INIT":
                yield from self._parse_init()
            elif name == "POSDATA":
                yield from self._parse_positions()
            elif name == "GETFORCE":
                if not self._have_data:
                    raise ProtocolError("i-PI sent GETFORCE: expected POSDATA before it, found none")
                self._have_data = False
                self._events.append(GetForce())
            else:
                self._events.append(Exit())
                self.closed = True
                yield 0

    def _status_reply(self) -> bytes:
        if not self._initialised:
            return _header("NEEDINIT")
        return _header("HAVEDATA" if self._have_data else "READY")

    def _parse_init(self) -> Generator[int, bytes, None]:
        rid = _read_integer((yield _INT_BYTES))
        length = _read_integer((yield _INT_BYTES))
        if not 0 <= length <= _LONGEST_INIT:
            raise ProtocolError(
                f"i-PI sent INIT with a wrong length: expected 0 to {_LONGEST_INIT}, found {length}"
            )
        text = (yield length).decode("utf-8", errors="replace")
        self.batch_size = _read_batch_size(text)
        self._initialised = True
        self._events.append(Init(rid, text, self.batch_size))

    def _parse_positions(self) -> Generator[int, bytes, None]:
        if not self._initialised:
            raise ProtocolError("i-PI sent POSDATA: expected INIT before it, found none")
        batch = self.batch_size
        if batch == 1:
            matrices = yield 2 * _MATRIX_BYTES
            self._check_atoms(_read_integer((yield _INT_BYTES)))
        else:
            self._check_atoms(_read_integer((yield _INT_BYTES)))
            matrices = yield 2 * _MATRIX_BYTES * batch
        cells = np.frombuffer(matrices).reshape(batch, 2, 3, 3)[:, 0].transpose(0, 2, 1).copy()
        coordinates = yield 24 * batch * self._n_atoms
        positions = np.frombuffer(coordinates).reshape(batch, self._n_atoms, 3).copy()
        self._have_data = True
        self._events.append(PosData(positions, cells))

    def _check_atoms(self, found: int) -> None:
        if found != self._n_atoms:
            raise ProtocolError(
                f"wrong number of atoms: expected {self._n_atoms} as in the structure, i-PI sent {found}"
            )


def encode_forces(
    energies: FloatArray, forces: FloatArray, virials: FloatArray, extras: Sequence[bytes]
) -> bytes:
    """Return the answer to GETFORCE for the B structures of a POSDATA.

    Args:
        energies: (B,) in hartree.
        forces: (B, N, 3) -dE/dR in hartree/bohr.
        virials: (B, 3, 3) -dE/d(strain) in hartree.
        extras: B strings, encoded (their length on the wire counts bytes, not characters).

    Raises:
        ValueError: an argument has a wrong shape.
    """
    batch, n_atoms = forces.shape[:2]
    if len(extras) != batch:
        raise ValueError(f"extras: expected {batch} strings, found {len(extras)}")
    return b"".join(
        [
            _header("FORCEREADY"),
            _floats("energies", energies, (batch,)),
            _integer(n_atoms),
            _floats("forces", forces, (batch, n_atoms, 3)),
            _floats("virials", virials, (batch, 3, 3)),
            *(_integer(len(extra)) + extra for extra in extras),
        ]
    )


def _header(name: str) -> bytes:
    return name.ljust(HEADER_BYTES).encode()


def _integer(value: int) -> bytes:
    return struct.pack("=i", value)


def _read_integer(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder, signed=True)


def _floats(name: str, values: npt.ArrayLike, shape: tuple[int, ...]) -> bytes:
    array = np.ascontiguousarray(values, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, found {array.shape}")
    return array.tobytes()


def read_parameters(text: str) -> dict[str, str]:
    """Keys and values of ``<parameters>``: ``{key: value, ...}`` in an input, the same bare in INIT."""
    tokens = text.strip(" \t\r\n\0").strip("{}").split(",")  # ASE sends a zero byte for nothing
    pairs = (token.partition(":") for token in tokens if token.strip())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _read_batch_size(parameters: str) -> int:
    """Find ``batch_size:B`` among the parameters of INIT; without it B is 1."""
    value = read_parameters(parameters).get("batch_size", "1")
    if not value.isdecimal() or int(value) < 1:
        raise ProtocolError(f"i-PI sent INIT with a wrong batch_size: expected 1 or more, found {value!r}")
    return int(value)
