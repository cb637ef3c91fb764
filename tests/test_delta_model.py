"""The delta model: conformance, descriptors against their written formulas, files and refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from delta_frames import EMBEDDING, NUMBERS, random_frame, random_model, random_response
from pidelta.delta.base import CorrectionResult, check_fits
from pidelta.delta.committee import Committee
from pidelta.delta.descriptors import DescriptorSettings, species_index
from pidelta.delta.hdnnp.charge_features import ChargeFeatures
from pidelta.delta.network_model import NetworkModel
from pidelta.delta.region_features import RegionFeatures
from pidelta.delta.response.model import Response
from pidelta.delta.structure_features import StructureFeatures
from pidelta.errors import GeometryError, ModelError
from pidelta.state import RegionGradient
from pidelta.testing import corrections
from qmmm_systems import smooth_step


def evaluate(model, frame):
    return model.evaluate(frame.region)


def test_model_conforms():
    model = random_model()
    settings = model.settings
    cutoffs = (settings.charge_cutoff, settings.short_cutoff, settings.radial_cutoff, settings.angular_cutoff)
    corrections.check_correction(model, random_frame(0), cutoffs)


@pytest.mark.parametrize("options", [{}, {"energy_width": 0, "short_width": 0}])
def test_response_conforms(options):
    model = random_response(**options)
    settings = model.settings
    cutoffs = (settings.short_cutoff, settings.radial_cutoff, settings.angular_cutoff)
    corrections.check_correction(model, random_frame(0), cutoffs)


@pytest.mark.parametrize("made", [random_model, random_response])
def test_committee_conforms(made):
    committee = Committee([made(0), made(1), made(2)])
    corrections.check_correction(committee, random_frame(1), (9.0,))


def test_conformance_finds_a_wrong_gradient():
    class Wrong:
        def evaluate(self, *arguments):
            result = random_model().evaluate(*arguments)
            wrong = replace(result.gradient, site_positions=1.001 * result.gradient.site_positions)
            return replace(result, gradient=wrong)

    with pytest.raises(AssertionError, match="site_positions"):
        corrections.check_derivatives(Wrong(), random_frame(0))


class Spoilt:
    """A model that sees its input through `spoil` and whose energy grows by `drift` with each call."""

    def __init__(self, spoil=lambda region: region, drift=0.0):
        self.model, self.spoil, self.drift, self.calls = random_model(), spoil, drift, 0

    def evaluate(self, region):
        self.calls += 1
        result = self.model.evaluate(self.spoil(region))
        return replace(result, energy=result.energy + self.drift * self.calls)


def as_if_contiguous(region):
    """What a compiled routine sees that takes every array for contiguous."""
    memory = region.site_charges.base
    if memory is None:
        return region
    return replace(region, site_charges=np.ravel(memory)[: region.site_charges.size][None])


def first_four(region):
    return replace(region, numbers=region.numbers[:4], positions=region.positions[:, :4])


def test_conformance_finds_memory_wrong_strides_and_any_composition():
    frame = random_frame(0)
    corrections.check_inputs_and_memory(Spoilt(), frame)
    with pytest.raises(AssertionError, match="energy again"):
        corrections.check_inputs_and_memory(Spoilt(drift=1e-9), frame)
    with pytest.raises(AssertionError, match="from strided arrays"):
        corrections.check_inputs_and_memory(Spoilt(as_if_contiguous), frame)
    with pytest.raises(AssertionError, match="expected a ModelError"):
        corrections.check_composition(Spoilt(first_four), frame)


def test_conformance_finds_a_cosine_cutoff(monkeypatch):
    def cosine(x):
        return 0.5 * (1.0 + torch.cos(math.pi * x))

    monkeypatch.setattr("pidelta.delta.response.networks.quintic", cosine)
    # the compiled energy is another, and these derivatives are automatic
    monkeypatch.setattr(Response, "_evaluate", NetworkModel._evaluate)
    model = random_response()
    with pytest.raises(AssertionError, match="second derivative jumps"):
        corrections.check_smooth_structure(model, random_frame(0), model.settings.radial_cutoff)


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
    found = StructureFeatures(settings, species_index(settings, NUMBERS), frame.positions[None]).features()
    expected = naive_structure_features(settings, NUMBERS.tolist(), frame.positions)
    np.testing.assert_allclose(found[0], expected, atol=1e-12)


def test_environment_features_follow_their_formulas():
    settings, frame = random_model(charge_count=3, short_count=2).settings, random_frame(3)
    found = RegionFeatures(settings, ChargeFeatures, frame.region).features()
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
    np.testing.assert_allclose(found[0, :, settings.structure_count :], expected, atol=1e-12)


@pytest.mark.parametrize("made", [random_model, random_response])
def test_a_charge_without_nucleus_counts_through_its_charge(made):
    model, frame = made(), random_frame(4)
    numbers = frame.site_numbers.copy()
    numbers[0] = 0
    frame = replace(frame, site_numbers=numbers)
    corrections.check_derivatives(model, frame)
    assert np.abs(evaluate(model, frame).gradient.site_positions[0, 0]).max() > 1e-6


@pytest.mark.parametrize("made", [random_model, random_response])
@pytest.mark.parametrize("atoms", [1, 2, 4])
def test_without_environment_and_with_few_atoms(atoms, made):
    frame = random_frame(5)
    frame = replace(
        frame,
        numbers=frame.numbers[:atoms],
        positions=frame.positions[:atoms],
        site_positions=np.zeros((0, 3)),
        site_charges=np.zeros(0),
        site_numbers=np.zeros(0, dtype=np.int64),
    )
    composition = tuple(sorted(frame.numbers.tolist()))
    corrections.check_derivatives(made(composition=composition, mm_elements=()), frame)


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


def test_committee_of_other_descriptors_and_kinds_is_their_mean_in_their_order():
    class Constant:
        """A correction of another kind, which shares no work."""

        provenance = random_model().provenance
        properties = ()
        uncertainty_threshold = 5e-3

        def evaluate(self, region):
            gradient = RegionGradient(
                *(np.zeros_like(array) for array in (region.positions, region.site_positions)),
                site_charges=np.zeros_like(region.site_charges),
            )
            return CorrectionResult(np.full(len(region), 0.25), gradient)

    frame = random_frame(6)
    members = [random_model(0), Constant(), random_model(1, radial_cutoff=7.0), random_model(2)]
    results = [evaluate(member, frame) for member in members]
    committee = Committee(members)
    found = evaluate(committee, frame)
    energies = np.array([result.energy for result in results])
    np.testing.assert_allclose(found.properties["delta_energies"], energies.T, atol=1e-13)
    np.testing.assert_allclose(found.energy, energies.mean(axis=0), atol=1e-13)
    for name in ("positions", "site_positions", "site_charges"):
        mean = np.mean([getattr(result.gradient, name) for result in results], axis=0)
        np.testing.assert_allclose(getattr(found.gradient, name), mean, atol=1e-13)
    farthest = max(results[place].properties["delta_extrapolation"] for place in (0, 2, 3))
    np.testing.assert_allclose(found.properties["delta_extrapolation"], farthest, rtol=1e-12)
    assert set(committee.properties) == set(found.properties)
    assert committee.uncertainty_threshold == pytest.approx((2e-3 + 5e-3 + 4e-3 + 6e-3) / 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"reference": "other reference"},
            "the reference of model 0, 'toy reference', for model 1, found 'other",
        ),
        ({"low_level": "other low"}, "low-level method"),
        ({"charge": 1}, "charge"),
        ({"embedding": EMBEDDING | {"switch": 3.0}}, "embedding switch"),
        ({"compositions": ((1, 1, 8),)}, "same QM region"),
    ],
)
def test_committee_refuses_models_that_correct_something_else(change, message):
    other = random_model(1)
    other.provenance = replace(other.provenance, **change)
    with pytest.raises(ModelError, match=message) as info:
        Committee([random_model(), other])
    assert "\n" not in str(info.value)


def test_committee_needs_a_member():
    with pytest.raises(ModelError, match="at least one"):
        Committee([])


def test_committee_knows_what_all_its_members_know():
    one, other = random_model(), random_model(1)
    water, formaldehyde = (1, 1, 8), (1, 1, 6, 8)
    one.provenance = replace(one.provenance, compositions=(water, formaldehyde))
    assert Committee([one, other]).provenance.compositions == (formaldehyde,)


FITS = {
    "numbers": NUMBERS,
    "low_level": "toy low",
    "embedding": EMBEDDING,
    "charge": 0,
    "multiplicity": 1,
}


def check_use(**change):
    check_fits(random_model().provenance, **(FITS | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low_level": "other low"}, "low-level method"),
        ({"numbers": np.array([8, 6, 1])}, "a QM region CH2O, found CHO"),
        ({"numbers": np.array([8, 6, 1, 1, 8, 1, 1])}, "a QM region CH2O, found CH4O2"),
        ({"numbers": np.array([8, 7, 1, 1])}, "a QM region CH2O, found H2NO"),
        ({"embedding": EMBEDDING | {"cutoff": 15.9}}, "embedding cutoff 16.0, found 15.9"),
        ({"embedding": EMBEDDING | {"scheme": "pme"}}, "embedding scheme"),
        ({"embedding": {"scheme": "cutoff", "cutoff": 16.0}}, "embedding switch"),
        ({"charge": 1}, "charge 0, found 1"),
        ({"multiplicity": 3}, "multiplicity 1, found 3"),
    ],
)
def test_a_set_up_the_model_was_not_trained_for_is_refused(change, message):
    check_use()
    check_use(numbers=NUMBERS[::-1])
    with pytest.raises(ModelError, match=message) as info:
        check_use(**change)
    assert "\n" not in str(info.value)


def test_a_model_of_several_compositions_is_accepted_for_each():
    provenance = replace(random_model().provenance, compositions=((1, 1, 8), (1, 1, 6, 8)))
    for numbers in (np.array([1, 8, 1]), NUMBERS):
        check_fits(provenance, **(FITS | {"numbers": numbers}))
    with pytest.raises(ModelError, match="H2O or CH2O, found H3O"):
        check_fits(provenance, **(FITS | {"numbers": np.array([1, 8, 1, 1])}))


def test_an_element_that_was_never_near_counts_by_its_charge_and_must_not_come_near():
    model, frame = random_model(), random_frame(8)
    assert model.provenance.strangers([0, 1, 8, 11]) == (11,)
    numbers = frame.site_numbers.copy()
    numbers[3] = 11
    distances = np.linalg.norm(frame.positions - frame.site_positions[3], axis=1)
    away = frame.site_positions.copy()
    cutoff = model.settings.short_cutoff
    for distance, is_refused in ((1.02 * cutoff, False), (0.98 * cutoff, True)):
        nearest = frame.positions[distances.argmin()]
        direction = nearest - frame.positions.mean(axis=0) + 1e-3
        away[3] = nearest + distance * direction / np.linalg.norm(direction)
        moved = replace(frame, site_positions=away, site_numbers=numbers)
        reach = np.linalg.norm(moved.positions - away[3], axis=1).min()
        assert (reach < cutoff) == is_refused
        if is_refused:
            with pytest.raises(ModelError, match=r"of H, O within .* angstrom .* found Na at ") as info:
                evaluate(model, moved)
            assert "\n" not in str(info.value)
            continue
        bare = replace(moved, site_numbers=np.where(numbers == 11, 0, numbers))
        result, expected = evaluate(model, moved), evaluate(model, bare)
        assert result.energy[0] == expected.energy[0]
        assert (result.gradient.site_positions == expected.gradient.site_positions).all()


def test_what_cannot_be_evaluated_is_refused():
    model, frame = random_model(), random_frame(8)
    positions = frame.positions.copy()
    positions[1] = positions[0]
    with pytest.raises(GeometryError, match="finite"):
        evaluate(model, replace(frame, positions=positions))
    with pytest.raises(ModelError, match="short_cutoff below"):
        random_model(short_cutoff=12.0)
