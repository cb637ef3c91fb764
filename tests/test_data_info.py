"""``pidelta data info``: what is in a file of frames."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from delta_frames import analytic_difference, write_store
from pidelta.analysis.frames import summarise
from pidelta.data.store import FrameStore

KCAL_PER_MOL = 627.509474  # of a hartree
ANGSTROM = 0.529177211  # of a bohr


@pytest.fixture
def file(tmp_path):
    """Eight frames of two beads at four steps, labelled by both methods."""
    path = tmp_path / "frames.h5"
    write_store(path, 8, 3)
    return path


def test_differences_are_those_of_the_labels(file):
    with FrameStore(file) as store:
        summary, frames = summarise(store), list(store)
    expected = [analytic_difference(frame) for frame in frames]
    found = summary.values
    energies = np.array([energy for energy, _, _ in expected])
    np.testing.assert_allclose(found.energies, KCAL_PER_MOL * (energies - energies.mean()), rtol=1e-6)
    unit = KCAL_PER_MOL / ANGSTROM
    np.testing.assert_allclose(found.gradients, [unit * g for _, g, _ in expected], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(
        found.site_gradients, np.concatenate([unit * g for _, _, g in expected]), rtol=1e-6, atol=1e-9
    )
    assert summary.trajectories == {"run.pos.xyz ": (8, 0, 150)}  # both beads
    assert summary.regions == {"CH2O, charge +0, multiplicity 1": 8}
    assert [(group.kind, group.method, len(group.frames)) for group in summary.labels] == [
        ("reference", "toy reference", 8),
        ("low", "toy low", 8),
    ]


def test_distances_are_those_of_the_nearest_atom(file):
    with FrameStore(file) as store:
        summary, frame = summarise(store), store.frame(0)
    by_hand = [min(np.linalg.norm(site - atom) for atom in frame.positions) for site in frame.site_positions]
    np.testing.assert_allclose(
        summary.values.distances[: len(by_hand)], ANGSTROM * np.array(by_hand), rtol=1e-6
    )
    assert summary.closest[0] == pytest.approx(ANGSTROM * min(by_hand), rel=1e-6)


def test_the_command_prints_and_draws(file, run, capsys):
    assert run("data", "info", file) == 0
    printed = capsys.readouterr().out
    for text in (
        "8 frames, all whole",
        "CH2O, charge +0",
        "steps 0 to 150",
        "toy reference",
        "gradient on QM",
    ):
        assert text in printed
    assert file.with_name("frames-info.png").stat().st_size > 10_000


def test_frames_without_labels_have_no_picture(file, tmp_path, run, capsys):
    bare = tmp_path / "bare.h5"
    with FrameStore(file) as source, FrameStore(bare, "a") as store:
        store.append(source.frame(0))
    assert run("data", "info", bare) == 0
    assert "no picture" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.png"))


def test_an_empty_file_of_frames(tmp_path, run, capsys):
    with FrameStore(tmp_path / "empty.h5", "a"):
        pass
    assert run("data", "info", tmp_path / "empty.h5") == 0
    assert "0 frames" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["positions", "labels/low/toy low/gradient"])
def test_a_number_that_changed_is_found(file, fail, name):
    with h5py.File(file, "a") as content:
        content["frames/000005"][name][0, 0] += 1e-9
    assert "frame 5: expected numbers that fit their checksum: it is damaged" in fail("data", "info", file)


def test_what_is_no_file_of_frames(tmp_path, fail):
    assert "no such file of frames" in fail("data", "info", tmp_path / "none.h5")


@pytest.mark.parametrize("kind", ["reference", "low"])
def test_labels_of_one_kind_are_drawn(file, tmp_path, run, capsys, kind):
    path = tmp_path / "one.h5"
    with FrameStore(file) as source, FrameStore(path, "a") as store:
        for index, frame in enumerate(source):
            store.append(frame)
            if index > 1:
                store.set_label(index, kind, source.label(index, kind, f"toy {kind}"))
    with FrameStore(path) as store:
        found = summarise(store).values
        labels = [store.label(index, kind, f"toy {kind}") for index in range(2, 8)]
    assert (found.name, found.frames.tolist()) == (kind, [2, 3, 4, 5, 6, 7])
    energies = np.array([label.energy for label in labels])
    np.testing.assert_allclose(found.energies, KCAL_PER_MOL * (energies - energies.mean()), rtol=1e-6)
    unit = KCAL_PER_MOL / ANGSTROM
    np.testing.assert_allclose(found.gradients, [unit * label.gradient for label in labels], rtol=1e-6)
    assert run("data", "info", path) == 0
    assert f"{kind}, 6 frames" in capsys.readouterr().out
    assert path.with_name("one-info.png").stat().st_size > 10_000


def test_failures_are_shown_where_no_frame_has_a_label(tmp_path, file, run, capsys):
    path = tmp_path / "failed.h5"
    with FrameStore(file) as source, FrameStore(path, "a") as store:
        store.append(source.frame(0))
        store.set_failure(0, "reference", "PBE/STO-3G", "it did not converge")
    assert run("data", "info", path) == 0
    printed = capsys.readouterr().out
    assert "reference labels: 0 frames, PBE/STO-3G\n" in printed
    assert "no such label of frame 0: it did not converge" in printed


def test_a_picture_does_not_take_the_place_of_the_file(file, fail):
    before = file.read_bytes()
    assert "expected an output that is not read" in fail("data", "info", file, "--output", file)
    assert file.read_bytes() == before
    assert "ends in .png, .pdf, .svg, found '.foo'" in fail("data", "info", file, "--output", "x.foo")
