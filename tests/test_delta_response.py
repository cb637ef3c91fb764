"""The response model: what it sees of the sites, and how its energy depends on their charges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from delta_frames import random_frame, random_response
from pidelta.delta.region_features import RegionFeatures
from pidelta.delta.response.evaluation import JointEvaluation
from pidelta.delta.response.fields import ResponseField
from pidelta.delta.response.model import Response
from pidelta.errors import ModelError

POWERS = (5, 7)


def moments(frame, place):
    """(n, 10) of the field of all sites, or from place 1 of that of near ones for each of `POWERS`."""
    settings = random_response(near_powers=POWERS).settings
    features = RegionFeatures(settings, ResponseField, frame.region).features()[0]
    first = settings.structure_count + 10 * place
    return features[:, first : first + 10]


@pytest.mark.parametrize("place", range(3))
def test_moments_are_potential_field_and_field_gradient(place):
    """The field as minus the differences of the potential, its gradient as differences of the field."""
    frame, step = random_frame(0), 1e-4
    found = moments(frame, place)
    distances = np.linalg.norm(frame.site_positions - frame.positions[:, None], axis=2)
    weights = np.ones_like(distances)
    if place:
        cutoff = random_response().settings.short_cutoff
        weights = (1.0 - (distances / cutoff) ** 2).clip(0.0) ** POWERS[place - 1]
        assert (weights == 0.0).any()
    assert abs(found).max(axis=0).min() > 1e-5  # else the differences would tell nothing
    potential = (weights * frame.site_charges / distances).sum(axis=1)
    np.testing.assert_allclose(found[:, 0], potential, rtol=1e-12)
    slopes = []
    for axis in range(3):
        move = step * np.eye(3)[axis]
        upper, lower = (moments(replace(frame, positions=frame.positions + s * move), place) for s in (1, -1))
        slopes.append((upper - lower) / (2 * step))
    np.testing.assert_allclose(found[:, 1:4], -np.stack([slope[:, 0] for slope in slopes], axis=1), atol=1e-9)
    gradient = np.stack([slope[:, 1:4] for slope in slopes], axis=2)
    np.testing.assert_allclose(found[:, 4:], gradient[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]], atol=1e-9)
    if place == 0:
        np.testing.assert_allclose(found[:, [4, 7, 9]].sum(axis=1), 0.0, atol=1e-12)


@pytest.mark.parametrize("coupled", [False, True])
def test_energy_is_of_second_order_in_charges_without_field_coupling(coupled):
    """Third differences in a factor of all charges vanish without field coupling, and not with it."""
    model, frame = random_response(field_coupling=coupled), random_frame(1)
    far = np.linalg.norm(frame.site_positions, axis=1)
    frame = replace(frame, site_positions=frame.site_positions * (1.0 + 14.0 / far)[:, None])
    energies = [
        model.evaluate(replace(frame, site_charges=factor * frame.site_charges).region).energy[0]
        for factor in (0.0, 20.0, 40.0, 60.0, 80.0)
    ]
    second, third = np.diff(energies, 2), np.diff(energies, 3)
    assert abs(second).min() > 1e-4
    assert abs(third).max() > 1e-5 if coupled else abs(third).max() < 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_a_region_takes_up_no_charge(seed):
    """The response to a charge far away is that of a dipole: it falls with the square of the distance."""
    model, frame = random_response(seed), random_frame(seed)
    found = []
    for distance in (1e4, 2e4):
        positions = frame.site_positions.copy()
        positions[0] = distance * np.array([0.6, 0.0, 0.8])
        frame = replace(frame, site_positions=positions)
        found.append(model.evaluate(frame.region).gradient.site_charges[0, 0])
    assert found[0] / found[1] == pytest.approx(4.0, rel=1e-2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"energy_width": 0},
        {"short_width": 0},
        {"field_coupling": False},
        {"near_powers": ()},
        {"near_powers": (6,)},
    ],
)
def test_energies_and_derivatives_by_hand_are_those_of_the_networks(options):
    """Two structures and three models, against the networks that are trained, and automatic derivatives."""
    models = [random_response(seed, **options) for seed in range(3)]
    frames = [random_frame(seed) for seed in range(2)]
    settings, networks = models[0].settings, [model.networks for model in models]
    found = [RegionFeatures(settings, ResponseField, frame.region) for frame in frames]
    positions = np.stack([frame.positions for frame in frames])
    features = np.concatenate([own.features() for own in found])
    species = found[0].species
    energies, slopes, direct = JointEvaluation(settings, networks)(positions, features, species)

    x, values = (torch.tensor(array, requires_grad=True) for array in (positions, features))
    expected = torch.stack([own(x, values, torch.from_numpy(species)) for own in networks])
    expected_direct, expected_slopes = torch.autograd.grad(expected.mean(0).sum(), (x, values))
    np.testing.assert_allclose(energies, expected.detach().numpy(), atol=1e-13)
    np.testing.assert_allclose(slopes, expected_slopes.numpy(), atol=1e-12)
    np.testing.assert_allclose(direct, expected_direct.numpy(), atol=1e-14)
    assert abs(direct).max() > 1e-3


def test_near_charges_beyond_those_of_the_training_are_seen_and_not_magnified():
    """A charge without a nucleus, which the short-range functions do not see, is near for the first time."""
    networks = random_response().networks
    settings = networks.settings
    frame = random_frame(0)
    far = frame.site_positions * (1.0 + 1.0 / np.linalg.norm(frame.site_positions, axis=1))[:, None]
    frame = replace(frame, site_positions=far, site_numbers=np.zeros_like(frame.site_numbers))
    nearer = far.copy()
    nearer[0] = frame.positions[0] + np.array([0.0, 0.0, -4.0])
    found = [
        RegionFeatures(settings, ResponseField, item.region)
        for item in (frame, replace(frame, site_positions=nearer))
    ]
    features = [own.features() for own in found]
    networks.fit_scales([torch.from_numpy(features[0])], [torch.from_numpy(found[0].species)])
    torch.testing.assert_close(networks.near_scales[1], 0.05 * networks.moment_scales)
    seen = [Response.coverage_features(settings, own)[0, 0] for own in features]
    blocks = settings.coverage_blocks
    assert blocks[-1].stop == len(seen[0])
    change = abs(seen[1] - seen[0])
    # phi', |F'| and |H'| of both powers, after radial, angular, phi, |F| and |H|
    assert len(blocks) == 12
    assert all(change[block] > 1e-3 for block in blocks[5:11])


def test_settings_of_impossible_powers_are_refused():
    """A file may hold any: some would loop for ever."""
    for powers in ((2,), (5, 5), (18, 5), (5.0,)):
        with pytest.raises(ModelError, match="near_powers: expected ascending whole numbers from 5 to 64"):
            random_response(near_powers=powers)
