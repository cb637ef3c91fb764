"""OpenMM as an engine: the conformance suite, and term by term against the built-in evaluator."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from mm_systems import (
    CUBIC,
    DATA,
    FORCE_FIELD,
    MIXED,
    TRICLINIC,
    acetamide_water,
    check_refused_geometries,
    mm_evaluator,
    on_atoms,
    openmm_evaluator,
    scrambled,
    water_positions,
)
from pidelta.errors import MissingExtraError, SetupError, TopologyError
from pidelta.mm.evaluator import COMPONENTS
from pidelta.mm.openmm import reduced_box
from pidelta.mm.openmm_system import follows_lorentz_berthelot
from pidelta.mm.readers import read_topology
from pidelta.mm.topology import Topology, join
from pidelta.state import FloatArray
from pidelta.testing.evaluators import check_evaluator
from pidelta.testing.samples import Sample
from test_mm_terms import topology as made_up_topology
from test_mm_terms import two_molecules

openmm = pytest.importorskip("openmm")

CUTOFF = 11.5
# 60 waters fit; both have an entry at the border of what OpenMM takes
DODECAHEDRON = 28.0 * np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, np.sqrt(0.5)]])
HEXAGONAL = np.diag([27.0, 27.0, 25.0]) @ np.array([[1.0, 0.0, 0.0], [-0.5, np.sqrt(0.75), 0.0], [0, 0, 1.0]])


def solution():
    return read_topology(DATA / "acetamide-water.top")


def both(topology, positions, cell, **options):
    """The terms of the built-in evaluator and of OpenMM."""
    cutoff = None if cell is None else CUTOFF
    engines = (
        on_atoms(mm_evaluator(topology, cutoff=cutoff, **options)),
        on_atoms(openmm_evaluator(topology, cutoff=cutoff, platform="Reference", **options)),
    )
    cells = None if cell is None else cell[None]
    return [engine.evaluate(positions[None], cells) for engine in engines]


def assert_same(expected, found, atol=1e-12):
    assert set(found.components) == set(COMPONENTS)
    for name in COMPONENTS:
        np.testing.assert_allclose(
            found.components[name], expected.components[name], rtol=1e-9, atol=atol, err_msg=name
        )
    np.testing.assert_allclose(found.energy, expected.energy, rtol=1e-9, atol=atol)
    np.testing.assert_allclose(found.gradient, expected.gradient, atol=1e-10)
    np.testing.assert_allclose(found.virial, expected.virial, atol=1e-7)


@pytest.mark.parametrize("cell", [TRICLINIC, None], ids=["triclinic", "open"])
def test_same_terms_of_an_organic_molecule_in_water(cell):
    positions = acetamide_water()
    assert follows_lorentz_berthelot(solution())
    assert_same(*both(solution(), positions if cell is None else scrambled(positions, cell, seed=5), cell))


@pytest.mark.parametrize("cell", [CUBIC, None], ids=["cubic", "open"])
def test_same_other_terms(cell):
    """Geometric rule (a table in OpenMM), constant torsions, Urey-Bradley, impropers, explicit pairs."""
    topology = read_topology(DATA / "mixed.top")
    assert not follows_lorentz_berthelot(topology)
    found = both(topology, MIXED, cell)
    assert min(abs(found[0].components[name][0]) for name in ("urey_bradley", "improper", "lj")) > 1e-6
    assert_same(*found)


@pytest.mark.parametrize("cell", [TRICLINIC, None], ids=["triclinic", "open"])
def test_same_new_terms_and_virtual_sites(cell):
    """Quartic and Morse bonds, CMAP, and a virtual site of each kind."""
    topology = join([made_up_topology(), made_up_topology()])
    found = both(topology, two_molecules(0), cell)
    names = ("quartic_bond", "morse_bond", "cmap", "coulomb14")
    assert min(abs(found[0].components[name][0]) for name in names) > 1e-5
    assert_same(*found)


def test_same_terms_of_a_protein(charmm):
    """Villin in CHARMM36, with CMAP, Urey-Bradley terms, impropers and 1-4 pairs of their own, charged."""
    folder, positions = charmm
    topology = read_topology(folder / "protein.psf", [folder / "protein.prm"])
    expected, found = both(topology, positions, 80.0 * np.eye(3), electrostatics="pme")
    assert min(abs(expected.components[name][0]) for name in ("cmap", "urey_bradley", "improper")) > 1e-3
    assert_same(expected, found, atol=1e-9)


def test_same_partition_with_a_qm_region():
    reduced = solution().without_internal(np.arange(9))
    expected, found = both(reduced, acetamide_water(), TRICLINIC)
    assert not found.components["torsion"].any()
    assert_same(expected, found)


@pytest.mark.parametrize(
    "options",
    [
        {"electrostatics": "cutoff"},
        {"reaction_field_dielectric": 78.3},
        {"switch_distance": 6.0},
        {"lj_modifier": "potential-shift"},
        {"lj_modifier": "none", "dispersion_correction": True},
        {"dispersion_correction": True},
    ],
    ids=["cutoff", "dielectric", "switch", "shift", "none", "tail"],
)
def test_same_truncation(options):
    assert_same(
        *both(read_topology(DATA / "water.top"), water_positions(64, CUBIC, seed=3), CUBIC, **options)
    )


@pytest.mark.parametrize("net_charge", [0.0, 1.0])
@pytest.mark.parametrize("cell", [CUBIC, TRICLINIC], ids=["cubic", "triclinic"])
def test_same_pme(cell, net_charge):
    """The same mesh, so the same energy beyond its tolerance; molecules are broken across the cell."""
    topology = read_topology(DATA / "water.top")
    charges = topology.charges.copy()
    charges[0] += net_charge
    positions = scrambled(water_positions(64, cell, seed=4), cell, seed=5)
    options = {"electrostatics": "pme", "ewald_tolerance": 1e-6}
    assert_same(*both(replace(topology, charges=charges), positions, cell, **options), atol=1e-9)


def test_virial_of_pme_has_no_steps():
    """A pair at the cutoff: without the shift its loss, by a strain of 1e-5, would be 0.3 hartree."""
    options = {"electrostatics": "pme", "ewald_tolerance": 5e-4}
    expected, found = both(
        read_topology(DATA / "water.top"), water_positions(64, CUBIC, seed=0), CUBIC, **options
    )
    np.testing.assert_allclose(found.virial, expected.virial, atol=2e-5)


def test_plain_ewald_is_refused():
    with pytest.raises(SetupError, match=r"expected pme, reaction-field or cutoff of OpenMM"):
        openmm_evaluator(solution(), cutoff=CUTOFF, cell=TRICLINIC, electrostatics="ewald")


def test_a_mesh_beyond_memory_is_refused():
    with pytest.raises(SetupError, match=r"^ewald_tolerance: 1e-12 needs a grid of "):
        openmm_evaluator(
            solution(), cutoff=CUTOFF, cell=TRICLINIC, electrostatics="pme", ewald_tolerance=1e-12
        )


def turned(cell):
    """The same lattice in another orientation, by a left-handed basis that is not reduced."""
    rotation = np.linalg.qr(np.random.default_rng(8).normal(size=(3, 3)))[0]
    return np.array([[1, 0, 0], [1, 1, 0], [0, 0, -1]]) @ cell @ rotation


@pytest.mark.parametrize(
    ("cell", "cutoff"),
    # at other cutoffs OpenMM 8.6's Reference platform misses pairs in the first two, unlike its CPU platform
    [(DODECAHEDRON, 9.8), (HEXAGONAL, 9.8), (turned(CUBIC), 8.0)],
    ids=["dodecahedron", "hexagonal", "turned"],
)
def test_same_in_cells_of_any_shape_and_orientation(cell, cutoff):
    topology = read_topology(DATA / "water.top")
    positions = scrambled(water_positions(64, cell, seed=2), cell, seed=3)
    terms = [
        engine.evaluate(positions[None], cell[None])
        for engine in (
            mm_evaluator(topology, cutoff=cutoff),
            openmm_evaluator(topology, cutoff=cutoff, cell=cell, platform="Reference"),
        )
    ]
    assert_same(*terms)


def test_reduced_boxes_span_the_same_lattice():
    for seed in range(20):
        cell = np.random.default_rng(seed).normal(size=(3, 3))
        box, rotation = reduced_box(cell)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) > 0.0
        images = box @ np.linalg.inv(cell @ rotation)
        np.testing.assert_allclose(images, np.rint(images), atol=1e-9)
        assert abs(np.linalg.det(images)) == pytest.approx(1.0)
        np.testing.assert_array_equal(np.triu(box, 1), 0.0)
        assert (np.diagonal(box) > 0.0).all()
        assert (np.abs(box) <= 0.5 * np.diagonal(box))[np.tril_indices(3, -1)].all()


def batch(positions, n, scale=0.05, seed=0):
    return positions + np.random.default_rng(seed).normal(scale=scale, size=(n, *positions.shape))


@pytest.mark.parametrize("cell", [TRICLINIC, None], ids=["triclinic", "open"])
def test_conformance(cell):
    """All terms and kinds of virtual sites."""
    topology = join([made_up_topology(), made_up_topology()])
    cutoff, cells = (None, None) if cell is None else (11.0, np.stack([cell, 1.01 * cell]))
    evaluator = on_atoms(openmm_evaluator(topology, cutoff=cutoff, platform="Reference"))
    sample = Sample(np.stack([two_molecules(0), two_molecules(5)]), cells, topology.residue_indices)
    check_evaluator(evaluator, sample, FORCE_FIELD)


def test_one_evaluator_serves_with_and_without_cell():
    topology, positions = solution(), acetamide_water()[None]
    evaluator = openmm_evaluator(topology, cutoff=CUTOFF, cell=TRICLINIC, platform="Reference")
    reference = mm_evaluator(topology, cutoff=CUTOFF)
    for cells in (TRICLINIC[None], None, TRICLINIC[None]):
        found, expected = (engine.evaluate(positions, cells).energy for engine in (evaluator, reference))
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_cpu_platform_is_single_precision():
    evaluator = openmm_evaluator(solution(), cutoff=CUTOFF, cell=TRICLINIC, platform="CPU")
    assert "CPU, single precision" in evaluator.description
    positions = acetamide_water()[None]
    found = evaluator.evaluate(positions, TRICLINIC[None])
    expected = mm_evaluator(solution(), cutoff=CUTOFF).evaluate(positions, TRICLINIC[None])
    np.testing.assert_allclose(found.energy, expected.energy, rtol=1e-5)
    rms = np.sqrt(np.mean((found.gradient - expected.gradient) ** 2) / np.mean(expected.gradient**2))
    assert rms < 1e-5
    np.testing.assert_allclose(found.virial, expected.virial, atol=2e-3)


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_batches_of_changing_size_give_the_same(platform):
    """Beads in other slots, cells that change: the mesh of PME stays that of the first cell."""
    structures = batch(acetamide_water(), 3)
    cells = np.stack([TRICLINIC, 1.01 * TRICLINIC, 1.02 * TRICLINIC])
    options = {"cutoff": CUTOFF, "electrostatics": "pme", "platform": platform, "virial": False}
    used = openmm_evaluator(solution(), **options)
    used.evaluate(structures[:1], cells[:1])
    expected = [used.evaluate(structures[b : b + 1], cells[b : b + 1]) for b in range(3)]
    for order in ([0, 1, 2], [2, 0, 1], [1, 0]):
        found = used.evaluate(structures[order], cells[order])
        for slot, b in enumerate(order):
            np.testing.assert_allclose(found.energy[slot], expected[b].energy[0], rtol=1e-5)
            np.testing.assert_allclose(found.gradient[slot], expected[b].gradient[0], atol=1e-5)
            coulomb = found.components["coulomb"][slot]
            assert coulomb == pytest.approx(expected[b].components["coulomb"][0], abs=2e-6)


def test_auto_takes_the_fastest_platform_that_works(monkeypatch):
    """Platforms of plugins are found without the hardware they need; a Context tells."""
    topology = read_topology(DATA / "mixed.top")
    found = [openmm.Platform.getPlatform(i) for i in range(openmm.Platform.getNumPlatforms())]
    by_speed = [one.getName() for one in sorted(found, key=lambda one: -one.getSpeed())]
    broken = set(by_speed[:-1])
    make_context = openmm.Context

    def context(system, integrator, platform, properties):
        if platform.getName() in broken:
            raise openmm.OpenMMException("no such device")
        return make_context(system, integrator, platform, properties)

    monkeypatch.setattr(openmm, "Context", context)
    assert f", {by_speed[-1]}, " in openmm_evaluator(topology, cutoff=None).description
    broken.add(by_speed[-1])
    with pytest.raises(SetupError, match=f"found {by_speed[0]}: no such device"):
        openmm_evaluator(topology, cutoff=None)


def test_without_virial_the_rest_is_the_same():
    positions = acetamide_water()[None]
    with_virial, without = (
        openmm_evaluator(solution(), cutoff=CUTOFF, platform="Reference", virial=virial).evaluate(
            positions, TRICLINIC[None]
        )
        for virial in (True, False)
    )
    assert np.isnan(without.virial).all()
    np.testing.assert_array_equal(without.energy, with_virial.energy)
    np.testing.assert_array_equal(without.gradient, with_virial.gradient)


@dataclass(frozen=True)
class Polarisable(Topology):
    """A topology with a table that no engine here knows."""

    drude_particles: FloatArray = field(default_factory=lambda: np.zeros(0))


def test_unknown_tables_are_refused_by_name():
    values = {name: getattr(solution(), name) for name in Topology.__dataclass_fields__}
    openmm_evaluator(Polarisable(**values), cutoff=None, platform="Reference")
    with pytest.raises(
        TopologyError,
        match=r"acetamide-water.top: expected terms that OpenMM is given, found drude particles",
    ):
        openmm_evaluator(Polarisable(**values, drude_particles=np.ones(2)), cutoff=None)


def test_openmm_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "openmm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pidelta\[openmm\]'"):
        openmm_evaluator(solution(), cutoff=None)


def test_set_up_errors():
    water = read_topology(DATA / "water.top")
    with pytest.raises(SetupError, match=r"^platform: expected auto or .* Reference, .* found 'Metal'"):
        openmm_evaluator(water, cutoff=5.0, cell=CUBIC, platform="Metal")
    with pytest.raises(SetupError, match=r"cutoff of 6.35 angstrom exceeds half .* 6.30 angstrom"):
        openmm_evaluator(water, cutoff=12.0, cell=CUBIC)
    with pytest.raises(SetupError, match="needs a cutoff"):
        openmm_evaluator(water, cutoff=None, cell=CUBIC)
    with pytest.raises(SetupError, match=r"^electrostatics: .* found 'none'"):
        openmm_evaluator(water, cutoff=5.0, electrostatics="none")


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_geometry_errors(platform):
    water = read_topology(DATA / "water.top")
    evaluator = openmm_evaluator(water, cutoff=CUTOFF, cell=CUBIC, platform=platform)
    positions = np.stack(2 * [water_positions(64, CUBIC, seed=0)])
    cells = np.stack(2 * [CUBIC])
    check_refused_geometries(evaluator, positions, cells)


def test_results_do_not_depend_on_what_was_looked_at_before():
    """Components are found by turning charges off: they must be back on afterwards."""
    positions = acetamide_water()
    evaluator = openmm_evaluator(solution(), cutoff=CUTOFF, platform="Reference")
    moved = positions + 0.1
    first = evaluator.evaluate(positions[None], TRICLINIC[None])
    evaluator.evaluate(0.99 * moved[None], TRICLINIC[None])
    np.testing.assert_allclose(sum(first.components.values()), first.energy, rtol=1e-12)
    again = evaluator.evaluate(positions[None], TRICLINIC[None])
    np.testing.assert_allclose(again.energy, first.energy, rtol=1e-14)
    uncharged = replace(solution(), charges=np.zeros(len(solution())))
    without = openmm_evaluator(uncharged, cutoff=None, platform="Reference").evaluate(positions[None], None)
    assert not without.components["coulomb"].any()
