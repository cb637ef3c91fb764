"""The spring and the potential of mean force of inputs/sam-cytosine-water."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pidelta.analysis.statistics import Mean


def test_the_force_of_the_spring_is_its_slope_through_the_face_of_a_skewed_cell(script):
    spring = script("sam-cytosine-water", "restraint").Restraint(0, 2, 3.0, 0.05)
    cell = np.array([[12.0, 1.0, -0.5], [0.0, 11.0, 2.0], [0.0, 0.0, 13.0]])  # columns, as in i-PI
    positions = np.array([[0.5, 0.4, 0.2], [6.0, 5.0, 4.0], [11.0, 0.2, 1.5]])
    energy, forces, virial, _ = spring.compute_structure(cell, positions)
    assert energy < 0.05 * 8.0**2 / 2  # of the image next to it, not of 10 bohr
    for place in np.ndindex(positions.shape):
        step = np.zeros_like(positions)
        step[place] = 1e-5
        energies = [spring.compute_structure(cell, positions + sign * step)[0] for sign in (1, -1)]
        assert forces[place] == pytest.approx((energies[1] - energies[0]) / 2e-5, abs=1e-9)
    for place in np.ndindex(3, 3):
        strain = np.zeros((3, 3))
        strain[place] = 1e-6
        energies = [
            spring.compute_structure(cell + sign * strain @ cell, positions + sign * positions @ strain.T)[0]
            for sign in (1, -1)
        ]
        assert virial[place] == pytest.approx((energies[1] - energies[0]) / 2e-6, abs=1e-8)


def test_windows_on_a_known_free_energy_give_its_potential_of_mean_force(script):
    """W = a (d - 5)^2: the mean is where the slopes of W - 2 kT ln d and of the spring cancel."""
    umbrella = script("sam-cytosine-water", "umbrella")
    stiffness, kt = umbrella.STIFFNESS, umbrella.KT
    places = np.linspace(3.5, 6.5, 13)
    rest = places + (2.0 * 0.7 * (places - 5.0) - 2.0 * kt / places) / stiffness
    found = [umbrella.Window(d0, Mean(d, 0.01)) for d0, d in zip(rest, places, strict=True)]
    values, errors = umbrella.potential(places, [window.slope for window in found])
    expected = 0.7 * (places - 5.0) ** 2
    np.testing.assert_allclose(values, expected - expected[-1], atol=1e-9)
    assert errors[-1] == 0.0
    # of the last interval: half of it times the slopes of its two windows
    assert errors[-2] == pytest.approx(0.125 * np.sqrt(2.0) * stiffness * 0.01)
    assert (np.diff(errors) < 0.0).all()


def test_a_force_that_pulls_cytosine_in_is_a_slope_upwards(script):
    """0.01 hartree/bohr between N3 and the carbon by DFTB, 0.004 less by the models, none by DFT."""
    umbrella = script("sam-cytosine-water", "umbrella")
    positions = np.random.default_rng(4).standard_normal((63, 3))
    vector = positions[umbrella.NITROGEN] - positions[umbrella.CARBON]
    pull = np.zeros((63, 3))
    pull[umbrella.NITROGEN] = vector / np.linalg.norm(vector)
    pull[umbrella.CARBON] = -pull[umbrella.NITROGEN]
    item = SimpleNamespace(
        frame=SimpleNamespace(positions=positions, region=None),
        reference=SimpleNamespace(energy=-5.0, gradient=np.zeros((63, 3))),
        low=SimpleNamespace(energy=-4.9, gradient=0.01 * pull),
    )
    gradient = SimpleNamespace(positions=-0.004 * pull[None])
    committee = SimpleNamespace(evaluate=lambda _: SimpleNamespace(energy=[-0.08], gradient=gradient))
    expected = [
        [0.01 * 627.5095 / 0.5291772, 0.1 * 627.5095],
        [0.006 * 627.5095 / 0.5291772, 0.02 * 627.5095],
    ]
    np.testing.assert_allclose(umbrella.difference_from_dft(item, committee), expected, rtol=1e-6)


def test_means_of_windows_are_as_uncertain_as_few_frames_are(script):
    """Differences with known means, and a spread that all windows share."""
    umbrella = script("sam-cytosine-water", "umbrella")
    rng = np.random.default_rng(3)
    means = np.linspace(-2.0, 2.0, 400)
    away = {k: mean + 1.5 * rng.standard_normal((4, 2, 2)) for k, mean in enumerate(means)}
    own = umbrella.window_means(away, 1, umbrella.SLOPE)
    assert own[0].error == pytest.approx(1.5 / 2.0, rel=0.1)
    deviations = np.array([mean.value for mean in own]) - means
    assert np.sqrt(np.mean(deviations**2)) == pytest.approx(own[0].error, rel=0.1)
    difference = umbrella.less(Mean(3.0, 0.3), Mean(1.0, 0.4))
    assert (difference.value, difference.error) == pytest.approx((2.0, 0.5))
    alone = umbrella.window_means({k: values[:1] for k, values in away.items()}, 0, umbrella.ENERGY)
    assert np.isnan(alone[0].error)  # one frame a window tells no spread


def test_both_ways_to_dft_agree_where_the_difference_is_one_of_distance_alone(script):
    """W_DFT = W - 0.5 (d - 6)^2 for a method whose energy differs by that: its slope by d - 6."""
    umbrella = script("sam-cytosine-water", "umbrella")
    places = np.linspace(3.5, 6.5, 13)
    found = [umbrella.Window(round(d, 2), Mean(d - 0.1, 0.01)) for d in places]
    actual = places - 0.1
    rows = np.stack([actual - 6.0, 0.5 * (actual - 6.0) ** 2], axis=1)  # slope, energy
    noise = 0.3 * np.array([-1.0, 1.0])[:, None, None]  # of two frames
    away = {round(d, 2): np.stack([row, row]) + noise for d, row in zip(places, rows, strict=True)}
    profile = umbrella.Profile("delta", found, away)
    dft, (values, errors) = profile.dft(), profile.potential()
    expected = values - rows[:, 1] + rows[-1, 1]
    for way in ("by slopes", "by energies"):
        np.testing.assert_allclose(dft[way][0], expected, atol=1e-9)
        assert dft[way][1][-1] == 0.0
    # two frames with a spread of 0.3 sqrt(2): each mean has an error of 0.3, their difference one of 0.42
    np.testing.assert_allclose(dft["by energies"][1][:-1], np.hypot(errors[:-1], 0.3 * np.sqrt(2.0)))
    assert umbrella.Profile("delta", found[1:], away).dft() == {}


def test_windows_of_a_folder_are_by_the_same_models(script, tmp_path):
    umbrella = script("sam-cytosine-water", "umbrella")
    path = tmp_path / "delta" / "models"
    umbrella.refuse_other_models(path)
    umbrella.refuse_other_models(path)
    path.write_text("0123456789ab")
    with pytest.raises(SystemExit, match="found windows by others: take a new folder"):
        umbrella.refuse_other_models(path)


def test_models_start_where_the_low_level_was_and_without_it_window_by_window(script, tmp_path):
    umbrella = script("sam-cytosine-water", "umbrella")
    first, second = umbrella.DISTANCES[:2]
    assert umbrella.start_of(tmp_path, "dftb", first) is None
    assert umbrella.start_of(tmp_path, "dftb", second) == tmp_path / "dftb" / f"{first:.1f}"
    assert umbrella.start_of(tmp_path, "dftb", umbrella.OUTWARD) == tmp_path / "dftb" / f"{first:.1f}"
    assert umbrella.start_of(tmp_path, "delta", second) == tmp_path / "delta" / f"{first:.1f}"
    (tmp_path / "dftb" / f"{second:.1f}").mkdir(parents=True)
    (tmp_path / "dftb" / f"{second:.1f}" / "done").touch()
    assert umbrella.start_of(tmp_path, "delta", second) == tmp_path / "dftb" / f"{second:.1f}"


def test_a_window_waits_for_the_one_it_starts_from(script, tmp_path):
    umbrella = script("sam-cytosine-water", "umbrella")
    with pytest.raises(SystemExit, match=f"{umbrella.DISTANCES[0]:.1f}, from whose end it starts"):
        umbrella.run(tmp_path, "dftb", [umbrella.DISTANCES[1]])
