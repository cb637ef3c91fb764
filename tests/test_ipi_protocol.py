"""The protocol against messages packed here by hand from the layout in i-PI's sources."""

from __future__ import annotations

import struct
import subprocess
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

from any_bytes import receive
from pidelta.errors import ProtocolError, TransportError
from pidelta.ipi.protocol import (
    Connection,
    Exit,
    GetForce,
    Init,
    PosData,
    SharedPosData,
    Status,
    encode_forces,
    encode_shared,
)
from pidelta.ipi.shared_memory import SharedArrays

RNG = np.random.default_rng(7)
N = 3
CELLS = RNG.normal(size=(2, 3, 3))
POSITIONS = RNG.normal(size=(2, N, 3))


def init(text, rid=5):
    return b"INIT        " + struct.pack("=ii", rid, len(text)) + text


def columns(cell):
    """A cell as i-PI sends it: vectors as columns, in row-major order, then its inverse."""
    return struct.pack("=9d", *cell.T.ravel()) + struct.pack("=9d", *np.linalg.inv(cell.T).ravel())


def single(positions, cell):
    count = struct.pack("=i", len(positions))
    return b"POSDATA     " + columns(cell) + count + struct.pack(f"={positions.size}d", *positions.ravel())


def batched(positions, cells):
    count = struct.pack("=i", positions.shape[1])
    matrices = b"".join(columns(cell) for cell in cells)
    return b"POSDATA     " + count + matrices + struct.pack(f"={positions.size}d", *positions.ravel())


SINGLE = b"STATUS      " + init(b"k : 1.0") + b"STATUS      " + single(POSITIONS[0], CELLS[0])
SINGLE += b"STATUS      GETFORCE    STATUS      EXIT        "
BATCHED = b"STATUS      " + init(b"k : 1.0, batch_size:2") + b"STATUS      " + batched(POSITIONS, CELLS)
BATCHED += b"STATUS      GETFORCE    STATUS      EXIT        "
SEGMENTS = tuple(f"ipi_shm_42_7_{kind}" for kind in ("pos", "h", "ih", "pot", "force", "vir"))


def shared(names=SEGMENTS, n_atoms=N):
    """A request with the numbers in shared memory; the first one names it."""
    names = [name if isinstance(name, bytes) else name.encode() for name in names]
    strings = (struct.pack("=i", len(name)) + name for name in names)
    return b"POSDATA     " + struct.pack("=i", n_atoms) + b"".join(strings)


SHARED = b"STATUS      " + init(b"k : 1.0, batch_size:2") + b"STATUS      " + shared()
SHARED += b"STATUS      GETFORCE    STATUS      " + shared(()) + b"GETFORCE    EXIT        "


def received(connection, data):
    return list(receive(connection, data))


def describe(events):
    return [
        (type(e), e.positions.tobytes(), e.cells.tobytes()) if isinstance(e, PosData) else e for e in events
    ]


@pytest.mark.parametrize(("stream", "batch"), [(SINGLE, 1), (BATCHED, 2)])
def test_conversation(stream, batch):
    events = received(Connection(N), stream)
    replies = [event.reply for event in events if isinstance(event, Status)]
    assert replies == [b"NEEDINIT    ", b"READY       ", b"HAVEDATA    ", b"READY       "]
    kinds = [Status, Init, Status, PosData, Status, GetForce, Status, Exit]
    assert [type(event) for event in events] == kinds
    assert (events[1].rid, events[1].batch_size) == (5, batch)
    np.testing.assert_array_equal(events[3].positions, POSITIONS[:batch])
    np.testing.assert_array_equal(events[3].cells, CELLS[:batch])


def test_shared_conversation():
    events = received(Connection(N, shared_memory=True), SHARED)
    kinds = [Status, Init, Status, SharedPosData, Status, GetForce, Status, SharedPosData, GetForce, Exit]
    assert [type(event) for event in events] == kinds
    assert events[3] == events[7] == SharedPosData(SEGMENTS)


@pytest.mark.parametrize("stream", [SINGLE, BATCHED, SHARED])
def test_cut_at_every_position(stream):
    expected = describe(received(Connection(N, shared_memory=stream is SHARED), stream))
    for cut in range(len(stream) + 1):
        connection = Connection(N, shared_memory=stream is SHARED)
        events = received(connection, stream[:cut]) + received(connection, stream[cut:])
        assert describe(events) == expected
        assert connection.closed


