"""Diffusion of water by Einstein's relation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pidelta.analysis.sections import Curve, Number, Panel, Picture, Section
from pidelta.analysis.statistics import Mean
from pidelta.state import FloatArray
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KELVIN

SHORTEST_LAG = 1.0
"""ps; before, molecules rattle in their cages."""
_SEGMENT = 10.0
"""ps; segments of the run whose results are averaged are at least so long."""
_MOST_SEGMENTS = 10
_YEH_HUMMER = 2.837297
_VISCOSITY = 0.890e-3
"""Pa s, of real water at 298 K."""
_BOLTZMANN = 1.380649e-23


@dataclass(frozen=True)
class Diffusion:
    """What mean-square displacements show.

    Attributes:
        lags: (k,) in ps.
        displacements: (k,) mean squares in angstrom^2.
        coefficient: in angstrom^2/ps, by a line through lags from `SHORTEST_LAG` to half of a segment; the
            error from segments in time, nan for fewer than three.
    """

    lags: FloatArray
    displacements: FloatArray
    coefficient: Mean


def mean_square_displacements(positions: FloatArray) -> FloatArray:
    """Averages over molecules and origins for each lag, (n,), of unwrapped positions (n, m, 3).

    By Fourier transforms (Calandrini et al., Collection SFN 12, 201 (2011)): the square of each end of a
    displacement, and the autocorrelation of positions.
    """
    n = len(positions)
    positions = positions - positions.mean(axis=0)  # small numbers: squares cancel
    transformed = np.fft.rfft(positions, n=2 * n, axis=0)
    products = np.fft.irfft((np.abs(transformed) ** 2).sum(axis=(1, 2)), n=2 * n)[:n]
    squares = np.append(np.einsum("tmi,tmi->t", positions, positions), 0.0)
    ends = 2.0 * squares[:-1].sum() - np.concatenate([[0.0], np.cumsum(squares[:-1] + squares[-2::-1])[:-1]])
    return np.asarray((ends - 2.0 * products) / (np.arange(n, 0, -1) * positions.shape[1]))


def diffusion(positions: FloatArray, row_ps: float) -> Diffusion | None:
    """Fit the mean-square displacement of molecules.

    Args:
        positions: (n, m, 3) unwrapped, in angstrom.
        row_ps: time between rows in ps.

    Returns:
        None where the run is shorter than four times the shortest lag that counts.
    """
    length = len(positions) * row_ps
    if length < 4.0 * SHORTEST_LAG or not positions.shape[1]:
        return None
    segments = np.array_split(positions, int(np.clip(length / _SEGMENT, 1, _MOST_SEGMENTS)))
    shortest = min(len(segment) for segment in segments)
    squares = np.array([mean_square_displacements(segment[:shortest]) for segment in segments])
    lags = np.arange(shortest, dtype=np.float64) * row_ps
    fitted = (lags >= SHORTEST_LAG) & (lags <= 0.5 * shortest * row_ps)
    if fitted.sum() < 2:
        return None
    slopes = np.polyfit(lags[fitted], squares[:, fitted].T, 1)[0] / 6.0
    error = slopes.std(ddof=1) / math.sqrt(len(slopes)) if len(slopes) > 2 else math.nan
    shown = slice(0, shortest // 2 + 1)
    return Diffusion(lags[shown], squares.mean(axis=0)[shown], Mean(float(slopes.mean()), float(error)))


def finite_size_correction(temperature: float, volume: float, viscosity: float = _VISCOSITY) -> float:
    """What a periodic cube hides of the diffusion coefficient (Yeh, Hummer, JPCB 108, 15873 (2004)).

    Args:
        temperature: k_B T in hartree.
        volume: of the cell in bohr^3, taken as a cube.
        viscosity: in Pa s.

    Returns:
        2.837297 k_B T / (6 pi viscosity L) in angstrom^2/ps.
    """
    length = volume ** (1.0 / 3.0) * BOHR_IN_ANGSTROM * 1e-10
    thermal = _BOLTZMANN * temperature * HARTREE_IN_KELVIN
    return float(_YEH_HUMMER * thermal / (6.0 * math.pi * viscosity * length)) * 1e8


def diffusion_section(found: Diffusion | None, temperature: float | None, volume: float) -> Section:
    """The coefficient, and what the finite cell hides.

    Args:
        found: None where the run is too short.
        temperature: k_B T in hartree; None without one.
        volume: of the cell in bohr^3.
    """
    title = "Diffusion of water"
    if found is None:
        return Section(title, remarks=(f"the run is too short: expected {4.0 * SHORTEST_LAG:g} ps or more",))
    numbers = [Number("D of the oxygens' centroids", found.coefficient, "Å²/ps")]
    remarks = [
        f"slope / 6 of the mean-square displacement from {SHORTEST_LAG:g} ps to {found.lags[-1]:.3g} ps; "
        "1 Å²/ps is 1e-8 m²/s",
        "thermostats that act on each particle, such as Langevin's and PILE, slow diffusion down",
    ]
    if math.isnan(found.coefficient.error):
        remarks.append(f"no error: that takes {3.0 * _SEGMENT:g} ps, three segments in time")
    if temperature is not None:
        more = finite_size_correction(temperature, volume)
        corrected = Mean(found.coefficient.value + more, found.coefficient.error)
        numbers.append(Number("with the correction of Yeh and Hummer", corrected, "Å²/ps"))
        remarks.append(
            f"Yeh and Hummer: an infinite cell adds {more:.3g} Å²/ps, at the viscosity of real water, "
            f"{_VISCOSITY * 1e3:.2f} mPa s; another viscosity of the model changes that in proportion"
        )
    panel = Panel(
        "", "time / ps", "mean-square displacement / Å²", (Curve("", found.lags, found.displacements),)
    )
    return Section(title, tuple(numbers), (Picture("diffusion", "displacements", (panel,)),), tuple(remarks))
