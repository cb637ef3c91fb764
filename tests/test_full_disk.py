"""A disk that is full, a folder that may not be written to, and Ctrl-C beside the steps of a run."""

from __future__ import annotations

import contextlib
import ctypes
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from delta_frames import random_frame
from ipi_support import write_water
from pidelta.analysis.plots import new_figure, save
from pidelta.cli import run_report, start
from pidelta.data.store import FrameStore
from pidelta.ipi.client_status import ClientStatus, StatusFile, read_status
from pidelta.ipi.folder_lock import FolderLock
from pidelta.output_files import replacing
from test_ipi_faults import processes_of, wait_for

FULL = Path("/dev/full")
_DROP_CAPABILITY, _OVERRIDES = 24, (1, 2)  # PR_CAPBSET_DROP; CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@pytest.fixture
def disk(tmp_path):
    """A disk of 256 kB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder):
    """Leave no byte."""
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


def left_over(folder):
    return [path.name for path in folder.rglob("*") if path.name == ".pidelta-run" or path.suffix == ".part"]


def address_of(path):
    return Path(f"/tmp/ipi_{re.search('<address> (.*?) <', path.read_text())[1]}")


@pytest.mark.skipif(not FULL.exists(), reason="has no /dev/full")
def test_errors_of_a_full_disk_name_the_file(tmp_path):
    """A device that is full, in the place of the file."""
    (tmp_path / "page.md").symlink_to(FULL)
    with pytest.raises(OSError, match=r"No space left .*page\.md"), replacing(tmp_path / "page.md") as stream:
        stream.write("text")
    (tmp_path / "picture.png").symlink_to(FULL)
    with pytest.raises(OSError, match=r"No space left .*picture\.png"):
        save(new_figure(1.0, 1.0), tmp_path / "picture.png")


@pytest.mark.skipif(not FULL.exists(), reason="has no /dev/full")
def test_a_status_that_finds_no_space_does_not_end_a_run(tmp_path):
    (tmp_path / "status.draft").symlink_to(FULL)
    StatusFile(tmp_path / "status.json", {}).write()
    assert read_status(tmp_path / "status.json") == ClientStatus()


def test_what_was_there_before_the_disk_was_full_stays(disk):
    for name in ("picture.png", "page.md"):
        (disk / name).write_bytes(b"before")
    fill(disk)
    with pytest.raises(OSError, match=r"No space left .*picture\.png"):
        save(new_figure(2.0, 2.0), disk / "picture.png")
    with pytest.raises(OSError, match=r"No space left .*page\.md"), replacing(disk / "page.md") as stream:
        stream.write("after")
    assert {path.name: path.read_bytes() for path in disk.iterdir() if path.name != "filler"} == {
        "picture.png": b"before",
        "page.md": b"before",
    }


def test_frames_that_find_no_space(disk):
    """HDF5 itself crashes where it cannot write."""
    path = disk / "frames.h5"
    with FrameStore(path, "a") as store:
        store.append(random_frame(0))
    before = path.read_bytes()
    store = FrameStore(path, "a")
    store.append(random_frame(1))
    fill(disk)
    with pytest.raises(OSError, match=r"No space left .*frames\.h5"):
        store.release()
    assert path.read_bytes() == before
    assert left_over(disk) == []


def test_a_lock_that_finds_no_space_is_not_left(disk):
    fill(disk)
    with pytest.raises(OSError, match=r"No space left .*\.pidelta-run"):
        FolderLock(disk, "input.xml")
    assert left_over(disk) == []


def test_a_run_on_a_full_disk(disk, fail):
    path = write_water(disk / "run", 3)
    fill(disk)
    assert re.search(r"No space left on device$", fail("run", path))
    assert left_over(disk) == []
    assert not processes_of(path.parent)
    assert not address_of(path).exists()


def test_a_report_on_a_full_disk(disk, run, capsys, monkeypatch):
    """The run is whole; what CPU time it took is the first that finds no space."""
    path, show = write_water(disk / "run", 3), run_report._show_summary

    def show_and_fill(*arguments):
        show(*arguments)
        fill(disk)

    monkeypatch.setattr(run_report, "_show_summary", show_and_fill)
    assert run("run", path) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(r"cost\.json: No space left on device$", line)
    assert left_over(disk) == []
    (disk / "filler").unlink()
    assert run("report", path) == 0


def forget_that_root_may_all():
    """Take from what is started next the right to write where modes forbid it; others never had it."""
    for capability in _OVERRIDES:
        ctypes.CDLL(None).prctl(_DROP_CAPABILITY, capability, 0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are of Linux")
@pytest.mark.parametrize("command", ["run", "report"])
def test_a_folder_that_may_not_be_written_to(tmp_path, run, command):
    path = write_water(tmp_path / "run", 3)
    if command == "report":
        assert run("run", path) == 0
        for made in (path.parent / "water-report").rglob("*"):
            made.unlink()
        (path.parent / "water-report").rmdir()
    path.parent.chmod(0o555)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "pidelta", command, str(path)],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=forget_that_root_may_all,
        )
    finally:
        path.parent.chmod(0o755)
    assert ended.returncode == 2, ended
    (line,) = ended.stderr.strip().splitlines()
    assert re.match(rf"pidelta: {path.parent}/.*: Permission denied$", line)
    assert left_over(tmp_path) == []


def interrupt(*arguments, **options):
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (start, "check_starts"),
        (run_report, "_show_summary"),
        (run_report, "add_cost"),
        (run_report, "write_reports"),
        (Figure, "savefig"),
    ],
    ids=["checks", "summary", "cost", "report", "pictures"],
)
def test_interrupted_beside_the_steps(tmp_path, run, capsys, monkeypatch, place, name):
    """Before i-PI is started, and after it has ended."""
    path = write_water(tmp_path / "run", 3)
    monkeypatch.setattr(place, name, interrupt)
    assert run("run", path) == 130
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == "pidelta: stopped"
    assert left_over(tmp_path) == []
    wait_for(lambda: not processes_of(path.parent), 10.0)
    assert not address_of(path).exists()
    assert (path.parent / "water.out").exists() == (name != "check_starts")
