"""Bonds across the border: where link hydrogens are, where charges go, which terms stay, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms

from link_systems import SMALL, alkane, alkane_charges, setup_of, write_alkane
from pidelta.calculator import Calculator
from pidelta.data.store import FrameStore
from pidelta.errors import ConfigError, ModelError, SettingError
from pidelta.mm.topology import Harmonic
from pidelta.qmmm.charges import spread_over_residues
from pidelta.qmmm.links import LinkSettings, find_links, move_host_charges
from pidelta.testing.qmmm import check_qmmm
from pidelta.testing.samples import Tolerances, kinds_of_atoms
from pidelta.units import ANGSTROM, BOHR_IN_ANGSTROM, HARTREE_IN_EV
from qmmm_systems import LossyParticles, bare_topology, sample_of

HALF = list(range(7))  # CH3-CH2 of butane, bonded to atom 7
SCHEMES = ("charge-shift", "redistribute", "zero")


def carbons(bonds, charges=None, residues=None, **changes):
    """A topology of carbon atoms with bonds of 1.5 angstrom."""
    n = max(max(bond) for bond in bonds) + 1
    topology = bare_topology([0] * n if residues is None else residues, charges or [0.0] * n, bonds)
    lengths = Harmonic(topology.bonds.atoms, topology.bonds.k, np.full(len(bonds), 1.5 * ANGSTROM))
    return replace(topology, **{"numbers": np.full(n, 6), "bonds": lengths, **changes})


def star(at, others):
    """Bonds of one atom."""
    return [(at, other) for other in others]


# a chain 0-1-2-3 whose middle atoms have four bonds
CHAIN = [(0, 1), (1, 2), (2, 3), *star(1, (4, 5)), *star(2, (6, 7))]


@pytest.mark.parametrize(
    ("position", "length"), [("scaled", None), ("scaled", 1.2), ("fixed", 1.1), ("fixed", None)]
)
def test_hydrogens_are_on_the_bond(position, length):
    settings = LinkSettings(position, length and length * ANGSTROM)
    links = find_links(carbons(CHAIN), np.array([0, 1, 4, 5]), settings)
    assert (links.partners.tolist(), links.hosts.tolist()) == ([1], [2])
    x = np.zeros((9, 3))
    x[1], x[2] = (
        [0.3, 0.1, 0.0],
        np.array([0.3, 0.1, 0.0]) + np.array([0.0, 1.2, 1.6]) * ANGSTROM,
    )  # 2 angstrom
    links.sites.place(x, None)
    factor = (length or 1.09) * (2.0 / 1.5 if position == "scaled" else 1.0)
    np.testing.assert_allclose(x[8] - x[1], np.array([0.0, 0.6, 0.8]) * factor * ANGSTROM, atol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_host_charges_move_without_loss(scheme):
    q = [0.1, -0.2, 0.31, 0.05, 0.0, 0.0, 0.07, -0.11]
    topology, qm = carbons(CHAIN, q), np.array([0, 1, 4, 5])
    links = find_links(topology, qm, LinkSettings())
    moved, sites, of_sites = move_host_charges(topology, topology.charges, links, qm, scheme)
    assert moved[2] == 0.0
    assert moved.sum() + of_sites.sum() == pytest.approx(sum(q), abs=1e-14)
    np.testing.assert_array_equal(moved[qm], topology.charges[qm])
    x = np.concatenate([np.random.default_rng(0).normal(size=(8, 3)), np.zeros((len(sites), 3))])
    sites.place(x, None)
    dipole = moved @ x[:8] + of_sites @ x[8:]
    if scheme == "charge-shift":
        np.testing.assert_allclose(dipole, topology.charges @ x[:8], atol=1e-13)
        np.testing.assert_allclose(moved[[3, 6, 7]], np.array(q)[[3, 6, 7]] + 0.31 / 3.0)
    elif scheme == "redistribute":
        np.testing.assert_allclose(x[8:], 0.5 * (x[2] + x[[3, 6, 7]]))
        np.testing.assert_allclose(of_sites, 0.31 / 3.0)
    else:
        assert not len(sites)


def test_remainders_stay_in_their_residues():
    """Two cut residues whose rests miss different charges, each of which gets its own back."""
    bonds = [*CHAIN, (3, 8), *((i + 8, j + 8) for i, j in CHAIN)]
    q = np.array([0.1, 0.02, -0.12, 0.0, 0.0, 0.0, 0.0, 0.0, 0.3, -0.1, -0.2, -0.13, 0.0, 0.0, 0.1, 0.03])
    topology = carbons(bonds, q.tolist(), [0] * 8 + [1] * 8)
    qm = np.array([0, 1, 4, 5, 8, 9, 12, 13])
    links = find_links(topology, qm, LinkSettings(allow=frozenset(["multiple"])))
    moved, remainder, atoms = spread_over_residues(topology, qm, links, 0)
    assert remainder == pytest.approx(q[qm].sum(), abs=1e-14)
    assert atoms.tolist() == [2, 3, 6, 7, 10, 11, 14, 15]
    assert moved[qm].sum() == pytest.approx(0.0, abs=1e-14)
    assert moved.sum() == pytest.approx(q.sum(), abs=1e-14)
    for rest in ([2, 3, 6, 7], [10, 11, 14, 15]):
        assert moved[rest].sum() == pytest.approx(0.0, abs=1e-14)


def test_remainders_of_several_residues_add_up():
    """0.3 e of each of two residues is rounding of a neutral region, not half an ion."""
    bonds = [*CHAIN, *((i + 8, j + 8) for i, j in CHAIN), *((i + 16, j + 16) for i, j in CHAIN)]
    q = np.array([0.3, 0.0, -0.303, 0.0, 0.0, 0.0, 0.0, 0.0] * 2 + [0.004] + [0.0] * 7)
    topology = carbons(bonds, q.tolist(), [0] * 8 + [1] * 8 + [2] * 8)
    qm = np.array([0, 1, 4, 5, 8, 9, 12, 13, *range(16, 24)])
    links = find_links(topology, qm, LinkSettings())
    moved, remainder, _ = spread_over_residues(topology, qm, links, 0)
    assert remainder == pytest.approx(0.604)
    assert moved[qm].sum() == pytest.approx(0.0, abs=1e-14)
    for rest in ([2, 3, 6, 7], [10, 11, 14, 15]):
        assert moved[rest].sum() == pytest.approx(-0.001, abs=1e-14)  # half of what rounding left
    with pytest.raises(SettingError, match=r"expected \+0, .*sum to \+0\.6040 and .* -0\.6060, found \+1"):
        spread_over_residues(topology, qm, links, 1)


def test_remainders_of_residues_without_integer_charges():
    """As at the ends of nucleic acids: what is left gets the remainder and nothing else."""
    q = [0.2, 0.0, -0.5, 0.0, 0.0, 0.0, 0.0, 0.0]
    topology, qm = carbons(CHAIN, q), np.array([0, 1, 4, 5])
    links = find_links(topology, qm, LinkSettings())
    moved, remainder, _ = spread_over_residues(topology, qm, links, 0)
    assert remainder == pytest.approx(0.2)
    np.testing.assert_allclose(moved[[2, 3, 6, 7]], [-0.45, 0.05, 0.05, 0.05])
    with pytest.raises(SettingError, match=r"expected \+0, .* found \+1"):
        spread_over_residues(topology, qm, links, 1)


@pytest.mark.parametrize(
    ("bonds", "qm", "changes", "name", "message"),
    [
        (CHAIN, [0, 1, 4, 5], {"numbers": np.array([6, 6, 7, 6, 6, 6, 6, 6])}, "polar", "a bond C-N"),
        ([(0, 1), (1, 2), (2, 3)], [0, 1], {}, "multiple", "neither atom has four bonds"),
        ([*CHAIN, (0, 8), (8, 3), (8, 9), (8, 10)], [1, 4, 5, 0], {}, "ring", "in a ring of 5 atoms"),
        (
            [*star(0, range(1, 5)), *star(1, (5, 6, 7)), (2, 8)],
            [1, 2, 5, 6, 7, 8],
            {},
            "shared",
            "several cut bonds of",
        ),
    ],
)
def test_borders_that_are_refused_unless_allowed(bonds, qm, changes, name, message):
    topology = carbons(bonds, **changes)
    with pytest.raises(SettingError, match=message) as caught:
        find_links(topology, np.array(qm), LinkSettings())
    assert f"links.allow: [{name}]" in str(caught.value)
    every = frozenset(["polar", "multiple", "ring", "shared"])
    with pytest.raises(SettingError, match=message):
        find_links(topology, np.array(qm), LinkSettings(allow=every - {name}))
    assert len(find_links(topology, np.array(qm), LinkSettings(allow=every))) >= 1


def test_large_rings_may_be_cut_twice():
    """As a disulfide bridge makes them."""
    n = 12
    ring = [(i, (i + 1) % n) for i in range(n)]
    hydrogens = [(i, n + 2 * i + k) for i in range(n) for k in (0, 1)]
    qm = [0, 1, 2, *range(n, n + 6)]
    assert find_links(carbons(ring + hydrogens), np.array(qm), LinkSettings()).hosts.tolist() == [11, 3]


def test_a_term_across_the_border_needs_a_bond():
    angles = Harmonic(np.array([[0, 1, 2]]), np.ones(1), np.ones(1))
    topology = carbons([(0, 1), (2, 3)], angles=angles)
    with pytest.raises(
        SettingError, match=r"expected a bond where the angle .* crosses the border, found none"
    ):
        find_links(topology, np.array([0, 1]), LinkSettings())


@pytest.mark.parametrize("qm", [[5], [0, 1, 2, 3, 4, 6, 7]])
def test_an_atom_without_another_bond_stays_with_its_neighbour(qm):
    """A hydrogen cut off alone, whatever is allowed."""
    every = LinkSettings(allow=frozenset(["polar", "multiple", "ring", "shared"]))
    with pytest.raises(SettingError, match=r"\(atom 5\) and .* \(atom 1\), its only neighbour, both in the"):
        find_links(carbons(CHAIN), np.array(qm), every)


def test_a_host_without_neighbours_keeps_no_charge():
    """Two hosts, bonded to each other and to the QM region."""
    bonds = [(0, 1), (1, 2), (2, 3), *star(0, (4, 5, 6)), *star(3, (7, 8, 9))]
    topology = carbons(bonds, [0.0, 0.2, *[0.0] * 8])
    qm = np.array([0, 3, *range(4, 10)])
    links = find_links(topology, qm, LinkSettings())
    for scheme in SCHEMES:
        with pytest.raises(SettingError, match=r"to take up its charge of \+0.2000 e, found none"):
            move_host_charges(topology, topology.charges, links, qm, scheme)


@pytest.mark.parametrize("position", ["scaled", "fixed"])
def test_a_hydrogen_beyond_its_host(position):
    message = r"links.length: expected a hydrogen nearer than the host, at less than 1.500 .* found 1.600"
    with pytest.raises(SettingError, match=message):
        find_links(carbons(CHAIN), np.array([0, 1, 4, 5]), LinkSettings(position, 1.6 * ANGSTROM))


def test_terms_with_an_mm_atom_stay(tmp_path):
    """Counted by hand over the bonds of butane; the Coulomb part of 1-4 pairs across the border goes."""
    write_alkane(tmp_path, 4)
    setup = setup_of(tmp_path, qm=f"{{atoms: {HALF}}}")
    left, given = setup.qm_region.force_field, setup.topology
    for name, inside in (("bonds", 6), ("angles", 9), ("torsions", 6)):
        found, all_of = getattr(left, name).atoms, getattr(given, name).atoms
        assert len(all_of) - len(found) == np.isin(all_of, HALF).all(axis=1).sum() == inside
    assert not left.charges[HALF].any()
    crossing = np.isin(left.pairs14.atoms, HALF).sum(axis=1) == 1
    assert crossing.sum() == 15  # 3 H1-C3, 2 H2-C4, 4 H2-H3, C1-C4, 2 C1-H3, 3 C2-H4
    pairs = {tuple(pair) for pair in left.exclusions.tolist()}
    assert {(4, 7), (0, 7), (4, 10), (5, 7)} <= pairs  # bonds and angles across the border


@pytest.mark.parametrize(
    ("coupling", "links"),
    [
        ("cutoff", "{host_charge: charge-shift, position: fixed}"),
        ("pme", "{host_charge: charge-shift}"),
        ("pme", "{host_charge: redistribute}"),
        ("cutoff", "{host_charge: zero}"),
    ],
)
def test_conformance_of_butane_in_water(tmp_path, coupling, links):
    """Everything at once in a triclinic cell, the molecule across its faces."""
    write_alkane(tmp_path, 4, waters=40, cell=SMALL)
    setup = setup_of(
        tmp_path,
        qm=f"{{atoms: {HALF}, links: {links}}}",
        mm="cutoff: 6 angstrom, electrostatics: ewald, ewald_tolerance: 1e-6",
        embedding=f"{{scheme: {coupling}, cutoff: 6.0 angstrom, switch: 2 angstrom}}",
    )
    evaluator, sample = setup.evaluator(), sample_of(setup)
    kinds = kinds_of_atoms(evaluator, sample.positions[0], sample.cell(0), 2)
    assert (kinds["link partner"].tolist(), kinds["host"].tolist()) == ([4], [7])
    if "zero" not in links:  # charges on the bonds C3-H, C3-H and C3-C4
        assert set(kinds["next to the host"]) <= {8, 9, 10}
    check_qmmm(evaluator, sample, Tolerances(mesh=1e-6), count=1)


def test_a_lost_force_on_a_link_hydrogen_is_found(tmp_path):
    """Its share is taken from the partner and the host, and the suite says which atom is wrong."""
    write_alkane(tmp_path, 4)
    setup = setup_of(tmp_path, qm=f"{{atoms: {HALF}}}")
    evaluator, sample = setup.evaluator(), sample_of(setup)
    check_qmmm(evaluator, sample)
    lossy = LossyParticles(len(evaluator.numbers), evaluator.particles.sites)
    with pytest.raises(AssertionError, match=r"gradient of atom 4 \(link partner\)"):
        check_qmmm(replace(evaluator, particles=lossy), sample)


def test_a_frame_has_the_hydrogen_and_not_the_host(tmp_path):
    write_alkane(tmp_path, 4)
    setup = setup_of(tmp_path, qm=f"{{atoms: {HALF}}}")
    region = setup.qm_region.cut(setup.system.positions[None], None)
    assert region.numbers.tolist() == [6, 1, 1, 1, 6, 1, 1, 1]
    host = region.site_particles[0] == 7
    assert (region.site_numbers[0, host], region.site_charges[0, host]) == (0, 0.0)
    assert sorted(region.site_numbers[0].tolist()) == [0] * 7 + [1] * 5 + [6]
    assert region.site_charges.sum() == pytest.approx(0.0, abs=1e-12)
    assert setup.engine.numbers.tolist() == region.numbers.tolist()


def test_listed_groups_between_a_host_and_its_neighbour(tmp_path):
    """The charges on the bond between them are in one group, and so is each other particle."""
    write_alkane(tmp_path, 4)
    listed = setup_of(tmp_path, qm=f"{{atoms: {HALF}}}", embedding="{groups: [[7, 8, 9], [10, 11, 12, 13]]}")
    partition = listed.qm_region.partition
    assert sorted(partition.groups.particles.tolist()) == [*range(7, 14), *range(15, 21)]
    by_residue = setup_of(tmp_path, qm=f"{{atoms: {HALF}}}")
    energies = [
        setup.evaluator(frozenset({"low"})).evaluate(setup.system.positions[None], None).energy[0]
        for setup in (listed, by_residue)
    ]
    assert energies[0] == pytest.approx(energies[1], abs=1e-9)


def test_charges_that_do_not_fit(tmp_path):
    write_alkane(tmp_path, 4)
    with pytest.raises(ConfigError, match=r"qm.charge: expected \+0, as the force-field charges .*found -1"):
        setup_of(tmp_path, qm=f"{{atoms: {HALF}, charge: -1}}").evaluator()
    spread = setup_of(tmp_path, qm=f"{{atoms: {HALF}, charge_remainder: 'index 10'}}").qm_region
    names, _, _ = alkane(4)
    given = alkane_charges(names)
    expected = given[10] + given[HALF].sum()
    assert spread.force_field.charges[10] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(
        ConfigError, match=r"qm.atoms: expected .*, its only neighbour, both in the QM region"
    ):
        setup_of(tmp_path, qm="{atoms: [0, 1]}").evaluator()


def test_frames_labels_and_models_of_a_cut_molecule(tmp_path, run):
    """From a trajectory to a delta model, all with the hydrogen; a low-level label is the running energy."""
    n = write_alkane(tmp_path, 4)
    setup = setup_of(tmp_path, qm=f"{{atoms: {HALF}}}")
    rng, x = np.random.default_rng(0), setup.system.positions * BOHR_IN_ANGSTROM
    frames = [x + rng.normal(scale=0.03, size=x.shape) for _ in range(6)]
    symbols = [name[0] for name in setup.system.names]
    with (tmp_path / "run.pos_0.xyz").open("w", encoding="utf-8") as file:
        for step, frame in enumerate(frames):
            cell = "# CELL(abcABC): 90 90 90 90 90 90"
            file.write(f"{n}\n{cell} Step: {step} Bead: 0 positions{{angstrom}} cell{{angstrom}}\n")
            for symbol, (a, b, c) in zip(symbols, frame, strict=True):
                file.write(f"{symbol} {a:.8f} {b:.8f} {c:.8f}\n")
    config, store = tmp_path / "pidelta.yaml", tmp_path / "frames.h5"
    assert run("sample", config, tmp_path / "run.pos_0.xyz", "--output", store) == 0
    assert run("label", store, "--low", config, "--workers", 1) == 0
    assert run("label", store, "--xc", "PBE", "--basis", "sto-3g", "--grid-level", 0, "--workers", 1) == 0
    with FrameStore(store) as opened:
        label, frame = opened.label(2, "low", setup.engine.identity), opened.frame(2)
    low = setup.evaluator(frozenset({"low"})).evaluate(frames[2][None] / BOHR_IN_ANGSTROM, None)
    assert frame.numbers.tolist() == [6, 1, 1, 1, 6, 1, 1, 1]
    assert label.energy == pytest.approx(low.energy[0], abs=1e-7)
    (tmp_path / "train.yaml").write_text(
        "embedding: {scheme: cutoff, cutoff: 1.4 nm, switch: 0.2 nm, links: 'scaled, charge-shift'}\n"
        "networks: {energy_width: 4, response_width: 4, pair_width: 4, short_width: 4}\n"
        "training: {epochs: 2, validation_fraction: 0.34}\n",
        encoding="utf-8",
    )
    arguments = ("--settings", tmp_path / "train.yaml", "--output", tmp_path)
    assert run("train", store, *arguments) == 0
    more = "delta: {models: [delta-0.pt]}\n"
    evaluator = setup_of(tmp_path, qm=f"{{atoms: {HALF}}}", more=more).evaluator()
    found, step = evaluator.evaluate(setup.system.positions[None], None), np.zeros((n, 3))
    step[[4, 7]] = [[0.4, -0.1, 0.2], [-0.3, 0.2, 0.1]]

    def delta(size):
        return evaluator.evaluate((setup.system.positions + size * step)[None], None).terms["delta"].energy[0]

    slope = (8 * (delta(1e-3) - delta(-1e-3)) - (delta(2e-3) - delta(-2e-3))) / 12e-3
    assert (found.terms["delta"].gradient[0] * step).sum() == pytest.approx(slope, rel=1e-9, abs=1e-9)
    with pytest.raises(ModelError, match=r"embedding links.*scaled, charge-shift.*scaled, zero"):
        setup_of(tmp_path, qm=f"{{atoms: {HALF}, links: {{host_charge: zero}}}}", more=more).evaluator()


def test_charges_of_ase_add_up(tmp_path):
    """Link hydrogens are no atoms of ASE; the charges that it gets may be given back as initial charges."""
    write_alkane(tmp_path, 4)
    setup = setup_of(tmp_path, qm=f"{{atoms: {HALF}}}")
    atoms = Atoms(setup.system.numbers, setup.system.positions * BOHR_IN_ANGSTROM)
    atoms.calc = Calculator(tmp_path / "pidelta.yaml")
    charges = atoms.get_charges()
    assert charges.sum() == pytest.approx(0.0, abs=1e-6)
    atoms.set_initial_charges(charges)
    assert atoms.get_potential_energy() == pytest.approx(
        setup.evaluator().evaluate(setup.system.positions[None], None).energy[0] * HARTREE_IN_EV, abs=1e-6
    )
