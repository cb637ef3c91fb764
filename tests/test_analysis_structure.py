"""Radial distribution functions, bonds and diffusion, against MDAnalysis, brute force and random walks."""

import warnings

import numpy as np
import pytest

from pidelta.analysis.bonds import BondLengths, bond_kinds, find_bonds
from pidelta.analysis.composition import Composition
from pidelta.analysis.diffusion import (
    diffusion,
    diffusion_section,
    finite_size_correction,
    mean_square_displacements,
)
from pidelta.analysis.distances import pairs_of, radial_distributions
from pidelta.analysis.positions_pass import read_positions
from pidelta.analysis.run_files import BeadsSnapshot
from pidelta.units import ANGSTROM, KELVIN

RNG = np.random.default_rng(4)
CELL = np.array([[16.0, 0.0, 0.0], [2.0, 17.0, 0.0], [-1.5, 3.0, 18.0]])  # angstrom, rows
N_WATERS = 40


@pytest.fixture(scope="module")
def waters():
    """(frames, beads, atoms, 3) in angstrom of molecules at random, unwrapped, and what they are."""
    oxygens = RNG.uniform(size=(6, 2, N_WATERS, 1, 3)) @ CELL
    offsets = np.concatenate(
        [np.zeros((6, 2, N_WATERS, 1, 3)), RNG.normal(size=(6, 2, N_WATERS, 2, 3)) * 0.6], axis=3
    )
    jumps = RNG.integers(-2, 3, size=(1, 1, N_WATERS, 1, 3)) @ CELL
    positions = (oxygens + offsets + jumps).reshape(6, 2, 3 * N_WATERS, 3)
    table = np.arange(3 * N_WATERS).reshape(-1, 3)
    bonds = table[:, [0, 1, 0, 2]].reshape(-1, 2)
    composition = Composition(
        names=("O", "H", "H") * N_WATERS,
        regions={"QM": table[0], "MM": table[1:].ravel()},
        bonds=bonds,
        waters=table[1:],
        molecules=np.repeat(np.arange(N_WATERS), 3),
    )
    return positions, composition


def frames(positions):
    """What `BeadFrames` gives, from an array (n, B, N, 3) in angstrom."""

    def read(index, bead, atoms=None):
        values = positions[index, bead] * ANGSTROM
        return (values if atoms is None else values[atoms]), CELL * ANGSTROM

    class Frames:
        n_beads = positions.shape[1]

        def __len__(self):
            return len(positions)

    found = Frames()
    found.read = read
    return found


