"""The summary of series whose statistics are known."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from pidelta.analysis.ipi_output import Properties
from pidelta.analysis.statistics import Mean, mean_with_error
from pidelta.analysis.summary import fit_drift, summarise
from pidelta.units import HARTREE_IN_EV

RNG = np.random.default_rng(11)


def properties(n=400, drift=0.03, n_atoms=12):
    """A simulation at 300 K whose conserved quantity drifts by `drift` meV/atom/ps."""
    step = np.arange(n) * 2.0
    time_ps = step * 5e-4
    units = {"step": "", "time": "picosecond", "temperature": "kelvin", "conserved": "electronvolt"}
    units |= {"potential": "electronvolt", "kinetic_cv": "electronvolt"}
    columns = {
        "step": step,
        "time": time_ps,
        "temperature": 300.0 + 10.0 * RNG.normal(size=n),
        "conserved": -50.0 + drift * n_atoms / 1000.0 * time_ps,
        "potential": -60.0 + RNG.normal(size=n),
        "kinetic_cv": np.full(n, 1.5),
    }
    return Properties(columns, units)


def test_summary():
    summary = summarise(properties(), 12)
    assert (summary.steps, summary.time_ps) == (798, pytest.approx(0.399))
    assert abs(summary.temperature.value - 300.0) < 4.0 * summary.temperature.error
    assert summary.drift.slope.value == pytest.approx(0.03, rel=1e-4)
    assert summary.drift.rms < 1e-6
    assert summary.kinetic_cv.value == pytest.approx(1.5)
    rows = dict(summary.rows())
    assert rows["steps"] == "798"
    assert re.fullmatch(r"\+0\.03 ± \S+ meV/atom/ps", rows["drift of the conserved quantity"])


def test_summary_of_two_columns_only():
    full = properties()
    short = Properties({name: full.columns[name] for name in ("step", "potential")}, full.units)
    summary = summarise(short, 12)
    assert summary.time_ps is summary.temperature is summary.drift is None
    assert [name for name, _ in summary.rows()] == ["steps", "potential energy"]


def test_a_cold_start_is_left_out():
    data = properties()
    for name, jump in (("conserved", 3.0), ("temperature", -200.0)):
        data.columns[name][:20] += jump
    summary = summarise(data, 12)
    assert summary.drift.slope.value == pytest.approx(0.03, rel=1e-4)
    assert abs(summary.temperature.value - 300.0) < 4.0 * summary.temperature.error
    data.columns["conserved"][20] += 3.0
    assert summarise(data, 12).drift.slope.value != pytest.approx(0.03, rel=1e-4)


def test_drift_is_per_atom():
    time_ps = np.linspace(0.0, 2.0, 50)
    conserved = (7.0 + 0.012 * time_ps) / HARTREE_IN_EV
    assert fit_drift(time_ps, conserved, 6).slope.value == pytest.approx(2.0)


def test_error_of_a_drift_is_the_scatter_of_drifts():
    """Of many series of the same correlated noise, which hides the drift if values count as independent."""
    a, n, time_ps = 0.95, 2000, np.linspace(0.0, 5.0, 2000)
    noise = RNG.normal(size=(60, n))
    for i in range(1, n):
        noise[:, i] = a * noise[:, i - 1] + np.sqrt(1.0 - a * a) * noise[:, i]
    slopes = [fit_drift(time_ps, (0.01 * time_ps + row) / HARTREE_IN_EV / 1000.0, 1).slope for row in noise]
    scatter = np.std([slope.value for slope in slopes])
    assert np.mean([slope.value for slope in slopes]) == pytest.approx(0.01, abs=4.0 * scatter / np.sqrt(60))
    assert 0.8 * scatter < np.mean([slope.error for slope in slopes]) < 2.2 * scatter
    assert np.isnan(fit_drift(time_ps[:6], noise[0, :6], 1).slope.error)


def test_error_of_independent_and_of_correlated_series():
    white = RNG.normal(size=16384)
    assert mean_with_error(white).error == pytest.approx(1.0 / np.sqrt(len(white)), rel=0.6)
    # An autoregressive series of correlation a: the error of the mean grows by sqrt((1 + a) / (1 - a)).
    a, series = 0.9, np.empty(16384)
    series[0] = white[0]
    for i in range(1, len(series)):
        series[i] = a * series[i - 1] + np.sqrt(1.0 - a * a) * white[i]
    expected = np.sqrt((1.0 + a) / (1.0 - a) / len(series))
    assert 0.8 * expected < mean_with_error(series).error < 2.2 * expected


def test_error_of_a_short_series_is_unknown():
    mean = mean_with_error(np.array([1.0, 3.0]))
    assert mean.value == 2.0
    assert np.isnan(mean.error)


def test_an_error_that_nothing_tells_is_left_out():
    assert str(Mean(301.234, math.nan)) == "301.2"
    assert str(Mean(301.234, 2.5)) == "301.2 ± 2.5"


def test_what_is_not_a_number_has_no_drift():
    broken = properties()
    broken.columns["conserved"][107] = math.nan
    assert math.isnan(summarise(broken, 12).drift.slope.value)
    broken.columns["time"][109] = math.inf
    assert math.isnan(summarise(broken, 12).drift.rms)
    assert broken.not_numbers("temperature") == ""
    assert broken.not_numbers("conserved").startswith("conserved: not a number at ")
