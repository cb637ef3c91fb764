"""Estimators, temperatures and radii of ring polymers that are drawn from their exact distribution."""

from types import SimpleNamespace

import numpy as np
import pytest

from pidelta.analysis.composition import Composition, Group
from pidelta.analysis.estimators import centroid_virial, kinetic_energies, primitive, virial
from pidelta.analysis.gyration import Gyration
from pidelta.analysis.run_files import BeadsSnapshot
from pidelta.analysis.statistics import compare_with_canonical
from pidelta.analysis.temperatures import Freedom, kinetic_temperatures
from pidelta.ipi.outputs import Held
from pidelta.units import BOHR_IN_ANGSTROM, KELVIN

RNG = np.random.default_rng(9)
TEMPERATURE = 300.0 * KELVIN
OMEGA = 0.0164  # hartree: 3600 1/cm
N_BEADS = 8


def ring_frequencies(n_beads):
    """Of the normal modes of free ring polymers, in hartree."""
    return 2.0 * n_beads * TEMPERATURE * np.sin(np.pi * np.arange(n_beads) / n_beads)


def harmonic_beads(n_samples, mass, n_beads=N_BEADS, omega=OMEGA):
    """(n, P, 3) positions of beads in a harmonic potential: independent normal modes."""
    spread = np.sqrt(n_beads * TEMPERATURE / (mass * (omega**2 + ring_frequencies(n_beads) ** 2)))
    modes = RNG.normal(size=(n_samples, n_beads, 3)) * spread[:, None]
    index = np.arange(n_beads)
    # real, orthogonal discrete Fourier transform (Hartley's)
    angle = 2.0 * np.pi * np.outer(index, index) / n_beads
    transform = (np.cos(angle) + np.sin(angle)) / np.sqrt(n_beads)
    return np.einsum("jk,nki->nji", transform, modes)


def exact_kinetic_energy(n_beads=N_BEADS, omega=OMEGA):
    """Of three dimensions with P beads: 1/2 k_B T sum_k w^2 / (w^2 + w_k^2)."""
    return 1.5 * TEMPERATURE * np.sum(omega**2 / (omega**2 + ring_frequencies(n_beads) ** 2))


def test_all_estimators_give_the_exact_kinetic_energy():
    composition = Composition(("H", "O"), is_periodic=False)
    masses = composition.masses
    r = np.stack([harmonic_beads(6000, mass) for mass in masses], axis=2)
    f = -masses[:, None] * OMEGA**2 * r
    for estimate in (
        np.array([primitive(each, masses, TEMPERATURE) for each in r]),
        np.array([centroid_virial(each, force, TEMPERATURE) for each, force in zip(r, f, strict=True)]),
    ):
        error = estimate.std(axis=0) / np.sqrt(len(estimate))
        assert (np.abs(estimate.mean(axis=0) - exact_kinetic_energy()) < 4.0 * error).all()
    assert exact_kinetic_energy() > 3.0 * 1.5 * TEMPERATURE


def test_virial_of_a_bound_pair():
    """Two atoms on a spring, their centre of mass free: the exact kinetic energy of both together."""
    masses = Composition(("H", "O")).masses
    reduced = masses.prod() / masses.sum()
    relative = harmonic_beads(5_000, reduced)
    spread = np.sqrt(N_BEADS * TEMPERATURE / (masses.sum() * (1e-9 + ring_frequencies(N_BEADS) ** 2)))
    index = np.arange(N_BEADS)
    angle = 2.0 * np.pi * np.outer(index, index) / N_BEADS
    transform = (np.cos(angle) + np.sin(angle)) / np.sqrt(N_BEADS)
    centre = np.einsum("jk,nki->nji", transform, RNG.normal(size=(5_000, N_BEADS, 3)) * spread[:, None])
    r = np.stack(
        [centre + relative * masses[1] / masses.sum(), centre - relative * masses[0] / masses.sum()], axis=2
    )
    force = -reduced * OMEGA**2 * relative
    f = np.stack([force, -force], axis=2)
    whole = np.array([virial(*each, masses, TEMPERATURE) for each in zip(r, f, strict=True)])
    expected = exact_kinetic_energy() + 1.5 * TEMPERATURE
    total = whole.sum(axis=1)
    assert abs(total.mean() - expected) < 4.0 * total.std() / np.sqrt(len(total))
    per_atom = np.array([centroid_virial(*each, TEMPERATURE) for each in zip(r, f, strict=True)])
    difference = (whole - per_atom).mean(axis=0)
    error = (whole - per_atom).std(axis=0) / np.sqrt(len(whole))
    assert (np.abs(difference) < 4.0 * error).all()


