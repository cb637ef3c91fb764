"""The delta model: conformance, descriptors against their written formulas, files and refusals."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from delta_frames import EMBEDDING, NUMBERS, random_frame, random_model
from pidelta.core.switching import smooth_step
from pidelta.delta.committee import Committee
from pidelta.delta.descriptors import (
    DescriptorSettings,
    angular_triples,
    cutoff_function,
    species_index,
    structure_features,
)
from pidelta.delta.model import check_fits, load_model, site_species_index
from pidelta.delta.site_features import SiteFeatures
from pidelta.errors import GeometryError, ModelError
from pidelta.testing import models


def evaluate(model, frame):
    return model.evaluate(frame.region)


def test_model_conforms():
    model = random_model()
    settings = model.settings
    cutoffs = (settings.env_cutoff, settings.short_cutoff, settings.radial_cutoff, settings.angular_cutoff)
    models.check_model(model, random_frame(0), cutoffs)


def test_committee_conforms():
    committee = Committee([random_model(0), random_model(1), random_model(2)])
    models.check_model(committee, random_frame(1), (9.0,))


def test_conformance_finds_a_wrong_gradient():
    class Wrong:
        def evaluate(self, *arguments):
            result = random_model().evaluate(*arguments)
            wrong = replace(result.gradient, site_positions=1.001 * result.gradient.site_positions)
            return replace(result, gradient=wrong)

    with pytest.raises(AssertionError, match="site_positions"):
        models.check_derivatives(Wrong(), random_frame(0))


def test_conformance_finds_a_cosine_cutoff(monkeypatch):
    def cosine(r, cutoff):
        return 0.5 * (1.0 + torch.cos(math.pi * (r / cutoff).clamp(max=1.0)))

    monkeypatch.setattr("pidelta.delta.descriptors.cutoff_function", cosine)
    model = random_model()
    with pytest.raises(AssertionError, match="second derivative jumps"):
        models.check_smooth_structure(model, random_frame(0), model.settings.radial_cutoff)


def test_cutoff_function_is_the_switch_of_core():
    r = np.linspace(0.0, 12.0, 50)
    expected, _ = smooth_step(r, 0.0, 9.0)
    np.testing.assert_allclose(cutoff_function(torch.from_numpy(r), 9.0).numpy(), expected, atol=1e-14)


def fall(r, cutoff):
    return float(smooth_step(np.array(r), 0.0, cutoff)[0])


def naive_structure_features(settings: DescriptorSettings, numbers, x):
    """The formulas of the docstrings, atom by atom."""
    pairs = [(a, b) for p, a in enumerate(settings.elements) for b in settings.elements[p:]]
    rows = []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        spacing = (settings.radial_cutoff - 1.5) / settings.radial_count
        radial = np.zeros((len(settings.elements), settings.radial_count))
        for j in others:
            r = np.linalg.norm(x[j] - x[i])
            for s in range(settings.radial_count):
                gauss = math.exp(-((r - 1.5 - s * spacing) ** 2) / (2.0 * spacing**2))
                radial[settings.elements.index(numbers[j]), s] += gauss * fall(r, settings.radial_cutoff)
        spacing = (settings.angular_cutoff - 2.0) / settings.angular_radial_count
        angular = np.zeros((len(pairs), settings.angular_radial_count, settings.angular_angle_count))
        for j, k in combinations(others, 2):
            a, b = x[j] - x[i], x[k] - x[i]
            ra, rb = np.linalg.norm(a), np.linalg.norm(b)
            theta = math.acos(0.95 * (a @ b) / (ra * rb))
            place = pairs.index(tuple(sorted((numbers[j], numbers[k]))))
            both = fall(ra, settings.angular_cutoff) * fall(rb, settings.angular_cutoff)
            for s in range(settings.angular_radial_count):
                gauss = math.exp(-((0.5 * (ra + rb) - 2.0 - s * spacing) ** 2) / (2.0 * spacing**2))
                for t in range(settings.angular_angle_count):
                    shift = (t + 0.5) * math.pi / settings.angular_angle_count
                    turn = (1.0 + math.cos(theta - shift)) ** settings.angular_zeta
                    angular[place, s, t] += 2.0 ** (1.0 - settings.angular_zeta) * turn * gauss * both
        rows.append(np.concatenate([radial.ravel(), angular.ravel()]))
    return np.array(rows)


def test_structure_features_follow_their_formulas():
    settings, frame = random_model().settings, random_frame(2)
    x = torch.from_numpy(frame.positions)[None]
    found = structure_features(settings, species_index(settings, NUMBERS), x, angular_triples(settings, x))
    expected = naive_structure_features(settings, NUMBERS.tolist(), frame.positions)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-12)


def test_environment_features_follow_their_formulas():
    settings, frame = random_model(env_count=3, short_count=2).settings, random_frame(3)
    sites = SiteFeatures(
        settings,
        torch.from_numpy(frame.positions)[None],
        torch.from_numpy(frame.site_positions)[None],
        torch.from_numpy(frame.site_charges)[None],
        site_species_index(settings, frame.site_numbers[None]),
    )
    ratio = (16.0 / 3.0) ** (1.0 / 3.0)
    centres = 3.0 * ratio ** np.arange(3)
    expected = np.zeros((4, 8))
    for i, atom in enumerate(frame.positions):
        for site, charge, number in zip(
            frame.site_positions, frame.site_charges, frame.site_numbers, strict=True
        ):
            r = np.linalg.norm(site - atom)
            expected[i, 0] += charge / r
            widths = (ratio - 1.0) * centres
            expected[i, 1:4] += charge * np.exp(-0.5 * ((r - centres) / widths) ** 2) * fall(r, 16.0)
            short = np.exp(-0.5 * ((r - np.array([3.0, 6.0])) / 3.0) ** 2) * fall(r, 9.0)
            expected[i, 4 + 2 * (number == 8) : 6 + 2 * (number == 8)] += short
    np.testing.assert_allclose(sites.features()[0].numpy(), expected, atol=1e-12)


def test_a_charge_without_nucleus_counts_through_its_charge():
    model, frame = random_model(), random_frame(4)
    numbers = frame.site_numbers.copy()
    numbers[0] = 0
    frame = replace(frame, site_numbers=numbers)
    models.check_derivatives(model, frame)
    assert np.abs(evaluate(model, frame).gradient.site_positions[0, 0]).max() > 1e-6


@pytest.mark.parametrize("atoms", [1, 2, 4])
def test_without_environment_and_with_few_atoms(atoms):
    frame = random_frame(5)
    frame = replace(
        frame,
        numbers=frame.numbers[:atoms],
        positions=frame.positions[:atoms],
        site_positions=np.zeros((0, 3)),
        site_charges=np.zeros(0),
        site_numbers=np.zeros(0, dtype=np.int64),
    )
    models.check_derivatives(random_model(mm_elements=()), frame)


def test_committee_is_the_mean_and_the_spread_of_its_members():
    frame = random_frame(6)
    members = [random_model(seed) for seed in range(3)]
    results = [evaluate(member, frame) for member in members]
    committee = evaluate(Committee(members), frame)
    for name in ("positions", "site_positions", "site_charges"):
        mean = np.mean([getattr(result.gradient, name) for result in results], axis=0)
        np.testing.assert_allclose(getattr(committee.gradient, name), mean, atol=1e-13)
    energies = np.array([result.energy for result in results])
    np.testing.assert_allclose(committee.energy, energies.mean(axis=0), atol=1e-13)
    np.testing.assert_allclose(committee.properties["delta_energies"], energies.T, atol=1e-13)
    spread = committee.properties["delta_standard_deviation"]
    np.testing.assert_allclose(spread, energies.std(axis=0, ddof=1), atol=1e-13)
    assert evaluate(Committee(members[:1]), frame).properties["delta_standard_deviation"] == [0.0]


def test_committee_refuses_models_that_differ():
    with pytest.raises(ModelError, match="model 1 has other descriptors"):
        Committee([random_model(), random_model(radial_cutoff=7.0)])
    with pytest.raises(ModelError, match="at least one"):
        Committee([])


def test_saved_model_gives_the_same_bits(tmp_path):
    model, frame = random_model(), random_frame(7)
    model.save(tmp_path / "m.pt")
    loaded = load_model(tmp_path / "m.pt")
    assert loaded.settings == model.settings
    assert loaded.training == model.training
    before, after = evaluate(model, frame), evaluate(loaded, frame)
    np.testing.assert_array_equal(after.energy, before.energy)
    for name in ("positions", "site_positions", "site_charges"):
        np.testing.assert_array_equal(getattr(after.gradient, name), getattr(before.gradient, name))


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


def test_files_that_are_no_models_are_refused_in_one_line(tmp_path, capsys):
    def refused(path, match):
        with pytest.raises(ModelError, match=match) as info:
            load_model(path)
        assert "\n" not in str(info.value)
        assert path.name in str(info.value)

    refused(tmp_path / "missing.pt", "no such model file")
    (tmp_path / "junk.pt").write_text("not a model")
    refused(tmp_path / "junk.pt", "expected a delta model")
    (tmp_path / "empty.pt").write_bytes(b"")
    refused(tmp_path / "empty.pt", "expected a delta model")
    with (tmp_path / "payload.pt").open("wb") as file:
        pickle.dump(Payload(), file)
    refused(tmp_path / "payload.pt", "expected a delta model")
    torch.save({"schema": "x", "p": Payload()}, tmp_path / "zipped.pt")
    refused(tmp_path / "zipped.pt", "expected a delta model")
    assert "executed" not in capsys.readouterr().out
    torch.save({"schema": "pidelta delta model 0"}, tmp_path / "old.pt")
    refused(tmp_path / "old.pt", "expected the schema")
    torch.save({"schema": "pidelta delta model 1"}, tmp_path / "partial.pt")
    refused(tmp_path / "partial.pt", "complete")
    random_model().save(tmp_path / "cut.pt")
    content = (tmp_path / "cut.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    refused(tmp_path / "cut.pt", "expected a delta model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low_level": "other low"}, "low-level method"),
        ({"numbers": np.array([8, 7])}, r"found 7 \(QM atom 1\)"),
        ({"embedding": EMBEDDING | {"cutoff": 15.9}}, "embedding.cutoff"),
        ({"embedding": EMBEDDING | {"scheme": "pme"}}, "embedding.scheme"),
        ({"embedding": {"scheme": "cutoff", "cutoff": 16.0}}, "embedding.switch"),
        ({"charge": 1}, "charge 0, found 1"),
        ({"multiplicity": 3}, "multiplicity 1, found 3"),
    ],
)
def test_a_set_up_the_model_was_not_trained_for_is_refused(change, message):
    fits = {
        "numbers": NUMBERS,
        "low_level": "toy low",
        "embedding": EMBEDDING,
        "charge": 0,
        "multiplicity": 1,
    }
    check_fits(random_model(), **fits)
    with pytest.raises(ModelError, match=message):
        check_fits(random_model(), **(fits | change))


def test_what_cannot_be_evaluated_is_refused():
    model, frame = random_model(), random_frame(8)
    numbers = frame.site_numbers.copy()
    numbers[3] = 11
    with pytest.raises(ModelError, match="MM atoms of the atomic numbers 1, 8, found 11"):
        evaluate(model, replace(frame, site_numbers=numbers))
    positions = frame.positions.copy()
    positions[1] = positions[0]
    with pytest.raises(GeometryError, match="finite"):
        evaluate(model, replace(frame, positions=positions))
    with pytest.raises(ModelError, match="short_cutoff below"):
        random_model(short_cutoff=12.0)
