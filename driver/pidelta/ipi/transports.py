"""Streams of bytes to i-PI: unix and internet sockets behind one small interface.

With mode ``shm`` the stream is a unix socket, and what it says points to shared memory.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
import time
from typing import Protocol

from pidelta.errors import SetupError, TransportError

SOCKETS_PREFIX = "/tmp/ipi_"
LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103
"""Bytes of the path of a unix socket, besides the one that ends it."""
UNIX_MODES = ("unix", "shm")
MODES = (*UNIX_MODES, "inet")
ANY_ADDRESS = "0.0.0.0"
"""i-PI listens at each address of the host, for clients on others, too."""
_RETRY_SECONDS = 0.1
_DEAF_SECONDS = 600
"""After so long without reading a byte of what is sent, i-PI is taken for stuck."""
_LOST_HOST = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6, "TCP_USER_TIMEOUT": 120_000}
"""A host that answers nothing is taken for lost after two minutes (Linux counts the last in ms)."""


class Transport(Protocol):
    """A stream of bytes to and from i-PI.

    Attributes:
        shared_memory: whether the numbers travel beside it, through shared memory.
    """

    shared_memory: bool

    def receive_into(self, buffer: memoryview) -> int:
        """Wait for bytes and put them at the beginning of `buffer`, not empty.

        Returns:
            Their number; 0 when the peer closed the connection.

        Raises:
            TransportError: the connection broke.
        """

    def send(self, data: bytes | bytearray) -> None:
        """Send all of `data`.

        Raises:
            TransportError: the connection broke.
        """

    def close(self) -> None:
        """Close the stream."""


class SocketTransport:
    """A connected stream socket as a transport."""

    def __init__(self, connected: socket.socket, *, shared_memory: bool = False) -> None:
        self.shared_memory = shared_memory
        self._socket = connected
        # Not settimeout(): it would make each of the many small calls two.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", _DEAF_SECONDS, 0))

    def receive_into(self, buffer: memoryview) -> int:
        """See `Transport.receive_into`."""
        try:
            return self._socket.recv_into(buffer)
        except OSError as error:
            raise TransportError(f"the connection to i-PI broke: {error.strerror}") from error

    def send(self, data: bytes | bytearray) -> None:
        """See `Transport.send`."""
        try:
            self._socket.sendall(data)
        except BlockingIOError as error:
            raise TransportError(
                f"i-PI does not read: expected it to take {len(data)} bytes, found no progress in "
                f"{_DEAF_SECONDS} s"
            ) from error
        except OSError as error:
            raise TransportError(f"the connection to i-PI broke: {error.strerror}") from error

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def socket_path(address: str, sockets_prefix: str = SOCKETS_PREFIX) -> str:
    """Return the file of the unix socket `address`."""
    return sockets_prefix + address


def connect(
    mode: str, address: str, port: int, *, sockets_prefix: str = SOCKETS_PREFIX, patience: float = 10.0
) -> SocketTransport:
    """Connect to i-PI.

    Args:
        mode: ``unix``, ``shm`` or ``inet``.
        address: name of the unix socket, or of the host.
        port: the port in mode ``inet``.
        sockets_prefix: what i-PI puts before `address` of a unix socket.
        patience: seconds to keep trying while nobody listens.

    Raises:
        SetupError: `mode` is none of these.
        TransportError: nobody listens there, or the host is unknown.
    """
    if mode not in MODES:
        raise SetupError(f"mode of the i-PI socket: expected {', '.join(MODES)}, found {mode!r}")
    path = socket_path(address, sockets_prefix)
    place = f"{mode}:{path}" if mode in UNIX_MODES else f"{mode}:{address}:{port}"
    deadline = time.monotonic() + patience
    while True:
        try:
            connected = _unix(path) if mode in UNIX_MODES else _inet(address, port)
            return SocketTransport(connected, shared_memory=mode == "shm")
        except socket.gaierror as error:
            raise TransportError(f"cannot connect to {place}: {error.strerror}") from error
        except OSError as error:
            if not isinstance(error, FileNotFoundError | ConnectionError | TimeoutError):
                raise TransportError(f"cannot connect to {place}: {error.strerror or error}") from error
            if time.monotonic() >= deadline:
                raise TransportError(
                    f"no i-PI is listening at {place}: start i-PI first, with such an ffsocket"
                ) from error
        time.sleep(_RETRY_SECONDS)


def remove_stale_socket(path: str) -> None:
    """Remove the file of a unix socket that nobody listens on any more (i-PI was killed).

    Raises:
        SetupError: somebody listens on it, or it is no socket, or cannot be removed.
    """
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise SetupError(
            f"{path}: the address of the ffsocket: expected a socket or nothing, found another file"
        )
    try:
        _unix(path).close()
    except ConnectionRefusedError:
        try:
            os.unlink(path)
        except OSError as error:
            raise SetupError(
                f"{path}: cannot remove the socket of a killed i-PI: {error.strerror}"
            ) from error
    except OSError as error:
        raise SetupError(f"{path}: cannot tell whether an i-PI listens there: {error.strerror}") from error
    else:
        raise SetupError(
            f"{path}: another i-PI is listening there; stop it or change <address> of the ffsocket"
        )


def _unix(path: str) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.connect(path)
    except BaseException:
        connected.close()
        raise
    return connected


def _inet(host: str, port: int) -> socket.socket:
    connected = socket.create_connection((host, port))
    # Nagle's algorithm delays the many small messages of the protocol; keep-alive notices a lost host.
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _LOST_HOST.items():
        if hasattr(socket, name):  # not everywhere
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connected