def test_radial_distributions_are_those_of_mdanalysis(waters):
    positions, composition = waters
    from MDAnalysis import Universe
    from MDAnalysis.analysis.rdf import InterRDF
    from MDAnalysis.coordinates.memory import MemoryReader
    from MDAnalysis.lib.mdamath import triclinic_box

    pairs = pairs_of(composition)
    names = [pair.name for pair in pairs]
    assert names[:3] == ["water O - water O", "water O - water H", "water H - water H"]
    assert names[3:] == ["QM H(O) - water O", "QM H(O) - water H", "QM O - water O", "QM O - water H"]
    found = radial_distributions(pairs, frames(positions), composition.molecules, 100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        box = triclinic_box(*CELL)
        universe = Universe.empty(3 * N_WATERS, trajectory=False)
        shape = (-1, 3 * N_WATERS, 3)
        universe.load_new(positions.reshape(shape), format=MemoryReader, order="fac", dimensions=box)
        for pair, ours in zip(pairs, found, strict=True):
            block = {
                "water O - water O": (1, 1),
                "water O - water H": (1, 2),
                "water H - water H": (2, 2),
            }.get(pair.name)
            theirs = InterRDF(
                universe.atoms[pair.first],
                universe.atoms[pair.second],
                nbins=len(ours.r),
                range=(0.0, float(ours.r[-1] + ours.r[0])),
                exclusion_block=block,
            ).run()
            np.testing.assert_allclose(ours.r, theirs.results.bins, rtol=1e-6)
            off = np.abs(ours.g - theirs.results.rdf) > 1e-3 * (1.0 + ours.g)
            assert off.sum() <= 4  # in single precision a distance falls on the other side of an edge
            np.testing.assert_allclose(ours.g.sum(), theirs.results.rdf.sum(), rtol=1e-4)


def test_molecules_at_random_are_an_ideal_gas(waters):
    positions, composition = waters
    oxygens = radial_distributions(pairs_of(composition)[:1], frames(positions), composition.molecules, 100)[
        0
    ]
    far = oxygens.r > 3.0
    weights = oxygens.r[far] ** 2
    assert np.average(oxygens.g[far], weights=weights) == pytest.approx(1.0, abs=0.03)
    z = (oxygens.g[far] - 1.0) / oxygens.error[far]
    assert 0.6 < np.sqrt(np.mean(z**2)) < 1.8


def test_some_structures_of_a_long_run(waters):
    """Every bead has its turn, and g stays that of the whole within its noise."""
    positions, composition = waters
    read = []
    source = frames(positions)
    whole = source.read
    source.read = lambda index, bead, atoms=None: (read.append((index, bead)), whole(index, bead, atoms))[1]
    radial_distributions(pairs_of(composition)[:1], source, composition.molecules, 6)
    assert len(set(read)) == 6
    assert {bead for _, bead in read} == {0, 1}
    assert {index for index, _ in read} == set(range(6))


NUMBERS = np.array([8, 1, 1, 6, 1, 1, 6])
GEOMETRY = np.array(
    [
        [0.0, 0.0, 0.0],
        [0.96, 0.0, 0.0],
        [-0.24, 0.93, 0.0],
        [5.0, 0.0, 0.0],
        [6.09, 0.0, 0.0],
        [9.0, 0.0, 0.0],
        [5.0, 1.5, 0.0],
    ]
)


def test_bonds_by_distance():
    bonds = find_bonds(NUMBERS, GEOMETRY * ANGSTROM)
    assert sorted(map(tuple, bonds.tolist())) == [(0, 1), (0, 2), (3, 4), (3, 6)]
    assert find_bonds(np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.4]])).shape == (0, 2)


def test_kinds_of_bonds(waters):
    _, composition = waters
    kinds = {kind.name: kind for kind in bond_kinds(composition, GEOMETRY, [(0, 5)])}
    assert {name: len(kind.atoms) for name, kind in kinds.items()} == {
        "QM O-H": 2,
        "water O-H": 78,
        "O0-H5": 1,
    }
    assert {name for name, kind in kinds.items() if kind.is_followed} == {"QM O-H", "O0-H5"}


def test_lengths_of_beads_and_centroids():
    """Two beads that differ by 0.1 angstrom in one bond; a molecule cut by the cell is whole all the same."""
    composition = Composition(("C", "H"), bonds=np.array([[0, 1]]))
    cell = np.eye(3) * 10.0 * ANGSTROM
    collected = BondLengths(bond_kinds(composition, np.zeros((2, 3))), True)
    for step in range(40):
        beads = np.array([[[0.3, 0.0, 0.0], [1.34, 0.0, 0.0]], [[0.3, 0.0, 0.0], [1.44, 0.0, 0.0]]])
        beads[:, 1] -= [10.0 if step % 2 else 0.0, 0.0, 0.0]
        collected.add(BeadsSnapshot(step, beads * ANGSTROM, cell))
    section = collected.section()
    (number,) = section.numbers
    assert (number.name, number.unit) == ("C-H", "Å")
    assert number.mean.value == pytest.approx(1.09, abs=1e-6)
    assert number.details["standard deviation, beads / Å"] == pytest.approx(0.05, abs=0.002)
    assert number.details["of centroids / Å"] == 0.0
    beads, centroid = section.pictures[0].panels[0].curves
    for curve in (beads, centroid):
        assert np.sum(curve.y) * (curve.x[1] - curve.x[0]) == pytest.approx(1.0, abs=0.02)
    assert centroid.x[centroid.y.argmax()] == pytest.approx(1.09, abs=0.04)


