"""Files of frames: what a kill, two processes, and packing several of them leave."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

from delta_frames import random_frame
from pidelta.data.frames import Frame, Label
from pidelta.data.groups import write_group
from pidelta.data.packing import pack
from pidelta.data.store import FrameStore
from pidelta.errors import DataError

METHOD = "B3LYP"


def label_of(frame: Frame, energy: float, method: str = METHOD) -> Label:
    n, m = len(frame.numbers), len(frame.site_charges)
    return Label(method, energy, np.full((n, 3), 0.1), np.full((m, 3), 0.01), np.zeros(n))


def write(path, frames, energies=(), embedding=None):
    with FrameStore(path, "a") as store:
        store.set_embedding(embedding)
        for frame in frames:
            store.append(frame)
        for index, energy in enumerate(energies):
            store.set_label(index, "reference", label_of(frames[index], energy))
    return path


def contents(path):
    """(source, first coordinate, energy or None) of each frame."""
    with FrameStore(path) as store:
        labels = [store.label(index, "reference", METHOD) for index in range(len(store))]
        return [
            (frame.source, frame.positions[0, 0], None if label is None else label.energy)
            for frame, label in zip(store, labels, strict=True)
        ]


def uncertain(seed, step=0):
    return random_frame(seed, source=f"uncertain step {step}")


def test_geometries_of_one_source_are_packed_both(tmp_path):
    """The source is a name; the label of one geometry is none of the other."""
    one = write(tmp_path / "A.h5", [uncertain(1), uncertain(2, 1)], [-1.0])
    other = write(tmp_path / "B.h5", [uncertain(3), uncertain(4, 1), uncertain(5, 2)], [-3.0, -4.0])
    expected = [
        ("uncertain step 0", uncertain(1).positions[0, 0], -1.0),
        ("uncertain step 1", uncertain(2).positions[0, 0], None),
        ("B: uncertain step 0", uncertain(3).positions[0, 0], -3.0),
        ("B: uncertain step 1", uncertain(4).positions[0, 0], -4.0),
        ("B: uncertain step 2", uncertain(5).positions[0, 0], None),  # of the same trajectory
    ]
    for _ in range(2):  # the second time it has nothing to add
        assert pack([one, other], tmp_path / "packed.h5", ["reference"], labelled=False) == 5
        assert contents(tmp_path / "packed.h5") == expected
    again = tmp_path / "again" / "B.h5"
    again.parent.mkdir()
    write(again, [uncertain(6), uncertain(3)], [-6.0, -7.0])
    assert pack([again], tmp_path / "packed.h5", ["reference"], labelled=False) == 6
    assert contents(tmp_path / "packed.h5") == [
        *expected,
        ("B (2): uncertain step 0", uncertain(6).positions[0, 0], -6.0),
    ]


@pytest.mark.parametrize("change", ["site_charges", "site_positions", "charge", "multiplicity"])
def test_frames_that_differ_in_their_surroundings_or_state_are_two(tmp_path, change):
    frame = uncertain(1)
    other = replace(frame, **{change: getattr(frame, change) + 1})
    paths = [write(tmp_path / "A.h5", [frame], [-1.0]), write(tmp_path / "B.h5", [other], [-2.0])]
    assert pack(paths, tmp_path / "packed.h5", ["reference"], labelled=True) == 2
    assert [energy for _, _, energy in contents(tmp_path / "packed.h5")] == [-1.0, -2.0]


def test_one_geometry_in_two_files_is_one_frame_with_both_labels(tmp_path):
    frame = uncertain(1)
    bare = write(tmp_path / "A.h5", [frame])
    named = write(tmp_path / "B.h5", [replace(frame, source="another name")], [-1.0])
    assert pack([bare, named], tmp_path / "packed.h5", ["reference"], labelled=False) == 1
    assert contents(tmp_path / "packed.h5") == [("uncertain step 0", frame.positions[0, 0], -1.0)]


def test_packing_reads_each_frame_once(tmp_path, monkeypatch):
    paths = [
        write(tmp_path / f"{name}.h5", [uncertain(seed, step) for step, seed in enumerate(seeds)])
        for name, seeds in (("A", (1, 2)), ("B", (2, 3, 4)))
    ]
    read, frame = [], FrameStore.frame
    monkeypatch.setattr(
        FrameStore, "frame", lambda self, index: read.append((self.path, index)) or frame(self, index)
    )
    assert pack(paths, tmp_path / "packed.h5", ["reference"], labelled=False) == 4
    assert sorted(place for place in read if place[0] in paths) == [
        *((paths[0], index) for index in range(2)),
        *((paths[1], index) for index in range(3)),
    ]


def test_every_and_skip_deal_frames_out(tmp_path):
    path = write(tmp_path / "A.h5", [uncertain(seed, seed) for seed in range(5)])
    for skip, steps in ((0, [0, 2, 4]), (1, [1, 3])):
        part = tmp_path / f"part-{skip}.h5"
        pack([path], part, ["reference"], labelled=False, skip=skip, every=2)
        assert [source for source, _, _ in contents(part)] == [f"uncertain step {step}" for step in steps]
    pack([path], tmp_path / "two.h5", ["reference"], labelled=False, every=2, limit=2)
    assert len(contents(tmp_path / "two.h5")) == 2


def test_a_part_beyond_the_end_is_an_error(tmp_path, fail):
    path = write(tmp_path / "A.h5", [uncertain(1)])
    part = tmp_path / "part.h5"
    line = fail("data", "pack", path, "--skip", "1", "--output", part)
    assert f"{path}: expected a frame after the first 1, found none" in line
    line = fail("data", "pack", path, "--labelled", "--output", part)
    assert "expected a labelled frame, found none" in line
    assert not list(tmp_path.glob("*part*"))


WRITER = """
import os, signal, sys
from pathlib import Path
import numpy as np
from pidelta.data import packing
from pidelta.data.frames import Label
from pidelta.data.store import FrameStore
from pidelta.errors import DataError

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

