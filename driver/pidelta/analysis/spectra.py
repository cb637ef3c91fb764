"""Spectra: vibrational densities of states from velocities, infrared absorption from dipoles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pidelta.analysis.composition import Composition, group_matrix
from pidelta.analysis.run_files import BeadFrames
from pidelta.analysis.sections import Curve, Mark, Number, Panel, Picture, Section
from pidelta.analysis.statistics import Mean
from pidelta.state import FloatArray
from pidelta.units import ATOMIC_TIME_IN_FEMTOSECOND, BOHR_IN_ANGSTROM

_SPEED_OF_LIGHT = 137.035999084  # atomic units
_AVOGADRO = 6.02214076e23
_HIGHEST = 4500.0
"""1/cm that pictures show."""
_LONGEST_WINDOW = 4000.0 / ATOMIC_TIME_IN_FEMTOSECOND
_FEWEST_WINDOWS, _SHORTEST_WINDOW = 4, 64
FEWEST_ROWS = 32
"""Fewer resolve nothing: of rows 2 fs apart, 750 1/cm."""
_COLUMNS = 3000
"""Series that are transformed at once."""
_IN_WAVENUMBERS = 1e8 / (2.0 * math.pi * _SPEED_OF_LIGHT * BOHR_IN_ANGSTROM)
"""1/cm for an angular frequency of 1 in atomic units."""
WATER_MODES = (Mark(1643.0, "H₂O bend"), Mark(3404.0, "O-H stretch"))
"""Of liquid water, measured (Bertie, Lan, Appl. Spectrosc. 50, 1047 (1996))."""


@dataclass(frozen=True)
class Spectrum:
    """A spectral density.

    Attributes:
        name: of what.
        wavenumbers: (k,) in 1/cm, evenly spaced.
        windows: (W, k) densities of each window, which overlap by half.
    """

    name: str
    wavenumbers: FloatArray
    windows: FloatArray

    @property
    def density(self) -> FloatArray:
        """(k,) the mean over windows."""
        return np.asarray(self.windows.mean(axis=0))

    @property
    def error(self) -> FloatArray | None:
        """(k,) one standard error of it; None for fewer than three windows."""
        return _error(self.windows)

    @property
    def area(self) -> float:
        """The integral over wavenumbers, by trapezia."""
        spacing = self.wavenumbers[1] - self.wavenumbers[0]
        return float((self.density.sum() - 0.5 * (self.density[0] + self.density[-1])) * spacing)

    @property
    def centre(self) -> Mean:
        """The mean wavenumber in 1/cm, with an error from windows."""
        value = float(self.density @ self.wavenumbers / self.density.sum())
        error = _error(self.windows @ self.wavenumbers / self.windows.sum(axis=1))
        return Mean(value, math.nan if error is None else float(error))


def _error(windows: FloatArray) -> FloatArray | None:
    """Standard error of the mean over windows; those that overlap by half are worth about half as many."""
    if len(windows) < 3:
        return None
    return np.asarray(windows.std(axis=0, ddof=1) / math.sqrt(0.5 * (len(windows) + 1)))


def window_rows(n_rows: int, row_time: float) -> int:
    """Rows of a window: 4 ps, or less so that there are four windows, but not fewer than 64 rows.

    A shorter run is one window, of 32 rows at least: without these there is no spectrum.
    """
    wanted = min(int(_LONGEST_WINDOW / row_time), n_rows // _FEWEST_WINDOWS)
    return max(FEWEST_ROWS, min(n_rows, max(wanted, _SHORTEST_WINDOW)))


def resolution(rows: int, row_time: float) -> float:
    """Full width at half maximum, in 1/cm, of a sharp line through a Hann window: 1.44 / its length."""
    return 1.44 * 2.0 * math.pi / (rows * row_time) * _IN_WAVENUMBERS


class PowerSpectrum:
    """Averages the power of series over windows that overlap by half (Welch), each multiplied by Hann's.

    Args:
        rows: of a window.
        row_time: time between rows, atomic units.
        weights: (G, k) how the k series add up to G spectra.
    """

    def __init__(self, rows: int, row_time: float, weights: FloatArray) -> None:
        self._rows, self._time, self._weights = rows, row_time, weights
        self._window = np.hanning(rows + 1)[:rows]
        self._buffer: list[FloatArray] = []
        self._spectra: list[FloatArray] = []

    def add(self, values: FloatArray) -> None:
        """Take the next row, (k,)."""
        self._buffer.append(values)
        if len(self._buffer) == self._rows:
            self._spectra.append(self._transform(np.array(self._buffer)))
            self._buffer = self._buffer[self._rows // 2 :]

    def result(self) -> tuple[FloatArray, FloatArray]:
        """Angular frequencies (f,) in atomic units, and two-sided power densities (W, G, f) of W windows.

        The density is the integral of <x(0) x(t)> exp(-i w t) over all t.
        """
        frequencies = 2.0 * math.pi * np.fft.rfftfreq(2 * self._rows, self._time)
        return np.asarray(frequencies, dtype=np.float64), np.array(self._spectra)

    def _transform(self, rows: FloatArray) -> FloatArray:
        density = np.zeros((len(self._weights), self._rows + 1))
        for start in range(0, rows.shape[1], _COLUMNS):
            part = slice(start, start + _COLUMNS)
            weighted = rows[:, part] * self._window[:, None]
            power = np.abs(np.fft.rfft(weighted, n=2 * self._rows, axis=0)) ** 2
            density += self._weights[:, part] @ power.T
        return np.asarray(density * self._time / np.sum(self._window**2))


def vibrational_density(
    composition: Composition, velocities: BeadFrames, row_time: float
) -> tuple[list[Spectrum], int]:
    """Power spectra of mass-weighted velocities, of the centroids where there are several beads.

    Args:
        composition: the atoms.
        velocities: complete, evenly spaced.
        row_time: time between snapshots, atomic units.

    Returns:
        A spectrum of area one for each group, none if the run is too short; and the rows of a window.
    """
    rows = window_rows(len(velocities), row_time)
    matrix = group_matrix(composition.groups, len(composition)) * composition.masses
    power = PowerSpectrum(rows, row_time, np.repeat(matrix, 3, axis=1))
    for snapshot in velocities.stream():
        power.add(snapshot.values.mean(axis=0).ravel().astype(np.float32))
    frequencies, windows = power.result()
    spectra = []
    for index, group in enumerate(composition.groups) if len(windows) else ():
        if not composition.is_telling(group):
            continue
        spectrum = Spectrum(group.name, frequencies * _IN_WAVENUMBERS, windows[:, index])
        if spectrum.area > 0.0:
            spectra.append(replace(spectrum, windows=spectrum.windows / spectrum.area))
    return spectra, rows


def absorption(
    name: str, dipoles: FloatArray, row_time: float, temperature: float, volume: float | None
) -> tuple[Spectrum | None, int]:
    """Infrared absorption from a classical (or Kubo transformed) dipole.

    n(w) alpha(w) = 2 pi / (3 c V k_B T) times the integral of <M'(0) . M'(t)> exp(-i w t) over all t, which
    stands for the quantum correlation function with the harmonic correction factor (Ramirez, Lopez-Ciudad,
    Kumar, Marx, J. Chem. Phys. 121, 3973 (2004)). Derivatives M' are differences of neighbouring rows, and
    the spectrum is divided by what that does to a sine.

    Args:
        name: of the spectrum.
        dipoles: (n, 3) in e bohr, without jumps.
        row_time: atomic units.
        temperature: k_B T in hartree.
        volume: in bohr^3; None for a molecule.

    Returns:
        In 1/cm; for a molecule N_A V alpha, whose integral over wavenumbers is in km/mol, so the density in
        km/mol cm. None for series that are too short. Then the rows of a window.
    """
    derivatives = np.diff(dipoles, axis=0) / row_time
    rows = window_rows(len(derivatives), row_time)
    power = PowerSpectrum(rows, row_time, np.ones((1, 3)))
    for derivative in derivatives:
        power.add(derivative)
    frequencies, windows = power.result()
    if not len(windows):
        return None, rows
    half = 0.5 * frequencies * row_time
    shape = np.ones_like(half)
    shape[1:] = (half[1:] / np.sin(half[1:])) ** 2
    factor = 2.0 * math.pi / (3.0 * _SPEED_OF_LIGHT * temperature)
    if volume is None:
        factor *= (BOHR_IN_ANGSTROM * 1e-8) ** 2 * _AVOGADRO * 1e-5
    else:
        factor /= volume * BOHR_IN_ANGSTROM * 1e-8
    return Spectrum(name, frequencies * _IN_WAVENUMBERS, windows[:, 0] * (shape * factor)), rows


def spectrum_section(
    title: str,
    spectra: Sequence[Spectrum],
    rows: int,
    row_time: float,
    *,
    y_label: str,
    marks: Sequence[Mark],
    remarks: Sequence[str],
) -> Section:
    """The spectra up to 4500 1/cm, and where their highest peaks are.

    Args:
        title: of the section.
        spectra: at least one.
        rows, row_time: of a window, and the time between rows in atomic units.
        y_label: of the picture.
        marks: known vibrations; those of water are not drawn over spectra of the QM region.
        remarks: what else to say.
    """
    numbers, panels = [], []
    width = resolution(rows, row_time)
    reached = math.pi / row_time * _IN_WAVENUMBERS
    for spectrum in spectra:
        shown = spectrum.wavenumbers <= min(_HIGHEST, reached)
        x, y = spectrum.wavenumbers[shown], spectrum.density[shown]
        peaks = ", ".join(f"{peak:.0f}" for peak in _peaks(x, y, width))
        numbers.append(
            Number(
                f"mean wavenumber, {spectrum.name}",
                spectrum.centre,
                "1/cm",
                details={"peaks / (1/cm)": peaks},
            )
        )
        error = None if spectrum.error is None else spectrum.error[shown]
        shown_marks = () if spectrum.name.startswith("QM") and marks is WATER_MODES else tuple(marks)
        panels.append(
            Panel(spectrum.name, "wavenumber / (1/cm)", y_label, (Curve("", x, y, error),), shown_marks)
        )
    row_fs = row_time * ATOMIC_TIME_IN_FEMTOSECOND
    about = [
        f"{len(spectra[0].windows)} windows of {rows * row_fs / 1000.0:.3g} ps (Hann), overlapping by half: "
        f"resolution {width:.0f}/cm",
        *remarks,
    ]
    if reached < _HIGHEST:
        about.append(
            f"rows are {row_fs:.3g} fs apart: what vibrates above {reached:.0f}/cm appears at a lower, wrong "
            "wavenumber; for O-H stretches write a row every 2 to 3 fs"
        )
    picture = Picture(title.lower().replace(" ", "-"), title, tuple(panels))
    return Section(title, tuple(numbers), (picture,), tuple(about))


def _peaks(x: FloatArray, y: FloatArray, width: float) -> Iterator[float]:
    """Wavenumbers of the highest peaks, at least a resolution apart and a tenth as high as the highest."""
    from scipy.signal import find_peaks

    if len(x) < 3:
        return
    distance = max(1, round(2.0 * width / (x[1] - x[0])))
    found, _ = find_peaks(y, height=0.1 * y.max(), prominence=0.05 * y.max(), distance=distance)
    yield from x[sorted(found[np.argsort(y[found])[::-1][:6]])]