@pytest.mark.parametrize("stream", [SINGLE, BATCHED])
def test_byte_by_byte(stream):
    connection = Connection(N)
    events = [event for i in range(len(stream)) for event in received(connection, stream[i : i + 1])]
    assert describe(events) == describe(received(Connection(N), stream))


@pytest.mark.parametrize("stream", [SINGLE, BATCHED])
def test_end_of_file_is_clean_only_between_messages(stream):
    batch = 1 if stream is SINGLE else 2
    posdata = len(single(POSITIONS[0], CELLS[0])) if batch == 1 else len(batched(POSITIONS, CELLS))
    text = b"k : 1.0" if batch == 1 else b"k : 1.0, batch_size:2"
    lengths = [12, len(init(text)), 12, posdata, 12, 12, 12, 12]
    boundaries = {0, *np.cumsum(lengths).tolist()}
    for cut in range(len(stream) + 1):
        connection = Connection(N)
        received(connection, stream[:cut])
        if cut in boundaries:
            connection.receive_end()
            assert connection.closed
        else:
            with pytest.raises(TransportError, match=r"broke inside .* expected \d+ more bytes, found none"):
                connection.receive_end()


def test_bytes_after_exit_are_ignored():
    connection = Connection(N)
    assert received(connection, b"EXIT        GARBAGE, of any length") == [Exit()]
    assert received(connection, b"more") == []
    connection.receive_end()


def test_no_atoms_wanted_at_once_is_no_deadlock():
    events = received(Connection(N), init(b"") + b"STATUS      ")
    assert [type(event) for event in events] == [Init, Status]


INITIALISED = init(b"")


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"HELLO WORLD ", "unknown header: expected STATUS, .* found b'HELLO WORLD '"),
        (b"GETFORCE    ", "GETFORCE: expected POSDATA before it"),
        (single(POSITIONS[0], CELLS[0]), "POSDATA: expected INIT before it"),
        (
            INITIALISED + single(RNG.normal(size=(4, 3)), CELLS[0]),
            "expected 3 as in the structure, i-PI sent 4",
        ),
        (init(b"batch_size:2") + batched(RNG.normal(size=(2, 2, 3)), CELLS), "expected 3 .* i-PI sent 2"),
        (INITIALISED + single(POSITIONS[0], CELLS[0]) + 2 * b"GETFORCE    ", "GETFORCE: expected POSDATA"),
        (b"INIT        " + struct.pack("=ii", 0, -1), "INIT with a wrong length: .* found -1"),
        (b"INIT        " + struct.pack("=ii", 0, 2**30), "INIT with a wrong length"),
        (init(b"batch_size: two"), "wrong batch_size: .* found 'two'"),
        (init(b"batch_size:2147483647"), "wrong batch_size: expected 1 to 9942053, found '2147483647'"),
        (INITIALISED + b"POSDATA     " + bytes(144) + struct.pack("=i", 2**31 - 1), "i-PI sent 2147483647"),
        (INITIALISED + b"POSDATA     " + bytes(144) + struct.pack("=i", -1), "i-PI sent -1"),
        (init(b"batch_size:0"), "wrong batch_size: .* found '0'"),
    ],
)
def test_violations(stream, message):
    with pytest.raises(ProtocolError, match=message) as caught:
        received(Connection(N), stream)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (shared(), "POSDATA: expected INIT before it"),
        (INITIALISED + shared(n_atoms=2**31 - 1), "expected 3 as in the structure, i-PI sent 2147483647"),
        (INITIALISED + shared([b"../../etc/passwd"]), "shared memory of positions, found 16 bytes, b'../"),
        (INITIALISED + shared(["a", b""]), "shared memory of cells, found 0 bytes"),
        (INITIALISED + shared(["a", "b", "c" * 201]), "shared memory of inverse cells, found 201 bytes"),
        (INITIALISED + shared(()) + struct.pack("=i", -5), "shared memory of positions, found -5 bytes"),
    ],
)
def test_violations_with_shared_memory(stream, message):
    with pytest.raises(ProtocolError, match=message) as caught:
        received(Connection(N, shared_memory=True), stream)
    assert "\n" not in str(caught.value)


