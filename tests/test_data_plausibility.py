"""Labels whose sign, unit or energy is wrong, and data that only look like it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from delta_frames import random_frame
from pidelta.data.frames import Frame, Label, LabelledFrame
from pidelta.data.labelled import read_labelled, read_reference
from pidelta.data.plausibility import suspicions
from pidelta.data.store import FrameStore
from pidelta.errors import DataError

PATH = Path("f.h5")
EV, ANGSTROM, KCAL = 1 / 27.211386, 1 / 0.52917721, 1 / 627.50947


def made_up(count, noise=0.3, minima=False, sites=24):
    """Gradients of two methods that are alike, at minima of one of them those on the charges alone."""
    rng = np.random.default_rng(3)
    frames = []
    for step in range(count):
        frame = random_frame(step, sites, f"md step {step}")
        low = 0.03 * rng.normal(size=(4, 3)), 0.002 * rng.normal(size=(sites, 3))
        qm = 0.001 * rng.normal(size=(4, 3)) if minima else low[0] * (1 + noise * rng.normal(size=(4, 3)))
        energies = rng.normal() * 0.02, rng.normal() * 0.002
        mm = low[1] * (0.95 + noise * rng.normal(size=(sites, 3)))
        labels = (
            Label("high", -100.0 + sum(energies), qm, mm, np.zeros(4)),
            Label("low", -5.0 + energies[0], *low, np.zeros(4)),
        )
        frames.append(LabelledFrame(frame, *labels))
    return frames


def changed(items, gradient=1.0, energy=1.0, sites=None):
    """The reference labels in another sign or unit."""
    factor = gradient if sites is None else sites
    return [
        replace(
            item,
            reference=replace(
                item.reference,
                energy=energy * item.reference.energy,
                gradient=gradient * item.reference.gradient,
                site_gradient=factor * item.reference.site_gradient,
            ),
        )
        for item in items
    ]


def judge(items):
    return suspicions(items, [(PATH, index) for index in range(len(items))])


@pytest.mark.parametrize("minima", [False, True])
@pytest.mark.parametrize("count", [4, 30])
@pytest.mark.parametrize(
    ("factor", "cause"),
    [
        (-1.0, "forces for gradients, or the other way round?"),
        (EV / ANGSTROM, "as large: hartree/bohr read as eV/angstrom?"),
        (ANGSTROM / EV, "as large: eV/angstrom read as hartree/bohr?"),
        (EV / KCAL, "as large: kcal/mol/angstrom read as eV/angstrom?"),
        (
            -EV / KCAL,
            "forces for gradients, or the other way round and kcal/mol/angstrom read as eV/angstrom?",
        ),
    ],
)
def test_signs_and_units_are_named(minima, count, factor, cause):
    items = made_up(count, minima=minima)
    assert judge(items) == ([], [])
    errors, _ = judge(changed(items, factor))
    assert cause in errors[0]
    assert ("point charges" if minima else "QM atoms") in errors[0]


@pytest.mark.parametrize("factor", [0.529, 1.89])
def test_bohr_for_angstrom_is_seen_in_bonds(factor):
    items = made_up(30, noise=0.1)
    errors, notes = judge(changed(items, factor, sites=1.0))
    assert len(errors) == 1
    assert not notes


def test_charges_alone_of_another_sign_are_a_note():
    errors, (note,) = judge(changed(made_up(10), sites=-1.0))
    assert not errors
    assert "reference gradients on the point charges like those of the low level, found them -0." in note


def test_small_molecules_near_their_minimum_may_differ_in_sign():
    """One bond, between the lengths of two methods."""
    frame = Frame(
        np.array([1, 1]), np.eye(2, 3), np.zeros((0, 3)), np.zeros(0), np.zeros(0, dtype=int), source="h"
    )
    pull = np.array([[0.0, 0.0, 0.01], [0.0, 0.0, -0.01]])
    labels = [
        Label(name, -1.0, sign * pull, np.zeros((0, 3)), np.zeros(2))
        for name, sign in (("high", 1.0), ("low", -1.0))
    ]
    assert judge([LabelledFrame(frame, *labels)] * 4) == ([], [])


def test_without_a_low_level_only_gradients_too_large_for_bonds_show():
    items = [
        replace(
            item,
            low=replace(item.low, energy=0.0, gradient=np.zeros((4, 3)), site_gradient=np.zeros((24, 3))),
        )
        for item in made_up(10)
    ]
    assert judge(items) == ([], [])
    errors, (note,) = judge(changed(items, ANGSTROM / EV))
    assert not errors
    assert "reference gradients on the QM atoms are 1." in note


def test_energies_of_another_unit_are_a_note():
    items = made_up(12)
    for factor in (27.2, 1 / 27.2, -1.0):
        errors, notes = judge(changed(items, energy=factor))
        assert not errors
        assert float(notes[0].split("vary ")[1].split()[0]) == pytest.approx(factor, rel=0.1)


def test_outliers_are_named_by_frame_among_frames_of_their_atoms():
    items = made_up(9)
    smaller = [
        LabelledFrame(
            replace(item.frame, numbers=item.frame.numbers[:3], positions=item.frame.positions[:3]),
            *(
                replace(
                    label, energy=label.energy + 40.0, gradient=label.gradient[:3], charges=label.charges[:3]
                )
                for label in (item.reference, item.low)
            ),
        )
        for item in items
    ]
    items += [
        replace(item, reference=replace(item.reference, energy=item.reference.energy + 9)) for item in smaller
    ]
    assert judge(items) == ([], [])
    for index, shift in ((4, 50.0), (13, -90.0)):
        label = items[index].reference
        items[index] = replace(items[index], reference=replace(label, energy=label.energy + shift * KCAL))
    errors, (note,) = judge(items)
    assert not errors
    assert note.startswith(
        "2 of 18 frames have energies 20 times as far from the median as others, or more: -"
    )
    assert note.index("kcal/mol in frame 13 of f.h5") < note.index("kcal/mol in frame 4 of f.h5")


def test_two_frames_tell_of_no_outlier():
    items = made_up(2)
    items[1] = replace(items[1], reference=replace(items[1].reference, energy=900.0))
    assert judge(items) == ([], [])


def stored(path, items):
    with FrameStore(path, "a") as store:
        for index, item in enumerate(items):
            store.append(item.frame)
            for kind, label in item.labels.items():
                store.set_label(index, kind, label)
    return path


def test_training_refuses_them_and_info_shows_them(tmp_path, run, fail, capsys):
    path = stored(tmp_path / "f.h5", changed(made_up(8), -1.0))
    message = (
        f"{path}: expected reference gradients on the QM atoms like those of the low level, found them -"
    )
    with pytest.raises(DataError) as caught:
        read_labelled([path])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert message in fail("data", "export", path, "--output", tmp_path / "f.xyz")
    assert run("data", "info", path) == 0
    assert f"warning: {message}" in capsys.readouterr().out


def test_outliers_are_notes_of_all_that_read_labels(tmp_path, run, capsys):
    items = made_up(8)
    items[5] = replace(items[5], reference=replace(items[5].reference, energy=900.0))
    path = stored(tmp_path / "f.h5", items)
    (note,) = read_labelled([path]).notes
    assert f"kcal/mol in frame 5 of {path}" in note
    assert read_reference([path])[1][0].startswith("1 of 8 frames have energies 20 times")
    assert run("data", "info", path) == 0
    assert f"warning: {note}" in capsys.readouterr().out
