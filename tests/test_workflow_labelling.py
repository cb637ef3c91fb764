"""From trajectories to labelled frames: sampling, labelling that resumes, and its errors."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("pyscf")

from pidelta.cli import label as commands
from pidelta.data.frames import Frame, Label
from pidelta.data.packing import pack
from pidelta.data.store import FrameStore
from pidelta.errors import DataError, RunError, SetupError, StructureError
from pidelta.qm.base import QMResult
from pidelta.qm.reference import label_frame
from pidelta.qm.reference_settings import ReferenceSettings
from pidelta.qmmm.surroundings import CutRegion
from pidelta.state import System
from pidelta.units import ANGSTROM
from pidelta.workflow import labelling
from pidelta.workflow.sampling import other_files, sample
from pidelta.workflow.yardstick import Yardstick

NUMBERS = np.array([8, 1, 1, 8, 1])
QUICK = ReferenceSettings(xc="PBE", basis="STO-3G", grid_level=0)


def positions(step: int) -> np.ndarray:
    """(5, 3) in angstrom: a hydroxide, so to say, beside a water."""
    water = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    other = np.array([[3.0, 0.1 * step, 0.0], [3.0, 0.1 * step, 0.97]])
    return np.concatenate([water, other])


SYSTEM = System(
    numbers=NUMBERS,
    positions=positions(0) * ANGSTROM,
    cell=np.diag([20.0, 21.0, 22.0]) * ANGSTROM,
    names=tuple("OHHOH"),
    residue_names=("UNK",) * 5,
    residue_indices=np.zeros(5, dtype=np.int64),
    residue_numbers=np.ones(5, dtype=np.int64),
    segments=("",) * 5,
)
BONDS = np.array([[0, 1], [0, 2], [3, 4]])
YARDSTICK = Yardstick.of(Path("water.pdb"), SYSTEM, BONDS, np.arange(3))


def write_xyz(path, steps, unit="angstrom", what="positions"):
    scale = {"angstrom": 1.0, "atomic_unit": ANGSTROM}[unit]
    lines = []
    for step in steps:
        lines += [
            str(len(NUMBERS)),
            f"# CELL(abcABC): {20 * scale:.5f} {21 * scale:.5f} {22 * scale:.5f} 90.0 90.0 90.0 "
            f"Step: {step:10d}  Bead:       0 {what}{{{unit}}}  cell{{{unit}}}",
        ]
        for name, point in zip("OHHOH", positions(step) * scale, strict=True):
            lines.append(f"{name:>8s} {point[0]:12.5e} {point[1]:12.5e} {point[2]:12.5e}")
    path.write_text("\n".join(lines) + "\n")
    return path


@dataclass
class WaterInCharges:
    """The first three atoms in the charges of the others, with one charge of padding."""

    numbers: np.ndarray
    charge: int = 0
    multiplicity: int = 1
    cells: np.ndarray | None = None
    site_charges: tuple[float, ...] = (-0.8, 0.4, 0.0)

    def cut(self, positions, cells):
        self.cells = cells
        sites = np.concatenate([positions[:, 3:], np.full((1, 1, 3), 99.0)], axis=1)
        return CutRegion(
            numbers=self.numbers,
            positions=positions[:, : len(self.numbers)],
            site_positions=sites,
            site_charges=np.array([self.site_charges]),
            site_numbers=np.array([[8, 1, 0]]),
            site_particles=np.array([[3, 4, -1]]),
        )


@pytest.fixture
def region():
    return WaterInCharges(NUMBERS[:3])


@pytest.fixture
def store(tmp_path, region):
    trajectory = write_xyz(tmp_path / "run.pos_0.xyz", range(0, 60, 20))
    with FrameStore(tmp_path / "frames.h5", "a") as frames:
        sample(trajectory, region, frames, numbers=NUMBERS, yardstick=YARDSTICK, periodic=True)
        yield frames


def test_sample_takes_what_was_asked_for(tmp_path, region):
    trajectory = write_xyz(tmp_path / "run.pos_3.xyz", range(0, 100, 10))
    with FrameStore(tmp_path / "frames.h5", "a") as store:
        count = sample(
            trajectory,
            region,
            store,
            numbers=NUMBERS,
            yardstick=YARDSTICK,
            periodic=True,
            every=3,
            skip=2,
            limit=2,
        )
        frames = list(store)
    assert count == 2
    assert [frame.source for frame in frames] == [f"{trajectory} step {step}" for step in (20, 50)]
    np.testing.assert_allclose(frames[1].positions, positions(50)[:3] * ANGSTROM, atol=1e-5)
    np.testing.assert_array_equal(frames[1].site_charges, [-0.8, 0.4])
    np.testing.assert_array_equal(frames[1].site_numbers, [8, 1])
    np.testing.assert_allclose(frames[1].site_positions, positions(50)[3:] * ANGSTROM, atol=1e-5)
    np.testing.assert_allclose(region.cells[0], np.diag([20.0, 21.0, 22.0]) * ANGSTROM, atol=2e-5)


def test_sampling_twice_adds_nothing(tmp_path, store, region):
    trajectory = tmp_path / "run.pos_0.xyz"
    assert sample(trajectory, region, store, numbers=NUMBERS, yardstick=YARDSTICK, periodic=False) == 0
    assert len(store) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"charge": -1}, "expected the charge and multiplicity of {source} as before, found others"),
        ({"numbers": np.array([8, 1])}, "expected the QM atoms of {source} as before, found others"),
        (
            {"site_charges": (-0.7, 0.4, 0.0)},
            "expected the point charges of {source} as before, found others",
        ),
    ],
)
def test_a_trajectory_is_not_sampled_with_another_set_up_into_one_file(tmp_path, store, change, message):
    trajectory = tmp_path / "run.pos_0.xyz"
    other = replace(WaterInCharges(NUMBERS[:3]), **change)
    with pytest.raises(DataError) as caught:
        sample(trajectory, other, store, numbers=NUMBERS, yardstick=YARDSTICK, periodic=True)
    assert message.format(source=f"{trajectory} step 0") in str(caught.value)
    assert "into another file" in str(caught.value)


def test_provenance_is_that_of_frames_that_were_added_and_other_files_are_said(tmp_path, region):
    trajectory = write_xyz(tmp_path / "run.pos_0.xyz", [0])
    first, second = {"structure": "a.pdb", "topology": "a.top"}, {"structure": "a.pdb", "topology": "b.top"}
    common = {"numbers": NUMBERS, "yardstick": YARDSTICK, "periodic": True}
    with FrameStore(tmp_path / "f.h5", "a") as store:
        assert other_files(store, first) == []
        assert sample(trajectory, region, store, **common, origin=first) == 1
        assert sample(trajectory, region, store, **common, origin=second) == 0
        assert store.provenance == first
        (note,) = other_files(store, second)
        assert note == f"{store.path}: its frames come from the topology a.top, new ones from b.top"
        more = write_xyz(tmp_path / "more.pos_0.xyz", [0])
        assert sample(more, region, store, **common, origin=second) == 1
        assert store.provenance == {"structure": "a.pdb", "topology": "a.top; b.top"}
        assert other_files(store, second) == []


def test_atoms_in_another_order_are_found_in_the_first_snapshot(tmp_path, region):
    """Hydrogens of neighbours exchanged: the elements are those of the system, the bonds are not."""
    path = write_xyz(tmp_path / "run.pos_0.xyz", [0])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[6], *lines[4:6], lines[3], ""]))
    with FrameStore(tmp_path / "f.h5", "a") as store:
        with pytest.raises(StructureError, match="in the same order") as caught:
            sample(path, region, store, numbers=NUMBERS, yardstick=YARDSTICK, periodic=True)
        assert f"{path} step 0" in str(caught.value)
        assert len(store) == 0


def test_trajectory_errors_are_one_line(tmp_path, region):
    forces = write_xyz(tmp_path / "run.frc_0.xyz", [0], what="forces")
    good = write_xyz(tmp_path / "good.xyz", [0])
    with FrameStore(tmp_path / "f.h5", "a") as store:
        for path, numbers, message in (
            (tmp_path / "none.xyz", NUMBERS, "no such trajectory"),
            (tmp_path / "run.dcd", NUMBERS, r"ending in \.xyz, \.pdb, \.extxyz, \.bin"),
            (forces, NUMBERS, "expected positions .* in snapshot 0"),
            (good, NUMBERS[::-1], "expected the 5 atoms"),
        ):
            with pytest.raises(DataError, match=message) as caught:
                sample(path, region, store, numbers=numbers, yardstick=YARDSTICK, periodic=True)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)


def test_labels_in_processes_equal_labels_here(store):
    indices = store.unlabelled("reference", QUICK.method)
    failures = labelling.write_labels(
        store, "reference", QUICK.method, labelling.reference_labels(store, indices, QUICK, workers=2)
    )
    assert failures == []
    assert store.unlabelled("reference", QUICK.method) == []
    expected, found = label_frame(store.frame(1), QUICK), store.label(1, "reference", QUICK.method)
    assert found.method == QUICK.method
    assert found.energy == pytest.approx(expected.energy, abs=1e-9)
    np.testing.assert_allclose(found.site_gradient, expected.site_gradient, atol=1e-9)


class InThisProcess:
    """A pool that computes at once, so that a test need not start processes."""

    def __init__(self, *args, **kwargs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def submit(self, function, *args):
        future = labelling.Future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, **options):
        pass


@pytest.fixture
def fake(monkeypatch):
    """Labels without a calculation; returns the list of what was labelled."""
    done: list[str] = []

    def compute(frame: Frame, settings: ReferenceSettings) -> Label:
        done.append(frame.source)
        if frame.multiplicity != 1:
            raise SetupError(f"frame {frame.source}: not closed-shell")
        if frame.source.endswith("step 20"):
            raise RunError(f"frame {frame.source}: the SCF did not converge")
        zeros = np.zeros_like
        label = (settings.method, -1.0, zeros(frame.positions), zeros(frame.site_positions), np.zeros(3))
        return Label(*label, program=settings.program)

    monkeypatch.setattr(labelling, "ProcessPoolExecutor", InThisProcess)
    monkeypatch.setattr(labelling, "label_frame", compute)
    return done


def test_labelling_resumes_after_an_interruption(store, fake):
    class InterruptError(Exception):
        pass

    def interrupted(outcomes):
        yield next(outcomes)
        raise InterruptError

    missing = store.unlabelled("reference", QUICK.method)
    assert missing == [0, 1, 2]
    with pytest.raises(InterruptError):
        labelling.write_labels(
            store,
            "reference",
            QUICK.method,
            interrupted(labelling.reference_labels(store, missing, QUICK, 1)),
        )
    labelled = {0, 1, 2} - set(store.unlabelled("reference", QUICK.method))
    assert len(labelled) <= 1
    missing = store.unlabelled("reference", QUICK.method)
    labelling.write_labels(
        store, "reference", QUICK.method, labelling.reference_labels(store, missing, QUICK, 1)
    )
    assert store.unlabelled("reference", QUICK.method) == [1]
    other = replace(QUICK, basis="def2-SVP")
    assert store.unlabelled("reference", other.method) == [0, 1, 2]


def test_an_interrupted_write_leaves_the_store_as_it_was(store, fake):
    labelling.write_labels(store, "reference", QUICK.method, labelling.reference_labels(store, [0], QUICK, 1))
    good = store.label(0, "reference", QUICK.method)
    for index in (0, 2):
        wrong = replace(good, energy=0.0)
        object.__setattr__(wrong, "charges", object())
        with pytest.raises(TypeError):
            store.set_label(index, "reference", wrong, replace=True)
    with pytest.raises(TypeError):
        store.append(replace(store.frame(0), charge=object()))
    assert store.label(0, "reference", QUICK.method).energy == good.energy
    assert store.label(2, "reference", QUICK.method) is None
    assert [frame.source for frame in store] == [store.frame(index).source for index in range(3)]


def test_a_failed_frame_is_reported_and_skipped(store, fake):
    failures = labelling.write_labels(
        store, "reference", QUICK.method, labelling.reference_labels(store, [0, 1, 2], QUICK, 2)
    )
    (failure,) = failures
    assert failure.startswith("frame 1: ")
    assert failure.endswith("did not converge")
    assert store.unlabelled("reference", QUICK.method) == [1]
    assert store.failures("reference", QUICK.method) == {1: failure.removeprefix("frame 1: ")}
    other = replace(QUICK, basis="def2-SVP").method
    assert store.failures("reference", other) == {}
    label = store.label(0, "reference", QUICK.method)
    store.set_label(1, "reference", label)
    assert store.failures("reference", QUICK.method) == {}


def test_what_failed_is_tried_again_last(store):
    store.set_failure(0, "reference", "method", "no reason")
    assert store.unlabelled("reference", "method") == [1, 2, 0]


def test_gradients_are_compared_with_differences(store, fake, monkeypatch):
    monkeypatch.setattr(labelling, "error_of_gradient", lambda frame, label, settings: 1e-3)
    outcomes = dict(labelling.reference_labels(store, [2, 0], QUICK, 1, check_every=2))
    assert "expected a gradient that is the difference of energies, found 1.0e-03" in str(outcomes[2])
    assert isinstance(outcomes[0], Label)


def test_labels_that_are_not_finite_are_refused(store):
    good = (QUICK.method, -1.0, np.zeros((3, 3)), np.zeros((2, 3)), np.zeros(3))
    for place, wrong in ((1, np.nan), (3, np.full((2, 3), np.inf))):
        with pytest.raises(DataError, match="expected finite numbers, found others in"):
            Label(*(wrong if k == place else value for k, value in enumerate(good)))


def test_a_released_store_is_open_to_others(store):
    store.release()
    assert len(FrameStore(store.path)) == 3
    store.set_failure(0, "reference", "method", "no reason")
    assert FrameStore(store.path).failures("reference", "method") == {}  # reading does not wait
    command = (
        "import sys; from pathlib import Path; from pidelta.data.store import FrameStore\n"
        "with FrameStore(Path(sys.argv[1]), 'a') as store: store.append(store.frame(0)); print(len(store))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", command, str(store.path)], stdout=subprocess.PIPE, text=True
    )
    with pytest.raises(subprocess.TimeoutExpired):  # it waits
        process.communicate(timeout=3.0)
    store.release()
    output, _ = process.communicate(timeout=30.0)
    assert output == "4\n"
    assert len(store) == 4
    assert store.failures("reference", "method") == {0: "no reason"}


def test_a_compact_store_rounds_charges_alone(store, tmp_path):
    rng = np.random.default_rng(3)
    frame = replace(store.frame(0), site_charges=rng.normal(size=2))
    label = Label(
        QUICK.method,
        -75.123456789012,
        rng.normal(size=(3, 3)),
        rng.normal(size=(2, 3)) * 0.01,
        rng.normal(size=3),
        "PySCF",
        {"dipole": rng.normal(size=3), "spin_square": np.array(0.75)},
    )
    with FrameStore(tmp_path / "full.h5", "a") as full:
        full.set_embedding({"scheme": "cutoff"})
        full.set_provenance({"structure": "water.gro"})
        full.append(frame)
        full.append(replace(frame, positions=frame.positions + 0.1))
        full.set_label(0, "reference", label)
        full.set_label(0, "low", replace(label, method="low"))
    packed = tmp_path / "packed.h5"
    for count in (1, 1):  # the second time it has nothing to add
        assert pack([tmp_path / "full.h5"], packed, ["reference"], labelled=True) == count
    with FrameStore(packed) as found:
        assert found.embedding == {"scheme": "cutoff"}
        assert found.provenance == {"structure": "water.gro"}
        assert found.methods("low") == {}
        other, kept = found.frame(0), found.label(0, "reference", QUICK.method)
    np.testing.assert_array_equal(other.positions, frame.positions)
    np.testing.assert_allclose(other.site_positions, frame.site_positions, atol=6e-6, rtol=0)
    np.testing.assert_allclose(other.site_charges, frame.site_charges, atol=6e-8, rtol=0)
    assert kept.energy == label.energy
    np.testing.assert_array_equal(kept.gradient, label.gradient)
    np.testing.assert_allclose(kept.site_gradient, label.site_gradient, atol=6e-9, rtol=0)
    np.testing.assert_array_equal(kept.properties["dipole"], label.properties["dipole"])
    assert kept.properties["spin_square"] == 0.75
    assert pack([tmp_path / "full.h5"], packed, ["reference", "low"], labelled=False) == 2
    with FrameStore(packed) as found:
        assert found.methods("low") == {"low": [0]}
    with pytest.raises(DataError, match="expected an output that is not read"):
        pack([packed], packed, ["reference"], labelled=True)


def test_a_frame_that_cannot_be_labelled_stops_everything(store, fake):
    store.append(replace(store.frame(0), multiplicity=3))
    with pytest.raises(SetupError, match="not closed-shell"):
        list(labelling.reference_labels(store, [3, 0], QUICK, 1))


class Dying:
    """A pool whose worker is killed by the frames that are named."""

    def __init__(self, deadly):
        self.deadly, self.started = deadly, 0

    def __call__(self, workers, context, initializer):
        self.started += 1
        return self

    def submit(self, task, frame, *arguments):
        future = Future()
        if frame.source.endswith(self.deadly):
            future.set_exception(BrokenProcessPool())
        else:
            future.set_result(task(frame, *arguments))
        return future

    def shutdown(self, **options):
        pass


def test_a_frame_that_kills_its_worker_is_set_aside(store, fake, monkeypatch):
    monkeypatch.setattr(labelling, "ProcessPoolExecutor", pool := Dying(("step 0",)))
    outcomes = labelling.reference_labels(store, [0, 2], QUICK, 1)
    (failure,) = labelling.write_labels(store, "reference", QUICK.method, outcomes)
    assert failure.startswith("frame 0: its worker process died, perhaps for want of memory")
    assert pool.started == 2
    assert store.unlabelled("reference", QUICK.method) == [1, 0]


def test_workers_that_die_one_after_the_other_end_the_labelling(store, fake, monkeypatch):
    monkeypatch.setattr(labelling, "ProcessPoolExecutor", Dying(("step 0", "step 20", "step 40")))
    outcomes = labelling.reference_labels(store, [0, 1, 2] * 3, QUICK, 2)
    with pytest.raises(RunError, match=r"[56] worker processes died one after the other"):
        labelling.write_labels(store, "reference", QUICK.method, outcomes)
    assert len(store.failures("reference", QUICK.method)) == 3


def test_a_worker_that_is_killed_takes_one_frame_with_it(store, monkeypatch):
    """For real, as soon as it is there."""
    outcomes, victims = labelling.reference_labels(store, [0, 1, 2], QUICK, 1), []

    def kill():
        deadline = time.monotonic() + 60.0
        while not victims and time.monotonic() < deadline:
            victims.extend(multiprocessing.active_children())
            time.sleep(0.01)
        os.kill(victims[0].pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    failures = labelling.write_labels(store, "reference", QUICK.method, outcomes)
    thread.join()
    assert len(failures) == 1
    assert "frame 0: its worker process died" in failures[0]
    assert store.unlabelled("reference", QUICK.method) == [0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--basis", "def2-NONSENSE"), "--basis: expected one that PySCF has for H, found 'def2-NONSENSE'"),
        (("--auxiliary-basis", "nonsense"), "--auxiliary-basis: expected one that PySCF has for H"),
        (("--xc", "NONSENSE"), "xc: expected a functional that PySCF has, found 'NONSENSE'"),
        (("--xc", "PBE-D3BJ"), "xc: expected a functional"),
        (("--xc", "SCAN"), "--grid-level: expected one for SCAN"),
        (("--xc", "revTPSS", "--dispersion", "d4"), "found no published D4 parameters for revTPSS"),
    ],
)
def test_a_wrong_level_of_theory_is_said_before_workers_start(
    store, options, expected, run, monkeypatch, capsys
):
    store.release()
    monkeypatch.setattr(labelling, "ProcessPoolExecutor", None)
    assert run("label", store.path, *options) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.strip().splitlines()
    assert expected in line
    assert printed.out == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"multiplicity": 3},
            "--unrestricted: expected where electrons are unpaired, found 10 electrons and multiplicity 3",
        ),
        ({"charge": 1}, "frame 3: expected a multiplicity that fits the electrons, found 9 electrons"),
        ({"numbers": np.array([52, 1, 1])}, "frame 3: a DFT label expects elements up to Kr"),
    ],
    ids=["radical", "electrons", "heavy"],
)
def test_a_frame_beyond_the_level_of_theory_is_said_before_workers_start(
    store, changes, expected, fail, monkeypatch
):
    """Even where it is the last."""
    store.append(replace(store.frame(0), source="another", **changes))
    store.release()
    monkeypatch.setattr(labelling, "ProcessPoolExecutor", None)
    assert expected in fail("label", store.path)


def label(*arguments):
    app = typer.Typer()
    app.command()(commands.label)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_labels_by_other_methods_and_versions_stay(tmp_path, store, fake, monkeypatch):
    """A new functional is labelled beside the old one; a new version of PySCF leaves labels as they are."""
    path = store.path
    store.set_label(1, "reference", Label("low cost", -3.0, *(np.zeros((k, 3)) for k in (3, 2)), np.zeros(3)))
    store.release()
    options = ["--basis", "STO-3G", "--grid-level", "0", "--workers", "1"]
    first = label(path, "--xc", "PBE", *options)
    assert "note: 1 frames have reference labels by low cost, which stay" in first.output
    assert "3 of 3 frames to label with RKS PBE/STO-3G" in first.output
    assert first.exit_code == 2  # for frame 1, which does not converge
    second = label(path, "--xc", "B3LYP", *options)
    assert "note: 2 frames have reference labels by RKS PBE/STO-3G" in second.output
    assert "3 of 3 frames to label with RKS B3LYP" in second.output
    other = replace(QUICK, xc="B3LYP")
    with FrameStore(path) as frames:
        assert frames.methods("reference") == {
            QUICK.method: [0, 2],
            other.method: [0, 2],
            "low cost": [1],
        }
        program = frames.label(0, "reference", QUICK.method).program
        assert program == f"PySCF {version('pyscf')}"
        assert frames.label(1, "reference", "low cost").energy == -3.0
    monkeypatch.setattr("pidelta.qm.reference_settings.version", lambda name: "99.1")
    again = label(path, "--xc", "PBE", *options)
    assert f"note: 2 frames have labels by this method from {program}, which stay" in again.output
    assert "1 of 3 frames to label" in again.output
    replaced = label(path, "--xc", "PBE", *options, "--replace")
    assert "3 of 3 frames to label" in replaced.output
    with FrameStore(path) as frames:
        assert frames.programs("reference", QUICK.method) == {"PySCF 99.1": 2}
        assert frames.programs("reference", other.method) == {program: 2}


def test_a_file_without_frames_is_an_error(tmp_path, fail):
    with FrameStore(tmp_path / "empty.h5", "a"):
        pass
    assert "empty.h5: expected frames to label, found none" in fail("label", tmp_path / "empty.h5")


def test_a_label_is_not_overwritten_without_being_told(store, fake):
    ((_, first),) = labelling.reference_labels(store, [0], QUICK, 1)
    store.set_label(0, "reference", first)
    with pytest.raises(DataError, match=r"frame 0 has a reference label by RKS PBE/STO-3G, .* already"):
        labelling.write_labels(store, "reference", QUICK.method, [(0, replace(first, energy=-7.0))])
    assert store.label(0, "reference", QUICK.method).energy == -1.0
    labelling.write_labels(store, "reference", QUICK.method, [(0, replace(first, energy=-7.0))], replace=True)
    assert store.label(0, "reference", QUICK.method).energy == -7.0


def read_all(path):
    with FrameStore(path) as store:
        for kind in ("reference", "low"):
            for method, indices in store.methods(kind).items():
                for index in indices:
                    assert store.label(index, kind, method) is not None
        return store.embedding, [
            (frame, [store.label(index, "reference", method) for method in store.methods("reference")])
            for index, frame in enumerate(store)
        ]


def same(one, other):
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Frame | Label):
        return same(list(vars(one).items()), list(vars(other).items()))
    return one == other


def test_a_damaged_store_is_refused_or_reads_the_same(store, fake, tmp_path):
    """Bits that rot: one line that names the file, or no difference at all, as where HDF5 keeps nothing."""
    labelling.write_labels(
        store, "reference", QUICK.method, labelling.reference_labels(store, [0, 2], QUICK, 1)
    )
    store.release()
    content, before = store.path.read_bytes(), read_all(store.path)
    rng = np.random.default_rng(1)
    broken = tmp_path / "broken.h5"
    refused = 0
    for place in rng.integers(0, 8 * len(content), 80):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        broken.write_bytes(flipped)
        message = ""
        try:
            assert same(read_all(broken), before), f"bit {place}"
        except DataError as error:
            message = str(error)
        if message:
            refused += 1
            assert str(broken) in message
            assert "\n" not in message
    assert refused > 4


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_store_is_refused(store, share):
    store.release()
    content = store.path.read_bytes()
    store.path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError) as info:
        read_all(store.path)
    assert str(store.path) in str(info.value)
    assert "\n" not in str(info.value)


def test_a_number_changed_in_a_store_is_refused(store, fake):
    """Through HDF5 itself, which sees nothing wrong."""
    labelling.write_labels(store, "reference", QUICK.method, labelling.reference_labels(store, [0], QUICK, 1))
    group = store._hdf5.changed["frames/000000"]
    group["site_charges"][0] += 1e-9
    with pytest.raises(DataError, match="frame 0: expected numbers that fit their checksum"):
        store.frame(0)
    (name,) = group["labels/reference"]
    group["labels/reference"][name].attrs["energy"] = -1.0000001
    with pytest.raises(DataError, match="reference label of frame 0: expected numbers that fit"):
        store.label(0, "reference", QUICK.method)


def test_a_label_of_another_frame_is_refused(store, fake):
    labelling.write_labels(store, "reference", QUICK.method, labelling.reference_labels(store, [0], QUICK, 1))
    store._hdf5.changed.copy("frames/000000/labels", store._file["frames/000002"])
    with pytest.raises(DataError, match="reference label of frame 2"):
        store.label(2, "reference", QUICK.method)


@pytest.mark.parametrize("name", ["labels", "labels/reference", "positions"])
def test_a_misspelt_name_in_a_store_is_refused(store, fake, name):
    """Else its labels would be passed over as if they had never been."""
    labelling.write_labels(store, "reference", QUICK.method, labelling.reference_labels(store, [0], QUICK, 1))
    store._hdf5.changed["frames/000000"].move(name, name[:-1] + "z")
    with pytest.raises(DataError, match="frame 0: expected its arrays and labels, found"):
        store.methods("reference")


def test_lost_frames_and_old_stores_are_refused(store):
    del store._hdf5.changed["frames/000001"]
    store.release()
    with pytest.raises(DataError, match="expected 2 frames in a row"):
        FrameStore(store.path)
    with h5py.File(store.path, "a") as file:
        file.attrs["schema"] = "pidelta frames 1"
    with pytest.raises(DataError, match="found 'pidelta frames 1', of an earlier version"):
        FrameStore(store.path, "a")


@pytest.mark.slow
def test_ctrl_c_stops_the_command_and_it_goes_on(tmp_path, store):
    frame = store.frame(0)
    path = tmp_path / "many.h5"
    with FrameStore(path, "a") as many:
        for index in range(40):
            many.append(replace(frame, positions=frame.positions * (1 + 0.002 * index)))
    command = [
        sys.executable,
        "-u",
        "-m",
        "pidelta",
        "label",
        str(path),
        "--workers",
        "2",
        "--basis",
        "def2-TZVP",
    ]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    assert "40 of 40 frames to label" in process.stdout.readline()
    time.sleep(3.0)  # on their way: forty take ten or more
    os.killpg(process.pid, signal.SIGINT)
    _, message = process.communicate(timeout=30.0)
    assert process.returncode == 130
    assert "the same command goes on from here" in message
    assert "Traceback" not in message
    with FrameStore(path) as many:
        left = len(many.unlabelled("reference", ReferenceSettings(basis="def2-TZVP").method))
    assert left > 0
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{left} of 40 frames to label" in result.stdout
    with FrameStore(path) as many:
        assert many.unlabelled("reference", ReferenceSettings(basis="def2-TZVP").method) == []


class ChargesInPotential:
    """Fixed charges in the potential: E = sum q phi + 1/2 k |R|^2, all of it known."""

    numbers = NUMBERS[:3]
    identity = "fixed charges"
    charges = np.array([-0.6, 0.3, 0.3])

    def evaluate(self, positions, potential, coulomb_correction=None):
        return QMResult(
            energy=potential @ self.charges + 0.5 * (positions**2).sum(axis=(1, 2)),
            gradient=positions.copy(),
            charges=self.charges[None],
        )


def test_low_labels_are_derivatives_of_their_energy(store, tmp_path):
    engine = ChargesInPotential()
    ((_, label),) = labelling.low_labels(store, [2], engine, charge=0, multiplicity=1)
    assert label.method == "fixed charges"
    np.testing.assert_array_equal(label.charges, engine.charges)
    frame, step = store.frame(2), 1e-4
    for name, gradient in (("positions", label.gradient), ("site_positions", label.site_gradient)):
        for place in np.ndindex(gradient.shape):
            energies = []
            for sign in (1, -1):
                moved = getattr(frame, name).copy()
                moved[place] += sign * step
                with FrameStore(tmp_path / f"{name}{sign}{place}.h5", "a") as other:
                    other.append(replace(frame, **{name: moved}))
                    ((_, result),) = labelling.low_labels(other, [0], engine, 0, 1)
                energies.append(result.energy)
            assert (energies[0] - energies[1]) / (2 * step) == pytest.approx(gradient[place], abs=1e-7)


@pytest.mark.parametrize(
    ("charge", "numbers", "message"),
    [(1, NUMBERS[:3], "expected charge 1 and"), (0, NUMBERS[2:], "expected the elements")],
)
def test_low_labels_of_other_frames_are_refused(store, charge, numbers, message):
    engine = ChargesInPotential()
    engine.numbers = numbers
    with pytest.raises(DataError, match=message):
        list(labelling.low_labels(store, [0], engine, charge=charge, multiplicity=1))
