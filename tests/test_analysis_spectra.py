"""Spectra of motions whose spectrum is known."""

import math

import numpy as np
import pytest
from scipy.signal import periodogram

from pidelta.analysis.composition import Composition
from pidelta.analysis.spectra import (
    PowerSpectrum,
    absorption,
    resolution,
    vibrational_density,
    window_rows,
)
from pidelta.units import (
    ANGSTROM,
    ATOMIC_TIME_IN_FEMTOSECOND,
    DALTON_IN_ELECTRON_MASS,
    FEMTOSECOND,
    KELVIN,
)

RNG = np.random.default_rng(2)
WAVENUMBER = 2.0 * math.pi * 137.035999084 * 0.529177210903e-8  # angular frequency of 1/cm
TEMPERATURE = 300.0 * KELVIN


class Velocities:
    """Snapshots as `BeadFrames` gives them, from an array (n, B, N, 3)."""

    def __init__(self, values):
        self._values = values

    def __len__(self):
        return len(self._values)

    def stream(self):
        for values in self._values:
            yield type("Snapshot", (), {"values": values})()


def oscillations(wavenumber, n, step, amplitude, phases):
    time = np.arange(n) * step
    return amplitude * np.cos(wavenumber * WAVENUMBER * time[:, None] + phases)


def test_density_of_states_of_oscillators():
    """Each element at its own wavenumber, each density of area one."""
    step = 2.0 * FEMTOSECOND
    phases = RNG.uniform(0.0, 2.0 * math.pi, (3, 1, 3))
    motion = {}
    for element, wavenumber in (("H", 3500.0), ("O", 1200.0), ("C", 700.0)):
        motion[element] = oscillations(wavenumber, 8000, step, 1e-4, phases[len(motion), 0])[:, None, :]
    values = np.stack([motion["H"], motion["O"], motion["C"]], axis=2)
    values = np.concatenate([values + 1e-5, values - 1e-5], axis=1)  # two beads around a centroid
    spectra, rows = vibrational_density(Composition(("H", "O", "C")), Velocities(values), step)
    assert rows == window_rows(8000, step) == 2000
    width = resolution(rows, step)
    assert width == pytest.approx(1.44 / (4e-12 * 2.99792458e10), rel=1e-3)  # 1/cm for 4 ps
    by_name = {spectrum.name: spectrum for spectrum in spectra}
    for element, wavenumber in (("H", 3500.0), ("O", 1200.0), ("C", 700.0)):
        spectrum = by_name[element]
        assert spectrum.area == pytest.approx(1.0)
        top = spectrum.wavenumbers[spectrum.density.argmax()]
        assert top == pytest.approx(wavenumber, abs=0.5 * width)
        assert spectrum.centre.value == pytest.approx(wavenumber, abs=width)
        high = spectrum.wavenumbers[spectrum.density > 0.5 * spectrum.density.max()]
        assert np.ptp(high) == pytest.approx(
            width, abs=2.0 * (spectrum.wavenumbers[1] - spectrum.wavenumbers[0])
        )
    whole = by_name["all"]
    masses = Composition(("H", "O", "C")).masses
    near = np.abs(whole.wavenumbers - 3500.0) < 100.0
    share = whole.density[near].sum() * (whole.wavenumbers[1] - whole.wavenumbers[0])
    assert share == pytest.approx(masses[0] / masses.sum(), rel=0.02)


def test_power_is_that_of_scipy():
    """One window without overlap is a periodogram with Hann's window; two-sided, per angular frequency."""
    series = RNG.normal(size=(512, 2))
    power = PowerSpectrum(512, 0.7, np.eye(2))
    for row in series:
        power.add(row)
    frequencies, windows = power.result()
    expected_frequencies, expected = periodogram(
        series, 1.0 / 0.7, "hann", nfft=1024, detrend=False, return_onesided=False, axis=0
    )
    assert windows.shape == (1, 2, 513)
    np.testing.assert_allclose(frequencies[:512], 2.0 * math.pi * expected_frequencies[:512], atol=1e-12)
    np.testing.assert_allclose(windows[0, :, :512], expected[:512].T, rtol=1e-9)


def test_intensity_of_an_oscillator():
    """The integral of a classical canonical oscillator is that of the double harmonic approximation.

    42.256 km/mol for (D/angstrom)^2/amu (Neugebauer, Hess, J. Chem. Phys. 118, 7215 (2003)).
    """
    mass, charge, step = 2.0 * DALTON_IN_ELECTRON_MASS, 0.4, 1.0 * FEMTOSECOND
    omega = 1500.0 * WAVENUMBER
    intensities = []
    for _ in range(60):
        amplitude = math.sqrt(2.0 * RNG.exponential() * TEMPERATURE / (mass * omega**2))
        x = oscillations(1500.0, 4000, step, amplitude, RNG.uniform(0.0, 2.0 * math.pi, 1))
        dipoles = charge * np.concatenate([x, np.zeros((4000, 2))], axis=1)
        spectrum, _ = absorption("one", dipoles, step, TEMPERATURE, None)
        intensities.append(spectrum.area * 2.0 * TEMPERATURE / (mass * omega**2 * amplitude**2))
    debye_per_angstrom = charge * 4.803204
    expected = 42.2561 * debye_per_angstrom**2 / 2.0
    assert np.mean(intensities) == pytest.approx(expected, rel=0.01)
    top = spectrum.wavenumbers[spectrum.density.argmax()]
    assert top == pytest.approx(1500.0, abs=10.0)


def test_absorption_in_a_box_is_that_of_a_molecule_over_its_volume():
    dipoles = RNG.normal(size=(1000, 3))
    volume = (10.0 * ANGSTROM) ** 3
    molecule, _ = absorption("a", dipoles, 40.0, TEMPERATURE, None)
    box, _ = absorption("a", dipoles, 40.0, TEMPERATURE, volume)
    ratio = 6.02214076e23 * 1e-5 * (1e-7) ** 3  # N_A (cm^-3 to km/mol) of 1 nm^3
    np.testing.assert_allclose(molecule.density, box.density * ratio, rtol=1e-6)
    moved, _ = absorption("a", dipoles + 17.0, 40.0, TEMPERATURE, volume)
    np.testing.assert_allclose(moved.density, box.density, rtol=1e-6)


def test_a_short_run_has_shorter_windows_and_no_errors():
    assert window_rows(40, 1.0) == 40
    assert window_rows(2, 1.0) == 32
    assert absorption("a", RNG.normal(size=(32, 3)), 40.0, TEMPERATURE, None) == (None, 32)
    assert window_rows(400, 1.0) == 100
    assert window_rows(10**6, 2.0 / ATOMIC_TIME_IN_FEMTOSECOND) == 2000
    spectrum, rows = absorption("a", RNG.normal(size=(70, 3)), 40.0, TEMPERATURE, None)
    assert rows == 64
    assert spectrum.error is None
    assert math.isnan(spectrum.centre.error)
