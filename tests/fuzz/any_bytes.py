"""What must hold for any bytes that the parser of the i-PI protocol is given.

`check` is what the tests try on examples by hypothesis, and on the corpus beside this file, which a fuzzer
guided by coverage has found (`fuzz_protocol.py`).
"""

import numpy as np

from pidelta.errors import ProtocolError, TransportError
from pidelta.ipi.protocol import Connection, PosData

N_ATOMS = 2
LARGEST = 1 << 31


def receive(connection, data):
    """Take bytes, cut anywhere, and yield the events that they complete; those after EXIT are ignored."""
    left = memoryview(data)
    while left and not connection.closed:
        wanted = connection.wanted()
        assert 0 < len(wanted) <= LARGEST
        count = min(len(left), len(wanted))
        wanted[:count] = left[:count]
        if (event := connection.received(count)) is not None:
            yield event
        left = left[count:]


def conversation(data, step, *, shared_memory):
    """What becomes of bytes that arrive `step` at a time: events, and how it ends."""
    connection, events = Connection(N_ATOMS, shared_memory=shared_memory), []
    try:
        for start in range(0, len(data), step):
            events.extend(receive(connection, data[start : start + step]))
        connection.receive_end()
    except (ProtocolError, TransportError) as error:
        message = str(error)
        assert message.isprintable(), message
        return events, message
    return events, "closed"


def described(events):
    """Events that can be compared."""
    arrays = [(e.positions, e.cells) for e in events if isinstance(e, PosData)]
    assert all(r.shape[1:] == (N_ATOMS, 3) and h.shape == (len(r), 3, 3) for r, h in arrays)
    assert all(a.dtype == np.float64 and a.flags.c_contiguous for pair in arrays for a in pair)
    return [(e.positions.tobytes(), e.cells.tobytes()) if isinstance(e, PosData) else e for e in events]


def check(data):
    """Try bytes: the first one chooses how the others arrive.

    The parser ends with one of its own errors, of one line, or goes on; where the bytes were cut makes no
    difference; it never asks for more than two gigabytes.
    """
    if not data:
        return
    shared_memory, step = bool(data[0] & 1), 1 + (data[0] >> 1)
    whole = conversation(data[1:], max(1, len(data)), shared_memory=shared_memory)
    cut = conversation(data[1:], step, shared_memory=shared_memory)
    assert described(whole[0]) == described(cut[0])
    assert whole[1] == cut[1]
