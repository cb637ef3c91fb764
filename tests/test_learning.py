"""The parts of `pidelta learn`: draws of geometries, the bias, picking frames, and its settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from delta_frames import FORMALDEHYDE, NUMBERS, random_frame
from pidelta.errors import ConfigError, DataError
from pidelta.units import ANGSTROM, DALTON_IN_ELECTRON_MASS, KCAL_PER_MOL, KELVIN
from pidelta.workflow.learning.bias import DistanceBias, Restraint, distances_of, read_bias, write_bias
from pidelta.workflow.learning.draws import (
    WAVENUMBER,
    NormalModes,
    PrincipalComponents,
    normal_modes,
    superpose,
)
from pidelta.workflow.learning.selection import descriptors, farthest, has_collided, most_uncertain
from pidelta.workflow.learning.settings import read_learning_file

ROOM = 300.0 * KELVIN
MASSES = np.array([15.999, 12.011, 1.008, 1.008]) * DALTON_IN_ELECTRON_MASS


def springs(geometries):
    """Four atoms, each held in its place by springs that differ in the three directions."""
    stiffness = np.outer([0.3, 0.5, 0.2, 0.4], [1.0, 0.5, 0.25])
    moved = geometries - FORMALDEHYDE
    return 0.5 * (stiffness * moved**2).sum(axis=(1, 2)), stiffness * moved


def test_normal_modes_are_those_of_the_springs():
    modes = normal_modes(springs, FORMALDEHYDE + 0.05, MASSES)
    expected = np.sqrt(np.outer([0.3, 0.5, 0.2, 0.4], [1.0, 0.5, 0.25]) / MASSES[:, None])
    np.testing.assert_allclose(modes.frequencies, np.sort(expected.ravel()), rtol=1e-6)
    np.testing.assert_allclose(modes.minimum, FORMALDEHYDE, atol=5e-3)


@pytest.mark.parametrize("temperature", [0.0, ROOM, 5000.0 * KELVIN])
def test_wigner_samples_have_the_variance_of_each_quantum_mode(temperature):
    """1/(2 w) coth(w/2kT), here as the sum over levels of (n + 1/2)/w with Boltzmann's weights."""
    modes = normal_modes(springs, FORMALDEHYDE, MASSES)
    drawn = modes.wigner(temperature, 20_000, np.random.default_rng(1))
    weighted = ((drawn - modes.minimum) * np.sqrt(MASSES)[:, None]).reshape(len(drawn), -1)
    found = (weighted @ modes.directions).var(axis=0)
    levels = np.arange(3000)
    for variance, omega in zip(found, modes.frequencies, strict=True):
        weights = np.exp(-levels * omega / temperature) if temperature else (levels == 0).astype(float)
        expected = (weights * (levels + 0.5)).sum() / weights.sum() / omega
        assert variance == pytest.approx(expected, rel=0.05)


def test_soft_and_imaginary_modes_are_left_alone():
    def surface(geometries):
        energies, gradients = springs(geometries)
        gradients[:, 0, 2] = -0.1 * (geometries[:, 0, 2] - FORMALDEHYDE[0, 2])
        gradients[:, 1, 2] = 0.0
        return energies, gradients

    modes = normal_modes(surface, FORMALDEHYDE, MASSES)
    assert len(modes.frequencies) == 10
    drawn = modes.wigner(ROOM, 50, np.random.default_rng(2))
    np.testing.assert_allclose(drawn[:, :2, 2], np.tile(modes.minimum[:2, 2], (50, 1)), atol=1e-9)
    assert (modes.frequencies > 50.0 * WAVENUMBER).all()


def test_modes_draw_in_mass_weighted_coordinates():
    """One mode of a diatomic along x: amplitudes are inverse to the masses, and the centre stays."""
    masses = np.array([1.0, 4.0])
    direction = np.array([[2.0, 0, 0, -1.0, 0, 0]]).T / np.sqrt(5.0)
    modes = NormalModes(np.zeros((2, 3)), masses, np.array([0.01]), direction)
    drawn = modes.wigner(0.0, 10, np.random.default_rng(3))
    np.testing.assert_allclose(drawn[:, 0, 0], -4.0 * drawn[:, 1, 0], rtol=1e-12)


def test_principal_components_reproduce_the_covariance_whatever_the_orientation():
    rng = np.random.default_rng(4)
    mix = 0.02 * rng.normal(size=(12, 12))
    shapes = FORMALDEHYDE + (rng.normal(size=(3000, 12)) @ mix).reshape(-1, 4, 3)
    turned = [
        shape @ Rotation.random(random_state=place).as_matrix() + rng.normal(size=3)
        for place, shape in enumerate(shapes)
    ]
    components = PrincipalComponents.of(np.array(turned))
    expected = np.stack([superpose(shape, components.mean) for shape in shapes])
    drawn = components.draw(20_000, 1.0, rng)
    largest = np.abs(np.cov(expected.reshape(len(shapes), -1).T)).max()
    for one, other in zip(*(_covariance(each) for each in (drawn, expected)), strict=True):
        np.testing.assert_allclose(one, other, atol=0.05 * largest)
    np.testing.assert_allclose(drawn.mean(axis=0), expected.mean(axis=0), atol=2e-3)
    wide = components.draw(20_000, 2.0, rng)
    np.testing.assert_allclose(_covariance(wide), 4.0 * _covariance(expected), atol=0.2 * largest)