path = Path(sys.argv[2])
if sys.argv[1] == "label":
    with FrameStore(path, "a") as store:
        n, m = len(store.frame(1).numbers), len(store.frame(1).site_charges)
        for index in (1, 2):
            label = Label("B3LYP", -2.0, np.zeros((n, 3)), np.zeros((m, 3)), np.zeros(n))
            store.set_label(index, "reference", label)
            if index == 1:
                store.release()
        die()
packing._copy_labels = die
packing.pack([Path(sys.argv[3])], path, ["reference"], labelled=False)
"""


def killed(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", WRITER, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def latest(path):
    """Rewrite a file as compact ones were once written, by the latest version of HDF5 from the beginning."""
    old = path.rename(path.with_name("old.h5"))
    with h5py.File(old) as source, h5py.File(path, "w", libver="latest") as target:
        target.attrs.update(source.attrs)
        source.copy("frames", target)
    old.unlink()


@pytest.mark.parametrize("version", ["of now", "of an earlier pidelta"])
def test_a_kill_while_labels_are_written_loses_none_before(tmp_path, version):
    source = write(tmp_path / "A.h5", [uncertain(seed, seed) for seed in range(3)], [-1.0])
    packed = tmp_path / "packed.h5"
    pack([source], packed, ["reference"], labelled=False)
    if version != "of now":
        latest(packed)
    killed("label", packed)
    assert [energy for _, _, energy in contents(packed)] == [-1.0, -2.0, None]
    with FrameStore(packed, "a") as store:  # and goes on
        store.set_label(2, "reference", label_of(store.frame(2), -3.0))
    assert [energy for _, _, energy in contents(packed)] == [-1.0, -2.0, -3.0]


def test_a_trajectory_that_has_grown_keeps_the_name_that_packing_gave_it(tmp_path):
    """Two files whose sources are alike, packed, and once more when the second has one frame more."""
    one, two, packed = tmp_path / "P.h5", tmp_path / "Q.h5", tmp_path / "packed.h5"
    write(one, [uncertain(0), uncertain(1)], [-1.0, -2.0])
    write(two, [uncertain(3), uncertain(4)], [-3.0, -4.0])
    pack([one, two], packed, ["reference"], labelled=False)
    with FrameStore(two, "a") as store:
        store.append(replace(uncertain(5), source="uncertain step 7"))
    pack([one, two], packed, ["reference"], labelled=False)
    with FrameStore(packed) as store:
        sources = [frame.source for frame in store]
    assert sources[-1] == "Q: uncertain step 7"
    assert len(sources) == 5


def test_a_kill_while_packing_leaves_the_file_as_it_was(tmp_path):
    source = write(tmp_path / "A.h5", [uncertain(seed, seed) for seed in range(3)], [-1.0])
    packed = tmp_path / "packed.h5"
    killed("pack", packed, source)
    assert not packed.exists()
    pack([source], packed, ["reference"], labelled=False, limit=1)
    before = packed.read_bytes()
    killed("pack", packed, source)
    assert packed.read_bytes() == before
    assert pack([source], packed, ["reference"], labelled=False) == 3


def test_a_file_that_may_not_be_written_to_is_an_error_at_once(tmp_path, monkeypatch):
    path = write(tmp_path / "A.h5", [uncertain(0)])
    monkeypatch.setattr("os.access", lambda place, _: place != path)
    with pytest.raises(DataError, match=f"may not be written to: '{path}'"):
        FrameStore(path, "a")
    assert len(FrameStore(path)) == 1


def test_changes_are_seen_after_half_a_minute(tmp_path, monkeypatch):
    """A long row of labels that nobody releases."""
    path = write(tmp_path / "A.h5", [uncertain(seed) for seed in range(2)])
    with FrameStore(path, "a") as store:
        store.set_label(0, "reference", label_of(store.frame(0), -1.0))
        assert contents(path)[0][2] is None
        monkeypatch.setattr("pidelta.data.store._LONGEST", 0.0)
        store.set_label(1, "reference", label_of(store.frame(1), -2.0))
        assert [energy for _, _, energy in contents(path)] == [-1.0, -2.0]


def test_what_hdf5_cannot_write_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = write(tmp_path / "A.h5", [uncertain(0)], [-1.0])
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("pidelta.data.store.write_group", full)
    with FrameStore(path, "a") as store, pytest.raises(OSError, match="no space left"):
        store.append(uncertain(1))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["A.h5"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"positions": np.full((4, 3), np.nan)},
            "frame run step 1: expected finite numbers, found others in",
        ),
        ({"site_charges": np.full(24, np.inf)}, "expected finite numbers, found others in site_charges"),
        ({"positions": np.zeros((3, 3))}, r"expected positions of shape \(4, 3\), found \(3, 3\)"),
        (
            {"site_numbers": np.ones(3, dtype=np.int64)},
            r"expected site_numbers of shape \(24,\), found \(3,\)",
        ),
        ({"numbers": np.array([8, 6, 0, 1])}, "expected atomic numbers of QM atoms from 1 on, found 0"),
    ],
)
def test_frames_are_checked_where_they_are_made(change, message):
    with pytest.raises(DataError, match=message):
        replace(random_frame(1, source="run step 1"), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"gradient": np.zeros((4, 2))},
            r"label by B3LYP: expected gradient of shape \(4, 3\), found \(4, 2\)",
        ),
        ({"charges": np.zeros(3)}, r"expected charges of shape \(4,\), found \(3,\)"),
        ({"energy": np.zeros(1)}, r"expected energy of shape \(\), found \(1,\)"),
        ({"properties": {"dipole": np.array([np.nan])}}, "expected finite numbers, found others in dipole"),
    ],
)
def test_labels_are_checked_where_they_are_made(change, message):
    with pytest.raises(DataError, match=message):
        replace(label_of(random_frame(1), -1.0), **change)


def test_a_label_of_another_size_is_refused(tmp_path):
    path = write(tmp_path / "A.h5", [uncertain(1)])
    with FrameStore(path, "a") as store, pytest.raises(DataError, match=r"A.h5: frame 0: .*shape \(24, 3\)"):
        store.set_label(0, "low", label_of(random_frame(1, sites=6), -1.0))


def spoil(path, kind, change):
    """Write a frame or label as a program without checks would, with a checksum that is right."""
    arrays = {
        "frame": {"numbers": np.int64, "site_numbers": np.int64}
        | dict.fromkeys(("positions", "site_positions", "site_charges"), np.float64),
        "label": dict.fromkeys(("gradient", "site_gradient", "charges"), np.float64),
    }[kind]
    values = {
        "frame": {"charge": int, "multiplicity": int, "source": str},
        "label": {"method": str, "program": str, "energy": float},
    }[kind]
    with FrameStore(path) as store:
        content = store.frame(0) if kind == "frame" else store.label(0, "reference", METHOD)
    content = {name: getattr(content, name) for name in (*arrays, *values)} | change
    with h5py.File(path, "a") as file:
        frame = file["frames/000000"]
        owner = frame.attrs["checksum"] if kind == "label" else ""
        if kind == "label":
            del frame["labels"]
            write_group(frame.create_group(f"labels/reference/{METHOD}"), content, arrays, values, {}, owner)
        else:
            del file["frames/000000"]
            write_group(file.create_group("frames/000000"), content, arrays, values, {}, owner)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("frame", {"positions": np.full((4, 3), np.nan)}, "found others in positions"),
        (
            "label",
            {"gradient": np.zeros((3, 3)), "charges": np.zeros(3)},
            "expected gradient of shape (4, 3)",
        ),
        ("label", {"gradient": np.zeros((4, 2))}, "expected gradient of shape (4, 3), found (4, 2)"),
    ],
)
@pytest.mark.parametrize("command", ["info", "export"])
def test_wrong_numbers_in_a_file_are_one_line(tmp_path, fail, kind, change, message, command):
    path = write(tmp_path / "A.h5", [uncertain(1)], [-1.0])
    spoil(path, kind, change)
    options = (
        ["--total", "--format", "deepmd", "--output", tmp_path / "deepmd"] if command == "export" else []
    )
    if command == "export" and kind == "frame":
        with FrameStore(path, "a") as store:  # a label of the frame as it is now
            store.set_label(0, "reference", label_of(uncertain(1), -1.0))
    line = fail("data", command, path, *options)
    assert f"{path}: frame 0: " in line
    assert message in line


CUT = {"scheme": "cutoff", "cutoff": 26.0}


@pytest.mark.parametrize(
    ("there", "new", "message"),
    [
        (CUT, None, "expected frames that say with which embedding they were cut"),
        (None, CUT, "expected frames whose embedding is not recorded"),
    ],
)
def test_frames_of_unknown_embedding_do_not_get_that_of_others(tmp_path, fail, run, there, new, message):
    paths = [
        write(tmp_path / "A.h5", [uncertain(1)], embedding=there),
        write(tmp_path / "B.h5", [uncertain(2)], embedding=new),
    ]
    with FrameStore(paths[0], "a") as store, pytest.raises(DataError, match=message):
        store.set_embedding(new)
    assert f"{paths[1]}: {tmp_path / 'C.h5'}: {message}" in fail(
        "data", "pack", *paths, "--output", tmp_path / "C.h5"
    )
    assert not (tmp_path / "C.h5").exists()
    # Labels of frames that are there are no matter of it.
    write(tmp_path / "D.h5", [uncertain(1)], [-1.0], embedding=new)
    assert run("data", "pack", paths[0], tmp_path / "D.h5", "--output", tmp_path / "C.h5") == 0
    with FrameStore(tmp_path / "C.h5") as store:
        assert store.embedding == there
        assert store.label(0, "reference", METHOD).energy == -1.0


def test_only_frames_that_were_added_count_as_where_frames_come_from(tmp_path, run):
    names = ("a.pdb", "b.pdb", "c.pdb")
    for name, seed in zip(names, (1, 1, 2), strict=True):
        with FrameStore(write(tmp_path / f"{name}.h5", [uncertain(seed)]), "a") as store:
            store.set_provenance({"structure": name})
    packed = tmp_path / "packed.h5"
    assert run("data", "pack", *(tmp_path / f"{name}.h5" for name in names), "--output", packed) == 0
    with FrameStore(packed) as store:
        assert store.provenance == {"structure": "a.pdb; c.pdb"}


@pytest.mark.parametrize("name", ["embedding", "provenance", "compact"])
def test_a_word_of_the_file_that_changed_is_found(tmp_path, fail, name):
    path = write(tmp_path / "A.h5", [uncertain(1)], embedding={"scheme": "cutoff", "cutoff": 26.0})
    with FrameStore(path, "a") as store:
        store.set_provenance({"structure": "a.pdb"})
    with FrameStore(path) as store:
        assert store.provenance == {"structure": "a.pdb"}
    with h5py.File(path, "a") as file:
        text = file.attrs[name]
        file.attrs[name] = True if name == "compact" else text.replace("a.pdb", "b.pdb").replace("26", "27")
    assert f"{path}: expected words that fit their checksum: it is damaged" in fail("data", "info", path)


def test_a_reason_that_changed_is_found(tmp_path, fail, run):
    path = write(tmp_path / "A.h5", [uncertain(1), uncertain(2)], [-1.0])
    with FrameStore(path, "a") as store:
        for index in range(2):
            store.set_failure(index, "reference", "PBE", "no convergence")
        store.set_label(0, "reference", label_of(store.frame(0), -1.0, "PBE"))  # takes its place
    assert run("data", "info", path) == 0
    with h5py.File(path, "a") as file:
        file["frames/000001"].attrs["no reference label by PBE"] = "no reason"
    assert f"{path}: failures of frame 1: expected words that fit" in fail("data", "info", path)


def test_files_of_before_have_no_checksum_of_words(tmp_path, run):
    path = write(tmp_path / "A.h5", [uncertain(1)], embedding={"scheme": "cutoff"})
    with FrameStore(path, "a") as store:
        store.set_failure(0, "reference", "PBE", "no convergence")
    with h5py.File(path, "a") as file:
        del file.attrs["checksum"]
        del file["frames/000000"].attrs["failures"]
    assert run("data", "info", path) == 0
    with FrameStore(path, "a") as store:
        store.set_provenance({"structure": "a.pdb"})
        assert store.failures("reference", "PBE") == {0: "no convergence"}
        assert store.embedding == {"scheme": "cutoff"}