@pytest.mark.parametrize("is_periodic", [True, False])
def test_a_cell_that_is_none_does_not_fold_lengths(is_periodic):
    """Of a molecule in vacuum the cell of i-PI is made up."""
    source = frames(np.array([[[[0.0, 0.0, 0.0], [15.0, 0.0, 0.0]]]] * 4))
    source.is_complete, source.steps = True, np.arange(4)
    source.stream = lambda: (
        BeadsSnapshot(step, source.read(step, 0)[0][None], CELL * ANGSTROM) for step in range(4)
    )
    composition = Composition(("O", "O"), is_periodic=is_periodic)
    (number,) = read_positions(composition, source, [(0, 1)], None).bonds.section().numbers
    assert number.mean.value == pytest.approx(1.0 if is_periodic else 15.0)


@pytest.mark.parametrize("spread", [1e-4, 0.003, 0.4, 5.0, 60.0])
@pytest.mark.parametrize("middle", [1.0, 20.0, 300.0])
def test_lengths_of_any_size(middle, spread):
    """Mean and deviation are those of the lengths, and the curve is where they are."""
    lengths = np.abs(np.random.default_rng(1).normal(size=(400, 10)) * spread + middle)
    composition = Composition(("O", "O"), is_periodic=False)
    collected = BondLengths(bond_kinds(composition, np.zeros((2, 3)), [(0, 1)])[-1:], False, False)
    for step, row in enumerate(lengths):
        beads = np.zeros((10, 2, 3))
        beads[:, 1, 2] = row
        collected.add(BeadsSnapshot(step, beads * ANGSTROM, np.eye(3)))
    section = collected.section()
    (number,) = section.numbers
    assert number.details["standard deviation, beads / Å"] == pytest.approx(lengths.std(), abs=6e-5)
    (curve,) = section.pictures[0].panels[0].curves
    weights = curve.y / curve.y.sum()
    assert curve.y.sum() * (curve.x[1] - curve.x[0]) == pytest.approx(1.0, abs=0.02)
    bin_width = curve.x[1] - curve.x[0]
    assert (weights * curve.x).sum() == pytest.approx(lengths.mean(), abs=0.02 * lengths.std() + bin_width)
    assert np.sqrt((weights * (curve.x - (weights * curve.x).sum()) ** 2).sum()) == pytest.approx(
        lengths.std(), rel=0.05, abs=bin_width
    )


def test_displacements_by_fourier_transforms():
    walks = np.cumsum(RNG.normal(size=(50, 7, 3)), axis=0) + 100.0
    found = mean_square_displacements(walks)
    for lag in (0, 1, 10, 49):
        expected = np.mean(((walks[lag:] - walks[: len(walks) - lag]) ** 2).sum(axis=2))
        assert found[lag] == pytest.approx(expected, abs=1e-8)


def test_diffusion_of_a_random_walk():
    """D = <step^2> / 6 t, with an error that says how far off it is."""
    row_ps, coefficient = 0.05, 0.24
    deviations = []
    for _ in range(6):
        steps = RNG.normal(size=(2000, 60, 3)) * np.sqrt(2.0 * coefficient * row_ps)
        found = diffusion(np.cumsum(steps, axis=0), row_ps)
        deviations.append((found.coefficient.value - coefficient) / found.coefficient.error)
        assert found.coefficient.error < 0.1 * coefficient
    assert np.abs(deviations).max() < 4.5
    section = diffusion_section(found, 300.0 * KELVIN, (18.6 * ANGSTROM) ** 3)
    assert [number.unit for number in section.numbers] == ["Å²/ps", "Å²/ps"]


def test_short_runs_have_no_diffusion_or_no_error():
    walk = np.cumsum(RNG.normal(size=(1000, 5, 3)), axis=0)
    assert diffusion(walk, 0.002) is None
    assert "too short" in diffusion_section(None, None, 1.0).remarks[0]
    found = diffusion(walk, 0.01)
    assert np.isnan(found.coefficient.error)


def test_finite_size_correction():
    """2.837 k_B T / (6 pi eta L) of 18.6 angstrom at 300 K, by hand in SI units."""
    expected = 2.837297 * 1.380649e-23 * 300.0 / (6.0 * np.pi * 0.890e-3 * 18.6e-10) * 1e8
    assert finite_size_correction(300.0 * KELVIN, (18.6 * ANGSTROM) ** 3) == pytest.approx(expected, rel=1e-6)