def _covariance(geometries):
    return np.cov(geometries.reshape(len(geometries), -1).T)


def test_superposing_undoes_a_rotation_and_makes_no_mirror_image():
    turned = FORMALDEHYDE @ Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix().T + 5.0
    np.testing.assert_allclose(superpose(turned, FORMALDEHYDE), FORMALDEHYDE, atol=1e-12)
    chiral = np.array([[0.0, 0, 0], [1.0, 0, 0], [0, 1.3, 0], [0, 0, 1.7]])
    mirrored = chiral * [1, 1, -1]
    assert np.abs(superpose(mirrored, chiral) - chiral).max() > 0.3


def bias(**options):
    rng = np.random.default_rng(5)
    pairs = np.array([[0, 1], [1, 2]])
    centres = rng.normal([2.3, 2.1], 0.1, size=(40, 2))
    return DistanceBias(pairs, centres, 0.1, ROOM, 10.0 * KCAL_PER_MOL, **options)


@pytest.mark.parametrize("cell", [None, np.diag([9.0, 10.0, 11.0])])
def test_the_gradient_of_the_bias_is_that_of_its_energy(cell):
    positions = np.random.default_rng(6).normal(FORMALDEHYDE, 0.05, size=(2, 4, 3))
    cells = None
    if cell is not None:
        positions[:, 0] += cell[2]  # an atom in another image
        cells = np.stack([cell, cell])
    _, gradient = bias().evaluate(positions, cells)
    assert np.abs(gradient).max() > 1e-3
    for b, atom, axis in np.ndindex(positions.shape):
        step = np.zeros_like(positions)
        step[b, atom, axis] = 1e-4
        energies = [bias().evaluate(positions + sign * step, cells)[0][b] for sign in (1, -1)]
        assert gradient[b, atom, axis] == pytest.approx((energies[0] - energies[1]) / 2e-4, abs=1e-7)


def test_the_bias_flattens_the_free_energy_and_fills_no_more_than_the_barrier():
    """Where the density is known it takes away 1 - kT/barrier of -kT ln rho; far away it ends."""
    barrier = 10.0 * KCAL_PER_MOL
    seen = np.random.default_rng(7).normal(2.3, 0.1, size=(2000, 1))
    one = DistanceBias(np.array([[0, 1]]), seen, 0.02, ROOM, barrier)
    distances = np.array([2.2, 2.3, 2.45, 8.0])
    positions = np.zeros((4, 2, 3))
    positions[:, 1, 0] = distances
    energy, _ = one.evaluate(positions, None)
    width = np.hypot(0.1, 0.02)  # of the sum of Gaussians at normally distributed centres
    expected = (1.0 - ROOM / barrier) * -0.5 * ROOM * ((distances[:3] - 2.3) / width) ** 2
    np.testing.assert_allclose(energy[:3] - energy[1], expected - expected[1], atol=0.15 * ROOM)
    assert energy[1] - energy[3] == pytest.approx(barrier, abs=ROOM)


def test_a_spring_on_a_difference_of_distances_has_the_gradient_of_its_energy():
    spring = Restraint(np.array([[0, 1], [1, 2]]), np.array([1.0, -1.0]), 0.5, 0.2)
    positions = np.array([[[0.0, 0, 0], [3.0, 0.4, 0], [5.0, 0, 1.0]]])
    energy, gradient = spring.evaluate(positions, None)
    distances = distances_of(positions, None, spring.pairs)[0]
    assert energy[0] == pytest.approx(0.1 * (distances[0] - distances[1] - 0.5) ** 2)
    for place in np.ndindex(positions.shape):
        step = np.zeros_like(positions)
        step[place] = 1e-5
        energies = [spring.evaluate(positions + sign * step, None)[0][0] for sign in (1, -1)]
        assert gradient[place] == pytest.approx((energies[0] - energies[1]) / 2e-5, abs=1e-9)


def test_a_spring_is_the_same_after_its_file(tmp_path):
    spring = Restraint(np.array([[0, 1], [1, 2]]), np.array([1.0, -1.0]), 0.5, 0.2)
    write_bias(tmp_path / "bias.json", spring)
    again = read_bias(tmp_path / "bias.json")
    positions = np.random.default_rng(3).normal(size=(2, 3, 3))
    assert (again.evaluate(positions, None)[1] == spring.evaluate(positions, None)[1]).all()


def test_a_bias_is_the_same_after_its_file_and_nothing_else_is_read(tmp_path):
    write_bias(tmp_path / "bias.json", bias())
    positions = FORMALDEHYDE[None]
    again = read_bias(tmp_path / "bias.json")
    assert again.evaluate(positions, None)[0] == bias().evaluate(positions, None)[0]
    np.testing.assert_allclose(distances_of(positions, None, again.pairs)[0, 0], 2.28)
    (tmp_path / "bias.json").write_text('{"pairs": [[0, 1]]}')
    with pytest.raises(DataError, match=r"bias\.json"):
        read_bias(tmp_path / "bias.json")