def frames(values, step=10):
    """What `BeadFrames` gives, from an array (n, B, N, 3)."""
    snapshots = [BeadsSnapshot(step * i, each, np.eye(3) * 50.0) for i, each in enumerate(values)]
    return SimpleNamespace(
        steps=np.arange(len(values)) * step,
        n_beads=values.shape[1],
        is_complete=True,
        snapshot=lambda index: snapshots[index],
        stream=lambda: iter(snapshots),
    )


def test_series_of_groups():
    composition = Composition(("H", "O", "H"), regions={"QM": np.array([0]), "MM": np.array([1, 2])})
    names = [group.name for group in composition.groups]
    assert names == ["all", "QM", "MM", "H", "MM H", "MM O"]  # O is in MM alone
    r = RNG.normal(size=(5, N_BEADS, 3, 3))
    f = RNG.normal(size=(5, N_BEADS, 3, 3))
    found = {
        each.kind: each
        for each in kinetic_energies(composition, frames(r), frames(f), TEMPERATURE, is_bound=True)
    }
    assert set(found) == {"primitive", "centroid virial", "virial"}
    per_atom = centroid_virial(r[2], f[2], TEMPERATURE)
    energies = dict(zip(names, found["centroid virial"].energies[2], strict=True))
    assert energies["H"] == pytest.approx(per_atom[[0, 2]].sum())
    assert energies["all"] == pytest.approx(energies["QM"] + energies["MM"])


def canonical_velocities(masses, n_samples, n_beads, fixes_momentum):
    """(n, P, N, 3) at P times the temperature; the total momentum of the centroids is taken away."""
    spread = np.sqrt(n_beads * TEMPERATURE / masses)
    velocities = RNG.normal(size=(n_samples, n_beads, len(masses), 3)) * spread[:, None]
    if fixes_momentum:
        centre = np.einsum("a,nbai->ni", masses, velocities) / (masses.sum() * n_beads)
        velocities -= centre[:, None, None]
    return velocities


@pytest.mark.parametrize("n_beads", [1, 4])
@pytest.mark.parametrize("fixes_momentum", [True, False])
def test_canonical_velocities_are_canonical(n_beads, fixes_momentum):
    """In a small molecule, where the fixed momentum counts: of all groups, of beads and of centroids."""
    composition = Composition(("O", "H", "H", "O", "H"), regions={"QM": np.arange(3), "MM": np.array([3, 4])})
    velocities = canonical_velocities(composition.masses, 3000, n_beads, fixes_momentum)
    found = kinetic_temperatures(
        composition, frames(velocities), n_beads, held=Held(fixes_momentum), are_centroids=False
    )
    assert [each.label for each in found] == ([""] if n_beads == 1 else ["beads", "centroid"])
    for each in found:
        for index, group in enumerate(each.groups):
            test = compare_with_canonical(each.values[:, index], each.freedom.shape[index], TEMPERATURE)
            assert abs(test.z) < 4.0, group.name
            assert abs(test.width.value - 1.0) < 4.0 * test.width.error, group.name
            # One heavy atom of two with fixed momentum has two widths, which one Gamma only resembles.
            if not fixes_momentum or each.freedom.degrees[index] > 6.0:
                assert test.p_value > 1e-3, group.name
            hot = compare_with_canonical(1.2 * each.values[:, index], each.freedom.shape[index], TEMPERATURE)
            assert hot.z > 4.0


def test_freedom_of_one_atom_of_one():
    """A single atom with fixed momentum does not move, and nothing is divided by zero."""
    freedom = Freedom.of(Composition(("H",)), [Group("all", np.array([0]))], 1, True)
    assert freedom.degrees[0] == freedom.shape[0] == 0.0


def test_radius_of_gyration_of_free_ring_polymers():
    """<r_g^2> of a free particle with P beads: 3 sum_k k_B T / (m w_k^2) over k > 0."""
    composition = Composition(("H", "O"))
    collected = Gyration(composition)
    r = np.stack([harmonic_beads(4000, mass, omega=1e-7) for mass in composition.masses], axis=2)
    for index, each in enumerate(r):
        collected.add(BeadsSnapshot(index, each, np.eye(3)))
    section = collected.section()
    numbers = {number.name: number for number in section.numbers}
    for name, mass in zip(("H", "O"), composition.masses, strict=True):
        square = 3.0 * np.sum(TEMPERATURE / (mass * ring_frequencies(N_BEADS)[1:] ** 2))
        expected = np.sqrt(square) * BOHR_IN_ANGSTROM
        assert abs(numbers[name].mean.value - expected) < 4.0 * numbers[name].mean.error
        assert numbers[name].mean.error < 0.02 * expected
