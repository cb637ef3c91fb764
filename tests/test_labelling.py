"""From trajectories to labelled frames: sampling, labelling that resumes, and its errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyscf")

from pidelta.data.frames import Frame, Label
from pidelta.data.store import FrameStore
from pidelta.errors import DataError, RunError, SetupError
from pidelta.qm.base import QMResult
from pidelta.qm.reference import ReferenceSettings, label_frame
from pidelta.qmmm.surroundings import CutRegion
from pidelta.state import System
from pidelta.units import ANGSTROM
from pidelta.workflow import labelling
from pidelta.workflow.sampling import sample
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

    def cut(self, positions, cells):
        self.cells = cells
        sites = np.concatenate([positions[:, 3:], np.full((1, 1, 3), 99.0)], axis=1)
        return CutRegion(
            numbers=self.numbers,
            positions=positions[:, :3],
            site_positions=sites,
            site_charges=np.array([[-0.8, 0.4, 0.0]]),
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


def test_trajectory_errors_are_one_line(tmp_path, region):
    forces = write_xyz(tmp_path / "run.frc_0.xyz", [0], what="forces")
    good = write_xyz(tmp_path / "good.xyz", [0])
    with FrameStore(tmp_path / "f.h5", "a") as store:
        for path, numbers, message in (
            (tmp_path / "none.xyz", NUMBERS, "no such trajectory"),
            (tmp_path / "run.dcd", NUMBERS, "ending in .xyz or .pdb"),
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
        store, "reference", labelling.reference_labels(store, indices, QUICK, workers=2)
    )
    assert failures == []
    assert store.unlabelled("reference", QUICK.method) == []
    expected, found = label_frame(store.frame(1), QUICK), store.label(1, "reference")
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
        return Label(settings.method, -1.0, zeros(frame.positions), zeros(frame.site_positions), np.zeros(3))

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
            store, "reference", interrupted(labelling.reference_labels(store, missing, QUICK, 1))
        )
    labelled = {0, 1, 2} - set(store.unlabelled("reference", QUICK.method))
    assert len(labelled) <= 1
    missing = store.unlabelled("reference", QUICK.method)
    labelling.write_labels(store, "reference", labelling.reference_labels(store, missing, QUICK, 1))
    assert store.unlabelled("reference", QUICK.method) == [1]
    other = replace(QUICK, basis="def2-SVP")
    assert store.unlabelled("reference", other.method) == [0, 1, 2]


def test_an_interrupted_write_leaves_the_store_as_it_was(store, fake):
    labelling.write_labels(store, "reference", labelling.reference_labels(store, [0], QUICK, 1))
    good = store.label(0, "reference")
    for index in (0, 2):
        with pytest.raises(TypeError):
            store.set_label(index, "reference", replace(good, energy=0.0, charges=object()))
    with pytest.raises(TypeError):
        store.append(replace(store.frame(0), source=object()))
    assert store.label(0, "reference").energy == good.energy
    assert store.label(2, "reference") is None
    assert [frame.source for frame in store] == [store.frame(index).source for index in range(3)]


def test_a_failed_frame_is_reported_and_skipped(store, fake):
    failures = labelling.write_labels(
        store, "reference", labelling.reference_labels(store, [0, 1, 2], QUICK, 2)
    )
    (failure,) = failures
    assert failure.startswith("frame 1: ")
    assert failure.endswith("did not converge")
    assert store.unlabelled("reference", QUICK.method) == [1]


def test_a_frame_that_cannot_be_labelled_stops_everything(store, fake):
    store.append(replace(store.frame(0), multiplicity=3))
    with pytest.raises(SetupError, match="not closed-shell"):
        list(labelling.reference_labels(store, [3, 0], QUICK, 1))


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