@pytest.mark.parametrize("known_count", [0, 7])
def test_picks_are_the_farthest_from_all_that_is_known_or_picked(known_count):
    rng = np.random.default_rng(8)
    candidates, known = rng.normal(size=(60, 5)), rng.normal(size=(known_count, 5))
    picked = farthest(candidates, known, 10)
    assert len(set(picked.tolist())) == 10
    reached = known if known_count else candidates[:1]
    assert known_count or picked[0] == 0
    for pick in picked[0 if known_count else 1 :]:
        distances = cdist(candidates, reached).min(axis=1)
        assert distances[pick] == pytest.approx(distances.max())
        reached = np.concatenate([reached, candidates[pick : pick + 1]])


def test_picks_end_with_the_candidates():
    few = np.random.default_rng(9).normal(size=(3, 2))
    assert sorted(farthest(few, few[:0], 10)) == [0, 1, 2]
    assert farthest(few[:1], few[:0], 10).tolist() == [0]
    assert farthest(few[:0], few, 10).tolist() == []


def test_the_most_uncertain_come_first_and_are_enough():
    assert most_uncertain(np.array([1.0, 4.0, 2.0, 3.0]), 0.5, 1).tolist() == [1, 3]
    assert most_uncertain(np.array([1.0, 4.0, 2.0, 3.0]), 0.5, 3).tolist() == [1, 3, 2]


def test_descriptors_do_not_change_with_the_orientation():
    frames = [random_frame(seed) for seed in range(4)]
    turn = Rotation.from_rotvec([1.0, 2.0, 0.5]).as_matrix()
    turned = [
        replace(frame, positions=frame.positions @ turn, site_positions=frame.site_positions @ turn)
        for frame in frames
    ]
    np.testing.assert_allclose(descriptors(turned), descriptors(frames), atol=1e-6)


def test_collisions_are_seen():
    frame = random_frame(0)
    assert not has_collided(frame)
    closer = frame.positions.copy()
    closer[3] = closer[2] + [0.2, 0.2, 0.0]
    assert has_collided(replace(frame, positions=closer))
    sites = frame.site_positions.copy()
    sites[0] = frame.positions[2] + 0.3 * ANGSTROM
    assert has_collided(replace(frame, site_positions=sites))
    assert NUMBERS[2] == 1


GOOD = """config: pidelta.yaml
training: train.yaml
sample: [{temperature: 300 K, time: 1 ps}]
test: {dynamics: {temperature: 300 K, time: 1 ps}}
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("sample:", "sampl:", "unknown key sampl|missing key sample"),
        ("300 K, time", "300, time", "temperature: expected a temperature with its unit"),
        ("time: 1 ps}]", "time: 5 fs}]", "expected skip and every to leave a frame"),
        ("{temperature: 300 K, time: 1 ps}]", "{method: wigner, temperature: 300 K}]", "at least one source"),
        ("{temperature: 300 K, time: 1 ps}]", "{method: dice}]", "expected one of md, metadynamics"),
        (
            "{temperature: 300 K, time: 1 ps}]",
            "{method: umbrella, temperature: 300 K, time: 1 ps, distances: [[0, 1]], weights: [1, -1], "
            "centres: [1 nm]}]",
            "weights: expected 1 as of distances, found 2",
        ),
        (
            "{temperature: 300 K, time: 1 ps}]",
            "{method: umbrella, temperature: 300 K, time: 1 ps, distances: [[0, 1]], centres: [1 A, -1 A]}]",
            "centres.1: expected what these weighted distances can reach",
        ),
        (
            "{temperature: 300 K, time: 1 ps}]",
            "{method: umbrella, temperature: 300 K, time: 1 ps, distances: [[0, 1]], weights: [0], "
            "centres: [1 A]}]",
            "weights: expected none to be zero",
        ),
        (
            "{temperature: 300 K, time: 1 ps}]",
            "{method: umbrella, temperature: 300 K, time: 1 ps, distances: [[0, 1]], centres: [1 nm], "
            "stiffness: 5 kcal/mol}]",
            r"expected a stiffness in one of hartree/bohr\^2, eV/angstrom\^2",
        ),
        (
            "{temperature: 300 K, time: 1 ps}]",
            "{method: metadynamics, temperature: 300 K, time: 1 ps, distances: []}]",
            "distances",
        ),
        (
            "{temperature: 300 K, time: 1 ps}]",
            "{method: metadynamics, temperature: 300 K, time: 1 ps, distances: [[0, 1]], barrier: 1 kJ/mol}]",
            "barrier: expected more than",
        ),
        ("test:", "targets: {energy: 1}\ntest:", "targets.energy: expected an energy with its unit"),
        ("test:", "models: 1\ntest:", "models"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, old, new, expected):
    path = tmp_path / "learn.yaml"
    path.write_text(GOOD)
    read_learning_file(path)
    assert old in GOOD
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError, match=expected) as error:
        read_learning_file(path)
    assert "\n" not in str(error.value)
