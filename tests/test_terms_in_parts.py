"""Terms in parts: their names, that each part is the gradient of its energy, and that parts add up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from delta_frames import random_model, random_response
from mm_systems import CUBIC, DATA, FORCE_FIELD, TRICLINIC, acetamide_water, on_atoms, water_positions
from pidelta.cli.conservation_options import NVEOptions, plan_report
from pidelta.delta.committee import Committee
from pidelta.errors import ConfigError, SCCConvergenceError
from pidelta.mm import evaluator as built_in
from pidelta.mm.evaluator import BondedEvaluator, MMEvaluator
from pidelta.mm.openmm import OpenMMEvaluator
from pidelta.mm.readers import read_topology
from pidelta.mm.settings import ForceFieldSettings
from pidelta.mm.topology import join
from pidelta.setup import Setup
from pidelta.state import PARTS, common_terms, parse_terms, smallest_parts, terms_beyond
from pidelta.testing.evaluators import check_evaluator
from pidelta.testing.qmmm import check_qmmm
from pidelta.testing.samples import Sample, Tolerances
from qmmm_systems import sample_of
from test_mm_terms import topology as made_up_topology
from test_mm_terms import two_molecules
from test_qmmm_conformance import EWALD_TOLERANCE, set_up

ALL = ("mm", "low", "delta")
SETTINGS = {
    "pme": ForceFieldSettings(11.5, "pme", dispersion_correction=True),
    "reaction field": ForceFieldSettings(11.5, dispersion_correction=True),
}


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("mm.bonded", {"mm.bonded"}),
        ("MM.Bonded + low", {"mm.bonded", "low"}),
        ("mm.nonbonded+mm.bonded", {"mm.bonded", "mm.nonbonded"}),
        ("low.vacuum+mm.bonded", {"low.vacuum", "mm.bonded"}),
        ("delta.embedding", {"delta.embedding"}),
    ],
)
def test_names_of_parts(text, terms):
    assert parse_terms(text) == terms


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mm+mm.bonded", "found mm.bonded twice"),
        ("low.embedding+dftb", "found low.embedding twice"),
        ("mm.bonded+mm.bonded", "found mm.bonded twice"),
        ("mm.bondd", "mm.bonded, mm.nonbonded, .* joined by [+], found 'mm.bondd'"),
        ("delta.bonded", "found 'delta.bonded'"),
        ("mm.", "found 'mm.'"),
    ],
)
def test_names_that_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_terms(text)


def test_sums_of_terms_and_parts():
    assert smallest_parts(ALL) == tuple(part for term in ALL for part in PARTS[term])
    assert common_terms(ALL, {"delta", "mm"}) == ["mm", "delta"]
    assert common_terms(ALL, {"low", "mm.nonbonded", "mm.bonded"}) == ["mm.bonded", "mm.nonbonded", "low"]
    assert common_terms(["mm.bonded"], {"mm"}) == ["mm.bonded"]
    assert terms_beyond({"mm", "low.vacuum"}, ["mm.bonded", "low"]) == ["mm"]


def builtin(topology, settings, cell, part):
    if part == "bonded":
        return on_atoms(BondedEvaluator(topology, settings))
    return on_atoms(MMEvaluator(topology, settings, cell, bonded=part is None))


def openmm(topology, settings, cell, part):
    pytest.importorskip("openmm")
    return on_atoms(OpenMMEvaluator(topology, settings, cell, platform="Reference", part=part))


def organic():
    """Acetamide in water: bonds, angles, torsions and 1-4 pairs."""
    topology, positions = read_topology(DATA / "acetamide-water.top"), acetamide_water()
    return topology, TRICLINIC, positions


def made_up():
    """Quartic and Morse bonds, CMAP, 1-4 pairs and virtual sites."""
    return join([made_up_topology(), made_up_topology()]), TRICLINIC, two_molecules(0)


@pytest.mark.parametrize("engine", [builtin, openmm])
@pytest.mark.parametrize("system", [organic, made_up])
@pytest.mark.parametrize("electrostatics", SETTINGS)
def test_parts_of_a_force_field_add_up(engine, system, electrostatics):
    (topology, cell, positions), settings = system(), SETTINGS[electrostatics]
    request = positions[None], cell[None]
    whole, bonded, nonbonded = (
        engine(topology, settings, cell, part).evaluate(*request) for part in (None, "bonded", "nonbonded")
    )
    for name in ("energy", "gradient", "virial"):
        parts = getattr(bonded, name) + getattr(nonbonded, name)
        tolerance = 1e-7 if engine is openmm and name == "virial" else 1e-12  # by differences
        np.testing.assert_allclose(parts, getattr(whole, name), rtol=0.0, atol=tolerance, err_msg=name)
    assert {**bonded.components, **nonbonded.components}.keys() == whole.components.keys()
    for term in (bonded, nonbonded):
        np.testing.assert_allclose(sum(term.components.values()), term.energy, rtol=1e-12, atol=1e-12)
        for name, energy in term.components.items():
            np.testing.assert_allclose(energy, whole.components[name], rtol=1e-12, atol=1e-12, err_msg=name)
    assert np.abs(bonded.gradient).max() > 1e-2
    assert np.abs(nonbonded.gradient).max() > 1e-4


@pytest.mark.parametrize("engine", [builtin, openmm])
@pytest.mark.parametrize("part", ["bonded", "nonbonded"])
def test_conformance_of_parts_of_a_force_field(engine, part):
    """With a reaction field, whose forces have no steps."""
    for system in (organic, made_up) if engine is builtin else (made_up,):
        topology, cell, positions = system()
        evaluator = engine(topology, ForceFieldSettings(11.5), cell, part)
        batch = np.stack(
            [positions, positions + np.random.default_rng(0).normal(scale=0.05, size=positions.shape)]
        )
        sample = Sample(batch, np.stack([cell, 1.01 * cell]), topology.residue_indices)
        tolerances = FORCE_FIELD if engine is builtin else Tolerances(scc=0.0, rounding=3e-9)
        check_evaluator(evaluator, sample, tolerances)


def test_the_bonded_part_makes_no_pair_lists(monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("a pair list or a mesh for bonded terms")

    for name in ("VerletLists", "LongRange", "add_pairs"):
        monkeypatch.setattr(built_in, name, fail)
    topology = read_topology(DATA / "water.top")
    request = water_positions(64, CUBIC, seed=2)[None], CUBIC[None]
    term = BondedEvaluator(topology, SETTINGS["pme"]).evaluate(*request)
    assert term.components["bond"][0] > 0.0


@pytest.fixture(scope="module")
def waters(tmp_path_factory):
    """Two molecules of DFTB in four-point water, embedded by an Ewald sum."""
    return set_up(tmp_path_factory.mktemp("waters"), "pme", "dftb", "builtin", "cubic")


@pytest.mark.parametrize("part", [*PARTS["mm"], *PARTS["low"]])
def test_conformance_of_parts_in_qmmm(waters: Setup, part):
    evaluator = waters.evaluator(frozenset({part}))
    check_qmmm(evaluator, sample_of(waters), Tolerances(mesh=EWALD_TOLERANCE), count=1)
    sample = sample_of(waters)
    assert set(evaluator.evaluate(sample.positions, sample.cells).terms) == {part}


@pytest.mark.parametrize(
    "served", ["mm.bonded+low.vacuum", "mm.bonded+mm.nonbonded+low.vacuum+low.embedding"]
)
def test_parts_in_qmmm_add_up(waters: Setup, served):
    """In one evaluator or in two."""
    sample, terms = sample_of(waters), parse_terms(served)
    request = sample.positions, sample.cells
    whole = waters.evaluator().evaluate(*request)
    found = [waters.evaluator(terms).evaluate(*request)]
    if rest := frozenset(smallest_parts(["mm", "low"])) - terms:
        found.append(waters.evaluator(rest).evaluate(*request))
    for name in ("energy", "gradient", "virial"):
        total = sum(getattr(each, name) for each in found)
        np.testing.assert_allclose(total, getattr(whole, name), rtol=0.0, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(found[-1].charges, whole.charges, atol=1e-8)
    assert (found[0].charges is None) == (len(found) == 2)  # of a molecule in vacuum they say nothing
    assert np.abs(found[-1].terms["low.embedding"].energy).min() > 1e-2


def with_delta(setup: Setup, *terms: str, kind=random_response):
    """The terms of an untrained delta model of the two molecules of a set-up, and nothing else."""
    members = [kind(seed, (1, 1, 1, 1, 8, 8)) for seed in (0, 1)]
    evaluator = setup.evaluator(frozenset({"low.vacuum"}))
    return replace(evaluator, engine=None, delta=Committee(members, offset=0.25), delta_terms=terms)


@pytest.mark.parametrize("kind", [random_model, random_response])
@pytest.mark.parametrize("terms", [("delta.vacuum",), ("delta.embedding",), PARTS["delta"]])
def test_conformance_of_parts_of_a_delta_model(waters: Setup, terms, kind):
    evaluator, sample = with_delta(waters, *terms, kind=kind), sample_of(waters)
    check_qmmm(evaluator, sample, Tolerances(), count=1)
    found = evaluator.evaluate(sample.positions, sample.cells)
    assert tuple(found.terms) == terms
    # the spread is that of the whole, which the part in vacuum does not know
    assert ("delta_energies" in found.properties) == evaluator.knows_spread == ("delta.embedding" in terms)


def test_parts_of_a_delta_model_add_up(waters: Setup):
    """Each by a client of its own; the one in vacuum is that of the molecules far from all charges."""
    sample = sample_of(waters)
    request = sample.positions, sample.cells
    whole = with_delta(waters, "delta").evaluate(*request)
    vacuum, embedding = (with_delta(waters, part).evaluate(*request) for part in PARTS["delta"])
    for name in ("energy", "gradient", "virial"):
        total = getattr(vacuum, name) + getattr(embedding, name)
        np.testing.assert_allclose(total, getattr(whole, name), rtol=0.0, atol=1e-11, err_msg=name)
    assert np.abs(embedding.energy).min() > 1e-6
    evaluator = with_delta(waters, "delta")
    region = evaluator.surroundings.cut(*request)
    alone = evaluator.delta.evaluate(
        replace(region, site_charges=0.0 * region.site_charges, site_numbers=0 * region.site_numbers)
    )
    np.testing.assert_allclose(vacuum.energy, alone.energy, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(
        vacuum.gradient[:, evaluator.partition.qm_indices], alone.gradient.positions, atol=1e-12
    )


def test_a_force_field_alone_in_parts(tmp_path):
    """Four-point water without a QM region."""
    setup = set_up(tmp_path, "pme", "dftb", "builtin", "cubic")
    setup.config.__dict__["qm"] = None
    sample = sample_of(setup)
    bonded = setup.evaluator(frozenset({"mm.bonded"})).evaluate(sample.positions, sample.cells)
    both = setup.evaluator(parse_terms("mm.bonded+mm.nonbonded")).evaluate(sample.positions, sample.cells)
    assert bonded.terms.keys() == {"mm.bonded"}
    assert tuple(both.terms) == PARTS["mm"]
    whole = setup.evaluator().evaluate(sample.positions, sample.cells)
    np.testing.assert_allclose(both.energy, whole.energy, rtol=0.0, atol=1e-12)


def test_what_comes_with_parts_of_the_low_level(waters: Setup):
    """Charges and the like are those of the molecule in its embedding, not of one in vacuum."""
    assert waters.extras(frozenset({"mm.bonded", "low.vacuum"})) == {"terms"}
    assert {"charges", "dipole", "embedding"} <= waters.extras(frozenset({"low.embedding"}))
    assert waters.extras(frozenset({"low.embedding"})) == waters.extras(frozenset({"low"}))


@pytest.mark.parametrize(
    ("terms", "failing", "expected"),
    [
        ("low", 1, "structure 1: SCC did not converge"),
        ("low.embedding", 1, "structure 1: SCC did not converge"),
        ("low.embedding", 3, "structure 1: SCC in vacuum, .*, or ask for low as a whole"),
        ("low.vacuum", 1, "structure 1: SCC in vacuum, .*, or ask for low as a whole"),
    ],
)
def test_an_scc_that_fails_in_vacuum(waters: Setup, monkeypatch, terms, failing, expected):
    """As that of a zwitterion does. Parts need it, and it is counted among the structures that were given."""
    evaluator, sample = waters.evaluator(parse_terms(terms)), sample_of(waters)

    def fail(*_):
        raise SCCConvergenceError(failing, 9, 0.1, np.array([1]), np.zeros((1, 3)))

    monkeypatch.setattr(evaluator.engine, "evaluate", fail)
    with pytest.raises(SCCConvergenceError, match=expected):
        evaluator.evaluate(sample.positions[[0, 0]], sample.cells[[0, 0]])


def test_parts_at_constant_energy(waters: Setup, tmp_path):
    """``check --nve --terms`` takes parts, and says what nothing holds together."""
    given = NVEOptions(
        "1ps", None, ["mm.nonbonded+low", "low.vacuum + mm.bonded"], None, None, tmp_path / "nve", 1
    )
    report = plan_report(given, waters.config)
    assert {run.dynamics.terms for run in report.runs} == {
        ("mm.nonbonded", "low"),
        ("mm.bonded", "low.vacuum"),
    }
    assert report.notes == ["in runs of mm.nonbonded+low nothing binds the MM atoms"]
    with pytest.raises(ConfigError, match="--terms: expected terms among mm, low, found delta"):
        plan_report(replace(given, terms=["mm.bonded+delta"]), waters.config)
