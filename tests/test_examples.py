"""The scripts in examples/ run, and print what is true."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest

from conftest import ROOT
from delta_frames import random_frame
from pidelta.data.store import FrameStore


@pytest.fixture
def printed(capfd):
    """The numbers in what an example prints, by the label before them."""

    def run(name, *labels):
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
        output = capfd.readouterr().out
        return [
            np.array([float(number) for number in re.findall(rf"{label} +(-?\d+\.\d+)", output)])
            for label in labels
        ]

    return run


def test_optimisations_in_one_process_and_by_a_socket(printed):
    (energy,), (dipole,) = printed("optimise_uracil", "energy ", "dipole")
    assert 3.5 < dipole < 5.0  # 4.2 to 4.4 debye by DFT
    ((by_socket,),) = printed("socket_server", "energy ")
    assert by_socket == pytest.approx(energy, abs=5e-4)


def test_molecular_dynamics_conserves_the_energy(printed):
    (totals,) = printed("short_md", "total")
    assert len(totals) == 20
    assert np.ptp(totals) < 0.02


def test_vibrations(printed):
    """All modes of a minimum, of which the stretches of C=O and C=C, below 1800 1/cm, absorb most."""
    (intensities,) = printed("vibrations_uracil", "1/cm")
    assert len(intensities) == 30
    assert set(np.argsort(intensities)[-3:]) == {23, 24, 25}


def test_nudged_elastic_band(printed):
    """Symmetric, with the proton in the middle at the top."""
    energies, (barrier,) = printed("proton_transfer_neb", "angstrom", "barrier")
    np.testing.assert_allclose(energies, energies[::-1], atol=2e-3)
    assert np.argmax(energies) == 3
    assert energies[3] * 23.0605 == pytest.approx(barrier, abs=0.01)
    assert barrier == pytest.approx(2.78 + 3.71, abs=0.1)  # B3LYP's, and the error that tests/quality has


@pytest.fixture
def label_array(tmp_path):
    """Run tasks of the array that labels frames, by a `pidelta` that prints what it would label."""
    program = tmp_path / "pidelta"
    program.write_text(
        f'#!/bin/bash\nif [ $1 = label ]; then echo "$@"; else exec {sys.executable} -m pidelta "$@"; fi\n'
    )
    program.chmod(0o755)

    def run(task, count, first=0):
        array = {"ID": task, "COUNT": count, "MIN": first}
        slurm = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()}
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", str(ROOT / "examples" / "label.sbatch"), "frames.h5", "--xc", "PBE"],
            cwd=tmp_path,
            env={**os.environ, **slurm, "SLURM_CPUS_PER_TASK": "4", "PATH": path},
            capture_output=True,
            text=True,
        )

    return run


def add_frames(path, seeds):
    with FrameStore(path, "a") as store:
        for seed in seeds:
            store.append(random_frame(seed, source=f"run.pos_0.xyz step {seed}"))


def sources(path):
    with FrameStore(path) as store:
        return [int(frame.source.rpartition(" ")[2]) for frame in store]


def test_an_array_labels_all_frames(tmp_path, label_array):
    """However many there are, also those that are added later."""
    add_frames(tmp_path / "frames.h5", range(5))
    for task in (1, 2):  # an array that begins at 1
        done = label_array(task, 2, first=1)
        assert done.returncode == 0, done.stderr
        assert f"label frames-{task - 1}-of-2.h5 --workers 4 --xc PBE" in done.stdout
    parts = [tmp_path / f"frames-{part}-of-2.h5" for part in range(2)]
    assert [sources(part) for part in parts] == [[0, 2, 4], [1, 3]]
    add_frames(tmp_path / "frames.h5", range(5, 8))
    assert label_array(2, 2, first=1).returncode == 0
    assert sources(parts[1]) == [1, 3, 5, 7]
    other = label_array(1, 1, first=1)  # a task alone would label all frames
    assert (other.returncode, other.stdout) == (2, "")
    assert "expected parts of an array of 1 tasks; submit the whole array as before" in other.stderr


def test_a_task_without_frames_says_so(tmp_path, label_array):
    add_frames(tmp_path / "frames.h5", range(2))
    done = label_array(2, 3)
    assert done.returncode == 2
    assert done.stderr == "pidelta: frames.h5: expected a frame after the first 2, found none\n"
    assert not list(tmp_path.glob("frames-*"))