def test_single_reply_bytes():
    forces, virial = RNG.normal(size=(1, N, 3)), RNG.normal(size=(1, 3, 3))
    extra = '{"unit": "Å"}'.encode()
    expected = b"FORCEREADY  " + struct.pack("=di", -1.5, N) + struct.pack("=9d", *forces.ravel())
    expected += struct.pack("=9d", *virial.ravel()) + struct.pack("=i", 14) + extra
    assert encode_forces(np.array([-1.5]), -forces, virial, [extra]) == expected


def test_batched_reply_bytes():
    # A transposed view: not contiguous in memory.
    forces = RNG.normal(size=(3, N, 2)).transpose(2, 1, 0)
    virials = RNG.normal(size=(2, 3, 3))
    expected = b"FORCEREADY  " + struct.pack("=2d", 1.0, 2.0) + struct.pack("=i", N)
    expected += b"".join(struct.pack("=d", x) for x in forces.ravel())
    expected += struct.pack("=18d", *virials.ravel()) + struct.pack("=i", 1) + b"a" + struct.pack("=i", 0)
    assert encode_forces(np.array([1.0, 2.0]), -forces, virials, [b"a", b""]) == expected


@pytest.mark.parametrize("wrong", ["energies", "virials", "extras"])
def test_reply_shapes_are_checked(wrong):
    reply = {
        "energies": np.zeros(2),
        "gradient": np.zeros((2, N, 3)),
        "virials": np.zeros((2, 3, 3)),
        "extras": [b"", b""],
    }
    reply[wrong] = reply[wrong][:1]
    with pytest.raises(ValueError, match=wrong):
        encode_forces(**reply)


def test_shared_reply_bytes():
    extra = '{"unit": "Å"}'.encode()
    expected = b"FORCEREADY  " + struct.pack("=i", 14) + extra + struct.pack("=i", 0)
    assert encode_shared([extra, b""]) == expected


@pytest.fixture
def segments():
    """Segments for two structures, as i-PI makes them: positions, cells, inverses, energies and so on."""
    sizes = [2 * 3 * N, 18, 18, 2, 2 * 3 * N, 18]
    made = [SharedMemory(create=True, size=8 * size) for size in sizes]
    yield made
    for segment in made:
        segment.close()
        # Before Python 3.13, whoever attaches tells the tracker, here that of this process, to forget it.
        resource_tracker.register(f"/{segment.name}", "shared_memory")
        segment.unlink()


def numbers_in(segment, *shape):
    return np.ndarray(shape, buffer=segment.buf).copy()


def test_arrays_in_shared_memory(segments):
    segments[0].buf[: POSITIONS.nbytes] = POSITIONS.tobytes()
    segments[1].buf[: CELLS.nbytes] = CELLS.transpose(0, 2, 1).tobytes()
    arrays = SharedArrays([segment.name for segment in segments], 2, N)
    positions, cells = arrays.structures()
    np.testing.assert_array_equal(positions, POSITIONS)
    np.testing.assert_array_equal(cells, CELLS)
    gradient, virials = RNG.normal(size=(2, N, 3)), RNG.normal(size=(2, 3, 3))
    arrays.write(np.array([1.0, 2.0]), gradient, virials)
    arrays.close()
    np.testing.assert_array_equal(numbers_in(segments[3], 2), [1.0, 2.0])
    np.testing.assert_array_equal(numbers_in(segments[4], 2, N, 3), -gradient)
    np.testing.assert_array_equal(numbers_in(segments[5], 2, 3, 3), virials)


def test_shared_memory_that_is_not_there_or_too_small(segments):
    names = [segment.name for segment in segments]
    with pytest.raises(TransportError, match="cannot attach to the shared memory none-such of i-PI: No such"):
        SharedArrays([*names[:5], "none-such"], 2, N)
    with pytest.raises(ProtocolError, match="shared memory of positions: expected 720000 bytes, found"):
        SharedArrays(names, 10_000, N)


ATTACH_AND_END = """
import sys
from pidelta.ipi.shared_memory import SharedArrays
SharedArrays(sys.argv[1:], 2, 3)
"""


def test_a_client_that_ends_leaves_the_shared_memory_to_ipi(segments):
    names = [segment.name for segment in segments]
    ended = subprocess.run(
        [sys.executable, "-c", ATTACH_AND_END, *names], check=True, capture_output=True, text=True
    )
    assert ended.stderr == ""
    SharedArrays(names, 2, N).close()
